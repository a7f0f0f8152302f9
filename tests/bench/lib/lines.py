"""A UNIX socket that carries lines, with a deadline for every wait.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import socket
import time

from . import BenchError

# Between attempts to connect: nothing tells when somebody begins to listen.
ATTEMPT_S = 0.005


class Closed(BenchError):
    """The other side has closed the connection."""


class Lines:
    def __init__(self, path, what, timeout, alive=lambda: None):
        """
        Connect to the socket at @path as soon as somebody listens there. @what names the other side
        in errors. @alive is called between attempts and raises when nobody ever will listen.
        """
        self.what = what
        self.buffer = b""
        self.sock = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + timeout
        while True:
            try:
                self.sock.connect(path)
                return
            except (FileNotFoundError, ConnectionRefusedError):
                alive()
                if time.monotonic() > end:
                    raise BenchError(f"nobody listens on {path}") from None
                time.sleep(ATTEMPT_S)

    def send(self, data):
        self.sock.sendall(data)

    def line(self, end):
        """The next line, without its end; @end is the deadline, by the monotonic clock."""
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise BenchError(f"nothing from {self.what} within the time limit")
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                raise Closed(f"{self.what} was closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def close(self):
        self.sock.close()
