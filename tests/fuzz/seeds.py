"""Seeds for the fuzz targets: small, whole, right inputs, made when they are needed.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import subprocess
import tempfile
import time

MAX_LEN = {"fuzz-qmp": 4096, "fuzz-migration-load": 1 << 16}

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


MAKERS = {"fuzz-qmp": make_qmp, "fuzz-migration-load": make_migration_load}


def make(target, directory, build):
    maker = MAKERS.get(target)
    if maker and not any(re.match("seed-", name) for name in os.listdir(directory)):
        maker(directory, build)
