#!/usr/bin/python3
"""ferry-nbd as a program: its options, its life and its end.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from nbd_lib import (DEADLINE_S, FERRY_NBD, KIB, MIB, SOCKET, URI, WRITE, Client, Server, eventually,  # noqa: E402
                     main, path, pattern, read_file, run, write_file)

SIZE = MIB


def image(name='img'):
    return write_file(name, pattern(SIZE))


def refused(*args):
    """What it says when it does not start."""
    err = run(FERRY_NBD, *args, status=1)
    assert err.startswith('ferry-nbd: '), err
    return err[len('ferry-nbd: '):]


def alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as f:
            return f.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except FileNotFoundError:
        return False


# ---- life ----

def test_help_and_version():
    assert 'Usage: ferry-nbd' in run(FERRY_NBD, '--help')
    assert run(FERRY_NBD, '-V').startswith('ferry-nbd ')


def test_refused():
    image()
    assert refused() == "no image given\nTry 'ferry-nbd --help'\n"
    assert refused('-f', 'raw', 'missing').startswith("Could not open 'missing': No such file or directory")
    assert 'qcow9' in refused('-f', 'qcow9', 'img')
    assert 'magic' in refused('-f', 'qcow2', 'img').lower() or 'qcow2' in refused('-f', 'qcow2', 'img')
    assert 'no/such' in refused('-k', 'no/such/socket', '-f', 'raw', 'img')
    assert refused('-f', 'raw', '-B', 'b', 'img') == "Bitmap 'b' is not found\n"
    assert 'too long' in refused('-f', 'raw', '-x', 'x' * 4097, 'img')
    assert 'too long' in refused('-f', 'raw', '-D', 'x' * 4097, 'img')
    assert "images of format 'raw' have no internal snapshots" in refused('-f', 'raw', '-l', 'snap', 'img')
    assert not os.path.exists(SOCKET)


def test_ends_with_the_last_client():
    server = Server('-f', 'raw', '-e', '2', image())
    # Who only looks, or breaks off, is not counted.
    run('nbdinfo', '--list', URI)
    Client(None).close()
    first, second = Client(), Client()
    first.disconnect()
    assert second.read(0, 512) == pattern(SIZE)[:512]
    assert server.process.poll() is None
    second.close()
    assert server.process.wait(timeout=DEADLINE_S) == 0
    assert not os.path.exists(SOCKET)


def test_signals():
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        server = Server('-t', '-f', 'raw', image())
        c = Client()
        assert c.error(WRITE, 0, 512, data=b'y' * 512) == 0
        server.process.send_signal(number)
        assert server.process.wait(timeout=DEADLINE_S) == 0
        assert c.closed() and not os.path.exists(SOCKET)
        assert read_file('img')[:512] == b'y' * 512


def test_fork():
    pid_file = path('pid')
    out = run(FERRY_NBD, '--fork', '--pid-file', 'pid', '-t', '-k', 'sock', '-f', 'raw', image())
    assert out == ''
    pid = int(open(pid_file).read())
    try:
        # It listens already; and it is somebody else's child.
        c = Client()
        assert c.read(0, 512) == pattern(SIZE)[:512]
        assert os.getsid(pid) != os.getsid(0)
        assert os.readlink(f'/proc/{pid}/fd/2') == '/dev/null'
        c.close()
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not alive(pid), 'the end')
    assert not os.path.exists(pid_file) and not os.path.exists(SOCKET)
    assert 'Could not open' in refused('--fork', '-k', 'sock', '-f', 'raw', 'missing')


def test_pid_file_is_locked():
    with Server('-t', '-f', 'raw', '--pid-file', 'pid', image()):
        # It listens before it has the pid file.
        eventually(lambda: os.path.exists(path('pid')) and open(path('pid')).read(), 'the pid file')
        assert 'Cannot lock pid file' in refused('-t', '--pid-file', 'pid', '-k', 'other', '-f', 'raw', '-r',
                                                 write_file('img2', pattern(SIZE)))
        assert os.path.exists(path('pid')) and not os.path.exists(path('other'))


def test_image_is_locked():
    with Server('-t', '-f', 'raw', image()):
        assert 'lock' in refused('-k', 'other', '-f', 'raw', 'img')
    with Server('-t', '-r', '-f', 'raw', path('img')):
        with Server('-t', '-r', '-f', 'raw', path('img'), sock=path('other')):
            assert 'lock' in refused('-k', 'third', '-f', 'raw', 'img')


def activate(sockets, *args, pid=None, fds=None):
    """Start it with sockets that listen already, as systemd does."""
    code = ('import os, sys\n'
            'fds = [int(a) for a in sys.argv[1].split(",")]\n'
            'high = [os.dup(os.dup(fd)) for fd in fds for unused in range(1)]\n'
            'for i, fd in enumerate(high): os.dup2(fd, 100 + i)\n'
            'for i in range(len(high)): os.dup2(100 + i, 3 + i)\n'
            'os.environ["LISTEN_PID"] = sys.argv[2] or str(os.getpid())\n'
            'os.environ["LISTEN_FDS"] = sys.argv[3] or str(len(fds))\n'
            'os.execv(sys.argv[4], sys.argv[4:])\n')
    numbers = [s.fileno() for s in sockets]
    return subprocess.Popen([sys.executable, '-c', code, ','.join(map(str, numbers)), str(pid or ''),
                             str(fds or ''), FERRY_NBD, *args], pass_fds=numbers, cwd=path('.'),
                            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_socket_activation():
    names = [path('one'), path('two')]
    sockets = []
    for name in names:
        s = socket.socket(socket.AF_UNIX)
        s.bind(name)
        s.listen()
        sockets.append(s)
    process = activate(sockets, '-e', '2', '-f', 'raw', image())
    try:
        clients = [Client(sock=name) for name in names]
        for c in clients:
            assert c.read(0, 512) == pattern(SIZE)[:512]
        for c in clients:
            c.close()
        assert process.wait(timeout=DEADLINE_S) == 0, process.stderr.read()
    finally:
        process.kill()
    for kwargs, args, message in (
            ({}, ['-k', 'x'], 'an address cannot be given together with socket activation'),
            ({'fds': 'many'}, [], 'LISTEN_FDS'), ({'fds': 9}, [], 'is not open')):
        process = activate(sockets, '-f', 'raw', *args, path('img'), **kwargs)
        unused, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1 and message in err, err
    # Another process was meant: the sockets are not ours.
    process = activate(sockets, '-t', '-k', SOCKET, '-f', 'raw', path('img'), pid=1)
    try:
        eventually(lambda: os.path.exists(SOCKET), 'its own socket')
    finally:
        process.terminate()
        process.wait(timeout=DEADLINE_S)


# ---- what is served ----

def test_probing():
    """Without -f: raw with a warning; what clients write does not change what is served now."""
    with Server('-t', image()) as server:
        c = Client()
        assert c.size == SIZE
        assert 'give its format with -f raw' in server.read_log()
        c.close()
    run('qemu-img', 'create', '-f', 'qcow2', 'q.qcow2', '3M')
    with Server('-t', path('q.qcow2')) as server:
        c = Client()
        assert c.size == 3 * MIB and server.read_log() == ''
        c.close()


def test_offset():
    with Server('-t', '-f', 'raw', '-o', '64k', image()):
        c = Client()
        assert c.size == SIZE - 64 * KIB
        assert c.read(0, 4096) == pattern(SIZE)[64 * KIB:64 * KIB + 4096]
        assert c.error(WRITE, 1, 3, data=b'abc') == 0
        c.close()
    assert read_file('img')[64 * KIB + 1:64 * KIB + 4] == b'abc'
    assert 'Offset' in refused('-f', 'raw', '-o', '2M', 'img')


def test_port_too_high():
    assert refused('-b', '127.0.0.1', '-p', '99999', '-f', 'raw', image()) == (
        'address resolution failed for 127.0.0.1:99999: a port is at most 65535\n')


def test_image_opts():
    with Server('-t', '--image-opts', f'driver=raw,size=4096,file.driver=file,file.filename={image()}'):
        c = Client()
        assert c.size == 4096 and c.read(0, 4096) == pattern(SIZE)[:4096]
        c.close()
    # What has a filename is a file.
    with Server('-t', '--image-opts', f'driver=raw,size=4096,file.filename={image()}'):
        c = Client()
        assert c.size == 4096
        c.close()
    assert 'nonsense' in refused('--image-opts', 'driver=nonsense')
    assert 'nonsense' in refused('--image-opts', 'driver=raw,nonsense=1,file.driver=file,file.filename=img')


def test_cache_modes():
    for mode in 'writeback', 'writethrough', 'none', 'directsync', 'unsafe':
        for aio in 'threads', 'io_uring', 'native':
            if aio == 'native' and mode not in ('none', 'directsync'):
                continue
            with Server('-t', '-f', 'raw', f'--cache={mode}', f'--aio={aio}', image()):
                c = Client()
                assert c.error(WRITE, 5, 1000, data=pattern(2048, 2)[:1000]) == 0
                assert c.read(0, 8192) == pattern(SIZE)[:5] + pattern(2048, 2)[:1000] + pattern(SIZE)[1005:8192]
                assert c.error(WRITE, 8192, 4096, data=pattern(4096, 3)) == 0
                assert c.read(8192, 4096) == pattern(4096, 3)
                c.disconnect()
            assert read_file('img')[8192:12288] == pattern(4096, 3)


def test_detect_zeroes():
    with Server('-t', '-f', 'raw', '--discard=unmap', '--detect-zeroes=unmap', image()):
        c = Client()
        assert c.error(WRITE, 0, SIZE, data=bytes(SIZE)) == 0
        c.disconnect()
    assert read_file('img') == bytes(SIZE) and os.stat(path('img')).st_blocks == 0


def test_qcow2():
    """A format of its own, with a backing file: served in one thread, by many connections."""
    write_file('base', pattern(16 * MIB))
    run('qemu-img', 'create', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'top.qcow2')
    model = bytearray(pattern(16 * MIB))
    with Server('-t', '-e', '0', '-A', '-f', 'qcow2', path('top.qcow2')):
        clients = [Client(metas=['qemu:allocation-depth']) for unused in range(8)]
        for i, c in enumerate(clients):
            data = pattern(128 * KIB, i + 2)
            assert c.error(WRITE, i * MIB, len(data), data=data) == 0
            model[i * MIB:i * MIB + len(data)] = data
        for i, c in enumerate(clients):
            assert c.read(i * MIB, MIB) == clients[0].read(i * MIB, MIB) == model[i * MIB:(i + 1) * MIB]
        got = clients[3].status(0, 2 * MIB)[clients[3].metas['qemu:allocation-depth']]
        assert got == [(128 * KIB, 1), (MIB - 128 * KIB, 2)] * 2, got
        run('nbdcopy', URI, 'out')
        assert read_file('out') == model
        for c in clients:
            c.disconnect()
    run('qemu-img', 'check', 'top.qcow2')
    assert read_file('base') == pattern(16 * MIB)


def test_bitmaps():
    run('qemu-img', 'create', '-f', 'qcow2', 'b.qcow2', '8M')
    run('qemu-img', 'bitmap', '--add', '-g', '64k', 'b.qcow2', 'one')
    run('qemu-io', '-f', 'qcow2', '-c', 'write 1M 128k', 'b.qcow2')
    run('qemu-img', 'bitmap', '--add', '-g', '64k', 'b.qcow2', 'two')
    run('qemu-io', '-f', 'qcow2', '-c', 'write 4M 1', 'b.qcow2')
    run('qemu-img', 'bitmap', '--disable', 'b.qcow2', 'one')
    run('qemu-img', 'bitmap', '--disable', 'b.qcow2', 'two')
    with Server('-t', '-r', '-f', 'qcow2', '-B', 'one', '-B', 'two', path('b.qcow2')):
        names = ['qemu:dirty-bitmap:one', 'qemu:dirty-bitmap:two']
        out = run('nbdinfo', '--list', '--json', URI)
        assert all(name in out for name in names), out
        for mode in 'structured', 'extended':
            c = Client(mode, metas=names)
            got = c.status(0, 8 * MIB)
            assert got[c.metas[names[0]]] == [(MIB, 0), (128 * KIB, 1), (3 * MIB - 128 * KIB, 0), (64 * KIB, 1),
                                              (4 * MIB - 64 * KIB, 0)], got
            assert got[c.metas[names[1]]] == [(4 * MIB, 0), (64 * KIB, 1), (4 * MIB - 64 * KIB, 0)], got
            c.disconnect()
    assert 'named twice' in refused('-r', '-f', 'qcow2', '-B', 'one', '-B', 'one', 'b.qcow2') or \
        'in use' in refused('-r', '-f', 'qcow2', '-B', 'one', '-B', 'one', 'b.qcow2')


def test_snapshot():
    run('qemu-img', 'create', '-f', 'qcow2', 's.qcow2', '8M')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 8M', 's.qcow2')
    run('qemu-img', 'snapshot', '-c', 'then', 's.qcow2')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 0 8M', 's.qcow2')
    before = read_file('s.qcow2')
    for which in 'then', '1', 'snapshot.name=then':
        with Server('-t', '-f', 'qcow2', '-l', which, path('s.qcow2')):
            run('nbdcopy', URI, 'out')
            assert read_file('out') == b'\1' * (8 * MIB)
            c = Client()
            assert c.error(WRITE, 0, 512, data=bytes(512)) == 1        # NBD_EPERM
            c.disconnect()
    assert read_file('s.qcow2') == before
    message = refused('-f', 'qcow2', '-l', 'now', 's.qcow2')
    assert message == "Could not load snapshot 'now' of 's.qcow2': there is no snapshot of the name now\n", message
    assert 'do not go together' in refused('-l', 'then', '-o', '512', 's.qcow2')
    assert 'do not go together' in refused('-l', 'then', '-B', 'b', 's.qcow2')


def test_list():
    with Server('-t', '-e', '0', '-f', 'raw', '-x', 'disk', '-D', 'my own', '-A', image()):
        out = run(FERRY_NBD, '-L', '-k', 'sock')
        assert out.splitlines() == [
            'exports available: 1', " export: 'disk'", '  description: my own', f'  size:  {SIZE}',
            '  flags: 0xded ( flush fua trim zeroes df multi cache fast-zero )', '  min block: 1',
            '  opt block: 4096', '  max block: 33554432', '  available meta contexts: 2', '   base:allocation',
            '   qemu:allocation-depth'], out
        theirs = run('qemu-nbd', '-L', '-k', SOCKET)
        for line in out.splitlines():
            if 'flags' not in line:
                assert line in theirs.splitlines(), (line, theirs)
    assert 'Failed to connect' in refused('-L', '-k', 'sock')


def test_verbose():
    with Server('-t', '-v', '-f', 'raw', image()) as server:
        c = Client()
        c.error(99)
        c.disconnect()
        eventually(lambda: 'has left' in server.read_log(), 'words')
        log = server.read_log()
        for words in 'has connected', "uses export ''", 'refused unknown', 'the command is not known':
            assert words in log, log


main(dict(globals()))
