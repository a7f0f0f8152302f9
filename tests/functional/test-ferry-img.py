#!/usr/bin/env python3
"""ferry-img: its command lines, its messages, raw images beside qemu-img, and what an interruption leaves.

    test-ferry-img.py FERRY-IMG SOURCE-ROOT

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import fcntl
import os
import re
import resource
import select
import signal
import stat
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from img_lib import (DEADLINE_S, FERRY_IMG, GIB, KIB, MIB, STARTED, WORK, allocated, as_json, fails, ferry,  # noqa: E402
                     leftovers, main, mixed_file, must, path, qemu, qemu_io, read, run, same, start,
                     write_file)

SOURCE_ROOT = sys.argv[2]
COMMANDS = ['bench', 'bitmap', 'check', 'commit', 'compare', 'convert', 'create', 'dd', 'info', 'map', 'measure',
            'rebase', 'resize', 'snapshot']


# Command lines ------------------------------------------------------------------------------------


def test_help():
    out = must(ferry('--help'))
    assert out.startswith('Usage: ferry-img COMMAND'), out
    assert re.findall(r'^  ([a-z]+) ', out, re.M) == COMMANDS, out
    assert re.search(r'^Supported formats:.* file.* raw', out, re.M), out
    assert must(ferry('-h')) == out
    assert re.fullmatch(r'ferry-img version \d+\.\d+\.\d+\n', must(ferry('--version')))
    assert must(ferry('-V')) == must(ferry('--version'))
    for command in COMMANDS:
        out = must(ferry(command, '--help'))
        assert out.startswith(f'Usage: ferry-img {command} [OPTION]... '), out
        assert must(ferry(command, '-h')) == out
        assert all(len(line) <= 110 for line in out.splitlines()), out


def test_usage_errors():
    fails(ferry(), 'ferry-img: Not enough arguments')
    fails(ferry('absent'), 'ferry-img: Command not found: absent')
    fails(ferry('--absent'), 'ferry-img: unrecognized option --absent')
    for command in COMMANDS:
        status = 2 if command == 'compare' else 1
        fails(ferry(command, '--absent', 'x'), "ferry-img: unrecognized option '--absent'", status)
        fails(ferry(command, '-Z', 'x', '1'), "ferry-img: unrecognized option '-Z'", status)
        result = ferry(command, '--absent')
        assert result.err.splitlines()[-1] == f"Try 'ferry-img {command} --help' for more information"
    for args, message in (
            (['create'], 'Expecting image file name'),
            (['create', 'a', '1', '2'], 'Unexpected argument: 2'),
            (['create', '-f'], "missing argument for option '-f'"),
            (['info'], 'Expecting one image file name'),
            (['info', 'a', 'b'], 'Expecting one image file name'),
            (['info', '--output=xml', 'a'], '--output must be used with human or json as argument.'),
            (['check'], 'Expecting one image file name'),
            (['check', '-r', 'some', 'a'], "Unknown option value for -r (expecting 'leaks' or 'all'): some"),
            (['check', '-T', 'hot', 'a'], 'Invalid source cache option: hot'),
            (['map'], 'Expecting one image file name'),
            (['convert', 'a'], 'Must specify image file name'),
            (['convert', '-t', 'hot', 'a', 'b'], 'Invalid cache option: hot'),
            (['convert', '-T', 'hot', 'a', 'b'], 'Invalid source cache option: hot'),
            (['convert', '-c', '-W', 'a', 'b'], 'Out of order write and compress are mutually exclusive'),
            (['convert', '-C', '-c', 'a', 'b'], 'Cannot enable copy offloading when -c is used'),
            (['convert', '-S', '100', 'a', 'b'],
             'Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to 1G, 0 for none'),
            (['convert', '-C', '-S', '4k', 'a', 'b'], 'Cannot enable copy offloading when -S is used'),
            (['convert', '--target-is-zero', 'a', 'b'], '--target-is-zero requires use of -n flag'),
            (['convert', '--target-image-opts', 'a', 'b'], '--target-image-opts requires use of -n flag'),
            (['convert', '-n', '-B', 'x', 'a', 'b'], '-B is for a new image: it cannot be used with -n'),
            (['convert', '--skip-broken-bitmaps', 'a', 'b'],
             'Use of --skip-broken-bitmaps requires --bitmaps'),
            (['convert', '-m', '17', 'a', 'b'],
             "Invalid number of coroutines specified: '17' is out of range: a number from 1 to 16 is expected"),
            (['resize', 'a'], 'Expecting image file name and size'),
            (['resize', '--preallocation=some', 'a', '1'], "Invalid preallocation mode 'some'"),
            (['rebase', 'a'], 'Must specify backing file (-b) or use simple rebase mode (-u)'),
            (['rebase', '-b', 'x', 'a'], 'backing format must be specified: give it with -F'),
            (['rebase', '-b', 'x', '-F', 'odd', 'a'], "Invalid format name: 'odd'"),
            (['commit'], 'Expecting one image file name'),
            (['measure'], 'Either --size N or one filename must be specified.'),
            (['measure', 'a', 'b'], 'At most one filename argument is allowed.'),
            (['measure', '--size', '1', 'a'], '--size N cannot be used together with a filename.'),
            (['bench', '-c', '1', '--flush-interval', '1', 'a'],
             '--flush-interval is only available in write tests'),
            (['bench', '-w', '-U', 'a'], '-U is only available in read tests'),
            (['bench', '-w', '-d', '9', '--flush-interval', '8', 'a'],
             "Flush interval can't be smaller than depth"),
            (['bench', '-i', 'magic', 'a'], 'Invalid aio option: magic'),
            (['bitmap', 'a', 'b'], 'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge'),
            (['bitmap', '--add', 'a'], 'Expecting filename and bitmap name'),
            (['bitmap', '--clear', '-g', '64k', 'a', 'b'], 'granularity only supported with --add'),
            (['bitmap', '--clear', '-b', 'c', 'a', 'b'],
             'Merge bitmap source file only supported with --merge'),
            (['snapshot'], 'Expecting one image file name'),
            (['dd', 'if=a'], 'Must specify both input and output file names'),
            (['dd', 'bs=1', 'a'], 'unrecognized operand a'),
            (['dd', 'seek=1'], 'unrecognized operand seek=1')):
        fails(ferry(*args), 'ferry-img: ' + message)
    fails(ferry('compare', 'a'), 'ferry-img: Expecting two image file names', 2)
    assert os.listdir(WORK) == []


def test_sizes():
    for text in ('12foo', '', '-1', '1.5', '9999999999G', '0x', ' 1'):
        result = ferry('create', '-q', '--', 'x', text)
        assert result.status == 1 and result.err.startswith('ferry-img: Invalid image size specified: '), result
        assert not os.path.exists(path('x'))
    for text, size in (('512', 512), ('4k', 4096), ('1.5M', 3 * MIB // 2), ('2G', 2 * GIB), ('0', 0), ('0x400', 1024)):
        must(ferry('create', '-q', 'x', text))
        assert os.path.getsize(path('x')) == size


def man_page_options(text):
    """Options of each subcommand, as `.It Fl` lines in its section say."""
    sections = {}
    for part in re.split(r'^\.Ss ', text, flags=re.M)[1:]:
        name = part.split('\n', 1)[0].strip()
        sections[name] = set()
        for line in re.findall(r'^\.It (Fl .*)$', part.replace('Fl Fl ', 'Fl -'), re.M):
            for flag in re.findall(r'Fl ([-\w]+)', line):
                sections[name].add('-' + flag)
    return sections


def help_options(command):
    out = must(ferry(command, '--help')).split('Options:\n')[1]
    flags = set()
    for line in out.splitlines():
        if line.startswith('  -'):
            flags |= set(re.findall(r'(?:^|(?<=, ))(--?[\w-]+)', line[2:26]))
    return flags - {'-h', '--help'}


def test_man_page():
    with open(os.path.join(SOURCE_ROOT, 'docs/user/ferry-img.1'), encoding='utf-8') as f:
        sections = man_page_options(f.read())
    for command in COMMANDS:
        assert sections[command] == help_options(command), (command, sections[command], help_options(command))


# Images -------------------------------------------------------------------------------------------


def test_create():
    out = must(ferry('create', 'x', '1M'))
    assert out == "Formatting 'x', fmt=raw size=1048576\n", out
    assert (os.path.getsize(path('x')), allocated('x')) == (MIB, 0)
    out = must(ferry('create', '-o', 'preallocation=falloc', 'x', '64k'))
    assert out == "Formatting 'x', fmt=raw size=65536 preallocation=falloc\n", out
    assert allocated('x') >= 64 * KIB
    # Hints, which a file system takes or not.
    must(ferry('create', '-q', '-o', 'nocow=on,extent_size_hint=1M', 'x', '64k'))
    assert os.path.getsize(path('x')) == 64 * KIB
    fails(ferry('create', '-q', '-o', 'extent_size_hint=8G', 'x', '1k'),
          "ferry-img: x: Could not create 'x': an extent size hint of 8589934592 bytes is too large")
    fails(ferry('create', '-q', '-o', 'nocow=maybe', 'x', '1k'),
          "ferry-img: x: Could not create 'x': Parameter 'nocow' expects 'on' or 'off', not 'maybe'")
    assert os.path.getsize(path('x')) == 64 * KIB
    must(ferry('create', '-q', '-o', 'size=2M', 'y'))
    assert os.path.getsize(path('y')) == 2 * MIB
    must(ferry('create', '-q', 'file:a:b', '1k'))
    assert os.path.getsize(path('a:b')) == KIB
    for args, message in (
            (['-f', 'odd', 'z', '1'], "z: Unknown file format 'odd'"),
            (['z'], 'z: Image creation needs a size parameter'),
            (['-o', 'odd=1', 'z', '1'], "z: Invalid parameter 'odd'"),
            (['-b', 'x', '-F', 'raw', 'z', '1'], "z: Backing file not supported for file format 'raw'"),
            (['-f', 'host_device', 'z', '1'], None),
            (['absent/z', '1'], None)):
        result = ferry('create', *args)
        if message:
            fails(result, 'ferry-img: ' + message)
        assert result.status == 1 and not os.path.exists(path('z')), result


def test_info():
    write_file('x', 10 * MIB, [(MIB, MIB, 'random')])
    assert must(ferry('info', 'x')) == must(qemu('info', 'x'))
    assert as_json(ferry('info', '--output=json', 'x')).items() >= {
        'filename': 'x', 'format': 'raw', 'virtual-size': 10 * MIB, 'actual-size': MIB}.items()
    theirs = as_json(qemu('info', '--output=json', 'x'))
    theirs.pop('dirty-flag')
    ours = as_json(ferry('info', '--output=json', 'x'))
    assert {key: ours[key] for key in theirs} == theirs, (ours, theirs)
    chain = as_json(ferry('info', '--output=json', '--backing-chain', 'x'))
    assert [image['filename'] for image in chain] == ['x']
    spelled = as_json(ferry('info', '--output=json', '--image-opts', 'driver=raw,file.filename=x'))
    assert spelled['virtual-size'] == 10 * MIB
    part = as_json(ferry('info', '--output=json', '--image-opts',
                         f'driver=raw,offset={MIB},size={MIB},file.driver=file,file.filename=x'))
    assert part['virtual-size'] == MIB
    name = 'json:{"driver":"raw","file":{"driver":"file","filename":"x"}}'
    assert as_json(ferry('info', '--output=json', name))['virtual-size'] == 10 * MIB
    # Keys with dots in JSON, and a format that is looked up.
    for text in ('{"driver":"raw","file.driver":"file","file.filename":"x"}', '{"driver":"raw","file.filename":"x"}',
                 f'{{"driver":"raw","offset":{MIB},"size":{MIB},"file":{{"driver":"file"}},"file.filename":"x"}}'):
        size = MIB if 'size' in text else 10 * MIB
        assert as_json(ferry('info', '--output=json', 'json:' + text))['virtual-size'] == size
        assert as_json(ferry('info', '--output=json', '--image-opts', text))['virtual-size'] == size
    must(ferry('create', '-q', '-f', 'qcow2', 'q', '1M'))
    for image, fmt in (('x', 'raw'), ('q', 'qcow2')):
        for text in (f'file.filename={image}', f'file.driver=file,file.filename={image}',
                     f'{{"file":{{"driver":"file","filename":"{image}"}}}}'):
            assert as_json(ferry('info', '--output=json', '--image-opts', text))['format'] == fmt, text
    for text, message in (('{"file":"x","file.filename":"x"}', "'file' is given as a whole and in parts"),
                          ('{"driver":"raw","file":{"filename":"x"},"file.filename":"x"}',
                           "'file.filename' is given twice"),
                          ('{"driver":"raw","' + 'a.' * 200 + 'b":1}', 'a key is longer than 255 characters'),
                          ('{"file":{"filename":"absent"}}',
                           "file: Could not open 'absent': No such file or directory")):
        fails(ferry('info', '--image-opts', text), f"ferry-img: Could not open '{text}': {message}")
    fails(ferry('info', 'absent'), "ferry-img: Could not open 'absent': No such file or directory")
    fails(ferry('info', '-f', 'odd', 'x'), "ferry-img: Could not open 'x': Unknown driver 'odd'")
    fails(ferry('info', 'odd:x'), "ferry-img: Could not open 'odd:x': Unknown protocol 'odd' in 'odd:x' (for a file with "
          "a colon in its name write file:odd:x)")
    fails(ferry('info', '-f', 'file', name), f"ferry-img: Could not open '{name}': its description says driver 'raw', "
          "the command line 'file'")
    for text in ('', 'driver', 'driver=odd', 'driver=raw', 'driver=raw,file.filename=x,odd=1', 'json:{', 'json:{}'):
        result = ferry('info', *([] if text.startswith('json') else ['--image-opts']), text)
        assert result.status == 1 and result.out == '' and 'Could not open' in result.err, result


def test_map():
    mixed_file('x')
    ours, theirs = as_json(ferry('map', '--output=json', 'x')), as_json(qemu('map', '--output=json', 'x'))
    for extent in ours:
        assert extent.pop('compressed') is False
    assert ours == theirs
    assert must(ferry('map', 'x')) == must(qemu('map', 'x'))
    assert must(ferry('map', '-s', '1M', '-l', '3M', 'x')) == must(qemu('map', '-s', '1M', '--max-length=3M', 'x'))
    args = ['--start-offset=1M', '--max-length=3M']
    for extra in ([], ['--output=json']):
        out = must(ferry('map', *extra, *args, 'x')).replace(', "compressed": false', '')
        assert out == must(qemu('map', *extra, *args, 'x'))
    assert must(ferry('map', '--output=json', '--start-offset=1G', 'x')) == '[]\n'
    fails(ferry('map', '--start-offset=-1', 'x'), "ferry-img: Invalid start offset specified: '-1' is not a size: a number "
          "with an optional suffix k, M, G, T, P or E is expected")


def test_convert_raw():
    mixed_file('x')
    for args in ([], ['-m', '1'], ['-m', '16', '-W'], ['-t', 'writeback'], ['-T', 'none', '-t', 'none'],
                 ['-t', 'directsync', '-m', '2'], ['-S', '64k'], ['-C'], ['-S', '512']):
        must(ferry('convert', '-f', 'raw', '-O', 'raw', *args, 'x', 'y'))
        assert read('x') == read('y'), args
        # Holes, and what is zero for long enough, take no room.
        assert allocated('y') <= allocated('x')
    must(ferry('convert', '-f', 'raw', '-S', '0', 'x', 'y'))
    assert read('x') == read('y') and allocated('y') >= os.path.getsize(path('y'))
    assert leftovers() == []


def test_convert_zeroes():
    write_file('x', 8 * MIB, [(0, 4 * MIB, 0), (5 * MIB, 8 * KIB, 1), (6 * MIB, 4096, 2), (6 * MIB + 8192, 4096, 2)])
    must(ferry('convert', 'x', 'y'))
    assert read('x') == read('y') and allocated('y') == 16 * KIB
    # A gap of 4 KiB is not long enough for a hole of 8.
    write_file('x', 64 * KIB, [(0, 4096, 1), (4096, 4096, 0), (8192, 4096, 1)])
    must(ferry('convert', '-S', '8k', 'x', 'y'))
    assert read('x') == read('y') and allocated('y') == 12 * KIB


def test_convert_lengths():
    for size in (0, 1, 511, 512, 513, 4095, 4097, MIB + 1):
        write_file('x', size, [(0, size, 'random')])
        must(ferry('convert', '-f', 'raw', 'x', 'y'))
        assert read('x') == read('y'), size


def test_convert_several():
    mixed_file('a', 3 * MIB)
    write_file('b', 1000, [(0, 1000, 'random')])
    mixed_file('c', 2 * MIB, seed=3)
    must(ferry('convert', '-f', 'raw', 'a', 'b', 'c', 'ours'))
    must(qemu('convert', '-f', 'raw', '-O', 'raw', 'a', 'b', 'c', 'theirs'))
    assert read('ours') == read('theirs')
    fails(ferry('convert', '-f', 'raw', '--bitmaps', 'a', 'b', 'd'),
          'ferry-img: Copying bitmaps only possible with single source')


def test_convert_existing():
    mixed_file('x')
    write_file('y', 12 * MIB, [(0, 12 * MIB, 7)])
    must(ferry('convert', '-n', '-f', 'raw', '-O', 'raw', 'x', 'y'))
    assert read('x') == read('y')
    # What lies behind the source's end is none of its business.
    write_file('y', 13 * MIB, [(0, 13 * MIB, 7)])
    must(ferry('convert', '-n', '-f', 'raw', '-O', 'raw', 'x', 'y'))
    assert read('x') == read('y', 0, 12 * MIB) and read('y', 12 * MIB) == bytes([7]) * MIB
    write_file('y', MIB, [])
    fails(ferry('convert', '-n', '-f', 'raw', '-O', 'raw', 'x', 'y'), 'ferry-img: output file is smaller than input file')
    # It is believed.
    write_file('y', 12 * MIB, [(0, 12 * MIB, 7)])
    write_file('z', 12 * MIB, [(MIB, MIB, 1)])
    must(ferry('convert', '-n', '--target-is-zero', '-f', 'raw', '-O', 'raw', 'z', 'y'))
    assert read('y', MIB, MIB) == bytes([1]) * MIB and read('y', 0, MIB) == bytes([7]) * MIB
    result = ferry('convert', '-n', '-o', 'preallocation=full', '-f', 'raw', 'x', 'z')
    assert result.status == 0, result
    assert result.err == 'ferry-img: warning: -o has no effect when skipping image creation\n'
    must(ferry('convert', '-n', '--target-image-opts', 'x', 'driver=raw,file.filename=y'))
    assert read('x') == read('y')
    fails(ferry('convert', '-n', '-O', 'raw', 'x', 'absent'),
          "ferry-img: Could not open 'absent': No such file or directory")
    fails(ferry('convert', '-c', '-O', 'raw', 'x', 'z'), 'ferry-img: Compression not supported for this file format')


def test_convert_rate():
    write_file('x', 4 * MIB, [(0, 4 * MIB, 'random')])
    then = time.monotonic()
    must(ferry('convert', '-r', '4M', '-f', 'raw', 'x', 'y'))
    assert time.monotonic() - then > 0.5
    assert read('x') == read('y')


def test_progress():
    mixed_file('x')
    out = must(ferry('convert', '-p', '-f', 'raw', 'x', 'y'))
    assert re.fullmatch(r'(    \(\d+\.\d\d/100%\)\r)+\n', out) and out.endswith('(100.00/100%)\r\n'), out
    out = must(ferry('compare', '-p', 'x', 'y'))
    assert re.fullmatch(r'(    \(\d+\.\d\d/100%\)\r)+\nImages are identical.\n', out), out
    assert must(ferry('convert', '-p', '-q', 'x', 'y')) == ''


def test_compare():
    mixed_file('x')
    mixed_file('y')
    same('x', 'y', '-s')
    for offset in (0, 1000, 5 * MIB + 77, 12 * MIB - 1):
        qemu_io('y', f'write -P {1 + read("y", offset, 1)[0] % 255} {offset} 1')
        ours, theirs = ferry('compare', 'x', 'y'), qemu('compare', 'x', 'y')
        assert (ours.status, ours.out) == (theirs.status, theirs.out) == \
            (1, f'Content mismatch at offset {offset // 512 * 512}!\n'), (ours, theirs)
        assert must(ferry('compare', '-q', 'x', 'y'), 1) == ''
        must(ferry('convert', 'x', 'y'))
    write_file('z', 13 * MIB, [])
    with open(path('z'), 'r+b') as f:
        f.write(read('x'))
    ours, theirs = ferry('compare', 'x', 'z'), qemu('compare', 'x', 'z')
    assert must(ours) == must(theirs) == 'Warning: Image size mismatch!\nImages are identical.\n'
    assert must(ferry('compare', '-s', 'z', 'x'), 1) == 'Strict mode: Image size mismatch!\n'
    qemu_io('z', 'write -P 1 12500k 1k')
    ours, theirs = ferry('compare', 'x', 'z'), qemu('compare', 'x', 'z')
    assert (must(ours, 1), 1) == (theirs.out, theirs.status), (ours, theirs)
    write_file('a', MIB, [(0, 64 * KIB, 0)])
    write_file('b', MIB, [])
    assert must(ferry('compare', 'a', 'b')) == 'Images are identical.\n'
    assert must(ferry('compare', '-s', 'a', 'b'), 1) == must(qemu('compare', '-s', 'a', 'b'), 1) == \
        'Strict mode: Offset 0 block status mismatch!\n'
    fails(ferry('compare', 'x', 'absent'), "ferry-img: Could not open 'absent': No such file or directory", 2)


def test_resize():
    must(ferry('create', '-q', 'x', '1M'))
    for args, size in ((['x', '2M'], 2 * MIB), (['x', '+512k'], 5 * MIB // 2), (['--shrink', 'x', '-1M'], 3 * MIB // 2),
                       (['--preallocation=falloc', 'x', '+1M'], 5 * MIB // 2), (['--shrink', 'x', '1k'], KIB)):
        assert must(ferry('resize', '-f', 'raw', *args)) == 'Image resized.\n'
        assert os.path.getsize(path('x')) == size
    assert must(ferry('resize', '-q', '-f', 'raw', 'x', '2k')) == ''
    result = ferry('resize', 'x', '3k')
    assert result.status == 0 and 'Image format was not specified' in result.err, result
    for args, message in (
            (['x', '1k'], 'Use the --shrink option to perform a shrink operation.\n'
             "Shrinking an image deletes all data beyond its new end."),
            (['--shrink', 'x', '-3k'], 'New image size must be positive'),
            (['--shrink', 'x', '-4k'], 'New image size must be positive'),
            (['x', '+9223372034707292160'], 'The new image size would be too large'),
            (['--shrink', '--preallocation=full', 'x', '1k'], 'Preallocation can only be used for growing images')):
        fails(ferry('resize', '-f', 'raw', *args), 'ferry-img: ' + message)
    assert os.path.getsize(path('x')) == 3 * KIB


def test_other_commands():
    mixed_file('x')
    fails(ferry('check', 'x'), 'ferry-img: This image format does not support checks', 63)
    assert must(ferry('check', '-q', 'x'), 63) == ''
    fails(ferry('check', 'absent'), "ferry-img: Could not open 'absent': No such file or directory")
    fails(ferry('commit', '-f', 'raw', 'x'), 'ferry-img: Image does not have a backing file')
    fails(ferry('rebase', '-f', 'raw', '-b', '', 'x'), "ferry-img: Format driver 'raw' does not support backing files")
    fails(ferry('bitmap', '-f', 'raw', '--add', 'x', 'b'),
          "ferry-img: Format driver 'raw' does not support persistent bitmaps")
    assert must(ferry('snapshot', '-l', 'x')) == ''
    for args in (['--size', '1G'], ['x'], ['--output=json', 'x']):
        assert must(ferry('measure', '-O', 'raw', *args)) == must(qemu('measure', '-O', 'raw', *args))


def test_bench():
    write_file('x', MIB, [(0, MIB, 1)])
    out = must(ferry('bench', '-f', 'raw', '-c', '100', '-d', '4', '-s', '8k', 'x'))
    assert re.fullmatch(r'Sending 100 read requests, 8192 bytes each, 4 in parallel \(starting at offset 0, step size '
                        r'8192\)\nRun completed in \d+\.\d{3} seconds\.\n', out), out
    assert read('x') == bytes([1]) * MIB
    for args, flush in (([], ''), (['--no-drain'], 'asynchronous ')):
        out = must(ferry('bench', '-f', 'raw', '-w', '-c', '64', '-d', '4', '--pattern', '7', '-o', '64k', '-S', '8k',
                         '--flush-interval', '16', *args, 'x'))
        assert f'Sending {flush}flush every 16 requests\n' in out, out
    for i in range(64):
        assert read('x', 65536 + i * 8192, 8192) == bytes([7]) * 4096 + bytes([1]) * 4096
    for args in (['-i', 'threads'], ['-i', 'native', '-t', 'none'], ['-n', '-t', 'none'], ['-q']):
        must(ferry('bench', '-f', 'raw', '-c', '50', *args, 'x'))
    fails(ferry('bench', '-f', 'raw', '-s', '2M', 'x'),
          "ferry-img: Requests of 2097152 bytes at offset 0 do not fit into 'x' of 1048576 bytes")


def test_dd():
    mixed_file('x')
    for args in (['bs=1M', 'count=3', 'skip=2'], ['bs=512', 'skip=11'], ['bs=4K', 'count=10000'], ['count=0'],
                 ['bs=100K', 'skip=100', 'count=30']):
        must(ferry('dd', '-f', 'raw', '-O', 'raw', 'if=x', 'of=ours', *args))
        assert run('dd', 'if=x', 'of=theirs', *args).status == 0
        assert read('ours') == read('theirs'), args
    result = ferry('dd', '-f', 'raw', 'if=x', 'of=y', 'bs=1G', 'skip=1')
    assert result.err == 'ferry-img: x: cannot skip to specified offset\n', result


# Whole or not there -------------------------------------------------------------------------------


def slow_convert(*args):
    """A conversion that takes long, and has begun to write."""
    write_file('x', 64 * MIB, [(0, 64 * MIB, 'random')])
    process = start(FERRY_IMG, 'convert', '-p', '-r', '4M', '-f', 'raw', *args)
    seen = ''
    end = time.monotonic() + DEADLINE_S
    while not re.search(r'\((?!0\.00)\d+\.\d\d/100%\)', seen):
        assert select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0], seen
        seen += os.read(process.stdout.fileno(), 4096).decode()
    return process


def finish(process):
    out, err = process.communicate(timeout=DEADLINE_S)
    STARTED.remove(process)
    return process.returncode, out.decode(), err.decode()


def test_interrupted():
    write_file('old', MIB, [(0, MIB, 9)])
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = slow_convert('x', 'new')
        assert not os.path.exists(path('new')) and len(leftovers()) == 1
        process.send_signal(sig)
        status, _, err = finish(process)
        assert (status, err) == (-sig, 'ferry-img: interrupted\n'), (status, err)
        assert not os.path.exists(path('new')) and leftovers() == []
        process = slow_convert('x', 'old')
        process.send_signal(sig)
        assert finish(process)[0] == -sig
        assert read('old') == bytes([9]) * MIB and leftovers() == []


def test_killed():
    write_file('old', MIB, [(0, MIB, 9)])
    for target in ('new', 'old'):
        process = slow_convert('x', target)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        assert [name.split('.part-')[0] for name in leftovers()] == [target]
        os.unlink(path(leftovers()[0]))
    assert not os.path.exists(path('new')) and read('old') == bytes([9]) * MIB


def test_progress_signal():
    process = slow_convert('x', 'y')
    process.kill()
    finish(process)
    process = start(FERRY_IMG, 'convert', '-r', '16M', '-f', 'raw', 'x', 'y')
    end = time.monotonic() + DEADLINE_S
    while not select.select([process.stderr], [], [], 0.1)[0]:
        assert time.monotonic() < end and process.poll() is None
        with open(f'/proc/{process.pid}/status', encoding='ascii') as f:
            caught = int(re.search(r'SigCgt:\s*(\w+)', f.read())[1], 16)
        if caught & 1 << (signal.SIGUSR1 - 1):
            process.send_signal(signal.SIGUSR1)
    assert re.match(r'    \(\d+\.\d\d/100%\)\n', process.stderr.readline().decode())
    process.kill()
    finish(process)


def test_disk_full():
    """A limit of file lengths stands for the end of the disk."""
    write_file('x', 8 * MIB, [(0, 8 * MIB, 'random')])
    write_file('old', MIB, [(0, MIB, 9)])

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))

    for target in ('new', 'old'):
        result = ferry('convert', '-f', 'raw', 'x', target, preexec_fn=limit)
        assert result.status == 1 and result.err.endswith('File too large\n'), result
    assert not os.path.exists(path('new')) and read('old') == bytes([9]) * MIB and leftovers() == []


def test_tmpfs_full():
    """No room in the middle of the copy: the error says where."""
    mount = path('small')
    os.mkdir(mount)
    if os.geteuid() != 0 or run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'none', mount).status != 0:
        print('# no right to mount: left out')
        return
    try:
        write_file('x', 8 * MIB, [(0, 8 * MIB, 'random')])
        result = ferry('convert', '-f', 'raw', 'x', 'small/y')
        assert result.status == 1, result
        assert re.fullmatch(r'ferry-img: error while writing at byte \d+: No space left on device\n', result.err), result
        assert os.listdir(mount) == []
    finally:
        assert run('umount', mount).status == 0


def test_unreadable():
    """A source that gets shorter while it is read is no endless loop; one that cannot be read is an error."""
    write_file('x', MIB, [(0, MIB, 'random')])
    os.mkdir(path('dir'))
    result = ferry('convert', '-f', 'raw', 'dir', 'y')
    assert result.status == 1 and "Could not open 'dir'" in result.err, result
    result = ferry('convert', '-f', 'raw', 'x', 'dir')
    assert result.status == 1 and not leftovers(), result
    result = ferry('convert', '-f', 'raw', 'x', 'absent/y')
    fails(result, "ferry-img: Could not create 'absent/y': No such file or directory")


def test_replacing():
    """What replaces a file has its rights; links stay links; directories that may not be written."""
    mixed_file('x')
    write_file('old', MIB, [])
    os.chmod(path('old'), 0o640)
    os.symlink('old', path('link'))
    must(ferry('convert', '-f', 'raw', 'x', 'link'))
    assert os.path.islink(path('link')) and read('old') == read('x')
    assert stat.S_IMODE(os.stat(path('old')).st_mode) == 0o640
    must(ferry('convert', '-f', 'raw', 'x', 'fresh'))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(os.stat(path('fresh')).st_mode) == 0o644 & ~mask
    os.mkdir(path('closed'))
    write_file('closed/y', MIB, [])
    os.chmod(path('closed/y'), 0o666)
    os.chmod(path('closed'), 0o555)
    if os.geteuid() == 0:
        os.chmod(WORK, 0o755)
        os.chmod(path('x'), 0o644)

    def nobody():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

    # What is refused before anything is written leaves what was there.
    before = read('closed/y')
    for wrong in (['-O', 'nix'], ['-O', 'qcow2', '-o', 'nix=1'], ['-O', 'qcow2', '-o', 'cluster_size=77'],
                  ['-O', 'qcow2', '-B', path('nix'), '-F', 'raw']):
        assert ferry('convert', '-f', 'raw', *wrong, path('x'), path('closed/y'), preexec_fn=nobody).status
        assert read('closed/y') == before, wrong
    # Where names belong to their owners: another's file, which anybody may write.
    os.mkdir(path('sticky'))
    os.chmod(path('sticky'), 0o1777)
    write_file('sticky/y', MIB, [])
    os.chmod(path('sticky/y'), 0o666)
    result = ferry('convert', '-f', 'raw', path('x'), path('sticky/y'), preexec_fn=nobody)
    assert 'Permission denied' in result.err or (must(result) is not None and read('sticky/y') == read('x'))
    result = ferry('convert', '-f', 'raw', path('x'), path('closed/y'), preexec_fn=nobody)
    if 'Permission denied' in result.err and os.geteuid() == 0:
        print('# the program cannot be run by nobody here')
    else:
        must(result)
        assert read('closed/y') == read('x')


F_OFD_SETLK = 37


def test_in_use():
    """An image that another process writes is neither read nor replaced, unless -U says so."""
    write_file('x', MIB, [(0, MIB, 3)])
    # What qemu-img does for an image that it writes: bytes that stand for permissions, and for refusing them.
    writer = open(path('x'), 'r+b')
    for byte in (100, 101, 103, 201, 203):
        fcntl.fcntl(writer, F_OFD_SETLK, struct.pack('@hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
    write_file('y', MIB, [])
    for args in (['info', '-f', 'raw', 'x'], ['convert', '-f', 'raw', 'x', 'z'], ['convert', '-f', 'raw', 'y', 'x'],
                 ['resize', '-f', 'raw', 'x', '2M'], ['create', 'x', '1M']):
        result = ferry(*args)
        assert result.status == 1 and 'lock' in result.err and leftovers() == [], result
    must(ferry('info', '-U', '-f', 'raw', 'x'))
    must(ferry('convert', '-U', '-f', 'raw', 'x', 'z'))
    assert read('z') == read('x') and os.path.getsize(path('x')) == MIB
    writer.close()
    must(ferry('convert', '-f', 'raw', 'y', 'x'))


def test_output_errors():
    write_file('x', MIB, [(0, MIB, 3)])
    with open('/dev/full', 'w', encoding='ascii') as full:
        for args in (['--help'], ['info', 'x'], ['map', '--output=json', 'x'], ['compare', 'x', 'x']):
            done = subprocess.run([FERRY_IMG, *args], cwd=WORK, stdout=full, stderr=subprocess.PIPE, text=True,
                                  timeout=DEADLINE_S, check=False)
            assert done.returncode == 1, (args, done)
            assert done.stderr == 'ferry-img: Could not write the output: No space left on device\n', (args, done)


if __name__ == '__main__':
    sys.exit(main([test_help, test_usage_errors, test_sizes, test_man_page, test_create, test_info, test_map,
                   test_convert_raw, test_convert_zeroes, test_convert_lengths, test_convert_several,
                   test_convert_existing, test_convert_rate, test_progress, test_compare, test_resize,
                   test_other_commands, test_bench, test_dd, test_interrupted, test_killed, test_progress_signal,
                   test_disk_full, test_tmpfs_full, test_unreadable, test_replacing, test_in_use,
                   test_output_errors]))
