"""A program that is run to its end: how long it took, what it cost, what it said.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import subprocess
import tempfile
import time

from . import BenchError, host


def run(argv):
    """Returns (wall seconds, CPU seconds, output). An exit status that is not 0 is an error."""
    with tempfile.TemporaryFile() as out:
        begin = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                   preexec_fn=lambda: host.prefer(os.getpid()))
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    if process.returncode:
        raise BenchError(f"{argv[0]} failed: {text.strip()}")
    return wall, usage.ru_utime + usage.ru_stime, text
