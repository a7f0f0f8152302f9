"""Seeds for the fuzz targets: small, whole, right inputs, made when they are needed.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import struct
import subprocess
import tempfile
import time

MAX_LEN = {"fuzz-qmp": 4096, "fuzz-qcow2": 1 << 17, "fuzz-migration-load": 1 << 16, "fuzz-nbd-options": 4096,
           "fuzz-nbd-requests": 8192}

QMP = [
    {"execute": "qmp_capabilities"},
    {"execute": "query-status", "id": 1},
    {"execute": "query-migrate", "id": {"a": [None, True, 1.5]}},
    {"execute": "query-qmp-schema"},
    {"execute": "migrate", "arguments": {"channels": [
        {"channel-type": "main", "addr": {"transport": "socket", "type": "unix", "path": "/x"}}],
        "config": {"multifd": True, "multifd-channels": 2, "max-bandwidth": 1}}},
    {"channel-type": "main", "addr": {"transport": "file", "filename": "/x", "offset": 4096}},
    {"channel-type": "main", "addr": {"transport": "exec", "args": ["/bin/true"]}},
    {"type": "inet", "host": "localhost", "port": "0", "to": 10, "ipv4": True},
    {"driver": "qcow2", "node-name": "d0", "read-only": True, "cache": {"direct": True},
     "file": {"driver": "file", "filename": "/x", "aio": "io_uring", "locking": "off"},
     "backing": {"driver": "raw", "offset": 512, "size": 1024, "file": "b"}},
    {"driver": "nbd", "server": {"type": "unix", "path": "/x"}, "export": "e", "reconnect-delay": 5},
    {"driver": "blkdebug", "image": "n", "inject-error": [{"iotype": "write", "errno": 28, "once": True}]},
    {"qom-type": "memory-backend-file", "id": "m", "size": 1 << 20, "mem-path": "/x", "share": True},
    {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": "/x"}}, "server": True}},
]


def write(directory, name, data):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def make_qmp(directory, _build):
    for i, request in enumerate(QMP):
        write(directory, f"seed-{i}", json.dumps(request).encode())
    write(directory, "seed-odd", b'{"a":"\\ud83d\\ude00\\u0041","b":-0.5e+10,"c":[[],{}]} nul [1] \xff{')


def ask(monitor, command):
    monitor.stdin.write(json.dumps(command) + "\n")
    monitor.stdin.flush()
    while True:
        answer = json.loads(monitor.stdout.readline())
        if "return" in answer or "error" in answer:
            return answer


def save(build, path, mapped):
    """A machine of 4 MiB with nothing in it, saved by the program itself."""
    program = os.path.join(build, "main", "ferry-system-x86_64")
    vm = subprocess.Popen([program, "-accel", "qtest", "-m", "4M", "-nodefaults", "-display", "none", "-S",
                           "-qmp", "stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    try:
        vm.stdout.readline()
        ask(vm, {"execute": "qmp_capabilities"})
        ask(vm, {"execute": "migrate", "arguments": {"uri": "file:" + path,
                                                      "config": {"direct-mapped": mapped}}})
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = ask(vm, {"execute": "query-migrate"})["return"].get("status")
            if status in ("completed", "failed"):
                break
            time.sleep(0.01)
        if status != "completed":
            raise RuntimeError(f"the seed could not be saved: {status}")
    finally:
        vm.kill()
        vm.wait()


def make_migration_load(directory, build):
    with tempfile.TemporaryDirectory() as scratch:
        for mapped in (False, True):
            path = os.path.join(scratch, "save")
            save(build, path, mapped)
            with open(path, "rb") as file:
                data = file.read()
            os.unlink(path)
            write(directory, f"seed-{int(mapped)}", bytes([int(mapped)]) + data)


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def make_nbd_options(directory, _build):
    name = struct.pack(">I", 1) + b"e"
    go = name + struct.pack(">HH", 1, 3)
    contexts = name + struct.pack(">I", 2) + b"".join(
        struct.pack(">I", len(c)) + c for c in (b"base:", b"qemu:dirty-bitmap:b0"))
    flags = struct.pack(">I", 3)
    write(directory, "seed-list", flags + option(3) + option(2))
    write(directory, "seed-go", flags + option(8) + option(11) + option(9, contexts) + option(10, contexts)
          + option(6, go) + option(7, go))
    write(directory, "seed-name", flags + option(5) + option(99, b"x" * 100) + option(1, b"e"))


def make_nbd_requests(directory, _build):
    def simple(flags, kind, cookie, offset, length, payload=b""):
        return struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length) + payload

    def extended(flags, kind, cookie, offset, length, payload=b""):
        return struct.pack(">IHHQQQ", 0x21E41C71, flags, kind, cookie, offset, length) + payload

    for how, make_request in ((0, simple), (1, simple), (5, simple), (7, extended), (8, simple)):
        data = b"".join(make_request(flags, kind, i, 4096 * i, length, payload)
                        for i, (flags, kind, length, payload) in enumerate((
                            (0, 0, 8192, b""), (1, 1, 512, b"w" * 512), (4, 0, 65536, b""), (0, 3, 0, b""),
                            (0, 4, 4096, b""), (2, 6, 65536, b""), (16, 6, 65536, b""), (8, 7, 1 << 20, b""),
                            (0, 5, 4096, b""), (0, 2, 0, b""))))
        write(directory, f"seed-{how}", bytes([how]) + data)


def make_qcow2(directory, _build):
    """Small images of all kinds, by the tool that everybody else uses."""
    kinds = {"plain": "cluster_size=512", "v2": "compat=0.10,cluster_size=512", "wide": "cluster_size=4k,refcount_bits=64",
             "narrow": "cluster_size=512,refcount_bits=1", "lazy": "cluster_size=512,lazy_refcounts=on",
             "zstd": "cluster_size=4k,compression_type=zstd", "extended": "cluster_size=16k,extended_l2=on"}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, options in kinds.items():
            path = os.path.join(scratch, kind)
            for argv in (["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "300k"],
                         ["qemu-io", "-f", "qcow2", "-c", "write -q -P 1 0 5k", "-c", "write -q -z 8k 4k",
                          "-c", "write -q -c 64k 4k" if kind in ("wide", "zstd") else "write -q 64k 4k", path]):
                subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
            if kind == "plain":
                subprocess.run(["qemu-img", "snapshot", "-c", "s", path], check=True)
                subprocess.run(["qemu-img", "bitmap", "--add", path, "b"], check=True)
            with open(path, "rb") as file:
                data = file.read()
            for how in (0, 1, 3):
                write(directory, f"seed-{kind}-{how}", bytes([how]) + data)


MAKERS = {"fuzz-qmp": make_qmp, "fuzz-qcow2": make_qcow2, "fuzz-migration-load": make_migration_load,
          "fuzz-nbd-options": make_nbd_options, "fuzz-nbd-requests": make_nbd_requests}


def make(target, directory, build):
    maker = MAKERS.get(target)
    if maker and not any(re.match("seed-", name) for name in os.listdir(directory)):
        maker(directory, build)
