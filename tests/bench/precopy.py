"""A stopped machine over a UNIX socket, beside qemu-system-x86_64.

Both move the same 2 GiB (half random, a quarter zero, a quarter text) that both map from one file in
memory, into anonymous memory that has been touched. One move of each is not counted. The main figure is the time from `migrate` until
both sides say completed; aim: 1.5 times as fast as QEMU, with no more CPU seconds.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
from lib import figures, host, machine, moves

SIZE_MIB = 2048
AIM = 1.5


def check_contents(line, memory, content, size, *options):
    """The move brings what it should: into a file this time, to be compared."""
    target = memory.file("target")
    host.write_fill(target, size, 0x5a)
    moves.over_socket(line, machine.file_memory(content, size), machine.file_memory(target, size),
                      *options)
    host.must_be_same(target, content, size)
    host.must_be_same(content, target, size)
    host.remove(target)


def run(context):
    size = context.size(SIZE_MIB)
    lines = [machine.ferry(), machine.qemu()]
    sides = {line.name: figures.Side(line.name, size) for line in lines}
    totals = {line.name: figures.Samples(f"{line.name} total-time", "s", 3) for line in lines}

    with context.memory(3 * size) as memory:
        content = memory.file("content")
        host.write_mixed(content, size)
        check_contents(lines[0], memory, content, size)
        for counted in [False] + [True] * context.rounds(3):
            for line in lines:
                result = moves.over_socket(line, machine.file_memory(content, size),
                                           machine.touched_memory(size))
                if counted:
                    sides[line.name].add(result.seconds, result.cpu)
                    totals[line.name].add(result.info["total-time"] / 1000)

    ours, peer = sides["ferry"], sides["qemu"]
    figures.verdict("precopy", peer.seconds.median / ours.seconds.median,
                    ours.lines() + peer.lines(), at_least=AIM)
    figures.verdict("precopy-total-time", totals["qemu"].median / totals["ferry"].median,
                    totals.values(), at_least=AIM)
    figures.verdict("precopy-cpu", peer.cpu.median / ours.cpu.median,
                    [ours.cpu, peer.cpu], at_least=1)
