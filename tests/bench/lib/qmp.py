"""A QMP client: commands, events, a deadline for every wait.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import socket
import time

from . import BenchError

TIMEOUT_S = 60


class QMP:
    def __init__(self, path, alive, timeout=TIMEOUT_S):
        """
        Connect to the socket at @path as soon as somebody listens there. @alive is called between
        attempts and raises when nobody ever will.
        """
        end = time.monotonic() + timeout
        self.sock = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.sock.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                alive()
                if time.monotonic() > end:
                    raise BenchError(f"nobody listens on {path}") from None
                time.sleep(0.005)
        self.buffer = b""
        self.events = []
        self._message(end)
        self.command("qmp_capabilities")

    def _message(self, end):
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise BenchError("no answer on QMP within the time limit")
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                raise BenchError("no answer on QMP within the time limit") from None
            except ConnectionResetError:
                data = b""
            if not data:
                raise BenchError("the machine closed its monitor")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def command(self, name, timeout=TIMEOUT_S, **arguments):
        """Returns what the command returned; arguments with `_` for `-`."""
        message = {"execute": name}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.sock.sendall(json.dumps(message).encode() + b"\n")
        end = time.monotonic() + timeout
        while True:
            answer = self._message(end)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise BenchError(f"{name}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def event(self, names, timeout):
        """The next event of one of these names, also one that came before."""
        end = time.monotonic() + timeout
        while True:
            for i, event in enumerate(self.events):
                if event["event"] in names:
                    del self.events[:i + 1]
                    return event
            message = self._message(end)
            if "event" in message:
                self.events.append(message)

    def close(self):
        self.sock.close()
