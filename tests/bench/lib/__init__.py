"""What the benchmarks share: figures, host, lines, QMP, machines, moves, fio.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""


class BenchError(Exception):
    """A run went wrong: the benchmark has no verdict."""


class Skip(Exception):
    """This host lacks what the benchmark needs."""
