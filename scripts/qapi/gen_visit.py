"""Back end: visitor functions.

visit_type_X_members() walks the members of an object in place; visit_type_X() allocates, walks and
checks a whole value.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

from .cnames import c_name, c_type_name
from .model import BUILTINS, AlternateType, EnumType, ObjectType
from .output import fill, fill_indented

QTYPES = {'string': 'QTYPE_QSTRING', 'int': 'QTYPE_QNUM', 'number': 'QTYPE_QNUM',
          'boolean': 'QTYPE_QBOOL', 'null': 'QTYPE_QNULL', 'object': 'QTYPE_QDICT',
          'array': 'QTYPE_QLIST'}


def generate(schema, sink):
    """One pair of files per module and one for lists of built-in types."""
    if not sink.prefix:
        _builtin(sink)
    for module in schema.generated_modules():
        header = sink.open('qapi-visit', '.h', module.path, module.name)
        source = sink.open('qapi-visit', '.c', module.path, module.name)
        header.add('#include "qapi/qapi-visit-builtin.h"\n'
                   + ''.join(sink.include('qapi-visit', m.name) for m in module.includes)
                   + sink.include('qapi-types', module.name))
        source.add(sink.include('qapi-visit', module.name) + '#include "util/error.h"\n')
        for entity in module.entities:
            _entity(entity, header, source)


def _builtin(sink):
    header = sink.open('qapi-visit', '.h', 'the built-in types', 'builtin')
    source = sink.open('qapi-visit', '.c', 'the built-in types', 'builtin')
    header.add('#include "qapi/visitor.h"\n#include "qapi/qapi-types-builtin.h"\n')
    source.add('#include "qapi/qapi-visit-builtin.h"\n#include "util/error.h"\n')
    for builtin in BUILTINS:
        if builtin.name != 'null':
            _list(builtin, header, source)


def _entity(entity, header, source):
    if isinstance(entity, ObjectType):
        _members(entity, header, source)
        if entity.implicit:
            return
        _object(entity, header, source)
    elif isinstance(entity, EnumType):
        _enum(entity, header, source)
    elif isinstance(entity, AlternateType):
        _alternate(entity, header, source)
    else:
        return
    _list(entity, header, source)


def _declare(name, star, header):
    header.add(f'bool visit_type_{name}(Visitor *v, const char *name, {name} {star}obj, '
               'Error **errp);\n')


def _enum(entity, header, source):
    name = c_type_name(entity.name)
    _declare(name, '*', header)
    source.add('''
        bool visit_type_@name@(Visitor *v, const char *name, @name@ *obj, Error **errp)
        {
            int value = *obj;
            bool ok = visit_type_enum(v, name, &value, &@name@_lookup, errp);

            *obj = value;
            return ok;
        }
        ''', name=name)


def _members(entity, header, source):
    name = c_type_name(entity.name)
    header.add(f'bool visit_type_{name}_members(Visitor *v, {name} *obj, Error **errp);\n')
    body, flags = '', ''
    if entity.base:
        base = c_type_name(entity.base.name)
        body += _checked(f'visit_type_{base}_members(v, ({base} *)obj, errp)')
    for member in entity.own:
        c = c_name(member.name)
        flag = f'obj->has_{c_name(member.name, protect=False)}'
        if member.optional and not member.needs_has():
            flag = f'has_{c_name(member.name, protect=False)}'
            flags += f'    bool {flag} = obj->{c} != NULL;\n'
        visit = f'visit_type_{c_type_name(member.type.name)}(v, "{member.name}", &obj->{c}, errp)'
        if member.optional:
            body += f'    if (visit_optional(v, "{member.name}", &{flag})) {{\n'
            body += _checked(visit, '        ') + '    }\n'
        else:
            body += _checked(visit)
    if entity.kind == 'union':
        body += _branches(entity)
    flags += '\n' if flags else ''
    source.add('''
        bool visit_type_@name@_members(Visitor *v, @name@ *obj, Error **errp)
        {
        @flags@@body@    return true;
        }
        ''', name=name, flags=flags, body=body)


def _checked(call, indent='    '):
    return f'{indent}if (!{call}) {{\n{indent}    return false;\n{indent}}}\n'


def _branches(entity):
    tag = f'obj->{c_name(entity.tag.name)}'
    text = f'    switch ({tag}) {{\n'
    covered = set()
    for branch in entity.branches:
        covered.add(branch.name)
        text += f'    case {entity.tag.type.const(branch.name)}:\n'
        if branch.type.is_empty():
            text += '        break;\n'
        else:
            text += (f'        return visit_type_{c_type_name(branch.type.name)}_members(v, '
                     f'&obj->u.{c_name(branch.name)}, errp);\n')
    rest = [value.name for value in entity.tag.type.values if value.name not in covered]
    for value in rest:
        text += f'    case {entity.tag.type.const(value)}:\n'
    if rest:
        text += '        break;\n'
    return text + '    default:\n        abort();\n    }\n'


def _object(entity, header, source):
    name = c_type_name(entity.name)
    _declare(name, '**', header)
    source.add('''
        bool visit_type_@name@(Visitor *v, const char *name, @name@ **obj, Error **errp)
        {
            bool ok = false;

            if (!visit_start_struct(v, name, (void **)obj, sizeof(@name@), errp)) {
                return false;
            }
            if (!*obj) {
                /* incomplete, which only deallocation may see */
                g_assert(visit_is_dealloc(v));
                ok = true;
                goto out;
            }
            if (visit_type_@name@_members(v, *obj, errp)) {
                ok = visit_check_struct(v, errp);
            }
        out:
            visit_end_struct(v, (void **)obj);
            if (!ok && visit_is_input(v)) {
                qapi_free_@name@(*obj);
                *obj = NULL;
            }
            return ok;
        }
        ''', name=name)


def _list(element, header, source):
    name = c_type_name(element.name) + 'List'
    _declare(name, '**', header)
    source.add('''
        bool visit_type_@name@(Visitor *v, const char *name, @name@ **obj, Error **errp)
        {
            bool ok = false;
            @name@ *tail;
            size_t size = sizeof(**obj);

            if (!visit_start_list(v, name, (GenericList **)obj, size, errp)) {
                return false;
            }
            for (tail = *obj; tail;
                 tail = (@name@ *)visit_next_list(v, (GenericList *)tail, size)) {
                if (!visit_type_@element@(v, NULL, &tail->value, errp)) {
                    goto out;
                }
            }
            ok = visit_check_list(v, errp);
        out:
            visit_end_list(v, (void **)obj);
            if (!ok && visit_is_input(v)) {
                qapi_free_@name@(*obj);
                *obj = NULL;
            }
            return ok;
        }
        ''', name=name, element=c_type_name(element.name))


def _alternate(entity, header, source):
    name = c_type_name(entity.name)
    _declare(name, '**', header)
    cases = ''
    for branch in entity.branches:
        c = c_name(branch.name)
        type_name = c_type_name(branch.type.name)
        cases += f'    case {QTYPES[branch.type.json]}:\n'
        if isinstance(branch.type, ObjectType):
            cases += fill_indented(8, '''
                        if (!visit_start_struct(v, name, NULL, 0, errp)) {
                            break;
                        }
                        if (visit_type_@type@_members(v, &(*obj)->u.@c@, errp)) {
                            ok = visit_check_struct(v, errp);
                        }
                        visit_end_struct(v, NULL);
                ''', type=type_name, c=c)
        else:
            cases += f'        ok = visit_type_{type_name}(v, name, &(*obj)->u.{c}, errp);\n'
        cases += '        break;\n'
    source.add('''
        bool visit_type_@name@(Visitor *v, const char *name, @name@ **obj, Error **errp)
        {
            bool ok = false;

            if (!visit_start_alternate(v, name, (GenericAlternate **)obj, sizeof(**obj), errp)) {
                return false;
            }
            if (!*obj) {
                g_assert(visit_is_dealloc(v));
                ok = true;
                goto out;
            }
            switch ((*obj)->type) {
        @cases@    case QTYPE_NONE:
                abort();
            default:
                g_assert(visit_is_input(v));
                visit_wrong_type(v, name, "@schema_name@", errp);
                /* nothing that could be walked to free it */
                g_free(*obj);
                *obj = NULL;
            }
        out:
            visit_end_alternate(v, (void **)obj);
            if (!ok && visit_is_input(v)) {
                qapi_free_@name@(*obj);
                *obj = NULL;
            }
            return ok;
        }
        ''', name=name, schema_name=entity.name, cases=cases)
