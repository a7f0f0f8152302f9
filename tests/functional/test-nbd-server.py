#!/usr/bin/python3
"""The NBD server beside other people's clients: nbdinfo, nbdcopy, libnbd, qemu-img, qemu-io.

/usr/bin/python3 is the one that has the module nbd.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import errno
import json
import os
import random
import sys

import nbd

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from nbd_lib import (KIB, MIB, SOCKET, URI, Server, eventually, main, path, pattern,  # noqa: E402
                     read_file, run, write_file)

SIZE = 8 * MIB


def image(name='img', size=SIZE, seed=1):
    return write_file(name, pattern(size, seed))


def connect(contexts=(), uri=URI, **settings):
    h = nbd.NBD()
    for context in contexts:
        h.add_meta_context(context)
    for name, value in settings.items():
        getattr(h, 'set_' + name)(value)
    h.connect_uri(uri)
    return h


def fails(number, fn, *args, **kwargs):
    try:
        fn(*args, **kwargs)
    except nbd.Error as e:
        assert e.errnum == number, (e.errnum, number, str(e))
        return
    raise AssertionError('it worked')


# ---- other people's programs ----

def test_nbdinfo():
    with Server('-t', '-f', 'raw', '-x', 'disk', '-D', 'my own', image()):
        uri = f'nbd+unix:///disk?socket={SOCKET}'
        info = json.loads(run('nbdinfo', '--json', uri))
        assert info['protocol'] == 'newstyle-fixed' and info['structured']
        export = info['exports'][0]
        want = {
            'export-name': 'disk', 'description': 'my own', 'export-size': SIZE, 'is_read_only': False,
            'is_rotational': False, 'can_cache': True, 'can_df': True, 'can_fast_zero': True,
            'can_flush': True, 'can_fua': True, 'can_multi_conn': False, 'can_trim': True,
            'can_zero': True, 'block_size_minimum': 1, 'block_size_preferred': 4096,
            'block_size_maximum': 32 * MIB, 'contexts': ['base:allocation'],
        }
        got = {k: export.get(k) for k in want}
        assert got == want, got
        listed = json.loads(run('nbdinfo', '--list', '--json', URI))
        assert [e['export-name'] for e in listed['exports']] == ['disk']
        run('nbdinfo', '--size', URI, status=1)


def test_nbdinfo_map():
    with open(path('sparse'), 'wb') as f:
        f.truncate(SIZE)
        f.seek(2 * MIB)
        f.write(pattern(MIB))
    with Server('-t', '-f', 'raw', path('sparse')):
        lines = [line.split() for line in run('nbdinfo', '--map', URI).splitlines()]
        assert [(int(a), int(b), c, d) for a, b, c, d in lines] == [
            (0, 2 * MIB, '3', 'hole,zero'), (2 * MIB, MIB, '0', 'data'),
            (3 * MIB, 5 * MIB, '3', 'hole,zero')], lines


def test_nbdcopy_from():
    size = 64 * MIB
    with Server('-t', '-e', '0', '-f', 'raw', image(size=size)):
        for connections, requests in (1, 1), (1, 64), (4, 64), (8, 16):
            run('nbdcopy', f'--connections={connections}', f'--requests={requests}', URI, path('out'))
            assert read_file('out') == read_file('img')


def test_nbdcopy_to():
    size = 64 * MIB
    image('src', size)
    for connections in 1, 4, 8:
        write_file('img', bytes(size))
        with Server('-t', '-e', '0', '-f', 'raw', path('img')):
            run('nbdcopy', f'--connections={connections}', '--flush', path('src'), URI)
        assert read_file('img') == read_file('src')


def test_nbdcopy_sparse():
    """Holes are copied as holes: nbdcopy writes zeroes there."""
    with open(path('src'), 'wb') as f:
        f.truncate(64 * MIB)
        f.seek(10 * MIB)
        f.write(pattern(MIB))
    write_file('img', pattern(64 * MIB, 3))
    with Server('-t', '-e', '0', '-f', 'raw', '--discard=unmap', path('img')):
        run('nbdcopy', '--destination-is-zero', path('src'), URI)
        run('nbdcopy', path('src'), URI)
    assert read_file('img') == read_file('src')
    assert os.stat(path('img')).st_blocks * 512 < 4 * MIB


def test_qemu_img():
    with Server('-t', '-e', '0', '-f', 'raw', image()):
        assert json.loads(run('qemu-img', 'info', '--output=json', URI))['virtual-size'] == SIZE
        run('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', '-W', URI, path('out'))
        assert read_file('out') == read_file('img')
        run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', URI, path('img'))
    write_file('img', bytes(SIZE))
    with Server('-t', '-e', '0', '-f', 'raw', path('img')):
        run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', path('out'), URI)
    assert read_file('img') == read_file('out')


def test_qemu_io():
    with Server('-t', '-f', 'raw', image()):
        out = run('qemu-io', '-f', 'raw', '-c', 'write -P 0x5a 4096 8192', '-c', 'write -z 65536 65536',
                  '-c', 'write -z -u 1M 1M', '-c', 'write -f -P 7 3 5', '-c', 'discard 4M 1M', '-c', 'flush',
                  '-c', 'read -P 0x5a 4096 8192', '-c', 'read -P 0 65536 65536', '-c', 'read -P 7 3 5', URI)
        assert 'failed' not in out and 'verification' not in out, out
    data = read_file('img')
    assert data[4096:12288] == b'\x5a' * 8192 and data[65536:131072] == bytes(65536)
    assert data[MIB:2 * MIB] == bytes(MIB) and data[3:8] == b'\7' * 5


# ---- libnbd, command by command ----

def test_read_write():
    with Server('-t', '-f', 'raw', image()):
        h = connect()
        model = bytearray(read_file('img'))
        r = random.Random(1)
        for unused in range(300):
            offset = r.randrange(SIZE)
            length = r.randrange(1, min(SIZE - offset, r.choice([600, 70000, 2 * MIB])) + 1)
            if r.random() < 0.5:
                assert h.pread(length, offset) == model[offset:offset + length]
            else:
                data = r.randbytes(length)
                h.pwrite(data, offset, r.choice([0, nbd.CMD_FLAG_FUA]))
                model[offset:offset + length] = data
        h.flush()
        assert read_file('img') == model
        h.shutdown()


def test_longest_requests():
    size = 40 * MIB
    with Server('-t', '-f', 'raw', image(size=size)):
        h = connect()
        data = h.pread(32 * MIB, 8 * MIB)
        assert data == read_file('img')[8 * MIB:]
        h.pwrite(data, 0)
        assert h.pread(32 * MIB, 0) == data
        h.set_strict_mode(0)
        fails(errno.EINVAL, h.pread, 32 * MIB + 1, 0)
        assert h.pread(5, 7) == data[7:12]
        h.shutdown()


def test_df():
    with open(path('img'), 'wb') as f:
        f.truncate(SIZE)
        f.seek(MIB)
        f.write(pattern(MIB))
    with Server('-t', '-f', 'raw', path('img')):
        h = connect()
        for flags, most in (0, 3), (nbd.CMD_FLAG_DF, 1):
            chunks = []

            def note(data, offset, status, error):
                chunks.append((offset, len(data), status))
            got = h.pread_structured(3 * MIB, 0, note, flags)
            assert got == read_file('img')[:3 * MIB]
            assert len(chunks) == most, chunks
        h.shutdown()


def test_write_zeroes_and_trim():
    with Server('-t', '-f', 'raw', '--discard=unmap', image()):
        h = connect(['base:allocation'])
        h.zero(MIB, 0)
        h.zero(MIB, MIB, nbd.CMD_FLAG_NO_HOLE)
        h.zero(MIB, 2 * MIB, nbd.CMD_FLAG_FUA)
        h.zero(MIB, 3 * MIB, nbd.CMD_FLAG_FAST_ZERO)
        h.trim(MIB, 4 * MIB)
        h.trim(MIB, 5 * MIB, nbd.CMD_FLAG_FUA)
        h.zero(1234, 6 * MIB + 77)
        assert h.pread(4 * MIB, 0) == bytes(4 * MIB)
        extents = []
        h.block_status(SIZE, 0, lambda meta, offset, entries, error: extents.extend(entries))
        assert extents[0] >= MIB and extents[1] == 3, extents
        h.shutdown()
    data = read_file('img')
    assert data[6 * MIB + 77:6 * MIB + 77 + 1234] == bytes(1234)
    assert data[6 * MIB:6 * MIB + 77] == pattern(SIZE)[6 * MIB:6 * MIB + 77]


def test_cache_and_flush():
    with Server('-t', '-f', 'raw', image()):
        h = connect()
        h.cache(SIZE, 0)
        h.cache(12345, 54321)
        h.flush()
        h.shutdown()


def test_block_status():
    with open(path('img'), 'wb') as f:
        f.truncate(SIZE)
        for i in range(0, SIZE, 256 * KIB):
            f.seek(i)
            f.write(pattern(128 * KIB))
    with Server('-t', '-f', 'raw', path('img')):
        h = connect(['base:allocation'])
        extents = []

        def note(meta, offset, entries, error):
            assert meta == 'base:allocation'
            extents.extend(zip(entries[::2], entries[1::2]))
        h.block_status(SIZE, 0, note)
        assert extents == [(128 * KIB, 0), (128 * KIB, 3)] * (SIZE // (256 * KIB)), extents
        extents.clear()
        h.block_status(SIZE - 1000, 1000, note, nbd.CMD_FLAG_REQ_ONE)
        assert extents == [(128 * KIB - 1000, 0)], extents
        h.shutdown()


def test_read_only():
    with Server('-t', '-r', '-f', 'raw', image()):
        h = connect()
        assert h.is_read_only() and not h.can_trim() and not h.can_zero()
        h.set_strict_mode(0)
        fails(errno.EPERM, h.pwrite, b'x', 0)
        fails(errno.EPERM, h.trim, 512, 0)
        fails(errno.EPERM, h.zero, 512, 0)
        assert h.pread(100, 0) == pattern(104)[:100]
        h.shutdown()


def test_beyond_the_end():
    with Server('-t', '-f', 'raw', image()):
        h = connect()
        h.set_strict_mode(0)
        for offset in SIZE - 511, SIZE, SIZE + 512, (1 << 63) - 512:
            fails(errno.EINVAL, h.pread, 512, offset)
            fails(errno.ENOSPC, h.pwrite, bytes(512), offset)
            fails(errno.ENOSPC, h.zero, 512, offset)
            fails(errno.EINVAL, h.trim, 512, offset)
            fails(errno.EINVAL, h.cache, 512, offset)
        assert h.pread(512, SIZE - 512) == pattern(SIZE)[-512:]
        h.shutdown()


def test_many_in_flight():
    """Replies to many requests come in any order, each with its own data."""
    with Server('-t', '-f', 'raw', image()):
        h = connect()
        model = read_file('img')
        r = random.Random(2)
        reads = []
        for unused in range(2000):
            length = r.choice([512, 4096, 65536])
            offset = r.randrange(SIZE - length)
            buf = nbd.Buffer(length)
            reads.append((h.aio_pread(buf, offset), buf, offset, length))
            while h.aio_in_flight() >= 400:
                h.poll(-1)
        while h.aio_in_flight() > 0:
            h.poll(-1)
        for cookie, buf, offset, length in reads:
            assert h.aio_command_completed(cookie)
            assert buf.to_bytearray() == model[offset:offset + length]
        h.shutdown()


def test_multi_conn():
    """What one connection wrote, the others see; a flush of one is for all."""
    with Server('-t', '-e', '0', '-f', 'raw', image()):
        handles = [connect() for unused in range(16)]
        assert all(h.can_multi_conn() for h in handles)
        for i, h in enumerate(handles):
            h.pwrite(bytes([i]) * 4096, i * 4096)
            assert all(other.pread(4096, i * 4096) == bytes([i]) * 4096 for other in handles)
        handles[3].flush()
        for h in handles:
            h.shutdown()


def test_simple_replies():
    with Server('-t', '-f', 'raw', image()):
        h = connect(request_structured_replies=False)
        assert not h.get_structured_replies_negotiated()
        assert h.pread(100000, 5) == read_file('img')[5:100005]
        h.pwrite(b'abc', 1)
        assert h.pread(5, 0)[1:4] == b'abc'
        h.set_strict_mode(0)
        fails(errno.EINVAL, h.pread, 512, SIZE)
        h.shutdown()


def test_oldest_handshake():
    """Without fixed newstyle only EXPORT_NAME is left; with and without 124 zeroes."""
    with Server('-t', '-f', 'raw', image()):
        for flags in 0, nbd.HANDSHAKE_FLAG_NO_ZEROES, nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE:
            h = connect(handshake_flags=flags)
            assert h.get_size() == SIZE and h.pread(64, 64) == pattern(128)[64:]
            h.shutdown()


def test_tcp():
    with Server('-t', '-e', '2', '-b', '127.0.0.1', '-p', '0', '-v', '-f', 'raw', image(), sock=None,
                ready=False) as server:
        # The kernel chose the port: the only socket on which this process listens.
        ports = []

        def listens():
            out = run('ss', '-Hltnp')
            ports[:] = [line.split()[3].rsplit(':', 1)[1] for line in out.splitlines()
                        if f'pid={server.process.pid},' in line]
            return ports
        eventually(listens, 'listening')
        uri = f'nbd://127.0.0.1:{ports[0]}'
        run('nbdcopy', uri, path('out'))
        assert read_file('out') == read_file('img')


main(dict(globals()))
