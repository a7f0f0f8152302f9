/*
 * JSON text as QMP sends it: ASCII only (other characters as \u escapes, bytes that are not UTF-8
 * as U+FFFD), a space after each colon and comma, or one element a line with four spaces of indent.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_JSON_WRITER_H
#define UTIL_JSON_WRITER_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>

/* Append @value (NULL is null) to @out. Recursive: values are no deeper than a request may be. */
void json_write(GString *out, struct json_object *value, bool pretty);

#endif
