"""What the tests of ferry-img share: running it beside qemu-img, contents, a TAP frame.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

DEADLINE_S = float(os.environ.get('FERRY_TEST_TIMEOUT', '60'))
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
FERRY_IMG = os.path.abspath(sys.argv[1])
WORK = tempfile.mkdtemp(prefix='ferry-img-')
STARTED = []


class Result:
    """How a program ended, and what it said."""

    def __init__(self, args, status, out, err):
        self.args, self.status, self.out, self.err = args, status, out, err

    def __repr__(self):
        return f'{" ".join(self.args)}\n-> {self.status}\nout: {self.out}\nerr: {self.err}'


def path(name):
    return os.path.join(WORK, name)


def default_signals():
    """What the tests were started from (nohup, a shell's background) may ignore some, and a child inherits that."""
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_DFL)


def start(program, *args, preexec_fn=None, **kwargs):
    """A process that is killed at the end of the test."""
    def before():
        default_signals()
        if preexec_fn:
            preexec_fn()

    process = subprocess.Popen([program, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=kwargs.pop('cwd', WORK), preexec_fn=before, **kwargs)
    STARTED.append(process)
    return process


def run(program, *args, **kwargs):
    process = start(program, *args, **kwargs)
    out, err = process.communicate(timeout=DEADLINE_S)
    STARTED.remove(process)
    return Result(process.args, process.returncode, out.decode(), err.decode())


def ferry(*args, **kwargs):
    return run(FERRY_IMG, *args, **kwargs)


def qemu(*args, **kwargs):
    return run('qemu-img', *args, **kwargs)


def must(result, status=0):
    """What it printed; it must have ended with that status, and said nothing if that is 0."""
    assert result.status == status, result
    assert status or result.err == '', result
    return result.out


def fails(result, message, status=1):
    """It said that, on stderr, and no more than where help is to be had."""
    assert result.status == status, result
    lines = [line for line in result.err.splitlines() if not line.startswith('Try ')]
    assert '\n'.join(lines) == message, f'{result}\nexpected: {message}'


def as_json(result):
    return json.loads(must(result))


def same(first, second, *args):
    """Two images have the same content, as qemu-img sees it; and as we do."""
    must(qemu('compare', *args, first, second))
    out = must(ferry('compare', *args, first, second))
    assert 'Images are identical.' in out, out


def qemu_io(image, *commands, fmt='raw'):
    args = []
    for command in commands:
        args += ['-c', command]
    result = run('qemu-io', '-f', fmt, *args, image)
    assert result.status == 0 and 'failed' not in result.out, result


def write_file(name, size, extents, seed=1):
    """A raw file: @extents are (offset, length, kind), kind a byte or 'random'; the rest is a hole."""
    rng = random.Random(seed)
    with open(path(name), 'wb') as f:
        f.truncate(size)
        for offset, length, kind in extents:
            f.seek(offset)
            f.write(rng.randbytes(length) if kind == 'random' else bytes([kind]) * length)


def mixed_file(name, size=12 * MIB, seed=1, granule=4 * KIB):
    """Random data, zeroes that are written, holes and patterns, in pieces of all lengths."""
    rng = random.Random(seed)
    extents, at = [], 0
    while at < size:
        length = min(rng.choice([1, 2, 3, 15, 16, 17, 64, 300]) * granule, size - at)
        kind = rng.choice(['hole', 'random', 0, rng.randrange(1, 256)])
        if kind != 'hole':
            extents.append((at, length, kind))
        at += length
    write_file(name, size, extents, seed)


def read(name, offset=0, length=-1):
    with open(path(name), 'rb') as f:
        f.seek(offset)
        return f.read(length)


def allocated(name):
    return os.stat(path(name)).st_blocks * 512


def leftovers():
    return [name for name in os.listdir(WORK) if '.part-' in name]


def clean():
    for name in os.listdir(WORK):
        full = path(name)
        if os.path.isdir(full) and not os.path.islink(full):
            os.chmod(full, 0o700)
            shutil.rmtree(full)
        else:
            os.unlink(full)


def main(tests):
    failed = False
    print(f'1..{len(tests)}')
    for number, test in enumerate(tests, 1):
        name = test.__name__[5:].replace('_', '-')
        try:
            test()
            print(f'ok {number} {name}', flush=True)
        except Exception:                       # pylint: disable=broad-except
            failed = True
            print(f'not ok {number} {name}')
            print('# ' + traceback.format_exc().replace('\n', '\n# '), flush=True)
        finally:
            for process in STARTED:
                if process.poll() is None:
                    process.kill()
                process.communicate()
            STARTED.clear()
            clean()
    shutil.rmtree(WORK)
    return failed
