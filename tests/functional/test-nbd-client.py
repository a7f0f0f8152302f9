#!/usr/bin/python3
"""The NBD client in the block layer beside other people's servers: nbdkit with its filters, qemu-nbd; and
servers made of bytes, which do what no good server does.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from nbd_lib import (DEADLINE_S, KIB, MIB, STARTED, WORK, Client, Server, eventually, main, path, pattern,  # noqa: E402
                     read_file, run, write_file)

FERRY_IO = os.path.abspath(sys.argv[2])
SIZE = 8 * MIB


# ---- servers and the client ----

class Process:
    """A program that serves on a UNIX socket, until the end of the `with` statement."""

    def __init__(self, argv, sock, env=None):
        self.sock = sock
        if os.path.exists(sock):
            os.unlink(sock)
        self.process = subprocess.Popen(argv, cwd=WORK, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        STARTED.append(self.process)
        eventually(self.answers, 'the server answers')

    def answers(self):
        assert self.process.poll() is None, 'the server ended'
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.sock)
            except OSError:
                return False
            return s.recv(8) == b'NBDMAGIC'

    def stop(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


def nbdkit(*args, sock='kit'):
    return Process(['nbdkit', '-f', '-U', path(sock), *args], path(sock))


def qemu_nbd(*args, sock='qemu'):
    return Process(['qemu-nbd', '-t', '-e', '16', '-k', path(sock), *args], path(sock))


def target(server, **options):
    words = [f'driver=nbd,server.type=unix,server.path={server if isinstance(server, str) else server.sock}']
    words += [f'{key.replace("_", "-")}={value}' for key, value in options.items()]
    return ','.join(words)


def io(server, *commands, status=0, args=('-d', 'unmap'), **options):
    """Run commands of ferry-io on the export; what was printed."""
    argv = [FERRY_IO, '--image-opts', *args]
    for c in commands:
        argv += ['-c', c]
    done = subprocess.run([*argv, target(server, **options)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S, cwd=WORK,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == status, (done.returncode, done.stdout)
    return done.stdout


class Io:
    """A ferry-io that takes commands one by one."""

    def __init__(self, server, **options):
        self.process = subprocess.Popen([FERRY_IO, '--image-opts', target(server, **options)], cwd=WORK,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=open(path('client.log'), 'w'))
        STARTED.append(self.process)
        self.text = b''
        self.prompt()

    def prompt(self):
        """What was printed up to the next prompt."""
        end = time.monotonic() + DEADLINE_S
        while b'ferry-io> ' not in self.text:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.process.stdout], [], [], left)[0], self.text
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, self.text
            self.text += piece
        said, self.text = self.text.split(b'ferry-io> ', 1)
        return said.decode()

    def send(self, command):
        self.process.stdin.write(command.encode() + b'\n')
        self.process.stdin.flush()

    def do(self, command):
        self.send(command)
        return self.prompt()

    def close(self):
        self.send('quit')
        self.process.wait(timeout=DEADLINE_S)


def wrote(text, count):
    assert f'wrote {count}/{count} bytes' in text, text


def has_read(text, count):
    assert f'read {count}/{count} bytes' in text and 'failed' not in text, text


# ---- content ----

def test_memory():
    with nbdkit('memory', str(SIZE)) as server:
        out = io(server, 'length', 'write -P 7 1M 3M', 'read -P 7 1M 3M', 'read -P 0 0 1M',
                 'read -P 0 4M 4M', 'write -P 9 1234567 777', 'read -P 9 1234567 777',
                 'read -P 7 1230000 4567', 'flush', 'write -f -P 3 0 64k', 'read -P 3 0 64k',
                 'discard 2M 64k', 'write -z 3M 64k', 'write -zu 3200k 64k', 'read -P 0 3M 64k',
                 'read -P 0 3200k 64k')
        assert out.startswith('8 MiB\n'), out


def test_odd_vectors():
    """A guest's vectors are not in one piece; libnbd's buffers are."""
    with nbdkit('memory', str(SIZE)) as server:
        io(server, 'aio_write -P 1 0 1M', 'aio_write -P 2 1M 1M', 'aio_write -P 3 2M 1M',
           'aio_write -z 3M 1M', 'aio_flush', 'read -P 1 0 1M', 'read -P 2 1M 1M', 'read -P 3 2M 1M',
           'aio_read -P 1 0 1M', 'aio_read -P 2 1M 1M', 'aio_read -P 3 2M 1M', 'aio_flush')


def test_large():
    """One request of ours is several of the server's."""
    with nbdkit('memory', '80M') as server:
        io(server, 'write -P 5 1M 70M', 'read -P 5 1M 70M', 'read -P 0 0 1M', 'read -P 0 71M 9M',
           'write -z 0 75M', 'read -P 0 0 80M')


def test_qemu_nbd():
    write_file('img', pattern(SIZE))
    with qemu_nbd('-f', 'raw', path('img')) as server:
        out = io(server, 'length', f'write -P 77 {MIB} 100000', f'read -P 77 {MIB} 100000', 'flush',
                 'write -zu 2M 1M', 'discard 4M 1M', 'write -f -P 1 6M 4k')
        assert out.startswith('8 MiB'), out
    want = bytearray(pattern(SIZE))
    want[MIB:MIB + 100000] = b'\x4d' * 100000
    want[2 * MIB:3 * MIB] = bytes(MIB)
    want[6 * MIB:6 * MIB + 4096] = b'\1' * 4096
    got = bytearray(read_file('img'))
    want[4 * MIB:5 * MIB] = got[4 * MIB:5 * MIB]
    assert got == want


def test_export_names():
    name = 'a name/with ünusual "parts"'
    with nbdkit('--filter=exportname', 'memory', '1M', 'exportname=' + name, 'exportname-strict=true') as s:
        assert io(s, 'length', export=name) == '1 MiB\n'
        out = io(s, 'length', export='other', status=1)
        assert "Failed to open export 'other'" in out, out


# ---- block status ----

def block_map(server, **options):
    """[(length, zero)] by way of a raw node and ferry-nbd: what nbdinfo is told."""
    sock = path('map')
    argv = [os.path.abspath(sys.argv[1]), '-t', '-r', '-k', sock, '--image-opts',
            target(server, **options)]
    with Process(argv, sock):
        out = run('nbdinfo', '--map', '--json', f'nbd+unix://?socket={sock}')
    return [(e['length'], bool(e['type'] & 2)) for e in json.loads(out)]


def test_block_status():
    with open(path('sparse'), 'wb') as f:
        f.truncate(SIZE)
        f.seek(2 * MIB)
        f.write(pattern(MIB))
    with nbdkit('file', path('sparse')) as server:
        assert block_map(server) == [(2 * MIB, True), (MIB, False), (5 * MIB, True)]
    with qemu_nbd('-f', 'raw', path('sparse')) as server:
        assert block_map(server) == [(2 * MIB, True), (MIB, False), (5 * MIB, True)]
    with nbdkit('--filter=noextents', 'file', path('sparse')) as server:
        assert block_map(server) == [(SIZE, False)]
    # Longer than 32 bits can say.
    with nbdkit('memory', '20G') as server:
        assert sum(length for length, zero in block_map(server) if zero) == 20 << 30


def test_dirty_bitmap():
    run('qemu-img', 'create', '-f', 'qcow2', path('b.qcow2'), '8M')
    run('qemu-img', 'bitmap', '--add', '-g', '65536', path('b.qcow2'), 'b0')
    run('qemu-io', '-c', 'write 1M 128k', '-c', 'write 4M 64k', path('b.qcow2'))
    context = 'qemu:dirty-bitmap:b0'
    with qemu_nbd('-f', 'qcow2', '-r', '-B', 'b0', path('b.qcow2')) as server:
        assert block_map(server, x_dirty_bitmap=context) == [
            (MIB, True), (128 * KIB, False), (3 * MIB - 128 * KIB, True), (64 * KIB, False),
            (4 * MIB - 64 * KIB, True)]
        out = io(server, 'length', x_dirty_bitmap='qemu:dirty-bitmap:none', status=1, args=('-r',))
        assert "lacks the metadata context 'qemu:dirty-bitmap:none'" in out, out


# ---- what the server says holds ----

class Log:
    """What nbdkit's log filter wrote: [(command, {key: value})]."""

    def __init__(self, name='log'):
        self.path = path(name)

    def lines(self):
        found = []
        with open(self.path) as f:
            for line in f:
                m = re.search(r' (Connect|Read|Write|Flush|Trim|Zero|Extents|Cache) (.*)', line)
                if m:
                    words = dict(w.split('=', 1) for w in m.group(2).split() if '=' in w)
                    found.append((m.group(1), words))
        return found

    def of(self, command):
        return [words for name, words in self.lines() if name == command]


def number(words, key):
    return int(words[key], 0)


def test_flags():
    log = Log()
    with nbdkit('--filter=log', 'memory', str(SIZE), 'logfile=' + log.path) as server:
        io(server, 'write -P 1 0 4k', 'write -f -P 1 4k 4k', 'write -z 64k 64k', 'write -zu 128k 64k',
           'write -zf 192k 64k', 'write -znu 256k 64k', 'discard 320k 64k', 'flush')
    writes = {number(w, 'offset'): w for w in log.of('Write')}
    zeroes = {number(w, 'offset'): w for w in log.of('Zero')}
    assert writes[0]['fua'] == '0' and writes[4096]['fua'] == '1', writes
    assert zeroes[64 * KIB]['trim'] == '0' and zeroes[64 * KIB]['fua'] == '0', zeroes
    assert zeroes[128 * KIB]['trim'] == '1' and zeroes[128 * KIB]['fast'] == '0', zeroes
    assert zeroes[192 * KIB]['fua'] == '1', zeroes
    assert zeroes[256 * KIB]['fast'] == '1', zeroes
    assert [number(w, 'offset') for w in log.of('Trim')] == [320 * KIB]
    assert log.of('Flush')


def test_no_zeroes():
    """A server that can neither zero nor trim is written to."""
    log = Log()
    with nbdkit('--filter=log', '--filter=nozero', 'memory', str(SIZE), 'zeromode=none',
                'logfile=' + log.path) as server:
        io(server, 'write -P 1 0 1M', 'write -z 64k 64k', 'read -P 0 64k 64k', 'read -P 1 0 64k')
        assert 'failed' in io(server, 'write -zn 0 64k', status=1)
    assert not log.of('Zero') and len(log.of('Write')) == 2, log.lines()


def test_block_sizes():
    """Every request keeps to the server's limits; a policy of errors would tell."""
    log = Log()
    with nbdkit('--filter=log', '--filter=blocksize-policy', 'memory', str(SIZE),
                'blocksize-minimum=4096', 'blocksize-preferred=64k', 'blocksize-maximum=256k',
                'blocksize-error-policy=error', 'logfile=' + log.path) as server:
        io(server, 'write -P 1 0 8M', 'write -P 2 1000 1000000', 'read -P 2 1000 1000000',
           'read -P 1 0 1000', 'read -P 1 1001000 100000', 'write -z 5000001 1000000',
           'read -P 0 5000001 1000000', 'read -P 1 4999999 2', 'write -zu 7M 1M', 'discard 1 5000000')
    for name, words in log.lines():
        if name in ('Read', 'Write', 'Zero', 'Trim'):
            assert number(words, 'offset') % 4096 == 0 and number(words, 'count') % 4096 == 0, (name, words)
            assert name == 'Trim' or number(words, 'count') <= 256 * KIB, (name, words)
    assert len(log.of('Write')) > 30


def test_read_only():
    with nbdkit('-r', 'memory', '1M') as server:
        out = io(server, 'length', status=1)
        assert "The NBD server offers export '' read-only" in out, out
        has_read(io(server, 'read -P 0 0 1M', args=('-r',)), MIB)
        has_read(io(server, 'read -P 0 0 1M', args=('-r',), auto_read_only='on'), MIB)


def test_multi_conn():
    """A server that promises consistency between connections gets several; another one gets one."""
    for mode, many in (('auto', True), ('disable', False)):
        log = Log(mode)
        with nbdkit('--filter=log', '--filter=multi-conn', 'memory', str(SIZE), 'multi-conn-mode=' + mode,
                    'logfile=' + log.path) as server:
            client = Io(server)
            if many:
                eventually(lambda: len(log.of('Connect')) == 2, 'two connections')
            client.do('aio_write -P 1 0 4M')
            client.do('aio_write -P 2 4M 4M')
            client.do('aio_flush')
            has_read(client.do('read -P 1 0 4M'), 4 * MIB)
            has_read(client.do('read -P 2 4M 4M'), 4 * MIB)
            client.close()
        assert len(log.of('Connect')) == (2 if many else 1), log.lines()


def test_many_in_flight():
    """With a delay of 50 ms each, requests one after the other would take 3 s."""
    with nbdkit('--filter=delay', 'memory', '64M', 'rdelay=50ms') as server:
        start = time.monotonic()
        io(server, *[f'aio_read -P 0 {i}M 64k' for i in range(60)], 'aio_flush')
        assert time.monotonic() - start < 2


def test_slow_block_status():
    """A node that takes 0.2 s to tell of an extent: the server tells what it knows after a second, not after 25."""
    with open(path('striped'), 'wb') as f:
        for i in range(64):
            f.seek(2 * i * 64 * KIB)
            f.write(b'd' * (64 * KIB))
        f.truncate(SIZE)
    with nbdkit('--filter=delay', 'file', path('striped'), 'delay-extents=200ms') as kit:
        with Server('-t', '-r', '--image-opts', target(kit)):
            c = Client('structured', metas=['base:allocation'])
            start = time.monotonic()
            extents = c.status(0, SIZE)[c.metas['base:allocation']]
            took = time.monotonic() - start
            assert 1 < len(extents) <= 12 and took < 8, (extents, took)
            assert [e[1] for e in extents] == [(0, 3)[i % 2] for i in range(len(extents))], extents
            assert all(length == 64 * KIB for length, unused in extents), extents
            # It goes on from there.
            again = c.status(64 * KIB * len(extents), 64 * KIB)[c.metas['base:allocation']]
            assert again == [(64 * KIB, (0, 3)[len(extents) % 2])], again
            c.disconnect()


# ---- errors ----

def test_errors():
    cases = [('ENOSPC', 'No space left'), ('EIO', 'Input/output error'), ('EPERM', 'not permitted'),
             ('EINVAL', 'Invalid argument')]
    for name, text in cases:
        with nbdkit('--filter=error', 'memory', str(SIZE), 'error-pwrite=' + name,
                    'error-pwrite-rate=1') as server:
            out = io(server, 'write 0 64k', status=1)
            assert text in out, (name, out)
            has_read(io(server, 'read -P 0 0 64k'), 64 * KIB)


def test_some_errors():
    """Half of all reads fail, and those that do not are right."""
    with nbdkit('--filter=error', 'memory', '1M', 'error-pread=EIO', 'error-pread-rate=50%') as server:
        client = Io(server)
        good = bad = 0
        while good < 20 or bad < 20:
            out = client.do('read -P 0 0 4k')
            if 'failed' in out:
                assert 'Input/output error' in out and 'Pattern' not in out, out
                bad += 1
            else:
                has_read(out, 4096)
                good += 1
            assert good + bad < 1000
        client.close()


def test_refused():
    out = io(path('nobody'), 'length', status=1)
    assert f"Failed to connect to '{path('nobody')}'" in out, out
    out = io(path('nobody'), 'length', status=1, export='x' * 5000)
    assert 'export name too long to send to server' in out, out
    out = io(path('nobody'), 'length', status=1, x_dirty_bitmap='x' * 5000)
    assert 'x-dirty-bitmap must have 1 to 4096 bytes' in out, out


# ---- lost connections ----

def test_open_timeout():
    sock = path('late')
    client = subprocess.Popen([FERRY_IO, '--image-opts', '-c', 'read -P 0 0 1M',
                               target(sock, open_timeout=30)], stdout=subprocess.PIPE, text=True, cwd=WORK)
    STARTED.append(client)
    try:
        client.wait(timeout=0.5)
        raise AssertionError('it did not wait')
    except subprocess.TimeoutExpired:
        pass
    with Process(['nbdkit', '-f', '-U', sock, 'memory', '1M'], sock):
        out, _ = client.communicate(timeout=DEADLINE_S)
        has_read(out, MIB)
    start = time.monotonic()
    io(path('never'), 'length', status=1, open_timeout=1)
    assert 0.5 < time.monotonic() - start < 20


def test_reconnect():
    """What is asked for while there is no server is answered by the next one."""
    image = write_file('img', pattern(SIZE))
    server = nbdkit('file', image)
    client = Io(server, reconnect_delay=DEADLINE_S)
    wrote(client.do('write -P 1 0 64k'), 64 * KIB)
    server.stop()
    client.send('write -P 2 64k 64k')
    assert not select.select([client.process.stdout], [], [], 0.3)[0]
    with nbdkit('file', image):
        wrote(client.prompt(), 64 * KIB)
        assert b"Connection to NBD server '" in read_file('client.log')
        has_read(client.do('read -P 1 0 64k'), 64 * KIB)
        has_read(client.do('read -P 2 64k 64k'), 64 * KIB)
        client.close()


def test_killed_under_load():
    """A server that is killed again and again while many writes are under way: all of them arrive."""
    image = write_file('img', bytes(64 * MIB))
    argv = ['nbdkit', '-f', '--filter=delay', '-U', path('kit'), 'file', image, 'wdelay=5ms']
    server = Process(argv, path('kit'))
    client = Io(server, reconnect_delay=DEADLINE_S)
    for round_ in range(6):
        for i in range(40):
            client.do(f'aio_write -q -P {round_ + i + 1} {i * 64}k 64k')
        server.stop()
        server = Process(argv, path('kit'))
        out = client.do('aio_flush')
        assert 'failed' not in out, out
        for i in range(40):
            has_read(client.do(f'read -P {round_ + i + 1} {i * 64}k 64k'), 64 * KIB)
    client.close()
    server.stop()


def test_qemu_nbd_restarted():
    image = write_file('img', bytes(SIZE))
    server = qemu_nbd('-f', 'raw', image)
    client = Io(server, reconnect_delay=DEADLINE_S)
    client.do('aio_write -P 1 0 4M')
    server.stop()
    with qemu_nbd('-f', 'raw', image):
        client.do('aio_flush')
        has_read(client.do('read -P 1 0 4M'), 4 * MIB)
        client.close()


def test_no_reconnect_delay():
    """Without a delay requests fail at once, and work again when the server is back."""
    image = write_file('img', pattern(SIZE))
    server = nbdkit('file', image)
    client = Io(server)
    server.stop()
    start = time.monotonic()
    assert 'Input/output error' in client.do('read 0 64k')
    assert 'Input/output error' in client.do('write 0 64k')
    assert time.monotonic() - start < 5
    with nbdkit('file', image):
        eventually(lambda: 'failed' not in client.do('read 0 64k'), 'the connection is back')
        client.close()


def test_delay_runs_out():
    server = nbdkit('memory', '1M')
    client = Io(server, reconnect_delay=1)
    server.stop()
    start = time.monotonic()
    assert 'Input/output error' in client.do('read 0 64k')
    assert 0.5 < time.monotonic() - start < 20
    start = time.monotonic()
    assert 'Input/output error' in client.do('read 0 64k')
    assert time.monotonic() - start < 1
    client.close()


def test_other_export():
    """An export that has become another one is not taken."""
    server = nbdkit('memory', '1M')
    client = Io(server, reconnect_delay=1)
    server.stop()
    with nbdkit('memory', '2M'):
        assert 'Input/output error' in client.do('read 0 64k')
    with nbdkit('-r', 'memory', '1M'):
        assert 'Input/output error' in client.do('read 0 64k')
    with nbdkit('memory', '1M'):
        eventually(lambda: 'failed' not in client.do('read -P 0 0 64k'), 'the connection is back')
        client.close()


# ---- servers made of bytes ----

class Fake:
    """A server whose handshake is right, unless @info says otherwise; then @serve(socket) goes on."""

    def __init__(self, serve=lambda s: None, size=MIB, flags=1, blocks=None, greeting=None):
        self.sock = path('fake')
        self.serve, self.size, self.flags, self.blocks, self.greeting = serve, size, flags, blocks, greeting
        self.connections = 0
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.sock)
        self.listener.listen(8)
        self.clients = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for c in self.clients:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.thread.join(DEADLINE_S)

    def run(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.clients.append(s)
            s.settimeout(DEADLINE_S)
            try:
                if self.handshake(s):
                    self.serve(s)
            except (OSError, EOFError):
                pass
            if self.serve is not silent:
                s.close()

    def handshake(self, s):
        if self.greeting is not None:
            s.sendall(self.greeting)
            return False
        s.sendall(b'NBDMAGICIHAVEOPT\0\3')
        exactly(s, 4)
        while True:
            magic, option, length = struct.unpack('>8sII', exactly(s, 16))
            exactly(s, length)
            if option == 7:
                blocks = struct.pack('>HIII', 3, *self.blocks) if self.blocks else b''
                if blocks:
                    self.reply(s, option, 3, blocks)
                self.reply(s, option, 3, struct.pack('>HQH', 0, self.size, self.flags))
                self.reply(s, option, 1)
                return True
            self.reply(s, option, 0x80000001)

    def reply(self, s, option, kind, data=b''):
        s.sendall(struct.pack('>QIII', 0x3e889045565a9, option, kind, len(data)) + data)


def exactly(s, n):
    data = b''
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def silent(s):
    """Takes requests and answers none; the connection stays."""


def request(s):
    magic, flags, kind, cookie, offset, length = struct.unpack('>IHHQQI', exactly(s, 28))
    assert magic == 0x25609513
    return kind, cookie, offset, length, flags


def test_fua_without_fua():
    """A server that does not know FUA is told to flush afterwards; one that cannot flush either is not."""
    for flags, want in ((1 | 4, [(1, 0), (3, 0)]), (1, [(1, 0), (2, 0)])):
        seen = []

        def serve(s):
            while True:
                kind, cookie, offset, length, flags = request(s)
                seen.append((kind, flags))
                if kind == 2:
                    return
                if kind == 1:
                    exactly(s, length)
                s.sendall(struct.pack('>IIQ', 0x67446698, 0, cookie))
        with Fake(serve, flags=flags) as server:
            wrote(io(server, 'write -f 0 64k'), 64 * KIB)
        assert seen[:2] == want and seen[-1] == (2, 0), seen


def test_bad_exports():
    cases = [
        (dict(size=1000, blocks=(512, 4096, MIB)), 'multiple of its minimum block size'),
        (dict(size=1 << 63), ''),
        (dict(size=(1 << 63) - 1), 'too large'),
        (dict(greeting=b'HTTP/1.1 200 OK\r\n\r\n'), 'magic'),
        (dict(greeting=b''), ''),
    ]
    for how, text in cases:
        with Fake(**how) as server:
            out = io(server, 'length', status=1)
            assert f"Failed to open export '' of '{server.sock}': " in out and text in out, (how, out)


def test_block_sizes_unsaid():
    with Fake(size=1000003) as server:
        assert io(server, 'length').startswith('976.')


def test_garbage_reply():
    for junk in (b'\0' * 64, struct.pack('>IIQ', 0x67446698, 0, 12345), b'\xff' * 64):
        def serve(s, junk=junk):
            request(s)
            s.sendall(junk)
        with Fake(serve) as server:
            out = io(server, 'read 0 64k', status=1)
            assert 'Input/output error' in out, out


def test_drops_every_request():
    """It shakes hands, and hangs up on each request: there is an end to trying."""
    with Fake(lambda s: request(s)) as server:
        start = time.monotonic()
        out = io(server, 'read 0 64k', status=1, reconnect_delay=2)
        assert 'Input/output error' in out, out
        assert 1 < time.monotonic() - start < 20
        assert server.connections > 2


def test_part_of_a_reply():
    """The end comes in the middle of the data; the next connection has it all."""
    state = {'n': 0}

    def serve(s):
        state['n'] += 1
        while True:
            kind, cookie, offset, length, flags = request(s)
            if kind == 2:
                return
            data = b'\7' * length
            s.sendall(struct.pack('>IIQ', 0x67446698, 0, cookie) +
                      (data[:length // 2] if state['n'] == 1 else data))
            if state['n'] == 1:
                return
    with Fake(serve) as server:
        has_read(io(server, 'read -P 7 0 64k', reconnect_delay=30), 64 * KIB)
        assert server.connections == 2


def test_silent_server_is_given_up():
    """Opening ends by itself, and soon, where not even the handshake begins: a monitor would wait for it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path('mute'))
        listener.listen(5)
        begin = time.monotonic()
        done = subprocess.run([FERRY_IO, '-c', 'read 0 512', f'nbd:unix:{path("mute")}'], cwd=WORK,
                              capture_output=True, timeout=DEADLINE_S)
        assert done.returncode == 1, done
        assert b'Failed to open export' in done.stderr, done
        assert 4 < time.monotonic() - begin < 25


def test_silent_server_can_be_left():
    """A program that waits for such a server can be ended."""
    with Fake(silent) as server:
        client = Io(server)
        client.send('read 0 64k')
        assert not select.select([client.process.stdout], [], [], 0.3)[0]
        client.process.send_signal(signal.SIGTERM)
        client.process.wait(timeout=DEADLINE_S)


main(globals())
