"""The one kind of failure that a schema author sees: FILE:LINE: what is wrong.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""


class Place:
    """A line of a schema file; @file as it was given on the command line or in an include."""

    def __init__(self, file, line):
        self.file = file
        self.line = line

    def __str__(self):
        return f'{self.file}:{self.line}'


class SchemaError(Exception):
    """An error in the schema, at a Place."""

    def __init__(self, place, message):
        super().__init__(f'{place}: {message}')
