"""qcow2 images, beside QEMU's tools.

The same requests to images of the same making, by `ferry-img bench` and `qemu-img bench`, in turn: writes one after
the other into an empty image, each allocating, and reads of 4 KiB all over a full one. Then 1 MiB writes one
at a time, by ferry-io and qemu-io. O_DIRECT and io_uring on both sides, where the device's own limit is the better part
of the time; the reads once more from the page cache, where only the programs' work is. Aim: as fast at least.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os

from lib import BenchError, figures, fio, host, process

SIZE_MIB = 1024
ROUNDS = 5
AIM = 1.0
DEPTH = 16
READS = 100000
# Far apart, so that neither the device's nor the format's caches see neighbours; every place once.
READ_STEP = 79 * host.MIB + 4096


def tool(name):
    path = os.path.join(host.BUILD, "tools", name)
    if not os.access(path, os.X_OK):
        raise BenchError(f"{path} is not there: build it first")
    return path


def bench(program, path, *arguments, cache="none"):
    wall, cpu, _ = process.run([program, "bench", "-f", "qcow2", "-t", cache, "-i", "io_uring",
                                "-d", str(DEPTH), *arguments, path])
    return wall, cpu


def make(path, size, *options):
    host.remove(path)
    process.run([host.need_program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", *options, path,
                 str(size)])
    host.settle()


def check(path):
    process.run(["qemu-img", "check", "-q", path])


def compare(name, sides, size, rounds, run, device=None):
    """@run(program, last) measures one round; sides are (name, program); @device() measures the device alone."""
    measured = [figures.Side(side, size) for side, _ in sides]
    limit = figures.Side("fio, plain file", size)
    for i in range(rounds):
        for side, (_, program) in zip(measured, sides):
            side.add(*run(program, i == rounds - 1))
        if device:
            limit.add(*device())
    ours, peer = measured
    figures.verdict(name, peer.seconds.median / ours.seconds.median,
                    ours.lines() + peer.lines() + (limit.lines() if device else []), at_least=AIM)
    figures.verdict(name + "-cpu", peer.cpu.median / ours.cpu.median, [ours.cpu, peer.cpu])


def run(context):
    size = context.size(SIZE_MIB)
    rounds = context.rounds(ROUNDS)
    img = [("ferry-img", tool("ferry-img")), ("qemu-img", host.need_program("qemu-img", "qemu-utils"))]
    io = [("ferry-io", tool("ferry-io")), ("qemu-io", host.need_program("qemu-io", "qemu-utils"))]

    with context.disk(4 * size) as disk:
        path, plain = disk.file("image.qcow2"), disk.file("plain")

        def write(bytes_each):
            def measure(program, last):
                make(path, size)
                result = bench(program, path, "-w", "-c", str(size // bytes_each), "-s", str(bytes_each))
                if last:
                    check(path)
                return result
            return measure

        def write_by_io(program, last):
            make(path, size)
            commands = [word for at in range(0, size, host.MIB) for word in ("-c", f"write -q {at} 1M")]
            wall, cpu, _ = process.run([program, "-f", "qcow2", "-t", "none", "-i", "io_uring", *commands,
                                        "-c", "flush", path])
            if last:
                check(path)
            return wall, cpu

        def read(program, _last):
            host.drop_cache(path)
            return bench(program, path, "-c", str(READS), "-s", "4096", "-S", str(READ_STEP))

        def read_cached(program, _last):
            return bench(program, path, "-c", str(READS), "-s", "4096", "-S", str(READ_STEP), cache="writeback")

        compare("qcow2-write-64k", img, size, rounds, write(65536), lambda: fio.write_blocks(plain, size, 65536))
        compare("qcow2-write-4k", img, size // 8, rounds, lambda program, last: (
            make(path, size), bench(program, path, "-w", "-c", str(size // 8 // 4096), "-s", "4096"))[1])
        compare("qcow2-write-1m-io", io, size, rounds, write_by_io)
        make(path, size, "-o", "preallocation=full")
        process.run([img[1][1], "bench", "-f", "qcow2", "-w", "-t", "none", "-c", str(size // host.MIB), "-s",
                     str(host.MIB), path])
        compare("qcow2-read-random", img, READS * 4096, rounds, read,
                lambda: fio.read_blocks(plain, READS * 4096, 4096))
        read_cached(img[1][1], False)
        compare("qcow2-read-cached", img, READS * 4096, rounds, read_cached)
        host.remove(path)
        host.remove(plain)
