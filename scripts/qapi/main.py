"""The command line of the generator.

Copyright (C) 2026 The Ferry developers
SPDX-License-Identifier: GPL-2.0-or-later
"""

import argparse
import sys

from . import gen_commands, gen_events, gen_introspect, gen_manual, gen_types, gen_visit
from .error import Place, SchemaError
from .model import Schema
from .output import Sink, write_if_changed

BACK_ENDS = (gen_types, gen_visit, gen_commands, gen_events, gen_introspect)


def _check_modules(schema, wanted):
    """The build lists its modules; a module that it does not know would go unbuilt."""
    known = wanted.split(',')
    for module in schema.generated_modules():
        if module is schema.root:
            raise SchemaError(module.entities[0].place, 'definitions belong in a file of their '
                              'domain, not in the root schema file')
        if module.name not in known:
            raise SchemaError(Place(schema.root.path, 1),
                              f"'{module.path}' must be included by the root schema file itself")


def main():
    """Generate C and the manual from a schema, or only check it."""
    parser = argparse.ArgumentParser(prog='qapi-gen.py', description=__doc__)
    parser.add_argument('-o', '--output-dir', help='where C files go; without it only check')
    parser.add_argument('-p', '--prefix', default='', help='before the name of each file')
    parser.add_argument('-i', '--include-dir', default='',
                        help="folder by which generated headers include each other, with '/'")
    parser.add_argument('-m', '--modules', help='all modules, as the build knows them')
    parser.add_argument('-d', '--manual', help='where the reference manual goes')
    parser.add_argument('schema', help='the root schema file')
    options = parser.parse_args()
    try:
        schema = Schema(options.schema)
        if options.modules:
            _check_modules(schema, options.modules)
    except SchemaError as err:
        print(err, file=sys.stderr)
        return 1
    if options.output_dir:
        sink = Sink(options.output_dir, options.prefix, options.include_dir)
        for back_end in BACK_ENDS:
            back_end.generate(schema, sink)
        sink.write()
    if options.manual:
        write_if_changed(options.manual, gen_manual.manual(schema))
    return 0
