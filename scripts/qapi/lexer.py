"""Text to tokens.

The schema language is JSON with single-quoted strings, `#` comments and doc comments. A doc
comment is a block of lines that begin with `#`, opened and closed by a line `##`. It is one
token, because where it stands says what it documents.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import re

from .error import Place, SchemaError

PUNCTUATION = '{}[]:,'
WORDS = {'true': True, 'false': False}
WORD = re.compile(r'[A-Za-z0-9_.+-]+')


class Token:
    """@kind is a punctuation character, 'string', 'bool', 'doc' or 'end'.

    The @value of a doc token is a list of (Place, text) with the `# ` removed.
    """

    def __init__(self, kind, value, place):
        self.kind = kind
        self.value = value
        self.place = place

    def __str__(self):
        if self.kind == 'string':
            return f"'{self.value}'"
        if self.kind == 'bool':
            return 'true' if self.value else 'false'
        return {'end': 'end of file', 'doc': 'doc comment'}.get(self.kind, f"'{self.kind}'")


def tokenize(text, file):
    """All tokens of @text; the last one is of kind 'end'."""
    tokens = []
    lines = text.split('\n')
    number = 0
    while number < len(lines):
        place = Place(file, number + 1)
        line = lines[number]
        if line.startswith('##'):
            number = _doc_block(lines, number, file, tokens)
        else:
            _tokenize_line(line, place, tokens)
        number += 1
    tokens.append(Token('end', None, Place(file, len(lines))))
    return tokens


def _doc_block(lines, first, file, tokens):
    """Append the doc comment that begins at line index @first; return the index of its end."""
    start = Place(file, first + 1)
    if lines[first].rstrip() != '##':
        raise SchemaError(start, "junk after '##' at start of doc comment")
    body = []
    for number in range(first + 1, len(lines)):
        place = Place(file, number + 1)
        line = lines[number].rstrip()
        if line == '##':
            tokens.append(Token('doc', body, start))
            return number
        if line.startswith('##'):
            raise SchemaError(place, "junk after '##' in doc comment")
        if not line.startswith('#'):
            break
        if line != '#' and not line.startswith('# '):
            raise SchemaError(place, "missing space after '#' in doc comment")
        body.append((place, line[2:]))
    raise SchemaError(start, "doc comment is not closed by '##'")


def _tokenize_line(line, place, tokens):
    position = 0
    while position < len(line):
        char = line[position]
        if char == '#':
            return
        if char in ' \t\r':
            position += 1
        elif char in PUNCTUATION:
            tokens.append(Token(char, char, place))
            position += 1
        elif char == "'":
            position = _string(line, position, place, tokens)
        else:
            word = WORD.match(line, position)
            if not word:
                raise SchemaError(place, f"stray '{char}'")
            if word.group() not in WORDS:
                raise SchemaError(place, f"stray '{word.group()}'")
            tokens.append(Token('bool', WORDS[word.group()], place))
            position = word.end()


def _string(line, position, place, tokens):
    end = line.find("'", position + 1)
    if end < 0:
        raise SchemaError(place, "string has no closing \"'\"")
    value = line[position + 1:end]
    for char in value:
        if not ' ' <= char <= '~' or char == '\\':
            raise SchemaError(place, 'a string consists of printable ASCII characters, '
                              'without backslash')
    tokens.append(Token('string', value, place))
    return end + 1
