"""A stopped machine into a file, beside fio.

4 GiB of random memory, direct-mapped, bypass-cache, two channels, against fio writing a new file of the same
size in the same directory (O_DIRECT, 1 MiB blocks, depth 16, io_uring), in turn. Both end on stable
storage. Aim: 0.9 of fio's rate.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
from lib import BenchError, figures, fio, host, machine, moves

SIZE_MIB = 4096
ROUNDS = 5
CHANNELS = 2
AIM = 0.9
PAGES_ALIGN = host.MIB


def pages_offset(path, content):
    """Where in the save file the memory begins: the first boundary at which its first page lies."""
    with open(content, "rb") as f:
        first = f.read(host.PAGE)
    with open(path, "rb") as f:
        for at in range(PAGES_ALIGN, 64 * PAGES_ALIGN, PAGES_ALIGN):
            f.seek(at)
            if f.read(host.PAGE) == first:
                return at
    raise BenchError(f"the memory's first page is not in {path}")


def run(context):
    size = context.size(SIZE_MIB)
    ferry = machine.ferry()
    ours, peer = figures.Side("ferry", size), figures.Side("fio", size)
    options = moves.direct(CHANNELS, bypass=True)

    with context.memory(size) as memory, context.disk(size) as disk:
        content, path = memory.file("content"), disk.file("save")
        host.write_random(content, size)
        rounds = context.rounds(ROUNDS)
        for i in range(rounds):
            result = moves.save(ferry, machine.file_memory(content, size), path, *options)
            ours.add(result.seconds, result.cpu)
            if i == rounds - 1:
                host.must_be_same(path, content, size, got_at=pages_offset(path, content))
            host.remove(path)
            peer.add(*fio.write(path, size))
            host.remove(path)

    figures.verdict("save", peer.seconds.median / ours.seconds.median, ours.lines() + peer.lines(),
                    at_least=AIM)
    figures.verdict("save-cpu", peer.cpu.median / ours.cpu.median, [ours.cpu, peer.cpu])
