"""Helpers of the cluster tests: real processes on loopback, a raw memcached client, TAP.

    CASES = [case_one, case_two]            # functions of one argument; the docstring names the case
    def main():
        with Cluster(servers=3) as cluster:
            run(CASES, cluster)

Everything waits for a limited time only. A process is stopped by the pid that this program got when it
started it, never by name; should this program die, the kernel kills what it started.
"""

import atexit
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KUMO_BUILD") or os.path.join(TOP, "build")
LOG_LINES = 12  # of each log, when something failed
SERVING_SEC = 20  # from the start of the processes to the first answers

# ---- TAP ------------------------------------------------------------------------------------------


def diag(text):
    for line in str(text).splitlines() or [""]:
        print(f"# {line}", flush=True)


def note(text):
    """A remark that the runner shows also when all went well."""
    for line in str(text).splitlines():
        print(f"# note: {line}", flush=True)


class Tap:
    """Test points by hand, where run() does not fit."""

    def __init__(self, count=None):
        self.count = 0
        self.failed = 0
        self.planned = count
        if count is not None:
            print(f"1..{count}", flush=True)

    def ok(self, good, name, why=None):
        self.count += 1
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {self.count} - {name}", flush=True)
        if not good and why is not None:
            diag(why)
        return bool(good)

    def not_ok(self, name, why=None):
        return self.ok(False, name, why)

    def skip(self, name, why):
        self.count += 1
        print(f"ok {self.count} - {name} # SKIP {why}", flush=True)

    def finish(self):
        if self.planned is None:
            print(f"1..{self.count}", flush=True)
        sys.exit(1 if self.failed else 0)


class Skip(Exception):
    """Raised by a case that cannot run here; the text says why."""


def skip_all(why):
    print(f"1..0 # SKIP {why}", flush=True)
    sys.exit(0)


def case_name(case):
    return ((case.__doc__ or case.__name__).strip().splitlines()[0]).rstrip(".")


def run(cases, cluster=None):
    """Runs functions as test points: what raises has failed. Exits."""
    only = os.environ.get("CASE")
    cases = [c for c in cases if not only or only in c.__name__]
    tap = Tap(len(cases))
    for case in cases:
        started = time.monotonic()
        try:
            case(cluster) if cluster is not None else case()
        except Skip as e:
            tap.skip(case_name(case), str(e))
            continue
        except Exception as e:  # noqa: BLE001: a test point failed, whatever the reason
            why = "".join(traceback.format_exception(type(e), e, e.__traceback__)[1:])
            tap.not_ok(case_name(case), why)
            if cluster is not None:
                cluster.show_logs()
            continue
        tap.ok(True, case_name(case))
        if time.monotonic() - started > 5:
            diag(f"took {time.monotonic() - started:.1f} s")
    tap.finish()


def short(value, length=200):
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}... ({len(value)} in all)"


def equal(got, want, what=""):
    if got != want:
        head = f"{what}: " if what else ""
        raise AssertionError(f"{head}got {short(got)}, expected {short(want)}")


def true(good, what):
    if not good:
        raise AssertionError(what)


def matches(pattern, text, what=""):
    if not re.search(pattern, text, re.MULTILINE):
        raise AssertionError(f"{what}: /{pattern}/ is not in:\n{text}")


def wait_for(condition, seconds, what):
    """Calls `condition` until it returns something true; returns that."""
    end = time.monotonic() + seconds
    pause = 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


# ---- ports ----------------------------------------------------------------------------------------

PORT_LOCKS = []  # held until this program ends


def can_bind(port):
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6 and not has_ipv6():
            continue
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except OSError:
                return False
    return True


def has_ipv6():
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as f:
            return any(line.startswith("0" * 31 + "1 ") for line in f)
    except OSError:
        return False


def free_ports(count, together=False):
    """Ports that nobody listens on, below those that the kernel hands out for outgoing connections, each
    locked by a file so that tests that run at the same time never choose the same one. With `together`
    they follow each other."""
    folder = os.path.join(tempfile.gettempdir(), f"kumofs-test-ports.{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    chosen = []
    for _ in range(2000):
        want = count if together else 1
        first = random.randrange(20000, 32000 - want)
        got = [lock_port(folder, p) for p in range(first, first + want)]
        if all(got):
            chosen += range(first, first + want)
            PORT_LOCKS.extend(got)
        else:
            for f in filter(None, got):
                f.close()
        if len(chosen) >= count:
            return chosen
    raise AssertionError(f"found no {count} free ports")


def lock_port(folder, port):
    f = open(os.path.join(folder, str(port)), "w", encoding="ascii")
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        f.close()
        return None
    if can_bind(port):
        return f
    f.close()
    return None


# ---- processes ------------------------------------------------------------------------------------

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def with_core_file():
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)


class Process:
    """One daemon: start, stop, kill9, restart."""

    def __init__(self, name, argv, log, wrapper=()):
        self.name = name
        self.argv = argv
        self.log = log
        self.wrapper = list(wrapper)  # such as valgrind and its options
        self.child = None
        self.wanted = False  # it should run
        self.shown = 0  # bytes of the log that were printed already

    @property
    def pid(self):
        return self.child.pid if self.child else None

    def start(self, *more):
        true(not self.alive(), f"{self.name} runs already")
        with open(self.log, "ab") as log:
            log.write(f"--- start: {' '.join(self.argv + list(more))}\n".encode())
            log.flush()
            self.child = subprocess.Popen(
                self.wrapper + self.argv + list(more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.core_dir(),
                preexec_fn=with_core_file,
            )
        self.wanted = True
        return self

    def set_option(self, key, value):
        """For the next start."""
        self.argv = [word for word in self.argv if not word.startswith(f"--{key}=")] + [f"--{key}={value}"]

    def core_dir(self):
        """Where the kernel puts a core file, if it writes any."""
        path = f"{self.log}.d"
        os.makedirs(path, exist_ok=True)
        return path

    def show_core(self):
        """The stacks of all threads, where gdb can tell them."""
        cores = [f for f in os.listdir(self.core_dir()) if f.startswith("core")]
        if not cores or not shutil.which("gdb"):
            return
        argv = ["gdb", "-batch", "-ex", "bt", "-ex", "thread apply all bt 15", self.argv[0], cores[0]]
        done = subprocess.run(argv, cwd=self.core_dir(), capture_output=True, text=True, timeout=60)
        for line in [x for x in done.stdout.splitlines() if re.match(r"#|Thread|Program", x)][:60]:
            diag(f"    {line}")

    def argv_option(self, key):
        return next(word.split("=", 1)[1] for word in self.argv if word.startswith(f"--{key}="))

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        if self.alive():
            self.child.send_signal(number)

    def wait(self, seconds):
        """The exit status: negative for a signal."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} (pid {self.pid}) did not end within {seconds} s") from None

    def stop(self, seconds=15):
        """SIGTERM; the exit status. After the time it is killed, and that is an error."""
        self.wanted = False
        if not self.alive():
            return self.child.returncode if self.child else None
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except AssertionError:
            self.kill9()
            raise

    def kill9(self):
        self.wanted = False
        if self.alive():
            self.child.kill()
            self.child.wait(30)

    def restart(self, seconds=15):
        self.stop(seconds)
        return self.start()

    def read_log(self):
        """What was logged since the last start."""
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return re.split(r"^--- start: .*\n", f.read(), flags=re.MULTILINE)[-1]

    def show_log(self, lines=LOG_LINES):
        state = "runs" if self.alive() else f"ended with {self.child.returncode}"
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                f.seek(self.shown)
                text = f.read()
                self.shown = f.tell()
        except OSError as e:
            text = str(e)
        if text:
            diag(f"--- {self.name} ({state}), last new lines of its log:")
            for line in text.splitlines()[-lines:]:
                diag(f"    {line}")
            if (self.child.returncode or 0) < 0:
                self.show_core()


def run_command(argv, seconds=30, stdin="", env=None, cwd=None):
    """(exit status, stdout, stderr) of a program that ends by itself."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=seconds,
            env=env,
            cwd=cwd,
            preexec_fn=die_with_parent,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{' '.join(argv)}: did not end within {seconds} s") from None
    return done.returncode, done.stdout, done.stderr


def program(name):
    path = os.path.join(BUILD, name)
    true(os.access(path, os.X_OK), f"{path} is missing: run make")
    return path


# ---- a cluster ------------------------------------------------------------------------------------


def option_list(options):
    return [f"--{key.replace('_', '-')}={value}" for key, value in (options or {}).items()]


def make_key(path):
    status, out, err = run_command([program("kumoctl"), "key", "generate", path])
    true(status == 0, f"kumoctl key generate: {out}{err}")


class Cluster:
    """Managers (1, 3 or 5), servers and one gateway in a directory of their own, on free ports. With `key`, or
    KUMO_KEY=1 in the environment, they have a cluster key."""

    def __init__(
        self,
        dir=None,
        servers=3,
        replicas=3,
        partitions=64,
        threads=2,
        sync="always",
        manager_options=None,
        server_options=None,
        gateway_options=None,
        wrapper=(),
        start=True,
        key=os.environ.get("KUMO_KEY") == "1",
        managers=1,
    ):
        self.own_dir = dir is None
        self.dir = dir or tempfile.mkdtemp(prefix="kumofs-test-")
        self.replicas = min(replicas, servers)
        self.partitions = partitions
        self.wrapper = wrapper
        ports = free_ports(servers + 1 + managers)
        self.gateway_port = ports[0]
        self.manager_ports = ports[1 : 1 + managers]
        self.server_ports = ports[1 + managers :]
        self.manager_port = self.manager_ports[0]
        self.manager_address = ",".join(f"127.0.0.1:{port}" for port in self.manager_ports)
        os.makedirs(os.path.join(self.dir, "log"), exist_ok=True)
        self.empty_conf = os.path.join(self.dir, "empty.conf")  # whatever /etc/kumofs holds
        with open(self.empty_conf, "w", encoding="ascii"):
            pass
        self.key_file = os.path.join(self.dir, "cluster.key") if key else "none"
        if key:
            make_key(self.key_file)

        self.manager_options = {"partitions": partitions, "replicas": replicas, **(manager_options or {})}
        self.managers = [self.make_manager(i) for i in range(managers)]
        self.manager = self.managers[0]
        self.server_options = {"threads": threads, "sync": sync, **(server_options or {})}
        self.servers = [self.make_server(f"db{i}", port) for i, port in enumerate(self.server_ports, 1)]
        self.gateway_options = {"threads": threads, **(gateway_options or {})}
        self.gateway = self.make_gateway("gateway", self.gateway_port)
        self.extra = []
        self.failed_to_start = False
        atexit.register(self.close)
        if start:
            try:
                self.start()
            except BaseException:
                self.show_logs()
                self.close()
                raise

    def process(self, name, which, options, wrapper=None):
        argv = [program(which), f"--config={self.empty_conf}"]
        argv += option_list({"cluster_key": self.key_file, **options})
        log = os.path.join(self.dir, "log", f"{name}.log")
        return Process(name, argv, log, self.wrapper if wrapper is None else wrapper)

    def make_manager(self, i, **options):
        name = "manager" if len(self.manager_ports) == 1 else f"manager{i + 1}"
        return self.process(
            name,
            "kumo-manager",
            {
                "listen": f"127.0.0.1:{self.manager_ports[i]}",
                "data_dir": f"{self.dir}/{name}",
                **({"managers": self.manager_address} if len(self.manager_ports) > 1 else {}),
                **self.manager_options,
                **options,
            },
        )

    def make_server(self, name, port, **options):
        return self.process(
            name,
            "kumo-server",
            {
                "name": name,
                "listen": f"127.0.0.1:{port}",
                "manager": self.manager_address,
                "data_dir": f"{self.dir}/{name}",
                **self.server_options,
                **options,
            },
        )

    def make_gateway(self, name, port, **options):
        return self.process(
            name,
            "kumo-gateway",
            {
                "listen": f"127.0.0.1:{port}",
                "manager": self.manager_address,
                **self.gateway_options,
                **options,
            },
        )

    def add(self, process):
        """A further process that close() ends."""
        self.extra.append(process)
        return process

    def processes(self):
        return [*self.managers, *self.servers, self.gateway, *self.extra]

    # ---- start and stop

    def start(self, attach=True):
        self.start_all()
        if attach:
            self.attach()
            self.wait_serving()

    def start_all(self):
        for p in [*self.managers, *self.servers, self.gateway]:
            p.start()
        self.wait_listening()

    def wait_listening(self, seconds=SERVING_SEC):
        for p, port in (*zip(self.managers, self.manager_ports), (self.gateway, self.gateway_port)):
            wait_for(lambda: self.listens(p, port), seconds, f"{p.name} listens on port {port}")

    @staticmethod
    def listens(process, port):
        true(process.alive(), f"{process.name} ended with {process.child and process.child.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            return False

    def attach(self, seconds=SERVING_SEC, names=None):
        names = names or [p.name for p in self.servers]
        last = ""

        def try_it():
            nonlocal last
            status, out, err = self.kumoctl("attach", "--replicas", str(self.replicas), *names)
            last = f"exit {status}: {out}{err}"
            return status == 0

        try:
            wait_for(try_it, seconds, "kumoctl attach")
        except AssertionError as e:
            raise AssertionError(f"{e}; last answer: {last}") from None

    def wait_serving(self, seconds=SERVING_SEC, port=None):
        """Until sets of many keys, so of every partition or nearly so, are answered by STORED and read
        back. Returns how long that took."""
        started = time.monotonic()
        stamp = f"{started:.6f}".encode()
        keys = [b"serving-%d" % i for i in range(6 * self.partitions)]

        def try_it():
            for p in self.processes():
                true(p.alive() or not p.wanted, f"{p.name} ended by itself")
            try:
                with self.client(port=port, timeout=10) as c:
                    c.send(b"".join(b"set %b 0 0 %d\r\n%b\r\n" % (k, len(stamp), stamp) for k in keys))
                    stored = [c.line() for _ in keys]
                    return stored == [b"STORED"] * len(keys) and c.get_many(keys) == {k: stamp for k in keys}
            except (OSError, AssertionError):
                return False

        wait_for(try_it, seconds, "sets and gets of all partitions work")
        return time.monotonic() - started

    def kill9_all(self):
        """All processes at once, as by a power switch."""
        running = [p for p in self.processes() if p.alive()]
        for p in running:
            p.wanted = False
            p.signal(signal.SIGKILL)
        for p in running:
            p.child.wait(30)

    def stop_all(self):
        """SIGTERM to all, the gateway first; {name: exit status}."""
        order = [*self.extra, self.gateway, *self.servers, *self.managers]
        return {p.name: p.stop() for p in order if p.alive()}

    def close(self):
        for p in reversed(self.processes()):
            with contextlib.suppress(Exception):
                p.kill9()
        atexit.unregister(self.close)
        if self.own_dir and not os.environ.get("KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- use

    def client(self, port=None, timeout=15):
        return Client("127.0.0.1", port or self.gateway_port, timeout)

    def kumoctl(self, *words, seconds=30, stdin=""):
        argv = [program("kumoctl"), f"--config={self.empty_conf}", f"--manager={self.manager_address}"]
        argv.append(f"--cluster-key={self.key_file}")
        return run_command(argv + list(words), seconds, stdin)

    def ctl(self, *words, **more):
        """kumoctl that must succeed: its output."""
        status, out, err = self.kumoctl(*words, **more)
        true(status == 0, f"kumoctl {' '.join(words)}: exit {status}\n{out}{err}")
        return out

    def replicas_of(self, keys, seconds=60):
        """{key: what `kumoctl locate --verify --json` says of it}; keys without blanks and quotes."""
        lines = "".join(f"locate {key.decode()} --verify --json\n" for key in keys)
        _, out, err = self.kumoctl(seconds=seconds, stdin=lines)
        found = {}
        decoder, at = json.JSONDecoder(), 0
        while out[at:].strip():
            at += len(out[at:]) - len(out[at:].lstrip())
            answer, at = decoder.raw_decode(out, at)
            found[answer["key"].encode()] = answer
        true(len(found) == len(set(keys)), f"kumoctl located {len(found)} of {len(set(keys))} keys\n{err}")
        return found

    def is_whole(self):
        """Every partition has all its replicas, and all of them work."""
        _, out, _ = self.kumoctl("status", "--json")
        status = json.loads(out) if out.startswith("{") else None
        held = sum(s["primary"] + s["replica"] for s in status["servers"]) if status else 0
        return bool(status) and held == status["partitions"] * self.replicas and status["partitions_waiting"] == 0

    def wait_whole(self, seconds=60):
        """A server that was away first fetches what it missed, then is a replica again."""
        try:
            wait_for(self.is_whole, seconds, "every partition has all its replicas again")
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.kumoctl('status')}") from None

    def check_replicas(self, want, seconds=60):
        """All replicas of the cluster hold the same of each key in `want`: {key: value or None}."""
        self.wait_whole()
        keys = list(want)
        for i in range(0, len(keys), 200):
            for key, answer in self.replicas_of(keys[i : i + 200], seconds).items():
                true(answer["agree"] is True, f"the replicas of {key} differ: {answer}")
                equal(len(answer["replicas"]), self.replicas, f"replicas of {key}")
                for replica in answer["replicas"]:
                    value = want[key]
                    equal(replica["found"], value is not None, f"{key} is there, at {replica}")
                    if value is not None:
                        equal(replica["bytes"], len(value), f"length of {key}, at {replica}")

    def show_logs(self, lines=LOG_LINES):
        for p in self.processes():
            if p.child:
                p.show_log(lines)
        if os.environ.get("KEEP"):
            diag(f"all is kept in {self.dir}")


# ---- a memcached client ---------------------------------------------------------------------------


class Client:
    """memcached's text protocol, byte for byte: nothing is hidden from the test."""

    def __init__(self, host, port, timeout=15):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = bytearray()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError(f"the gateway closed the connection, {short(bytes(self.pending))} was unread")
        self.pending += data

    def line(self):
        """One line without its end."""
        searched = 0
        while True:
            at = self.pending.find(b"\r\n", searched)
            if at >= 0:
                break
            searched = max(0, len(self.pending) - 1)
            self.fill()
        line = bytes(self.pending[:at])
        del self.pending[: at + 2]
        return line

    def exactly(self, count):
        while len(self.pending) < count:
            self.fill()
        data = bytes(self.pending[:count])
        del self.pending[:count]
        return data

    def rest(self):
        """Everything up to the end of the connection."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.fill()
        data = bytes(self.pending)
        self.pending.clear()
        return data

    def ask(self, data, want):
        """Sends `data`; the answer must be `want`, and nothing else may come with it."""
        self.send(data)
        self.expect(want, data)

    def expect(self, want, about=b""):
        """The next bytes must be `want`. What differs is shown as far as it came."""
        try:
            while len(self.pending) < len(want) and want.startswith(bytes(self.pending[: len(want)])):
                self.fill()
        except (TimeoutError, ConnectionError) as e:
            raise AssertionError(
                f"{short(about)}: got {short(bytes(self.pending))} and then {e}, expected {short(want)}"
            ) from None
        got = bytes(self.pending[: len(want)])
        if got != want:
            time.sleep(0.05)
            with contextlib.suppress(OSError, ConnectionError):
                self.socket.setblocking(False)
                self.fill()
            raise AssertionError(f"{short(about)}: got {short(bytes(self.pending))}, expected {short(want)}")
        del self.pending[: len(want)]

    def silent(self, about=b""):
        """Nothing is left unread: asks for the version, whose answer must come next."""
        self.ask(b"version\r\n", b"VERSION ")
        true(re.fullmatch(rb"\d+\.\d+\.\d+", self.line()), f"{short(about)}: a bad version")

    def set(self, key, value, flags=0, exptime=0):
        self.send(b"set %b %d %d %d\r\n%b\r\n" % (key, flags, exptime, len(value), value))
        return self.line()

    def values(self):
        """The VALUE parts of one answer up to END: [(key, flags, value, cas or None)]."""
        found = []
        while True:
            line = self.line()
            if line == b"END":
                return found
            words = line.split(b" ")
            true(words[0] == b"VALUE" and len(words) in (4, 5), f"got {short(line)}, expected VALUE or END")
            value = self.exactly(int(words[3]))
            equal(self.exactly(2), b"\r\n", "the end of a value")
            found.append((words[1], int(words[2]), value, int(words[4]) if len(words) == 5 else None))

    def get(self, key):
        """The value, or None."""
        self.send(b"get %b\r\n" % key)
        found = self.values()
        true(len(found) <= 1, f"{len(found)} values for one key")
        return found[0][2] if found else None

    def gets(self, key):
        """(value, flags, cas), or None."""
        self.send(b"gets %b\r\n" % key)
        found = self.values()
        return (found[0][2], found[0][1], found[0][3]) if found else None

    def get_many(self, keys, batch=500):
        found = {}
        for i in range(0, len(keys), batch):
            self.send(b"get %b\r\n" % b" ".join(keys[i : i + batch]))
            found.update({key: value for key, _, value, _ in self.values()})
        return found

    def delete(self, key):
        self.send(b"delete %b\r\n" % key)
        return self.line()


def refused(e):
    return isinstance(e, OSError) and e.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


def own_limit():
    """Seconds of the line "# timeout:" in the test itself, by which the runner goes too."""
    with open(sys.argv[0], encoding="utf-8") as f:
        found = re.search(r"^# timeout: (\d+)$", f.read(4096), re.MULTILINE)
    return int(found[1]) if found else 300


def end_in_time(seconds):
    """Ends this program, and with it its cluster, shortly before the runner would."""

    def on_alarm(*_):
        print(f"Bail out! The whole test took longer than {seconds} s", flush=True)
        traceback.print_stack(limit=8)
        sys.exit(1)

    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))


end_in_time(max(10, own_limit() - 5))
