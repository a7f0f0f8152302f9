"""What the tests of the NBD server share: the server, a client made of bytes, and TAP.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import functools
import os
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

DEADLINE_S = 60
FERRY_NBD = os.path.abspath(sys.argv[1])
WORK = tempfile.mkdtemp(prefix='ferry-nbd-')
SOCKET = os.path.join(WORK, 'sock')
URI = 'nbd+unix://?socket=' + SOCKET
KIB, MIB = 1024, 1024 * 1024
STARTED = []


def path(name):
    return os.path.join(WORK, name)


def eventually(condition, what, seconds=DEADLINE_S):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('not in time: ' + what)
        select.select([], [], [], 0.005)


def run(*args, status=0, **kwargs):
    """Run a program to its end; what it printed."""
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=DEADLINE_S, cwd=WORK, stdin=subprocess.DEVNULL, **kwargs)
    assert done.returncode == status, (args, done.returncode, done.stdout, done.stderr)
    return done.stdout if status == 0 else done.stderr


@functools.lru_cache
def pattern(size, seed=1):
    """Bytes without long runs of zeroes, no block of 8 KiB like another."""
    block = random.Random(seed).randbytes(8192)
    return b''.join(struct.pack('>Q', i) + block[8:] for i in range((size + 8191) // 8192))[:size]


def write_file(name, data):
    with open(path(name), 'wb') as f:
        f.write(data)
    return path(name)


def read_file(name):
    with open(path(name), 'rb') as f:
        return f.read()


def listens(sock):
    """Whether somebody listens there: the path alone is there a moment earlier. Connecting would make us a client."""
    with open('/proc/net/unix') as f:
        next(f)
        return any(len(words) > 7 and int(words[3], 16) & 0x10000 and words[7] == sock
                   for words in map(str.split, f))


class Server:
    """A ferry-nbd on SOCKET; ends with the `with` statement."""

    def __init__(self, *args, sock=SOCKET, ready=True, **kwargs):
        self.sock = sock
        self.log_path = path('server.log')
        self.log = open(self.log_path, 'w')
        listen = ['-k', sock] if sock else []
        self.process = subprocess.Popen([FERRY_NBD, *listen, *args], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, cwd=WORK, **kwargs)
        STARTED.append(self.process)
        if ready and sock:
            eventually(lambda: listens(sock) or self.process.poll() is not None, 'socket')
            assert self.process.poll() is None, self.read_log()

    def read_log(self):
        with open(self.log_path) as f:
            return f.read()

    def memory_kib(self):
        with open(f'/proc/{self.process.pid}/status') as f:
            for line in f:
                if line.startswith('VmRSS:'):
                    return int(line.split()[1])
        raise AssertionError('no VmRSS')

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=DEADLINE_S)
        self.log.close()
        assert status == 0, (status, self.read_log())

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            self.process.kill()
            self.process.wait()
            sys.stderr.write(self.read_log())
        else:
            self.stop()


# ---- the protocol ----

FIXED, NO_ZEROES = 1, 2
OPT = {'EXPORT_NAME': 1, 'ABORT': 2, 'LIST': 3, 'STARTTLS': 5, 'INFO': 6, 'GO': 7, 'STRUCTURED': 8,
       'LIST_META': 9, 'SET_META': 10, 'EXTENDED': 11}
ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR = 1 << 31
UNSUP, POLICY, INVALID, UNKNOWN, TOO_BIG, EXT_REQD = (ERR + n for n in (1, 2, 3, 6, 9, 10))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD = (1 << n for n in range(6))
EPERM, EIO, EINVAL, ENOSPC, ENOTSUP = 1, 5, 22, 28, 95
DONE = 1
T_NONE, T_DATA, T_HOLE, T_STATUS, T_STATUS_EXT, T_ERROR = 0, 1, 2, 5, 6, 0x8001


class Closed(Exception):
    """The server ended the connection."""


class Client:
    """A connection of which every byte is ours. mode: None (only connect), simple, structured, extended."""

    def __init__(self, mode='structured', name=b'', sock=SOCKET, metas=(), flags=FIXED | NO_ZEROES):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(DEADLINE_S)
        self.s.connect(sock)
        self.mode = mode
        self.cookie = 0
        self.metas = {}
        if mode is None:
            return
        self.greet(flags)
        if mode == 'structured':
            assert self.option('STRUCTURED') == [(ACK, b'')]
        elif mode == 'extended':
            assert self.option('EXTENDED') == [(ACK, b'')]
        if metas:
            replies = self.option('SET_META', meta_data(name, metas))
            assert replies[-1] == (ACK, b''), replies
            self.metas = {r[1][4:].decode(): struct.unpack('>I', r[1][:4])[0] for r in replies[:-1]}
        self.go(name)

    def greet(self, flags=FIXED | NO_ZEROES):
        assert self.recv(18) == b'NBDMAGICIHAVEOPT\0\3'
        self.s.sendall(struct.pack('>I', flags))

    def recv(self, n):
        data = b''
        while len(data) < n:
            try:
                piece = self.s.recv(n - len(data))
            except ConnectionResetError:
                piece = b''
            if not piece:
                raise Closed(data)
            data += piece
        return data

    def closed(self):
        """Whether the server ends the connection, having said nothing more."""
        try:
            data = self.s.recv(1)
        except ConnectionResetError:
            return True
        return data == b''

    def close(self):
        self.s.close()

    # -- options --

    def send_option(self, option, data=b'', length=None):
        number = OPT.get(option, option)
        self.s.sendall(b'IHAVEOPT' + struct.pack('>II', number, len(data) if length is None else length) +
                       data)
        return number

    def option_reply(self, number):
        magic, option, kind, length = struct.unpack('>QIII', self.recv(20))
        assert magic == 0x3e889045565a9 and option == number, (hex(magic), option)
        return kind, self.recv(length)

    def option(self, option, data=b''):
        """All replies up to the last one."""
        number = self.send_option(option, data)
        replies = [self.option_reply(number)]
        while replies[-1][0] != ACK and not replies[-1][0] & ERR:
            replies.append(self.option_reply(number))
        return replies

    def go(self, name=b''):
        replies = self.option('GO', info_data(name))
        assert replies[-1] == (ACK, b''), replies
        for kind, data in replies[:-1]:
            assert kind == REP_INFO
            if data[:2] == b'\0\0':
                self.size, self.flags = struct.unpack('>QH', data[2:])

    # -- transmission --

    def send(self, command, offset=0, length=0, flags=0, data=b'', magic=None, cookie=None):
        if cookie is None:
            self.cookie += 1
            cookie = self.cookie
        if self.mode == 'extended':
            head = struct.pack('>IHHQQQ', magic or 0x21e41c71, flags, command, cookie, offset, length)
        else:
            head = struct.pack('>IHHQQI', magic or 0x25609513, flags, command, cookie, offset, length)
        self.s.sendall(head + data)
        return cookie

    def simple(self):
        """A simple reply's error and cookie."""
        magic, error, cookie = struct.unpack('>IIQ', self.recv(16))
        assert magic == 0x67446698, hex(magic)
        return error, cookie

    def chunk(self):
        """A chunk: flags, type, cookie, offset of an extended one, payload."""
        if self.mode == 'extended':
            magic, flags, kind, cookie, offset, length = struct.unpack('>IHHQQQ', self.recv(32))
            assert magic == 0x6e8a278c, hex(magic)
        else:
            magic, flags, kind, cookie, length = struct.unpack('>IHHQI', self.recv(20))
            assert magic == 0x668e33ef, hex(magic)
            offset = None
        return flags, kind, cookie, offset, self.recv(length)

    def chunks(self, cookie):
        """All chunks of one request, which must come without others between them."""
        got = []
        while not got or not got[-1][0] & DONE:
            got.append(self.chunk())
            assert got[-1][2] == cookie, (got[-1][:4], cookie)
        return got

    def error(self, command, *args, **kwargs):
        """Send a request and return the error of its reply, 0: none."""
        cookie = self.send(command, *args, **kwargs)
        magic = self.s.recv(4, socket.MSG_PEEK | socket.MSG_WAITALL)
        if magic == struct.pack('>I', 0x67446698):
            assert self.mode != 'extended'
            error, got = self.simple()
            assert got == cookie
            return error
        for flags, kind, unused, offset, payload in self.chunks(cookie):
            if kind & 0x8000:
                assert flags & DONE
                error, length = struct.unpack('>IH', payload[:6])
                assert len(payload) == 6 + length and length > 0
                return error
        return 0

    def read(self, offset, length, flags=0):
        """The content of a range, put together from chunks."""
        cookie = self.send(READ, offset, length, flags)
        if self.mode == 'simple':
            assert self.simple() == (0, cookie)
            return self.recv(length)
        data, seen = bytearray(b'?' * length), 0
        for unused, kind, cookie, request_offset, payload in self.chunks(cookie):
            if kind == T_NONE:
                continue
            assert kind in (T_DATA, T_HOLE), (kind, payload)
            assert request_offset in (None, offset)
            at = struct.unpack('>Q', payload[:8])[0] - offset
            piece = payload[8:] if kind == T_DATA else bytes(struct.unpack('>I', payload[8:])[0])
            assert at >= 0 and at + len(piece) <= length
            data[at:at + len(piece)] = piece
            seen += len(piece)
        assert seen == length
        return bytes(data)

    def status(self, offset, length, flags=0, ids=None):
        """{context id: [(length, flags)]}"""
        if ids is None:
            cookie = self.send(STATUS, offset, length, flags)
        else:
            data = struct.pack('>Q', length) + b''.join(struct.pack('>I', i) for i in ids)
            cookie = self.send(STATUS, offset, len(data), flags | PAYLOAD, data=data)
        result = {}
        for unused, kind, unused, unused, payload in self.chunks(cookie):
            assert kind == (T_STATUS_EXT if self.mode == 'extended' else T_STATUS), (kind, payload)
            context = struct.unpack('>I', payload[:4])[0]
            assert context not in result
            if kind == T_STATUS_EXT:
                count = struct.unpack('>I', payload[4:8])[0]
                result[context] = list(struct.iter_unpack('>QQ', payload[8:]))
                assert len(result[context]) == count
            else:
                result[context] = list(struct.iter_unpack('>II', payload[4:]))
        return result

    def disconnect(self):
        self.send(DISC)
        assert self.closed()
        self.close()


def info_data(name=b'', requests=()):
    return (struct.pack('>I', len(name)) + name + struct.pack('>H', len(requests)) +
            b''.join(struct.pack('>H', r) for r in requests))


def meta_data(name, queries):
    queries = [q.encode() if isinstance(q, str) else q for q in queries]
    return (struct.pack('>I', len(name)) + name + struct.pack('>I', len(queries)) +
            b''.join(struct.pack('>I', len(q)) + q for q in queries))


# ---- TAP ----

def main(tests):
    """Run all functions of @tests whose names begin with test_; exit."""
    cases = [(name[5:].replace('_', '-'), fn) for name, fn in tests.items() if name.startswith('test_')]
    failed = 0
    print(f'1..{len(cases)}')
    try:
        for i, (name, fn) in enumerate(cases, 1):
            try:
                fn()
                print(f'ok {i} - {name}', flush=True)
            except Exception:  # noqa: BLE001 - whatever it is, it is this case's failure
                failed += 1
                print(f'not ok {i} - {name}', flush=True)
                for line in traceback.format_exc().splitlines():
                    print('# ' + line, flush=True)
            finally:
                for process in STARTED:
                    if process.poll() is None:
                        process.kill()
                        process.wait()
                STARTED.clear()
                if os.path.exists(SOCKET):
                    os.unlink(SOCKET)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    sys.exit(1 if failed else 0)
