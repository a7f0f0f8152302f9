"""The checked model: entities with all names resolved.

Schema() parses, checks and resolves, or raises SchemaError. What it returns holds no reference to
the syntax but places; back ends read it and need no check of their own.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

from . import shape
from .cnames import c_enum_const, c_name, c_type_name
from .docs_check import check_doc
from .error import SchemaError
from .parser import Arr, Obj, Parser


class Feature:
    """A named property of an entity or member, without meaning to the C code."""

    def __init__(self, name, place):
        self.name = name
        self.place = place


class Entity:
    """Anything with a name: a type, command or event. @module is None for a built-in type."""

    kind = 'entity'

    def __init__(self, name, module=None, place=None, doc=None, features=()):
        self.name = name
        self.module = module
        self.place = place
        self.doc = doc
        self.features = list(features)

    def __str__(self):
        return f"{self.kind} '{self.name}'"


class Type(Entity):
    """@json is the JSON type of its values: string, int, number, boolean, null, object, array,
    or value when it may be any of them. @pointer: whether C holds it by pointer."""

    json = 'value'
    pointer = True

    def c_type(self):
        """The C type of a member, with the `*` of a pointer."""
        return c_type_name(self.name) + ' *'

    def c_param_type(self):
        """The C type of a parameter that the callee only reads."""
        return self.c_type()

    def array(self):
        """The array type of this element type."""
        return ArrayType(self)


class BuiltinType(Type):
    """A type that needs no definition. @visit is the suffix of its visitor function."""

    kind = 'built-in type'

    def __init__(self, name, json, c):
        super().__init__(name)
        self.json = json
        self._c = c
        self.pointer = c.endswith('*')

    def c_type(self):
        return self._c

    def c_param_type(self):
        return 'const char *' if self.name == 'str' else self._c


class EnumValue:
    """One value of an enum."""

    def __init__(self, name, features, place):
        self.name = name
        self.features = features
        self.place = place


class EnumType(Type):
    """An enumeration; its C type is an enum."""

    kind = 'enum'
    json = 'string'
    pointer = False

    def __init__(self, name, values, **rest):
        super().__init__(name, **rest)
        self.values = values

    def c_type(self):
        return c_type_name(self.name)

    def const(self, value):
        """The C constant of a value."""
        return c_enum_const(self.name, value)


class ArrayType(Type):
    """An array; in C a linked list, NULL when empty."""

    kind = 'array'
    json = 'array'

    def __init__(self, element):
        super().__init__(element.name + 'List', element.module)
        self.element = element

    def c_type(self):
        return c_type_name(self.name) + ' *'


class Member:
    """A member of an object or an argument."""

    def __init__(self, name, type_, optional, features, place):
        self.name = name
        self.type = type_
        self.optional = optional
        self.features = features
        self.place = place

    def needs_has(self):
        """Whether C tells presence by a has_ member.

        A scalar cannot be NULL; a list that is NULL is an empty one, an 'any' the JSON null.
        """
        return self.optional and (not self.type.pointer or self.type.kind == 'array'
                                  or self.type.name == 'any')


class Branch:
    """A branch of a union (an object type, or None when it adds nothing) or alternate."""

    def __init__(self, name, type_, place):
        self.name = name
        self.type = type_
        self.place = place


class ObjectType(Type):
    """A struct or, with @tag, a flat union. @implicit ones were written in line; they have no
    name of their own on the wire."""

    json = 'object'

    def __init__(self, name, kind, base, own, implicit=False, **rest):
        super().__init__(name, **rest)
        self.kind = kind
        self.base = base
        self.own = own
        self.implicit = implicit
        self.tag = None
        self.branches = []

    def members(self):
        """All members, inherited ones first, those of branches not counted."""
        return (self.base.members() if self.base else []) + self.own

    def is_empty(self):
        """True when no value of the type has any member."""
        return not self.members() and not self.branches


class AlternateType(Type):
    """A value that is of one of several types, told apart by its JSON type."""

    kind = 'alternate'

    def __init__(self, name, branches, **rest):
        super().__init__(name, **rest)
        self.branches = branches


class Command(Entity):
    """@arg is an ObjectType or None, @ret a Type or None."""

    kind = 'command'

    def __init__(self, name, arg, ret, expr, **rest):
        super().__init__(name, **rest)
        self.arg = arg
        self.ret = ret
        self.boxed = expr.get('boxed', False)
        self.success_response = expr.get('success-response', True)
        self.oob = expr.get('allow-oob', False)
        self.preconfig = expr.get('allow-preconfig', False)
        self.gen = expr.get('gen', True)


class Event(Entity):
    """@arg is an ObjectType or None."""

    kind = 'event'

    def __init__(self, name, arg, boxed, **rest):
        super().__init__(name, **rest)
        self.arg = arg
        self.boxed = boxed


BUILTINS = [
    BuiltinType('str', 'string', 'char *'),
    BuiltinType('number', 'number', 'double'),
    BuiltinType('int', 'int', 'int64_t'),
    BuiltinType('int8', 'int', 'int8_t'),
    BuiltinType('int16', 'int', 'int16_t'),
    BuiltinType('int32', 'int', 'int32_t'),
    BuiltinType('int64', 'int', 'int64_t'),
    BuiltinType('uint8', 'int', 'uint8_t'),
    BuiltinType('uint16', 'int', 'uint16_t'),
    BuiltinType('uint32', 'int', 'uint32_t'),
    BuiltinType('uint64', 'int', 'uint64_t'),
    BuiltinType('size', 'int', 'uint64_t'),
    BuiltinType('bool', 'boolean', 'bool'),
    BuiltinType('null', 'null', 'QNull *'),
    BuiltinType('any', 'value', 'struct json_object *'),
]

JSON_CLASS = {'int': 'number'}


class Schema:
    """A whole schema.

    @modules: in order of inclusion, the root first; each has @entities, all that it defines, in
    order, implicit types before what uses them, and @chapters: entities and free-form Docs.
    """

    def __init__(self, path):
        parser = Parser(path)
        self.root = parser.root
        self.modules = parser.modules
        self.pragmas = parser.pragmas
        self._types = {builtin.name: builtin for builtin in BUILTINS}
        self._others = {}
        self._expr = {}
        self._resolving = []
        for module in self.modules:
            module.entities = []
            module.chapters = []
        self._collect()
        for name in list(self._expr):
            self._resolve_name(name)
        self._order()
        for module in self.modules:
            for entity in module.entities:
                if not getattr(entity, 'implicit', False):
                    check_doc(entity, self.pragmas)

    def entities(self):
        """All entities, module by module."""
        for module in self.modules:
            yield from module.entities

    def generated_modules(self):
        """The modules that get files: all but a root that only includes others."""
        return [m for m in self.modules if m is not self.root or m.entities]

    # Names

    def _collect(self):
        self._chapters = []
        for module in self.modules:
            for statement in module.statements:
                if statement.expr is None:
                    self._chapters.append((module, statement.doc))
                    continue
                expr, doc = statement.expr, statement.doc
                kind, name = shape.check_statement(expr, self.pragmas)
                place = expr.places[kind]
                if name in self._expr or name in self._types:
                    before = self._expr.get(name)
                    where = f' at {before[1].place}' if before else ' as a built-in type'
                    raise SchemaError(place, f"'{name}' is already defined{where}")
                if doc and doc.symbol != name:
                    raise SchemaError(doc.place, f"documentation is for '{doc.symbol}', but the "
                                      f"definition is of '{name}'")
                self._expr[name] = (kind, expr, doc, module)
                self._chapters.append((module, name))

    def _resolve_name(self, name):
        """The entity called @name; builds it on first use."""
        if name in self._types:
            return self._types[name]
        if name in self._others:
            return self._others[name]
        kind, expr, doc, module = self._expr[name]
        build = getattr(self, '_build_' + kind)
        features = _features(expr.get('features'))
        rest = {'module': module, 'place': expr.places[kind], 'doc': doc, 'features': features}
        return build(name, expr, rest)

    def type_of(self, ref, user, place):
        """The type that @ref (a name or ['NAME']) means in the file of entity @user."""
        if isinstance(ref, Arr):
            return self.type_of(ref[0], user, place).array()
        if ref in self._types:
            found = self._types[ref]
        elif ref in self._expr and self._expr[ref][0] not in ('command', 'event'):
            found = self._resolve_name(ref)
        else:
            raise SchemaError(place, f"{user} uses unknown type '{ref}'")
        if found.module and not _sees(user.module, found.module):
            raise SchemaError(place, f"{user} uses '{ref}', which is defined in "
                              f"'{found.module.path}'; this file does not include that")
        return found

    # Building

    def _members(self, data, user):
        members = []
        for key, value in data.items():
            place = data.places[key]
            features = []
            if isinstance(value, Obj):
                features = _features(value.get('features'))
                value = value['type']
            name = key[1:] if key.startswith('*') else key
            type_ = self.type_of(value, user, place)
            members.append(Member(name, type_, key.startswith('*'), features, place))
        return members

    def _build_enum(self, name, expr, rest):
        values = []
        data = expr['data']
        entity = EnumType(name, values, **rest)
        seen = {}
        for value, place in zip(data, data.places):
            features = []
            if isinstance(value, Obj):
                features = _features(value.get('features'))
                value = value['name']
            const = entity.const(value)
            if const in seen or const.endswith('__MAX'):
                raise SchemaError(place, f"{entity}: value '{value}' collides with "
                                  f"'{seen.get(const, '_MAX')}'")
            seen[const] = value
            values.append(EnumValue(value, features, place))
        self._types[name] = entity
        return entity

    def _build_struct(self, name, expr, rest):
        return self._build_object(name, 'struct', expr, rest)

    def _build_union(self, name, expr, rest):
        entity = self._build_object(name, 'union', expr, rest)
        return entity

    def _build_object(self, name, kind, expr, rest):
        entity = ObjectType(name, kind, None, [], **rest)
        self._types[name] = entity
        entity.base = self._base(entity, expr)
        entity.unfinished = (kind, expr)
        return entity

    def _base(self, entity, expr):
        base = expr.get('base')
        if base is None:
            return None
        place = expr.places['base']
        if isinstance(base, Obj):
            implicit = ObjectType(f'q_obj_{entity.name}-base', 'struct', None, [], implicit=True,
                                  module=entity.module, place=place)
            implicit.unfinished = ('struct', {'data': base})
            self._types[implicit.name] = implicit
            implicit.named_for = entity
            return implicit
        found = self.type_of(base, entity, place)
        if not isinstance(found, ObjectType) or found.kind != 'struct':
            raise SchemaError(place, f"{entity}: base '{base}' is not a struct")
        return found

    def _build_alternate(self, name, expr, rest):
        entity = AlternateType(name, [], **rest)
        self._types[name] = entity
        entity.unfinished = ('alternate', expr)
        return entity

    def _argument(self, name, expr, user):
        data = expr.get('data')
        if data is None:
            return None
        place = expr.places['data']
        if isinstance(data, Obj):
            if not data:
                return None
            implicit = ObjectType(f'q_obj_{name}-arg', 'struct', None, [], implicit=True,
                                  module=user.module, place=place)
            implicit.named_for = user
            implicit.unfinished = ('struct', {'data': data})
            self._types[implicit.name] = implicit
            return implicit
        found = self.type_of(data, user, place)
        if not isinstance(found, ObjectType):
            raise SchemaError(place, f"{user}: 'data' must be a struct or union, '{data}' is not")
        if found.kind == 'union' and not expr.get('boxed'):
            raise SchemaError(place, f"{user}: 'data' of union type needs 'boxed': true")
        return found

    def _build_command(self, name, expr, rest):
        entity = Command(name, None, None, expr, **rest)
        self._others[name] = entity
        if 'returns' in expr:
            place = expr.places['returns']
            entity.ret = self.type_of(expr['returns'], entity, place)
            inner = entity.ret.element if entity.ret.kind == 'array' else entity.ret
            if inner.json != 'object' and \
                    name not in self.pragmas.lists['command-returns-exceptions']:
                raise SchemaError(place, f"{entity}: returns neither an object nor an array of "
                                  "objects and is not listed in pragma "
                                  "'command-returns-exceptions'")
        entity.arg = self._argument(name, expr, entity)
        return entity

    def _build_event(self, name, expr, rest):
        entity = Event(name, None, expr.get('boxed', False), **rest)
        self._others[name] = entity
        entity.arg = self._argument(name, expr, entity)
        return entity

    # Finishing: members, branches and clashes, once every base is known

    def _order(self):
        for entity in list(self._types.values()):
            if isinstance(entity, ObjectType):
                self._check_base_loop(entity)
        for entity in list(self._types.values()):
            if isinstance(entity, ObjectType):
                user = getattr(entity, 'named_for', entity)
                entity.own = self._members(entity.unfinished[1]['data'], user) \
                    if entity.kind == 'struct' else []
        for entity in list(self._types.values()):
            if isinstance(entity, ObjectType):
                self._finish_object(entity)
            elif isinstance(entity, AlternateType):
                self._finish_alternate(entity)
        for entity in self._types.values():
            if isinstance(entity, ObjectType) and entity.branches:
                self._check_branch_loop(entity, [])
        for module, what in self._chapters:
            if not isinstance(what, str):
                module.chapters.append(what)
                continue
            entity = self._types.get(what) or self._others[what]
            for implicit in (f'q_obj_{what}-base', f'q_obj_{what}-arg'):
                if implicit in self._types:
                    module.entities.append(self._types[implicit])
            module.entities.append(entity)
            module.chapters.append(entity)

    @staticmethod
    def _check_base_loop(entity):
        seen = [entity]
        base = entity.base
        while base:
            if base in seen:
                raise SchemaError(entity.place, f'{entity} contains itself')
            seen.append(base)
            base = base.base

    def _check_branch_loop(self, entity, outer):
        if entity in outer:
            raise SchemaError(entity.place, f'{entity} contains itself')
        for branch in entity.branches:
            if branch.type:
                self._check_branch_loop(branch.type, outer + [entity])

    def _finish_object(self, entity):
        user = getattr(entity, 'named_for', entity)
        seen = {}
        for member in entity.members():
            c = c_name(member.name)
            if c in seen:
                place = member.place if member in entity.own else entity.place
                raise SchemaError(place, f"{user}: member '{member.name}' collides with "
                                  f"{_describe(seen[c], entity)}")
            seen[c] = member
        if entity.kind == 'union':
            self._finish_union(entity, entity.unfinished[1])

    def _finish_union(self, entity, expr):
        wanted = expr['discriminator']
        place = expr.places['discriminator']
        tag = next((m for m in entity.members() if m.name == wanted), None)
        if not tag:
            raise SchemaError(place, f"{entity}: discriminator '{wanted}' is not a member of the "
                              'base')
        if not isinstance(tag.type, EnumType):
            raise SchemaError(place, f"{entity}: discriminator '{wanted}' is not of enum type")
        if tag.optional:
            raise SchemaError(place, f"{entity}: discriminator '{wanted}' must not be optional")
        entity.tag = tag
        common = {c_name(m.name): m for m in entity.members()}
        known = [value.name for value in tag.type.values]
        data = expr['data']
        for key, value in data.items():
            where = data.places[key]
            ref = value['type'] if isinstance(value, Obj) else value
            if key not in known:
                raise SchemaError(where, f"{entity}: branch '{key}' is not a value of {tag.type}")
            type_ = self.type_of(ref, entity, where)
            if not isinstance(type_, ObjectType):
                raise SchemaError(where, f"{entity}: branch '{key}' is not of struct or union type")
            for member in type_.members():
                if c_name(member.name) in common:
                    raise SchemaError(where, f"{entity}: member '{member.name}' of branch '{key}' "
                                      f"collides with member '{member.name}' of the base")
            entity.branches.append(Branch(key, type_, where))

    def _finish_alternate(self, entity):
        data = entity.unfinished[1]['data']
        seen = {}
        for key, value in data.items():
            where = data.places[key]
            ref = value['type'] if isinstance(value, Obj) else value
            type_ = self.type_of(ref, entity, where)
            if isinstance(type_, AlternateType) or type_.json == 'value':
                raise SchemaError(where, f"{entity}: branch '{key}' cannot use type "
                                  f"'{type_.name}'")
            json = JSON_CLASS.get(type_.json, type_.json)
            if json in seen:
                raise SchemaError(where, f"{entity}: branch '{key}' can't be distinguished from "
                                  f"'{seen[json]}'")
            seen[json] = key
            entity.branches.append(Branch(key, type_, where))


def _describe(member, entity):
    if member in entity.own or entity.implicit:
        return f"member '{member.name}'"
    return f"member '{member.name}' of the base"


def _features(value):
    if not value:
        return []
    return [Feature(f['name'] if isinstance(f, Obj) else f, place)
            for f, place in zip(value, value.places)]


def _sees(module, other):
    """Whether @module is or includes, directly or not, @other."""
    todo, seen = [module], set()
    while todo:
        current = todo.pop()
        if current is other:
            return True
        if current not in seen:
            seen.add(current)
            todo.extend(current.includes)
    return False
