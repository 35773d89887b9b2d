"""What can go wrong in a cluster of real processes, and how it is made.

A fault is a function of the nemesis that does the harm and returns how to undo it. What is drawn (kind,
target, how long) comes from the seed alone; when exactly it strikes depends on the machine.
"""

import os
import shutil
import signal
import subprocess
import time

from cluster import diag, true, wait_for

class NoTarget(Exception):
    """There is nothing now that this fault may strike."""


DISK_MIB = 192  # of the server with a disk of its own
LINKS, PROCESSES, ALL = "links", "processes", "all"  # what a fault must have for itself


class Fault:
    def __init__(self, function, weight, longest, claims, needs=None):
        self.function = function
        self.name = function.__name__
        self.weight = weight
        self.longest = longest  # seconds
        self.claims = claims
        self.needs = needs  # what the machine or this version must be able to do


FAULTS = []


def fault(weight, longest, claims=PROCESSES, needs=None):
    def register(function):
        FAULTS.append(Fault(function, weight, longest, claims, needs))
        return function

    return register


# ---- processes --------------------------------------------------------------------------------------


def kill(nemesis, process):
    nemesis.harm(process, f"kill -9 {process.name}")
    process.kill9()
    return lambda: nemesis.start(process)


@fault(weight=8, longest=10)
def kill_server(nemesis):
    return kill(nemesis, nemesis.choose(nemesis.cluster.servers))


@fault(weight=3, longest=10)
def kill_two_servers(nemesis):
    first, second = nemesis.choose(nemesis.cluster.servers, 2)
    undo_first = kill(nemesis, first)
    time.sleep(nemesis.rng.choice((0, 0.05, 0.5)))
    undo_second = kill(nemesis, second)

    def undo():
        undo_first()
        time.sleep(nemesis.rng.choice((0, 0.1, 1)))
        undo_second()

    return undo


@fault(weight=4, longest=10)
def kill_manager(nemesis):
    """The one that leads, if there are several."""
    return kill(nemesis, nemesis.cluster.leader())


@fault(weight=2, longest=10)
def kill_managers(nemesis):
    """Two of them, so that nothing can be decided, or all."""
    managers = nemesis.cluster.managers
    struck = nemesis.choose(managers, nemesis.rng.choice((len(managers) // 2 + 1, len(managers))))
    undos = [kill(nemesis, p) for p in struck]
    return lambda: [undo() for undo in undos]


@fault(weight=2, longest=5)
def kill_gateway(nemesis):
    return kill(nemesis, nemesis.choose(nemesis.cluster.gateways))


@fault(weight=2, longest=5, claims=ALL)
def kill_everything(nemesis):
    nemesis.say("kill -9 everything")
    processes = nemesis.cluster.processes()
    nemesis.cluster.kill9_all()

    def undo():
        nemesis.rng.shuffle(processes)
        for p in processes:
            nemesis.start(p)
            time.sleep(nemesis.rng.choice((0, 0, 0.1)))

    return undo


@fault(weight=3, longest=5)
def stop_server(nemesis):
    """An orderly stop, and a start."""
    p = nemesis.choose(nemesis.cluster.servers)
    nemesis.harm(p, f"SIGTERM {p.name}")
    status = p.stop(60)
    true(status == 0, f"{p.name} ended with {status} after SIGTERM")
    return lambda: nemesis.start(p)


def freeze(nemesis, process):
    nemesis.harm(process, f"SIGSTOP {process.name}")
    process.signal(signal.SIGSTOP)

    def undo():
        process.signal(signal.SIGCONT)
        nemesis.release(process)

    return undo


@fault(weight=5, longest=30)
def freeze_server(nemesis):
    return freeze(nemesis, nemesis.choose(nemesis.cluster.servers))


@fault(weight=2, longest=30)
def freeze_manager(nemesis):
    return freeze(nemesis, nemesis.cluster.leader())


@fault(weight=1, longest=10)
def freeze_gateway(nemesis):
    return freeze(nemesis, nemesis.choose(nemesis.cluster.gateways))


# ---- links ------------------------------------------------------------------------------------------


def cut_between(nemesis, some, others, both_ways=True):
    state = nemesis.rng.choice(("hold", "drop"))
    relay = nemesis.cluster.relay
    for a in some:
        for b in others:
            relay.link(a, b, state)
            if both_ways:
                relay.link(b, a, state)
    return state


def heal(nemesis):
    return nemesis.cluster.relay.heal


def pair(nemesis):
    """Two nodes that speak with each other, one of them a server."""
    a = nemesis.rng.choice(nemesis.cluster.servers).name
    return a, nemesis.rng.choice([name for name in nemesis.cluster.nodes if name != a])


@fault(weight=5, longest=10, claims=LINKS)
def cut_link(nemesis):
    a, b = pair(nemesis)
    nemesis.say(f"cut {a} <-> {b}: {cut_between(nemesis, [a], [b])}")
    return heal(nemesis)


@fault(weight=5, longest=10, claims=LINKS)
def cut_one_way(nemesis):
    a, b = nemesis.rng.sample(pair(nemesis), 2)
    nemesis.say(f"cut {a} -> {b}: {cut_between(nemesis, [a], [b], both_ways=False)}")
    return heal(nemesis)


@fault(weight=3, longest=10, claims=LINKS)
def isolate(nemesis):
    """A server or a manager hears nobody, or is heard by nobody, or both."""
    a = nemesis.rng.choice(nemesis.cluster.servers + nemesis.cluster.managers).name
    others = [name for name in nemesis.cluster.nodes if name != a]
    way = nemesis.rng.choice(("both", "in", "out"))
    if way == "in":
        state = cut_between(nemesis, others, [a], both_ways=False)
    else:
        state = cut_between(nemesis, [a], others, both_ways=way == "both")
    nemesis.say(f"isolate {a} ({way}): {state}")
    return heal(nemesis)


@fault(weight=3, longest=10, claims=LINKS)
def split(nemesis):
    """Two halves of the servers; managers and gateways are on one side each, and one node may see both."""
    names = [p.name for p in nemesis.cluster.servers]
    nemesis.rng.shuffle(names)
    bridge = names[2:3] if nemesis.rng.random() < 0.5 else []
    left, right = names[:2], [n for n in names[2:] if n not in bridge]
    for p in nemesis.cluster.managers + nemesis.cluster.gateways:
        nemesis.rng.choice((left, right)).append(p.name)
    state = cut_between(nemesis, left, right)
    nemesis.say(f"split {'+'.join(left)} | {'+'.join(right)}" + (f", bridge {bridge[0]}" if bridge else "") + f": {state}")
    return heal(nemesis)


@fault(weight=4, longest=10, claims=LINKS)
def island(nemesis):
    """A server and a gateway see each other and nobody else: who reads there must not read what is old."""
    inside = [nemesis.rng.choice(nemesis.cluster.servers).name, nemesis.rng.choice(nemesis.cluster.gateways).name]
    outside = [name for name in nemesis.cluster.nodes if name not in inside]
    nemesis.say(f"island {'+'.join(inside)}: {cut_between(nemesis, inside, outside)}")
    return heal(nemesis)


@fault(weight=3, longest=10, claims=LINKS)
def delay(nemesis):
    a, b = pair(nemesis)
    msec = nemesis.rng.choice((5, 50, 300, 2000))
    nemesis.say(f"delay {a} <-> {b} by {msec} ms")
    nemesis.cluster.relay.both(a, b, "pass", msec * 1000)
    return heal(nemesis)


@fault(weight=3, longest=0.1, claims=LINKS)
def reset(nemesis):
    a, b = pair(nemesis)
    nemesis.say(f"reset {a} <-> {b}")
    nemesis.cluster.relay.ask("reset", a, b)
    return heal(nemesis)


# ---- disks ------------------------------------------------------------------------------------------


@fault(weight=2, longest=10, needs="mount")
def full_disk(nemesis):
    p = nemesis.disk_server
    nemesis.harm(p, f"fill the disk of {p.name}")
    filler = os.path.join(nemesis.cluster.data_dir(p), "filler")
    with open(filler, "wb", buffering=0) as f:
        size = 1 << 20
        while size >= 4096:
            try:
                if f.write(b"x" * size) < size:
                    raise OSError("no room")
            except OSError:
                size //= 2

    def undo():
        os.unlink(filler)
        nemesis.release(p)

    return undo


@fault(weight=2, longest=3, needs="preload")
def failing_sync(nemesis):
    """fdatasync fails once: the server must end, and find out what it has when it starts."""
    p = nemesis.sync_server
    nemesis.harm(p, f"syncs of {p.name} fail")
    with open(nemesis.sync_trigger, "w", encoding="ascii"):
        pass

    def undo():
        # Without a write there is no sync; then nothing happened.
        if p.alive():
            p.kill9()
        os.unlink(nemesis.sync_trigger)
        nemesis.start(p)

    return undo


def all_copies_are_there(nemesis):
    """Nothing may be lost before what was lost is there again."""
    if not nemesis.cluster.is_whole():
        raise NoTarget


@fault(weight=2, longest=3, claims=ALL)
def rot(nemesis):
    """Bits flip in the log of a server that was killed: it must find out, at its start or when it reads them."""
    all_copies_are_there(nemesis)
    p = nemesis.choose(nemesis.cluster.servers)
    nemesis.harm(p, f"rot in {p.name}")
    p.kill9()
    folder = os.path.join(nemesis.cluster.data_dir(p), "log")
    name = nemesis.rng.choice(sorted(f for f in os.listdir(folder) if f.endswith(".seg")))
    with open(os.path.join(folder, name), "r+b") as f:
        size = f.seek(0, os.SEEK_END)
        for _ in range(nemesis.rng.choice((1, 1, 20))):
            at = nemesis.rng.randrange(size)
            f.seek(at)
            byte = f.read(1)[0] ^ (1 << nemesis.rng.randrange(8))
            f.seek(at)
            f.write(bytes([byte]))
    return lambda: nemesis.start(p)


@fault(weight=1, longest=5, claims=ALL)
def wipe_server(nemesis):
    """The machine is there again, its disk is new: a new server, with the name and address of the old one."""
    all_copies_are_there(nemesis)
    p = nemesis.choose([s for s in nemesis.cluster.servers if s is not nemesis.disk_server])
    nemesis.wiped = True  # only one in a run: nothing makes the lost copies anew
    nemesis.harm(p, f"wipe {p.name}")
    p.kill9()
    shutil.rmtree(nemesis.cluster.data_dir(p))
    return lambda: nemesis.start(p)


def clone_must_end(server, copy):
    copy.start()
    try:
        status = copy.wait(60)
        true(status > 0, f"the clone of {server.name} ended with {status}")
        true("registered as server" not in copy.read_log(), f"the clone took the place of {server.name}")
    except AssertionError:
        copy.show_log()
        raise
    finally:
        copy.kill9()


@fault(weight=1, longest=0.1, claims=ALL)
def clone(nemesis):
    """A copy of a data directory is started elsewhere after its server went on: it must be refused."""
    p = nemesis.choose(nemesis.cluster.servers)
    nemesis.harm(p, f"clone {p.name}")
    p.kill9()
    copy = nemesis.cluster.make_clone(p, os.path.join(nemesis.cluster.dir, "clone"))
    nemesis.start(p)
    wait_for(lambda: nemesis.cluster.is_up(p), 60, f"{p.name} is registered again")
    clone_must_end(p, copy)
    return lambda: None


@fault(weight=1, longest=0.1, claims=ALL)
def clone_running(nemesis):
    """A copy of the data of a server that runs: the server goes on, the copy is refused."""
    p = nemesis.choose(nemesis.cluster.servers)
    wait_for(lambda: nemesis.cluster.is_up(p), 60, f"{p.name} is registered")
    nemesis.say(f"clone {p.name}, which runs")
    copy = nemesis.cluster.make_clone(p, os.path.join(nemesis.cluster.dir, "clone"), moving=True)
    clone_must_end(p, copy)
    true(p.alive(), f"{p.name} ended when a copy of it started")
    return lambda: None


def abilities(cluster):
    """What this machine can do; tells what is left out."""
    can = set()
    if os.environ.get(INSIDE):
        can.add("mount")
    else:
        diag("no disk is filled: a tmpfs can't be mounted here")
    if os.path.exists(cluster.preload):
        can.add("preload")
    return can


INSIDE = "KUMO_TEST_NEMESIS_NAMESPACE"


def enter_namespace(argv):
    """This program once more, in a mount namespace of its own, where that is allowed."""
    if os.environ.get(INSIDE) is not None:
        return
    os.environ[INSIDE] = ""
    for how in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        try:
            probe = how + ["mount", "-t", "tmpfs", "tmpfs", "/mnt"]
            if subprocess.run(probe, capture_output=True, timeout=10).returncode == 0:
                os.environ[INSIDE] = "1"
                os.execvp(how[0], how + argv)
        except OSError:
            pass
