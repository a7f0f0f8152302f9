/*
 * Numbers, sizes and identifiers as people write them.
 *
 * Digits are scanned by hand: strtoull() would take blanks, signs and the locale's idea of digits,
 * and a fraction in floating point would make 1.1T a number of bytes that nobody wrote. A fraction
 * is an integer over a power of ten, multiplied out in 128 bits.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/cutils.h"

#include <inttypes.h>
#include <string.h>

#define FRACTION_DIGITS_MAX 18

typedef enum Scan {
    SCAN_OK,
    SCAN_NOTHING,
    SCAN_TOO_LARGE,
} Scan;

/* Scan an unsigned number, hexadecimal after 0x, and step over all its digits. */
static Scan scan_uint64(const char **p, bool *hex, uint64_t *value)
{
    *hex = (*p)[0] == '0' && ((*p)[1] == 'x' || (*p)[1] == 'X');
    if (*hex) {
        *p += 2;
    }

    const char *s = *p;
    bool overflow = false;
    uint64_t v = 0;
    for (; *hex ? g_ascii_isxdigit(*s) : g_ascii_isdigit(*s); s++) {
        overflow |= __builtin_mul_overflow(v, *hex ? 16 : 10, &v);
        overflow |= __builtin_add_overflow(v, g_ascii_xdigit_value(*s), &v);
    }
    bool any = s != *p;
    *p = s;
    *value = v;
    return !any ? SCAN_NOTHING : overflow ? SCAN_TOO_LARGE : SCAN_OK;
}

/*
 * Digits after a decimal point as @num / @den; those after the 18th are less than two bytes of an
 * E.
 */
static bool scan_fraction(const char **p, uint64_t *num, uint64_t *den)
{
    const char *s = *p;

    *num = 0;
    *den = 1;
    for (; g_ascii_isdigit(*s); s++) {
        if (s - *p < FRACTION_DIGITS_MAX) {
            *num = *num * 10 + (*s - '0');
            *den *= 10;
        }
    }
    bool any = s != *p;
    *p = s;
    return any;
}

/* The unit that a suffix letter names; 0 when it names none. */
static uint64_t suffix_unit(char c)
{
    switch (g_ascii_toupper(c)) {
    case 'B':
        return 1;
    case 'K':
        return KiB;
    case 'M':
        return MiB;
    case 'G':
        return GiB;
    case 'T':
        return TiB;
    case 'P':
        return PiB;
    case 'E':
        return EiB;
    }
    return 0;
}

/* Take a size apart: @whole + @num / @den times @unit bytes (@unit stays without a suffix). */
static Scan scan_size(const char *p, uint64_t *whole, uint64_t *num, uint64_t *den, uint64_t *unit)
{
    bool hex;
    Scan scan = scan_uint64(&p, &hex, whole);

    *num = 0;
    *den = 1;
    if (*p == '.' && !hex) {
        p++;
        if (!scan_fraction(&p, num, den)) {
            return SCAN_NOTHING;
        }
    }
    if (*p) {
        *unit = suffix_unit(*p++);
        if (!*unit || *p) {
            return SCAN_NOTHING;
        }
    }
    return scan;
}

bool parse_size_unit(const char *str, uint64_t unit, uint64_t *result, Error **errp)
{
    uint64_t whole, num, den;
    Scan scan = scan_size(str, &whole, &num, &den, &unit);

    if (scan == SCAN_NOTHING) {
        error_setg(errp, "'%s' is not a size: a number with an optional suffix k, M, G, T, P or E "
                   "is expected", str);
        return false;
    }
    if (num && unit == 1) {
        error_setg(errp, "Size '%s' is not a whole number of bytes", str);
        return false;
    }

    unsigned __int128 bytes = (unsigned __int128)whole * unit;
    bytes += (unsigned __int128)num * unit / den;
    if (scan == SCAN_TOO_LARGE || bytes > UINT64_MAX) {
        error_setg(errp, "Size '%s' is too large: it must be less than 2^64 bytes", str);
        return false;
    }
    *result = bytes;
    return true;
}

bool parse_size(const char *str, uint64_t *result, Error **errp)
{
    return parse_size_unit(str, 1, result, errp);
}

bool parse_uint64_range(const char *str, uint64_t min, uint64_t max, uint64_t *result,
                        Error **errp)
{
    const char *p = str;
    uint64_t value;
    bool hex;
    Scan scan = scan_uint64(&p, &hex, &value);

    if (scan == SCAN_NOTHING || *p) {
        error_setg(errp, "'%s' is not a number", str);
        return false;
    }
    if (scan == SCAN_TOO_LARGE || value < min || value > max) {
        error_setg(errp, "'%s' is out of range: a number from %" PRIu64 " to %" PRIu64
                   " is expected", str, min, max);
        return false;
    }
    *result = value;
    return true;
}

bool parse_uint64(const char *str, uint64_t *result, Error **errp)
{
    return parse_uint64_range(str, 0, UINT64_MAX, result, errp);
}

bool parse_bool(const char *name, const char *str, bool *result, Error **errp)
{
    static const char *const yes[] = { "on", "yes", "true", "y", NULL };
    static const char *const no[] = { "off", "no", "false", "n", NULL };

    if (g_strv_contains(yes, str)) {
        *result = true;
    } else if (g_strv_contains(no, str)) {
        *result = false;
    } else {
        error_setg(errp, "Parameter '%s' expects 'on' or 'off', not '%s'", name, str);
        return false;
    }
    return true;
}

bool id_wellformed(const char *id)
{
    if (!g_ascii_isalpha(*id)) {
        return false;
    }
    for (const char *p = id; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("-._", *p)) {
            return false;
        }
    }
    return true;
}

char *size_to_str(uint64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = bytes;
    unsigned i = 0;
    char digits[G_ASCII_DTOSTR_BUF_SIZE];

    /* 999.5 would print as 1e+03 with three digits. */
    for (; value >= 999.5 && i < G_N_ELEMENTS(units) - 1; i++) {
        value /= 1024;
    }
    g_ascii_formatd(digits, sizeof(digits), "%.3g", value);
    return g_strdup_printf("%s %s", digits, units[i]);
}
