"""Clients that write without pause and know what every answer, and every record, must be.

A state of a key is (flags, value), or None when there is no such record. A write that was answered leaves
one state; one without an answer leaves two that are possible, and so does an answer which says that the
write may have happened. Each writer has keys of its own.
"""

import random
import threading
import time

from cluster import equal, short, true


class Wrong(AssertionError):
    """An answer that must not be."""


class Writer(threading.Thread):
    """Runs until stop(), or until its connection is lost; with `patient` it connects again, and takes
    SERVER_ERROR for an answer."""

    def __init__(self, connect, seed, states, patient=False, pause=0):
        super().__init__(daemon=True)
        self.connect = connect
        self.random = random.Random(seed)
        self.seed = seed
        self.states = {key: [state] for key, state in states.items()}
        self.keys = list(states)
        self.patient = patient
        self.pause = pause  # between two batches
        self.unanswered = []  # of the batch on its way, in order: (key, state after it)
        self.in_doubt = set()  # keys that ever had a write without an answer
        self.answered = 0
        self.errors = {}  # SERVER_ERROR line: how often
        self.slowest = 0.0  # seconds, of a batch
        self.trouble = None
        self.stopping = False
        self.doomed = False  # a lost connection is no surprise
        self.version = 0

    # ---- what is written

    def new_value(self):
        self.version += 1
        size = self.random.choice((0, 1, 20, 20, 100, 100, 500, 500, 4000))
        if self.random.random() < 0.005:
            size = 200000
        return b"%b.%d:" % (self.seed.encode(), self.version) + self.random.randbytes(size)

    def one(self, key, before):
        """(request, answer, state after it) of a random write; `before` is a list of one state, or of
        several possible ones, and then only a set has a known outcome."""
        dice = self.random.random() if len(before) == 1 else 1
        before = before[-1]
        if dice < 0.1:
            return b"delete %b\r\n" % key, b"DELETED" if before else b"NOT_FOUND", None
        value = self.new_value()
        flags = self.random.randrange(1 << 32)
        line = b" %b %d 0 %d\r\n%b\r\n" % (key, flags, len(value), value)
        if dice < 0.2 and (before is None or len(before[1]) + len(value) < 1 << 20):
            after = (before[0], before[1] + value) if before else None
            return b"append" + line, b"STORED" if before else b"NOT_STORED", after
        if dice < 0.25:
            return b"add" + line, b"NOT_STORED" if before else b"STORED", before or (flags, value)
        return b"set" + line, b"STORED", (flags, value)

    def batch(self, client):
        latest, wants, requests = {}, [], []
        count = self.random.randint(1, 16)
        # An error in the middle would leave open what the later writes of the same key must answer.
        keys = self.random.sample(self.keys, count) if self.patient else self.random.choices(self.keys, k=count)
        for key in keys:
            request, want, after = self.one(key, latest.get(key) or self.states[key])
            latest[key] = [after]
            requests.append(request)
            wants.append(want)
            self.unanswered.append((key, after))
        started = time.monotonic()
        client.send(b"".join(requests))
        for want in wants:
            self.answer(client.line(), want)
        self.slowest = max(self.slowest, time.monotonic() - started)

    def answer(self, got, want):
        key, after = self.unanswered[0]
        if got.startswith(b"SERVER_ERROR"):
            if not self.patient:
                raise ConnectionError(got.decode())
            self.errors[got] = self.errors.get(got, 0) + 1
            if b"nothing was done" not in got:
                self.states[key].append(after)
                self.in_doubt.add(key)
        elif got == want:
            self.states[key] = [after]
            self.answered += 1
        else:
            raise Wrong(f"writer {self.seed}, {key}: got {short(got)}, expected {want}")
        self.unanswered.pop(0)

    # ---- running

    def serve_connection(self):
        try:
            with self.connect() as client:
                while not self.stopping:
                    self.batch(client)
                    time.sleep(self.pause)
        except OSError as e:
            if not (self.doomed or self.patient):
                raise Wrong(f"writer {self.seed}: {e}") from None
            time.sleep(0.02)
        for key, after in self.unanswered:
            self.states[key].append(after)
            self.in_doubt.add(key)
        self.unanswered = []

    def run(self):
        try:
            self.serve_connection()
            while self.patient and not self.stopping:
                self.serve_connection()
        except AssertionError as e:
            self.trouble = str(e)


def value_of(key, number, rng):
    return number, b"%b at first " % key + rng.randbytes(number % 300)


def load(cluster, keys, seed):
    """Sets all keys; {key: state}."""
    rng = random.Random(seed)
    state = {key: value_of(key, i, rng) for i, key in enumerate(keys)}
    with cluster.client(timeout=60) as c:
        for i in range(0, len(keys), 500):
            part = keys[i : i + 500]
            c.send(b"".join(b"set %b %d 0 %d\r\n%b\r\n" % (k, state[k][0], len(state[k][1]), state[k][1]) for k in part))
            equal([c.line() for _ in part], [b"STORED"] * len(part), "answers while loading")
    return state


def start_writers(cluster, count, seed, state, **options):
    keys = list(state)
    parts = [{key: state[key] for key in keys[i::count]} for i in range(count)]
    writers = [Writer(cluster.client, f"{seed}-{i}", part, **options) for i, part in enumerate(parts)]
    for w in writers:
        w.start()
    return writers


def join_writers(writers, seconds=30):
    for w in writers:
        w.stopping = True
    for w in writers:
        w.join(seconds)
        true(not w.is_alive(), f"writer {w.seed} hangs")
    trouble = [w.trouble for w in writers if w.trouble]
    true(not trouble, "\n".join(trouble))


def possible_states(writers):
    """{key: states that it may be in} of writers that have ended."""
    found = {}
    for w in writers:
        found.update(w.states)
    return found


def read_all(cluster, keys, port=None):
    """{key: (flags, value, token)}"""
    found = {}
    with cluster.client(port=port, timeout=60) as c:
        for i in range(0, len(keys), 200):
            c.send(b"gets %b\r\n" % b" ".join(keys[i : i + 200]))
            found.update({key: (flags, value, cas) for key, flags, value, cas in c.values()})
    return found


def check_records(cluster, possible, tokens):
    """Every key is in a state that it may be in, and no cas token was given for two contents of a key:
    `tokens` remembers them. Returns {key: state}."""
    found = read_all(cluster, list(possible))
    wrong = []
    for key, states in possible.items():
        got = found.get(key)
        if (got[:2] if got else None) not in states:
            wrong.append(f"{key.decode()}: got {short(got)}, possible: " + ", ".join(short(s) for s in states))
        if got and tokens.setdefault((key, got[2]), got[:2]) != got[:2]:
            wrong.append(f"{key.decode()}: the cas token {got[2]} was given for other content before")
    true(not wrong, f"{len(wrong)} of {len(possible)} keys are wrong:\n" + "\n".join(wrong[:20]))
    return {key: found[key][:2] if key in found else None for key in possible}


def check_copies(cluster, state, important, rng, sample=200):
    """All replicas hold the same of the important keys and some others. Returns how many were compared."""
    chosen = set(important) | set(rng.sample(list(state), min(sample, len(state))))
    cluster.check_replicas({key: state[key][1] if state[key] else None for key in chosen})
    return len(chosen)
