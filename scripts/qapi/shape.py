"""The form of each kind of statement: which keys, which values, which names.

Nothing here looks up a type; that is the model's job.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import re

from .error import SchemaError
from .parser import Arr, Obj

KINDS = {
    # kind: (required keys, optional keys)
    'enum': (('data',), ('features',)),
    'struct': (('data',), ('base', 'features')),
    'union': (('base', 'discriminator', 'data'), ('features',)),
    'alternate': (('data',), ('features',)),
    'command': ((), ('data', 'boxed', 'returns', 'features', 'success-response', 'allow-oob',
                     'allow-preconfig', 'gen')),
    'event': ((), ('data', 'boxed', 'features')),
}
BOOLEANS = ('boxed', 'success-response', 'allow-oob', 'allow-preconfig', 'gen')

# A vendor prefix `__com.example_` may stand before any name.
PREFIX = r'(?:__[a-z0-9.-]+_)?(?:x-)?'
TYPE_NAME = re.compile(PREFIX + r'[A-Z][A-Za-z0-9]*$')
LOWER_NAME = re.compile(PREFIX + r'[a-z][a-z0-9-]*$')
ANY_NAME = re.compile(PREFIX + r'[A-Za-z][A-Za-z0-9_.-]*$')
ENUM_VALUE = re.compile(PREFIX + r'[a-z0-9][a-z0-9-]*$')
ANY_ENUM_VALUE = re.compile(PREFIX + r'[A-Za-z0-9][A-Za-z0-9_.-]*$')
EVENT_NAME = re.compile(r'(?:__[A-Z0-9._]+)?[A-Z][A-Z0-9_]*$')
BUILTIN_NAMES = frozenset('''str int int8 int16 int32 int64 uint8 uint16 uint32 uint64 size
                             number bool null any'''.split())


def kind_of(expr):
    """Which of KINDS the statement @expr is."""
    kinds = [kind for kind in KINDS if kind in expr]
    if len(kinds) != 1:
        if not kinds:
            raise SchemaError(expr.place, 'statement is none of include, pragma, '
                              + ', '.join(KINDS))
        raise SchemaError(expr.places[kinds[1]],
                          f"statement is both '{kinds[0]}' and '{kinds[1]}'")
    return kinds[0]


def check_statement(expr, pragmas):
    """Check the form of @expr; return (kind, name)."""
    kind = kind_of(expr)
    name = expr[kind]
    place = expr.places[kind]
    if not isinstance(name, str):
        raise SchemaError(place, f"'{kind}' must be a string, the name")
    _check_name(kind, name, place, pragmas)
    what = f"{kind} '{name}'"
    required, optional = KINDS[kind]
    check_keys(expr, what, (kind,) + required, optional)
    for key in BOOLEANS:
        if key in expr and not isinstance(expr[key], bool):
            raise SchemaError(expr.places[key], f"{what}: '{key}' must be a boolean")
    if 'features' in expr:
        check_features(expr['features'], what, expr.places['features'])
    _CHECKS[kind](expr, name, what, pragmas)
    return kind, name


def _check_name(kind, name, place, pragmas):
    what = f"{kind} name '{name}'"
    if kind == 'event':
        if not EVENT_NAME.match(name):
            raise SchemaError(place, f'{what} must be UPPER_CASE')
    elif kind == 'command':
        if not LOWER_NAME.match(name):
            if name not in pragmas.lists['command-name-exceptions']:
                raise SchemaError(place, f"{what} must be lower-case with '-', or listed in pragma "
                                  "'command-name-exceptions'")
            if not ANY_NAME.match(name):
                raise SchemaError(place, f'{what} is invalid')
    else:
        if not TYPE_NAME.match(name):
            raise SchemaError(place, f'{what} must be CamelCase')
        if name.endswith('List'):
            raise SchemaError(place, f"{what} must not end in 'List', which is for arrays")


def check_keys(obj, what, required, optional):
    """Refuse an object that lacks one of @required or has a key beyond them and @optional."""
    for key in required:
        if key not in obj:
            raise SchemaError(obj.place, f"{what}: key '{key}' is missing")
    for key in obj:
        if key not in required and key not in optional:
            raise SchemaError(obj.places[key], f"{what}: unknown key '{key}'")


def check_features(features, what, place):
    """`features` is an array of names or {'name': ...}."""
    if not isinstance(features, Arr):
        raise SchemaError(place, f"{what}: 'features' must be an array")
    seen = set()
    for feature, where in zip(features, features.places):
        if isinstance(feature, Obj):
            check_keys(feature, f'{what}: feature', ('name',), ())
            feature = feature['name']
        if not isinstance(feature, str):
            raise SchemaError(where, f'{what}: a feature must be a string or an object')
        if not LOWER_NAME.match(feature):
            raise SchemaError(where, f"{what}: feature name '{feature}' is invalid")
        if feature in seen:
            raise SchemaError(where, f"{what}: feature '{feature}' is given twice")
        seen.add(feature)


def check_type_ref(value, what, place, arrays=True):
    """A type is a name or, with @arrays, ['NAME']."""
    if isinstance(value, Arr):
        if not arrays:
            raise SchemaError(place, f'{what} must not be an array')
        if len(value) != 1 or not isinstance(value[0], str):
            raise SchemaError(place, f'{what}: an array type must contain one type name')
    elif not isinstance(value, str):
        raise SchemaError(place, f'{what} must be a type name')


def check_members(members, name, what, pragmas):
    """The members of a struct, an implicit base or arguments."""
    for key in members:
        place = members.places[key]
        value = members[key]
        plain = key[1:] if key.startswith('*') else key
        exempt = name in pragmas.lists['member-name-exceptions']
        if not ANY_NAME.match(plain):
            raise SchemaError(place, f"{what}: member name '{plain}' is invalid")
        if not exempt and not LOWER_NAME.match(plain):
            raise SchemaError(place, f"{what}: member name '{plain}' must be lower-case with '-', "
                              f"or '{name}' be listed in pragma 'member-name-exceptions'")
        if plain == 'u' or plain.startswith(('has-', 'has_')):
            raise SchemaError(place, f"{what}: member name '{plain}' is reserved")
        if isinstance(value, Obj):
            check_keys(value, f"{what}: member '{plain}'", ('type',), ('features',))
            if 'features' in value:
                check_features(value['features'], f"{what}: member '{plain}'", place)
            value = value['type']
        check_type_ref(value, f"{what}: member '{plain}'", place)


def _check_enum(expr, name, what, pragmas):
    values = expr['data']
    if not isinstance(values, Arr):
        raise SchemaError(expr.places['data'], f"{what}: 'data' must be an array")
    exempt = name in pragmas.lists['member-name-exceptions']
    for value, place in zip(values, values.places):
        if isinstance(value, Obj):
            check_keys(value, f'{what}: value', ('name',), ('features',))
            if 'features' in value:
                check_features(value['features'], f'{what}: value', place)
            value = value['name']
        if not isinstance(value, str):
            raise SchemaError(place, f'{what}: a value must be a string or an object')
        if not (ANY_ENUM_VALUE if exempt else ENUM_VALUE).match(value):
            raise SchemaError(place, f"{what}: value '{value}' must be lower-case with '-', "
                              f"or '{name}' be listed in pragma 'member-name-exceptions'")


def _check_struct(expr, name, what, pragmas):
    if not isinstance(expr['data'], Obj):
        raise SchemaError(expr.places['data'], f"{what}: 'data' must be an object")
    check_members(expr['data'], name, what, pragmas)
    _check_base(expr, name, what, pragmas)


def _check_base(expr, name, what, pragmas):
    base = expr.get('base')
    if isinstance(base, Obj):
        check_members(base, name, f'{what}: base', pragmas)
    elif base is not None and not isinstance(base, str):
        raise SchemaError(expr.places['base'], f"{what}: 'base' must be a type name or an object")


def _check_union(expr, name, what, pragmas):
    _check_base(expr, name, what, pragmas)
    if not isinstance(expr['discriminator'], str):
        raise SchemaError(expr.places['discriminator'],
                          f"{what}: 'discriminator' must be a member name")
    _check_branches(expr, what, arrays=False)


def _check_alternate(expr, _name, what, _pragmas):
    _check_branches(expr, what, arrays=True)
    if not expr['data']:
        raise SchemaError(expr.places['data'], f"{what}: 'data' must not be empty")


def _check_branches(expr, what, arrays):
    if not isinstance(expr['data'], Obj):
        raise SchemaError(expr.places['data'], f"{what}: 'data' must be an object")
    for key, value in expr['data'].items():
        place = expr['data'].places[key]
        if not ANY_ENUM_VALUE.match(key):
            raise SchemaError(place, f"{what}: branch name '{key}' is invalid")
        if isinstance(value, Obj):
            check_keys(value, f"{what}: branch '{key}'", ('type',), ())
            value = value['type']
        check_type_ref(value, f"{what}: branch '{key}'", place, arrays)


def _check_arguments(expr, name, what, pragmas):
    data = expr.get('data')
    if isinstance(data, Obj):
        if expr.get('boxed'):
            raise SchemaError(expr.places['data'], f"{what}: 'boxed' needs a type name as 'data'")
        check_members(data, name, what, pragmas)
    elif data is not None and not isinstance(data, str):
        raise SchemaError(expr.places['data'], f"{what}: 'data' must be a type name or an object")
    elif expr.get('boxed') and data is None:
        raise SchemaError(expr.places['boxed'], f"{what}: 'boxed' needs 'data'")


def _check_command(expr, name, what, pragmas):
    _check_arguments(expr, name, what, pragmas)
    if 'returns' in expr:
        check_type_ref(expr['returns'], f"{what}: 'returns'", expr.places['returns'])
    if expr.get('success-response') is False and 'returns' in expr:
        raise SchemaError(expr.places['returns'],
                          f"{what}: returns nothing when 'success-response' is false")


_CHECKS = {'enum': _check_enum, 'struct': _check_struct, 'union': _check_union,
           'alternate': _check_alternate, 'command': _check_command, 'event': _check_arguments}
