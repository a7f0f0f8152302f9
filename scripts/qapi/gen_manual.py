"""Back end: the reference manual in Markdown.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import re

from .doc import Doc
from .model import AlternateType, ArrayType, BuiltinType, Command, EnumType, Event, ObjectType

KIND_TITLES = {'command': 'Command', 'event': 'Event', 'enum': 'Enum', 'struct': 'Object',
               'union': 'Object', 'alternate': 'Alternate'}


def manual(schema):
    """The whole manual."""
    parts = ['<!-- Generated from the QAPI schema; do not edit. -->\n']
    # The root's free-form text introduces the manual; the index follows it.
    parts += [_free_form(c, depth=0) for c in schema.root.chapters if isinstance(c, Doc)]
    parts.append(_contents(schema))
    for module in schema.modules:
        for chapter in module.chapters:
            if not isinstance(chapter, Doc):
                parts.append(_entity(chapter))
            elif module is not schema.root:
                parts.append(_free_form(chapter))
    return '\n'.join(parts)


def _free_form(doc, depth=1):
    lines = []
    for line in doc.body.text():
        heading = re.match(r'(=+) (.*)$', line)
        if heading:
            line = '#' * (len(heading.group(1)) + depth) + ' ' + heading.group(2)
        lines.append(_inline(line))
    return '\n'.join(lines) + '\n'


def _contents(schema):
    text = ''
    for title, kind in (('Commands', Command), ('Events', Event)):
        names = sorted(e.name for e in schema.entities() if isinstance(e, kind))
        if names:
            links = ', '.join(f'[{name}](#{name})' for name in names)
            text += f'**{title}:** {links}\n\n'
    return text


def _inline(text):
    """Markup of doc comments to Markdown."""
    text = re.sub(r'``([^`]+)``', r'`\1`', text)
    return re.sub(r'(?<![\w@`])@([A-Za-z_][\w.-]*[\w])', r'`\1`', text)


def _prose(section):
    """The text of a section."""
    return '\n'.join(_inline(line) for line in section.text())


def _type(type_):
    if isinstance(type_, ArrayType):
        return f'array of {_type(type_.element)}'
    if isinstance(type_, BuiltinType):
        return f'`{type_.name}`'
    return f'[{type_.name}](#{type_.name})'


def _item(name, note, section):
    """A list item whose text may have several lines and paragraphs."""
    lines = _prose(section).split('\n') if section else []
    head = f'* `{name}`{f" ({note})" if note else ""}'
    if lines and lines[0]:
        head += f': {lines[0]}'
    rest = ''.join(f'  {line}\n' if line else '\n' for line in lines[1:])
    return f'{head}\n{rest}'


def _members(members, doc):
    text = ''
    for member in members:
        note = _type(member.type) + (', optional' if member.optional else '')
        text += _item(member.name, note, doc and doc.members.get(member.name))
    return text


def _object(entity, doc):
    text = ''
    if entity.base and entity.base.implicit:
        text += _members(entity.base.own, doc)
    elif entity.base:
        text += f'* the members of {_type(entity.base)}\n'
    text += _members(entity.own, doc)
    for branch in entity.branches:
        if not branch.type.is_empty():
            text += (f'* when `{entity.tag.name}` is `{branch.name}`: the members of '
                     f'{_type(branch.type)}\n')
    return text


def _parts(entity, doc):
    """The list of members, values or arguments, with its title."""
    if isinstance(entity, EnumType):
        title = 'Values'
        text = ''.join(_item(value.name, '', doc and doc.members.get(value.name))
                       for value in entity.values)
    elif isinstance(entity, AlternateType):
        title = 'Alternatives'
        text = ''.join(_item(branch.name, _type(branch.type), doc and doc.members.get(branch.name))
                       for branch in entity.branches)
    elif isinstance(entity, ObjectType):
        title, text = 'Members', _object(entity, doc)
    else:
        title = 'Arguments' if isinstance(entity, Command) else 'Data'
        if not entity.arg:
            text = ''
        elif entity.arg.implicit:
            text = _members(entity.arg.own, doc)
        else:
            text = f'* the members of {_type(entity.arg)}\n'
    return f'**{title}**\n\n{text}\n' if text else ''


def _features(entity, doc):
    text = ''
    for name, section in (doc.features if doc else {}).items():
        text += _item(name, '', section)
    if isinstance(entity, Command):
        if entity.oob:
            text += '* may be executed out of band\n'
        if entity.preconfig:
            text += '* may be executed before the machine is configured\n'
        if not entity.success_response:
            text += '* gives no response when it succeeds\n'
    return f'**Features**\n\n{text}\n' if text else ''


def _section(entity, section):
    if section.tag == 'Example':
        lines = section.text()
        title = ''
        while lines and (not lines[0].strip() or lines[0].startswith(':')):
            option = re.match(r':title: (.*)', lines.pop(0))
            title = f': {option.group(1)}' if option else title
        body = '\n'.join(lines)
        return f'**Example**{title}\n\n```\n{body}\n```\n\n'
    prose = _prose(section)
    if section.tag == 'Returns':
        return f'**Returns** {_type(entity.ret)}: {prose}\n\n'
    if section.tag == 'Errors':
        return f'**Errors**\n\n{prose}\n\n'
    if section.tag == 'Note':
        quoted = '\n'.join(f'> {line}' for line in prose.split('\n'))
        return f'{quoted}\n\n'
    if section.tag == 'Since':
        return ''
    return f'{prose}\n\n'


def _entity(entity):
    doc = entity.doc
    text = f'### <a id="{entity.name}"></a>`{entity.name}` ({KIND_TITLES[entity.kind]})\n\n'
    overview = _prose(doc.body) if doc else ''
    if overview:
        text += f'{overview}\n\n'
    text += _parts(entity, doc)
    if isinstance(entity, Command) and entity.ret and not (doc and doc.section('Returns')):
        text += f'**Returns** {_type(entity.ret)}\n\n'
    for section in doc.sections if doc else []:
        text += _section(entity, section)
    text += _features(entity, doc)
    since = doc.section('Since') if doc else None
    if since:
        text += f'Since {_prose(since)}\n'
    return text
