/*
 * The generator leaves the schema in the program as JSON text, which is parsed when somebody asks.
 * Clients ask once per connection at most, so nothing is kept.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/introspect.h"

#include "qapi/qapi-introspect.h"
#include "util/error.h"
#include "util/keyval.h"

struct json_object *qmp_introspect_schema(void)
{
    struct json_object *schema = NULL;

    json_parse_text(qmp_schema_json, &schema, &error_abort);
    return schema;
}
