/*
 * Key=value text is first read into nested objects, one key after the other; then objects whose
 * keys are numbers become arrays.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/keyval.h"

#include <errno.h>
#include <string.h>

/* Nesting that option text may have; enough for every type, and safe for recursive readers. */
#define JSON_TEXT_DEPTH_MAX 64

/* The length of a valid key part at @key: a name, or digits; 0 when there is none. */
static size_t part_length(const char *key)
{
    size_t n = 0;

    if (g_ascii_isdigit(key[0])) {
        while (g_ascii_isdigit(key[n])) {
            n++;
        }
        return n;
    }
    if (!g_ascii_isalpha(key[0]) && key[0] != '_') {
        return 0;
    }
    while (g_ascii_isalnum(key[n]) || key[n] == '-' || key[n] == '_') {
        n++;
    }
    return n;
}

/*
 * Store @value (taken over) under the dotted @key below @root. The text of the key is bounded, so
 * the depth is.
 */
static bool store(struct json_object *root, const char *key, struct json_object *value,
                  Error **errp)
{
    g_auto(GStrv) parts = g_strsplit(key, ".", -1);
    struct json_object *at = root, *next;
    size_t used = 0;
    guint i;

    for (i = 0; parts[i + 1]; i++) {
        used += strlen(parts[i]) + 1;
        if (!json_object_object_get_ex(at, parts[i], &next)) {
            next = json_object_new_object();
            json_object_object_add(at, parts[i], next);
        } else if (!json_object_is_type(next, json_type_object)) {
            error_setg(errp, "Parameters '%.*s.*' used inconsistently", (int)used - 1, key);
            json_object_put(value);
            return false;
        }
        at = next;
    }
    if (json_object_object_get_ex(at, parts[i], &next) &&
        json_object_is_type(next, json_type_object)) {
        error_setg(errp, "Parameters '%s.*' used inconsistently", key);
        json_object_put(value);
        return false;
    }
    json_object_object_add(at, parts[i], value);
    return true;
}

/* Read the key at *@text up to its '='; NULL with an error when it is none. */
static char *read_key(const char **text, Error **errp)
{
    const char *start = *text, *at = start;
    size_t length = strcspn(start, "=,");

    for (bool first = true; ; first = false) {
        size_t n = part_length(at);
        if (n == 0 || (first && g_ascii_isdigit(*at))) {
            error_setg(errp, "Invalid parameter '%.*s'", (int)MIN(length, 64), start);
            return NULL;
        }
        at += n;
        if (*at != '.') {
            break;
        }
        at++;
    }
    if (at != start + length) {
        error_setg(errp, "Invalid parameter '%.*s'", (int)MIN(length, 64), start);
        return NULL;
    }
    if (length > KEYVAL_KEY_MAX_CHARS) {
        error_setg(errp, "Parameter name '%.*s...' is too long", 64, start);
        return NULL;
    }
    if (*at != '=') {
        error_setg(errp, "Expected '=' after parameter '%.*s'", (int)length, start);
        return NULL;
    }
    *text = at + 1;
    return g_strndup(start, length);
}

/* Read a value up to a single comma, which is passed over. */
static struct json_object *read_value(const char **text)
{
    g_autoptr(GString) value = g_string_new(NULL);
    const char *at = *text;

    for (; *at; at++) {
        if (*at == ',' && *++at != ',') {
            break;
        }
        g_string_append_c(value, *at);
    }
    *text = at;
    return json_object_new_string_len(value->str, value->len);
}

static bool is_help(const char *text, size_t length)
{
    return (length == 4 && strncmp(text, "help", 4) == 0) || (length == 1 && *text == '?');
}

static bool read_params(struct json_object *root, const char *params, const char *implied_key,
                        bool *help, Error **errp)
{
    for (const char *at = params; *at; implied_key = NULL) {
        size_t length = strcspn(at, "=,");
        bool bare = at[length] != '=';

        if (help && bare && is_help(at, length)) {
            *help = true;
            at += length + (at[length] == ',');
            continue;
        }
        g_autofree char *key = NULL;
        if (bare && implied_key) {
            if (length == 0) {
                error_setg(errp, "No value for parameter '%s'", implied_key);
                return false;
            }
            key = g_strdup(implied_key);
        } else {
            key = read_key(&at, errp);
            if (!key) {
                return false;
            }
        }
        if (!store(root, key, read_value(&at), errp)) {
            return false;
        }
    }
    return true;
}

/*
 * Make an array of @object when its keys are numbers; *@result is a new reference, to the array or
 * to the object itself. @path is the object's own name with a dot, for messages.
 */
static bool listify(struct json_object *object, const char *path, struct json_object **result,
                    Error **errp)
{
    size_t numbers = 0, count = json_object_object_length(object);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);

    json_object_object_foreach(object, name, unused) {
        (void)unused;
        g_ptr_array_add(keys, g_strdup(name));
        numbers += g_ascii_isdigit(name[0]);
    }
    for (guint i = 0; i < keys->len; i++) {
        const char *key = keys->pdata[i];
        struct json_object *child = json_object_object_get(object, key), *made;
        g_autofree char *child_path = g_strdup_printf("%s%s.", path, key);

        if (json_object_is_type(child, json_type_object)) {
            if (!listify(child, child_path, &made, errp)) {
                return false;
            }
            json_object_object_add(object, key, made);
        }
    }
    if (numbers == 0) {
        *result = json_object_get(object);
        return true;
    }
    if (numbers != count) {
        error_setg(errp, "Parameters '%s*' used inconsistently", path);
        return false;
    }

    struct json_object *array = json_object_new_array();
    for (size_t i = 0; i < count; i++) {
        g_autofree char *index = g_strdup_printf("%zu", i);
        struct json_object *element;

        if (!json_object_object_get_ex(object, index, &element)) {
            error_setg(errp, "Parameter '%s%zu' missing", path, i);
            json_object_put(array);
            return false;
        }
        json_object_array_add(array, json_object_get(element));
    }
    *result = array;
    return true;
}

struct json_object *keyval_parse(const char *params, const char *implied_key, bool *help,
                                 Error **errp)
{
    struct json_object *root = json_object_new_object(), *result = NULL;

    if (help) {
        *help = false;
    }
    if (read_params(root, params, implied_key, help, errp)) {
        listify(root, "", &result, errp);
    }
    json_object_put(root);
    return result;
}

/* The end of the string that begins at @quote, in JSON that is known to be well-formed. */
static const char *skip_string(const char *quote)
{
    const char *at = quote + 1;

    while (*at && *at != *quote) {
        at += at[0] == '\\' && at[1] ? 2 : 1;
    }
    return *at ? at + 1 : at;
}

/*
 * Whether all integers of well-formed JSON fit 64 bits. json-c puts the nearest value in place of
 * one that does not, which nobody can tell afterwards.
 */
static bool integers_fit(const char *text)
{
    for (const char *at = text; *at; ) {
        if (*at == '"' || *at == '\'') {
            at = skip_string(at);
            continue;
        }
        size_t length = strspn(at, "-+0123456789.eE");
        if (length && (g_ascii_isdigit(*at) || *at == '-') && strcspn(at, ".eE") >= length) {
            errno = 0;
            if (*at == '-') {
                g_ascii_strtoll(at, NULL, 10);
            } else {
                g_ascii_strtoull(at, NULL, 10);
            }
            if (errno) {
                return false;
            }
        }
        at += MAX(length, 1);
    }
    return true;
}

int json_parse_text(const char *text, struct json_object **result, Error **errp)
{
    struct json_tokener *tokener = json_tokener_new_ex(JSON_TEXT_DEPTH_MAX);
    size_t length = strlen(text);
    int ret = -1;

    *result = NULL;
    if (length >= INT32_MAX) {
        error_setg(errp, "JSON text is too long");
        json_tokener_free(tokener);
        return -1;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    /* Strict means nothing behind the value, either. The NUL is passed too: it ends a number. */
    struct json_object *parsed = json_tokener_parse_ex(tokener, text, length + 1);
    enum json_tokener_error status = json_tokener_get_error(tokener);
    if (status != json_tokener_success) {
        error_setg(errp, "JSON parse error: %s", json_tokener_error_desc(status));
    } else if (!integers_fit(text)) {
        error_setg(errp, "JSON parse error: integer out of range");
        json_object_put(parsed);
    } else {
        *result = parsed;
        ret = 0;
    }
    json_tokener_free(tokener);
    return ret;
}
