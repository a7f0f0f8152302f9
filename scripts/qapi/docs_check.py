"""Documentation and definition must say the same.

Every member, argument, enum value and feature is documented; nothing is that does not exist.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

from .error import SchemaError


def documented_parts(entity):
    """(what to call a part, the parts) that the doc comment of @entity must list."""
    if entity.kind == 'enum':
        return 'value', entity.values
    if entity.kind == 'alternate':
        return 'branch', entity.branches
    if entity.kind in ('command', 'event'):
        arg = entity.arg
        return 'argument', arg.own if arg and arg.implicit else []
    parts = list(entity.own)
    if entity.base and entity.base.implicit:
        parts = entity.base.own + parts
    return 'member', parts


def _feature_names(entity, parts):
    for feature in entity.features:
        yield feature
    for part in parts:
        yield from getattr(part, 'features', [])


def check_doc(entity, pragmas):
    """Raise SchemaError when the doc comment of @entity is missing, incomplete or wrong."""
    what, parts = documented_parts(entity)
    doc = entity.doc
    exempt = entity.name in pragmas.lists['documentation-exceptions']
    if not doc:
        if pragmas.doc_required and not exempt:
            raise SchemaError(entity.place, f'{entity}: documentation comment required')
        return
    features = list(_feature_names(entity, parts))
    if pragmas.doc_required and not exempt:
        for part in parts:
            if part.name not in doc.members:
                raise SchemaError(part.place, f"{entity}: {what} '{part.name}' is not documented")
        for feature in features:
            if feature.name not in doc.features:
                raise SchemaError(feature.place,
                                  f"{entity}: feature '{feature.name}' is not documented")
    names = {part.name for part in parts}
    for name, section in doc.members.items():
        if name not in names:
            raise SchemaError(section.place,
                              f"{entity}: documented {what} '{name}' does not exist")
        _check_text(entity, section, f"{what} '{name}'")
    names = {feature.name for feature in features}
    for name, section in doc.features.items():
        if name not in names:
            raise SchemaError(section.place,
                              f"{entity}: documented feature '{name}' does not exist")
        _check_text(entity, section, f"feature '{name}'")
    _check_sections(entity, doc)


def _check_text(entity, section, what):
    if not section.text():
        raise SchemaError(section.place, f'{entity}: documentation of {what} is empty')


def _check_sections(entity, doc):
    for section in doc.sections:
        if section.tag == 'Returns' and not (entity.kind == 'command' and entity.ret):
            raise SchemaError(section.place, f"{entity}: 'Returns' section, but nothing is "
                              'returned')
        if section.tag == 'Errors' and entity.kind != 'command':
            raise SchemaError(section.place, f"{entity}: 'Errors' section is for commands only")
        if section.tag:
            _check_text(entity, section, f"'{section.tag}' section")
