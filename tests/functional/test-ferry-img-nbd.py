#!/usr/bin/env python3
"""ferry-img with images on NBD servers, and with nodes that fail.

    test-ferry-img-nbd.py FERRY-IMG

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import select
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from img_lib import (DEADLINE_S, FERRY_IMG, KIB, MIB, STARTED, as_json, fails, ferry, leftovers, main,  # noqa: E402
                     mixed_file, must, path, qemu, read, start, write_file)

SIZE = 8 * MIB


def serve(image, *args, fmt='raw'):
    """A qemu-nbd on a socket; it listens when this returns."""
    name = f'{os.path.basename(image)}.sock'
    server = start('qemu-nbd', '-t', '-k', path(name), '-f', fmt, *args, image)
    end = time.monotonic() + DEADLINE_S
    while True:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(path(name))
                return server, f'nbd:unix:{path(name)}'
            except (FileNotFoundError, ConnectionRefusedError):
                assert time.monotonic() < end and server.poll() is None, server
                select.select([], [], [], 0.01)


def stop(server):
    server.terminate()
    server.communicate(timeout=DEADLINE_S)
    STARTED.remove(server)


def test_read():
    mixed_file('x', SIZE)
    must(qemu('convert', '-f', 'raw', '-O', 'qcow2', 'x', 'q'))
    for image, fmt in (('x', 'raw'), ('q', 'qcow2')):
        server, name = serve(image, '-r', '-e', '4', fmt=fmt)
        for spelled in (name, name.replace('nbd:unix:', 'nbd+unix:///?socket=')):
            must(ferry('convert', '-f', 'raw', '-O', 'raw', spelled, 'y'))
            assert read('y') == read('x')
            must(ferry('convert', '-f', 'raw', '-O', 'qcow2', spelled, 'z'))
            must(qemu('compare', 'x', 'z'))
            assert must(ferry('compare', '-f', 'raw', '-F', 'raw', spelled, 'x')) == 'Images are identical.\n'
        assert as_json(ferry('info', '-f', 'raw', '--output=json', name))['virtual-size'] == SIZE
        extents = as_json(ferry('map', '-f', 'raw', '--output=json', name))
        assert sum(e['length'] for e in extents) == SIZE and any(e['zero'] for e in extents)
        stop(server)


def test_write():
    mixed_file('x', SIZE)
    for fmt in ('raw', 'qcow2'):
        must(qemu('create', '-q', '-f', fmt, 'y', str(SIZE)))
        server, name = serve('y', '-e', '4', '--discard=unmap', fmt=fmt)
        for args in ([], ['-W', '-m', '16'], ['-t', 'writeback'], ['-S', '0']):
            must(ferry('convert', '-n', '-f', 'raw', '-O', 'raw', *args, 'x', name))
            assert must(ferry('compare', '-f', 'raw', '-F', 'raw', name, 'x')) == 'Images are identical.\n'
            mixed_file('x', SIZE, seed=len(args))
        stop(server)
    must(qemu('create', '-q', '-f', 'raw', 'y', str(SIZE - MIB)))
    server, name = serve('y')
    fails(ferry('convert', '-n', '-f', 'raw', '-O', 'raw', 'x', name), 'ferry-img: output file is smaller than input file')
    stop(server)
    # An image of another format on an export, made and used.
    must(qemu('create', '-q', '-f', 'raw', 'y', str(SIZE * 2)))
    server, name = serve('y')
    result = ferry('convert', '-f', 'raw', '-O', 'qcow2', 'x', name)
    assert result.status == 1 and 'does not make images' in result.err, result
    stop(server)


def test_between_servers():
    mixed_file('x', SIZE)
    write_file('y', SIZE, [(0, SIZE, 9)])
    first, source = serve('x', '-r', '-e', '4')
    second, target = serve('y', '-e', '4')
    must(ferry('convert', '-n', '-f', 'raw', '-O', 'raw', source, target))
    stop(first)
    stop(second)
    assert read('x') == read('y')


def test_read_only():
    mixed_file('x', SIZE)
    server, name = serve('x', '-r')
    result = ferry('convert', '-n', '-f', 'raw', '-O', 'raw', 'x', name)
    assert result.status == 1 and f"Could not open '{name}'" in result.err, result
    stop(server)
    result = ferry('info', '-f', 'raw', name)
    assert result.status == 1 and f"Could not open '{name}'" in result.err, result


def test_server_dies():
    """The copy ends with an error that says where, and leaves nothing."""
    write_file('x', 32 * MIB, [(0, 32 * MIB, 'random')])
    server, name = serve('x', '-r', '-e', '4')
    client = start(FERRY_IMG, 'convert', '-p', '-r', '4M', '-f', 'raw', '-O', 'raw', name, 'y')
    seen = ''
    end = time.monotonic() + DEADLINE_S
    while not re.search(r'\((?!0\.00)\d+\.\d\d/100%\)', seen):
        assert select.select([client.stdout], [], [], max(0, end - time.monotonic()))[0], seen
        seen += os.read(client.stdout.fileno(), 4096).decode()
    server.kill()
    _, err = client.communicate(timeout=DEADLINE_S)
    assert client.returncode == 1, err
    assert re.search(r'^ferry-img: error while reading (at byte|block status at offset) \d+: ', err.decode(), re.M), err
    assert not os.path.exists(path('y')) and leftovers() == []


# Nodes that fail ----------------------------------------------------------------------------------


def failing(image, **error):
    return 'json:' + json.dumps({'driver': 'raw', 'file': {
        'driver': 'blkdebug', 'image': {'driver': 'file', 'filename': image}, 'inject-error': [error]}})


def test_read_errors():
    write_file('x', SIZE, [(0, SIZE, 'random')])
    bad = failing('x', iotype='read', sector=5000)
    result = ferry('convert', bad, 'y')
    assert result.status == 1, result
    at = int(re.fullmatch(r'ferry-img: error while reading at byte (\d+): Input/output error\n', result.err)[1])
    assert at <= 5000 * 512 < at + 2 * MIB and not os.path.exists(path('y')) and leftovers() == [], result
    result = ferry('compare', bad, 'x')
    assert result.status == 4 and result.out == '' and 'Error while reading offset' in result.err, result
    # What lies before the difference is what counts.
    write_file('z', SIZE, [(0, SIZE, 1)])
    result = ferry('compare', bad, 'z')
    assert (result.status, result.out, result.err) == (1, 'Content mismatch at offset 0!\n', ''), result


def test_salvage():
    write_file('x', SIZE, [(0, SIZE, 'random')])
    result = ferry('convert', '--salvage', failing('x', iotype='read', sector=5000), 'y')
    assert result.status == 0, result
    assert result.err == f'ferry-img: warning: error while reading offset {5000 * 512}: Input/output error\n', result
    want = bytearray(read('x'))
    want[5000 * 512:5001 * 512] = bytes(512)
    assert read('y') == want
    result = ferry('convert', '-q', '--salvage', failing('x', iotype='read', sector=0), 'y')
    assert (result.status, result.err) == (0, '') and read('y', 512) == read('x', 512)
    result = ferry('convert', '-q', '--salvage', failing('x', iotype='block-status', sector=100), 'y')
    assert (result.status, result.err) == (0, '') and read('y') == read('x')


def test_write_errors():
    write_file('x', SIZE, [(0, SIZE, 'random')])
    for iotype, errno, text in (('write', 28, 'No space left on device'), ('write', 5, 'Input/output error')):
        write_file('y', SIZE, [(0, SIZE, 1)])
        result = ferry('convert', '-n', '-O', 'raw', 'x', failing('y', iotype=iotype, errno=errno, sector=7000))
        assert result.status == 1, result
        assert re.fullmatch(rf'ferry-img: error while writing at byte \d+: {text}\n', result.err), result
    write_file('y', SIZE, [(0, SIZE, 1)])
    bad = failing('y', iotype='flush')
    result = ferry('convert', '-n', '-t', 'writeback', '-O', 'raw', 'x', bad)
    assert result.status == 1 and f"error while flushing '{bad}': Input/output error" in result.err, result


def test_rebase_commit_errors():
    mixed_file('base', SIZE)
    mixed_file('other', SIZE, seed=2)
    must(qemu('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'x'))
    bad = failing('other', iotype='read', sector=3000)
    result = ferry('rebase', '-f', 'qcow2', '-b', bad, '-F', 'raw', 'x')
    assert result.status == 1, result
    assert re.fullmatch(r'ferry-img: error while reading from the new backing file at byte \d+: Input/output error\n',
                        result.err), result
    assert as_json(qemu('info', '--output=json', 'x'))['backing-filename'] == 'base'
    assert must(ferry('compare', '-f', 'qcow2', '-F', 'raw', 'x', 'base')) == 'Images are identical.\n'


def test_odd_lengths():
    """The end of an image need not be where a sector ends."""
    for size in (1, 700, 100 * KIB + 3):
        write_file('x', size, [(0, size, 'random')])
        for offset in (0, size - 1):
            name = 'json:' + json.dumps({'driver': 'raw', 'offset': offset, 'file': {'driver': 'file', 'filename': 'x'}})
            must(ferry('convert', name, 'y'))
            assert read('y') == read('x', offset)


if __name__ == '__main__':
    sys.exit(main([test_read, test_write, test_between_servers, test_read_only, test_server_dies, test_read_errors,
                   test_salvage, test_write_errors, test_rebase_commit_errors, test_odd_lengths]))
