#!/usr/bin/env python3
"""The guests in guest/ under somebody else's machine: QEMU with its own CPU emulation.

They must boot unchanged there, do their work, and find a page that is changed behind their back (the
machine's RAM is a file, so the test can do that). Usage: test-guests.py DIRECTORY-OF-GUESTS

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time

QEMU = 'qemu-system-x86_64'
DEADLINE_S = 90


class Guest:
    """A guest in QEMU; its serial port is the process's standard input and output."""

    def __init__(self, machine, kernel, append, *options):
        self.process = subprocess.Popen(
            [QEMU, '-M', machine, '-accel', 'tcg', '-m', '128M', '-nodefaults', '-no-user-config',
             '-serial', 'stdio', '-display', 'none', '-device', 'isa-debug-exit',
             '-kernel', kernel, '-append', append, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.output = ''
        self.end = time.monotonic() + DEADLINE_S

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.selector.close()

    def read_more(self):
        left = self.end - time.monotonic()
        if left <= 0 or not self.selector.select(left):
            raise AssertionError(f'nothing more within the deadline; so far: {self.output!r}')
        data = self.process.stdout.read()
        self.output += (data or b'').decode('latin-1')
        return bool(data)

    def expect(self, text):
        """Read until a whole line that contains @text; what comes after it is kept. Its line."""
        while True:
            lines = self.output.split('\n')
            for i, line in enumerate(lines[:-1]):
                if text in line:
                    self.output = '\n'.join(lines[i + 1:])
                    return line.strip()
            if not self.read_more():
                raise AssertionError(f'no {text!r} before the end; last: {self.output!r}')

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def wait(self):
        """Read to the end. What was not asked for yet, and the exit status."""
        while self.read_more():
            pass
        return self.output, self.process.wait(DEADLINE_S)


def ticker(machine, guests):
    with Guest(machine, f'{guests}/ticker.elf', 'period=50 count=5') as guest:
        guest.expect('ticker: start pages=16')
        output, status = guest.wait()
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    assert lines == [f'tick {n}' for n in range(1, 6)], lines
    assert status == 1, status


def ticker_input(guests):
    with Guest('q35', f'{guests}/ticker.elf', 'period=50') as guest:
        guest.expect('tick 1')
        guest.send('p')
        guest.expect('pong')
        guest.send('q')
        output, status = guest.wait()
    assert 'BAD' not in output, output
    assert status == 1, status


def dirtier(machine, guests, cpus, append, *options):
    with Guest(machine, f'{guests}/dirtier.elf', f'size=4M report=100 {append}', *options) as guest:
        line = guest.expect('dirtier: ready')
        assert line == f'dirtier: ready pages=1024 cpus={cpus}', line
        line = guest.expect('dirtier: round 2')
        assert ' ok pages=' in line, line
        guest.send('v')
        guest.expect('verify ok 1024')
        guest.send('s')
        guest.expect('dirtier: stopped')
        guest.send('v')
        guest.expect('verify ok 1024')
        guest.send('g')
        guest.expect('dirtier: going on')
        guest.expect('dirtier: round')
        guest.send('q')
        output, status = guest.wait()
    assert 'CORRUPT' not in output and 'EXCEPTION' not in output, output
    assert status == 1, status


def disk_options(path):
    """A disk on virtio-mmio as our driver wants it: version 2."""
    return ['-global', 'virtio-mmio.force-legacy=off', '-drive',
            f'id=d0,file={path},format=raw,if=none', '-device', 'virtio-blk-device,drive=d0']


def disker(guests):
    """Writes and verifies; a scan of its disk finds every block, and one changed bit."""
    with tempfile.TemporaryDirectory() as directory:
        path = f'{directory}/disk'
        with open(path, 'wb') as disk:
            disk.truncate(4 << 20)
        with Guest('microvm', f'{guests}/disker.elf', 'rate=0 report=100 size=2M start=1M',
                   *disk_options(path)) as guest:
            guest.expect('disker: start blocks=512')
            guest.expect('disker: ready blocks=512')
            guest.send('v')
            guest.expect('verify ok 512')
            guest.send('s')
            guest.expect('disker: stopped')
            guest.send('f')
            guest.expect('flushed')
            guest.send('q')
            output, status = guest.wait()
        assert 'CORRUPT' not in output and 'FAILED' not in output, output
        assert status == 1, status
        scan = ('microvm', f'{guests}/disker.elf', 'scan=1 size=3M start=1M', *disk_options(path))
        with Guest(*scan) as guest:
            line = guest.expect('scan ok')
            assert line.startswith('scan ok blocks=768 zero=256 oldest='), line
            assert guest.wait()[1] == 1
        with open(path, 'r+b') as disk:
            disk.seek((1 << 20) + 100 * 4096 + 512)
            byte = disk.read(1)[0]
            disk.seek(-1, os.SEEK_CUR)
            disk.write(bytes([byte ^ 1]))
        with Guest(*scan) as guest:
            line = guest.expect('CORRUPT')
            assert line.startswith('disker: CORRUPT block=100 ') and ' word=64 ' in line, line
            guest.expect('scan FAILED 1')
            assert guest.wait()[1] == 3


def disker_without_disk(guests):
    with Guest('microvm', f'{guests}/disker.elf', '') as guest:
        guest.expect('blk: there is no disk 0')
        guest.expect('disker: no disk to write')
        assert guest.wait()[1] == 5


def find_page(memory, number):
    """Where the guest's page @number is in its memory: by its first word, and a generation."""
    for offset in range(0, len(memory), 4096):
        if (int.from_bytes(memory[offset:offset + 8], 'little') == number and
                0 < int.from_bytes(memory[offset + 8:offset + 16], 'little') < 1000 and
                any(memory[offset + 16:offset + 4096])):
            return offset
    raise AssertionError(f'page {number} is not in memory')


def corruption(guests):
    """One bit in one page is found by a check of all, and named."""
    with tempfile.TemporaryDirectory() as directory:
        path = f'{directory}/ram'
        with Guest('q35,memory-backend=ram', f'{guests}/dirtier.elf',
                   'size=4M report=100 zero=0 rate=0', '-object',
                   f'memory-backend-file,id=ram,size=128M,share=on,mem-path={path}') as guest:
            guest.expect('dirtier: round 2')
            guest.send('s')
            guest.expect('dirtier: stopped')
            with open(path, 'r+b') as ram:
                offset = find_page(ram.read(), 777)
                ram.seek(offset + 2048)
                byte = ram.read(1)[0]
                ram.seek(offset + 2048)
                ram.write(bytes([byte ^ 0x40]))
            guest.send('v')
            line = guest.expect('CORRUPT')
            assert line.startswith('dirtier: CORRUPT page=777 want='), line
            assert ' word=256 ' in line, line
            guest.expect('verify FAILED 1')
            guest.send('q')
            _, status = guest.wait()
    assert status == 3, status


def main():
    guests = sys.argv[1]
    if not shutil.which(QEMU):
        print(f'1..0 # SKIP {QEMU} is not installed')
        return 0
    cases = [
        ('ticker on microvm', lambda: ticker('microvm', guests)),
        ('ticker on q35', lambda: ticker('q35', guests)),
        ('ticker hears', lambda: ticker_input(guests)),
        ('dirtier on microvm', lambda: dirtier('microvm', guests, 1, 'rate=0')),
        ('dirtier on q35 with 3 processors',
         lambda: dirtier('q35', guests, 3, 'rate=200', '-smp', '3')),
        ('dirtier on microvm with 2 processors',
         lambda: dirtier('microvm', guests, 2, 'rate=0 cpus=2 scatter=0', '-smp', '2')),
        ('disker on microvm', lambda: disker(guests)),
        ('disker without a disk', lambda: disker_without_disk(guests)),
        ('dirtier finds a changed bit', lambda: corruption(guests)),
    ]
    failed = 0
    print(f'1..{len(cases)}')
    for number, (name, case) in enumerate(cases, 1):
        try:
            case()
            print(f'ok {number} - {name}', flush=True)
        except AssertionError as error:
            failed += 1
            print(f'not ok {number} - {name}\n# {error}', flush=True)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
