#!/usr/bin/env python3
"""The process around the machine: -daemonize, -pidfile, signals, -add-fd, names, default front ends.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'bench'))
from lib.qmp import QMP  # noqa: E402

FERRY = sys.argv[1]
DEADLINE_S = 60
WORK = tempfile.mkdtemp(prefix='ferry-process-')
STARTED = []


def path(name):
    return os.path.join(WORK, name)


def ferry(*args, **kwargs):
    """Start the program; the caller waits for it."""
    process = subprocess.Popen([FERRY, '-accel', 'qtest', '-display', 'none', *args],
                               stdin=kwargs.pop('stdin', subprocess.DEVNULL),
                               stdout=kwargs.pop('stdout', subprocess.PIPE),
                               stderr=kwargs.pop('stderr', subprocess.PIPE), text=True, cwd=WORK,
                               **kwargs)
    STARTED.append(process)
    return process


def finish(process):
    out, err = process.communicate(timeout=DEADLINE_S)
    return process.returncode, out, err


def eventually(condition, what):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('not in time: ' + what)
        select.select([], [], [], 0.01)


LISTEN = ['-qmp', 'unix:qmp,server=on,wait=off']


def is_alive(pid):
    """A process that nobody has waited for yet is dead all the same."""
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_daemonize():
    # A daemon changes to /, so what it is to remove at its end needs a whole path.
    status, out, err = finish(ferry('-daemonize', '-pidfile', 'pid', '-qmp',
                                    f'unix:{path("qmp")},server=on,wait=off'))
    assert (status, out, err) == (0, '', ''), (status, out, err)
    pid = int(open(path('pid')).read())
    try:
        qmp = QMP(path('qmp'))
        assert qmp.command('query-status') == {'running': True, 'status': 'running'}
        assert os.readlink(f'/proc/{pid}/cwd') == '/'
        assert os.getsid(pid) != os.getsid(0)
        for fd in range(3):
            assert os.readlink(f'/proc/{pid}/fd/{fd}') == '/dev/null'
        # A second one with the same pid file is told so, and harms nothing.
        status, out, err = finish(ferry('-daemonize', '-pidfile', 'pid'))
        assert status == 1
        assert err == ("ferry-system-x86_64: Cannot lock pid file 'pid': "
                       "Resource temporarily unavailable\n"), err
        assert int(open(path('pid')).read()) == pid
        qmp.command('quit')
        assert qmp.rest() == ['SHUTDOWN'], qmp.events
        eventually(lambda: not is_alive(pid), 'end of the daemon')
        eventually(lambda: not os.path.exists(path('pid')), 'removal of the pid file')
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_daemonize_failure():
    status, out, err = finish(ferry('-daemonize', '-kernel', 'absent', '-pidfile', 'pid'))
    assert status == 1
    assert err == ("ferry-system-x86_64: Could not load the kernel: Could not open 'absent': "
                   "No such file or directory\n"), err
    assert not os.path.exists(path('pid'))


def test_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # -no-shutdown does not keep a process that a signal is to end.
        process = ferry('-pidfile', 'pid', '-no-shutdown', *LISTEN)
        qmp = QMP(path('qmp'))
        process.send_signal(number)
        assert qmp.rest() == ['SHUTDOWN'], qmp.events
        status, _, err = finish(process)
        assert status == 0, status
        assert re.fullmatch(rf'ferry-system-x86_64: terminating on signal {int(number)} from pid '
                            rf'{os.getpid()} \(.*\)\n', err), err
        assert not os.path.exists(path('pid'))
        assert not os.path.exists(path('qmp'))


def test_add_fd():
    with open(path('data'), 'w+') as data:
        fd = data.fileno()
        process = ferry('-add-fd', f'fd={fd},set=2,opaque=first', '-add-fd', f'fd={fd},set=3',
                        *LISTEN, pass_fds=[fd])
        qmp = QMP(path('qmp'))
        sets = qmp.command('query-fdsets')
        assert sorted(s['fdset-id'] for s in sets) == [2, 3], sets
        assert [f['opaque'] for s in sets for f in s['fds'] if 'opaque' in f] == ['first'], sets
        # The inherited descriptor itself is not open any more: its number may be another's.
        numbers = {f['fd'] for s in sets for f in s['fds']}
        files = [os.readlink(f'/proc/{process.pid}/fd/{n}')
                 for n in os.listdir(f'/proc/{process.pid}/fd')]
        assert len(numbers) == 2 and files.count(path('data')) == 2, files
        qmp.command('quit')
        assert finish(process)[0] == 0


def test_names():
    process = ferry('-name', 'guest=one,process=vmm one', '-uuid',
                    '00112233-4455-6677-8899-AABBCCDDEEFF', '-msg', 'timestamp,guest-name', *LISTEN)
    qmp = QMP(path('qmp'))
    assert qmp.command('query-name') == {'name': 'one'}
    assert qmp.command('query-uuid') == {'UUID': '00112233-4455-6677-8899-aabbccddeeff'}
    assert open(f'/proc/{process.pid}/comm').read() == 'vmm one\n'
    threads = {open(f'/proc/{process.pid}/task/{tid}/comm').read().strip()
               for tid in os.listdir(f'/proc/{process.pid}/task')}
    assert 'CPU 0/QTEST' in threads, threads
    process.terminate()
    _, _, err = finish(process)
    assert re.match(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z one ferry-system-x86_64: terminating',
                    err), err


def serial_ports(*args):
    process = ferry(*args, *LISTEN)
    qmp = QMP(path('qmp'))
    chardevs = {c['label']: c['filename'] for c in qmp.command('query-chardev')}
    devices = [d for d in qmp.command('qom-list', path='/machine/unattached')
               if 'serial' in d['type']]
    qmp.command('quit')
    assert finish(process)[0] == 0
    return len(devices), {k: v for k, v in chardevs.items() if k.startswith('serial')}


def test_default_serial():
    assert serial_ports() == (1, {'serial0': 'null'}), serial_ports()
    assert serial_ports('-nodefaults') == (0, {})
    assert serial_ports('-serial', 'none') == (0, {})
    assert serial_ports('-serial', 'null', '-serial', 'file:out')[0] == 2
    status, _, err = finish(ferry(*['-serial', 'null'] * 5))
    assert status == 1
    assert err == 'ferry-system-x86_64: -serial null: there are 4 serial ports at most\n', err


def test_nographic():
    """Serial port and monitor share a terminal; Ctrl-A c switches, Ctrl-A x ends."""
    master, slave = pty.openpty()

    def own_terminal():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = ferry('-nographic', stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
    os.close(slave)
    seen = ''

    def until(text):
        nonlocal seen
        end = time.monotonic() + DEADLINE_S
        while text not in seen:
            assert select.select([master], [], [], max(0, end - time.monotonic()))[0], seen
            seen += os.read(master, 4096).decode()
        seen = seen.split(text, 1)[1]

    # The terminal is raw as soon as the program reads it, and shows the guest's side.
    eventually(lambda: not termios.tcgetattr(master)[3] & termios.ECHO, 'raw terminal')
    os.write(master, b'\x01c')
    assert seen == ''
    until('(qemu) ')
    os.write(master, b'info status\r')
    until('VM status: running')
    os.write(master, b'\x01x')
    assert process.wait(DEADLINE_S) == 0
    os.close(master)


def test_wrong():
    for args, message in (
            (['-device', 'absent'], "-device absent: 'absent' is not a valid device model name"),
            (['-serial', 'absent:x'], '-serial absent:x: '),
            (['-qmp', 'chardev:absent'], '-qmp chardev:absent: '),
            (['-mon', 'absent'], '-mon absent: '),
            (['-chardev', 'absent,id=x'], '-chardev absent,id=x: '),
            (['-object', 'absent,id=x'], '-object absent,id=x: '),
            (['-qtest', 'absent:'], '-qtest absent:: '),
            (['-add-fd', 'fd=999,set=1'], '-add-fd'),
            (['-incoming', 'absent:x'], ''),
            (['-pidfile', '/absent/pid'], "Cannot open pid file '/absent/pid': No such file")):
        status, out, err = finish(ferry(*args))
        assert status == 1, (args, status, err)
        assert out == ''
        assert err.startswith('ferry-system-x86_64: ' + message), (args, err)


TESTS = [test_daemonize, test_daemonize_failure, test_signals, test_add_fd, test_names,
         test_default_serial, test_nographic, test_wrong]


def main():
    failed = False
    print(f'1..{len(TESTS)}')
    for number, test in enumerate(TESTS, 1):
        name = test.__name__[5:].replace('_', '-')
        try:
            test()
            print(f'ok {number} {name}', flush=True)
        except Exception as error:              # pylint: disable=broad-except
            failed = True
            line = error.__traceback__.tb_next.tb_lineno
            print(f'not ok {number} {name}')
            print(f'# line {line}: {error!r}'.replace('\n', '\n# '), flush=True)
        finally:
            for process in STARTED:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            STARTED.clear()
            for name in ('qmp', 'pid'):
                if os.path.exists(path(name)):
                    os.unlink(path(name))
    shutil.rmtree(WORK)
    return failed


if __name__ == '__main__':
    sys.exit(main())
