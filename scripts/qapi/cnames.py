"""How schema names become C names.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import re

# Keywords of C and C++ (generated headers may be read by a C++ compiler), names with a special
# meaning to the C library, and macros that compilers define without being asked.
RESERVED = frozenset('''
    auto break case char const continue default do double else enum extern float for goto if int
    long register return short signed sizeof static struct switch typedef union unsigned void
    volatile while inline restrict _Bool _Complex _Imaginary _Alignas _Alignof _Atomic _Generic
    _Noreturn _Static_assert _Thread_local asm typeof
    bool catch class const_cast delete dynamic_cast explicit false friend mutable namespace new
    operator private protected public reinterpret_cast static_cast template this throw true try
    typeid typename using virtual wchar_t and and_eq bitand bitor compl not not_eq or or_eq xor
    xor_eq
    unix errno linux i386 mips sparc
    '''.split())

_BOUNDARY = re.compile(r'(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])')


def c_name(name, protect=True):
    """A C identifier for @name; with @protect never a reserved word."""
    result = re.sub(r'[^A-Za-z0-9_]', '_', name)
    if protect and (result in RESERVED or result[:1].isdigit()):
        return 'q_' + result
    return result


def c_type_name(name):
    """What type @name is called inside identifiers; C keywords are no types of a schema."""
    return c_name(name, protect=False)


def c_upper(name):
    """CamelCase or lower-case to UPPER_CASE: IOThreadInfo -> IO_THREAD_INFO."""
    return c_name(_BOUNDARY.sub('_', name), protect=False).upper()


def c_enum_const(type_name, value):
    """The enumeration constant of @value: OnOffAuto, auto -> ON_OFF_AUTO_AUTO."""
    return c_upper(type_name) + '_' + c_name(value, protect=False).upper()
