#!/usr/bin/env python3
"""scripts/inspect-save over real save files: whole ones, and ones spoiled in every part.

    test-inspect-save.py FERRY SOURCE_DIR

Prints TAP. Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

FERRY, SOURCE = sys.argv[1:3]
sys.path.insert(0, os.path.join(SOURCE, "tests", "bench"))
from lib.qmp import QMP  # noqa: E402

INSPECT = os.path.join(SOURCE, "scripts", "inspect-save")
MIB = 1 << 20
MEMORY = 24 * MIB
# Pages with contents, by number; the rest is zero, but for a table or two of the machine's own.
PAGES = {0: b"first", 1: b"second", 5000: b"middle", MEMORY // 4096 - 1: b"last"}


def make_save(directory, name, config, offset=0):
    """A stopped machine with known memory, saved; returns the file's path."""
    path, ram = os.path.join(directory, name), os.path.join(directory, "ram")
    with open(ram, "wb") as f:
        f.truncate(MEMORY)
        for page, text in PAGES.items():
            f.seek(page * 4096)
            f.write(text.ljust(4096, b"."))
    sock = os.path.join(directory, "qmp")
    process = subprocess.Popen(
        [FERRY, "-accel", "qtest", "-S", "-m", "24", "-nodefaults", "-display", "none",
         "-object", f"memory-backend-file,id=ram,size={MEMORY},mem-path={ram},share=off",
         "-machine", "microvm,memory-backend=ram", "-uuid", "00112233-4455-6677-8899-aabbccddeeff",
         "-qmp", f"unix:{sock},server=on,wait=off"], stdin=subprocess.DEVNULL)
    try:
        qmp = QMP(sock)
        qmp.command("migrate", channels=[{"channel-type": "main", "addr": {
            "transport": "file", "filename": path, "offset": offset}}],
            config=dict(config, **{"validate-uuid": True}))
        end = time.monotonic() + 60
        while (status := qmp.command("query-migrate"))["status"] not in ("completed", "failed"):
            assert time.monotonic() < end, "the save did not end in time"
            time.sleep(0.01)
        assert status["status"] == "completed", status
        qmp.command("quit")
        process.wait(20)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for leftover in (sock, ram):
            if os.path.exists(leftover):
                os.unlink(leftover)
    return path


def inspect(path, *options):
    result = subprocess.run([INSPECT, *options, path], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


def expect_good(path, *options):
    status, out, err = inspect(path, "--json", *options)
    assert status == 0, err
    return json.loads(out)


def expect_bad(path, text, *options):
    status, _, err = inspect(path, *options)
    assert status == 1 and text in err, f"status {status}, not '{text}' but: {err}"


def spoiled(path, changes, cut=None):
    """A copy of @path with @changes ({offset: bytes}) and cut off at @cut. Holes stay holes."""
    copy = path + ".bad"
    subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    with open(copy, "r+b") as f:
        for offset, data in changes.items():
            f.seek(offset)
            f.write(data)
        if cut is not None:
            f.truncate(cut)
    return copy


def test_stream(directory):
    path = make_save(directory, "stream", {})
    info = expect_good(path)
    assert info["configuration"]["machine"] == "microvm"
    assert info["configuration"]["uuid"] == "00112233-4455-6677-8899-aabbccddeeff"
    assert info["configuration"]["capabilities"] == []
    block, = info["blocks"]
    assert block["length"] == MEMORY and len(PAGES) <= block["pages-with-data"] <= len(PAGES) + 2, block
    assert {s["name"] for s in info["sections"]} >= {"ram", "globalstate"}
    state = next(s["state"] for s in info["sections"] if s["name"] == "globalstate")
    assert bytes.fromhex(state["runstate"]).rstrip(b"\0").decode() in ("prelaunch", "paused"), state
    assert info["end"] == info["size"] == os.path.getsize(path)


def test_stream_offset(directory):
    path = make_save(directory, "offset", {}, offset=12288)
    assert expect_good(path, "--offset", "12k")["offset"] == 12288
    expect_bad(path, "not a migration stream")


def test_mapped(directory):
    path = make_save(directory, "mapped", {"direct-mapped": True})
    info = expect_good(path)
    assert info["configuration"]["capabilities"] == ["mapped-ram"]
    block, = info["blocks"]
    mapped = block["direct-mapped"]
    assert len(PAGES) <= mapped["pages-set"] <= len(PAGES) + 2 and mapped["pages-offset"] % MIB == 0, mapped
    with open(path, "rb") as f:
        for page, text in PAGES.items():
            f.seek(mapped["pages-offset"] + page * 4096)
            assert f.read(4096) == text.ljust(4096, b"."), page
    status, out, _ = inspect(path, "--devices")
    assert status == 0 and "the file is whole and consistent" in out and "99.9% are zero" in out


def test_mapped_spoiled(directory):
    path = make_save(directory, "mapped2", {"direct-mapped": True})
    block, = expect_good(path)["blocks"]
    header = block["direct-mapped"]["header-offset"]
    bitmap = block["direct-mapped"]["bitmap-offset"]
    pages = block["direct-mapped"]["pages-offset"]

    def bad(text, changes, cut=None):
        expect_bad(spoiled(path, changes, cut), text)

    bad("direct-mapped header version 2", {header: struct.pack(">I", 2)})
    bad("page size 8192", {header + 4: struct.pack(">Q", 8192)})
    bad("bitmap at 5", {header + 12: struct.pack(">Q", 5)})
    bad("overlap the bitmap or are not aligned", {header + 20: struct.pack(">Q", pages + 4096)})
    bad("overlap the bitmap or are not aligned", {header + 20: struct.pack(">Q", 0)})
    bad("page 2 is missing: there is a hole", {bitmap: bytes([7])})
    bad("truncated", {}, cut=pages + 5000 * 4096)
    bad("truncated", {}, cut=header + 10)
    bad("the description at the stream's end is missing", {}, cut=os.path.getsize(path) - 1)


def test_stream_spoiled(directory):
    path = make_save(directory, "stream2", {})
    size = os.path.getsize(path)
    globalstate = next(s for s in expect_good(path)["sections"] if s["name"] == "globalstate")
    expect_bad(spoiled(path, {0: b"Fiqc"}), "incomplete")
    expect_bad(spoiled(path, {0: b"XXXX"}), "not a migration stream")
    expect_bad(spoiled(path, {7: b"\4"}), "stream version 4")
    expect_bad(spoiled(path, {8: b"\0"}), "no configuration section")
    expect_bad(spoiled(path, {globalstate["offset"] + globalstate["bytes"] - 5: b"\x77"}),
               "does not end at")
    for cut in (3, 8, 20, 100, size // 2, size - 1):
        expect_bad(spoiled(path, {}, cut), "truncated")
    assert inspect(os.path.join(directory, "nothing"))[0] == 2


def main():
    tests = [f for name, f in sorted(globals().items()) if name.startswith("test_")]
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, test in enumerate(tests, 1):
        with tempfile.TemporaryDirectory(prefix="ferry-inspect-") as directory:
            try:
                test(directory)
                print(f"ok {number} {test.__name__[5:]}", flush=True)
            except Exception as err:
                failed += 1
                print(f"not ok {number} {test.__name__[5:]}")
                print(f"# {type(err).__name__}: {err}".replace("\n", "\n# "), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
