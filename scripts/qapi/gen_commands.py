"""Back end: command marshalling and the table of commands.

A command written with 'gen': false gets no marshalling function; qmp_marshal_NAME() is then
written by hand, and declared and registered here like any other.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

from .cnames import c_name, c_type_name
from .model import Command
from .output import declare, fill, fill_indented


def generate(schema, sink):
    """One pair of files per module, and qapi-init-commands."""
    for module in schema.generated_modules():
        commands = [e for e in module.entities if isinstance(e, Command)]
        header = sink.open('qapi-commands', '.h', module.path, module.name)
        source = sink.open('qapi-commands', '.c', module.path, module.name)
        header.add('#include "util/error.h"\n' + sink.include('qapi-types', module.name))
        source.add(sink.include('qapi-commands', module.name)
                   + sink.include('qapi-visit', module.name)
                   + '#include "qapi/dealloc-visitor.h"\n#include "qapi/json-input-visitor.h"\n'
                   + '#include "qapi/json-output-visitor.h"\n')
        for command in commands:
            _command(command, header, source)
    _init(schema, sink)


def _init(schema, sink):
    header = sink.open('qapi-init-commands', '.h', schema.root.path)
    source = sink.open('qapi-init-commands', '.c', schema.root.path)
    function = c_name(sink.prefix, protect=False) + 'qmp_init_marshal'
    header.add('#include "qapi/dispatch.h"\n')
    header.add(f'/* Register every command of the schema in @cmds, which is initialised first. */\n'
               f'void {function}(QmpCommandList *cmds);\n')
    includes = sink.include('qapi-init-commands')
    lines = ''
    for module in schema.generated_modules():
        commands = [e for e in module.entities if isinstance(e, Command)]
        includes += sink.include('qapi-commands', module.name)
        for command in commands:
            lines += (f'    qmp_register_command(cmds, "{command.name}",\n'
                      f'                         qmp_marshal_{c_name(command.name)}, '
                      f'{_flags(command)});\n')
    source.add(includes)
    source.add('''
        void @function@(QmpCommandList *cmds)
        {
            qmp_command_list_init(cmds);
        @lines@}
        ''', function=function, lines=lines)


def _flags(command):
    flags = []
    if not command.success_response:
        flags.append('QCO_NO_SUCCESS_RESP')
    if command.oob:
        flags.append('QCO_ALLOW_OOB')
    if command.preconfig:
        flags.append('QCO_ALLOW_PRECONFIG')
    return ' | '.join(flags) or 'QCO_NO_OPTIONS'


def parameters(entity):
    """The C parameters of a command or event, without errp."""
    if not entity.arg:
        return []
    if entity.boxed:
        return [declare(entity.arg.c_type(), 'arg')]
    params = []
    for member in entity.arg.members():
        if member.needs_has():
            params.append(f'bool has_{c_name(member.name, protect=False)}')
        params.append(declare(member.type.c_param_type(), c_name(member.name)))
    return params


def _command(command, header, source):
    c = c_name(command.name)
    marshal = (f'void qmp_marshal_{c}(struct json_object *args, struct json_object **ret, '
               'Error **errp)')
    header.add(marshal + ';\n')
    if not command.gen:
        return
    params = ', '.join(parameters(command) + ['Error **errp'])
    returns = command.ret.c_type() if command.ret else 'void'
    header.add(f'{declare(returns, "qmp_" + c)}({params});\n')
    source.add(fill('''
        @marshal@
        {
            Error *err = NULL;
            bool ok = false;
            Visitor *v;
        @locals@
            v = json_input_visitor_new(args);
            if (!visit_start_struct(v, NULL, NULL, 0, errp)) {
                goto out;
            }
            ok = @visit_args@visit_check_struct(v, errp);
            visit_end_struct(v, NULL);
            if (!ok) {
                goto out;
            }
            @call@;
            if (err) {
                error_propagate(errp, err);
                goto out;
            }
        @output@
        out:
            visit_free(v);
        @free_args@}
        ''', marshal=marshal, locals=_locals(command),
                    visit_args=_visit_args(command, 'errp', ' && '), call=_call(command),
                    output=_output(command), free_args=_free_args(command)))


def _locals(command):
    text = ''
    if command.arg:
        text += f'    {c_type_name(command.arg.name)} arg = {{ 0 }};\n'
    if command.ret:
        text += f'    {declare(command.ret.c_type(), "retval")};\n'
    return text


def _visit_args(command, errp, after=''):
    if not command.arg:
        return ''
    return f'visit_type_{c_type_name(command.arg.name)}_members(v, &arg, {errp}){after}'


def _call(command):
    args = []
    if command.arg and command.boxed:
        args = ['&arg']
    elif command.arg:
        for member in command.arg.members():
            if member.needs_has():
                args.append(f'arg.has_{c_name(member.name, protect=False)}')
            args.append(f'arg.{c_name(member.name)}')
    call = f'qmp_{c_name(command.name)}({", ".join(args + ["&err"])})'
    return f'retval = {call}' if command.ret else call


def _output(command):
    """Turn retval into JSON and free it."""
    if not command.ret:
        return ''
    visit = f'visit_type_{c_type_name(command.ret.name)}'
    return fill_indented(4, '''
            Visitor *out = json_output_visitor_new(ret);
            ok = @visit@(out, "unused", &retval, errp);
            if (ok) {
                visit_complete(out, ret);
            }
            visit_free(out);
            out = qapi_dealloc_visitor_new();
            @visit@(out, "unused", &retval, NULL);
            visit_free(out);
        ''', visit=visit)


def _free_args(command):
    if not command.arg:
        return ''
    return fill_indented(4, '''
        v = qapi_dealloc_visitor_new();
        visit_start_struct(v, NULL, NULL, 0, NULL);
        @visit@;
        visit_end_struct(v, NULL);
        visit_free(v);
        ''', visit=_visit_args(command, 'NULL'))
