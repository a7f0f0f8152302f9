#!/usr/bin/env python3
"""scripts/inspect-save over real save files: whole ones, and ones spoiled in every part.

What the stream's frame and memory can be spoiled in is given to the VMM too: both refuse it, or both
take it.

    test-inspect-save.py FERRY SOURCE_DIR

Prints TAP. Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import copy
import importlib.machinery
import importlib.util
import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time

FERRY, SOURCE = sys.argv[1:3]
sys.path.insert(0, os.path.join(SOURCE, "tests", "bench"))
from lib.qmp import QMP  # noqa: E402

INSPECT = os.path.join(os.path.abspath(SOURCE), "scripts", "inspect-save")
MIB = 1 << 20
MEMORY = 24 * MIB
# Pages with contents, by number; the rest is zero, but for a table or two of the machine's own.
PAGES = {0: b"first", 1: b"second", 5000: b"middle", MEMORY // 4096 - 1: b"last"}
BLOCK = "/objects/ram"
ADDRESS_SPACE = 1 << 30
EOS, FOOTER = struct.pack(">Q", 0x10), b"\x7e"
START, PART, END, FULL = 1, 2, 3, 4


@contextlib.contextmanager
def machine(directory, *options, pages=()):
    """A stopped machine whose memory holds @pages, {number: contents}; yields its QMP."""
    ram, sock = os.path.join(directory, "ram"), os.path.join(directory, "qmp")
    with open(ram, "wb") as f:
        f.truncate(MEMORY)
        for page in pages:
            f.seek(page * 4096)
            f.write(pages[page].ljust(4096, b"." if pages[page] else b"\0"))
    process = subprocess.Popen(
        [FERRY, "-accel", "qtest", "-S", "-m", "24", "-nodefaults", "-display", "none",
         "-object", f"memory-backend-file,id=ram,size={MEMORY},mem-path={ram},share=off",
         "-machine", "microvm,memory-backend=ram", "-uuid", "00112233-4455-6677-8899-aabbccddeeff",
         "-qmp", f"unix:{sock},server=on,wait=off", *options], stdin=subprocess.DEVNULL,
        stderr=None if "-incoming" not in options else subprocess.DEVNULL)
    try:
        qmp = QMP(sock)
        yield qmp
        qmp.command("quit")
        process.wait(20)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for leftover in (sock, ram):
            if os.path.exists(leftover):
                os.unlink(leftover)


def wait_for_end(qmp):
    end = time.monotonic() + 60
    while (status := qmp.command("query-migrate")).get("status") not in ("completed", "failed"):
        assert time.monotonic() < end, "the migration did not end in time"
        time.sleep(0.01)
    return status


def make_save(directory, name, config, offset=0, more_pages=None):
    """A stopped machine with known memory, saved; returns the file's path."""
    path = os.path.join(directory, name)
    with machine(directory, pages={**PAGES, **(more_pages or {})}) as qmp:
        qmp.command("migrate", channels=[{"channel-type": "main", "addr": {
            "transport": "file", "filename": path, "offset": offset}}],
            config=dict(config, **{"validate-uuid": True}))
        status = wait_for_end(qmp)
        assert status["status"] == "completed", status
    return path


def load(directory, path, mapped):
    """What the VMM says to the file: None when it takes it."""
    with machine(directory, "-incoming", "defer") as qmp:
        qmp.command("migrate-incoming", uri=f"file:{path}", exit_on_error=False,
                    config={"direct-mapped": mapped})
        status = wait_for_end(qmp)
        return None if status["status"] == "completed" else status["error-desc"]


def program():
    """scripts/inspect-save as a module."""
    sys.path.insert(0, os.path.dirname(INSPECT))
    loader = importlib.machinery.SourceFileLoader("inspect_save_script", INSPECT)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    sys.path.pop(0)
    return module


PROGRAM = program()


def too_long(signum, frame):
    raise TimeoutError("it takes too long")


@contextlib.contextmanager
def bounds():
    """Time and memory that suffice for any of the files here, however senseless."""
    unbounded = resource.getrlimit(resource.RLIMIT_AS)
    signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, unbounded[1]))
    signal.alarm(30)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, unbounded)


def inspect(path, *options):
    """
    Exit status, output, errors. In this process, as starting one for each of a thousand files takes
    long; what would be a traceback is an exception here.
    """
    out, err = io.StringIO(), io.StringIO()
    sys.argv[1:] = [*options, path]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), bounds():
        status = PROGRAM.main()
    assert bool(err.getvalue()) == (status != 0), (status, err.getvalue())
    return status, out.getvalue(), err.getvalue()


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
    assert mapped["pages-in-holes"] == 0 and info["remarks"] == []
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


# Files made of other files --------------------------------------------------------------------------


def read(path):
    with open(path, "rb") as f:
        return f.read()


def rebuilt(path, at, cut, data):
    """A copy of @path with @data in place of the @cut bytes at @at. Holes stay holes before @at."""
    copy_path = path + ".bad"
    subprocess.run(["cp", "--sparse=always", path, copy_path], check=True)
    with open(copy_path, "r+b") as f:
        f.seek(at + cut)
        rest = f.read()
        f.seek(at)
        f.truncate()
        f.write(data + rest)
    return copy_path


def section(info, name):
    return next(s for s in info["sections"] if s["name"] == name)


def section_bytes(path, entry):
    with open(path, "rb") as f:
        f.seek(entry["offset"])
        return f.read(entry["bytes"])


def end_of_ram(path, info):
    """Offset of the element END of "ram", which holds no page."""
    at = section(info, "globalstate")["offset"] - 18
    with open(path, "rb") as f:
        f.seek(at)
        element = f.read(18)
    assert element[0] == END and element[5:13] == EOS and element[13:14] == FOOTER, element
    return at


def page_record(page, fill=None, data=None):
    """A record that names its block: zero with a fill byte, or data."""
    word = page * 4096 | (2 if data is None else 8)
    name = BLOCK.encode()
    return struct.pack(">QB", word, len(name)) + name + (bytes([fill]) if data is None else data)


def with_description(path, change):
    """A copy of @path whose description went through @change(object), or is what that returns."""
    at = (data := read(path)).rindex(b"\0\6")
    root = json.loads(data[at + 6:])
    result = change(root)
    text = result if isinstance(result, bytes) else json.dumps(root).encode()
    return rebuilt(path, at, len(data) - at, b"\0\6" + struct.pack(">I", len(text)) + text)


# Sections -------------------------------------------------------------------------------------------


def check_sections(directory, path, mapped):
    info = expect_good(path)
    assert load(directory, path, mapped) is None
    end, rtc, port = end_of_ram(path, info), section(info, "mc146818rtc"), section(info, "port92")
    port_data = section_bytes(path, port)

    def both(text, theirs, at, cut, data):
        """Both refuse the file with @data in place of the @cut bytes at @at."""
        spoiled_path = rebuilt(path, at, cut, data)
        expect_bad(spoiled_path, text)
        said = load(directory, spoiled_path, mapped)
        assert said and theirs in said, said

    both("section 'ram' (0) has no end", "has no end", end, 1, bytes([PART]))
    both("section 'mc146818rtc' (0) is missing", "is missing", rtc["offset"], rtc["bytes"], b"")
    both("section 'port92' (0) comes twice", "comes twice", rtc["offset"], 0, port_data)
    # Under an id of its own as well.
    again = port_data[:1] + b"\0\0\0\x63" + port_data[5:-4] + b"\0\0\0\x63"
    both("section 'port92' (0) comes twice", "comes twice", rtc["offset"], 0, again)
    cpu = section_bytes(path, section(info, "cpu"))
    both("which another section has", "which another section has", rtc["offset"] + 1, 4, cpu[1:5])
    both("section 'ram' goes on at", "has ended", rtc["offset"], 0,
         bytes([PART]) + b"\0\0\0\0" + EOS + FOOTER + b"\0\0\0\0")
    both("section id 99 at", "was not started", rtc["offset"], 0, bytes([PART]) + b"\0\0\0\x63")
    both("is sent at once", "is sent at once", section(info, "ram")["offset"], 1, bytes([FULL]))
    both("is sent in parts", "is sent in parts", rtc["offset"], 1, bytes([START]))
    both("section 'rtc' (0) is not in the", "this machine has not", rtc["offset"] + 5, 12, b"\3rtc")
    both("has version 2", "has version 2", rtc["offset"] + 1 + 4 + 1 + 11 + 7, 1, b"\2")
    both("command 77 is not known", "command 77", rtc["offset"], 0, b"\x08\0\x4d\0\0")
    both("wants to be answered", "wants to be answered", rtc["offset"], 0, b"\x08\0\1\0\0")
    both("the run state 'sunning'", "'sunning'", section(info, "globalstate")["offset"] + 29, 9,
         b"sunning\0\0")
    # What is in the description must be in the file, and the other way round.
    expect_bad(with_description(path, lambda d: d["devices"].pop(1)), "is not in the description")
    expect_bad(with_description(path, lambda d: d["devices"].append(
        dict(d["devices"][1], name="toaster"))), "section 'toaster' (0) is missing")
    # globalstate is part of every machine, whatever the description says.
    gone = rebuilt(path, section(info, "globalstate")["offset"],
                   section(info, "globalstate")["bytes"], b"")
    os.rename(gone, path + ".gone")
    expect_bad(with_description(path + ".gone", lambda d: d["devices"].pop(0)),
               "section 'globalstate' (0) is missing")
    # A PING is answered where it can be, and else ignored.
    ping = rebuilt(path, rtc["offset"], 0, b"\x08\0\2\0\4ping")
    assert expect_good(ping)["commands"] == {"PING": 1} and load(directory, ping, mapped) is None


def test_sections_stream(directory):
    check_sections(directory, make_save(directory, "save", {}), False)


def test_sections_mapped(directory):
    check_sections(directory, make_save(directory, "save", {"direct-mapped": True}), True)


def test_run_states(directory):
    """The names that it knows are those of the schema."""
    schema = read(os.path.join(SOURCE, "qapi", "run-state.json")).decode()
    names = re.search(r"'enum': 'RunState',\s*'data': \[([^]]*)\]", schema)[1]
    assert set(re.findall(r"'([a-z-]+)'", names)) == set(PROGRAM.RUN_STATES)


# Memory ---------------------------------------------------------------------------------------------


def check_records(directory, path, mapped, cases):
    """@cases: (text, the VMM's text, bytes put before the end mark of END of ram)."""
    end = end_of_ram(path, expect_good(path))
    for text, theirs, data in cases:
        spoiled_path = rebuilt(path, end + 5, 0, data)
        expect_bad(spoiled_path, text)
        said = load(directory, spoiled_path, mapped)
        assert said and theirs in said, said


def test_records_mapped(directory):
    path = make_save(directory, "save", {"direct-mapped": True})
    flush = struct.pack(">Q", 0x200)
    no_place = ("has no place in a direct-mapped file", "no place in a direct-mapped one")
    check_records(directory, path, True, [
        (*no_place, page_record(3, fill=7)),
        (*no_place, page_record(3, fill=0)),
        (*no_place, page_record(3, data=b"x" * 4096)),
        ("flags 0x18", "flags 0x18", struct.pack(">Q", 0x18)),
    ])
    whole = rebuilt(path, end_of_ram(path, expect_good(path)) + 5, 0, flush)
    expect_good(whole)
    assert load(directory, whole, True) is None


def test_records_stream(directory):
    path = make_save(directory, "save", {})
    check_records(directory, path, False, [
        ("filled with 0x07, only zero", "filled with 0x07, only zero", page_record(3, fill=7)),
        ("waits for multifd", "waits for multifd", struct.pack(">Q", 0x200)),
        ("XBZRLE", "XBZRLE", struct.pack(">Q", 0x40)),
        ("flags 0x18", "flags 0x18", struct.pack(">Q", 0x18)),
        ("listed twice", "lists its RAM blocks twice", struct.pack(">Q", MEMORY | 4)),
        ("lies outside its block", "beyond the end of block", page_record(MEMORY // 4096, fill=0)),
        ("is not announced", "unknown block", page_record(3, fill=0).replace(b"ram", b"rom")),
    ])


def test_sent_again(directory):
    """A live stream has a page as often as it was sent; the last time counts."""
    path = make_save(directory, "save", {})
    info = expect_good(path)
    before, = info["blocks"]
    assert before["data-records"] == before["pages-with-data"] and before["zero-records"] == 0
    end = end_of_ram(path, info)
    many = b"".join(page_record(page, data=bytes(4096)) for page in range(2000, 2100)) * 3
    path = rebuilt(path, end + 5, 0, many + b"".join(
        page_record(page, fill=0) for page in range(2000, 2050)) + page_record(5000, fill=0))
    after, = expect_good(path)["blocks"]
    pages = before["pages-with-data"] + 50 - 1
    assert after["pages-with-data"] == pages, after
    assert after["data-records"] == before["data-records"] + 300, after
    assert after["zero-records"] == 51, after
    assert after["zero-share"] == round(1 - pages / 6144, 4), after
    out = inspect(path)[1]
    assert f"{pages} of 6144 pages have data, 99.1% are zero" in out, out
    assert f"sent in {before['data-records'] + 351} records" in out, out


def test_senseless_blocks(directory):
    """A block as large as the address space costs nothing."""
    path = make_save(directory, "save", {})
    mem_size = read(path).index(struct.pack(">Q", MEMORY | 4))
    huge = rebuilt(path, mem_size, 8, struct.pack(">Q", 1 << 63 | 4))
    huge = spoiled(huge, {mem_size + 8 + 1 + len(BLOCK): struct.pack(">Q", 1 << 63)})
    assert expect_good(huge)["blocks"][0]["zero-share"] == 1
    expect_bad(spoiled(path, {mem_size: struct.pack(">Q", MEMORY * 2 | 4)}), "")
    path = make_save(directory, "save2", {"direct-mapped": True})
    block, = expect_good(path)["blocks"]
    length = block["direct-mapped"]["header-offset"] - 8
    mem_size = length - 8 - 1 - len(BLOCK)
    expect_bad(spoiled(path, {mem_size: struct.pack(">Q", 1 << 63 | 4),
                              length: struct.pack(">Q", 1 << 63)}), "overlap the bitmap")


def test_sparse_copy(directory):
    """Pages of zeroes that the bitmap names become holes in a sparse copy, and load all the same."""
    zeroes = {page: b"" for page in range(3000, 3020)}
    path = make_save(directory, "save", {"direct-mapped": True, "zero-page-detection": "none"},
                     more_pages=zeroes)
    block, = expect_good(path)["blocks"]
    assert block["pages-with-data"] >= len(PAGES) + len(zeroes), block
    info = expect_good(sparse := spoiled(path, {}))
    holes = info["blocks"][0]["direct-mapped"]["pages-in-holes"]
    assert len(zeroes) <= holes <= len(zeroes) + 2, info
    assert info["blocks"][0]["pages-with-data"] == block["pages-with-data"]
    status, out, _ = inspect(sparse)
    assert status == 0 and f"remark: block '{BLOCK}': {holes} pages that the bitmap names" in out, out
    assert out.endswith("the file is whole and consistent\n"), out
    assert load(directory, sparse, True) is None


# The description ------------------------------------------------------------------------------------


def device(root, name):
    return next(d for d in root["devices"] if d["name"] == name)


def test_description(directory):
    path = make_save(directory, "save", {})

    def bad(text, change):
        start = time.monotonic()
        expect_bad(with_description(path, change), text)
        assert time.monotonic() - start < 20, text

    def first(**members):
        """Change a field of globalstate."""
        return lambda root: root["devices"][0]["fields"][0].update(members)

    field = "the description makes no sense: section 'globalstate' (0), field 'size': "
    bad(field + "'size' is -5", first(size=-5))
    bad(field + "a value of type 'bool' has 1 bytes, not 0", first(type="bool", size=0))
    bad(field + "a value of type 'uint32' has 4 bytes, not 8", first(size=8))
    bad(field + "a value of type 'uint32' has 4 bytes, not 0", first(size=0))
    bad(field + "'type' is of the wrong type, int", first(type=7))
    bad(field + "'size' is of the wrong type, bool", first(type="bool", size=True))
    bad(field + "'size' is of the wrong type, float", first(size=4.5))
    bad(field + "'size' is of the wrong type, NoneType", first(size=None))
    bad(field + "1000000000 elements are more", first(array_len=10**9, type="buffer", size=0))
    bad(field + "'array_len' is -1", first(array_len=-1))
    bad(field + "'array_len' is of the wrong type, str", first(array_len="4"))
    bad(field + "'index' is -1", first(index=-1))
    bad(field + "'struct' is missing", first(type="struct"))
    bad(field + "'struct' is of the wrong type, list", first(struct=[]))
    bad(field + "'fields' is missing", first(struct={}))
    bad(field + "its fields have 0 bytes, it has 4", first(struct={"fields": []}))
    bad("section 'globalstate' (0): the description says 5000103 bytes", first(type="x", size=5000003))
    bad("bytes, 11 values up to here are more than a machine has", first(type="x", size=10**12))
    bad("section 'globalstate' (0), field 0: 'name' is missing",
        lambda root: root["devices"][0]["fields"][0].pop("name"))
    bad("section 'globalstate' (0), field 0: it is no object",
        lambda root: root["devices"][0]["fields"].insert(0, 7))
    bad("'fields' is of the wrong type", lambda root: root["devices"][0].update(fields={"a": 1}))
    bad("subsection 0: 'vmsd_name' is missing",
        lambda root: root["devices"][0].update(subsections=[{"fields": []}]))
    bad("'subsections' is of the wrong type",
        lambda root: root["devices"][0].update(subsections="x"))
    bad("'devices' is missing", lambda root: root.pop("devices"))
    bad("device 0: it is no object", lambda root: root.update(devices=[[]]))
    bad("'instance_id' is of the wrong type",
        lambda root: root["devices"][0].update(instance_id=[0]))
    bad("it is described twice", lambda root: root["devices"].append(root["devices"][0]))
    bad("the page size is 8192", lambda root: root.update(page_size=8192))
    bad("has version 1, the description says 2", lambda root: root["devices"][0].update(version=2))
    bad("subsection 'globalstate/x': it is not where it should be",
        lambda root: root["devices"][0].update(subsections=[
            {"vmsd_name": "globalstate/x", "version": 1, "fields": []}]))
    bad("does not end at", lambda root: root["devices"][2]["fields"].pop())

    def nested(levels):
        def change(root):
            for _ in range(levels):
                root["devices"][0]["fields"] = [{"name": "in", "type": "struct", "size": 104, "struct": {
                    "fields": root["devices"][0]["fields"]}}]
        return change

    expect_good(with_description(path, nested(10)))
    bad("tables are nested deeper than", nested(20))
    bad("cannot be read: it is nested too deeply", lambda root: b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}")
    bad("cannot be read: a number of 100000 digits", lambda root: b'{"a":' + b"7" * 10**5 + b"}")
    bad("cannot be read: more than", lambda root: b'{"a":[' + b"{}," * 10**6 + b"0]}")
    bad("cannot be read: ", lambda root: b'{"a":\xff}')
    bad("cannot be read: ", lambda root: b'{"a"}')
    # Elements without bytes multiply: each array alone is small.
    empty = {"name": "x", "type": "struct", "size": 0, "array_len": 4000, "struct": {"fields": []}}
    outer = {"name": "y", "type": "struct", "size": 0, "array_len": 4000,
             "struct": {"fields": [empty]}}
    bad("field 'y': 4000 elements are more", lambda root: root["devices"][0]["fields"].append(outer))
    # Names that go to a terminal, and twice the same one.
    status, out, _ = inspect(with_description(path, lambda root: root["devices"][0]["fields"].extend(
        [{"name": "\x1b[2J\ud800", "type": "x", "size": 0},
         {"name": "\x1b[2J\ud800", "type": "x", "size": 0, "index": 0}])), "--devices")
    assert status == 0 and "\x1b" not in out, out
    bad(r"section '\x1b[2J\ud800' (0) is missing", lambda root: root["devices"].append(
        dict(root["devices"][0], name="\x1b[2J\ud800")))


def test_description_place(directory):
    """What a device holds may look like a description; what follows the real one may be anything."""
    path = make_save(directory, "save", {})
    info = expect_good(path)
    fake = b'\0\6\0\0\0\2{}'
    at = section(info, "globalstate")["offset"] + 29 + 32 + 2
    assert expect_good(spoiled(path, {at: fake}))["end"] == info["end"]
    followed = rebuilt(path, info["end"], 0, b"\0" * 5000 + b"more")
    after = expect_good(followed)
    assert after["end"] == info["end"] and after["size"] == info["size"] + 5004
    assert load(directory, followed, False) is None


# Anything -------------------------------------------------------------------------------------------


WEIRD = [-5, -1, 0, 1, 3, 7, 255, 4096, 10**5, 10**9, 2**31, 2**32, 2**63, 10**19, 0.5, 1e308, True,
         False, None, "", "bool", "uint8", "int64 equal", "buffer", "struct", "x" * 300, "\ud800", "\0",
         [], {}, [[]], [{}], {"fields": []}, {"fields": [{}]}]


def places(value):
    """Every (container, key) in a JSON value."""
    for key in list(value if isinstance(value, dict) else range(len(value))):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from places(value[key])


def mutate_description(rng, root):
    root = copy.deepcopy(root)
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(list(places(root)))
        action = rng.randrange(4)
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[rng.choice(["array_len", "index", "struct", "subsections", "size", "type"])] = \
                copy.deepcopy(rng.choice(WEIRD))
        elif action == 2:
            container[key] = copy.deepcopy(rng.choice(list(places(root)))[0])
        else:
            container[key] = copy.deepcopy(rng.choice(WEIRD))
    return json.dumps(root).encode()


def mutate_bytes(rng, data):
    """Some bytes changed, put in, taken out or moved, mostly outside of the pages."""
    data = bytearray(data)
    interesting = [range(0, 200), range(len(data) - 6000, len(data)), range(len(data))]
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.choice(rng.choice(interesting)) % len(data)
        size = rng.choice([1, 1, 2, 4, 8, 100])
        action = rng.randrange(6)
        if action == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            data[at:at + size] = rng.randbytes(size)
        elif action == 2:
            data[at:at + size] = rng.choice([b"\0", b"\xff"]) * size
        elif action == 3:
            del data[at:at + size]
        elif action == 4:
            data[at:at] = data[at:at + size]
        else:
            data[at] = rng.choice(b"\0\1\2\3\4\5\6\7\x08\x7e{}[]0123456789-,\"")
    return bytes(data[:rng.randrange(len(data))] if rng.randrange(20) == 0 else data)


def test_mutations(directory):
    """No file, however spoiled, ends in a traceback or goes on for ever."""
    rng = random.Random(20260)
    data = read(path := make_save(directory, "save", {}))
    at = data.rindex(b"\0\6")
    root = json.loads(data[at + 6:])
    seen = {0: 0, 1: 0}
    for number in range(800):
        if number % 2:
            text = mutate_description(rng, root)
            spoiled_data = data[:at + 2] + struct.pack(">I", len(text)) + text
        else:
            spoiled_data = mutate_bytes(rng, data)
        with open(path, "wb") as f:
            f.write(spoiled_data)
        try:
            status, _, _ = inspect(path, rng.choice(["--json", "--devices"]))
        except Exception as problem:
            raise AssertionError(f"mutation {number}: {type(problem).__name__}: {problem}") from problem
        seen[status] += 1
    assert seen[0] > 20 and seen[1] > 400, seen


def test_process(directory):
    """As a program: the exit status, and no traceback when nobody reads or nothing can be written."""
    path = make_save(directory, "save", {})

    def run(*arguments):
        result = subprocess.run([INSPECT, *arguments], stdin=subprocess.DEVNULL, timeout=60,
                                capture_output=True, text=True)
        return result.returncode, result.stdout, result.stderr

    assert run(path)[0] == 0
    assert run("--offset", "4k", path)[0] == 1
    for wrong in (os.path.join(directory, "nothing"), directory, "/dev/zero"):
        status, _, err = run(wrong)
        assert status == 2 and err.startswith(f"inspect-save: {wrong}: "), err
    os.mkfifo(fifo := os.path.join(directory, "fifo"))
    assert run(fifo)[0] == 2
    assert "usage" in run("--offset=-5", path)[2]
    with subprocess.Popen([INSPECT, "--devices", path], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 2
    with open("/dev/full", "wb") as full:
        result = subprocess.run([INSPECT, path], stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert result.returncode == 2 and b"No space left" in result.stderr, result.stderr


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
