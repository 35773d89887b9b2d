"""What every key may hold: a model that knows what an answer allows, and what no answer leaves open.

A key has a set of states that are possible. An operation leads each of them to another one, with an answer:
when the answer comes, the states that would have answered otherwise are out. Without an answer both stay,
the state before and the one after. When no state is left the answer was wrong, and a verdict says how:

    LOST         an answered write is not there: no record, or an older one
    RESURRECTED  a record that was deleted or has expired is there again
    CORRUPT      something is there that never was written, or an answer makes no sense
"""

import math
from collections import deque, namedtuple

LOST, RESURRECTED, CORRUPT = "lost", "resurrected", "corrupt"
VERDICTS = (LOST, RESURRECTED, CORRUPT)

CLOCK_SEC = 1.0  # how far the cluster's idea of the time may be from ours
HISTORY_EVENTS = 16

# token: None when nobody was told it yet. expires: None, or (earliest, latest) second.
Record = namedtuple("Record", "flags value token expires")
# name: memcached's word; operand: token of a cas, amount of an incr or decr.
Op = namedtuple("Op", "name flags exptime value operand", defaults=(0, 0, b"", 0))

GETS = Op("gets")


def short(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}... ({len(value)} bytes)"


def op_text(op):
    words = [op.name]
    if op.name in ("set", "add", "replace", "append", "prepend", "cas"):
        words += [f"flags {op.flags}", f"exptime {op.exptime}", short(op.value)]
    elif op.name == "touch":
        words.append(f"exptime {op.exptime}")
    if op.name in ("cas", "incr", "decr"):
        words.append(str(op.operand))
    return " ".join(words)


def state_text(state):
    if state is None:
        return "no record"
    expires = f", expires in second {state.expires[0]} to {state.expires[1]}" if state.expires else ""
    return f"flags {state.flags}, {short(state.value)}, token {state.token}{expires}"


def expiry(exptime, sent, received):
    """When a record expires that was written between `sent` and `received`: relative times count from the
    next whole second."""
    if exptime == 0:
        return None
    if exptime < 0:
        return (0, 0)
    return (math.ceil(sent) + exptime, math.ceil(received) + exptime)


def at_time(state, sent, received):
    """What a state has become by some moment of that time: itself, no record, or either."""
    if state is None or state.expires is None or received < state.expires[0] - CLOCK_SEC:
        return [state]
    if sent > state.expires[1] + CLOCK_SEC or state.expires[1] == 0:
        return [None]
    return [state, None]


def outcome(op, before, sent, received):
    """(answer, state after) of an operation on a live record, or on None."""
    name = op.name
    if name in ("get", "gets"):
        return before, before
    if name == "delete":
        return (b"DELETED" if before else b"NOT_FOUND"), None
    if name in ("set", "add", "replace"):
        if name != "set" and (name == "add") == (before is not None):
            return b"NOT_STORED", before
        return b"STORED", Record(op.flags, op.value, None, expiry(op.exptime, sent, received))
    if name in ("append", "prepend"):
        if before is None:
            return b"NOT_STORED", None
        value = before.value + op.value if name == "append" else op.value + before.value
        return b"STORED", before._replace(value=value, token=None)
    if before is None:
        return b"NOT_FOUND", None
    if name == "cas":
        if before.token != op.operand:
            return b"EXISTS", before
        return b"STORED", Record(op.flags, op.value, None, expiry(op.exptime, sent, received))
    if name == "touch":
        return b"TOUCHED", before._replace(expires=expiry(op.exptime, sent, received))
    number = int(before.value)
    number = (number + op.operand) % (1 << 64) if name == "incr" else max(0, number - op.operand)
    return b"%d" % number, before._replace(value=b"%d" % number, token=None)


class Key:
    def __init__(self, name):
        self.name = name
        self.states = [None]
        self.contents = set()  # hashes of all that it ever may have held
        self.tokens = set()  # all that were told
        self.last_token = 0
        self.events = deque(maxlen=HISTORY_EVENTS)
        self.verdict = None

    # ---- what happened

    def answered(self, op, answer, sent, received):
        """Takes an answer: a line, or for a read (flags, value, token) or None. Returns the verdict when it
        is a wrong one; the key is out of the game then."""
        self.events.append((sent, received, op, answer))
        left = []
        for state in self.states:
            for before in at_time(state, sent, received):
                want, after = outcome(op, before, sent, received)
                if op.name in ("get", "gets"):
                    after = self.read_as(before, answer)
                    if after is False:
                        continue
                elif want != answer:
                    continue
                left.append(after)
        if not left:
            self.verdict = self.judge(op, answer, [s for state in self.states for s in at_time(state, sent, received)])
            return self.verdict
        self.become(left)
        if op.name == "gets" and answer:
            self.last_token = answer[2]
            self.tokens.add(answer[2])
        return None

    def unanswered(self, op, sent, now):
        """It was sent, and nobody knows whether it was done."""
        self.events.append((sent, now, op, b"(no answer)"))
        left = list(self.states)
        for state in self.states:
            for before in at_time(state, sent, now):
                left.append(outcome(op, before, sent, now)[1])
        self.become(left)

    def refused(self, op, line, sent, now):
        """An error that says that nothing was done."""
        self.events.append((sent, now, op, line))

    def become(self, states):
        self.states = list(dict.fromkeys(states))
        for state in self.states:
            if state is not None:
                self.contents.add(hash((state.flags, state.value)))

    def read_as(self, state, answer):
        """The state, with what was learnt of it, when a read of it gives this answer; else False."""
        if state is None or answer is None:
            return state if state is None and answer is None else False
        flags, value, token = answer
        if (flags, value) != (state.flags, state.value):
            return False
        if token is None or token == state.token:
            return state
        if state.token is not None or token in self.tokens:
            return False  # another one than before, or one of other content (I12)
        return state._replace(token=token)

    # ---- what is wrong with it

    def judge(self, op, answer, states):
        may_exist = any(state is not None for state in states)
        if op.name in ("get", "gets"):
            if answer is None:
                return LOST
            if hash(answer[:2]) not in self.contents:
                return CORRUPT
            if not may_exist:
                return RESURRECTED
            current = any(state and answer[:2] == (state.flags, state.value) for state in states)
            return CORRUPT if current else LOST
        if op.name == "add":
            return {b"STORED": LOST, b"NOT_STORED": RESURRECTED}.get(answer, CORRUPT)
        if answer in (b"NOT_FOUND", b"NOT_STORED"):
            return LOST
        if op.name in ("incr", "decr") and may_exist and answer.isdigit():
            return LOST
        if answer in (b"STORED", b"DELETED", b"TOUCHED") and not may_exist:
            return RESURRECTED
        return CORRUPT

    def report(self, epoch):
        """The key's story, for who has to find out what went wrong; times are seconds since `epoch`."""
        lines = [f"{self.name.decode()}: {self.verdict}; before the last answer it could be:"]
        lines += [f"    {state_text(state)}" for state in self.states]
        lines.append("  its last operations (seconds when sent and answered):")
        for sent, received, op, answer in self.events:
            told = answer.decode() if isinstance(answer, bytes) else answer and (answer[0], short(answer[1]), answer[2])
            lines.append(f"    {sent - epoch:8.3f} {received - epoch:8.3f} {op_text(op)} -> {told}")
        return "\n".join(lines)
