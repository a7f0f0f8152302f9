"""Copying images: ferry-img convert beside qemu-img convert.

The same sources to the same formats with the same options, in turn: from memory to memory by way of the page cache,
where what is measured is the copying itself, and on the disk past it. `full` is random data, `mixed` what a disk in use
holds (half of it random, a quarter text, a quarter zeroes that are written), `holes` 1/8 data in extents of 64 KiB.
Aim: 1.1 of qemu-img's rate for raw images, 1.0 for the rest.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os

from lib import BenchError, figures, host, process

SIZE_MIB = 1024
ROUNDS = 5
DIRECT = ["-t", "none", "-T", "none"]
HOLES_EXTENT = 64 * 1024


def tool(name):
    path = os.path.join(host.BUILD, "tools", name)
    if not os.access(path, os.X_OK):
        raise BenchError(f"{path} is not there: build it first")
    return path


def write_holes(path, size):
    with open(path, "wb") as f:
        f.truncate(size)
        for at in range(0, size, 8 * HOLES_EXTENT):
            f.seek(at)
            f.write(os.urandom(HOLES_EXTENT))


class Sources:
    """Images of one content in both formats, in one directory."""

    def __init__(self, directory, size):
        self.directory, self.size = directory, size

    def make(self, content, write):
        raw, qcow2 = self.path(content, "raw"), self.path(content, "qcow2")
        write(raw, self.size)
        process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2])

    def path(self, content, fmt):
        return self.directory.file(f"{content}.{fmt}")


def compare(sources, content, source_format, target_format, aim, rounds, arguments=(), label=None):
    source = sources.path(content, source_format)
    target = sources.directory.file("target")
    sides = (("ferry-img", tool("ferry-img")), ("qemu-img", host.need_program("qemu-img", "qemu-utils")))
    measured = [figures.Side(name, sources.size) for name, _ in sides]
    for i in range(rounds):
        for side, (_, program) in zip(measured, sides):
            if "none" in arguments:
                host.drop_cache(source)
            wall, cpu, _ = process.run([program, "convert", "-f", source_format, "-O", target_format, *arguments,
                                        source, target])
            side.add(wall, cpu)
            if i == rounds - 1:
                process.run(["qemu-img", "compare", "-q", "-f", source_format, "-F", target_format, source, target])
            host.remove(target)
    name = "img-convert-" + (label or f"{content}-{source_format}-{target_format}")
    ours, peer = measured
    figures.verdict(name, peer.seconds.median / ours.seconds.median, ours.lines() + peer.lines(), at_least=aim)
    figures.verdict(name + "-cpu", peer.cpu.median / ours.cpu.median, [ours.cpu, peer.cpu])


def run(context):
    host.need_program("qemu-img", "qemu-utils")
    size, rounds = context.size(SIZE_MIB), context.rounds(ROUNDS)
    with context.memory(5 * size) as memory:
        sources = Sources(memory, size)
        sources.make("full", host.write_random)
        for formats, aim in ((("raw", "raw"), 1.1), (("raw", "qcow2"), 1.0), (("qcow2", "raw"), 1.0)):
            compare(sources, "full", *formats, aim, rounds)
        sources.make("mixed", host.write_mixed)
        compare(sources, "mixed", "raw", "raw", 1.1, rounds)
        compare(sources, "mixed", "raw", "qcow2", 1.0, rounds)
        sources.make("holes", write_holes)
        compare(sources, "holes", "raw", "raw", 1.1, rounds)
        compare(sources, "holes", "qcow2", "raw", 1.0, rounds)
    with context.memory(5 * size // 4) as memory:
        sources = Sources(memory, size // 4)
        sources.make("mixed", host.write_mixed)
        for method in ("zlib", "zstd"):
            compare(sources, "mixed", "raw", "qcow2", 1.0, rounds, ["-c", "-o", f"compression_type={method}"],
                    f"compress-{method}")
    with context.disk(3 * size) as disk:
        sources = Sources(disk, size)
        sources.make("full", host.write_random)
        for formats in (("raw", "raw"), ("raw", "qcow2"), ("qcow2", "raw")):
            compare(sources, "full", *formats, 1.0, rounds, DIRECT, f"direct-{'-'.join(formats)}")
