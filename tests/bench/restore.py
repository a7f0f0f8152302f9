"""A machine out of a file, beside fio.

4 GiB of random memory that were saved direct-mapped are restored with bypass-cache and two channels into
anonymous memory that has been touched once, against fio reading the same part of the same file (O_DIRECT,
1 MiB blocks, depth 16, io_uring), in turn. Aim: 0.9 of fio's rate.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
from lib import figures, fio, host, machine, moves
from save import AIM, CHANNELS, ROUNDS, SIZE_MIB, pages_offset


def check_contents(ferry, memory, path, content, size, options):
    target = memory.file("target")
    host.write_fill(target, size, 0x5a)
    moves.restore(ferry, machine.file_memory(target, size), path, *options)
    host.must_be_same(target, content, size)
    host.remove(target)


def run(context):
    size = context.size(SIZE_MIB)
    ferry = machine.ferry()
    ours, peer = figures.Side("ferry", size), figures.Side("fio", size)
    options = moves.direct(CHANNELS, bypass=True)

    with context.memory(2 * size) as memory, context.disk(size) as disk:
        content, path = memory.file("content"), disk.file("save")
        host.write_random(content, size)
        moves.save(ferry, machine.file_memory(content, size), path, *options)
        offset = pages_offset(path, content)
        check_contents(ferry, memory, path, content, size, options)
        host.remove(content)
        for _ in range(context.rounds(ROUNDS)):
            host.drop_cache(path)
            result = moves.restore(ferry, machine.touched_memory(size), path, *options)
            ours.add(result.seconds, result.cpu)
            host.drop_cache(path)
            peer.add(*fio.read(path, size, offset))

    figures.verdict("restore", peer.seconds.median / ours.seconds.median,
                    ours.lines() + peer.lines(), at_least=AIM)
    figures.verdict("restore-cpu", peer.cpu.median / ours.cpu.median, [ours.cpu, peer.cpu])
