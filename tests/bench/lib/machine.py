"""Machines: Ferry's or QEMU's program with a monitor, ended in any case.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import shutil
import subprocess
import tempfile
import time

from . import BenchError, host
from .lines import Lines
from .qmp import QMP

# More than any channel can do.
UNLIMITED = 1 << 43
MOVE_TIMEOUT_S = 600


class Line:
    """What one contender's program is called and how its one-microvm command line begins."""

    def __init__(self, name, program):
        self.name, self.program = name, program

    def accelerator(self):
        return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg"


def ferry():
    return Line("ferry", host.need_ferry())


def qemu():
    return Line("qemu", host.need_program(host.QEMU, "qemu-system-x86"))


def file_memory(path, size):
    """Memory that is a file: what the file holds is what the machine's memory holds."""
    return (f"memory-backend-file,id=ram,size={size},mem-path={path},share=on,prealloc=on", size)


def sparse_file_memory(path, size):
    """The same, and what was never written stays so."""
    return (f"memory-backend-file,id=ram,size={size},mem-path={path},share=on", size)


def touched_memory(size):
    """Anonymous memory, every page touched before anything is measured."""
    return (f"memory-backend-ram,id=ram,size={size},prealloc=on", size)


def untouched_memory(size):
    return (f"memory-backend-ram,id=ram,size={size}", size)


class Machine:
    """
    A machine of @line's program, stopped (-S) unless @paused is false, or with @incoming waiting
    for `migrate-incoming`. `{dir}` in @extra becomes the machine's own directory. Use it in a `with`.
    """

    def __init__(self, line, memory, incoming=False, paused=True, extra=(), accel=None):
        self.line = line
        self.dir = tempfile.mkdtemp(prefix="ferry-bench-")
        self.process = self.qmp = None
        backend, size = memory
        argv = [line.program, "-machine", "microvm,memory-backend=ram", "-object", backend,
                "-m", f"{size >> 20}M", "-accel", accel or line.accelerator(),
                "-nodefaults", "-no-user-config", "-display", "none",
                "-qmp", f"unix:{self.path('qmp')},server=on,wait=off",
                *(word.replace("{dir}", self.dir) for word in extra)]
        if paused:
            argv.append("-S")
        if incoming:
            argv += ["-incoming", "defer"]
        self.argv = argv
        try:
            with open(self.path("stderr"), "wb") as err:
                self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                                                stdout=subprocess.DEVNULL, stderr=err)
            self.qmp = QMP(self.path("qmp"), self.must_live, timeout=300)
        except BaseException:
            self.close()
            raise

    def path(self, name):
        return os.path.join(self.dir, name)

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        with open(self.path("stderr"), encoding="utf-8", errors="replace") as f:
            return f.read().strip()

    def must_live(self):
        if self.process.poll() is not None:
            raise BenchError(f"{self.line.name} ended with status {self.process.returncode}: "
                             f"{self.stderr()}\n  {' '.join(self.argv)}")

    def prepare(self, capabilities=(), parameters=None):
        """Capabilities on, bandwidth unlimited, these parameters set."""
        states = [{"capability": c, "state": True} for c in ("events", *capabilities)]
        self.qmp.command("migrate-set-capabilities", capabilities=states)
        self.qmp.command("migrate-set-parameters", **{"max-bandwidth": UNLIMITED,
                                                      **(parameters or {})})

    def wait_moved(self, timeout=MOVE_TIMEOUT_S):
        """Until the migration has completed here; raises when it fails."""
        end = time.monotonic() + timeout
        while True:
            try:
                event = self.qmp.event(("MIGRATION",), end - time.monotonic())
            except BenchError as e:
                self.must_live()
                raise BenchError(f"{self.line.name}: {e}; {self.stderr()}") from None
            status = event["data"]["status"]
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                info = self.qmp.command("query-migrate")
                raise BenchError(f"{self.line.name}: migration {status}: "
                                 f"{info.get('error-desc', '')} {self.stderr()}")

    def moved_info(self):
        """query-migrate's answer; QEMU fills in the total time only after it has said completed."""
        end = time.monotonic() + 10
        while True:
            info = self.qmp.command("query-migrate")
            if info.get("total-time") or time.monotonic() > end:
                return info
            time.sleep(0.01)

    def close(self):
        """End the process, by the monitor or by its number, and remove its files."""
        if self.process and self.process.poll() is None and self.qmp:
            try:
                self.qmp.command("quit", timeout=20)
                self.process.wait(30)
            except (BenchError, OSError, subprocess.TimeoutExpired):
                pass
        if self.qmp:
            self.qmp.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class Serial:
    """The guest's serial port as a stream of lines, each wait with a deadline."""

    def __init__(self, machine, timeout=30):
        self.lines = Lines(machine.path("serial"), "the guest's serial port", timeout,
                           machine.must_live)

    def send(self, text):
        self.lines.send(text.encode())

    def wait(self, wanted, timeout=60):
        """The next line that holds one of the strings @wanted; those before it are skipped."""
        end = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.line(end).decode("utf-8", "replace").strip()
            except BenchError as e:
                raise BenchError(f"the guest did not say {' or '.join(wanted)}: {e}") from None
            if any(w in line for w in wanted):
                return line

    def close(self):
        self.lines.close()
