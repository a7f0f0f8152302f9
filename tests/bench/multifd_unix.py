"""Several channels over UNIX sockets, beside the single stream.

The memory of `precopy`, moved with multifd over 1, 2 and 4 channels and by the plain stream, in turn.
One move of each is not counted. Each verdict is the stream's time over that of the channels.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
from lib import figures, host, machine, moves
from precopy import check_contents

SIZE_MIB = 2048
CHANNELS = (1, 2, 4)


def options(channels):
    return (["multifd"], {"multifd-channels": channels}) if channels else ([], {})


def run(context):
    size = context.size(SIZE_MIB)
    ferry = machine.ferry()
    sides = {0: figures.Side("stream", size)}
    sides.update({n: figures.Side(f"{n} channels", size) for n in CHANNELS})

    with context.memory(3 * size) as memory:
        content = memory.file("content")
        host.write_mixed(content, size)
        check_contents(ferry, memory, content, size, *options(CHANNELS[-1]))
        for counted in [False] + [True] * context.rounds(3):
            for channels, side in sides.items():
                result = moves.over_socket(ferry, machine.file_memory(content, size),
                                           machine.touched_memory(size), *options(channels))
                if counted:
                    side.add(result.seconds, result.cpu)

    stream = sides[0]
    for channels in CHANNELS:
        side = sides[channels]
        figures.verdict(f"multifd-unix-{channels}", stream.seconds.median / side.seconds.median,
                        side.lines() + stream.lines())
