/*
 * The program's own schema, at run time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_INTROSPECT_H
#define QAPI_INTROSPECT_H

#include <json-c/json.h>

/* A new array of SchemaInfo objects (qapi/introspect.json), the caller's own. Any thread. */
struct json_object *qmp_introspect_schema(void);

#endif
