/*
 * json-c can write JSON itself, but it passes bytes through that are not UTF-8, and clients that
 * look at QMP with text tools expect its customary spacing.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "util/json-writer.h"

static void write_character(GString *out, gunichar c)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    static const char letter[] = "\"\\bfnrt";
    const char *at = c && c < 0x80 ? strchr(special, (int)c) : NULL;

    if (at) {
        g_string_append_printf(out, "\\%c", letter[at - special]);
    } else if (c >= 0x20 && c < 0x7f) {
        g_string_append_c(out, (char)c);
    } else if (c < 0x10000) {
        g_string_append_printf(out, "\\u%04X", c);
    } else {
        g_string_append_printf(out, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
    }
}

static void write_string(GString *out, const char *s, size_t len)
{
    const char *end = s + len;

    g_string_append_c(out, '"');
    while (s < end) {
        gunichar c = *s ? g_utf8_get_char_validated(s, end - s) : 0;

        if (c == (gunichar)-1 || c == (gunichar)-2) {
            write_character(out, 0xfffd);
            s++;
        } else {
            write_character(out, c);
            s = c ? g_utf8_next_char(s) : s + 1;
        }
    }
    g_string_append_c(out, '"');
}

static void write_double(GString *out, double d)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];

    /* JSON knows neither infinities nor "not a number". */
    g_string_append(out, d - d == 0 ? g_ascii_formatd(buf, sizeof(buf), "%.17g", d) : "0");
}

static void separator(GString *out, bool first, int indent)
{
    if (!first) {
        g_string_append_c(out, ',');
    }
    if (indent >= 0) {
        g_string_append_printf(out, "\n%*s", indent * 4, "");
    } else if (!first) {
        g_string_append_c(out, ' ');
    }
}

static void close_indent(GString *out, bool empty, int indent)
{
    if (!empty && indent >= 0) {
        g_string_append_printf(out, "\n%*s", indent * 4, "");
    }
}

/* @indent: level of this value, or -1 for everything on one line. */
static void write_value(GString *out, struct json_object *v, int indent)
{
    int inner = indent < 0 ? -1 : indent + 1;
    bool first = true;

    switch (json_object_get_type(v)) {
    case json_type_null:
        g_string_append(out, "null");
        break;
    case json_type_boolean:
        g_string_append(out, json_object_get_boolean(v) ? "true" : "false");
        break;
    case json_type_int:
        if (json_object_get_int64(v) < 0) {
            g_string_append_printf(out, "%" PRId64, json_object_get_int64(v));
        } else {
            g_string_append_printf(out, "%" PRIu64, json_object_get_uint64(v));
        }
        break;
    case json_type_double:
        write_double(out, json_object_get_double(v));
        break;
    case json_type_string:
        write_string(out, json_object_get_string(v), json_object_get_string_len(v));
        break;
    case json_type_array:
        g_string_append_c(out, '[');
        for (size_t i = 0; i < json_object_array_length(v); i++) {
            separator(out, first, inner);
            write_value(out, json_object_array_get_idx(v, i), inner);
            first = false;
        }
        close_indent(out, first, indent);
        g_string_append_c(out, ']');
        break;
    case json_type_object:
        g_string_append_c(out, '{');
        json_object_object_foreach(v, key, member) {
            separator(out, first, inner);
            write_string(out, key, strlen(key));
            g_string_append(out, ": ");
            write_value(out, member, inner);
            first = false;
        }
        close_indent(out, first, indent);
        g_string_append_c(out, '}');
        break;
    }
}

void json_write(GString *out, struct json_object *value, bool pretty)
{
    write_value(out, value, pretty ? 0 : -1);
}
