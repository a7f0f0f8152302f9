/*
 * Option strings of the form `key=value,key=value` as JSON.
 *
 * A dotted key makes nested objects (`a.b=1`), numbers as key parts make arrays (`x.0=a,x.1=b`),
 * `,,` in a value is a comma, and a later key overrides an earlier one. Every leaf is a string: who
 * reads the result knows the types (qapi/json-input-visitor.h, the keyval kind).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_KEYVAL_H
#define UTIL_KEYVAL_H

#include <json-c/json.h>

#include "util/error.h"

/* Longest key, all its parts and dots counted; a bound for the depth of the result as well. */
#define KEYVAL_KEY_MAX_CHARS 255

/*
 * keyval_parse:
 * @params: the text
 * @implied_key: the key of a first value that has none (`-object TYPE,...`), or NULL
 * @help: where to store whether `help` or `?` was asked for; NULL to have that refused
 *
 * Returns: a new object, or NULL with @errp set. The caller owns it.
 */
struct json_object *keyval_parse(const char *params, const char *implied_key, bool *help,
                                 Error **errp);

/*
 * json_parse_text:
 * @text: a whole JSON value, for example an option that begins with '{'
 *
 * Strict parsing: UTF-8 is checked, numbers must fit, nothing may follow, nesting is limited.
 *
 * Returns: 0 and *@result (NULL for a JSON null), or -1 with @errp set.
 */
int json_parse_text(const char *text, struct json_object **result, Error **errp);

#endif
