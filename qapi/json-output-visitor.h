/*
 * A visitor that turns a value of a schema type into JSON.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_JSON_OUTPUT_VISITOR_H
#define QAPI_JSON_OUTPUT_VISITOR_H

#include "qapi/visitor.h"

/*
 * Make an output visitor. visit_complete(v, result) stores what was visited in *@result, the
 * caller's own. A string that is NULL comes out empty; a number that JSON cannot express (infinite
 * or not a number) comes out as 0. Free with visit_free().
 */
Visitor *json_output_visitor_new(struct json_object **result);

#endif
