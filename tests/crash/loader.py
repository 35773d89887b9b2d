"""Connections that write without pause, each to keys of its own, and know what every answer must be.

They outlive what is killed: an operation under way waits in the gateway until the server is back, and is
answered then. Only when the gateway itself dies do operations stay without an answer.
"""

import random
import threading
import time

from cluster import true
from model import Key, Op

VALUE_BYTES_MAX = 65536
ADDED_BYTES_MAX = 4000  # by one append or prepend
BATCH_MAX = 24
READ_KEYS_MAX = 8
CONNECT_SEC = 30
SKEW = 3  # most writes go to few keys: segments keep some records for long, and compaction must copy them
PAUSE_SEC_MAX = 0.01  # between two batches: the log must not outrun its compaction
COUNTER_EVERY = 8  # one key in so many holds a number
NOTHING_DONE = (b"nothing was done", b"nothing was stored")
MAY_HAVE_HAPPENED = b"may have happened"

NOT_WRITTEN = (b"NOT_STORED", b"NOT_FOUND", b"EXISTS")
STORES = ("set", "add", "replace", "append", "prepend", "cas")
NOISE = random.Random(0).randbytes(4 * VALUE_BYTES_MAX)


def request_bytes(read, ops):
    """Of a read of many keys, or of one operation."""
    if read:
        return b"%b %b\r\n" % (read.encode(), b" ".join(key.name for key, _ in ops))
    key, op = ops[0][0].name, ops[0][1]
    name = op.name.encode()
    if op.name in STORES:
        token = b" %d" % op.operand if op.name == "cas" else b""
        return b"%b %b %d %d %d%b\r\n%b\r\n" % (name, key, op.flags, op.exptime, len(op.value), token, op.value)
    if op.name in ("incr", "decr"):
        return b"%b %b %d\r\n" % (name, key, op.operand)
    if op.name == "touch":
        return b"touch %b %d\r\n" % (key, op.exptime)
    return b"%b %b\r\n" % (name, key)


def read_keys(client, ops, sent):
    """Takes the answer to a read of these keys."""
    found = {name: (flags, value, token) for name, flags, value, token in client.values()}
    now = time.time()
    for key, op in ops:
        if not key.verdict:
            key.answered(op, found.get(key.name), sent, now)


class Loader(threading.Thread):
    """Runs from resume() to pause(), which lets it finish its batch, and ends after stop()."""

    def __init__(self, connect, number, seed, count):
        super().__init__(daemon=True)
        self.connect = connect
        self.number = number
        self.random = random.Random(f"{seed}-{number}")
        self.keys = [Key(b"c%d-%d" % (number, i)) for i in range(count)]
        self.numbers = set(self.keys[::COUNTER_EVERY])
        self.client = None
        self.version = 0
        self.answered = 0  # writes
        self.in_doubt = 0  # writes that nobody answered
        self.trouble = None
        self.turn = threading.Condition()
        self.wanted = False  # it should run
        self.running = False  # it does; false between two batches only
        self.stopping = False

    # ---- what to do next

    def new_value(self):
        """A part of some noise behind a number, so that no two are the same; now and then an empty one."""
        top = self.random.choices((0, 100, 1000, 8000, VALUE_BYTES_MAX), (5, 45, 25, 21, 4))[0]
        self.version += 1
        start = self.random.randrange(len(NOISE) - VALUE_BYTES_MAX)
        part = NOISE[start : start + self.random.randint(0, top)]
        return (b"%d:" % self.version + part)[:VALUE_BYTES_MAX] if top else b""

    def new_exptime(self):
        """Never, soon, much later, or at once."""
        return self.random.choices((0, self.random.randint(1, 3), 3600, -1), (80, 12, 7, 1))[0]

    def store(self, name, value, operand=0):
        return Op(name, self.random.randrange(1 << 32), self.new_exptime(), value, operand)

    def number_operation(self):
        name = self.random.choices(("set", "add", "incr", "decr", "delete"), (25, 8, 35, 25, 7))[0]
        if name in ("set", "add"):
            return self.store(name, b"%d" % self.random.randrange(1 << 20))
        return Op(name, operand=self.random.randrange(1000))

    def extension(self, key):
        """An append or prepend, unless the value would grow too large."""
        value = self.new_value()[:ADDED_BYTES_MAX]
        longest = max((len(s.value) for s in key.states if s), default=0)
        room = longest + len(value) <= VALUE_BYTES_MAX
        return self.store(self.random.choice(("append", "prepend")) if room else "set", value)

    def operation(self, key):
        name = self.random.choices(
            ("set", "add", "replace", "cas", "extend", "touch", "delete"), (52, 6, 6, 6, 12, 6, 12)
        )[0]
        if name == "delete":
            return Op("delete")
        if name == "extend":
            return self.extension(key)
        if name == "touch":
            return Op("touch", exptime=self.new_exptime())
        return self.store(name, self.new_value(), key.last_token if name == "cas" else 0)

    def batch(self):
        """[(name of a read, or None, [(key, op)])], one for each request."""
        made = []
        for _ in range(self.random.randint(1, BATCH_MAX)):
            if self.random.random() < 0.1:
                name = self.random.choice(("get", "gets"))
                keys = self.random.sample(self.keys, self.random.randint(1, READ_KEYS_MAX))
                made.append((name, [(key, Op(name)) for key in keys]))
            else:
                key = self.keys[int(len(self.keys) * self.random.random() ** SKEW)]
                made.append((None, [(key, self.number_operation() if key in self.numbers else self.operation(key))]))
        return made

    # ---- asking, and judging the answers

    def exchange(self):
        requests = self.batch()
        sent = time.time()
        done = 0
        try:
            self.client.send(b"".join(request_bytes(*r) for r in requests))
            for name, ops in requests:
                if name:
                    read_keys(self.client, ops, sent)
                else:
                    self.take_line(*ops[0], sent)
                done += 1
        except OSError:
            now = time.time()
            for key, op in [ops[0] for name, ops in requests[done:] if not name]:
                key.unanswered(op, sent, now)
                self.in_doubt += 1
            raise

    def take_line(self, key, op, sent):
        line = self.client.line()
        now = time.time()
        if not line.startswith(b"SERVER_ERROR"):
            self.answered += line not in NOT_WRITTEN
            if not key.verdict:
                key.answered(op, line, sent, now)
        elif any(text in line for text in NOTHING_DONE):
            key.refused(op, line, sent, now)
        else:
            true(MAY_HAVE_HAPPENED in line, f"{op.name} {key.name}: {line}")
            key.unanswered(op, sent, now)
            self.in_doubt += 1

    # ---- running

    def connect_patiently(self):
        end = time.monotonic() + CONNECT_SEC
        while True:
            try:
                return self.connect()
            except OSError:
                true(time.monotonic() < end, f"no connection to the gateway within {CONNECT_SEC} s")
                time.sleep(0.02)

    def work(self):
        while self.may_go_on():
            try:
                self.client = self.client or self.connect_patiently()
                self.exchange()
                time.sleep(self.random.uniform(0, PAUSE_SEC_MAX))
            except TimeoutError:
                raise AssertionError("the gateway does not answer") from None
            except OSError:
                self.client.close()
                self.client = None

    def run(self):
        try:
            self.work()
        except AssertionError as e:
            self.trouble = f"connection {self.number}: {e}"
        finally:
            with self.turn:
                self.running = False
                self.turn.notify_all()
            if self.client:
                self.client.close()

    def may_go_on(self):
        with self.turn:
            if not self.wanted:
                self.running = False
                self.turn.notify_all()
                self.turn.wait_for(lambda: self.wanted or self.stopping)
            return not self.stopping

    def resume(self):
        with self.turn:
            self.wanted = self.running = not self.trouble
            self.turn.notify_all()

    def pause(self):
        with self.turn:
            self.wanted = False

    def wait_idle(self, seconds):
        with self.turn:
            true(self.turn.wait_for(lambda: not self.running, seconds), f"no answer within {seconds} s")
        true(not self.trouble, self.trouble)

    def stop(self):
        with self.turn:
            self.stopping = True
            self.turn.notify_all()
        self.join(10)
