"""Every way to save into a file and back, in one table.

2 GiB of random memory: the plain stream, direct-mapped, with bypass-cache, with 1, 2 and 4 channels. Each
case is saved and restored once a round, the cases in turn, files out of the page cache before they are
read. Each verdict is the case's rate over the plain stream's.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
from lib import figures, host, machine, moves

SIZE_MIB = 2048


def cases():
    """Name, capabilities, parameters."""
    yield "stream", [], {}
    for channels in (0, 1, 2, 4):
        for bypass in (False, True):
            name = "direct-mapped"
            name += f"+multifd-{channels}" if channels else ""
            name += "+bypass-cache" if bypass else ""
            yield (name, *moves.direct(channels, bypass))


def run(context):
    size = context.size(SIZE_MIB)
    ferry = machine.ferry()
    saves = {name: figures.Side(name, size) for name, *_ in cases()}
    restores = {name: figures.Side(name, size) for name, *_ in cases()}

    with context.memory(2 * size) as memory, context.disk(size) as disk:
        content, path = memory.file("content"), disk.file("save")
        host.write_random(content, size)
        for _ in range(context.rounds(3)):
            for name, capabilities, parameters in cases():
                result = moves.save(ferry, machine.file_memory(content, size), path, capabilities,
                                    parameters)
                saves[name].add(result.seconds, result.cpu)
                host.drop_cache(path)
                result = moves.restore(ferry, machine.touched_memory(size), path, capabilities,
                                       parameters)
                restores[name].add(result.seconds, result.cpu)
                host.remove(path)

    rows = []
    for name in saves:
        s, r = saves[name], restores[name]
        rows.append([name, f"{s.mib_per_s:.0f}", f"{s.cpu.median / s.gib:.3f}",
                     f"{r.mib_per_s:.0f}", f"{r.cpu.median / r.gib:.3f}"])
    for way, sides in (("save", saves), ("restore", restores)):
        base = sides["stream"].seconds.median
        for name, side in sides.items():
            figures.verdict(f"options-{way}-{name}", base / side.seconds.median, side.lines())
    figures.table(["case", "save MiB/s", "CPU s/GiB", "restore MiB/s", "CPU s/GiB"], rows)
