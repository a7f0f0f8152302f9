"""Tokens to statements, over all files of a schema.

A statement is one top-level object with the doc comment that stands before it. `include` and
`pragma` are carried out here; all other statements are left to the model. Every object and array
remembers the line of each of its members, for messages.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import os

from .doc import Doc
from .error import Place, SchemaError
from .lexer import tokenize


class Obj(dict):
    """A JSON object; places[key] is where a member stands, place where the object begins."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.places = {}


class Arr(list):
    """A JSON array; places[i] is where an element stands, place where the array begins."""

    def __init__(self, place):
        super().__init__()
        self.place = place
        self.places = []


class Module:
    """One schema file: its short name, the modules it includes and its statements in order."""

    def __init__(self, path):
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.includes = []
        self.statements = []


class Statement:
    """@doc is None when no doc comment precedes; @expr is None for a free-form doc comment."""

    def __init__(self, expr, doc, module):
        self.expr = expr
        self.doc = doc
        self.module = module


class Pragmas:
    """What `pragma` may set; a list adds to what other files said."""

    def __init__(self):
        self.doc_required = True
        self.lists = {'command-name-exceptions': set(), 'command-returns-exceptions': set(),
                      'member-name-exceptions': set(), 'documentation-exceptions': set()}

    def apply(self, value, place):
        """Carry out one pragma object."""
        if not isinstance(value, Obj):
            raise SchemaError(place, "'pragma' must be an object")
        for key, setting in value.items():
            where = value.places[key]
            if key == 'doc-required':
                if not isinstance(setting, bool):
                    raise SchemaError(where, "pragma 'doc-required' must be a boolean")
                self.doc_required = setting
            elif key in self.lists:
                if not isinstance(setting, Arr) or not all(isinstance(s, str) for s in setting):
                    raise SchemaError(where, f"pragma '{key}' must be an array of strings")
                self.lists[key].update(setting)
            else:
                raise SchemaError(where, f"unknown pragma '{key}'")


class Parser:
    """Parses a root file and everything that it includes, each file once.

    After construction: @modules in the order in which they were first included, the root first;
    @pragmas as all files set them.
    """

    def __init__(self, path):
        self.modules = []
        self.pragmas = Pragmas()
        self._by_path = {}
        self._open = []
        self.root = self._file(path, None)

    def _file(self, path, included_from):
        known = self._by_path.get(os.path.realpath(path))
        if known:
            return known
        try:
            with open(path, encoding='utf-8') as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as err:
            reason = err.strerror if isinstance(err, OSError) else 'not UTF-8 text'
            raise SchemaError(included_from or Place(path, 1),
                              f"can't read schema file '{path}': {reason}") from err
        module = Module(path)
        for other in self.modules:
            if other.name == module.name:
                raise SchemaError(included_from, f"module name '{module.name}' is taken by "
                                  f"'{other.path}'")
        self._by_path[os.path.realpath(path)] = module
        self.modules.append(module)
        self._open.append(module)
        _FileParser(self, module, tokenize(text, path)).run()
        self._open.pop()
        return module

    def include(self, module, value, place):
        """Carry out an include statement that stands in @module."""
        if not isinstance(value, str):
            raise SchemaError(place, "'include' must be a string")
        path = os.path.join(os.path.dirname(module.path), value)
        for outer in self._open:
            if os.path.realpath(outer.path) == os.path.realpath(path):
                raise SchemaError(place, f"inclusion loop for '{value}'")
        included = self._file(path, place)
        if included not in module.includes:
            module.includes.append(included)


class _FileParser:
    def __init__(self, parser, module, tokens):
        self.parser = parser
        self.module = module
        self.tokens = tokens
        self.position = 0

    @property
    def token(self):
        return self.tokens[self.position]

    def next(self):
        token = self.token
        self.position += 1
        return token

    def run(self):
        doc = None
        while self.token.kind != 'end':
            if self.token.kind == 'doc':
                self._check_doc_used(doc)
                token = self.next()
                doc = Doc(token.value, token.place)
                if not doc.symbol:
                    self.module.statements.append(Statement(None, doc, self.module))
                    doc = None
                continue
            if self.token.kind != '{':
                raise SchemaError(self.token.place, f"expected '{{', found {self.token}")
            expr = self._value()
            if 'include' in expr or 'pragma' in expr:
                self._check_doc_used(doc)
                self._directive(expr)
            else:
                self.module.statements.append(Statement(expr, doc, self.module))
            doc = None
        self._check_doc_used(doc)

    def _check_doc_used(self, doc):
        if doc:
            raise SchemaError(doc.place, f"documentation for '{doc.symbol}' is not followed by "
                              'its definition')

    def _directive(self, expr):
        if len(expr) != 1:
            extra = [key for key in expr if key not in ('include', 'pragma')] or ['pragma']
            raise SchemaError(expr.places[extra[0]], f"unexpected key '{extra[0]}' in directive")
        (key, value), = expr.items()
        if key == 'include':
            self.parser.include(self.module, value, expr.places[key])
        else:
            self.parser.pragmas.apply(value, expr.places[key])

    def _value(self):
        token = self.next()
        if token.kind == '{':
            return self._object(token.place)
        if token.kind == '[':
            return self._array(token.place)
        if token.kind in ('string', 'bool'):
            return token.value
        raise SchemaError(token.place, f"expected '{{', '[', string or boolean, found {token}")

    def _object(self, place):
        obj = Obj(place)
        if self.token.kind == '}':
            self.next()
            return obj
        while True:
            key = self.next()
            if key.kind != 'string':
                raise SchemaError(key.place, f'expected string as key, found {key}')
            if key.value in obj:
                raise SchemaError(key.place, f"duplicate key '{key.value}'")
            colon = self.next()
            if colon.kind != ':':
                raise SchemaError(colon.place, f"expected ':', found {colon}")
            obj[key.value] = self._value()
            obj.places[key.value] = key.place
            end = self.next()
            if end.kind == '}':
                return obj
            if end.kind != ',':
                raise SchemaError(end.place, f"expected ',' or '}}', found {end}")

    def _array(self, place):
        arr = Arr(place)
        if self.token.kind == ']':
            self.next()
            return arr
        while True:
            arr.places.append(self.token.place)
            arr.append(self._value())
            end = self.next()
            if end.kind == ']':
                return arr
            if end.kind != ',':
                raise SchemaError(end.place, f"expected ',' or ']', found {end}")
