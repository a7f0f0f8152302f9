"""Writing generated files.

A file whose content did not change is left alone, so that what depends on it is not built again.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import re
import textwrap


def fill(text, **values):
    """@text without its common indentation and with each `@NAME@` replaced by a value."""
    text = textwrap.dedent(text).lstrip('\n')
    return re.sub(r'@(\w+)@', lambda match: str(values[match.group(1)]), text)


def fill_indented(columns, text, **values):
    """fill(), with every line @columns further right."""
    return textwrap.indent(fill(text, **values), ' ' * columns)


def declare(c_type, name):
    """`TYPE NAME`, with the star of a pointer beside the name."""
    return c_type + name if c_type.endswith('*') else f'{c_type} {name}'


def write_if_changed(path, text):
    """Write @text to @path unless it is there already."""
    try:
        with open(path, encoding='utf-8') as file:
            if file.read() == text:
                return
    except (OSError, UnicodeDecodeError):
        pass
    scratch = path + '.new'
    with open(scratch, 'w', encoding='utf-8') as file:
        file.write(text)
    os.replace(scratch, path)


class CFile:
    """A C source or header in the making."""

    def __init__(self, name, source):
        self.name = name
        self.source = source
        self.parts = []

    def add(self, text, **values):
        """Append @text, filled, after an empty line."""
        self.parts.append(fill(text, **values) if values else text)

    def text(self):
        """The whole file."""
        source = re.sub(r'^(\.\./)+', '', self.source)
        banner = f'/* Generated from {source}; do not edit. */\n'
        body = '\n'.join(part.rstrip('\n') + '\n' for part in self.parts if part.strip())
        if not self.name.endswith('.h'):
            return f'{banner}{body}'
        guard = 'GENERATED_' + re.sub(r'\W', '_', self.name).upper()
        return f'{banner}#ifndef {guard}\n#define {guard}\n\n{body}\n#endif\n'


class Sink:
    """Where a back end puts its files.

    @prefix stands before every file name and generated function that is not named after an
    entity, so that two schemas can live in one program. @include_dir is the folder by which
    generated headers include each other.
    """

    def __init__(self, folder, prefix, include_dir):
        self.folder = folder
        self.prefix = prefix
        self.include_dir = include_dir
        self.files = []

    def file_name(self, stem, module=None):
        """The name of a file, without extension."""
        name = f'{self.prefix}{stem}'
        return f'{name}-{module}' if module else name

    def include(self, stem, module=None):
        """The #include line of a generated header."""
        return f'#include "{self.include_dir}{self.file_name(stem, module)}.h"\n'

    def open(self, stem, extension, source, module=None):
        """A new CFile that write() will write."""
        file = CFile(self.file_name(stem, module) + extension, source)
        self.files.append(file)
        return file

    def write(self):
        """Write what changed."""
        os.makedirs(self.folder, exist_ok=True)
        for file in self.files:
            write_if_changed(os.path.join(self.folder, file.name), file.text())
