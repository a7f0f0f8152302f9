"""The bytes of a save file, whatever they mean.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import errno
import os
import stat


class Bad(Exception):
    """The file is not what it should be."""


def shown(text):
    """@text, with what a terminal could take for a command made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Reader:
    """The file, with a position; every read is checked against its end."""

    AHEAD = 1 << 18

    def __init__(self, path, offset):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "neither a file nor a block device")
        self.fd = os.open(path, os.O_RDONLY)
        self.size = os.lseek(self.fd, 0, os.SEEK_END)
        self.pos = offset
        self.ahead, self.ahead_at = b"", 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        os.close(self.fd)

    def read_at(self, pos, n):
        """Up to @n bytes: fewer when the file ends before."""
        n = min(n, self.size - pos)
        parts = []
        while n > 0 and (part := os.pread(self.fd, n, pos)):
            parts.append(part)
            pos += len(part)
            n -= len(part)
        return b"".join(parts)

    def need(self, n, what):
        if self.pos + n > self.size:
            raise Bad(f"truncated: {what} at {self.pos} needs {n} bytes, the file has "
                      f"{max(self.size - self.pos, 0)} there")

    def skip(self, n, what):
        self.need(n, what)
        self.pos += n

    def bytes(self, n, what):
        begin = self.pos - self.ahead_at
        if begin < 0 or begin + n > len(self.ahead):
            self.need(n, what)
            self.ahead, self.ahead_at = self.read_at(self.pos, max(n, self.AHEAD)), self.pos
            begin = 0
            if n > len(self.ahead):
                raise Bad(f"truncated: {what} at {self.pos}: the file became shorter meanwhile")
        self.pos += n
        return self.ahead[begin:begin + n]

    def u8(self, what):
        return self.bytes(1, what)[0]

    def u16(self, what):
        return int.from_bytes(self.bytes(2, what), "big")

    def u32(self, what):
        return int.from_bytes(self.bytes(4, what), "big")

    def u64(self, what):
        return int.from_bytes(self.bytes(8, what), "big")

    def string(self, what):
        return self.bytes(self.u8(what), what).decode("utf-8", "surrogateescape")

    def data(self, start, end):
        """The parts of [start, end) that are not holes, as (start, end)."""
        while start < end:
            try:
                first = os.lseek(self.fd, start, os.SEEK_DATA)
                stop = min(os.lseek(self.fd, first, os.SEEK_HOLE), end)
            except OSError as err:
                if err.errno != errno.ENXIO:    # no holes here; ENXIO: no data from here on
                    yield start, end
                return
            if first >= end:
                return
            yield first, stop
            start = stop

    def holes(self, start, end):
        """The parts of [start, end) that are holes, as (start, end)."""
        for first, stop in self.data(start, end):
            if first > start:
                yield start, first
            start = stop
        if start < end:
            yield start, end
