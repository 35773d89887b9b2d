"""The checker is tested itself: what is changed behind the model's back must be found, and named."""

import time
from collections import Counter

import faults
from loader import request_bytes
from model import CORRUPT, LOST, RESURRECTED, Key, Op

LOAD_SEC = 1.5


def behind(client, key, op):
    """An operation that the model does not hear of."""
    client.send(request_bytes(None, [(key, op)]))
    return client.line()


def through(client, key, op):
    sent = time.time()
    key.answered(op, behind(client, key, op), sent, time.time())


def lose_set(client, key):
    """an answered set is deleted"""
    behind(client, key, Op("delete"))
    return LOST


def bring_back_older(client, key):
    """an older value takes the place of an answered one"""
    through(client, key, Op("set", 1, 0, b"older"))
    through(client, key, Op("set", 2, 0, b"newer"))
    behind(client, key, Op("set", 1, 0, b"older"))
    return LOST


def resurrect_deleted(client, key):
    """a deleted record comes back"""
    through(client, key, Op("set", 3, 0, b"a record"))
    through(client, key, Op("delete"))
    behind(client, key, Op("set", 3, 0, b"a record"))
    return RESURRECTED


def resurrect_expired(client, key):
    """an expired record comes back"""
    through(client, key, Op("set", 4, -1, b"a short life"))
    behind(client, key, Op("set", 4, 0, b"a short life"))
    return RESURRECTED


def flip_bit(client, key):
    """one bit of a value is another one"""
    through(client, key, Op("set", 5, 0, b"some text"))
    behind(client, key, Op("set", 5, 0, b"some text"[:-1] + bytes([b"t"[0] ^ 1])))
    return CORRUPT


def change_flags(client, key):
    """the flags are others"""
    through(client, key, Op("set", 6, 0, b"text"))
    behind(client, key, Op("set", 7, 0, b"text"))
    return CORRUPT


def change_token(client, key):
    """the same content has another cas token"""
    through(client, key, Op("set", 8, 0, b"text"))
    client.send(b"gets %b\r\n" % key.name)
    ((_, flags, value, token),) = client.values()
    key.answered(Op("gets"), (flags, value, token), time.time(), time.time())
    behind(client, key, Op("set", 8, 0, b"text"))
    return CORRUPT


TAMPERS = (lose_set, bring_back_older, resurrect_deleted, resurrect_expired, flip_bit, change_flags, change_token)


def live(key):
    return not key.verdict and len(key.states) == 1 and key.states[0] and key.states[0].expires is None


def tamper(run, number, change):
    """What went wrong, if anything."""
    with run.cluster.client() as client:
        key = next(k for k in run.loaders[number % len(run.loaders)].keys if live(k))
        want = change(client, key)
    found = run.verify()
    if found != Counter({want: 1}) or key.verdict != want:
        return f"{change.__doc__}: found {dict(found)}, expected one {want}"
    return None


# Of a key that holds "5": an operation, an answer that can't be right, and what it says.
ANSWERS = (
    (Op("delete"), b"NOT_FOUND", LOST),
    (Op("add", value=b"1"), b"STORED", LOST),
    (Op("append", value=b"1"), b"NOT_STORED", LOST),
    (Op("incr", operand=1), b"5", LOST),
    (Op("incr", operand=1), b"bogus", CORRUPT),
    (Op("get"), None, LOST),
    (Op("get"), (0, b"4", None), LOST),
    (Op("get"), (0, b"6", None), CORRUPT),
)
# Of one whose record was deleted.
ANSWERS_NONE = (
    (Op("delete"), b"DELETED", RESURRECTED),
    (Op("add", value=b"1"), b"NOT_STORED", RESURRECTED),
    (Op("touch"), b"TOUCHED", RESURRECTED),
    (Op("get"), (0, b"5", None), RESURRECTED),
    (Op("get"), (0, b"7", None), CORRUPT),
)


def wrong_answers():
    for table, deleted in ((ANSWERS, False), (ANSWERS_NONE, True)):
        for op, answer, want in table:
            key = Key(b"key")
            key.answered(Op("set", value=b"4"), b"STORED", 1, 1)
            key.answered(Op("set", value=b"5"), b"STORED", 2, 2)
            if deleted:
                key.answered(Op("delete"), b"DELETED", 3, 3)
            if key.answered(op, answer, 4, 4) != want:
                yield f"{op.name} answered by {answer}: {key.verdict}, expected {want}"


def in_doubt():
    """An unanswered set may have happened or not, and what was read once stays so."""
    for first, second in ((b"old", b"new"), (b"new", b"old")):
        key = Key(b"key")
        key.answered(Op("set", value=b"old"), b"STORED", 1, 1)
        key.unanswered(Op("set", value=b"new"), 2, 3)
        if key.answered(Op("get"), (0, first, None), 4, 4):
            yield f"{first} after an unanswered set: {key.verdict}"
        if key.answered(Op("get"), (0, second, None), 5, 5) != LOST:
            yield f"{second} after {first} was read: {key.verdict}, expected {LOST}"


def run_all(run):
    """Sentences about what was not found."""
    trouble = [*wrong_answers(), *in_doubt()]
    run.resume()
    time.sleep(LOAD_SEC)
    run.pause()
    run.wait_idle()
    faults.kill_server(run)
    faults.start_all(run)
    if run.verify():
        trouble.append(f"found {dict(run.tally())} where nothing was tampered with")
    for number, change in enumerate(TAMPERS):
        trouble += filter(None, [tamper(run, number, change)])
    return trouble
