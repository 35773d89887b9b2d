"""Clients work, a seed draws faults, and in the end the history of every key is judged.

A round: clients start, faults strike for some time, all is healed, everything is read through both gateways,
and tests/nemesis/judge says whether what the clients were told is possible.
"""

import collections
import json
import os
import random
import subprocess
import time

from cluster import BUILD, PORT_LOCKS, die_with_parent, diag, note, program, run_command, true, wait_for

from nemesis import faults
from nemesis.relayed import RelayedCluster

CLIENTS = 16
CLIENT_PAUSE_USEC = 5000  # on average, between two operations of a client
SERVE_SEC = 90  # after all is healed
WHOLE_SEC = 90  # and from then on
DURATIONS = (0.1, 0.3, 1, 2, 3, 5, 10, 20, 30)
AT_ONCE = 2  # faults
PAUSES_TOLD = 5  # the longest ones
AFTERWARDS_SEC = 3  # a fault has consequences when it is over
SAMPLE = 150  # keys that are compared on all replicas


class Load:
    """The program load (load.c)."""

    def __init__(self, prefix, seed, ports):
        words = [prefix, seed, CLIENTS, CLIENT_PAUSE_USEC, *ports]
        self.child = subprocess.Popen(
            [program("tests/nemesis/load"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=die_with_parent,
        )

    def ask(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        answer = self.child.stdout.readline().strip()
        true(answer and not answer.startswith("error"), f"load: {line}: {answer or 'it ended'}")
        return answer

    def finish(self, ports, path):
        self.ask("stop")
        for port in ports:
            self.ask(f"read {port}")
        summary = json.loads(self.ask(f"write {path}"))
        self.child.stdin.close()
        self.child.wait(10)
        return summary

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)


class NemesisCluster(RelayedCluster):
    def __init__(self, **options):
        self.preload = os.path.join(BUILD, "tests/nemesis/fail_fsync.so")
        super().__init__(**options)

    def status(self):
        """Empty while no manager answers."""
        out = self.kumoctl("status", "--json")[1]
        return json.loads(out) if out.lstrip().startswith("{") else {}

    def is_up(self, server):
        return any(s["name"] == server.name and s["up"] for s in self.status().get("servers", []))

    def is_whole(self):
        return self.status().get("partitions_degraded") == 0

    def leader(self):
        """The manager that leads; any while none does."""
        for p, said in zip(self.managers, self.status().get("managers", [])):
            if said["state"] == "leads" and p.alive():
                return p
        return self.managers[0]


class Nemesis:
    def __init__(self, cluster, seed, can, longest):
        self.cluster = cluster
        self.seed = seed
        self.can = can
        self.longest = longest  # seconds, of any fault
        self.disk_server = cluster.servers[0]
        self.sync_server = cluster.servers[1]
        self.sync_trigger = os.path.join(cluster.dir, "fail-fsync")
        self.rng = random.Random(seed)
        self.harmed = set()
        self.wiped = False
        self.active = []  # (end, fault, undo)
        self.log = []  # (time, words)
        self.times = []  # (name, begin, end) of each fault
        self.counts = collections.Counter()
        self.drawn = 0

    # ---- for the faults

    def say(self, words):
        self.log.append((time.monotonic(), words))

    def choose(self, processes, count=None):
        free = [p for p in processes if p not in self.harmed and p.alive()]
        if len(free) < (count or 1):
            raise faults.NoTarget
        return self.rng.sample(free, count) if count else self.rng.choice(free)

    def harm(self, process, words):
        if process in self.harmed or not process.alive():
            raise faults.NoTarget
        self.harmed.add(process)
        self.say(words)

    def release(self, process):
        self.harmed.discard(process)

    def start(self, process):
        if not process.alive():
            process.start()
        self.release(process)

    # ---- drawing

    def fits(self, fault):
        claimed = {f.claims for _, f, _ in self.active}
        return faults.ALL not in claimed and not (fault.claims == faults.LINKS and faults.LINKS in claimed)

    def strike(self):
        self.drawn += 1
        self.rng = random.Random(f"{self.seed}.{self.drawn}")
        possible = [f for f in faults.FAULTS if f.needs is None or f.needs in self.can]
        fault = self.rng.choices(possible, [f.weight for f in possible])[0]
        longest = min(fault.longest, self.longest)
        seconds = self.rng.choice([d for d in DURATIONS if d <= longest])
        if not self.fits(fault):
            return
        if fault.claims == faults.ALL:
            self.end_all()
        begin = time.monotonic()
        try:
            undo = fault.function(self)
        except faults.NoTarget:
            return
        self.counts[fault.name] += 1
        self.times.append([fault.name, begin, begin + seconds])
        self.active.append((begin + seconds, fault, undo))

    def end_fault(self, entry):
        self.active.remove(entry)
        entry[2]()
        self.say(f"{entry[1].name} is over")

    def end_all(self):
        for entry in list(self.active):
            self.end_fault(entry)

    def check_processes(self):
        for p in self.cluster.processes():
            true(p.alive() or not p.wanted or p in self.harmed, f"{p.name} ended by itself")

    def run(self, seconds):
        end = time.monotonic() + seconds
        strike_at = time.monotonic() + 1
        while time.monotonic() < end:
            for entry in [e for e in self.active if e[0] <= time.monotonic()]:
                self.end_fault(entry)
            self.check_processes()
            if time.monotonic() >= strike_at and len(self.active) < AT_ONCE:
                self.strike()
                strike_at = time.monotonic() + self.rng.uniform(0.2, 3)
            time.sleep(0.05)
        self.end_all()
        self.check_processes()

    # ---- telling

    def tell_log(self, since):
        for at, words in self.log:
            diag(f"{at - since:8.2f} s  {words}")

    def faults_during(self, begin, end):
        """And shortly before."""
        found = [(name, b, e) for name, b, e in self.times if b <= end and e >= begin - AFTERWARDS_SEC]
        return [f"{name} ({b - begin:+.1f} to {e - begin:+.1f} s)" for name, b, e in found]


def longest_pauses(pauses, count):
    """[(begin, end)] of the longest ones; of those at the same time only the longest."""
    chosen = []
    for begin, end in sorted(pauses, key=lambda p: p[0] - p[1]):
        if all(end < b or begin > e for b, e in chosen):
            chosen.append((begin, end))
    return chosen[:count]


# ---- a whole run ------------------------------------------------------------------------------------


class Totals:
    def __init__(self):
        self.counts = collections.Counter()
        self.errors = collections.Counter()
        self.pauses = []
        self.verdicts = []

    def add(self, summary, verdict):
        self.counts.update({k: summary[k] for k in ("ok", "unknown", "refused", "wrong")})
        self.errors.update(summary["errors"])
        self.pauses += summary["pauses"]
        self.verdicts.append(verdict)


def make_cluster():
    options = {
        "checkpoint-log-size": "1MiB",
        "segment-size": "1MiB",
        "compaction-slack": "0",
        "disk-reserve": "16MiB",
        **dict(word.split("=", 1) for word in os.environ.get("SERVER_OPTIONS", "").split()),
    }
    cluster = NemesisCluster(managers=3, servers=5, replicas=3, server_options=options)
    if os.environ.get(faults.INSIDE):
        cluster.own_disk(cluster.servers[0], faults.DISK_MIB)
    if os.path.exists(cluster.preload):
        trigger = os.path.join(cluster.dir, "fail-fsync")
        cluster.servers[1].wrapper = [
            "env", f"LD_PRELOAD={cluster.preload}", f"KUMO_FAIL_FSYNC={trigger}", "ASAN_OPTIONS=verify_asan_link_order=0",
        ]  # fmt: skip
    return cluster


def judge(path):
    """(all is well, what the judge says)"""
    status, out, err = run_command([program("tests/nemesis/judge"), path], 600)
    true(status in (0, 1), f"judge: exit {status}\n{err}")
    return status == 0, out.strip()


def compare_copies(cluster, path, rng):
    """What the replicas hold of some keys is the same."""
    with open(path, encoding="ascii") as f:
        keys = sorted({line.split(" ", 1)[0] for line in f})
    chosen = [key.encode() for key in rng.sample(keys, min(SAMPLE, len(keys)))]
    differ = []

    def agree():
        nonlocal differ
        found = cluster.replicas_of(chosen)
        differ = [answer for answer in found.values() if answer["agree"] is not True]
        return not differ

    try:
        wait_for(agree, 30, "the replicas agree")
    except AssertionError:
        raise AssertionError(f"replicas differ: {differ[:3]}") from None
    return len(chosen)


def one_round(nemesis, number, seconds, totals):
    cluster = nemesis.cluster
    ports = [cluster.gateway_port, cluster.gateway2_port]
    path = os.path.join(cluster.dir, f"history.{number}")
    load = Load(f"{number}", f"{nemesis.seed + number}", ports)
    try:
        nemesis.run(seconds)
        took = cluster.wait_all_serving(SERVE_SEC)
        if not nemesis.wiped:
            wait_for(cluster.is_whole, WHOLE_SEC, "every copy is a member again")
        summary = load.finish(ports, path)
    finally:
        load.kill()
    good, words = judge(path)
    totals.add(summary, words)
    diag(f"round {number}: served again {took:.1f} s after the last fault; {words}")
    true(summary["wrong"] == 0, f"clients got answers that no memcached gives: {summary['errors']}")
    true(good, words)
    compared = compare_copies(cluster, path, random.Random(nemesis.seed))
    diag(f"round {number}: {compared} keys are the same on all replicas")
    if not os.environ.get("KEEP"):
        os.unlink(path)


def tell(nemesis, totals):
    c = totals.counts
    note(f"{c['ok']} operations answered, {c['unknown']} of unknown outcome, {c['refused']} failed")
    note("faults: " + ", ".join(f"{count} {name}" for name, count in sorted(nemesis.counts.items())))
    for begin, end in longest_pauses(totals.pauses, PAUSES_TOLD):
        during = ", ".join(nemesis.faults_during(begin, end)) or "no fault"
        note(f"a client waited {end - begin:.1f} s during {during}")
    for text, count in totals.errors.most_common(8):
        diag(f"{count:6} x {text}")


def run(tap, seed, rounds, seconds, longest):
    note(f"SEED={seed}: {rounds} rounds of {seconds} s")
    started = time.monotonic()
    totals = Totals()
    with make_cluster() as cluster:
        cluster.start()
        nemesis = Nemesis(cluster, seed, faults.abilities(cluster), longest)
        for number in range(1, rounds + 1):
            try:
                one_round(nemesis, number, seconds, totals)
            except Exception as e:  # noqa: BLE001: a test point failed, whatever the reason
                tap.not_ok(f"round {number}: what clients were told is possible", f"{type(e).__name__}: {e}")
                nemesis.tell_log(started)
                cluster.show_logs(30)
                break
            tap.ok(True, f"round {number}: what clients were told is possible")
        tell(nemesis, totals)
    del PORT_LOCKS[:]
