#!/usr/bin/python3
"""The NBD server and clients that do what they should not: byte by byte, by a client of our own.

Extended headers are here too, as no client of Debian speaks them.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import select
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from nbd_lib import (ACK, CACHE, DF, DISC, DONE, EINVAL, ENOSPC, EPERM, ERR, EXT_REQD, FAST_ZERO, FLUSH,  # noqa: E402
                     FUA, INVALID, KIB, MIB, NO_HOLE, NO_ZEROES, PAYLOAD, POLICY, READ, REP_INFO, REP_META,
                     REP_SERVER, REQ_ONE, SOCKET, STATUS, T_DATA, T_HOLE, TOO_BIG, TRIM, UNKNOWN, UNSUP,
                     WRITE, ZEROES, Client, Closed, Server, eventually, info_data, main, meta_data, path,
                     pattern, read_file, run, write_file)

SIZE = 8 * MIB
MODES = ['simple', 'structured', 'extended']


def serve(*args, size=SIZE, shared='0'):
    return Server('-t', '-e', shared, '-f', 'raw', *args, write_file('img', pattern(size)))


def still_serves(mode='structured'):
    c = Client(mode)
    assert c.read(4096, 512) == pattern(SIZE)[4096:4608]
    c.disconnect()


def descriptors(server):
    """Open descriptors of sockets: connections, and the one that listens."""
    fds = f'/proc/{server.process.pid}/fd'
    n = 0
    for fd in os.listdir(fds):
        try:
            n += os.readlink(os.path.join(fds, fd)).startswith('socket:')
        except FileNotFoundError:
            pass
    return n


# ---- the handshake ----

def test_greeting():
    with serve():
        for flags in 4, 0x80000000, 0xffffffff:
            c = Client(None)
            c.greet(flags)
            assert c.closed(), hex(flags)
        c = Client(None)
        c.greet(NO_ZEROES)
        c.send_option('LIST')
        assert c.closed()
        still_serves()


def test_options_refused():
    with serve():
        c = Client(None)
        c.greet()
        for number in 4, 0, 12, 1000, 0xffffffff:
            assert c.option(number, b'xyz')[-1][0] == UNSUP
        assert c.option('STARTTLS')[-1][0] == POLICY
        for option in 'LIST', 'STARTTLS', 'STRUCTURED', 'EXTENDED':
            assert c.option(option, b'x')[-1][0] == INVALID
        assert c.option('SET_META', meta_data(b'', ['base:allocation']))[-1][0] == INVALID
        assert c.option('STRUCTURED') == [(ACK, b'')]
        assert c.option('STRUCTURED')[-1][0] == INVALID
        assert c.option('EXTENDED') == [(ACK, b'')]
        assert c.option('EXTENDED')[-1][0] == INVALID
        assert c.option('STRUCTURED')[-1][0] == EXT_REQD
        for option in 'INFO', 'GO':
            assert c.option(option, info_data(b'nothing'))[-1][0] == UNKNOWN
            for data in b'', b'\0\0\0', b'\0\0\0\1', struct.pack('>I', 0xffffffff) + bytes(8), \
                    info_data(b'x' * 4097), info_data(b'\xff'), info_data() + b'x', info_data()[:-1], \
                    struct.pack('>IHH', 0, 2, 3):
                assert c.option(option, data)[-1][0] == INVALID, (option, data)
        for option in 'LIST_META', 'SET_META':
            assert c.option(option, meta_data(b'nothing', []))[-1][0] == UNKNOWN
            for data in b'', meta_data(b'', ['base:'])[:-1], meta_data(b'', ['base']), meta_data(b'', [b'\xff:']), \
                    struct.pack('>II', 0, 0xffffffff), meta_data(b'', []) + b'x', \
                    meta_data(b'', ['base:' + 'x' * 4096]):
                assert c.option(option, data)[-1][0] == INVALID, (option, data)
        assert c.option('ABORT', b'ignored') == [(ACK, b'')]
        assert c.closed()
        still_serves()


def test_option_lengths():
    with serve() as server:
        c = Client(None)
        c.greet()
        assert c.option('GO', bytes(64 * KIB + 1))[-1][0] == TOO_BIG
        assert c.option('LIST', bytes(MIB))[-1][0] == TOO_BIG
        assert c.option(77, bytes(100000))[-1][0] == TOO_BIG
        assert c.option('LIST')[-1] == (ACK, b'')
        before = server.memory_kib()
        for option, length in ('GO', MIB + 1), ('LIST', 0xffffffff), ('EXPORT_NAME', 4097), \
                ('EXPORT_NAME', 64 * KIB + 1), ('EXPORT_NAME', 0xffffffff):
            c = Client(None)
            c.greet()
            c.send_option(option, bytes(min(length, 100000)) if option == 'EXPORT_NAME' else b'', length)
            assert c.closed(), (option, length)
        c = Client(None)
        c.greet()
        c.s.sendall(b'IHAVEOPX' + struct.pack('>II', 3, 0))
        assert c.closed()
        for name in b'nothing', b'\xff\xff':
            c = Client(None)
            c.greet()
            c.send_option('EXPORT_NAME', name)
            assert c.closed()
        assert server.memory_kib() < before + 4096
        still_serves()


def test_list_and_info():
    with serve('-x', 'disk', '-D', 'text'):
        c = Client(None)
        c.greet()
        assert c.option('LIST') == [(REP_SERVER, struct.pack('>I', 4) + b'disktext'), (ACK, b'')]
        infos = dict((data[:2], data[2:]) for kind, data in c.option('INFO', info_data(b'disk', [1, 2, 3]))[:-1])
        assert infos[b'\0\1'] == b'disk' and infos[b'\0\2'] == b'text'
        assert infos[b'\0\3'] == struct.pack('>III', 1, 4096, 32 * MIB)
        assert infos[b'\0\0'][:8] == struct.pack('>Q', SIZE)
        kinds = [data[:2] for kind, data in c.option('INFO', info_data(b'disk'))[:-1]]
        assert b'\0\1' not in kinds and b'\0\2' not in kinds and b'\0\0' in kinds
        c.option('EXTENDED')
        c.send_option('EXPORT_NAME', b'disk')
        assert c.closed()


def test_contexts():
    with serve('-A'):
        c = Client(None)
        c.greet()
        c.option('STRUCTURED')

        def names(option, *queries):
            replies = c.option(option, meta_data(b'', queries))
            assert replies[-1] == (ACK, b''), replies
            assert all(kind == REP_META for kind, data in replies[:-1])
            return [data[4:].decode() for kind, data in replies[:-1]]
        both = ['base:allocation', 'qemu:allocation-depth']
        assert names('LIST_META') == both
        assert names('LIST_META', 'base:') == both[:1]
        assert names('LIST_META', 'qemu:') == both[1:]
        assert names('LIST_META', 'qemu:dirty-bitmap:', 'x-other:', 'base:other', 'qemu:x') == []
        assert names('LIST_META', 'qemu:allocation-depth', 'base:', 'base:allocation') == both[::-1]
        assert names('SET_META', 'base:', 'qemu:') == []
        assert names('SET_META', 'base:allocation', 'base:allocation') == both[:1]
        assert names('SET_META') == []
        c.go()
        assert c.error(STATUS, 0, 512) == EINVAL
        assert c.error(READ, 0, 512) == 0
        c = Client('structured', metas=both)
        got = c.status(0, SIZE)
        assert got == {c.metas['base:allocation']: [(SIZE, 0)], c.metas['qemu:allocation-depth']: [(SIZE, 1)]}
        # A list that fails takes what was selected with it.
        c = Client(None)
        c.greet()
        c.option('STRUCTURED')
        c.option('SET_META', meta_data(b'', ['base:allocation']))
        c.option('SET_META', meta_data(b'nothing', ['base:allocation']))
        c.go()
        assert c.error(STATUS, 0, 512) == EINVAL


def test_slow_handshake():
    """A silent client, and one that trickles, are gone after the limit; nobody waits for them."""
    with serve('--handshake-limit=1'):
        silent, trickle = Client(None), Client(None)
        trickle.greet()
        start = time.monotonic()
        still_serves()
        assert time.monotonic() - start < 0.9
        while time.monotonic() - start < 10:
            try:
                trickle.s.sendall(b'I')
            except (BrokenPipeError, ConnectionResetError):
                break
            select.select([], [], [], 0.02)
        else:
            raise AssertionError('it trickles on')
        assert silent.recv(18) and silent.closed()
        assert time.monotonic() - start < 10
        # Once it has its export, a client may be silent for as long as it likes.
        c = Client()
        select.select([c.s], [], [], 1.5)
        assert c.read(0, 512) == pattern(512)


def test_byte_by_byte():
    """However a stream is cut, it is the same."""
    with serve():
        c = Client(None)
        for piece in (struct.pack('>I', 3), b'IHAVEOPT' + struct.pack('>II', 7, 6) + bytes(6),
                      struct.pack('>IHHQQI', 0x25609513, 0, WRITE, 9, 512, 4) + b'wxyz'):
            for i in range(len(piece)):
                c.s.sendall(piece[i:i + 1])
                select.select([], [], [], 0.001)
        c.recv(18)
        while c.option_reply(7)[0] != ACK:
            pass
        assert c.recv(16) == struct.pack('>IIQ', 0x67446698, 0, 9)
        c.close()
        still_serves()
    assert read_file('img')[512:516] == b'wxyz'


# ---- requests ----

def test_errors_in_every_mode():
    with serve() as server:
        for mode in MODES:
            c = Client(mode, metas=['base:allocation'] if mode != 'simple' else ())
            payload = PAYLOAD if mode == 'extended' else 0
            for command in 8, 99, 0xffff:
                assert c.error(command, 0, 0) == EINVAL
            for flags in 1 << 6, 1 << 15, NO_HOLE, FAST_ZERO, REQ_ONE:
                assert c.error(READ, 0, 512, flags) == EINVAL
            assert c.error(READ, SIZE, 1) == EINVAL
            assert c.error(READ, (1 << 64) - 1, 2) == EINVAL
            assert c.error(READ, 0, 32 * MIB + 1) == EINVAL
            assert c.error(WRITE, SIZE - 1, 2, payload, data=b'xx') == ENOSPC
            assert c.error(WRITE, 0, 4, payload | NO_HOLE, data=b'xxxx') == EINVAL
            assert c.error(ZEROES, SIZE, 512) == ENOSPC
            assert c.error(TRIM, SIZE, 512) == EINVAL
            assert c.error(CACHE, SIZE, 512) == EINVAL
            assert c.error(FLUSH, 1, 0) == EINVAL
            assert c.error(FLUSH, 0, 1) == EINVAL
            # A refused write's payload is skipped: the stream goes on behind it.
            assert c.error(WRITE, 0, 33 * MIB, payload, data=bytes(33 * MIB)) == EINVAL
            for flags in 0, FUA:
                assert c.error(WRITE, 0, 512, payload | flags, data=pattern(512)) == 0
            assert c.error(FLUSH) == 0
            for command in READ, WRITE, TRIM, CACHE, ZEROES:
                assert c.error(command, 0, 0, payload if command == WRITE else 0) == 0
            assert c.read(1, 1000) == pattern(1024)[1:1001]
            c.disconnect()
        assert server.memory_kib() < 100 * KIB
    assert read_file('img') == pattern(SIZE)


def test_too_long_ends():
    with serve() as server:
        before = server.memory_kib()
        for mode in MODES:
            for length in [65 * MIB, 0xffffffff] + ([1 << 63, (1 << 64) - 1] if mode == 'extended' else []):
                c = Client(mode)
                c.send(WRITE, 0, length, PAYLOAD if mode == 'extended' else 0)
                assert c.closed()
        for mode in MODES:
            c = Client(mode)
            c.send(READ, 0, 512, magic=0x12345678)
            assert c.closed()
        assert server.memory_kib() < before + 8 * KIB
        still_serves()


def test_read_only():
    with serve('-r'):
        for mode in MODES:
            c = Client(mode)
            payload = PAYLOAD if mode == 'extended' else 0
            assert c.error(WRITE, 0, 512, payload, data=bytes(512)) == EPERM
            assert c.error(TRIM, 0, 512) == EPERM
            assert c.error(ZEROES, 0, 512) == EPERM
            assert c.error(FLUSH) == 0 and c.error(READ, 0, 512) == 0
    assert read_file('img') == pattern(SIZE)


def test_extended_headers():
    with open(path('img'), 'wb') as f:
        f.truncate(1 << 40)
        f.seek(1 << 20)
        f.write(pattern(MIB))
    with Server('-t', '-e', '0', '-f', 'raw', '--discard=unmap', '-A', path('img')):
        c = Client('extended', metas=['base:allocation', 'qemu:allocation-depth'])
        base, depth = c.metas['base:allocation'], c.metas['qemu:allocation-depth']
        assert c.flags & 1 << 12 and c.flags & 1 << 7
        # Lengths of more than 32 bits, of the request and of extents.
        assert c.status(0, 1 << 40)[base] == [(MIB, 3), (MIB, 0), ((1 << 40) - 2 * MIB, 3)]
        assert c.status(4 * MIB, 1 << 39, REQ_ONE) == {base: [(1 << 39, 3)], depth: [(1 << 39, 1)]}
        # Only what the payload names.
        assert c.status(0, 1 << 40, REQ_ONE, ids=[base]) == {base: [(MIB, 3)]}
        assert set(c.status(0, 1 << 40, ids=[depth, base])) == {base, depth}
        for ids in [99], [base, base], [base, 99]:
            cookie = c.send(STATUS, 0, 8 + 4 * len(ids), PAYLOAD,
                            data=struct.pack('>Q', 512) + b''.join(struct.pack('>I', i) for i in ids))
            assert c.chunk()[1:3] == (0x8001, cookie)
        assert c.error(STATUS, 0, 8, PAYLOAD, data=struct.pack('>Q', 512)) == EINVAL
        assert c.error(STATUS, 0, 11, PAYLOAD, data=bytes(11)) == EINVAL
        # Holes and data in one read; the offset of each header is the request's.
        cookie = c.send(READ, MIB - 64 * KIB, MIB)
        chunks = c.chunks(cookie)
        assert [k for unused, k, unused, unused, unused in chunks] == [T_HOLE, T_DATA]
        assert all(offset == MIB - 64 * KIB for unused, unused, unused, offset, unused in chunks)
        assert c.read(MIB, MIB, DF) == pattern(MIB)
        assert c.error(ZEROES, MIB, 1 << 39) == 0
        assert c.error(TRIM, 0, 1 << 40) == 0
        assert c.status(0, 1 << 40)[base] == [(1 << 40, 3)]
        # A payload of a command that has none is skipped; a write must say that it has one.
        assert c.error(READ, 0, 512, PAYLOAD, data=bytes(512)) == EINVAL
        assert c.error(WRITE, 0, 512) == EINVAL
        assert c.error(WRITE, 0, 512, PAYLOAD, data=pattern(512)) == 0
        assert c.read(0, 512) == pattern(512)
        c.disconnect()
        c = Client('extended')
        assert not c.flags & 1 << 12
        assert c.error(STATUS, 0, 512) == EINVAL


def test_disc():
    """What was asked for before the good-bye is answered before the end."""
    with serve():
        for mode in MODES:
            c = Client(mode)
            cookies = [c.send(READ, i * 512, 512) for i in range(100)]
            c.send(DISC)
            seen = set()
            for unused in cookies:
                if mode == 'simple':
                    error, cookie = c.simple()
                    c.recv(512)
                else:
                    unused, kind, cookie, unused, payload = c.chunk()
                    assert kind == T_DATA
                seen.add(cookie)
            assert seen == set(cookies) and c.closed()
            # The same for a client that has only closed its own side.
            c = Client(mode)
            cookie = c.send(READ, 0, 65536)
            c.s.shutdown(socket.SHUT_WR)
            if mode == 'simple':
                assert c.simple() == (0, cookie) and c.recv(65536) == pattern(65536)
            else:
                assert c.chunks(cookie)[-1][0] == DONE
            assert c.closed()


# ---- slow, dying and greedy clients ----

def test_does_not_read():
    """Replies that nobody reads cost a bounded amount of memory, and nobody else anything."""
    size = 64 * MIB
    with serve(size=size) as server:
        data = pattern(size)
        before = server.memory_kib()
        for mode in MODES:
            lazy = []
            for unused in range(4):
                c = Client(mode)
                c.s.setblocking(False)
                c.sent = 0
                lazy.append(c)
            # As many requests as the server is ready to take from each.
            head = 32 if mode == 'extended' else 28
            for c in lazy:
                for i in range(20000):
                    offset = i * 4096 % size
                    if mode == 'extended':
                        request = struct.pack('>IHHQQQ', 0x21e41c71, 0, READ, i, offset, min(MIB, size - offset))
                    else:
                        request = struct.pack('>IHHQQI', 0x25609513, 0, READ, i, offset, min(MIB, size - offset))
                    try:
                        sent = c.s.send(request)
                    except BlockingIOError:
                        break
                    assert sent == head
                    c.sent += 1
                assert c.sent > 0
            start = time.monotonic()
            c = Client(mode)
            for i in range(50):
                assert c.read(i * 512, 512) == data[i * 512:i * 512 + 512]
            assert time.monotonic() - start < 10
            grown = server.memory_kib() - before
            assert grown < 4 * 80 * KIB, grown
            # It may think better of it: everything is still there.
            c = lazy[0]
            c.s.settimeout(60)
            for i in range(c.sent):
                if mode == 'simple':
                    error, cookie = c.simple()
                    assert error == 0
                    payload = c.recv(min(MIB, size - cookie * 4096 % size))
                else:
                    unused, kind, cookie, unused, payload = c.chunk()
                    assert kind == T_DATA
                    payload = payload[8:]
                offset = cookie * 4096 % size
                assert payload == data[offset:offset + len(payload)]
            for c in lazy:
                c.close()
        eventually(lambda: descriptors(server) == 1, 'connections are gone')


def test_stops_in_the_middle():
    """Clients that stop or die in the middle of a header, a payload or a reply."""
    with serve() as server:
        before = server.memory_kib()
        for mode in MODES:
            payload = PAYLOAD if mode == 'extended' else 0
            stuck = []
            for i in range(30):
                c = Client(mode)
                if i % 3 == 0:
                    c.s.sendall(struct.pack('>I', 0x25609513 if mode != 'extended' else 0x21e41c71)[:i % 4 + 1])
                elif i % 3 == 1:
                    c.send(WRITE, 0, 32 * MIB, payload, data=b'x' * 1000)
                else:
                    c.send(READ, 0, SIZE)
                    c.recv(10)
                stuck.append(c)
            still_serves(mode)
            for c in stuck[::2]:
                c.close()
            still_serves(mode)
            # Memory of a payload that does not come is only promised.
            assert server.memory_kib() - before < 400 * KIB
            for c in stuck:
                c.close()
            eventually(lambda: descriptors(server) == 1, 'connections are gone')
    assert read_file('img') == pattern(SIZE)


def test_half_a_write_writes_nothing():
    with serve():
        c = Client()
        c.send(WRITE, 0, 4096, data=b'x' * 4095)
        still_serves()
        c.close()
        still_serves()
    assert read_file('img') == pattern(SIZE)


def test_limit_of_connections():
    with serve(shared='3'):
        held = [Client() for unused in range(3)]
        waiting = Client(None)
        assert not select.select([waiting.s], [], [], 0.3)[0], 'a fourth client was greeted'
        assert held[0].read(0, 512) == pattern(512)
        held[1].disconnect()
        waiting.greet()
        waiting.mode = 'simple'
        waiting.go()
        assert waiting.read(0, 512) == pattern(512)


def test_many_connections():
    with serve() as server:
        clients = [Client(MODES[i % 3]) for i in range(200)]
        for round in range(3):
            for i, c in enumerate(clients):
                c.asked = c.send(READ, i * 512, 512)
            for i, c in enumerate(clients):
                if c.mode == 'simple':
                    assert c.simple() == (0, c.asked)
                    data = c.recv(512)
                else:
                    data = c.chunks(c.asked)[0][4][8:]
                assert data == pattern(SIZE)[i * 512:i * 512 + 512]
        for c in clients:
            c.close()
        eventually(lambda: descriptors(server) == 1, 'connections are gone')


def test_fairness():
    """A client that floods the server does not keep it from another one."""
    with serve('--threads=1'):
        flood = Client('simple')
        flood.s.setblocking(False)
        request = b''.join(struct.pack('>IHHQQI', 0x25609513, 0, READ, i, i * 4096 % SIZE, 4096)
                           for i in range(256))
        c = Client()
        pending, worst = b'', 0
        begun = time.monotonic()
        got = 0
        while time.monotonic() - begun < 2:
            # Keep the flood going in both directions, then ask once more.
            for unused in range(20):
                try:
                    pending = pending or request
                    pending = pending[flood.s.send(pending):]
                except BlockingIOError:
                    pass
                try:
                    got += len(flood.s.recv(MIB))
                except BlockingIOError:
                    pass
            start = time.monotonic()
            cookie = c.send(READ, 0, 512)
            while not select.select([c.s], [], [], 0)[0]:
                try:
                    got += len(flood.s.recv(MIB))
                    pending = pending or request
                    pending = pending[flood.s.send(pending):]
                except BlockingIOError:
                    pass
                assert time.monotonic() - start < 20
            c.chunks(cookie)
            worst = max(worst, time.monotonic() - start)
        assert got > 10 * MIB, got
        assert worst < 1, worst


def serve_opts(text):
    return Server('-t', '-e', '0', '--threads=1', '--discard=unmap', '--image-opts', text)


def test_endless_requests():
    """A request of a few bytes for more work than anyone lives to see: others go on, and it ends with its client."""
    huge = 1 << 61
    with serve_opts(f'driver=null-co,size={2 * huge},read-zeroes=on') as server:
        other = Client()
        for command in CACHE, ZEROES, TRIM:
            c = Client('extended')
            if command == CACHE:
                assert c.error(CACHE, 0, huge) == EINVAL and c.error(CACHE, 0, 32 * MIB + 1) == EINVAL
                assert c.error(CACHE, 5, 32 * MIB) == 0
            else:
                for unused in range(3):
                    c.send(command, 0, huge)
            assert other.read(0, 512) == bytes(512) and c.read(0, 512) == bytes(512)
            c.close()
        other.disconnect()
        eventually(lambda: descriptors(server) == 1, 'connections are gone')
        # Whoever says good-bye is not waited for by the end of the server.
        c = Client('extended')
        c.send(ZEROES, 0, huge)
        c.send(DISC)
        assert Client('extended').read(0, 512) == bytes(512)


def test_endless_requests_of_a_slow_node():
    """Each of these takes minutes: the end waits for a piece of them."""
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', path('small.qcow2'), '16G')
    with Server('-t', '-e', '0', '-f', 'qcow2', path('small.qcow2')):
        for unused in range(3):
            c = Client('extended')
            c.send(ZEROES, 0, 16 * KIB * MIB)
            c.send(ZEROES, 8 * KIB * MIB, 8 * KIB * MIB)
        assert Client('extended').read(0, 512) == bytes(512)


def test_pieces():
    """What is done in pieces is done as a whole: no byte less or more, the error of any piece, and FUA for all."""
    size = 40 * MIB
    want = bytearray(pattern(size))
    for mode, command, flags in zip(MODES, [ZEROES, ZEROES, TRIM], [0, NO_HOLE | FUA, FUA]):
        with serve('--discard=unmap', size=size):
            c = Client(mode)
            start, end = (MIB + 5, 39 * MIB + 7) if command == ZEROES else (MIB, 39 * MIB)
            assert c.error(command, start, end - start, flags) == 0
            c.disconnect()
        assert read_file('img') == want[:start] + bytes(end - start) + want[end:]
    for kind, command in ('write-zeroes', ZEROES), ('discard', TRIM):
        with serve_opts('driver=blkdebug,image.driver=null-co,image.size=1T,inject-error.0.errno=28,'
                        f'inject-error.0.nth=4,inject-error.0.iotype={kind}'):
            c = Client('extended')
            assert c.error(command, 0, MIB) == 0
            assert c.error(command, 0, 1 << 39) == ENOSPC
            c.disconnect()
    with serve_opts('driver=blkdebug,image.driver=null-co,image.size=1T,inject-error.0.errno=28,'
                    'inject-error.0.iotype=flush'):
        c = Client('extended')
        for command in ZEROES, TRIM:
            assert c.error(command, 0, 1 << 39) == 0
            assert c.error(command, 0, 1 << 39, FUA) == ENOSPC
        c.disconnect()


def test_ends_with_stuck_clients():
    """SIGTERM is not for clients to delay."""
    server = serve()
    stuck = []
    for mode in MODES:
        c = Client(mode)
        for unused in range(64):
            c.send(READ, 0, SIZE)
        stuck.append(c)
        c = Client(mode)
        c.send(WRITE, 0, 4096, PAYLOAD if mode == 'extended' else 0, data=b'x')
        stuck.append(c)
    stuck.append(Client(None))
    start = time.monotonic()
    server.stop()
    assert time.monotonic() - start < 5
    assert not os.path.exists(SOCKET)


def test_random_bytes():
    """Noise, with and without sense in it; the server is there afterwards and has grown little."""
    r = random.Random(4)
    with serve('-r') as server:
        before = server.memory_kib()
        for i in range(400):
            mode = r.choice([None, *MODES])
            c = Client(mode)
            c.s.settimeout(0.02)
            try:
                if mode is None:
                    c.s.sendall(struct.pack('>I', 3))
                for unused in range(r.randrange(1, 20)):
                    if r.random() < 0.2:
                        c.s.sendall(r.randbytes(r.randrange(1, 200)))
                    elif mode is None:
                        data = r.choice([info_data(r.randbytes(r.randrange(5))), meta_data(b'', ['base:', 'q:']),
                                         r.randbytes(r.randrange(40))])
                        c.send_option(r.randrange(14), data, len(data) if r.random() < 0.8 else r.randrange(1 << 32))
                    else:
                        c.send(r.randrange(10), r.choice([0, SIZE - 1, r.randrange(1 << 64)]),
                               r.choice([0, 1, 512, r.randrange(1 << 16), r.randrange(1 << 32)]),
                               r.choice([0, 0, 0, r.randrange(64)]), r.randbytes(r.choice([0, 512])))
                c.s.recv(1 << 16)
            except OSError:
                pass
            c.close()
        still_serves()
        assert server.memory_kib() < before + 200 * KIB
    assert read_file('img') == pattern(SIZE)


main(dict(globals()))
