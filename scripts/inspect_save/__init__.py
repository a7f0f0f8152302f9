"""The parts of scripts/inspect-save, by what they read.

reader: bytes; memory: the sections of "ram"; description: the JSON and devices; the stream that holds
them all is in the script itself.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""
