"""A QMP client: commands, events, a deadline for every wait.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import time

from . import BenchError
from .lines import Closed, Lines

TIMEOUT_S = 60


class QMP:
    def __init__(self, path, alive=lambda: None, timeout=TIMEOUT_S):
        """
        Connect to the socket at @path as soon as somebody listens there, and negotiate. @alive is
        called between attempts and raises when nobody ever will.
        """
        self.lines = Lines(path, "the monitor", timeout, alive)
        self.events = []
        self.greeting = self._message(time.monotonic() + timeout)["QMP"]
        self.command("qmp_capabilities")

    def _message(self, end):
        return json.loads(self.lines.line(end))

    def answer(self, message, timeout=TIMEOUT_S):
        """Send any JSON value; the whole response, an error too. Events are kept for event()."""
        self.lines.send(json.dumps(message).encode() + b"\n")
        end = time.monotonic() + timeout
        while "event" in (answer := self._message(end)):
            self.events.append(answer)
        return answer

    def command(self, name, timeout=TIMEOUT_S, **arguments):
        """Returns what the command returned; arguments with `_` for `-`."""
        message = {"execute": name}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        answer = self.answer(message, timeout)
        if "error" in answer:
            raise BenchError(f"{name}: {answer['error']['desc']}")
        return answer["return"]

    def event(self, names, timeout=TIMEOUT_S):
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

    def rest(self, timeout=TIMEOUT_S):
        """The names of all events that nobody took, up to the end of the connection."""
        end = time.monotonic() + timeout
        try:
            while True:
                message = self._message(end)
                if "event" in message:
                    self.events.append(message)
        except Closed:
            return [event["event"] for event in self.events]

    def close(self):
        self.lines.close()
