"""Zero detection beside the memory's read bandwidth.

The program tests/bench/zero-bench.c does the measuring, in one process, both in turn; aim: 0.7.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import subprocess

from lib import BenchError, figures, host

AIM = 0.7


def run(context):
    program = os.path.join(host.BUILD, "tests", "bench", "zero-bench")
    size_mib = context.size(512) // host.MIB
    if not os.access(program, os.X_OK):
        raise BenchError(f"{program} is not there: build it first")
    done = subprocess.run([program, str(max(size_mib, 16))], capture_output=True, text=True,
                          timeout=300, check=False)
    if done.returncode:
        raise BenchError(f"{program}: {done.stderr.strip()}")
    first, *rest = done.stdout.splitlines()
    _, name, value = first.split()
    figures.verdict(name, float(value), [line.strip() for line in rest], at_least=AIM)
