#!/usr/bin/env python3
"""Generate C from a QAPI schema; see docs/devel/qapi.md.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from qapi.main import main  # pylint: disable=wrong-import-position

sys.exit(main())
