"""The QAPI generator: from a schema in JSON to C and to a reference manual.

lexer -> parser -> model (checked), then one back end per kind of output.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
