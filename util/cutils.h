/*
 * Numbers, sizes and identifiers as people write them.
 *
 * Parsers take the whole string or nothing: leading blanks, a sign, trailing characters and empty
 * strings are errors, and every error message quotes the string. They do not depend on the locale.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_CUTILS_H
#define UTIL_CUTILS_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)
#define PiB (UINT64_C(1) << 50)
#define EiB (UINT64_C(1) << 60)

/*
 * parse_size:
 * @str: decimal digits with an optional fraction, or 0x and hexadecimal digits; then an optional
 *     suffix B, K, M, G, T, P, E (either case, powers of 1024; after a hexadecimal number B and E
 *     are digits)
 * @result: where the size in bytes goes; untouched on failure
 *
 * "512", "4k", "1.5G", "0x1000". Without a suffix the number is bytes; bytes have no fraction, and
 * a fraction of a larger unit is rounded down to whole bytes.
 *
 * Returns: true, or false with @errp set: not a size, or 2^64 bytes and more.
 */
bool parse_size(const char *str, uint64_t *result, Error **errp);
/* The same; a number without a suffix counts @unit bytes, a power of 1024 ('-m 512' is MiB). */
bool parse_size_unit(const char *str, uint64_t unit, uint64_t *result, Error **errp);

/* An unsigned decimal number, or a hexadecimal one after 0x. */
bool parse_uint64(const char *str, uint64_t *result, Error **errp);
/* The same, and the number must lie between @min and @max, which the error message names. */
bool parse_uint64_range(const char *str, uint64_t min, uint64_t max, uint64_t *result,
                        Error **errp);

/* "on", "yes", "true", "y" and "off", "no", "false", "n"; @name says of what in the error. */
bool parse_bool(const char *name, const char *str, bool *result, Error **errp);

/* Whether @id may name an object: a letter, then letters, digits, '-', '.', '_'. */
bool id_wellformed(const char *id);

/* A size as a person reads it, three significant digits: "512 B", "1.5 GiB"; g_free() it. */
char *size_to_str(uint64_t bytes);

#endif
