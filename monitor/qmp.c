/*
 * QMP sessions: a greeting, capability negotiation, then commands and their replies, with events in
 * between.
 *
 * A command is executed as soon as its last byte has arrived and its reply appended before anything
 * more of the input is looked at. So replies come in the order of commands, and the queue of
 * pipelined commands is the input that was not read yet: it is bounded by being left in the socket.
 *
 * Events may come from any thread and go straight into the output of every session that is past
 * negotiation; between two messages, never into one, since messages are appended whole.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "monitor/json-stream.h"
#include "monitor/monitor-internal.h"
#include "qapi/event.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-commands-control.h"
#include "qapi/qapi-visit-control.h"
#include "util/json-writer.h"
#include "util/mutex.h"

typedef struct MonitorQMP {
    Monitor common;
    bool pretty;
    JSONStream *stream;
    int negotiated;             /* atomic: the session takes all commands, and gets events */
} MonitorQMP;

QmpCommandList qmp_commands;

/* The one command of a session that is not past negotiation. */
static QmpCommandList negotiation_commands;

static MonitorQMP *to_qmp(Monitor *mon)
{
    return (MonitorQMP *)mon;
}

static void send_message(MonitorQMP *mon, struct json_object *message)
{
    g_autoptr(GString) text = g_string_new(NULL);

    json_write(text, message, mon->pretty);
    if (mon->pretty) {
        g_string_replace(text, "\n", "\r\n", 0);
    }
    g_string_append(text, "\r\n");
    monitor_out(&mon->common, text->str, text->len);
}

/* ---- events ---- */

static struct json_object *timestamp_now(void)
{
    struct json_object *ts = json_object_new_object();
    gint64 now = g_get_real_time();

    json_object_object_add(ts, "seconds", json_object_new_int64(now / G_USEC_PER_SEC));
    json_object_object_add(ts, "microseconds", json_object_new_int64(now % G_USEC_PER_SEC));
    return ts;
}

static void emit_event(const char *name, struct json_object *data, void *opaque)
{
    struct json_object *event = json_object_new_object();

    json_object_object_add(event, "timestamp", timestamp_now());
    json_object_object_add(event, "event", json_object_new_string(name));
    if (data) {
        json_object_object_add(event, "data", data);
    }
    mutex_lock(&monitor_list_lock);
    for (guint i = 0; monitor_list && i < monitor_list->len; i++) {
        Monitor *mon = monitor_list->pdata[i];

        if (mon->is_qmp && g_atomic_int_get(&to_qmp(mon)->negotiated)) {
            send_message(to_qmp(mon), event);
        }
    }
    mutex_unlock(&monitor_list_lock);
    json_object_put(event);
}

/* ---- negotiation ---- */

static struct json_object *version_object(void)
{
    struct json_object *obj = NULL;
    VersionInfo *info = qmp_query_version(&error_abort);
    Visitor *v = json_output_visitor_new(&obj);

    visit_type_VersionInfo(v, NULL, &info, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    qapi_free_VersionInfo(info);
    return obj;
}

static void send_greeting(MonitorQMP *mon)
{
    struct json_object *greeting = json_object_new_object(), *qmp = json_object_new_object();

    json_object_object_add(qmp, "version", version_object());
    json_object_object_add(qmp, "capabilities", json_object_new_array());
    json_object_object_add(greeting, "QMP", qmp);
    send_message(mon, greeting);
    json_object_put(greeting);
}

void qmp_qmp_capabilities(bool has_enable, QMPCapabilityList *enable, Error **errp)
{
    Monitor *mon = monitor_cur();

    if (!monitor_cur_is_qmp() || g_atomic_int_get(&to_qmp(mon)->negotiated)) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND,
                  "Capabilities negotiation is already complete, command ignored");
        return;
    }
    if (has_enable && enable) {
        g_autoptr(GString) names = g_string_new(NULL);

        for (QMPCapabilityList *c = enable; c; c = c->next) {
            g_string_append_printf(names, "%s%s", names->len ? ", " : "",
                                   QMPCapability_str(c->value));
        }
        error_setg(errp, "Capability %s not available", names->str);
        return;
    }
    g_atomic_int_set(&to_qmp(mon)->negotiated, 1);
}

static bool is_command_not_found(struct json_object *response, struct json_object **error)
{
    struct json_object *cls;

    return json_object_object_get_ex(response, "error", error) &&
           json_object_object_get_ex(*error, "class", &cls) &&
           !strcmp(json_object_get_string(cls),
                   error_class_name(ERROR_CLASS_COMMAND_NOT_FOUND));
}

/* ---- commands ---- */

static void execute(MonitorQMP *mon, struct json_object *request)
{
    bool negotiated = g_atomic_int_get(&mon->negotiated);
    Monitor *old = monitor_set_cur(&mon->common);
    struct json_object *response, *error;

    response = qmp_dispatch(negotiated ? &qmp_commands : &negotiation_commands, request, false,
                            NULL, NULL);
    monitor_set_cur(old);
    if (!response) {
        return;
    }
    if (!negotiated && is_command_not_found(response, &error)) {
        json_object_object_add(error, "desc", json_object_new_string(
            "Expecting capabilities negotiation with 'qmp_capabilities'"));
    }
    send_message(mon, response);
    json_object_put(response);
}

static void reply_error(MonitorQMP *mon, Error *err)
{
    struct json_object *response = qmp_error_response(err);

    send_message(mon, response);
    json_object_put(response);
    error_free(err);
}

static size_t qmp_input(Monitor *common, const char *data, size_t size)
{
    MonitorQMP *mon = to_qmp(common);
    struct json_object *value = NULL;
    Error *err = NULL;
    size_t used;

    switch (json_stream_feed(mon->stream, data, size, &used, &value, &err)) {
    case JSON_STREAM_VALUE:
        execute(mon, value);
        json_object_put(value);
        break;
    case JSON_STREAM_ERROR:
        reply_error(mon, err);
        break;
    case JSON_STREAM_MORE:
        break;
    }
    return used;
}

/* ---- sessions ---- */

static void qmp_opened(Monitor *mon)
{
    send_greeting(to_qmp(mon));
}

static void qmp_closed(Monitor *mon)
{
    g_atomic_int_set(&to_qmp(mon)->negotiated, 0);
    json_stream_reset(to_qmp(mon)->stream);
}

static void qmp_free(Monitor *common)
{
    MonitorQMP *mon = to_qmp(common);

    monitor_data_destroy(common);
    json_stream_free(mon->stream);
    g_free(mon);
}

static const MonitorOps qmp_ops = {
    .opened = qmp_opened,
    .closed = qmp_closed,
    .input = qmp_input,
    .free = qmp_free,
};

bool monitor_init_qmp(Chardev *chr, bool pretty, Error **errp)
{
    MonitorQMP *mon = g_new0(MonitorQMP, 1);

    if (!monitor_data_init(&mon->common, &qmp_ops, true, chr, errp)) {
        g_free(mon);
        return false;
    }
    mon->pretty = pretty;
    mon->stream = json_stream_new();
    monitor_start(&mon->common);
    return true;
}

void qmp_init_globals(void)
{
    qmp_command_list_init(&negotiation_commands);
    qmp_register_command(&negotiation_commands, "qmp_capabilities", qmp_marshal_qmp_capabilities,
                         QCO_ALLOW_PRECONFIG);
    qapi_event_set_emitter(emit_event, NULL);
}
