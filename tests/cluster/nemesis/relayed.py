"""A cluster whose internal connections all pass a relay, and that has two gateways.

Every process connects from a loopback address of its own (source-address) and is reached through a door
of the relay, so the relay knows both ends of each connection. kumoctl and the tests' own clients connect
from 127.0.0.1 and are never disturbed.
"""

import contextlib
import os
import shutil
import subprocess

from cluster import Cluster, die_with_parent, free_ports, program, true

SOURCES = "127.77.0.%d"


class Relay:
    """The program relay (relay.c): one command, one answer."""

    def __init__(self):
        self.child = subprocess.Popen(
            [program("tests/nemesis/relay")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=die_with_parent,
        )

    def ask(self, *words):
        line = " ".join(str(w) for w in words)
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline().split(maxsplit=1)
        true(answer and answer[0] == "ok", f"relay: {line}: {' '.join(answer) or 'it ended'}")
        return int(answer[1])

    def link(self, source, target, state, delay_usec=0):
        self.ask("link", source, target, state, delay_usec)

    def both(self, a, b, state, delay_usec=0):
        self.link(a, b, state, delay_usec)
        self.link(b, a, state, delay_usec)

    def heal(self):
        self.link("*", "*", "pass")

    def bytes(self, source, target):
        """That were passed on from one node to another."""
        return self.ask("bytes", source, target)

    def close(self):
        with contextlib.suppress(OSError):
            self.child.stdin.close()
        self.child.wait(10)


class RelayedCluster(Cluster):
    def __init__(self, servers=5, replicas=3, **options):
        super().__init__(servers=servers, replicas=replicas, start=False, **options)
        self.relay = Relay()
        (self.gateway2_port,) = free_ports(1)
        self.gateway2 = self.add(self.make_gateway("gateway2", self.gateway2_port))
        self.gateways = [self.gateway, self.gateway2]
        self.nodes = {p.name: p for p in self.processes()}
        self.disks = []  # mounted by own_disk
        self.addresses = {}  # where others connect to: the doors of the relay
        self.wire()

    def wire(self):
        behind_doors = self.managers + self.servers
        ports = dict(zip([p.name for p in behind_doors], free_ports(len(behind_doors))))
        for number, (name, p) in enumerate(self.nodes.items(), 1):
            source = SOURCES % number
            self.relay.ask("node", name, source)
            p.set_option("source-address", source)
        for p in behind_doors:
            self.addresses[p.name] = f"127.0.0.1:{ports[p.name]}"
            self.relay.ask("door", p.name, self.addresses[p.name], p.argv_option("listen"))
        managers = ",".join(self.addresses[p.name] for p in self.managers)
        for p in self.servers + self.gateways:
            p.set_option("manager", managers)
        if len(self.managers) > 1:
            for p in self.managers:
                p.set_option("managers", managers)
                p.set_option("advertise", self.addresses[p.name])
        for p in self.servers:
            p.set_option("advertise", self.addresses[p.name])

    def start_all(self):
        for p in self.processes():
            p.start()
        self.wait_listening()

    def wait_all_serving(self, seconds):
        """Through both gateways; how long it took."""
        took = self.wait_serving(seconds)
        return took + self.wait_serving(seconds, self.gateway2_port)

    def data_dir(self, process):
        return process.argv_option("data-dir")

    def own_disk(self, process, mebibytes):
        """Its data goes to a small tmpfs; needs the right to mount."""
        path = self.data_dir(process)
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", path], check=True, timeout=10)
        self.disks.append(path)

    def close(self):
        for p in self.processes():
            with contextlib.suppress(Exception):
                p.kill9()
        for path in self.disks:
            subprocess.run(["umount", path], capture_output=True, timeout=10, check=False)
        super().close()
        with contextlib.suppress(Exception):
            self.relay.close()

    # ---- a copy of a server

    def make_clone(self, server, folder, moving=False):
        """A process on a copy of the server's data, as it lies there now; not started. Files may vanish
        meanwhile when it is `moving`."""
        shutil.rmtree(folder, ignore_errors=True)
        done = subprocess.run(["cp", "-a", self.data_dir(server), folder], capture_output=True, text=True, timeout=60)
        true(done.returncode == 0 or moving, f"cp: {done.stderr}")
        (port,) = free_ports(1)
        clone = self.make_server(f"{server.name}-clone", port, data_dir=folder)
        clone.set_option("name", server.name)
        return clone
