/*
 * Names of enumeration values, and the JSON null.
 *
 * Enumerations are short, so a name is found by looking at each; no table is built.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/builtin.h"

#include <string.h>

const char *qapi_enum_lookup(const QEnumLookup *lookup, int val)
{
    g_assert(val >= 0 && val < lookup->size);
    return lookup->array[val];
}

int qapi_enum_parse(const QEnumLookup *lookup, const char *buf, int def, Error **errp)
{
    if (!buf) {
        return def;
    }
    for (int i = 0; i < lookup->size; i++) {
        if (strcmp(buf, lookup->array[i]) == 0) {
            return i;
        }
    }
    error_setg(errp, "invalid parameter value: %s", buf);
    return def;
}

void qapi_enum_hint(Error **errp, const QEnumLookup *lookup)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (int i = 0; i < lookup->size; i++) {
        g_string_append_printf(names, "%s%s", i ? ", " : "", lookup->array[i]);
    }
    error_append_hint(errp, "Accepted values: %s\n", names->str);
}

QNull *qnull(void)
{
    static QNull the_null;

    return &the_null;
}

QType qtype_of_json(struct json_object *obj)
{
    switch (json_object_get_type(obj)) {
    case json_type_null:
        return QTYPE_QNULL;
    case json_type_boolean:
        return QTYPE_QBOOL;
    case json_type_double:
    case json_type_int:
        return QTYPE_QNUM;
    case json_type_string:
        return QTYPE_QSTRING;
    case json_type_array:
        return QTYPE_QLIST;
    case json_type_object:
        return QTYPE_QDICT;
    }
    return QTYPE_NONE;
}
