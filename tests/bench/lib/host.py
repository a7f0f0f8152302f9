"""The host: where things are, room for them, memory contents, the page cache, CPU clocks.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import shutil
import tempfile
import time

from . import BenchError, Skip

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.path.join(TOP, os.environ.get("FERRY_BUILD", "build"))
FERRY = os.path.join(BUILD, "main", "ferry-system-x86_64")
QEMU = os.environ.get("FERRY_BENCH_QEMU", "qemu-system-x86_64")
SHARED_MEMORY = "/dev/shm"

MIB = 1 << 20
GIB = 1 << 30
PAGE = 4096
CHUNK = 4 * MIB


def need_ferry():
    if not os.access(FERRY, os.X_OK):
        raise BenchError(f"{FERRY} is not there: build it first")
    return FERRY


def need_program(name, package):
    path = shutil.which(name)
    if not path:
        raise Skip(f"{name} is not installed (Debian package {package})")
    return path


def need_memory(size_bytes):
    """Skip when the host has less than that free: a run that swaps or dies measures nothing."""
    with open("/proc/meminfo", encoding="ascii") as f:
        free = next(int(line.split()[1]) for line in f if line.startswith("MemAvailable"))
    if free * 1024 < size_bytes + GIB:
        raise Skip(f"needs {size_bytes >> 20} MiB of memory and 1 GiB to spare, "
                   f"{free >> 10} MiB are available")


class Directory:
    """A directory of our own that goes away at the end; refuses when the file system is too full."""

    def __init__(self, parent, need_bytes):
        os.makedirs(parent, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if free < need_bytes + GIB:
            raise Skip(f"{parent} has {free >> 20} MiB free, {(need_bytes + GIB) >> 20} are needed")
        self.path = tempfile.mkdtemp(prefix="ferry-bench-", dir=parent)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        shutil.rmtree(self.path, ignore_errors=True)

    def file(self, name):
        return os.path.join(self.path, name)


# Contents ---------------------------------------------------------------------------------------


def write_random(path, size):
    """A file without a pattern that any device or program could take advantage of."""
    with open(path, "wb") as f:
        for at in range(0, size, CHUNK):
            f.write(os.urandom(min(CHUNK, size - at)))


def _text(size):
    rng = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(rng.choices(letters, weights=range(26, 0, -1), k=rng.randint(2, 11)))
             for _ in range(5000)]
    out = " ".join(rng.choices(words, k=size // 4)).encode()
    return out[:size]


def write_mixed(path, size):
    """
    What the memory of a machine in use looks like: half of the pages random, a quarter zero, a
    quarter text, mixed in extents of 1 to 1024 pages. The same arrangement every time.
    """
    rng = random.Random(2)
    text = _text(CHUNK)
    pages = size // PAGE
    left = {"random": pages // 2, "zero": pages // 4}
    left["text"] = pages - sum(left.values())
    with open(path, "wb") as f:
        while any(left.values()):
            kind = rng.choices(list(left), weights=list(left.values()))[0]
            n = min(1 << rng.randint(0, 10), left[kind])
            left[kind] -= n
            if kind == "random":
                f.write(os.urandom(n * PAGE))
            elif kind == "zero":
                f.write(bytes(n * PAGE))
            else:
                at = rng.randrange(0, CHUNK - n * PAGE + 1)
                f.write(text[at:at + n * PAGE])


def write_sparse(path, size, used, extent=16 * MIB):
    """A file of @size of which @used bytes exist, random, in extents spread evenly over it."""
    extents = max(used // extent, 1)
    step = size // extents // PAGE * PAGE
    with open(path, "wb") as f:
        for i in range(extents):
            f.seek(i * step)
            for at in range(0, used // extents, CHUNK):
                f.write(os.urandom(min(CHUNK, used // extents - at)))
        f.truncate(size)


def write_fill(path, size, byte):
    """A file in which every page exists."""
    with open(path, "wb") as f:
        block = bytes([byte]) * CHUNK
        for at in range(0, size, CHUNK):
            f.write(block[:min(CHUNK, size - at)])


def data_extents(fd, size):
    """The parts of a file that exist."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        yield begin, at


def must_be_same(got, want, size, want_at=0, got_at=0):
    """Two files hold the same @size bytes from these offsets on (what is a hole in @want is zero)."""
    with open(got, "rb") as g, open(want, "rb") as w:
        for begin, end in data_extents(w.fileno(), want_at + size):
            w.seek(begin)
            g.seek(begin - want_at + got_at)
            for at in range(begin, end, CHUNK):
                n = min(CHUNK, end - at)
                if g.read(n) != w.read(n):
                    raise BenchError(f"{got} does not hold what {want} holds, "
                                     f"in the {n} bytes from {at} on")


# Disk and cache ---------------------------------------------------------------------------------


def settle():
    """Everything written so far is on disk, so that the next run does not pay for the last one."""
    os.sync()


def drop_cache(path):
    """The file's contents leave the page cache."""
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remove(path):
    """Remove a file and let the file system finish with it."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    settle()


# Priority ---------------------------------------------------------------------------------------

NICE = -20
prefer_wanted = True


def may_prefer():
    """Whether this host lets us run what is measured before everything else."""
    if not prefer_wanted:
        return False
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        os.setpriority(os.PRIO_PROCESS, 0, before)
    except PermissionError:
        return False
    return True


def prefer(pid):
    """
    All threads of a process, and those that they will start, run before everything else on the
    host, so that its other users do not decide how the sides compare. Not where we may not.

    By the nice value and not in a real-time class: there a thread that wakes does not take the place of one that
    runs, which is another scheduler than the one that users have, and not the same loss for every program.
    """
    if not may_prefer():
        return
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            os.setpriority(os.PRIO_PROCESS, int(thread), NICE)
        except ProcessLookupError:
            pass


# Time -------------------------------------------------------------------------------------------

CPUCLOCK_SCHED = 2


def cpu_seconds(pid):
    """CPU time of all threads of a process, ended ones and those of io_uring too."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


class Stopwatch:
    """Wall time, and CPU time of some processes, preferred, from its creation to stop()."""

    def __init__(self, *pids, preferred=True):
        self.pids = pids
        if preferred:
            for pid in pids:
                prefer(pid)
        self.cpu_then = [cpu_seconds(pid) for pid in pids]
        self.then = time.monotonic()

    def stop(self):
        """Returns (seconds, CPU seconds of all processes together)."""
        seconds = time.monotonic() - self.then
        return seconds, sum(cpu_seconds(p) - c for p, c in zip(self.pids, self.cpu_then))
