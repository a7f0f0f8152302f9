"""A guest that goes on writing while it is saved direct-mapped.

The guest dirties its memory at 100, 500 and 1000 MiB/s. The verdict is the file's size over the size of
memory (below 1.01: a page that is written ten times has one place), beside total time and downtime. The
file is then restored, and the guest says itself whether every page came back.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os

from lib import BenchError, figures, host, machine, moves

SIZE_MIB = 1024
RATES_MIB = (100, 500, 1000)
GUEST = os.path.join(host.BUILD, "guest", "dirtier.elf")
# A guest that outruns the disk is stopped after so many passes, as a person would do.
PASSES_MAX = 20
AIM = 1.01


def guest_options(size, rate):
    used_mib = (size >> 20) * 15 // 16
    return ["-kernel", GUEST, "-append",
            f"size={used_mib}M rate={rate} check=0 zero=0 report=200",
            "-serial", "unix:{dir}/serial,server=on,wait=off"]


def wait_ended(source):
    """Until the save is complete. Returns whether the guest had to be stopped for it."""
    stopped = False
    while True:
        event = source.qmp.event(("MIGRATION", "MIGRATION_PASS"), machine.MOVE_TIMEOUT_S)
        status = event["data"].get("status")
        if status == "completed":
            return stopped
        if status in ("failed", "cancelled"):
            info = source.qmp.command("query-migrate")
            raise BenchError(f"save {status}: {info.get('error-desc')}")
        if event["data"].get("pass", 0) > PASSES_MAX and not stopped:
            source.qmp.command("stop")
            stopped = True


def guest_verifies(ferry, memory, size, path, options, rate):
    with machine.Machine(ferry, memory, incoming=True, paused=False,
                         extra=guest_options(size, rate)) as target:
        serial = machine.Serial(target)
        moves.restore_machine(target, path, *options, preferred=False)
        if target.qmp.command("query-status")["status"] != "running":
            target.qmp.command("cont")
        serial.send("v")
        line = serial.wait(("verify", "CORRUPT"), timeout=120)
        serial.close()
    if "verify ok" not in line:
        raise BenchError(f"the restored guest says: {line}")
    return line


def save_live(ferry, size, rate, path, options):
    """Returns the time it took, query-migrate's answer and whether the guest had to be stopped."""
    with machine.Machine(ferry, machine.touched_memory(size), paused=False,
                         extra=guest_options(size, rate)) as source:
        serial = machine.Serial(source)
        serial.wait(("dirtier: ready",))
        # Until its memory is filled once: from then on it dirties what it has.
        serial.wait(("dirtier: round 1 ",), timeout=240)
        source.prepare(*options)
        host.settle()
        watch = host.Stopwatch(source.pid, preferred=False)
        source.qmp.command("migrate", uri="file:" + path)
        stopped = wait_ended(source)
        seconds, _ = watch.stop()
        info = source.qmp.command("query-migrate")
        serial.close()
    return seconds, info, stopped


def run(context):
    size = context.size(SIZE_MIB)
    ferry = machine.ferry()
    options = moves.direct(2, bypass=True)

    with context.disk(2 * size) as disk:
        host.need_memory(2 * size)
        path = disk.file("save")
        for rate in RATES_MIB:
            seconds, info, stopped = save_live(ferry, size, rate, path, options)
            length = os.stat(path).st_size
            line = guest_verifies(ferry, machine.touched_memory(size), size, path, options, rate)
            ram = info["ram"]
            figures.verdict(f"live-{rate}", length / size, [
                f"file {length >> 20} MiB ({moves.allocated_bytes(path) >> 20} occupied), memory "
                f"{size >> 20} MiB, pages sent {ram['normal-bytes'] >> 20} MiB",
                f"{ferry.accelerator()}, {rate} MiB/s written: {seconds:.2f} s in all, downtime "
                f"{info.get('downtime', 0)} ms, {ram['dirty-sync-count']} passes"
                + (", guest stopped to come to an end" if stopped else ""),
                f"restored guest: {line}"], digits=4, below=AIM)
            host.remove(path)
