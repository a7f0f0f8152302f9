#!/usr/bin/env python3
"""ferry-io beside qemu-io: the same commands on the same image print the same, and leave the same bytes.

    test-ferry-io.py FERRY-IO

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

FERRY_IO = sys.argv[1]
QEMU_IO = shutil.which("qemu-io")
QEMU_IMG = shutil.which("qemu-img")
DEADLINE_S = 60


class Run:
    def __init__(self, *argv, stdin=None):
        done = subprocess.run(argv, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S,
                              check=False)
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr


def commands(program, image, fmt, *lines, options=()):
    argv = [program, "-f", fmt, *options]
    for line in lines:
        argv += ["-c", line]
    return Run(*argv, image)


def timeless(text):
    """Without what depends on the clock."""
    text = re.sub(r"[0-9.:]+ sec \(.*", "TIME", text)
    return re.sub(r"^(\d+,1),.*", r"\1,TIME", text, flags=re.M)


def raw(directory, size=4 << 20, name="a.img"):
    path = os.path.join(directory, name)
    with open(path, "wb") as f:
        f.truncate(size)
    return path


SAME = [
    "write -P 0x41 512 1k", "read -v -P 0x41 512 40", "read -P 0x42 512 1k", "read -C 0 1k", "write -q 64k 64k",
    "read -q -P 0xcd 64k 64k", "read -P 0x41 -s 512 -l 1k 0 2k", "read -P 0x41 -s 512 0 2k", "write -f -P 7 0 4k",
    "write -z 0 8k", "write -z -u 64k 64k", "read -P 0 64k 64k", "discard 0 64k", "flush", "length",
    "read 4M 512", "write -P 1 4095k 1k", "alloc 64k 64k", "truncate 8M", "length",
    "read -P 0 4M 4M", "aio_write -P 9 1M 64k", "aio_flush", "aio_read -P 9 1M 64k", "aio_flush", "write 1 1",
    "read -q -v 0 4",
]


def test_same_raw(directory):
    mine, theirs = raw(directory, name="mine.img"), raw(directory, name="theirs.img")
    for line in SAME:
        a, b = commands(FERRY_IO, mine, "raw", line), commands(QEMU_IO, theirs, "raw", line)
        assert timeless(a.out) == timeless(b.out), f"{line}: {a.out!r} and {b.out!r}"
        assert a.status == b.status, f"{line}: {a.status} and {b.status}"
    with open(mine, "rb") as a, open(theirs, "rb") as b:
        assert a.read() == b.read()


def test_same_qcow2(directory):
    mine, theirs = (os.path.join(directory, name) for name in ("mine.qcow2", "theirs.qcow2"))
    for path in (mine, theirs):
        subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", path, "4M"], check=True, timeout=DEADLINE_S)
    for line in (*SAME, "map", "alloc 0 8M", "write -c -P 3 2M 64k", "read -P 3 2M 64k"):
        a, b = commands(FERRY_IO, mine, "qcow2", line), commands(QEMU_IO, theirs, "qcow2", line)
        assert timeless(a.out) == timeless(b.out), f"{line}: {a.out!r} and {b.out!r}"
        assert a.status == b.status, f"{line}: {a.status} and {b.status}"
    for path in (mine, theirs):
        subprocess.run([QEMU_IMG, "check", "-q", path], check=True, timeout=DEADLINE_S)
    subprocess.run([QEMU_IMG, "compare", "-q", mine, theirs], check=True, timeout=DEADLINE_S)


def test_options(directory):
    path = raw(directory)
    for options in (("-n",), ("-t", "none"), ("-t", "directsync"), ("-t", "writethrough"), ("-t", "unsafe"),
                    ("-n", "-i", "native"), ("-n", "-k"), ("-i", "threads"), ("-i", "io_uring"), ("-d", "unmap"),
                    ("-d", "off"), ("-C",)):
        done = commands(FERRY_IO, path, "raw", "write -q -P 5 0 64k", "read -q -P 5 0 64k", options=options)
        assert (done.status, done.out, done.err) == (0, "", ""), (options, done.out, done.err)
    done = commands(FERRY_IO, path, "raw", "write 0 1", options=("-r",))
    assert done.status == 1 and "is read-only" in done.out, done.out
    done = Run(FERRY_IO, "-c", "read -q -P 5 0 64k", "--image-opts", f"driver=raw,file.filename={path}")
    assert (done.status, done.out, done.err) == (0, "", ""), done.err
    # The format is looked for only when none is given.
    assert Run(FERRY_IO, "-c", "length", path).out == "4 MiB\n"
    assert Run(FERRY_IO, "--version").out.startswith("ferry-io version ")
    assert Run(FERRY_IO, "--help").out.startswith("Usage: ferry-io ")


def test_copy_on_read(directory):
    """What is read from the backing file is in the image afterwards."""
    base, over = raw(directory, name="base.img"), os.path.join(directory, "over.qcow2")
    commands(FERRY_IO, base, "raw", "write -q -P 6 0 1M")
    subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", over], check=True,
                   timeout=DEADLINE_S)
    done = commands(FERRY_IO, over, "qcow2", "read -q -P 6 64k 64k", options=("-C",))
    assert (done.status, done.out, done.err) == (0, "", ""), (done.out, done.err)
    assert commands(FERRY_IO, over, "qcow2", "alloc 0 1M").out == "65536/1048576 bytes allocated at offset 0 bytes\n"
    commands(FERRY_IO, base, "raw", "write -q -P 7 0 1M")
    done = commands(FERRY_IO, over, "qcow2", "read -q -P 7 0 64k", "read -q -P 6 64k 64k")
    assert (done.status, done.out, done.err) == (0, "", ""), (done.out, done.err)


def test_errors(directory):
    path = raw(directory)
    missing = os.path.join(directory, "missing")
    for argv, message in (
            (("-f", "raw", missing), f"can't open device {missing}: Could not open '{missing}': No such file"),
            (("-f", "vmdk", path), f"can't open device {path}: Unknown driver 'vmdk'"),
            (("-f", "raw", path, path), f"Only one image can be opened, not also '{path}'"),
            (("-t", "some", path), "Invalid cache option: some"), (("-d", "some", path), "Invalid discard option: some"),
            (("-i", "some", path), "Invalid aio option: some"),
            (("--image-opts", "-f", "raw", path), "--image-opts and --format are mutually exclusive"),
            (("--image-opts",), "--image-opts requires a filename argument"),
            (("--image-opts", "driver=raw,colour=red"), "Parameter 'file' is missing"),
            (("-f", "raw", "-U", path), "force-share=on can only be used with read-only=on"),
            (("-x",), "Usage: ferry-io ")):
        done = Run(FERRY_IO, *argv)
        assert done.status == 1 and message in done.err, (argv, done.status, done.err)
    # One failure is enough, and does not keep from what follows.
    done = commands(FERRY_IO, path, "raw", "read 1G 1", "length")
    assert done.status == 1 and done.out == "read failed: Input/output error\n4 MiB\n", done.out
    done = Run(FERRY_IO, "-c", "length")
    assert done.status == 1 and done.out == "length: there is no disk\n", done.out


def test_stdin(directory):
    path = raw(directory)
    done = Run(FERRY_IO, "-f", "raw", path, stdin="write -q -P 4 0 4k\n\n  read -q -P 4 0 4k\nsleep 1\nlength\nquit\n"
               "length\n")
    assert done.status == 0 and done.out == "ferry-io> " * 5 + "4 MiB\nferry-io> ", done.out
    done = Run(FERRY_IO, "-f", "raw", path, stdin="foo\nlength")
    assert done.status == 1 and done.out == 'ferry-io> command "foo" not found\nferry-io> 4 MiB\nferry-io> \n', done.out


def test_lock(directory):
    """Two writers do not go together; a reader that shares does."""
    path = raw(directory)
    with subprocess.Popen([FERRY_IO, "-f", "raw", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as holder:
        try:
            holder.stdin.write("length\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "ferry-io> 4 MiB\n"
            done = commands(FERRY_IO, path, "raw", "length")
            assert done.status == 1 and f"Failed to get \"write\" lock on '{path}'" in done.err, done.err
            done = commands(FERRY_IO, path, "raw", "length", options=("-r", "-U"))
            assert (done.status, done.out) == (0, "4 MiB\n"), done.err
            done = commands(QEMU_IO, path, "raw", "length")
            assert done.status == 1 and "lock" in done.err, done.err
        finally:
            holder.kill()


TESTS = [test_same_raw, test_same_qcow2, test_options, test_copy_on_read, test_errors, test_stdin, test_lock]


def main():
    failed = False
    print(f"1..{len(TESTS)}")
    for number, test in enumerate(TESTS, 1):
        name = test.__name__[5:].replace("_", "-")
        if not QEMU_IO or not QEMU_IMG:
            print(f"ok {number} {name} # SKIP qemu-utils is not installed")
            continue
        with tempfile.TemporaryDirectory(prefix="ferry-io-") as directory:
            try:
                test(directory)
                print(f"ok {number} {name}", flush=True)
            except Exception as error:      # pylint: disable=broad-except
                failed = True
                print(f"not ok {number} {name}")
                print(f"# {error!r}"[:2000].replace("\n", "\n# "), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
