/*
 * A request is checked completely before anything acts on it; then the command's marshalling
 * function does the rest.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/dispatch.h"

#include <string.h>

void qmp_command_list_init(QmpCommandList *cmds)
{
    cmds->by_name = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    cmds->in_order = g_ptr_array_new();
}

void qmp_command_list_destroy(QmpCommandList *cmds)
{
    g_clear_pointer(&cmds->in_order, g_ptr_array_unref);
    g_clear_pointer(&cmds->by_name, g_hash_table_unref);
}

void qmp_register_command(QmpCommandList *cmds, const char *name, QmpCommandFunc *fn,
                          QmpCommandOptions options)
{
    g_assert(!qmp_find_command(cmds, name));

    QmpCommand *cmd = g_new0(QmpCommand, 1);
    cmd->name = name;
    cmd->fn = fn;
    cmd->options = options;
    cmd->enabled = true;
    g_hash_table_insert(cmds->by_name, (gpointer)name, cmd);
    g_ptr_array_add(cmds->in_order, cmd);
}

const QmpCommand *qmp_find_command(const QmpCommandList *cmds, const char *name)
{
    return g_hash_table_lookup(cmds->by_name, name);
}

static void set_enabled(QmpCommandList *cmds, const char *name, bool enabled, const char *reason)
{
    QmpCommand *cmd = g_hash_table_lookup(cmds->by_name, name);

    g_assert(cmd);
    cmd->enabled = enabled;
    cmd->disable_reason = reason;
}

void qmp_disable_command(QmpCommandList *cmds, const char *name, const char *reason)
{
    set_enabled(cmds, name, false, reason);
}

void qmp_enable_command(QmpCommandList *cmds, const char *name)
{
    set_enabled(cmds, name, true, NULL);
}

void qmp_for_each_command(const QmpCommandList *cmds,
                          void (*fn)(const QmpCommand *cmd, void *opaque), void *opaque)
{
    for (guint i = 0; i < cmds->in_order->len; i++) {
        fn(cmds->in_order->pdata[i], opaque);
    }
}

/* The text of string @value, when it has no NUL inside. */
static const char *plain_string(struct json_object *value)
{
    if (!json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    const char *text = json_object_get_string(value);
    return strlen(text) == (size_t)json_object_get_string_len(value) ? text : NULL;
}

static bool parse_name(const char *member, struct json_object *value, const char **seen,
                       QmpRequest *parsed, Error **errp)
{
    const char *name = plain_string(value);

    if (!name) {
        error_setg(errp, "QMP input member '%s' must be a string", member);
        return false;
    }
    if (*seen) {
        error_setg(errp, "QMP input member '%s' clashes with '%s'", member, *seen);
        return false;
    }
    *seen = member;
    parsed->name = name;
    parsed->oob = strcmp(member, "exec-oob") == 0;
    return true;
}

bool qmp_parse_request(struct json_object *request, bool allow_oob, QmpRequest *parsed,
                       Error **errp)
{
    const char *seen = NULL;

    memset(parsed, 0, sizeof(*parsed));
    if (!json_object_is_type(request, json_type_object)) {
        error_setg(errp, "QMP input must be a JSON object");
        return false;
    }
    json_object_object_foreach(request, member, value) {
        if (strcmp(member, "execute") == 0 || (allow_oob && strcmp(member, "exec-oob") == 0)) {
            if (!parse_name(member, value, &seen, parsed, errp)) {
                return false;
            }
        } else if (strcmp(member, "arguments") == 0) {
            if (!json_object_is_type(value, json_type_object)) {
                error_setg(errp, "QMP input member 'arguments' must be an object");
                return false;
            }
            parsed->args = value;
        } else if (strcmp(member, "id") != 0) {
            error_setg(errp, "QMP input member '%s' is unexpected", member);
            return false;
        }
    }
    if (!seen) {
        error_setg(errp, "QMP input lacks member 'execute'");
        return false;
    }
    return true;
}

bool qmp_is_oob(struct json_object *request)
{
    return json_object_is_type(request, json_type_object) &&
           json_object_object_get_ex(request, "exec-oob", NULL) &&
           !json_object_object_get_ex(request, "execute", NULL);
}

/* The command that @parsed asks for, when it may run. */
static const QmpCommand *find_runnable(const QmpCommandList *cmds, const QmpRequest *parsed,
                                       QmpCommandFilter *filter, void *opaque, Error **errp)
{
    const QmpCommand *cmd = qmp_find_command(cmds, parsed->name);

    if (!cmd) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND, "The command %s has not been found",
                  parsed->name);
        return NULL;
    }
    if (!cmd->enabled) {
        error_set(errp, ERROR_CLASS_COMMAND_NOT_FOUND, "Command %s has been disabled%s%s",
                  cmd->name, cmd->disable_reason ? ": " : "", cmd->disable_reason ?: "");
        return NULL;
    }
    if (parsed->oob && !(cmd->options & QCO_ALLOW_OOB)) {
        error_setg(errp, "The command %s does not support OOB", cmd->name);
        return NULL;
    }
    return !filter || filter(cmd, opaque, errp) ? cmd : NULL;
}

struct json_object *qmp_dispatch_one(const QmpCommand *cmd, struct json_object *args, Error **errp)
{
    struct json_object *ret = NULL;
    struct json_object *own_args = args ? json_object_get(args) : json_object_new_object();
    Error *err = NULL;

    cmd->fn(own_args, &ret, &err);
    json_object_put(own_args);
    if (err) {
        json_object_put(ret);
        error_propagate(errp, err);
        return NULL;
    }
    return ret ?: json_object_new_object();
}

struct json_object *qmp_error_response(const Error *err)
{
    struct json_object *error = json_object_new_object();
    struct json_object *response = json_object_new_object();

    json_object_object_add(error, "class",
                           json_object_new_string(error_class_name(error_get_class(err))));
    json_object_object_add(error, "desc", json_object_new_string(error_get_pretty(err)));
    json_object_object_add(response, "error", error);
    return response;
}

struct json_object *qmp_dispatch(const QmpCommandList *cmds, struct json_object *request,
                                 bool allow_oob, QmpCommandFilter *filter, void *opaque)
{
    g_autoptr(Error) err = NULL;
    struct json_object *response = NULL, *result = NULL, *id;
    const QmpCommand *cmd = NULL;
    QmpRequest parsed;

    if (qmp_parse_request(request, allow_oob, &parsed, &err)) {
        cmd = find_runnable(cmds, &parsed, filter, opaque, &err);
    }
    if (cmd) {
        result = qmp_dispatch_one(cmd, parsed.args, &err);
    }
    if (err) {
        response = qmp_error_response(err);
    } else if (cmd->options & QCO_NO_SUCCESS_RESP) {
        json_object_put(result);
        return NULL;
    } else {
        response = json_object_new_object();
        json_object_object_add(response, "return", result);
    }
    if (json_object_is_type(request, json_type_object) &&
        json_object_object_get_ex(request, "id", &id)) {
        json_object_object_add(response, "id", json_object_get(id));
    }
    return response;
}
