#!/usr/bin/env python3
"""Unit tests of the QAPI generator, printing TAP.

Every tests/qapi-schema/NAME.json with a NAME.err beside it must be refused with exactly that
message; zoo.json, which has one of everything, must give the introspection in
zoo.introspect and the manual in zoo.md. What the generated C does is tested by test-qapi-visitor.c
and test-qapi-dispatch.c.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import contextlib
import io
import os
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCHEMAS = os.path.join(ROOT, 'tests', 'qapi-schema')
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, 'scripts'))

# pylint: disable=wrong-import-position
from qapi import cnames, gen_introspect, main, model  # noqa: E402


def generate(*arguments):
    """Run the generator's command line; return (exit status, stderr)."""
    err = io.StringIO()
    saved = sys.argv
    sys.argv = ['qapi-gen.py', *arguments]
    try:
        with contextlib.redirect_stderr(err):
            status = main.main()
    finally:
        sys.argv = saved
    return status, err.getvalue()


def read(path):
    """The text of a file."""
    with open(path, encoding='utf-8') as file:
        return file.read()


def check_equal(got, expected):
    """Fail with both texts."""
    if got != expected:
        raise AssertionError(f'got:\n{got}\nexpected:\n{expected}')


def check_refused(name):
    """A schema that is wrong in one way."""
    status, err = generate(f'{name}.json')
    check_equal(err, read(f'{name}.err'))
    check_equal(status, 1)


def format_info(info):
    """One SchemaInfo as a line, readable in a diff."""
    return ' '.join(f'{key}={value}' for key, value in info.items())


def test_introspection():
    """Names of types are numbers, in order of use; nothing unused is listed."""
    infos = gen_introspect.describe(model.Schema('zoo.json'))
    check_equal('\n'.join(format_info(info) for info in infos) + '\n', read('zoo.introspect'))


def test_references():
    """Every type that is referred to is described once."""
    infos = gen_introspect.describe(model.Schema(os.path.join(ROOT, 'qapi', 'qapi-schema.json')))
    names = [info['name'] for info in infos]
    check_equal(sorted(names), sorted(set(names)))
    for info in infos:
        used = [info[key] for key in ('arg-type', 'ret-type', 'element-type') if key in info]
        if info['meta-type'] in ('object', 'alternate'):
            used += [part['type'] for part in info['members'] + info.get('variants', [])]
        for name in used:
            if name not in names:
                raise AssertionError(f"{info['name']} uses {name}, which is not described")


def test_manual():
    """The manual of the zoo."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'zoo.md')
        check_equal(generate('-d', path, 'zoo.json'), (0, ''))
        check_equal(read(path), read('zoo.md'))


def test_unchanged():
    """A second run writes nothing; a file that was damaged is written again."""
    with tempfile.TemporaryDirectory() as folder:
        def stamps():
            return {name: os.stat(os.path.join(folder, name)).st_ino
                    for name in sorted(os.listdir(folder))}
        generate('-o', folder, 'zoo.json')
        before = stamps()
        generate('-o', folder, 'zoo.json')
        check_equal(stamps(), before)
        damaged = os.path.join(folder, 'qapi-types-zoo.h')
        text = read(damaged)
        with open(damaged, 'w', encoding='utf-8') as file:
            file.write('damaged')
        generate('-o', folder, 'zoo.json')
        check_equal(read(damaged), text)


def test_modules():
    """The list of modules that the build knows is checked."""
    check_equal(generate('-m', 'zoo-common', 'zoo.json'),
                (1, 'zoo.json:48: definitions belong in a file of their domain, not in the root '
                 'schema file\n'))
    check_equal(generate('-m', 'other', 'modules-root.json'),
                (1, "modules-root.json:1: 'zoo-common.json' must be included by the root schema "
                 'file itself\n'))
    check_equal(generate('-m', 'zoo-common', 'modules-root.json'), (0, ''))


def test_names():
    """C names, in QEMU's convention."""
    for name, expected in (('OnOffAuto', 'ON_OFF_AUTO'), ('IOThreadInfo', 'IO_THREAD_INFO'),
                           ('X86CPURegister32', 'X86_CPU_REGISTER32'),
                           ('QapiErrorClass', 'QAPI_ERROR_CLASS'), ('JSONType', 'JSON_TYPE'),
                           ('MigMode', 'MIG_MODE')):
        check_equal(cnames.c_upper(name), expected)
    check_equal(cnames.c_enum_const('SocketAddressType', 'unix'), 'SOCKET_ADDRESS_TYPE_UNIX')
    check_equal(cnames.c_enum_const('MigrationStatus', 'pre-switchover'),
                'MIGRATION_STATUS_PRE_SWITCHOVER')
    check_equal(cnames.c_enum_const('Foo', '_MAX'), 'FOO__MAX')
    for name, expected in (('unix', 'q_unix'), ('default', 'q_default'), ('512', 'q_512'),
                           ('max-bandwidth', 'max_bandwidth'), ('if', 'q_if')):
        check_equal(cnames.c_name(name), expected)


def run(tests):
    """Run @tests, a list of (name, function, arguments); return the number of failures."""
    failures = 0
    print(f'1..{len(tests)}')
    for number, (name, function, arguments) in enumerate(tests, 1):
        try:
            function(*arguments)
            print(f'ok {number} {name}')
        except Exception as err:  # pylint: disable=broad-except
            failures += 1
            print(f'not ok {number} {name}')
            for line in f'{type(err).__name__}: {err}'.split('\n'):
                print(f'# {line}')
    return failures


def all_tests():
    """Every test of this file and every schema with an expected error."""
    tests = [(function.__name__.replace('test_', '/qapi-generator/'), function, ())
             for function in (test_names, test_introspection, test_references, test_manual,
                              test_unchanged, test_modules)]
    names = sorted(name[:-4] for name in os.listdir('.') if name.endswith('.err'))
    assert names, 'no schemas found'
    tests += [(f'/qapi-generator/refused/{name}', check_refused, (name,)) for name in names]
    return tests


os.chdir(SCHEMAS)
sys.exit(1 if run(all_tests()) else 0)
