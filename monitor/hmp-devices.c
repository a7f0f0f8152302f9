/*
 * HMP: devices, objects, their tree and their properties, and character devices.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "chardev/char.h"
#include "monitor/hmp.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-commands-char.h"
#include "qapi/qapi-commands-misc.h"
#include "qapi/qapi-commands-qdev.h"
#include "qapi/qapi-commands-qom.h"
#include "qapi/qapi-visit-qom.h"
#include "util/json-writer.h"
#include "util/keyval.h"

/* Deeper than this no tree of ours is. */
#define TREE_DEPTH_MAX 32

/* ---- devices ---- */

void hmp_device_add(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    struct json_object *options = keyval_parse(hmp_str(args, "device"), "driver", NULL, &err);
    struct json_object *ret;

    if (options) {
        ret = hmp_call_qmp("device_add", options, &err);
        json_object_put(ret);
    }
    hmp_handle_error(mon, err);
}

void hmp_device_del(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_device_del(hmp_str(args, "id"), &err);
    hmp_handle_error(mon, err);
}

void hmp_complete_device_type(Completions *c, unsigned n)
{
    ObjectTypeInfoList *types = n == 0 ? qmp_qom_list_types("device", false, false, NULL) : NULL;

    for (ObjectTypeInfoList *t = types; t; t = t->next) {
        completions_add(c, t->value->name);
    }
    qapi_free_ObjectTypeInfoList(types);
}

static bool is_child(const ObjectPropertyInfo *info)
{
    return g_str_has_prefix(info->type, "child<");
}

/* The names of what stands below @path. */
static void complete_children(Completions *c, unsigned n, const char *path)
{
    ObjectPropertyInfoList *list = n == 0 ? qmp_qom_list(path, NULL) : NULL;

    for (ObjectPropertyInfoList *p = list; p; p = p->next) {
        if (is_child(p->value)) {
            completions_add(c, p->value->name);
        }
    }
    qapi_free_ObjectPropertyInfoList(list);
}

void hmp_complete_device_id(Completions *c, unsigned n)
{
    complete_children(c, n, "/machine/peripheral");
}

/* ---- objects that -object makes ---- */

void hmp_object_add(Monitor *mon, HMPArgs *args)
{
    ObjectOptions *opts = NULL;
    Error *err = NULL;
    Visitor *v = json_input_visitor_new_str(hmp_str(args, "object"), "qom-type", &err);

    if (v && visit_type_ObjectOptions(v, NULL, &opts, &err)) {
        qmp_object_add(opts, &err);
    }
    if (v) {
        visit_free(v);
    }
    qapi_free_ObjectOptions(opts);
    hmp_handle_error(mon, err);
}

void hmp_object_del(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_object_del(hmp_str(args, "id"), &err);
    hmp_handle_error(mon, err);
}

void hmp_complete_object_type(Completions *c, unsigned n)
{
    for (int i = 0; n == 0 && i < OBJECT_TYPE__MAX; i++) {
        completions_add(c, ObjectType_str(i));
    }
}

void hmp_complete_object_id(Completions *c, unsigned n)
{
    complete_children(c, n, "/objects");
}

static const char *on_off(bool value)
{
    return value ? "on" : "off";
}

void hmp_info_memdev(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    MemdevList *list = qmp_query_memdev(&err);

    for (MemdevList *m = list; m; m = m->next) {
        monitor_printf(mon, "memory backend: %s\n", m->value->id ? m->value->id : "");
        monitor_printf(mon, "  size:  %" PRIu64 "\n", m->value->size);
        monitor_printf(mon, "  merge: %s\n", on_off(m->value->merge));
        monitor_printf(mon, "  dump: %s\n", on_off(m->value->dump));
        monitor_printf(mon, "  prealloc: %s\n", on_off(m->value->prealloc));
        monitor_printf(mon, "  share: %s\n", on_off(m->value->share));
        monitor_printf(mon, "  policy: %s\n", HostMemPolicy_str(m->value->policy));
    }
    if (!err) {
        monitor_printf(mon, "\n");
    }
    hmp_handle_error(mon, err);
    qapi_free_MemdevList(list);
}

void hmp_info_iothreads(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    IOThreadInfoList *list = qmp_query_iothreads(&err);

    for (IOThreadInfoList *at = list; at; at = at->next) {
        monitor_printf(mon, "%s:\n", at->value->id);
        monitor_printf(mon, "  thread_id=%" PRId64 "\n", at->value->thread_id);
        monitor_printf(mon, "  poll-max-ns=%" PRId64 "\n", at->value->poll_max_ns);
        monitor_printf(mon, "  poll-grow=%" PRId64 "\n", at->value->poll_grow);
        monitor_printf(mon, "  poll-shrink=%" PRId64 "\n", at->value->poll_shrink);
        monitor_printf(mon, "  aio-max-batch=%" PRId64 "\n", at->value->aio_max_batch);
    }
    hmp_handle_error(mon, err);
    qapi_free_IOThreadInfoList(list);
}

/* ---- the tree ---- */

void hmp_qom_list(Monitor *mon, HMPArgs *args)
{
    const char *path = hmp_str(args, "path");
    Error *err = NULL;
    ObjectPropertyInfoList *list;

    if (!path) {
        monitor_printf(mon, "/\n");
        return;
    }
    list = qmp_qom_list(path, &err);
    for (ObjectPropertyInfoList *p = list; p; p = p->next) {
        monitor_printf(mon, "%s (%s)\n", p->value->name, p->value->type);
    }
    hmp_handle_error(mon, err);
    qapi_free_ObjectPropertyInfoList(list);
}

void hmp_qom_get(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    struct json_object *value = qmp_qom_get(hmp_str(args, "path"), hmp_str(args, "property"), &err);
    g_autoptr(GString) text = g_string_new(NULL);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    json_write(text, value, true);
    monitor_printf(mon, "%s\n", text->str);
    json_object_put(value);
}

void hmp_qom_set(Monitor *mon, HMPArgs *args)
{
    const char *text = hmp_str(args, "value");
    struct json_object *value = NULL;
    Error *err = NULL;

    if (!hmp_bool(args, "json", false)) {
        value = json_object_new_string(text);
    } else if (json_parse_text(text, &value, &err) < 0) {
        hmp_handle_error(mon, err);
        return;
    }
    qmp_qom_set(hmp_str(args, "path"), hmp_str(args, "property"), value, &err);
    json_object_put(value);
    hmp_handle_error(mon, err);
}

static void print_tree(Monitor *mon, const char *path, const char *name, const char *type,
                       unsigned depth)
{
    ObjectPropertyInfoList *list = qmp_qom_list(path, NULL);

    monitor_printf(mon, "%*s/%s (%s)\n", depth * 2, "", name, type);
    for (ObjectPropertyInfoList *p = list; p && depth < TREE_DEPTH_MAX; p = p->next) {
        const ObjectPropertyInfo *info = p->value;

        if (is_child(info)) {
            g_autofree char *child = g_strdup_printf("%s/%s", strcmp(path, "/") ? path : "",
                                                     info->name);
            g_autofree char *of = g_strndup(info->type + strlen("child<"),
                                            strlen(info->type) - strlen("child<>"));
            print_tree(mon, child, info->name, of, depth + 1);
        }
    }
    qapi_free_ObjectPropertyInfoList(list);
}

void hmp_info_qom_tree(Monitor *mon, HMPArgs *args)
{
    const char *path = hmp_str(args, "path");
    Error *err = NULL;
    struct json_object *type;

    path = path ? path : "/machine";
    type = qmp_qom_get(path, "type", &err);
    if (hmp_handle_error(mon, err)) {
        return;
    }
    print_tree(mon, path, strrchr(path, '/') ? strrchr(path, '/') + 1 : path,
               json_object_get_string(type), 0);
    json_object_put(type);
}

void hmp_complete_qom_path(Completions *c, unsigned n)
{
    const char *slash = strrchr(c->word, '/');
    g_autofree char *dir = slash ? g_strndup(c->word, slash - c->word + 1) : g_strdup("/");
    g_autofree char *path = g_strdup(dir);
    ObjectPropertyInfoList *list;

    if (n > 0) {
        return;
    }
    if (strlen(path) > 1) {
        path[strlen(path) - 1] = '\0';
    }
    list = qmp_qom_list(path, NULL);
    for (ObjectPropertyInfoList *p = list; p; p = p->next) {
        g_autofree char *word = g_strconcat(dir, p->value->name, NULL);

        if (is_child(p->value)) {
            completions_add(c, word);
        }
    }
    qapi_free_ObjectPropertyInfoList(list);
}

/* ---- character devices ---- */

void hmp_chardev_add(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    chardev_new_from_opts(hmp_str(args, "args"), &err);
    hmp_handle_error(mon, err);
}

void hmp_chardev_remove(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_chardev_remove(hmp_str(args, "id"), &err);
    hmp_handle_error(mon, err);
}

void hmp_complete_chardev(Completions *c, unsigned n)
{
    ChardevInfoList *list = n == 0 ? qmp_query_chardev(NULL) : NULL;

    for (ChardevInfoList *i = list; i; i = i->next) {
        completions_add(c, i->value->label);
    }
    qapi_free_ChardevInfoList(list);
}
