/*
 * Arguments of HMP commands: what a command takes is a string, and a line is parsed by it.
 *
 * The string lists arguments as "name:type" with commas between them. Types:
 *
 *     F   file name (completed as such)
 *     B   name of a block device
 *     s   word, or quoted string with \n \r \\ \' \" escapes
 *     S   the rest of the line
 *     i   32-bit integer expression          l   64-bit integer expression
 *     M   like l, in units of MiB            o   size, with a suffix k, M, G, T, P, E; none means MiB
 *     T   time in seconds, or with a suffix ms, us, ns; kept in seconds (floating point)
 *     /   "/NNfs" as gdb's x has it: count, format, size; kept as count, format, size
 *     b   on or off
 *     -X  the option -X, kept as true; -Xs: the option -X with a string that follows it
 *
 * A `?` after the type makes the argument optional; `.` makes an integer optional that stands after
 * a '.'. -X is always optional.
 *
 * Parsed arguments are a json-c object with the arguments' names as members: strings, int64,
 * booleans, doubles. What was optional and absent is no member.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_HMP_ARGS_H
#define MONITOR_HMP_ARGS_H

#include <json-c/json.h>
#include "monitor/hmp-expr.h"

typedef struct json_object HMPArgs;

/*
 * hmp_args_parse:
 * @name: the command's name, for messages
 * @types: what it takes, as above
 * @text: the line after the command's name
 * @lookup: finds registers for expressions; may be NULL
 * @errp: where an error goes; its text is the whole message
 *
 * Returns: the arguments, to be freed by json_object_put(), or NULL.
 */
HMPArgs *hmp_args_parse(const char *name, const char *types, const char *text,
                        HMPRegisterLookup lookup, Error **errp);

/* Members, as they were parsed; the string is owned by @args. Absent: NULL, @otherwise. */
bool hmp_has(HMPArgs *args, const char *name);
const char *hmp_str(HMPArgs *args, const char *name);
int64_t hmp_int(HMPArgs *args, const char *name, int64_t otherwise);
bool hmp_bool(HMPArgs *args, const char *name, bool otherwise);

/*
 * hmp_word:
 * @p: text; moved behind the word
 * @errp: where an error goes: a quote that does not end
 *
 * The next word, or quoted string, with escapes undone. NULL at the end of the text (no error).
 */
char *hmp_word(const char **p, Error **errp);

/*
 * The type of argument number @n (from 0; options such as -X do not count), with its name in @name
 * when that is not NULL (caller frees). '\0' when there is none.
 */
char hmp_args_type(const char *types, unsigned n, char **name);

#endif
