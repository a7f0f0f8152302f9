#!/usr/bin/env python3
"""qcow2 images that somebody made to hurt who opens them: what they cost follows from what is in the file.

    test-ferry-img-hostile.py FERRY-IMG

Every program runs with little memory. Prints TAP. Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import resource
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from img_lib import GIB, KIB, MIB, as_json, fails, ferry, main, must, path, qemu, qemu_io, write_file  # noqa: E402

DIRTY = 1
EXT_BITMAPS = 0x23852875
AUTOCLEAR_BITMAPS = 1
BITMAP_AUTO = 2
# Address space, and so memory, that a program may have. A sanitizer reserves far more.
ROOM = 1 * GIB
BOUNDED = 'ASAN_OPTIONS' not in os.environ and 'TSAN_OPTIONS' not in os.environ
# Far more than it takes, far less than what there would be to walk through.
SECONDS = 30


def bounded(*args):
    """Run it with little memory; it is soon over."""
    def limit():
        if BOUNDED:
            resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))

    start = time.monotonic()
    result = ferry(*args, preexec_fn=limit)
    assert time.monotonic() - start < SECONDS, result
    return result


def put(name, offset, data):
    with open(path(name), 'r+b') as f:
        f.seek(offset)
        f.write(data)


def get(name, offset, fmt):
    with open(path(name), 'rb') as f:
        f.seek(offset)
        return struct.unpack('>' + fmt, f.read(struct.calcsize('>' + fmt)))


def append(name, data, align=64 * KIB):
    """At the file's end; where that is."""
    at = -(-os.stat(path(name)).st_size // align) * align
    put(name, at, data)
    return at


def add_bitmaps(name, entries):
    """A directory of (name, granularity bits, table offset, entries in the table)."""
    directory = bytearray()
    for text, bits, offset, n in entries:
        entry = struct.pack('>QIIBBHI', offset, n, BITMAP_AUTO, 1, bits, len(text), 0) + text
        directory += entry + bytes(-len(entry) % 8)
    at = append(name, directory, 1 << get(name, 20, 'I')[0])
    length, = get(name, 100, 'I')
    extension = struct.pack('>IIIIQQ', EXT_BITMAPS, 24, len(entries), 0, len(directory), at)
    put(name, length, extension + bytes(8))
    put(name, 88, struct.pack('>Q', AUTOCLEAR_BITMAPS))


def test_long_hole():
    """A small image in a file of half a tebibyte that was not closed: its counts are made anew."""
    must(qemu('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512,lazy_refcounts=on', 'x', '8M'))
    qemu_io('x', 'write -P 7 1M 100k', fmt='qcow2')
    os.truncate(path('x'), 512 * GIB)
    put('x', 72, struct.pack('>Q', DIRTY))
    must(bounded('info', 'x'))
    numbers = as_json(bounded('check', '--output=json', 'x'))
    assert 'leaks' not in numbers and 'corruptions' not in numbers, numbers
    # Whoever opens it to write repairs it.
    result = bounded('bench', '-q', '-w', '-f', 'qcow2', '-c', '1', '-o', '2M', 'x')
    assert result.status == 0, result
    assert get('x', 72, 'Q') == (0,)
    qemu_io('x', 'read -P 7 1M 100k', fmt='qcow2')


def test_references_into_a_hole():
    """Entries that lead to places in the hole, each far from the other."""
    must(qemu('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', 'x', '8M'))
    qemu_io('x', 'write -P 7 0 8M', fmt='qcow2')
    os.truncate(path('x'), 512 * GIB)
    l1, = get('x', 40, 'Q')
    for n in range(256):
        l2 = get('x', l1 + 8 * n, 'Q')[0] & 0x00fffffffffffe00
        put('x', l2, struct.pack('>Q', (1 + n) * GIB))
    result = bounded('check', 'x')
    assert result.status == 2 and '256 errors were found' in result.out, result


def test_shared_bitmap_table():
    """Many bitmaps with one table, each of which says that all is dirty."""
    must(qemu('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', 'x', '1T'))
    # 256 MiB of bitmap for each.
    table = append('x', struct.pack('>Q', 1) * 128, 2 * MIB)
    add_bitmaps('x', [(b'b%d' % n, 9, table, 128) for n in range(1000)])
    fails(bounded('info', 'x'), "ferry-img: Could not open 'x': The bitmaps of 'x' need too much memory: with bitmap "
          "'b3' 1073741856 bytes, at most 1073741824")
    fails(bounded('resize', '-f', 'qcow2', 'x', '2T'), "ferry-img: Could not open 'x': The bitmaps of 'x' need too "
          "much memory: with bitmap 'b3' 1073741856 bytes, at most 1073741824")


def test_many_bitmaps():
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '1M'))
    names = [b'%05d' % n for n in range(65535)]
    add_bitmaps('x', [(name, 16, 0, 0) for name in names])
    # A table is missing for all of them.
    fails(bounded('info', 'x'), "ferry-img: Could not open 'x': Could not load bitmap '00000': Invalid argument")
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '1M'))
    table = append('x', bytes(8))
    add_bitmaps('x', [(name, 16, table, 1) for name in names])
    bitmaps = as_json(bounded('info', '--output=json', 'x'))['format-specific']['data']['bitmaps']
    assert [b['name'].encode() for b in bitmaps] == names
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '1M'))
    add_bitmaps('x', [(name, 16, table, 1) for name in names[:-1] + [b'00000']])
    fails(bounded('info', 'x'), "ferry-img: Could not open 'x': Could not read the bitmaps of the qcow2 image: there "
          "are two bitmaps of the name '00000'")


def test_bitmaps_of_one_table():
    """All are loaded and get a table of their own; what they shared is free then."""
    must(qemu('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', 'x', '1M'))
    table = append('x', bytes(8))
    add_bitmaps('x', [(b'%05d' % n, 16, table, 1) for n in range(2000)])
    result = bounded('check', '-q', '-r', 'all', 'x')
    assert result.status == 0, result
    must(bounded('bench', '-q', '-w', '-f', 'qcow2', '-c', '1', 'x'))
    must(bounded('check', '-q', 'x'))
    must(qemu('check', '-q', 'x'))
    assert len(as_json(bounded('info', '--output=json', 'x'))['format-specific']['data']['bitmaps']) == 2000


def test_bitmaps_that_would_not_fit():
    """What could not be opened again is not made."""
    must(qemu('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', 'x', '1T'))
    for n in range(3):
        must(ferry('bitmap', '--add', '-g', '512', 'x', f'b{n}'))
    fails(ferry('bitmap', '--add', '-g', '512', 'x', 'b3'), "ferry-img: Operation on bitmap 'b3' failed: Bitmap 'b3' "
          "cannot be stored: the qcow2 image has 3 bitmaps of 805306392 bytes already, and may not have more than "
          "65535 of 1073741824 bytes")
    fails(ferry('resize', '-f', 'qcow2', 'x', '1500G'), "ferry-img: The bitmaps of 'x' would need too much memory for "
          "a disk of 1610612736000 bytes: at most 1073741824 bytes")
    must(ferry('check', '-q', 'x'))
    write_file('y', MIB, [])
    assert len(as_json(ferry('info', '--output=json', 'x'))['format-specific']['data']['bitmaps']) == 3


if __name__ == '__main__':
    sys.exit(main([test_long_hole, test_references_into_a_hole, test_shared_bitmap_table, test_many_bitmaps,
                   test_bitmaps_of_one_table, test_bitmaps_that_would_not_fit]))
