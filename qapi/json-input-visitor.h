/*
 * Visitors that build values of schema types from JSON or from option text.
 *
 * They are strict: a member that is missing, that nobody asked for, or of a wrong type is an error,
 * and its message names the member by its whole path, such as `channels[0].addr.port`.
 *
 * The depth of what they read is limited to JSON_INPUT_DEPTH_MAX containers; values of type `any`
 * are taken over without a look inside.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_JSON_INPUT_VISITOR_H
#define QAPI_JSON_INPUT_VISITOR_H

#include "qapi/visitor.h"

#define JSON_INPUT_DEPTH_MAX 1024

/*
 * A visitor that reads @obj (NULL: the JSON null), with JSON's types: an integer is a number that
 * was written without fraction or exponent. Holds a reference until visit_free().
 */
Visitor *json_input_visitor_new(struct json_object *obj);

/*
 * The same for the result of keyval_parse(), where every leaf is a string: numbers, sizes with
 * suffix, and on/off are read from text. Paths show list elements as `x.0`.
 */
Visitor *json_input_visitor_new_keyval(struct json_object *obj);

/*
 * json_input_visitor_new_str:
 * @str: an option's text: a JSON object when it begins with '{', else key=value
 * @implied_key: as for keyval_parse(); not used for JSON
 *
 * Returns: the visitor that fits, or NULL with @errp set.
 */
Visitor *json_input_visitor_new_str(const char *str, const char *implied_key, Error **errp);

#endif
