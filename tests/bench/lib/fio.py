"""fio: what the device can do.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os

from . import BenchError, host, process

DEPTH = 16


def _run(path, size, arguments, block="1M"):
    """Returns (seconds of the job as fio reports them, CPU seconds of fio)."""
    program = host.need_program("fio", "fio")
    argv = [program, "--name=limit", f"--filename={path}", f"--size={size}", f"--bs={block}", "--direct=1",
            "--ioengine=io_uring", f"--iodepth={DEPTH}", "--output-format=json", *arguments]
    _, cpu, text = process.run(argv)
    job = json.loads(text[text.index("{"):])["jobs"][0]
    way = job["read"] if job["read"]["io_bytes"] else job["write"]
    if way["io_bytes"] != size:
        raise BenchError(f"fio moved {way['io_bytes']} bytes instead of {size}")
    return way["runtime"] / 1000, cpu


def write(path, size):
    """A new file written from end to end, on stable storage at the end."""
    host.settle()
    return _run(path, size, ["--rw=write", "--end_fsync=1"])


def write_blocks(path, size, block):
    """A new file written from end to end in blocks of that many bytes."""
    host.remove(path)
    return _run(path, size, ["--rw=write"], block)


def read_blocks(path, size, block):
    """Blocks of that many bytes read all over a file, @size bytes in all."""
    host.drop_cache(path)
    return _run(path, size, ["--rw=randread", f"--filesize={os.path.getsize(path)}", f"--io_size={size}"], block)


def read(path, size, offset):
    host.settle()
    return _run(path, size, ["--rw=read", f"--offset={offset}", "--invalidate=1"])
