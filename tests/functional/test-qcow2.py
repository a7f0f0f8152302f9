#!/usr/bin/env python3
"""qcow2 images beside qemu-img and qemu-io: what one makes the other reads, checks and finds the same.

    test-qcow2.py QCOW2-TOOL [slow | TEST...]

Prints TAP. Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

TOOL = sys.argv[1]
SLOW = 'slow' in sys.argv[2:]
DEADLINE_S = 240
KIB, MIB = 1 << 10, 1 << 20
COPIED = 1 << 63


def run(*argv, status=0, stdin=None):
    p = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=DEADLINE_S)
    if p.returncode != status:
        raise AssertionError(f'{" ".join(argv)}\n{stdin or ""}\nended with {p.returncode}, not {status}:\n'
                             f'{p.stdout}{p.stderr}')
    return p.stdout


def tool(script, image=None, *options):
    """Run a script on an image; its output."""
    return run(TOOL, '-u', *options, *([image] if image else []), stdin=script + '\n')


def tool_fails(script, image, *options):
    """The message with which it fails."""
    p = subprocess.run([TOOL, '-u', *options, image], input=script + '\n', stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert p.returncode == 1, (p.returncode, p.stdout, p.stderr)
    return p.stderr


def create(path, size='16M', *options, backing=None):
    argv = ['qemu-img', 'create', '-q', '-f', 'qcow2']
    for o in options:
        argv += ['-o', o]
    if backing:
        argv += ['-b', backing[0], '-F', backing[1]]
    run(*argv, path, size)
    return path


def io(path, *commands, fmt='qcow2'):
    argv = ['qemu-io', '-t', 'unsafe', '-f', fmt]
    for c in commands:
        argv += ['-c', c]
    out = run(*argv, path)
    assert 'error' not in out.lower() and 'failed' not in out.lower(), out


def check(path):
    run('qemu-img', 'check', '-q', path)


def same(a, b, fmt_b='raw'):
    run('qemu-img', 'compare', '-q', '-f', 'qcow2', '-F', fmt_b, a, b)


def check_numbers(path, *options, fix=''):
    out = tool(f'check {fix}', path, *options)
    return dict((k, int(v)) for k, v in re.findall(r'([a-z-]+)=(-?\d+)', out))


def workload(path, seed, ops=1500, depth=12, options=('-d',)):
    """Random requests, then all comparisons there are."""
    out = path + '.expect'
    tool(f'random {seed} {ops} {depth} {out}', path, *options)
    check(path)
    same(path, out)
    numbers = check_numbers(path, '-r')
    assert numbers['corruptions'] == numbers['leaks'] == numbers['check-errors'] == 0, numbers
    return out


def patch(path, offset, data):
    with open(path, 'r+b') as f:
        f.seek(offset)
        f.write(data)


def peek(path, offset, fmt):
    with open(path, 'rb') as f:
        f.seek(offset)
        return struct.unpack('>' + fmt, f.read(struct.calcsize('>' + fmt)))


def l2_table(path, index=0):
    """Offset of an L2 table."""
    l1, = peek(path, 40, 'Q')
    return peek(path, l1 + 8 * index, 'Q')[0] & 0x00fffffffffffe00


# ---- what qemu-img makes, we read and write ----

OPTIONS = [
    ('compat=0.10',), ('compat=1.1',), ('cluster_size=512',), ('cluster_size=4k',), ('cluster_size=2M',),
    ('refcount_bits=1',), ('refcount_bits=2',), ('refcount_bits=4',), ('refcount_bits=8',), ('refcount_bits=32',),
    ('refcount_bits=64',), ('lazy_refcounts=on',), ('compression_type=zstd',), ('preallocation=metadata',),
    ('preallocation=falloc',), ('preallocation=full',), ('cluster_size=512', 'refcount_bits=64'),
    ('cluster_size=512', 'compat=0.10'), ('cluster_size=1k', 'refcount_bits=1', 'preallocation=metadata'),
    ('extended_l2=on', 'cluster_size=16k'), ('extended_l2=on',), ('extended_l2=on', 'preallocation=metadata'),
    ('extended_l2=on', 'cluster_size=2M', 'compression_type=zstd'),
]


def test_options_of_qemu(d):
    for n, options in enumerate(OPTIONS):
        path = create(f'{d}/q{n}.qcow2', '9M', *options)
        io(path, 'write -P 0x11 0 100k', 'write -P 0x22 3M 1M', 'write -z 3100k 200k')
        tool('read 0 100k 0x11\nread 100k 28k 0\nread 3M 28k 0x22\nread 3100k 200k 0\nread 3300k 700k 0x22',
             path, '-r')
        workload(path, n, ops=500)


def test_options_of_ours(d):
    for n, options in enumerate(OPTIONS):
        path = f'{d}/f{n}.qcow2'
        tool(f'create {path} 9M {",".join(options)}')
        check(path)
        info = json.loads(run('qemu-img', 'info', '--output=json', path))
        assert info['virtual-size'] == 9 * MIB
        data = info['format-specific']['data']
        for o in options:
            key, value = o.split('=')
            if key == 'refcount_bits':
                assert data['refcount-bits'] == int(value), data
            elif key == 'extended_l2':
                assert data['extended-l2'] is True, data
            elif key == 'lazy_refcounts':
                assert data['lazy-refcounts'] is True, data
            elif key == 'compression_type':
                assert data['compression-type'] == value, data
            elif key == 'compat':
                assert data['compat'] == value, data
            elif key == 'preallocation' and value in ('falloc', 'full'):
                assert os.stat(path).st_blocks * 512 >= 9 * MIB, os.stat(path)
        io(path, 'write -P 0x11 0 100k', 'write -P 0x22 3M 1M')
        tool('read 0 100k 0x11\nread 3M 1M 0x22\nread 4M 4M 0', path, '-r')
        check(path)
        workload(path, 100 + n, ops=500)


def test_create_refusals(d):
    def fails(options, text):
        p = subprocess.run([TOOL], input=f'create {d}/no.qcow2 1M {options}\n', stderr=subprocess.PIPE, text=True,
                           timeout=DEADLINE_S)
        assert p.returncode == 1 and text in p.stderr, p.stderr
        assert not os.path.exists(f'{d}/no.qcow2')

    fails('cluster_size=300', 'The cluster size must be a power of two between 512 and 2048k')
    fails('cluster_size=4M', 'The cluster size must be a power of two between 512 and 2048k')
    fails('refcount_bits=3', 'The width of refcounts must be a power of two and not more than 64 bits')
    fails('compat=0.10,lazy_refcounts=on', 'Lazy refcounts need a qcow2 image of version 3')
    fails('compat=0.10,refcount_bits=8', 'Refcounts of another width than 16 bits need')
    fails('compat=0.10,compression_type=zstd', 'Compression types other than zlib need')
    fails('compat=7', "Invalid compatibility level '7'")
    fails('extended_l2=on,cluster_size=8k', 'Extended L2 entries need clusters of at least 16384 bytes')
    fails('extended_l2=on,compat=0.10', 'Extended L2 entries need a qcow2 image of version 3')
    fails('encryption=on', 'option encryption=on: The option is not supported for qcow2 images')
    fails('backing_fmt=raw', 'A backing format cannot be given without a backing file')
    fails('backing_file=x,backing_fmt=raw,preallocation=full', 'cannot be used at the same time')
    p = subprocess.run([TOOL], input=f'create {d}/no.qcow2 64T cluster_size=512\n', stderr=subprocess.PIPE, text=True,
                       timeout=DEADLINE_S)
    assert 'too large for a cluster size of 512 bytes' in p.stderr, p.stderr
    tool(f'create {d}/yes.qcow2 1M extended_l2=off,encryption=off')
    check(f'{d}/yes.qcow2')


def test_odd_sizes(d):
    for n, size in enumerate(('512', '1k', '65537', '1000001', '0')):
        path = create(f'{d}/odd{n}.qcow2', '0')
        if size != '0':
            tool(f'truncate {size}', path)
            tool(f'write 0 {size} 7\nread 0 {size} 7', path)
            tool(f'read 0 {size} 7', path, '-r')
        check(path)
    tool(f'create {d}/empty.qcow2 0')
    check(f'{d}/empty.qcow2')


# ---- backing files ----

def test_backing(d):
    base = create(f'{d}/base.qcow2', '5M')
    io(base, *(f'write -P {i + 1} {i * 300}k 200k' for i in range(16)))
    raw = f'{d}/base.raw'
    run('qemu-img', 'convert', '-O', 'raw', base, raw)
    for n, (size, options) in enumerate((('8M', ()), ('8M', ('cluster_size=512',)), ('3M', ()),
                                         ('8M', ('compat=0.10',)), ('8M', ('cluster_size=2M',)),
                                         ('8M', ('extended_l2=on', 'cluster_size=16k')), ('3M', ('extended_l2=on',)))):
        for backing in ((base, 'qcow2'), (raw, 'raw')):
            path = create(f'{d}/over{n}{backing[1]}.qcow2', size, *options, backing=backing)
            out = f'{d}/expect'
            tool(f'random 1 0 1 {out}', path, '-r')
            same(path, out)
            workload(path, n)
    # The names are relative to the image, wherever the program runs.
    os.mkdir(f'{d}/sub')
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', '../base.qcow2', '-F', 'qcow2', f'{d}/sub/rel.qcow2')
    tool('read 0 200k 1\nread 300k 200k 2', f'{d}/sub/rel.qcow2', '-r')
    tool(f'backing {raw} raw', f'{d}/sub/rel.qcow2')
    assert json.loads(run('qemu-img', 'info', '--output=json', f'{d}/sub/rel.qcow2'))['backing-filename'] == raw
    tool('read 0 200k 1\nread 300k 200k 2', f'{d}/sub/rel.qcow2', '-r')
    check(f'{d}/sub/rel.qcow2')
    tool('read 0 200k 0', f'{d}/sub/rel.qcow2', '-r', '-n')


def test_backing_of_ours(d):
    base = create(f'{d}/base.qcow2', '4M')
    io(base, 'write -P 9 1M 1M')
    tool(f'create {d}/over.qcow2 6M backing_file={base},backing_fmt=qcow2')
    io(f'{d}/over.qcow2', 'read -P 0 0 1M', 'read -P 9 1M 1M', 'read -P 0 2M 4M', 'write -P 3 1500k 10k')
    tool('read 1M 476k 9\nread 1500k 10k 3\nread 1510k 538k 9\nread 2M 4M 0', f'{d}/over.qcow2', '-r')
    workload(f'{d}/over.qcow2', 5)


# ---- compression ----

def test_compressed(d):
    rng = random.Random(1)
    raw = f'{d}/data.raw'
    with open(raw, 'wb') as f:
        for i in range(160):
            kind = i % 4
            f.write(b'\0' * 65536 if kind == 0 else rng.randbytes(65536) if kind == 1
                    else bytes([i]) * 65536 if kind == 2 else rng.randbytes(512) * 128)
    for n, options in enumerate(('compression_type=zlib', 'compression_type=zstd', 'cluster_size=512',
                                 'cluster_size=2M', 'compression_type=zstd,cluster_size=4k', 'compat=0.10',
                                 'refcount_bits=1', 'extended_l2=on', 'extended_l2=on,cluster_size=16k')):
        path = f'{d}/c{n}.qcow2'
        run('qemu-img', 'convert', '-c', '-O', 'qcow2', '-o', options, raw, path)
        out = f'{d}/out.raw'
        tool(f'random 1 0 1 {out}', path, '-r')
        run('cmp', raw, out)
        assert 'compressed' in tool('map', path, '-r')
        workload(path, n, ops=600)


def test_compressing(d):
    for n, options in enumerate(('compression_type=zlib', 'compression_type=zstd', 'cluster_size=512',
                                 'refcount_bits=1', 'compat=0.10', 'extended_l2=on')):
        path = f'{d}/w{n}.qcow2'
        tool(f'create {path} 8M {options}')
        tool('compress 0 4M 0x41\ncompress 4M 4M 0x42\nread 0 4M 0x41\nread 4M 4M 0x42', path)
        check(path)
        io(path, 'read -P 0x41 0 4M', 'read -P 0x42 4M 4M')
        numbers = check_numbers(path, '-r')
        assert numbers['compressed'] == numbers['total'], numbers
        if 'refcount_bits' not in options:
            assert os.stat(path).st_size < MIB, os.stat(path)
        # Written again, compressed or not, and in parts.
        tool('compress 1M 1M 0x43\nwrite 2M 1M 0x44\nwrite 100 5000 0x45\nread 1M 1M 0x43\nread 2M 1M 0x44\n'
             'read 100 5000 0x45\nread 0 100 0x41\nread 5100 40000 0x41', path)
        check(path)
        workload(path, n, ops=600)
    assert 'Invalid argument' in tool_fails('compress 512 512 1', create(f'{d}/x.qcow2', '1M'))


# ---- snapshots ----

def test_snapshots(d):
    for n, options in enumerate(((), ('compat=0.10',), ('cluster_size=4k', 'refcount_bits=8'),
                                 ('compression_type=zstd',), ('cluster_size=512', 'refcount_bits=64'),
                                 ('extended_l2=on', 'cluster_size=16k'))):
        path = create(f'{d}/s{n}.qcow2', '6M', *options)
        io(path, 'write -P 1 0 3M', 'write -c -P 2 3M 64k', 'write -z 4M 64k')
        run('qemu-img', 'snapshot', '-c', 'first', path)
        before = f'{d}/before'
        tool(f'random 1 0 1 {before}', path, '-r')
        assert tool('snapshots', path, '-r') == '1 first\n'
        after = workload(path, n, ops=1000) + '.after'
        os.rename(path + '.expect', after)
        run('qemu-img', 'convert', '-l', 'snapshot.name=first', '-O', 'raw', path, f'{d}/old')
        run('cmp', f'{d}/old', before)
        run('qemu-img', 'snapshot', '-c', 'second', path)
        assert tool('snapshots', path, '-r') == '1 first\n2 second\n'
        workload(path, 50 + n, ops=600)
        run('qemu-img', 'snapshot', '-a', 'second', path)
        same(path, after)
        run('qemu-img', 'snapshot', '-d', 'first', path)
        workload(path, 70 + n, ops=600)
        run('qemu-img', 'snapshot', '-d', 'second', path)
        check(path)
    path = create(f'{d}/old.qcow2', '1M', 'compat=0.10')
    run('qemu-img', 'snapshot', '-c', 's', path)
    snap, = peek(path, 64, 'Q')
    patch(path, snap + 36, struct.pack('>I', 0))
    patch(path, snap + 40, b'1s' + bytes(22))
    assert tool('snapshots', path, '-r') == '1 s\n'
    assert "its snapshot 's' does not say how long the disk was" in tool_fails('truncate 2M', path)


# ---- bitmaps ----

def bitmaps_of(path):
    info = json.loads(run('qemu-img', 'info', '--output=json', path))
    return {b['name']: (b['granularity'], sorted(b['flags']))
            for b in info['format-specific']['data'].get('bitmaps', [])}


def test_bitmaps(d):
    path = create(f'{d}/b.qcow2', '8M')
    run('qemu-img', 'bitmap', '--add', path, 'b0')
    run('qemu-img', 'bitmap', '--add', '-g', '4k', '--disable', path, 'b1')
    io(path, 'write 1M 100k')
    before = tool('bitmaps', path, '-r').split('\n')
    assert before[0] == 'b0 65536 131072' and before[1] == 'b1 4096 0 disabled', before
    tool('write 2M 64k 1\nwrite 3M 1 1\nzero 5M 64k', path)
    check(path)
    assert bitmaps_of(path) == {'b0': (65536, ['auto']), 'b1': (4096, [])}
    assert tool('bitmaps', path, '-r').split('\n')[0] == 'b0 65536 327680'
    # What qemu-img makes of it: merged into one that we read again.
    run('qemu-img', 'bitmap', '--enable', path, 'b1')
    run('qemu-img', 'bitmap', '--merge', 'b0', path, 'b1')
    assert tool('bitmaps', path, '-r').split('\n')[1] == 'b1 4096 327680'
    tool('bitmap-add b2 512\nwrite 0 512 1\nbitmap-remove b0', path)
    check(path)
    assert tool('bitmaps', path, '-r') == 'b1 4096 331776\nb2 512 512\n'
    tool('random 3 300 8', path)
    check(path)
    tool('bitmap-remove b1\nbitmap-remove b2', path)
    check(path)
    assert bitmaps_of(path) == {} and tool('bitmaps', path, '-r') == ''
    # All ones and large: several clusters of bitmap.
    path = create(f'{d}/large.qcow2', '64M', 'cluster_size=4k')
    tool('bitmap-add all 512\nzero 0 64M', path)
    check(path)
    assert tool('bitmaps', path, '-r') == f'all 512 {64 * MIB}\n'
    tool('truncate 80M\nzero 70M 1M', path)
    check(path)
    assert tool('bitmaps', path, '-r') == f'all 512 {65 * MIB}\n' or \
        tool('bitmaps', path, '-r') == f'all 512 {80 * MIB}\n', tool('bitmaps', path, '-r')
    assert 'is of version 2' in tool_fails('bitmap-add x 64k', create(f'{d}/v2.qcow2', '1M', 'compat=0.10'))


def test_bitmaps_after_a_crash(d):
    path = create(f'{d}/b.qcow2', '8M')
    run('qemu-img', 'bitmap', '--add', path, 'b0')
    kill_after(path, 'write 0 64k 1\nflush\nbitmaps', 'b0')
    assert bitmaps_of(path)['b0'][1] == ['auto', 'in-use']
    assert tool('bitmaps', path, '-r') == 'b0 65536 0 disabled inconsistent\n'
    tool('write 1M 64k 1', path)
    assert bitmaps_of(path)['b0'][1] == ['auto', 'in-use']
    check(path)
    tool('bitmap-remove b0', path)
    assert bitmaps_of(path) == {}
    check(path)


def test_moving(d):
    """A switchover: inactive nodes leave everything in the file, and are read anew."""
    path = create(f'{d}/m.qcow2', '8M')
    run('qemu-img', 'bitmap', '--add', path, 'b0')
    tool('write 0 1M 5\ninactivate\nactivate\nread 0 1M 5\nwrite 1M 1M 6\nbitmaps\ninactivate', path)
    check(path)
    assert bitmaps_of(path) == {'b0': (65536, ['auto'])}
    assert tool('bitmaps', path, '-r') == f'b0 65536 {2 * MIB}\n'
    io(path, 'read -P 5 0 1M', 'read -P 6 1M 1M')


# ---- being refused ----

def test_refusals(d):
    def refused(path, text, *options):
        message = tool_fails('read 0 512', path, *options)
        assert text in message, message

    path = create(f'{d}/x.qcow2', '1M', 'extended_l2=on', 'cluster_size=16k')
    patch(path, 20, struct.pack('>I', 13))
    refused(path, 'extended L2 entries with clusters of 8192 bytes, at least 16384 are needed')
    refused(create(f'{d}/e.qcow2', '1M', f'data_file={d}/e.data'), "'external data file'")
    # qemu-img cannot always make one: it measures the processor's speed first, which a busy host keeps it from.
    path = create(f'{d}/l.qcow2', '1M')
    for method, text in ((1, '(AES), which is not supported'), (2, '(LUKS), which is not supported'),
                         (3, 'by an unknown method (3)')):
        patch(path, 32, struct.pack('>I', method))
        refused(path, 'is encrypted ' + text)
    path = create(f'{d}/u.qcow2', '1M')
    patch(path, 72, struct.pack('>Q', 1 << 40))
    refused(path, 'features that are not supported: incompatible feature bit 40')
    # With a name for it in the image.
    data = open(path, 'rb').read(4096)
    at = data.index(struct.pack('>II', 0x6803f857, 8 * 48)) if struct.pack('>II', 0x6803f857, 8 * 48) in data \
        else data.index(struct.pack('>I', 0x6803f857))
    patch(path, at + 8, struct.pack('BB', 0, 40) + b'teleportation'.ljust(46, b'\0'))
    refused(path, "not supported: 'teleportation'")
    path = create(f'{d}/k.qcow2', '1M')
    tool('write 0 64k 3', path)
    patch(path, 72, struct.pack('>Q', 2))
    refused(path, 'is corrupt; it can only be opened for reading, or repaired')
    tool('read 0 64k 3', path, '-r')
    check_numbers(path, '-c', fix='all')
    tool('read 0 64k 3\nwrite 0 64k 4', path)
    check(path)
    path = f'{d}/n.qcow2'
    with open(path, 'wb') as f:
        f.write(b'no image' * 1000)
    refused(path, 'is not a qcow2 image')
    for offset, fmt, value, text in (
            (4, 'I', 4, 'version 4'), (20, 'I', 40, 'clusters of 2^40 bytes'), (24, 'Q', 1 << 62, 'L1 table'),
            (36, 'I', 1 << 30, 'L1 table is too large'), (40, 'Q', 1, 'not a multiple of the cluster size'),
            (40, 'Q', 1 << 60, 'cannot be there'), (48, 'Q', 77, 'not a multiple of the cluster size'),
            (56, 'I', 0, 'the refcount table has 0 clusters'), (56, 'I', 1 << 20, 'the refcount table has'),
            (60, 'I', 1 << 20, 'too many snapshots'), (96, 'I', 7, 'refcounts of 2^7 bits'),
            (100, 'I', 8, 'its length is given as 8'), (104, 'B', 1, 'without its incompatible feature bit'),
            (104, 'B', 9, 'compressed by an unknown method (9)'), (8, 'Q', 1 << 40, ''), (16, 'I', 5000, '')):
        path = create(f'{d}/h.qcow2', '1M')
        patch(path, offset, struct.pack('>' + fmt, value))
        if text:
            refused(path, text, '-r')


# ---- broken images ----

def test_overlaps(d):
    """A broken image that leads a write to metadata: the write fails, the image is marked, nothing is hit."""
    for target in ('header', 'l1', 'reftable', 'refblock', 'l2', 'snapshots'):
        path = create(f'{d}/{target}.qcow2', '4M')
        tool('write 0 64k 1', path)
        if target == 'snapshots':
            run('qemu-img', 'snapshot', '-c', 's', path)
        reftable, l1 = peek(path, 48, 'Q')[0], peek(path, 40, 'Q')[0]
        where = {'header': 0, 'l1': l1, 'reftable': reftable, 'refblock': peek(path, reftable, 'Q')[0],
                 'l2': l2_table(path), 'snapshots': peek(path, 64, 'Q')[0]}[target]
        patch(path, l2_table(path) + 8, struct.pack('>Q', where | COPIED | (1 if not where else 0)))
        if target == 'header':
            # Offset 0 cannot be written as such; as a cluster without refcount it is given away instead.
            patch(path, l2_table(path) + 8, struct.pack('>Q', 0))
            patch(path, peek(path, reftable, 'Q')[0], bytes(2))
        before = open(path, 'rb').read()
        message = tool_fails('write 64k 64k 9', path)
        assert 'would overwrite' in message and 'Input/output error' in message, message
        after = open(path, 'rb').read(len(before))
        assert after[72:80] == struct.pack('>Q', 2), 'the image is marked as corrupt'
        assert before[:72] + before[80:] == after[:72] + after[80:], 'nothing else changed'
        assert 'is corrupt' in tool_fails('write 64k 64k 9', path)


def test_broken_entries(d):
    path = create(f'{d}/u.qcow2', '4M')
    tool('write 0 192k 1', path)
    entry, = peek(path, l2_table(path) + 8, 'Q')
    patch(path, l2_table(path) + 8, struct.pack('>Q', entry | 512))
    tool('read 0 64k 1\nread 128k 64k 1', path, '-r')
    assert 'where no cluster begins' in tool_fails('read 64k 64k', path, '-r')
    numbers = check_numbers(path, '-r')
    assert numbers['corruptions'] == 1 and numbers['leaks'] == 1, numbers
    numbers = check_numbers(path, '-c', fix='all')
    assert numbers['corruptions'] == 0 and numbers['corruptions-fixed'] >= 1, numbers
    check(path)
    tool('read 0 64k 1\nread 64k 64k 0\nread 128k 64k 1', path)
    # Compressed data that is none.
    path = f'{d}/c.qcow2'
    tool(f'create {path} 4M')
    tool('compress 0 64k 1\ncompress 64k 64k 2', path)
    host = peek(path, l2_table(path), 'Q')[0] & ((1 << 54) - 1)
    patch(path, host, b'\xff' * 16)
    assert 'Input/output error' in tool_fails('read 0 64k', path, '-r')
    tool('read 64k 64k 2', path, '-r')
    # An L1 entry that leads nowhere.
    path = create(f'{d}/l.qcow2', '4M')
    tool('write 0 64k 1', path)
    patch(path, peek(path, 40, 'Q')[0], struct.pack('>Q', COPIED | 1 << 50))
    assert 'read: ' in tool_fails('read 0 64k', path, '-r')
    assert check_numbers(path, '-r')['corruptions'] >= 1


def test_broken_subclusters(d):
    for at, bits, words in ((8, 1 << 32 | 1, 'a subcluster that is there and reads as zeroes'),
                            (24, 1, 'subclusters that are nowhere')):
        path = create(f'{d}/s{at}.qcow2', '1M', 'extended_l2=on')
        tool('write 0 64k 1', path)
        patch(path, l2_table(path) + at, struct.pack('>Q', bits))
        p = subprocess.run([TOOL, '-u', '-r', path], input='check\n', stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True, timeout=DEADLINE_S)
        assert words in p.stderr, p.stderr
        numbers = check_numbers(path, '-c', fix='all')
        assert numbers['corruptions'] == 0 and numbers['corruptions-fixed'] >= 1, numbers
        check(path)


def test_subclusters(d):
    """A small write into a large cluster copies no more than a subcluster, and the rest stays the backing file's."""
    base = f'{d}/base.raw'
    with open(base, 'wb') as f:
        f.write(b'\x07' * (8 * MIB))
    path = create(f'{d}/x.qcow2', '8M', 'extended_l2=on', 'cluster_size=2M', backing=(base, 'raw'))
    size = os.stat(path).st_blocks
    tool('write 3M 1k 1\nwrite 4M 64k 2\nwrite 4160k 100 3', path)
    check(path)
    # Two subclusters of 64 KiB and one that is written as a whole, and tables.
    assert (os.stat(path).st_blocks - size) * 512 <= 3 * 64 * KIB + 64 * KIB, os.stat(path)
    extents = json.loads(run('qemu-img', 'map', '--output=json', path))
    ours = [(e['start'], e['length']) for e in extents if e['depth'] == 0]
    assert ours == [(3 * MIB, 64 * KIB), (4 * MIB, 128 * KIB)], extents
    tool('read 0 3M 7\nread 3M 1k 1\nread 3073k 1023k 7\nread 4M 64k 2\nread 4160k 100 3\nread 4224k 3968k 7', path, '-r')
    # Several writers into subclusters of one cluster at a time.
    tool('bench-write 4k 32 8M\nread 0 8M 0x5a', path)
    check(path)


def test_wrong_refcounts(d):
    def block(path):
        return peek(path, peek(path, 48, 'Q')[0], 'Q')[0]

    path = create(f'{d}/r.qcow2', '4M')
    tool('write 0 256k 1', path)
    data = (peek(path, l2_table(path), 'Q')[0] & ~COPIED) >> 16
    patch(path, block(path) + 2 * data, struct.pack('>H', 3))         # too high
    patch(path, block(path) + 2 * 200, struct.pack('>H', 1))          # nobody's
    numbers = check_numbers(path, '-r')
    assert numbers['leaks'] == 2 and numbers['corruptions'] == 1, numbers
    numbers = check_numbers(path, '-c', fix='leaks')
    assert numbers['leaks'] == 0 and numbers['leaks-fixed'] == 2, numbers
    check(path)
    patch(path, block(path) + 2 * (data + 1), struct.pack('>H', 0))   # too low
    numbers = check_numbers(path, '-r')
    assert numbers['corruptions'] == 2 and numbers['leaks'] == 0, numbers
    check_numbers(path, '-c', fix='all')
    check(path)
    tool('read 0 256k 1', path)
    # The whole structure gone: it is made anew.
    for what in ('entry', 'missing', 'table'):
        path = create(f'{d}/{what}.qcow2', '4M', 'cluster_size=4k')
        tool('write 0 2M 1', path)
        run('qemu-img', 'snapshot', '-c', 's', path)
        reftable, = peek(path, 48, 'Q')
        if what == 'table':
            patch(path, reftable, os.urandom(512))
        else:
            patch(path, reftable, struct.pack('>Q', 4096 + 77 if what == 'entry' else 0))
        assert check_numbers(path, '-r')['corruptions'] > 0
        numbers = check_numbers(path, '-c', fix='all')
        assert numbers['corruptions'] == 0 and numbers['leaks'] == 0 and numbers['corruptions-fixed'], numbers
        check(path)
        tool('read 0 2M 1', path)
        workload(path, 1, ops=300)


# ---- other lengths ----

def test_resize(d):
    for n, options in enumerate(((), ('cluster_size=512',), ('compat=0.10',), ('lazy_refcounts=on',))):
        path = create(f'{d}/t{n}.qcow2', '1000k', *options)
        tool('write 0 1000k 7\ntruncate 40M\nread 0 1000k 7\nread 1000k 38M 0\nwrite 39M 1M 8', path)
        check(path)
        io(path, 'read -P 7 0 1000k', 'read -P 8 39M 1M')
        # Shorter, then longer again: what was there does not come back.
        tool('truncate 700001\nread 0 700001 7\ntruncate 50M\nread 0 700001 7\nread 700001 40M 0', path, '-d')
        check(path)
        for mode in ('metadata', 'falloc', 'full'):
            size = 50 + 8 * (('metadata', 'falloc', 'full').index(mode) + 1)
            tool(f'truncate {size}M {mode}\nread 40M 10M 0', path)
            check(path)
        workload(path, n, ops=400)
    # A backing file that is longer does not shine through.
    base = create(f'{d}/base.qcow2', '8M')
    io(base, 'write -P 9 0 8M')
    for size in ('1M', '1000001'):
        path = f'{d}/o{size}.qcow2'
        tool(f'create {path} {size} backing_file={base},backing_fmt=qcow2')
        n = MIB if size == '1M' else int(size)
        tool(f'truncate 6M\nread 0 {n} 9\nread {n} {6 * MIB - n} 0\ntruncate 10M\nread 6M 4M 0', path)
        check(path)


def test_discard(d):
    path = create(f'{d}/d.qcow2', '32M')
    tool('write 0 32M 1\nflush', path)
    full = os.stat(path).st_blocks * 512
    assert full >= 32 * MIB
    tool('discard 0 24M\nflush\nread 0 24M 0\nread 24M 8M 1', path, '-d')
    check(path)
    assert os.stat(path).st_blocks * 512 < full - 20 * MIB, os.stat(path)
    # Space that was freed is used again.
    tool('write 0 24M 2', path)
    check(path)
    assert os.stat(path).st_size < 33 * MIB, os.stat(path)
    tool('discard 0 24M\nread 0 24M 2', path)
    tool('zero 0 8M unmap\nzero 8M 8M', path, '-d')
    check(path)
    tool('read 0 16M 0\nread 16M 8M 2\nread 24M 8M 1', path, '-r')


# ---- crashes ----

def kill_after(path, script, text, *options):
    """Run a script that never ends, kill it when it has printed @text."""
    p = subprocess.Popen([TOOL, '-u', *options, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        p.stdin.write(script + '\n')
        p.stdin.flush()
        for line in p.stdout:
            if text in line:
                break
    finally:
        p.kill()
        p.wait(DEADLINE_S)
        p.stdin.close()
        p.stdout.close()


class Model:
    """What each sector may contain: the version at the last flush, or a later one."""

    def __init__(self, size):
        self.sure = {}
        self.later = {}

    def line(self, text):
        word = text.split()
        if word and word[0] == 'F':
            for s, versions in self.later.items():
                self.sure[s] = versions[-1]
            self.later = {}
        elif len(word) == 4:
            off, n, version = (int(x) for x in word[1:])
            for s in range(off // 512, (off + n) // 512):
                self.later.setdefault(s, []).append(version if word[0] == 'W' else 0)

    def allowed(self, s):
        return [self.sure.get(s, 0), *self.later.get(s, [])]


def verify_crash(raw, model, old):
    bad = []
    with open(raw, 'rb') as f:
        s = 0
        while data := f.read(512):
            if data == bytes(512):
                version = 0
            else:
                number, version = struct.unpack('<QQ', data[:16])
                if number != s or data != data[:16] * 32:
                    bad.append((s, 'torn or foreign', data[:32].hex()))
                    s += 1
                    continue
            allowed = model.allowed(s)
            if version not in allowed and not (version == old and allowed[0] == 0 and s not in model.sure):
                bad.append((s, version, allowed))
            s += 1
    assert not bad, (len(bad), bad[:10])


def crash_once(d, n, options, tool_options=(), backing=False):
    path, size = f'{d}/crash{n}.qcow2', 16 * MIB
    base = None
    if backing:
        base = f'{d}/crash.base'
        if not os.path.exists(base):
            with open(base, 'wb') as f:
                for s in range(size // 512):
                    f.write(struct.pack('<QQ', s, 1 << 40) * 32)
    create(path, str(size), *options, backing=(base, 'raw') if backing else None)
    rng = random.Random(n)
    p = subprocess.Popen([TOOL, '-u', *tool_options, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    lines, wanted = [], rng.randrange(3, 600)
    try:
        p.stdin.write(f'crash {n} 8\n')
        p.stdin.flush()
        for line in p.stdout:
            lines.append(line)
            if len(lines) == wanted:
                p.send_signal(signal.SIGKILL)
        assert len(lines) >= wanted, 'it ended before it was killed'
    finally:
        p.kill()
        p.wait(DEADLINE_S)
        p.stdin.close()
        p.stdout.close()
    model = Model(size)
    for line in lines:
        model.line(line if line.endswith('\n') else '')
    if lines and not lines[-1].endswith('\n'):
        raise AssertionError('a line of the journal was cut off')
    found = subprocess.run(['qemu-img', 'check', path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           timeout=DEADLINE_S)
    if 'lazy_refcounts=on' in options:
        # The dirty bit: counts are made anew by whoever opens it.
        tool('check', path)
        check(path)
    else:
        assert found.returncode in (0, 3), found.stdout      # nothing, or leaks
    raw = path + '.raw'
    run('qemu-img', 'convert', '-O', 'raw', path, raw)
    verify_crash(raw, model, 1 << 40 if backing else 0)
    # And it goes on.
    tool('write 0 1M 1\nflush', path)
    check_numbers(path, '-c', fix='all')
    check(path)
    os.unlink(path)
    os.unlink(raw)


def test_crashes(d):
    kinds = (((), (), False), (('cluster_size=512',), (), False), ((), (), True),
             (('lazy_refcounts=on',), (), False), (('extended_l2=on', 'cluster_size=16k'), (), True),
             (('extended_l2=on',), (), False), (('cluster_size=4k',), ('-d', '-O', 'cache-size=128k'), True))
    for n in range(100 if SLOW else 10):
        options, tool_options, backing = kinds[n % len(kinds)]
        crash_once(d, n, options, tool_options, backing)


def test_lazy_refcounts(d):
    path = create(f'{d}/z.qcow2', '16M', 'lazy_refcounts=on')
    kill_after(path, 'write 0 4M 1\nflush\nmap', '4194304')
    assert peek(path, 72, 'Q')[0] == 1, 'dirty'
    assert json.loads(run('qemu-img', 'info', '--output=json', path)).get('dirty-flag') is True
    tool('read 0 4M 1', path, '-r')
    assert peek(path, 72, 'Q')[0] == 1, 'reading does not change it'
    tool('read 0 4M 1\nwrite 4M 1M 2', path)
    assert peek(path, 72, 'Q')[0] == 0, 'closed'
    check(path)
    path = create(f'{d}/y.qcow2', '16M')
    kill_after(path, 'write 0 4M 1\nflush\nmap', '4194304', '-O', 'lazy-refcounts=on')
    assert peek(path, 72, 'Q')[0] == 1, 'dirty'
    run('qemu-img', 'check', '-q', '-r', 'all', path)
    tool('read 0 4M 1', path)
    check(path)
    assert 'need a qcow2 image of version 3' in \
        tool_fails('flush', create(f'{d}/v.qcow2', '1M', 'compat=0.10'), '-O', 'lazy-refcounts=on')


# ---- caches and tables that must grow ----

def test_small_caches(d):
    for n, options in enumerate(((), ('cluster_size=512',), ('cluster_size=4k', 'refcount_bits=64'))):
        path = create(f'{d}/s{n}.qcow2', '48M', *options)
        workload(path, n, ops=1200, depth=32, options=('-d', '-O', 'l2-cache-size=1', '-O', 'refcount-cache-size=1'))
    assert 'may not exceed cache-size' in tool_fails('flush', path, '-O', 'cache-size=1M', '-O', 'l2-cache-size=2M')


def test_growing_tables(d):
    # 64 counts a block, 64 blocks a cluster of the table: everything has to grow many times.
    path = create(f'{d}/g.qcow2', '64M', 'cluster_size=512', 'refcount_bits=64')
    tool('bench-write 64k 16 64M', path)
    check(path)
    tool('read 0 64M 0x5a\nzero 0 64M unmap\nread 0 64M 0\nbench-write 4k 64 64M\nread 0 64M 0x5a', path, '-d')
    check(path)
    tool('truncate 200M\nwrite 190M 10M 1\nread 190M 10M 1', path)
    check(path)


def main():
    only = ['crashes'] if SLOW else sys.argv[2:]
    tests = [(name[5:], fn) for name, fn in globals().items()
             if name.startswith('test_') and (not only or name[5:] in only)]
    print(f'1..{len(tests)}', flush=True)
    failed = 0
    for n, (name, fn) in enumerate(tests, 1):
        with tempfile.TemporaryDirectory(prefix='ferry-qcow2-') as d:
            start = time.monotonic()
            try:
                fn(d)
                print(f'ok {n} {name}', flush=True)
                print(f'# {time.monotonic() - start:.1f} s', flush=True)
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f'not ok {n} {name}', flush=True)
                for line in traceback.format_exc().splitlines():
                    print(f'# {line}', flush=True)
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
