"""Back end: the schema as data, in the terms of qapi/introspect.json.

Commands and events come first, in order; then each type that they use, directly or not, in order
of first use. Type names are not part of the protocol, so they are replaced by numbers: nobody can
come to depend on them. Integer types all look the same on the wire and become 'int'.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import json

from .cnames import c_name
from .model import AlternateType, ArrayType, BuiltinType, Command, EnumType, Event, ObjectType

NO_MEMBERS = ObjectType('q_empty', 'struct', None, [], implicit=True)


class _Introspection:
    def __init__(self):
        self.infos = []
        self._numbers = {}
        self._used = []
        self._names_used = set()

    def describe(self, schema):
        """All SchemaInfo of @schema, as plain dictionaries."""
        for entity in schema.entities():
            if isinstance(entity, Command):
                self._add(entity.name, 'command', entity, self._command(entity))
            elif isinstance(entity, Event):
                self._add(entity.name, 'event', entity,
                          {'arg-type': self._use(entity.arg or NO_MEMBERS)})
        for type_ in self._used:        # grows meanwhile
            self._type(type_)
        return self.infos

    def _add(self, name, meta_type, entity, rest):
        info = {'name': name, 'meta-type': meta_type}
        _add_features(info, entity.features)
        info.update(rest)
        self.infos.append(info)

    def _name(self, type_):
        if isinstance(type_, ArrayType):
            return f'[{self._use(type_.element)}]'
        if isinstance(type_, BuiltinType):
            return 'int' if type_.json == 'int' else type_.name
        return self._numbers.setdefault(type_.name, str(len(self._numbers)))

    def _use(self, type_):
        """The name of @type_, which is described as well from now on."""
        name = self._name(type_)
        if name not in self._names_used:
            self._names_used.add(name)
            self._used.append(type_)
        return name

    def _command(self, command):
        info = {'arg-type': self._use(command.arg or NO_MEMBERS),
                'ret-type': self._use(command.ret or NO_MEMBERS)}
        if command.oob:
            info['allow-oob'] = True
        return info

    def _type(self, type_):
        name = self._name(type_)
        if isinstance(type_, BuiltinType):
            self._add(name, 'builtin', type_, {'json-type': type_.json})
        elif isinstance(type_, ArrayType):
            self._add(name, 'array', type_, {'element-type': self._use(type_.element)})
        elif isinstance(type_, EnumType):
            members = [_add_features({'name': value.name}, value.features)
                       for value in type_.values]
            self._add(name, 'enum', type_,
                      {'members': members, 'values': [value.name for value in type_.values]})
        elif isinstance(type_, AlternateType):
            self._add(name, 'alternate', type_,
                      {'members': [{'type': self._use(b.type)} for b in type_.branches]})
        else:
            self._add(name, 'object', type_, self._object(type_))

    def _object(self, type_):
        info = {'members': [self._member(member) for member in type_.members()]}
        if type_.tag:
            variants = [(branch.name, branch.type) for branch in type_.branches]
            listed = {name for name, _ in variants}
            variants += [(value.name, NO_MEMBERS) for value in type_.tag.type.values
                         if value.name not in listed]
            info['tag'] = type_.tag.name
            info['variants'] = [{'case': case, 'type': self._use(branch)}
                                for case, branch in variants]
        return info

    def _member(self, member):
        info = {'name': member.name, 'type': self._use(member.type)}
        if member.optional:
            info['default'] = None
        return _add_features(info, member.features)


def _add_features(info, features):
    if features:
        info['features'] = [feature.name for feature in features]
    return info


def describe(schema):
    """The value that query-qmp-schema returns."""
    return _Introspection().describe(schema)


def generate(schema, sink):
    """One pair of files: the description as JSON text."""
    header = sink.open('qapi-introspect', '.h', schema.root.path)
    source = sink.open('qapi-introspect', '.c', schema.root.path)
    name = c_name(sink.prefix, protect=False) + 'qmp_schema_json'
    header.add(f'/* An array of SchemaInfo as JSON text. */\nextern const char {name}[];\n')
    lines = [json.dumps(info, separators=(',', ':')) for info in describe(schema)]
    text = ''
    for number, line in enumerate(lines):
        comma = ',' if number + 1 < len(lines) else ''
        escaped = (line + comma).replace('\\', '\\\\').replace('"', '\\"')
        text += f'    "{escaped}"\n'
    source.add(sink.include('qapi-introspect'))
    source.add(f'const char {name}[] = "["\n{text}    "]";\n')
