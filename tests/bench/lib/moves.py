"""One move each, timed: over a socket, into a file, out of a file.

Wall time runs from the command that starts the move to the event that ends it, on the slower side; CPU
time is that of all processes that take part, over the same span.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os

from . import host
from .machine import Machine


class Result:
    def __init__(self, seconds, cpu, info):
        self.seconds, self.cpu, self.info = seconds, cpu, info


def over_socket(line, source_memory, target_memory, capabilities=(), parameters=None):
    """From one machine to another of the same program, over a UNIX socket, both stopped."""
    with Machine(line, target_memory, incoming=True) as target, \
            Machine(line, source_memory) as source:
        uri = "unix:" + target.path("move")
        for machine in (target, source):
            machine.prepare(capabilities, parameters)
        target.qmp.command("migrate-incoming", uri=uri)
        watch = host.Stopwatch(source.pid, target.pid)
        source.qmp.command("migrate", uri=uri)
        source.wait_moved()
        target.wait_moved()
        seconds, cpu = watch.stop()
        return Result(seconds, cpu, source.moved_info())


def _file_move(machine, command, path, capabilities, parameters, preferred=True):
    machine.prepare(capabilities, parameters)
    host.settle()
    watch = host.Stopwatch(machine.pid, preferred=preferred)
    machine.qmp.command(command, uri="file:" + path)
    machine.wait_moved()
    seconds, cpu = watch.stop()
    return Result(seconds, cpu, machine.qmp.command("query-migrate"))


def save_machine(machine, path, capabilities=(), parameters=None):
    """Save a machine that is there into a new file."""
    return _file_move(machine, "migrate", path, capabilities, parameters)


def save(line, memory, path, capabilities=(), parameters=None):
    with Machine(line, memory) as machine:
        return save_machine(machine, path, capabilities, parameters)


def restore_machine(machine, path, capabilities=(), parameters=None, preferred=True):
    """Fill a machine that waits for it from a file."""
    return _file_move(machine, "migrate-incoming", path, capabilities, parameters,
                      preferred)


def restore(line, memory, path, capabilities=(), parameters=None):
    with Machine(line, memory, incoming=True) as machine:
        return restore_machine(machine, path, capabilities, parameters)


def direct(channels=0, bypass=False):
    """Capabilities and parameters of a save at fixed offsets; no channels: without multifd."""
    capabilities = ["direct-mapped"]
    parameters = {}
    if bypass:
        capabilities.append("bypass-cache")
    if channels:
        capabilities.append("multifd")
        parameters["multifd-channels"] = channels
    return capabilities, parameters


def allocated_bytes(path):
    """What a file occupies on the disk."""
    return os.stat(path).st_blocks * 512
