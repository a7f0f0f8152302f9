/*
 * query-qmp-schema. It has no generated marshalling: its result is JSON already, and going through
 * a list of SchemaInfo would only take it apart and put it together again.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/introspect.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-commands-introspect.h"

void qmp_marshal_query_qmp_schema(struct json_object *args, struct json_object **ret, Error **errp)
{
    Visitor *v = json_input_visitor_new(args);

    if (visit_start_struct(v, NULL, NULL, 0, errp)) {
        if (visit_check_struct(v, errp)) {
            *ret = qmp_introspect_schema();
        }
        visit_end_struct(v, NULL);
    }
    visit_free(v);
}
