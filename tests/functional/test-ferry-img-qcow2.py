#!/usr/bin/env python3
"""ferry-img on qcow2 images, beside qemu-img: each reads what the other wrote, and both say the same of it.

    test-ferry-img-qcow2.py FERRY-IMG

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import itertools
import json
import os
import re
import shutil
import signal
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from img_lib import (FERRY_IMG, GIB, KIB, MIB, allocated, as_json, fails, ferry, leftovers, main,  # noqa: E402
                     mixed_file, must, path, qemu, qemu_io, read, run, same, start, write_file)

SIZE = 12 * MIB


def clean_check(image, *args):
    """Both find nothing wrong, and count the same clusters."""
    ours = as_json(ferry('check', '--output=json', *args, image))
    theirs = as_json(qemu('check', '--output=json', *args, image))
    assert 'corruptions' not in ours and 'leaks' not in ours
    # A matter of taste: whether the first cluster of an L2 table continues the last of the one before.
    assert bool(ours.pop('fragmented-clusters', 0)) >= bool(theirs.pop('fragmented-clusters', 0))
    assert ours == theirs, (ours, theirs)
    texts = [re.sub(r'[\d.]+% fragmented', '', must(tool('check', *args, image))) for tool in (ferry, qemu)]
    assert texts[0] == texts[1], texts
    return ours


def chain():
    """base <- middle <- top, each with data of its own; top is longer than the others."""
    mixed_file('base.raw', SIZE)
    must(qemu('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'middle'))
    qemu_io('middle', 'write -P 11 1M 300k', 'write -z 3M 1M', 'write -P 12 5000k 8k', fmt='qcow2')
    must(qemu('create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', 'top', f'{SIZE + MIB}'))
    qemu_io('top', 'write -P 21 1100k 64k', 'write -z 6M 128k', 'write -P 22 3500k 64k', 'write -P 23 12M 4k',
            fmt='qcow2')


def content(image, *args):
    must(qemu('convert', '-O', 'raw', *args, image, 'content'))
    return read('content')


# Making and looking -------------------------------------------------------------------------------


def test_create():
    for options, size in itertools.chain(
            zip(['cluster_size=512', 'cluster_size=2M', 'compat=0.10', 'compat=v3,lazy_refcounts=on', 'refcount_bits=1',
                 'refcount_bits=64', 'compression_type=zstd', 'preallocation=metadata', 'preallocation=falloc',
                 'preallocation=full', 'cluster_size=4k,refcount_bits=8,lazy_refcounts=on'],
                itertools.repeat('10M')),
            zip(itertools.repeat('cluster_size=64k'), ['0', '512', '1G', '1T'])):
        must(ferry('create', '-q', '-f', 'qcow2', '-o', options, 'ours', size))
        must(qemu('create', '-q', '-f', 'qcow2', '-o', options, 'theirs', size))
        same('ours', 'theirs')
        clean_check('ours')
        ours = as_json(qemu('info', '--output=json', 'ours'))
        theirs = as_json(qemu('info', '--output=json', 'theirs'))
        for info in (ours, theirs):
            info.pop('filename')
            info.pop('actual-size')
        assert ours == theirs, (options, ours, theirs)


def test_create_messages():
    out = must(ferry('create', '-f', 'qcow2', 'x', '10M'))
    assert out.startswith("Formatting 'x', fmt=qcow2 size=10485760 cluster_size=65536 "), out
    out = must(ferry('create', '-f', 'qcow2', '-b', 'x', '-F', 'qcow2', 'y'))
    assert 'size=10485760 ' in out and 'backing_file=x backing_fmt=qcow2' in out, out
    assert as_json(qemu('info', '--output=json', 'y')).items() >= {
        'backing-filename': 'x', 'backing-filename-format': 'qcow2', 'virtual-size': 10 * MIB}.items()
    must(ferry('create', '-q', '-f', 'qcow2', '-o', 'backing_file=x,backing_fmt=qcow2', 'y'))
    assert as_json(qemu('info', '--output=json', 'y'))['backing-filename'] == 'x'
    must(ferry('create', '-q', '-f', 'qcow2', '-u', '-b', 'absent', '-F', 'raw', 'y', '1M'))
    out = must(ferry('create', '-f', 'qcow2', '-o', 'help', 'z'))
    assert out.startswith('Supported qcow2 options:\n') and re.search(r'^  cluster_size=<str> +- ', out, re.M), out
    for args, message in (
            (['-b', 'x', 'z'], 'z: Backing file specified without backing format\nGive it with -F.'),
            (['-b', 'absent', '-F', 'raw', 'z', '1M'],
             "z: Could not open 'absent': No such file or directory\nCould not open backing image."),
            (['-b', 'x', '-F', 'odd', 'z'], "z: Unknown backing file format 'odd'"),
            (['-u', '-b', 'x', '-F', 'raw', 'z'], 'z: Image creation needs a size parameter'),
            (['-o', 'cluster_size=3k', 'z', '1M'], None),
            (['-o', 'compat=v4', 'z', '1M'], None)):
        result = ferry('create', '-f', 'qcow2', '-q', *args)
        if message:
            fails(result, 'ferry-img: ' + message)
        assert result.status == 1 and result.out == '' and not os.path.exists(path('z')), result
    # What cannot be made leaves what is there.
    before = read('x')
    fails(ferry('create', '-q', '-f', 'qcow2', 'x', '7E'), "ferry-img: x: Could not create 'x': The image is too large "
          "for a cluster size of 65536 bytes (2251799813685248 bytes at most)")
    assert read('x') == before


def test_create_elsewhere():
    """A relative backing file is looked for beside the image."""
    os.mkdir(path('sub'))
    write_file('sub/base', MIB, [(0, MIB, 5)])
    must(ferry('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'sub/y'))
    assert content('sub/y') == bytes([5]) * MIB
    must(ferry('convert', '-f', 'qcow2', '-O', 'qcow2', '-B', 'base', '-F', 'raw', 'sub/y', 'sub/z'))
    assert content('sub/z') == bytes([5]) * MIB


def test_info():
    chain()
    for image in ('middle', 'top'):
        ours, theirs = (as_json(r) for r in (ferry('info', '--output=json', image), qemu('info', '--output=json', image)))
        assert ours == theirs, (ours, theirs)
        ours, theirs = must(ferry('info', image)), must(qemu('info', image))
        for line in theirs.splitlines():
            assert line in ours.splitlines(), (line, ours)
    ours = as_json(ferry('info', '--output=json', '--backing-chain', 'top'))
    assert [i['filename'] for i in ours] == ['top', 'middle', 'base.raw']
    assert must(ferry('info', '--backing-chain', 'top')).count('\n\nimage: ') == 2
    # It tells about an image whose backing file is gone.
    os.unlink(path('middle'))
    assert as_json(ferry('info', '--output=json', 'top'))['full-backing-filename'] == 'middle'
    assert ferry('info', '--backing-chain', 'top').status == 1


def plain_map(extents):
    """Without what one may know and another not: that data in a file is a hole. Neighbours are put together."""
    result = []
    for e in extents:
        e = {key: value for key, value in e.items() if key != 'compressed'}
        if e['data']:
            e['zero'] = False
        last = result[-1] if result else None
        alike = last and all(last.get(key) == e.get(key) for key in ('depth', 'present', 'zero', 'data'))
        if alike and ('offset' in last) == ('offset' in e) and \
                last.get('offset', 0) + (last['length'] if 'offset' in e else 0) == e.get('offset', 0):
            last['length'] += e['length']
        else:
            result.append(e)
    return result


def test_map():
    chain()
    must(qemu('convert', '-c', '-f', 'raw', '-O', 'qcow2', 'base.raw', 'packed'))
    for image in ('middle', 'top', 'packed'):
        ours, theirs = (as_json(r) for r in (ferry('map', '--output=json', image), qemu('map', '--output=json', image)))
        assert any(e['compressed'] for e in ours) == (image == 'packed')
        assert plain_map(ours) == plain_map(theirs), (image, ours, theirs)
    must(qemu('convert', '-S', '0', '-O', 'qcow2', 'top', 'flat'))
    assert must(ferry('map', 'flat')) == must(qemu('map', 'flat'))
    fails(ferry('map', 'packed'), 'ferry-img: File contains external, encrypted or compressed clusters.')


def test_measure():
    mixed_file('x', SIZE)
    chain()
    must(qemu('create', '-q', '-f', 'qcow2', 'maps', '1G'))
    for name, granularity in (('one', '64k'), ('another-one', '1M')):
        must(qemu('bitmap', '--add', '-g', granularity, 'maps', name))
    for options in ([], ['-o', 'cluster_size=512'], ['-o', 'cluster_size=2M'], ['-o', 'refcount_bits=1'],
                    ['-o', 'refcount_bits=64,cluster_size=4k'], ['-o', 'preallocation=full'],
                    ['-o', 'preallocation=metadata'], ['-o', 'compat=0.10'], ['-o', 'extended_l2=on']):
        for source in (['--size', '0'], ['--size', '1'], ['--size', '1G'], ['--size', '70000000000'], ['x'], ['maps']):
            for form in ([], ['--output=json']):
                args = ['measure', *form, '-O', 'qcow2', *options, *source]
                ours, theirs = ferry(*args), qemu(*args)
                if form:
                    assert as_json(ours) == as_json(theirs), (args, ours, theirs)
                else:
                    assert must(ours) == must(theirs), (args, ours, theirs)
    # Zeroes in data clusters that the file below knows of are not counted.
    for image in ('middle', 'top'):
        ours, theirs = (as_json(tool('measure', '--output=json', '-O', 'qcow2', image)) for tool in (ferry, qemu))
        assert ours['required'] <= theirs['required'] and ours['fully-allocated'] == theirs['fully-allocated']
    fails(ferry('measure', '-O', 'qcow2', '-o', 'cluster_size=512', '--size', '8T'),
          'ferry-img: The image size is too large (try using a larger cluster size)')
    for text in ('cluster_size=1000', 'refcount_bits=3', 'cluster_size=4M'):
        assert ferry('measure', '-O', 'qcow2', '-o', text, '--size', '1G').status == 1
    # What it says is enough.
    need = as_json(ferry('measure', '--output=json', '-O', 'qcow2', 'x'))['required']
    must(ferry('convert', '-f', 'raw', '-O', 'qcow2', 'x', 'y'))
    assert os.path.getsize(path('y')) <= need


# Copying ------------------------------------------------------------------------------------------


def test_convert_formats():
    mixed_file('x', SIZE)
    for options in ('cluster_size=64k', 'cluster_size=512', 'cluster_size=2M', 'compat=0.10', 'preallocation=metadata',
                    'preallocation=full', 'lazy_refcounts=on'):
        for args in ([], ['-W', '-m', '16'], ['-t', 'none', '-T', 'none'])[:3 if options.endswith('64k') else 1]:
            must(ferry('convert', '-f', 'raw', '-O', 'qcow2', '-o', options, *args, 'x', 'y'))
            same('x', 'y')
            clean_check('y')
            must(ferry('convert', '-f', 'qcow2', '-O', 'raw', *args, 'y', 'z'))
            assert read('x') == read('z'), (options, args)
    must(ferry('convert', '-f', 'raw', '-O', 'qcow2', 'x', 'y'))
    must(qemu('convert', '-f', 'raw', '-O', 'qcow2', 'x', 'theirs'))
    # What is zero takes no clusters: not more than qemu-img makes.
    ours, theirs = (as_json(qemu('check', '--output=json', name)) for name in ('y', 'theirs'))
    assert ours['allocated-clusters'] <= theirs['allocated-clusters'], (ours, theirs)
    assert ours.get('fragmented-clusters', 0) <= ours['allocated-clusters'] // 4, ours
    must(qemu('convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', 'x', 'theirs'))
    must(ferry('convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', 'x', 'y'))
    assert as_json(ferry('check', '--output=json', 'y'))['allocated-clusters'] == SIZE // (64 * KIB)


def test_convert_compressed():
    rng_part = [(MIB * i, MIB // 2, 'random' if i % 3 == 0 else i) for i in range(12)]
    write_file('x', SIZE + 5000, rng_part)
    for options in ('compression_type=zlib', 'compression_type=zstd', 'compression_type=zlib,cluster_size=4k',
                    'compression_type=zstd,cluster_size=2M'):
        must(ferry('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, 'x', 'y'))
        assert must(qemu('compare', 'x', 'y')) in ('Images are identical.\n',
                                                   'Warning: Image size mismatch!\nImages are identical.\n')
        check = clean_check('y')
        assert check['compressed-clusters'] > 0
        must(ferry('convert', '-f', 'qcow2', '-O', 'raw', 'y', 'z'))
        assert read('z').rstrip(b'\0') == read('x').rstrip(b'\0')
        must(qemu('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, 'x', 'theirs'))
        same('y', 'theirs')
        assert check['image-end-offset'] <= clean_check('theirs')['image-end-offset'] * 1.02


def test_convert_chain():
    chain()
    whole = content('top')
    must(ferry('convert', '-f', 'qcow2', '-O', 'qcow2', 'top', 'flat'))
    same('top', 'flat')
    must(ferry('convert', '-f', 'qcow2', '-O', 'raw', 'top', 'flat.raw'))
    assert read('flat.raw') == whole
    for extra in ([], ['-c'], ['-W']):
        must(ferry('convert', *extra, '-f', 'qcow2', '-O', 'qcow2', '-B', 'middle', '-F', 'qcow2', 'top', 'over'))
        assert as_json(qemu('info', '--output=json', 'over'))['backing-filename'] == 'middle'
        same('top', 'over')
        clean_check('over')
        own = [e for e in as_json(qemu('map', '--output=json', 'over')) if e['depth'] == 0 and e['data']]
        assert sum(e['length'] for e in own) <= 512 * KIB, own
    fails(ferry('convert', '-O', 'qcow2', '-B', 'middle', '-F', 'qcow2', 'top', 'middle', 'over'),
          'ferry-img: Having a backing file for the target makes no sense when concatenating multiple input images')
    fails(ferry('convert', '-n', '--target-is-zero', '-O', 'qcow2', 'flat.raw', 'over'),
          'ferry-img: Cannot use --target-is-zero when the destination image has a backing file')


def test_convert_existing():
    mixed_file('x', SIZE)
    must(qemu('create', '-q', '-f', 'qcow2', 'y', str(SIZE)))
    qemu_io('y', f'write -P 9 0 {SIZE}', fmt='qcow2')
    must(ferry('convert', '-n', '-f', 'raw', '-O', 'qcow2', 'x', 'y'))
    same('x', 'y')
    clean_check('y')


def test_convert_bitmaps():
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '10M'))
    for name in ('on', 'off'):
        must(qemu('bitmap', '--add', 'x', name))
    qemu_io('x', 'write 1M 1M', fmt='qcow2')
    must(qemu('bitmap', '--disable', 'x', 'off'))
    qemu_io('x', 'write 5M 64k', fmt='qcow2')
    must(ferry('convert', '--bitmaps', '-f', 'qcow2', '-O', 'qcow2', 'x', 'y'))
    ours, theirs = (as_json(qemu('info', '--output=json', name))['format-specific']['data']['bitmaps']
                    for name in ('y', 'x'))
    key = lambda bitmap: bitmap['name']     # noqa: E731
    assert sorted(ours, key=key) == sorted(theirs, key=key)
    for bitmap in ('on', 'off'):
        # A merge into a bitmap that is empty shows what is in it.
        assert dirty('x', bitmap) == dirty('y', bitmap) != [], bitmap


def dirty(image, bitmap):
    """The dirty ranges, as qemu-nbd exports them."""
    listing = run('sh', '-c', f'nbdinfo --json --map=qemu:dirty-bitmap:{bitmap} -- '
                  f'[ qemu-nbd -r -f qcow2 -B {bitmap} {image} ]')
    if listing.status != 0:
        raise AssertionError(listing)
    return [(e['offset'], e['length']) for e in as_json(listing) if e['type']]


# Changing -----------------------------------------------------------------------------------------


def test_compare():
    chain()
    must(qemu('convert', '-O', 'qcow2', 'top', 'flat'))
    same('top', 'flat')
    qemu_io('flat', 'write -P 99 7M 1', fmt='qcow2')
    for pair in (('top', 'flat'), ('flat', 'top')):
        ours, theirs = ferry('compare', *pair), qemu('compare', *pair)
        assert (ours.status, ours.out) == (theirs.status, theirs.out), (ours, theirs)
    must(qemu('create', '-q', '-f', 'qcow2', 'a', '10M'))
    must(qemu('create', '-q', '-f', 'qcow2', 'b', '10M'))
    qemu_io('b', 'write -z 1M 1M', fmt='qcow2')
    assert must(ferry('compare', 'a', 'b')) == 'Images are identical.\n'
    assert must(ferry('compare', '-s', 'a', 'b'), 1) == f'Strict mode: Offset {MIB} block status mismatch!\n'
    assert qemu('compare', '-s', 'a', 'b').status == 1


def test_check():
    for compat in ('0.10', '1.1'):
        must(qemu('create', '-q', '-f', 'qcow2', '-o', f'compat={compat}', 'x', '10M'))
        qemu_io('x', 'write -P 1 0 3M', fmt='qcow2')
        clean_check('x')
        # A leak: nobody refers to the last cluster but its count says so; then a count that is too low.
        with open(path('x'), 'r+b') as f:
            f.seek(48)
            table = int.from_bytes(f.read(8), 'big')
            f.seek(table)
            block = int.from_bytes(f.read(8), 'big')
            f.seek(block + 2 * 100)
            f.write((1).to_bytes(2, 'big'))
            f.truncate(101 * 64 * KIB)
        shutil.copy(path('x'), path('leaks'))
        with open(path('x'), 'r+b') as f:
            f.seek(block + 2 * 10)
            f.write((0).to_bytes(2, 'big'))
        for image, status, counts in (('leaks', 3, {'leaks': 1}), ('x', 2, {'leaks': 1, 'corruptions': 2})):
            ours, theirs = ferry('check', '--output=json', image), qemu('check', '--output=json', image)
            assert ours.status == theirs.status == status, (ours, theirs)
            assert {key: json.loads(ours.out).get(key) for key in counts} == \
                {key: json.loads(theirs.out).get(key) for key in counts} == counts, (ours, theirs)
        out = must(ferry('check', 'leaks'), 3)
        assert out.startswith('\n1 leaked clusters were found on the image.\n'
                              'This means waste of disk space, but no harm to data.\n48/160 = 30.00% allocated, '), out
        assert out.splitlines()[:3] == qemu('check', 'leaks').out.splitlines()[:3]
        shutil.copy(path('leaks'), path('theirs'))
        ours, theirs = ferry('check', '-r', 'leaks', 'leaks'), qemu('check', '-r', 'leaks', 'theirs')
        assert ours.status == theirs.status == 0, (ours, theirs)
        assert ours.out.splitlines()[:-1] == theirs.out.splitlines()[:-1], (ours, theirs)
        assert '    1 leaked clusters\n    0 corruptions\n' in ours.out, ours
        clean_check('leaks')
        assert ferry('check', '-r', 'leaks', 'x').status == 2
        assert ferry('check', '-r', 'all', 'x').status == 0
        clean_check('x')
        qemu_io('x', 'read -P 1 0 3M', fmt='qcow2')


def test_resize():
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '10M'))
    qemu_io('x', 'write -P 1 0 10M', fmt='qcow2')
    for args, size in ((['x', '20M'], 20 * MIB), (['x', '+1G'], GIB + 20 * MIB), (['--shrink', 'x', '5M'], 5 * MIB),
                       (['--preallocation=metadata', 'x', '12M'], 12 * MIB), (['--preallocation=full', 'x', '+1M'], 13 * MIB)):
        assert must(ferry('resize', '-f', 'qcow2', *args)) == 'Image resized.\n'
        assert as_json(qemu('info', '--output=json', 'x'))['virtual-size'] == size
        clean_check('x')
    qemu_io('x', 'read -P 1 0 5M', 'read -P 0 5M 8M', fmt='qcow2')
    # What is added is zero, although the backing file has something there.
    write_file('base', 10 * MIB, [(0, 10 * MIB, 3)])
    must(qemu('create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'y', '5M'))
    must(ferry('resize', '-q', '-f', 'qcow2', 'y', '10M'))
    qemu_io('y', 'read -P 3 0 5M', 'read -P 0 5M 5M', fmt='qcow2')
    clean_check('y')


def test_rebase():
    chain()
    whole = content('top')
    # Down the own chain, over what is between; to something else; to nothing.
    must(ferry('rebase', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'top'))
    assert as_json(qemu('info', '--output=json', 'top'))['backing-filename'] == 'base.raw'
    assert content('top') == whole
    clean_check('top')
    own = sum(e['length'] for e in as_json(qemu('map', '--output=json', 'top')) if e['depth'] == 0 and e['data'])
    assert own <= 2 * MIB, own
    mixed_file('other.raw', 14 * MIB, seed=9)
    out = must(ferry('rebase', '-p', '-f', 'qcow2', '-b', 'other.raw', '-F', 'raw', 'top'))
    assert out.endswith('(100.00/100%)\r\n'), out
    assert content('top') == whole
    must(ferry('rebase', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'top'))
    must(ferry('rebase', '-f', 'qcow2', '-b', '', 'top'))
    assert 'backing-filename' not in as_json(qemu('info', '--output=json', 'top'))
    assert content('top') == whole
    clean_check('top')
    # Onto what is shorter, and an image that had no backing file onto one.
    write_file('short', MIB, [(0, MIB, 4)])
    must(qemu('create', '-q', '-f', 'qcow2', 'lone', '3M'))
    must(ferry('rebase', '-f', 'qcow2', '-b', 'short', '-F', 'raw', 'lone'))
    assert content('lone') == bytes(3 * MIB)


def test_rebase_unsafe():
    chain()
    os.rename(path('middle'), path('moved'))
    must(ferry('rebase', '-u', '-f', 'qcow2', '-b', 'moved', '-F', 'qcow2', 'top'))
    info = as_json(qemu('info', '--output=json', 'top'))
    assert (info['backing-filename'], info['backing-filename-format']) == ('moved', 'qcow2')
    must(qemu('compare', 'top', 'top'))
    must(ferry('rebase', '-u', '-f', 'qcow2', 'top'))
    assert 'backing-filename' not in as_json(qemu('info', '--output=json', 'top'))
    result = ferry('rebase', '-f', 'qcow2', '-b', 'absent', '-F', 'raw', 'top')
    fails(result, "ferry-img: Could not open new backing file 'absent': Could not open 'absent': No such file or directory")
    result = ferry('rebase', '-u', '-f', 'qcow2', '-b', 'x' * 2000, '-F', 'raw', 'top')
    assert result.status == 1 and 'Could not change the backing file' in result.err, result


def test_no_guess():
    """The format of a backing file that the image does not tell is not guessed."""
    must(qemu('create', '-q', '-f', 'qcow2', 'base', '1M'))
    must(qemu('create', '-q', '-f', 'qcow2', '-u', '-b', 'base', '-F', 'qcow2', 'x', '1M'))
    must(qemu('rebase', '-u', '-b', '', 'x'))
    with open(path('x'), 'r+b') as f:
        # By hand, as no tool makes such an image any more.
        f.seek(1024)
        f.write(b'base')
        f.seek(8)
        f.write((1024).to_bytes(8, 'big') + (4).to_bytes(4, 'big'))
    result = ferry('convert', '-f', 'qcow2', 'x', 'y')
    assert result.status == 1 and 'Ferry does not guess' in result.err, result
    must(ferry('rebase', '-u', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', 'x'))
    must(ferry('convert', '-f', 'qcow2', 'x', 'y'))


def test_commit():
    chain()
    whole = content('top')
    shutil.copy(path('middle'), path('middle.old'))
    assert must(ferry('commit', '-f', 'qcow2', 'top')) == 'Image committed.\n'
    assert content('middle') == whole and content('top') == whole
    clean_check('top')
    clean_check('middle')
    assert not [e for e in as_json(qemu('map', '--output=json', 'top')) if e['depth'] == 0 and e['data']]
    fails(ferry('commit', '-f', 'raw', 'base.raw'), 'ferry-img: Image does not have a backing file')
    fails(ferry('commit', '-b', 'absent', 'top'), "ferry-img: Did not find 'absent' in the backing chain of 'top'")


def test_commit_through():
    chain()
    whole = content('top')
    before = read('top')
    out = must(ferry('commit', '-p', '-f', 'qcow2', '-b', 'base.raw', 'top'))
    assert out.endswith('(100.00/100%)\r\nImage committed.\n'), out
    assert read('base.raw') == whole and read('top') == before
    chain()
    assert must(ferry('commit', '-q', '-d', '-r', '100M', '-f', 'qcow2', 'top')) == ''
    assert content('middle') == whole and read('top') == before


def test_bitmap():
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '10M'))

    def bitmaps(image='x'):
        return {b['name']: (b['granularity'], b['flags']) for b in
                as_json(qemu('info', '--output=json', image))['format-specific']['data'].get('bitmaps', [])}

    must(ferry('bitmap', '--add', 'x', 'a'))
    must(ferry('bitmap', '--add', '-g', '32k', '--disable', 'x', 'b'))
    assert bitmaps() == {'a': (65536, ['auto']), 'b': (32768, [])}
    qemu_io('x', 'write 1M 64k', fmt='qcow2')
    must(ferry('bitmap', '--enable', 'x', 'b'))
    must(ferry('bitmap', '--disable', 'x', 'a'))
    qemu_io('x', 'write 3M 64k', fmt='qcow2')
    assert dirty('x', 'a') == [(MIB, 65536)] and dirty('x', 'b') == [(3 * MIB, 65536)]
    must(ferry('bitmap', '--merge', 'a', '--merge=a', 'x', 'b'))
    assert dirty('x', 'b') == [(MIB, 65536), (3 * MIB, 65536)]
    must(qemu('create', '-q', '-f', 'qcow2', 'y', '10M'))
    must(ferry('bitmap', '--add', '--merge', 'b', '-b', 'x', '-F', 'qcow2', '-f', 'qcow2', 'y', 'c'))
    assert dirty('y', 'c') == dirty('x', 'b')
    must(ferry('bitmap', '--clear', 'x', 'b'))
    assert dirty('x', 'b') == []
    must(ferry('bitmap', '--remove', 'x', 'a'))
    assert list(bitmaps()) == ['b']
    clean_check('x')
    for args, message in (
            (['--add', 'x', 'b'], None), (['--remove', 'x', 'a'], None), (['--merge', 'no', 'x', 'b'], None),
            (['--add', '-g', '1000', 'x', 'd'], None)):
        result = ferry('bitmap', *args)
        assert result.status == 1 and f"Operation on bitmap '{args[-1]}' failed: " in result.err, (message, result)
    assert list(bitmaps()) == ['b']


def snapshots(tool):
    """Number, name, size and date of each; the columns of the table differ between versions of qemu-img."""
    return [line.split()[:6] for line in must(tool('snapshot', '-l', 'x')).splitlines()[2:]]


def test_backing_loop():
    """A chain that comes back to itself has no end, and is said to have none."""
    must(qemu('create', '-q', '-f', 'qcow2', 'self', '1M'))
    must(qemu('create', '-q', '-f', 'qcow2', '-b', 'self', '-F', 'qcow2', 'middle'))
    must(qemu('create', '-q', '-f', 'qcow2', '-b', 'middle', '-F', 'qcow2', 'top'))
    must(qemu('rebase', '-u', '-b', 'middle', '-F', 'qcow2', 'self'))
    for args in (['info', '--backing-chain', 'top'], ['map', 'top'], ['convert', 'top', 'copy']):
        result = ferry(*args)
        assert result.status == 1 and "'middle' is in its own chain of backing files" in result.err, result
    must(ferry('info', 'self'))
    must(ferry('rebase', '-u', '-b', '', 'self'))
    must(ferry('map', 'top'))


def test_snapshots():
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '10M'))
    assert must(ferry('snapshot', '-l', 'x')) == ''
    for name in ('first', 'second'):
        must(qemu('snapshot', '-c', name, 'x'))
        qemu_io('x', 'write -P 3 0 1M', fmt='qcow2')
    assert snapshots(ferry) == snapshots(qemu)
    assert must(ferry('snapshot', 'x')) == must(ferry('snapshot', '-l', 'x'))
    # They stay, whatever is done to the image.
    must(ferry('resize', '-q', '-f', 'qcow2', 'x', '20M'))
    must(ferry('bench', '-q', '-w', '-f', 'qcow2', '-c', '100', 'x'))
    assert snapshots(ferry) == snapshots(qemu) != []
    clean_check('x')
    must(qemu('snapshot', '-a', 'first', 'x'))
    assert content('x') == bytes(10 * MIB)


def test_read_snapshots():
    """What -l reads is what qemu-img reads; the image does not change by it."""
    chain()
    for n, options in enumerate((['-b', 'middle', '-F', 'qcow2'], ['-o', 'cluster_size=512,compat=0.10'],
                                 ['-o', 'cluster_size=4k,compression_type=zstd'])):
        name = f's{n}'
        must(qemu('create', '-q', '-f', 'qcow2', *options, name, str(SIZE)))
        qemu_io(name, 'write -P 1 0 3M', 'write -c -P 2 4M 64k', 'write -z 5M 64k', fmt='qcow2')
        must(qemu('snapshot', '-c', 'first', name))
        must(ferry('resize', '-q', '-f', 'qcow2', name, '20M'))
        qemu_io(name, 'write -P 3 1M 4M', 'write -P 4 15M 1M', fmt='qcow2')
        if n != 1:
            must(qemu('bitmap', '--add', name, 'b'))
        must(qemu('snapshot', '-c', 'second', name))
        must(qemu('snapshot', '-c', '1', name))
        qemu_io(name, 'write -z 0 20M', fmt='qcow2')
        before = read(name)
        for which, theirs in (('first', 'first'), ('snapshot.name=second', 'second'), ('1', '1'), ('2', '2'),
                              ('snapshot.id=3', '3'), ('snapshot.name=1', 'snapshot.name=1'),
                              ('snapshot.id=1,snapshot.name=first', 'first')):
            must(ferry('convert', '-f', 'qcow2', '-l', which, name, 'ours'))
            must(qemu('convert', '-f', 'qcow2', '-l', theirs, name, 'theirs'))
            # qemu-img takes a snapshot for as long as the disk is now: ours is as long as it was then.
            assert read('theirs').startswith(read('ours'))
            assert len(read('ours')) == (SIZE if which in ('first', '1', 'snapshot.id=1,snapshot.name=first')
                                         else 20 * MIB), which
            if which != 'first':
                continue
            numbers = as_json(ferry('measure', '--output=json', '-l', which, '-O', 'qcow2', name))
            assert numbers['required'] == as_json(qemu('measure', '--output=json', '-l', theirs, '-O', 'qcow2',
                                                       name))['required']
        assert read(name) == before
    prefix = "ferry-img: Could not load snapshot '%s' of 's0': "
    for which, message in (('third', 'there is no snapshot of the name third'),
                           ('snapshot.id=9', 'there is no snapshot with id 9'),
                           ('snapshot.id=1,snapshot.name=second', 'there is no snapshot with id 1 of the name second'),
                           ('snapshot.x=1', 'only snapshot.id= and snapshot.name= can be given'),
                           ('snapshot.id=1,y=2', 'only snapshot.id= and snapshot.name= can be given')):
        fails(ferry('convert', '-l', which, 's0', 'new'), prefix % which + message)
        assert not os.path.exists(path('new'))
    fails(ferry('convert', '-f', 'raw', '-l', 'x', 'base.raw', 'new'),
          "ferry-img: Could not load snapshot 'x' of 'base.raw': images of format 'raw' have no internal snapshots")
    fails(ferry('convert', '-l', 'x', 's0', 's1', 'new'), 'ferry-img: No support for concatenating multiple snapshot')
    # A table that is too short for the disk.
    with open(path('s0'), 'r+b') as f:
        f.seek(64)
        table, = struct.unpack('>Q', f.read(8))
        f.seek(table + 8)
        f.write(struct.pack('>I', 0))
    fails(ferry('convert', '-l', 'first', 's0', 'new'), prefix % 'first' +
          f'its L1 table of 0 entries is too small for a disk of {SIZE} bytes')


def test_bench():
    must(qemu('create', '-q', '-f', 'qcow2', 'x', '64M'))
    must(ferry('bench', '-f', 'qcow2', '-w', '-c', '1000', '-d', '32', '--pattern', '5', '--flush-interval', '100', 'x'))
    qemu_io('x', 'read -P 5 0 4096000', fmt='qcow2')
    clean_check('x')


def test_dd():
    mixed_file('x', SIZE)
    must(qemu('convert', '-O', 'qcow2', 'x', 'y'))
    must(ferry('dd', '-f', 'qcow2', '-O', 'qcow2', 'bs=1M', 'skip=2', 'count=5', 'if=y', 'of=z'))
    assert content('z') == read('x', 2 * MIB, 5 * MIB)


# Interruptions ------------------------------------------------------------------------------------


def test_interrupted():
    chain()
    whole = content('top')
    before = read('middle')
    mixed_file('other.raw', SIZE, seed=4)
    for args in (['commit', '-r', '64k', '-f', 'qcow2', 'top'], ['convert', '-r', '64k', '-O', 'qcow2', 'top', 'new']):
        process = start(FERRY_IMG, *args, '-p')
        assert process.stdout.read(4)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT, (out, err)
        assert b'interrupted' in err, err
    assert not os.path.exists(path('new')) and leftovers() == []
    assert content('top') == whole
    clean_check('top')
    clean_check('middle')
    must(ferry('commit', '-f', 'qcow2', 'top'))
    assert content('middle') == whole and read('middle') != before


def test_broken():
    """Images that are none, or are damaged, are refused by every command."""
    for name, data in (('short', b'QFI\xfb'), ('odd', b'QFI\xfb' + b'\xff' * 2000), ('zero', b'QFI\xfb' + bytes(2000))):
        with open(path(name), 'wb') as f:
            f.write(data)
        for command in (['info'], ['check'], ['map'], ['convert', '-O', 'raw'], ['resize'], ['commit'], ['measure'],
                        ['rebase', '-b', ''], ['bench']):
            extra = ['y'] if command[0] == 'convert' else ['1G'] if command[0] == 'resize' else []
            result = ferry(*command, '-f', 'qcow2', name, *extra)
            assert result.status == 1 and f"ferry-img: Could not open '{name}': " in result.err, result


if __name__ == '__main__':
    sys.exit(main([test_create, test_create_messages, test_create_elsewhere, test_info, test_map, test_measure,
                   test_convert_formats, test_convert_compressed, test_convert_chain, test_convert_existing,
                   test_convert_bitmaps, test_compare, test_check, test_resize, test_rebase, test_rebase_unsafe,
                   test_no_guess, test_commit, test_commit_through, test_bitmap, test_backing_loop, test_snapshots,
                   test_read_snapshots, test_bench, test_dd, test_interrupted, test_broken]))
