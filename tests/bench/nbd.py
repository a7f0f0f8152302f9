"""NBD servers: ferry-nbd beside qemu-nbd and nbdkit.

One file in the page cache, served on a UNIX socket by each in turn: read and written from end to end by nbdcopy over
four connections, then 4 KiB requests at random places, one and 32 at a time, by fio's nbd engine. Aim: 1.1 times
the better of the two others, by throughput and by requests.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import subprocess
import time

from lib import BenchError, figures, host, process

SIZE_MIB = 1024
ROUNDS = 3
SECONDS = 3
AIM = 1.1
START_S = 10
PEERS = ("qemu-nbd", "nbdkit")


def listens(path):
    with open("/proc/net/unix", encoding="utf-8") as f:
        return any(path in line and int(line.split()[3], 16) & 0x10000 for line in list(f)[1:])


class Server:
    """One of the programs, serving @image at @sock, until the end of the `with` statement."""

    def __init__(self, name, image, sock):
        ferry = os.path.join(host.BUILD, "tools", "ferry-nbd")
        self.sock = sock
        argv = {"ferry-nbd": [ferry, "-t", "-e", "0", "-k", sock, "-f", "raw", image],
                "qemu-nbd": ["qemu-nbd", "-t", "-e", "0", "-k", sock, "-f", "raw", image],
                "nbdkit": ["nbdkit", "-f", "-U", sock, "file", image]}[name]
        host.need_program(argv[0], name)
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        preexec_fn=lambda: host.prefer(os.getpid()))

    def __enter__(self):
        end = time.monotonic() + START_S
        while not listens(self.sock):
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise BenchError(f"{self.process.args[0]} does not listen")
            time.sleep(0.01)
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait()
        if os.path.exists(self.sock):
            os.unlink(self.sock)

    def measure(self, argv):
        """Returns (seconds, CPU seconds of server and client, output)."""
        before = host.cpu_seconds(self.process.pid)
        wall, cpu, text = process.run(argv)
        return wall, cpu + host.cpu_seconds(self.process.pid) - before, text


def copy(image, sock, source):
    """From end to end: (seconds, CPU seconds)."""
    def run(name):
        uri = f"nbd+unix://?socket={sock}"
        with Server(name, image, sock) as server:
            ends = [source, uri] if source else [uri, "null:"]
            return server.measure(["nbdcopy", "--connections=4", *ends])[:2]
    return run


def requests(image, sock, way, depth):
    """4 KiB at random places: (seconds, CPU seconds) of a million requests."""
    def run(name):
        with Server(name, image, sock) as server:
            _, cpu, text = server.measure([
                "fio", "--name=x", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={sock}", f"--rw=rand{way}", "--bs=4k",
                f"--iodepth={depth}", "--time_based", f"--runtime={SECONDS}", f"--size={os.path.getsize(image)}",
                "--output-format=json"])
        done = json.loads(text[text.index("{"):])["jobs"][0][way]["total_ios"]
        if not done:
            raise BenchError(f"fio made no requests of {name}")
        return SECONDS * 1e6 / done, cpu * 1e6 / done
    return run


def compare(name, run, rounds, size):
    sides = {program: figures.Side(program, size) for program in ("ferry-nbd", *PEERS)}
    for _ in range(rounds):
        for program, side in sides.items():
            side.add(*run(program))
    ours = sides["ferry-nbd"]
    best = min((sides[p] for p in PEERS), key=lambda side: side.seconds.median)
    lines = [line for side in sides.values() for line in (str(side.seconds), str(side.cpu))]
    figures.verdict(name, best.seconds.median / ours.seconds.median, lines, at_least=AIM)
    figures.verdict(name + "-cpu", best.cpu.median / ours.cpu.median, [f"against {best.name}"])


def run(context):
    size = context.size(SIZE_MIB)
    rounds = context.rounds(ROUNDS)
    for program, package in (("nbdcopy", "libnbd-bin"), ("fio", "fio")):
        host.need_program(program, package)
    with context.disk(2 * size) as disk:
        image, source, sock = disk.file("image"), disk.file("source"), disk.file("nbd.sock")
        host.write_random(image, size)
        host.write_random(source, size)
        host.settle()
        compare("nbd-read", copy(image, sock, None), rounds, size)
        compare("nbd-write", copy(image, sock, source), rounds, size)
        host.must_be_same(image, source, size)
        for way in ("read", "write"):
            for depth in (1, 32):
                compare(f"nbd-4k-{way}-d{depth}", requests(image, sock, way, depth), rounds, 4096 * 10**6)
