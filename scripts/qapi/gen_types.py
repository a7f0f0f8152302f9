"""Back end: C types, and the functions that free them.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

from .cnames import c_name, c_type_name
from .model import BUILTINS, AlternateType, EnumType, ObjectType
from .output import declare, fill


def generate(schema, sink):
    """One pair of files per module and one for lists of built-in types."""
    if not sink.prefix:
        _builtin(sink)
    for module in schema.generated_modules():
        header = sink.open('qapi-types', '.h', module.path, module.name)
        source = sink.open('qapi-types', '.c', module.path, module.name)
        includes = '#include "qapi/qapi-types-builtin.h"\n'
        includes += ''.join(sink.include('qapi-types', m.name) for m in module.includes)
        header.add(includes)
        source.add(sink.include('qapi-types', module.name) + sink.include('qapi-visit', module.name)
                   + '#include "qapi/dealloc-visitor.h"\n')
        _module(module, header, source)


def _builtin(sink):
    header = sink.open('qapi-types', '.h', 'the built-in types', 'builtin')
    source = sink.open('qapi-types', '.c', 'the built-in types', 'builtin')
    header.add('#include "qapi/builtin.h"\n')
    source.add('#include "qapi/qapi-types-builtin.h"\n#include "qapi/qapi-visit-builtin.h"\n'
               '#include "qapi/dealloc-visitor.h"\n')
    for builtin in BUILTINS:
        if builtin.name == 'null':
            continue
        name = c_type_name(builtin.array().name)
        header.add(_list_typedef(name))
        header.add(_list_struct(builtin))
        header.add(_free_declaration(name))
        source.add(_free_definition(name))


def _module(module, header, source):
    types = [e for e in module.entities if isinstance(e, (EnumType, ObjectType, AlternateType))]
    for entity in types:
        if not isinstance(entity, EnumType):
            header.add(f'typedef struct {c_type_name(entity.name)} {c_type_name(entity.name)};\n')
        if not getattr(entity, 'implicit', False):
            header.add(_list_typedef(c_type_name(entity.name) + 'List'))
    for entity in types:
        if isinstance(entity, EnumType):
            header.add(_enum_declaration(entity))
            source.add(_enum_lookup(entity))
    done = set()
    for entity in types:
        _struct_after_parts(entity, module, done, header)
    for entity in types:
        if getattr(entity, 'implicit', False):
            continue
        name = c_type_name(entity.name)
        header.add(_list_struct(entity))
        for free in ([] if isinstance(entity, EnumType) else [name]) + [name + 'List']:
            header.add(_free_declaration(free))
            source.add(_free_definition(free))


def _list_typedef(name):
    return f'typedef struct {name} {name};\n'


def _list_struct(element):
    return fill('''
        struct @name@ {
            @name@ *next;
            @value@;
        };
        ''', name=c_type_name(element.name) + 'List', value=declare(element.c_type(), 'value'))


def _free_declaration(name):
    return fill('''
        void qapi_free_@name@(@name@ *obj);
        G_DEFINE_AUTOPTR_CLEANUP_FUNC(@name@, qapi_free_@name@)
        ''', name=name)


def _free_definition(name):
    return fill('''
        void qapi_free_@name@(@name@ *obj)
        {
            if (obj) {
                Visitor *v = qapi_dealloc_visitor_new();

                visit_type_@name@(v, NULL, &obj, NULL);
                visit_free(v);
            }
        }
        ''', name=name)


def _enum_declaration(enum):
    consts = ''.join(f'    {enum.const(value.name)},\n' for value in enum.values)
    return fill('''
        typedef enum @name@ {
        @consts@    @last@,
        } @name@;

        #define @name@_str(val) qapi_enum_lookup(&@name@_lookup, (val))
        extern const QEnumLookup @name@_lookup;
        ''', name=c_type_name(enum.name), consts=consts, last=enum.const('_MAX'))


def _enum_lookup(enum):
    names = ''.join(f'        [{enum.const(value.name)}] = "{value.name}",\n'
                    for value in enum.values)
    return fill('''
        const QEnumLookup @name@_lookup = {
            .array = (const char *const[]) {
        @names@        NULL,
            },
            .size = @last@,
        };
        ''', name=c_type_name(enum.name), names=names, last=enum.const('_MAX'))


def _struct_after_parts(entity, module, done, header):
    """Define what @entity holds by value first; the order of the schema otherwise."""
    if isinstance(entity, EnumType) or entity in done or entity.module is not module:
        return
    done.add(entity)
    for branch in entity.branches:
        if isinstance(branch.type, ObjectType):
            _struct_after_parts(branch.type, module, done, header)
    if isinstance(entity, AlternateType):
        header.add(_alternate_struct(entity))
        return
    header.add(_object_struct(entity))
    if entity.base and not entity.base.implicit:
        header.add(fill('''
            /* @name@ begins with the members of @base@, in the same layout. */
            static inline @base@ *qapi_@name@_base(const @name@ *obj)
            {
                return (@base@ *)obj;
            }
            ''', name=c_type_name(entity.name), base=c_type_name(entity.base.name)))


def _member_lines(members):
    text = ''
    for member in members:
        if member.needs_has():
            text += f'    bool has_{c_name(member.name, protect=False)};\n'
        text += f'    {declare(member.type.c_type(), c_name(member.name))};\n'
    return text


def _object_struct(entity):
    text = f'struct {c_type_name(entity.name)} {{\n'
    if entity.base and entity.base.members():
        text += f'    /* from {entity.base.name}: */\n' if not entity.base.implicit else ''
        text += _member_lines(entity.base.members())
        text += '    /* own: */\n' if entity.own else ''
    text += _member_lines(entity.own)
    if entity.kind == 'union':
        text += f'    union {{ /* by {entity.tag.name} */\n'
        for branch in entity.branches:
            if not branch.type.is_empty():
                text += f'        {branch.type.name} {c_name(branch.name)};\n'
        text += '    } u;\n'
    if entity.is_empty():
        text += '    char qapi_dummy_for_empty_struct;\n'
    return text + '};\n'


def _alternate_struct(entity):
    text = f'struct {c_type_name(entity.name)} {{\n    QType type;\n    union {{ /* by type */\n'
    for branch in entity.branches:
        # An object stands in the union itself; everything else as it does in a struct.
        c_type = c_type_name(branch.type.name) if isinstance(branch.type, ObjectType) \
            else branch.type.c_type()
        text += f'        {declare(c_type, c_name(branch.name))};\n'
    return text + '    } u;\n};\n'
