"""How and when the processes of a crash test end and start."""

import contextlib
import os
import re
import signal
import time

from cluster import BUILD, diag, run_command, true, wait_for

# Small, so that a second of load fills many segments and makes many checkpoints.
SERVER_OPTIONS = {"segment-size": "1MiB", "checkpoint-log-size": "1MiB", "compaction-slack": "0"}
LOAD_SEC_MAX = 1.0
CHANGE_SEC = 1.5  # how long a checkpoint or a compaction is waited for
CHECK_EVERY = 10  # ends, on the average, until the offline check looks at the data
CHECK_SEC = 60
READY_SEC = 30

# What the server's end is like, and how often of a hundred times.
FAULTS = {
    "random": 26,
    "checkpoint": 22,  # while one is written
    "compaction": 18,  # soon after a segment was removed
    "start": 12,  # and again, in the middle of the next starts
    "twice": 8,  # and again, as soon as it serves
    "stop": 9,  # a clean one
    "stopping": 5,  # in the middle of a clean one
}
GATEWAY_TOO = 0.25
MANAGER_TOO = 0.1


def folder(run, name):
    return os.path.join(run.cluster.dir, run.server.name, name)


def names(path):
    with contextlib.suppress(FileNotFoundError):
        return set(os.listdir(path))
    return set()


# ---- moments --------------------------------------------------------------------------------------


def wait_change(path, changed, seconds):
    """Until `changed(names before, names now)` of a folder."""
    before = names(path)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not changed(before, names(path)):
        time.sleep(0.001)


def note_segments(run):
    run.segments |= names(folder(run, "log"))


def wait_moment(run, what):
    rng = run.rng
    time.sleep(rng.uniform(0.05, LOAD_SEC_MAX))
    if what == "checkpoint":
        wait_change(folder(run, "checkpoint"), lambda before, now: now - before, CHANGE_SEC)
        time.sleep(rng.uniform(0, 0.003))
    elif what == "compaction":
        removed = rng.randint(1, 4)
        wait_change(folder(run, "log"), lambda before, now: len(before - now) >= removed, CHANGE_SEC)
        time.sleep(rng.uniform(0, 0.005))


def wait_answers(run):
    before = run.answered()
    wait_for(lambda: run.answered() > before, READY_SEC, "writes are answered again")


# ---- ends -----------------------------------------------------------------------------------------


def in_checkpoint(run):
    """A generation lies there whose manifest does not."""
    lying = names(folder(run, "checkpoint"))
    generations = {name[:10] for name in lying if name.endswith(".ckp")}
    return any(f"{g}.manifest" not in lying for g in generations)


def kill_server(run):
    true(run.server.alive(), f"the server ended by itself, with {run.server.child.returncode}")
    note_segments(run)
    run.server.kill9()
    run.kills["kills -9"] += 1
    run.kills["in a checkpoint"] += in_checkpoint(run)


def stop_server(run):
    """SIGTERM, also to one that has ended by it already."""
    status = run.server.stop()
    true(status == 0, f"the server was stopped, and ended with {status}")
    run.kills["clean stops"] += 1


def kill_stopping(run):
    run.server.signal(signal.SIGTERM)
    time.sleep(run.rng.uniform(0, 0.02))
    if run.server.alive():
        kill_server(run)
        run.kills["in a clean stop"] += 1
    else:
        stop_server(run)


def start_server(run):
    """With other settings each time."""
    rng = run.rng
    for key, values in (
        ("threads", (1, 2, 3)),
        ("checkpoint-log-size", ("1MiB", "1MiB", "2MiB", "4MiB")),
        ("segment-size", ("1MiB", "1MiB", "2MiB")),
        ("compaction-slack", ("0", "0", "2MiB")),
    ):
        run.server.set_option(key, rng.choice(values))
    run.server.start()


def kill_again(run):
    """As soon as it serves; without a gateway nobody could tell."""
    if run.cluster.gateway.alive():
        start_server(run)
        wait_answers(run)
        time.sleep(run.rng.uniform(0, 0.05))
        kill_server(run)


def kill_starts(run):
    while True:
        start_server(run)
        time.sleep(run.rng.uniform(0, 0.15))
        kill_server(run)
        if run.rng.random() < 0.5:
            return


def strike(run):
    """Some load, and then the server, now and then others too, are gone."""
    rng = run.rng
    what = rng.choices(list(FAULTS), FAULTS.values())[0]
    wait_moment(run, what)
    if rng.random() < GATEWAY_TOO:
        run.cluster.gateway.kill9()
        run.kills["with the gateway"] += 1
    {"stop": stop_server, "stopping": kill_stopping}.get(what, kill_server)(run)
    if what == "twice":
        kill_again(run)
    elif what == "start":
        kill_starts(run)
    if rng.random() < MANAGER_TOO:
        run.cluster.manager.kill9()
        run.kills["with the manager"] += 1


def start_all(run):
    for process in (run.cluster.manager, run.cluster.gateway):
        if not process.alive():
            process.start()
    start_server(run)


# ---- looking at it ---------------------------------------------------------------------------------


def has_check():
    _, out, err = run_command([os.path.join(BUILD, "kumo-server"), "--help"])
    return re.search(r"--check(?![\w-])", out + err) is not None


def check_offline(run):
    """Now and then: the exit status of `kumo-server --check`."""
    if run.rng.randrange(CHECK_EVERY) > 0 or not has_check():
        return 0
    argv = [os.path.join(BUILD, "kumo-server"), "--check", os.path.join(run.cluster.dir, run.server.name)]
    status, out, err = run_command(argv, CHECK_SEC)
    run.kills["looked at offline"] += 1
    if status != 0:
        diag(f"{' '.join(argv)}: exit {status}\n{out}{err}")
    return status


def generations(run):
    """How many were published."""
    with open(run.server.log, encoding="utf-8", errors="replace") as f:
        text = f.read()
    return len(re.findall(r"checkpoint generation \d+ is written", text))
