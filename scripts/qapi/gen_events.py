"""Back end: functions that send events.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

from .cnames import c_name, c_type_name
from .gen_commands import parameters
from .model import Event
from .output import fill


def generate(schema, sink):
    """One pair of files per module."""
    for module in schema.generated_modules():
        header = sink.open('qapi-events', '.h', module.path, module.name)
        source = sink.open('qapi-events', '.c', module.path, module.name)
        header.add(sink.include('qapi-types', module.name))
        source.add(sink.include('qapi-events', module.name)
                   + sink.include('qapi-visit', module.name)
                   + '#include "qapi/event.h"\n#include "qapi/json-output-visitor.h"\n'
                   '#include "util/error.h"\n')
        for event in module.entities:
            if isinstance(event, Event):
                _event(event, header, source)


def _event(event, header, source):
    params = ', '.join(parameters(event)) or 'void'
    head = f'void qapi_event_send_{c_name(event.name.lower(), protect=False)}({params})'
    header.add(head + ';\n')
    if not event.arg:
        source.add(f'{head}\n{{\n    qapi_event_emit("{event.name}", NULL);\n}}\n')
        return
    arg = c_type_name(event.arg.name)
    if event.boxed:
        local, pointer = '', 'arg'
    else:
        local, pointer = f'    {arg} param = {{\n{_initializers(event)}    }};\n', '&param'
    source.add(fill('''
        @head@
        {
            struct json_object *data = NULL;
        @local@    Visitor *v = json_output_visitor_new(&data);

            visit_start_struct(v, "@name@", NULL, 0, &error_abort);
            visit_type_@arg@_members(v, @pointer@, &error_abort);
            visit_check_struct(v, &error_abort);
            visit_end_struct(v, NULL);
            visit_complete(v, &data);
            visit_free(v);
            qapi_event_emit("@name@", data);
        }
        ''', head=head, local=local, name=event.name, arg=arg, pointer=pointer))


def _initializers(event):
    text = ''
    for member in event.arg.members():
        c = c_name(member.name)
        if member.needs_has():
            has = 'has_' + c_name(member.name, protect=False)
            text += f'        .{has} = {has},\n'
        cast = '(char *)' if member.type.name == 'str' else ''
        text += f'        .{c} = {cast}{c},\n'
    return text
