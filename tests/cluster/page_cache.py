"""The page cache under a server's log: what of it is in memory, taking it away, and who read it from the disk."""

import collections
import contextlib
import ctypes
import mmap
import os
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MAP_FAILED = ctypes.c_void_p(-1).value
PAGE = mmap.PAGESIZE
PROBE_BYTES = 1 << 20


def log_bytes(folder):
    return sum(os.path.getsize(path) for path in segments(folder))


def segments(folder):
    return [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".seg")]


def evict(folder):
    """Takes out of memory what is on the disk and what no process has mapped and touched: of a running server
    that is what its I/O threads have read, of a stopped one everything."""
    for path in segments(folder):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # compacted meanwhile
            continue
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def evict_all(folder):
    """What no process has mapped: did it go, all of it? Pages that the kernel just has in hand need a second call."""
    for _ in range(10):
        sync(folder)
        evict(folder)
        if resident_bytes(folder) == 0:
            return True
        time.sleep(0.1)
    return False


class Evictor(threading.Thread):
    """Within, evicts again and again."""

    def __init__(self, folder, pause_sec=0.02):
        super().__init__(daemon=True)
        self.folder = folder
        self.pause_sec = pause_sec
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(self.pause_sec):
            evict(self.folder)

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.over.set()
        self.join()


def sync(folder):
    """Dirty pages can't be evicted."""
    for path in segments(folder):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)


def resident_bytes(folder):
    return sum(file_resident_bytes(path) for path in segments(folder))


def file_resident_bytes(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            return 0
        at = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if at == MAP_FAILED:
            raise OSError(ctypes.get_errno(), "mmap")
    finally:
        os.close(fd)
    pages = ctypes.create_string_buffer((size + PAGE - 1) // PAGE)
    failed = LIBC.mincore(at, size, pages) < 0
    error = ctypes.get_errno()
    LIBC.munmap(at, size)
    if failed:
        raise OSError(error, "mincore")
    return sum(page & 1 for page in pages.raw) * PAGE


def can_evict(folder):
    """Does eviction work on this file system, and does the kernel count what is read again then?"""
    path = os.path.join(folder, "probe.seg")
    with open(path, "wb") as f:
        f.write(b"x" * PROBE_BYTES)
    try:
        if not evict_all(folder):
            return False
        before = read_bytes("/proc/self")
        with open(path, "rb") as f:
            f.read()
        return read_bytes("/proc/self") - before >= PROBE_BYTES
    except OSError:
        return False
    finally:
        os.unlink(path)


def read_bytes(process):
    """What the process, or the thread, of this folder of /proc made the kernel read from a disk."""
    with open(f"{process}/io", encoding="ascii") as f:
        return int(dict(line.split(": ") for line in f.read().splitlines())["read_bytes"])


def read_bytes_by_thread(pid):
    """Counter: the name of threads: what they made the kernel read from a disk."""
    found = collections.Counter()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            with open(f"/proc/{pid}/task/{thread}/comm", encoding="ascii") as f:
                found[f.read().strip()] += read_bytes(f"/proc/{pid}/task/{thread}")
    return found


def reads_of(pid):
    """(bytes that the process made the kernel read from a disk, faults on mapped files that waited for one)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        stat = f.read().rsplit(")", 1)[1].split()
    return read_bytes(f"/proc/{pid}"), int(stat[9])
