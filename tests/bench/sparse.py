"""A 256 GiB machine that has used 1 GiB, beside a 1 GiB machine that has used all of it.

Both are restored from a file into anonymous memory that nobody touched, and saved again from there,
direct-mapped, bypass-cache, two channels, in turn. The ratio is the small machine's time over the large
one's: 1 when size costs nothing.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
from lib import BenchError, figures, host, machine, moves

USED_MIB = 1024
TIMES = 256
CHANNELS = 2


class Case:
    def __init__(self, name, size, used, memory, disk):
        self.name, self.size = name, size
        self.content, self.saved = memory.file(name), disk.file(name)
        self.again = disk.file(name + "-again")
        self.saves = figures.Side(f"{name} save", used)
        self.restores = figures.Side(f"{name} restore", used)
        host.write_sparse(self.content, size, used)

    def round(self, ferry, options):
        with machine.Machine(ferry, machine.untouched_memory(self.size), incoming=True) as m:
            host.drop_cache(self.saved)
            result = moves.restore_machine(m, self.saved, *options)
            self.restores.add(result.seconds, result.cpu)
            # The first save saves from the file in memory, these from anonymous memory.
            result = moves.save_machine(m, self.again, *options)
            self.saves.add(result.seconds, result.cpu)
        self.occupied = moves.allocated_bytes(self.again)
        host.remove(self.again)


def run(context):
    used = context.size(USED_MIB)
    ferry = machine.ferry()
    options = moves.direct(CHANNELS, bypass=True)

    with context.memory(4 * used) as memory, context.disk(4 * used) as disk:
        cases = [Case("small", used, used, memory, disk),
                 Case("large", TIMES * used, used, memory, disk)]
        for case in cases:
            moves.save(ferry, machine.sparse_file_memory(case.content, case.size), case.saved,
                       *options)
            if moves.allocated_bytes(case.saved) < used:
                raise BenchError(f"{case.saved} holds less than what the machine used")
        for _ in range(context.rounds(3)):
            for case in cases:
                case.round(ferry, options)

    small, large = cases
    sizes = [f"{c.name}: {c.size >> 20} MiB of memory, {used >> 20} MiB used, the file occupies "
             f"{c.occupied >> 20} MiB" for c in cases]
    figures.verdict("sparse-save", small.saves.seconds.median / large.saves.seconds.median,
                    small.saves.lines() + large.saves.lines() + sizes)
    figures.verdict("sparse-restore",
                    small.restores.seconds.median / large.restores.seconds.median,
                    small.restores.lines() + large.restores.lines())
