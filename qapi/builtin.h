/*
 * The C side of QAPI's built-in types; every generated header includes it.
 *
 * How a schema type looks in C:
 *
 *   str          char *                        any         struct json_object * (json-c)
 *   int          int64_t                       null        QNull *
 *   intN, uintN  intN_t, uintN_t               bool        bool
 *   size         uint64_t, in bytes            number      double
 *   enum E       E, with constants E_VALUE     struct S    S *
 *   ['T']        TList *, NULL when empty
 *
 * An optional member is absent when its pointer is NULL. Where NULL is not possible (scalars) or
 * means something else (an empty list; the JSON null of an `any`), a `bool has_MEMBER` before the
 * member says so.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_BUILTIN_H
#define QAPI_BUILTIN_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "qapi/util.h"

/* The JSON null. There is one such value; it is never freed, and absence is a NULL pointer. */
typedef struct QNull {
    char nothing;
} QNull;

/* Returns: the one QNull. */
QNull *qnull(void);

/* What an alternate holds, by JSON type. */
typedef enum QType {
    QTYPE_NONE,
    QTYPE_QNULL,
    QTYPE_QNUM,
    QTYPE_QSTRING,
    QTYPE_QDICT,
    QTYPE_QLIST,
    QTYPE_QBOOL,
} QType;

/* Returns: the QType of a json-c value; @obj is NULL for the JSON null. */
QType qtype_of_json(struct json_object *obj);

#endif
