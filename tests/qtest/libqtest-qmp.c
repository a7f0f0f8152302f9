/*
 * QMP from a test's side, JSON templates, and looking into answers.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "tests/qtest/libqtest-int.h"

/* ---- JSON templates ---- */

static void append_quoted(GString *out, const char *text)
{
    struct json_object *string = json_object_new_string(text);

    g_string_append(out, json_object_to_json_string_ext(string, JSON_C_TO_STRING_PLAIN));
    json_object_put(string);
}

/* An integer conversion: the length modifiers and the letter at @spec. Returns what follows. */
static const char *append_number(GString *out, const char *spec, va_list *ap)
{
    unsigned longs = 0;

    for (; *spec == 'l'; spec++) {
        longs++;
    }
    if (*spec == 'u' || *spec == 'x') {
        unsigned long long value = longs == 2 ? va_arg(*ap, unsigned long long)
                                   : longs ? va_arg(*ap, unsigned long) : va_arg(*ap, unsigned);
        g_string_append_printf(out, "%llu", value);
    } else if (*spec == 'd') {
        long long value = longs == 2 ? va_arg(*ap, long long)
                          : longs ? va_arg(*ap, long) : va_arg(*ap, int);
        g_string_append_printf(out, "%lld", value);
    } else {
        qtest_fail(NULL, "a JSON template has an unknown conversion at '%s'", spec);
    }
    return spec + 1;
}

static const char *append_conversion(GString *out, const char *spec, va_list *ap)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    struct json_object *value;

    switch (*spec) {
    case '%':
        g_string_append_c(out, '%');
        return spec + 1;
    case 's':
        append_quoted(out, va_arg(*ap, const char *));
        return spec + 1;
    case 'i':
        g_string_append(out, va_arg(*ap, int) ? "true" : "false");
        return spec + 1;
    case 'f':
        g_string_append(out, g_ascii_dtostr(number, sizeof(number), va_arg(*ap, double)));
        return spec + 1;
    case 'p':
        value = va_arg(*ap, struct json_object *);
        g_string_append(out, json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
        json_object_put(value);
        return spec + 1;
    default:
        return append_number(out, spec, ap);
    }
}

/* The contents of a string in single quotes, up to its end. Returns what follows the quote. */
static const char *append_single_quoted(GString *out, const char *text)
{
    g_string_append_c(out, '"');
    for (; *text && *text != '\''; text++) {
        if (*text == '"') {
            g_string_append_c(out, '\\');
        }
        g_string_append_c(out, *text);
        if (*text == '\\' && text[1]) {
            g_string_append_c(out, *++text);
        }
    }
    g_string_append_c(out, '"');
    return *text ? text + 1 : text;
}

struct json_object *qtest_json_v(const char *fmt, va_list ap)
{
    g_autoptr(GString) text = g_string_new(NULL);
    enum json_tokener_error error;
    struct json_object *obj;
    bool in_string = false;
    va_list args;

    va_copy(args, ap);
    while (*fmt) {
        if (*fmt == '%' && !in_string) {
            fmt = append_conversion(text, fmt + 1, &args);
        } else if (*fmt == '\'' && !in_string) {
            fmt = append_single_quoted(text, fmt + 1);
        } else {
            if (*fmt == '\\' && in_string && fmt[1]) {
                g_string_append_c(text, *fmt++);
            } else if (*fmt == '"') {
                in_string = !in_string;
            }
            g_string_append_c(text, *fmt++);
        }
    }
    va_end(args);
    obj = json_tokener_parse_verbose(text->str, &error);
    if (error != json_tokener_success) {
        qtest_fail(NULL, "a JSON template gives bad JSON (%s): %s", json_tokener_error_desc(error),
                   text->str);
    }
    return obj;
}

struct json_object *qtest_json(const char *fmt, ...)
{
    struct json_object *obj;
    va_list ap;

    va_start(ap, fmt);
    obj = qtest_json_v(fmt, ap);
    va_end(ap);
    return obj;
}

/* ---- looking into JSON ---- */

static struct json_object *lookup(struct json_object *obj, const char *path)
{
    g_auto(GStrv) parts = g_strsplit(path, ".", -1);

    for (unsigned i = 0; parts[i] && obj; i++) {
        if (json_object_is_type(obj, json_type_array)) {
            char *end;
            guint64 index = g_ascii_strtoull(parts[i], &end, 10);

            obj = *end || !*parts[i] ? NULL : json_object_array_get_idx(obj, index);
        } else if (!json_object_is_type(obj, json_type_object) ||
                   !json_object_object_get_ex(obj, parts[i], &obj)) {
            return NULL;
        }
    }
    return obj;
}

bool qtest_has(struct json_object *obj, const char *path)
{
    return lookup(obj, path) != NULL;
}

struct json_object *qtest_get(struct json_object *obj, const char *path)
{
    struct json_object *value = lookup(obj, path);

    if (!value) {
        qtest_fail(NULL, "there is no %s in %s", path, json_object_to_json_string(obj));
    }
    return value;
}

static struct json_object *get_typed(struct json_object *obj, const char *path, json_type type)
{
    struct json_object *value = qtest_get(obj, path);

    if (!json_object_is_type(value, type)) {
        qtest_fail(NULL, "%s is not of type %s in %s", path, json_type_to_name(type),
                   json_object_to_json_string(obj));
    }
    return value;
}

const char *qtest_get_str(struct json_object *obj, const char *path)
{
    return json_object_get_string(get_typed(obj, path, json_type_string));
}

int64_t qtest_get_int(struct json_object *obj, const char *path)
{
    return json_object_get_int64(get_typed(obj, path, json_type_int));
}

bool qtest_get_bool(struct json_object *obj, const char *path)
{
    return json_object_get_boolean(get_typed(obj, path, json_type_boolean));
}

/* ---- the connection ---- */

struct json_object *qtest_qmp_receive_dict(QTestState *s)
{
    g_autofree char *line = line_socket_read(s, &s->qmp);
    enum json_tokener_error error;
    struct json_object *obj;

    if (!line) {
        return NULL;
    }
    obj = json_tokener_parse_verbose(line, &error);
    if (!json_object_is_type(obj, json_type_object)) {
        qtest_fail(s, "this came over QMP: %s", line);
    }
    return obj;
}

static struct json_object *receive_or_fail(QTestState *s)
{
    struct json_object *obj = qtest_qmp_receive_dict(s);

    if (!obj) {
        qtest_fail(s, "the machine closed the QMP connection");
    }
    return obj;
}

struct json_object *qtest_qmp_receive(QTestState *s)
{
    for (;;) {
        struct json_object *obj = receive_or_fail(s);

        if (!qtest_has(obj, "event")) {
            return obj;
        }
        g_queue_push_tail(&s->events, obj);
    }
}

void qtest_qmp_send_raw(QTestState *s, const void *bytes, size_t len)
{
    line_socket_write(s, &s->qmp, bytes, len, NULL, 0);
}

static void send_v(QTestState *s, const int *fds, size_t n_fds, const char *fmt, va_list ap)
{
    struct json_object *obj = qtest_json_v(fmt, ap);
    g_autofree char *text = g_strdup_printf("%s\n", json_object_to_json_string_ext(
                                                        obj, JSON_C_TO_STRING_PLAIN));

    line_socket_write(s, &s->qmp, text, strlen(text), fds, n_fds);
    json_object_put(obj);
}

void qtest_qmp_send(QTestState *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    send_v(s, NULL, 0, fmt, ap);
    va_end(ap);
}

static struct json_object *qmp_v(QTestState *s, const int *fds, size_t n_fds, const char *fmt,
                                 va_list ap)
{
    send_v(s, fds, n_fds, fmt, ap);
    return qtest_qmp_receive(s);
}

struct json_object *qtest_qmp(QTestState *s, const char *fmt, ...)
{
    struct json_object *response;
    va_list ap;

    va_start(ap, fmt);
    response = qmp_v(s, NULL, 0, fmt, ap);
    va_end(ap);
    return response;
}

struct json_object *qtest_qmp_fds(QTestState *s, const int *fds, size_t n_fds, const char *fmt, ...)
{
    struct json_object *response;
    va_list ap;

    va_start(ap, fmt);
    response = qmp_v(s, fds, n_fds, fmt, ap);
    va_end(ap);
    return response;
}

/* What @key of @response holds, with a reference; frees @response. */
static struct json_object *take_member(QTestState *s, struct json_object *response,
                                       const char *key, const char *fmt)
{
    struct json_object *value;

    if (!json_object_object_get_ex(response, key, &value)) {
        qtest_fail(s, "no \"%s\" to %s but %s", key, fmt, json_object_to_json_string(response));
    }
    json_object_get(value);
    json_object_put(response);
    return value;
}

struct json_object *qtest_qmp_assert_success_ref(QTestState *s, const char *fmt, ...)
{
    struct json_object *response;
    va_list ap;

    va_start(ap, fmt);
    response = qmp_v(s, NULL, 0, fmt, ap);
    va_end(ap);
    return take_member(s, response, "return", fmt);
}

void qtest_qmp_assert_success(QTestState *s, const char *fmt, ...)
{
    struct json_object *response;
    va_list ap;

    va_start(ap, fmt);
    response = qmp_v(s, NULL, 0, fmt, ap);
    va_end(ap);
    json_object_put(take_member(s, response, "return", fmt));
}

void qtest_qmp_fds_assert_success(QTestState *s, const int *fds, size_t n_fds, const char *fmt, ...)
{
    struct json_object *response;
    va_list ap;

    va_start(ap, fmt);
    response = qmp_v(s, fds, n_fds, fmt, ap);
    va_end(ap);
    json_object_put(take_member(s, response, "return", fmt));
}

struct json_object *qtest_qmp_assert_failure_ref(QTestState *s, const char *fmt, ...)
{
    struct json_object *response;
    va_list ap;

    va_start(ap, fmt);
    response = qmp_v(s, NULL, 0, fmt, ap);
    va_end(ap);
    return take_member(s, response, "error", fmt);
}

void qtest_qmp_assert_error(QTestState *s, const char *desc, const char *fmt, ...)
{
    struct json_object *error;
    va_list ap;

    va_start(ap, fmt);
    error = take_member(s, qmp_v(s, NULL, 0, fmt, ap), "error", fmt);
    va_end(ap);
    if (strcmp(qtest_get_str(error, "desc"), desc)) {
        qtest_fail(s, "to %s the error is '%s' and not '%s'", fmt, qtest_get_str(error, "desc"),
                   desc);
    }
    json_object_put(error);
}

void qtest_qmp_handshake(QTestState *s)
{
    struct json_object *greeting = receive_or_fail(s);

    if (!qtest_has(greeting, "QMP.version")) {
        qtest_fail(s, "QMP's greeting is %s", json_object_to_json_string(greeting));
    }
    json_object_put(greeting);
    qtest_qmp_assert_success(s, "{'execute': 'qmp_capabilities'}");
}

/* ---- events ---- */

struct json_object *qtest_qmp_event_ref(QTestState *s, const char *event)
{
    for (GList *link = s->events.head; link; link = link->next) {
        struct json_object *obj = link->data;

        if (!strcmp(qtest_get_str(obj, "event"), event)) {
            g_queue_delete_link(&s->events, link);
            return obj;
        }
    }
    return NULL;
}

struct json_object *qtest_qmp_eventwait_ref(QTestState *s, const char *event)
{
    struct json_object *obj = qtest_qmp_event_ref(s, event);

    while (!obj) {
        struct json_object *next = receive_or_fail(s);

        if (!qtest_has(next, "event")) {
            qtest_fail(s, "while %s was awaited came %s", event, json_object_to_json_string(next));
        }
        if (!strcmp(qtest_get_str(next, "event"), event)) {
            obj = next;
        } else {
            g_queue_push_tail(&s->events, next);
        }
    }
    return obj;
}

void qtest_qmp_eventwait(QTestState *s, const char *event)
{
    json_object_put(qtest_qmp_eventwait_ref(s, event));
}

void qtest_qmp_clear_events(QTestState *s)
{
    struct json_object *obj;

    while ((obj = g_queue_pop_head(&s->events))) {
        json_object_put(obj);
    }
}

/* ---- HMP ---- */

char *qtest_hmp(QTestState *s, const char *fmt, ...)
{
    g_autofree char *command = NULL;
    struct json_object *value;
    g_auto(GStrv) parts = NULL;
    va_list ap;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    value = qtest_qmp_assert_success_ref(s, "{'execute': 'human-monitor-command', "
                                         "'arguments': {'command-line': %s}}", command);
    parts = g_strsplit(json_object_get_string(value), "\r", -1);
    json_object_put(value);
    return g_strjoinv("", parts);
}
