"""A doc comment, taken apart.

The first line `@NAME:` makes it the documentation of a definition; without it the comment is
free-form text (a chapter heading of the manual, most often). A definition's comment consists of
the overview, `@member: text` sections and tagged sections. A section lasts until the next one
begins at the margin.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import re

from .error import SchemaError

SYMBOL = re.compile(r'@([^:\s]+):\s*$')
MEMBER = re.compile(r'@([^:\s]+):(?:\s+(.*))?$')
TAG = re.compile(r'(Returns|Errors|Since|Examples?|Notes?|TODO|Features):(?:\s+(.*))?$')
DIRECTIVE = re.compile(r'\.\. (qmp-example|note|admonition|caution|warning)::\s*(.*)$')
DIRECTIVE_TAGS = {'qmp-example': 'Example', 'note': 'Note', 'admonition': 'Note',
                  'caution': 'Note', 'warning': 'Note'}
ONCE = ('Returns', 'Errors', 'Since')


class Section:
    """@tag is '' for running text. @lines are as written, without trailing empty ones."""

    def __init__(self, tag, place):
        self.tag = tag
        self.place = place
        self.lines = []

    def text(self):
        """The lines with the common indentation of the continuation lines removed."""
        lines = list(self.lines)
        while lines and not lines[-1].strip():
            lines.pop()
        while lines and not lines[0].strip():
            lines.pop(0)
        rest = [line for line in lines if line.strip()]
        # Text that began beside its tag stands at no indentation of its own.
        if rest and not rest[0].startswith(' '):
            rest = rest[1:]
        indent = min((len(line) - len(line.lstrip()) for line in rest), default=0)
        return [line[indent:] if line[:indent].strip() == '' else line for line in lines]


class Doc:
    """@symbol is None for a free-form comment, whose text is in @body.

    @members and @features map a name to its Section; @sections holds the tagged sections and
    later running text in order.
    """

    def __init__(self, lines, place):
        self.place = place
        self.symbol = None
        self.body = Section('', place)
        self.members = {}
        self.features = {}
        self.sections = []
        match = SYMBOL.match(lines[0][1]) if lines else None
        if match:
            self.symbol = match.group(1)
            self._parse(lines[1:])
        elif lines and lines[0][1].startswith('@'):
            raise SchemaError(lines[0][0], "line should end with ':'")
        else:
            self.body.lines = [text for _, text in lines]

    def _parse(self, lines):
        current = self.body
        in_features = False
        for place, text in lines:
            member, tag = MEMBER.match(text), TAG.match(text)
            directive = DIRECTIVE.match(text)
            if member:
                current = self._member(member.group(1), in_features, place)
                current.lines.append(member.group(2) or '')
            elif tag and tag.group(1) == 'Features':
                in_features = True
                current = Section('Features', place)
                self._check_features_text(tag.group(2), place)
            elif tag:
                in_features = False
                current = self._tagged(tag.group(1), place)
                current.lines.append(tag.group(2) or '')
            elif directive:
                in_features = False
                current = self._tagged(DIRECTIVE_TAGS[directive.group(1)], place)
            else:
                if text.strip() and not text.startswith(' ') and self._ended(current):
                    in_features = False
                    current = self._tagged('', place)
                if current.tag == 'Features':
                    self._check_features_text(text, place)
                current.lines.append(text)

    @staticmethod
    def _check_features_text(text, place):
        if text and text.strip():
            raise SchemaError(place, "'Features:' is followed by '@feature:' lines only")

    def _member(self, name, in_features, place):
        known = self.features if in_features else self.members
        if name in known:
            what = 'feature' if in_features else 'member'
            raise SchemaError(place, f"{what} '{name}' is documented twice")
        known[name] = Section('@' + name, place)
        return known[name]

    def _tagged(self, tag, place):
        tag = {'Examples': 'Example', 'Notes': 'Note'}.get(tag, tag)
        if tag == 'TODO':
            raise SchemaError(place, "no 'TODO:' in documentation")
        if tag in ONCE and any(section.tag == tag for section in self.sections):
            raise SchemaError(place, f"duplicated '{tag}' section")
        section = Section(tag, place)
        self.sections.append(section)
        return section

    @staticmethod
    def _ended(section):
        """True when a line at the margin cannot belong to @section any more.

        An empty line ends the section, except in running text.
        """
        return section.tag != '' and len(section.lines) > 1 and not section.lines[-1].strip()

    def section(self, tag):
        """The first section with @tag, or None."""
        return next((s for s in self.sections if s.tag == tag), None)
