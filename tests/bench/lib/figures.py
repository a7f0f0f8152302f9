"""Samples, medians and verdicts.

A verdict is a line `ratio NAME VALUE`, followed by indented lines with the figures it comes from:
the median and every sample of each side, all taken in one run, the sides in turn. Values are better the
larger they are unless the benchmark says otherwise; nothing here judges an absolute time.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import statistics


class Samples:
    """One figure of one side, a sample a round."""

    def __init__(self, label, unit, digits=2):
        self.label, self.unit, self.digits = label, unit, digits
        self.values = []

    def add(self, value):
        self.values.append(value)

    @property
    def median(self):
        return statistics.median(self.values)

    def __str__(self):
        samples = " ".join(f"{v:.{self.digits}f}" for v in self.values)
        return f"{self.label}: {self.median:.{self.digits}f} {self.unit}  [{samples}]"


class Side:
    """What is measured of one contender: seconds and CPU seconds of each round."""

    def __init__(self, name, size_bytes):
        self.name, self.gib = name, size_bytes / (1 << 30)
        self.seconds = Samples(f"{name} time", "s", 3)
        self.cpu = Samples(f"{name} CPU", "s", 3)

    def add(self, seconds, cpu):
        self.seconds.add(seconds)
        self.cpu.add(cpu)

    @property
    def mib_per_s(self):
        return self.gib * 1024 / self.seconds.median

    def lines(self):
        return [f"{self.seconds}, {self.mib_per_s:.0f} MiB/s",
                f"{self.cpu}, {self.cpu.median / self.gib:.3f} s/GiB"]


def say(line):
    print(f"  {line}", flush=True)


def verdict(name, value, lines=(), digits=2, at_least=None, below=None):
    """Print a verdict. A bound that is missed is said in the line after it; it is not an error."""
    print(f"ratio {name} {value:.{digits}f}", flush=True)
    if at_least is not None and value < at_least:
        say(f"WARNING: below the aim of {at_least}")
    if below is not None and value >= below:
        say(f"WARNING: not below the aim of {below}")
    for line in lines:
        say(line)


def table(header, rows):
    """Print aligned columns, the first to the left and the rest to the right."""
    rows = [[str(cell) for cell in row] for row in [header] + rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]
        say("  ".join(cells).rstrip())
