/*
 * QMP on devices: adding and removing them, and the qom-* commands that look at the tree and at
 * properties.
 *
 * A device is added or removed while vCPUs stand, because that may change the memory map.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "hw/qom-tree.h"
#include "system/runstate.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-commands-qdev.h"
#include "qapi/qapi-commands-qom.h"
#include "qapi/qapi-events-qdev.h"
#include "qapi/qapi-visit-qom.h"
#include "qapi/util.h"

static ObjectPropertyInfo *describe_property(const Property *prop, bool with_default)
{
    ObjectPropertyInfo *info = g_new0(ObjectPropertyInfo, 1);
    bool has_default = with_default && !prop->get && !prop->set;

    info->name = g_strdup(prop->name);
    info->type = g_strdup(property_type_name(prop->type));
    info->description = g_strdup(prop->desc);
    if (has_default && prop->type == PROP_BOOL) {
        info->default_value = json_object_new_boolean(prop->default_number != 0);
    } else if (has_default && prop->type < PROP_STR) {
        info->default_value = json_object_new_uint64(prop->default_number);
    }
    info->has_default_value = info->default_value != NULL;
    return info;
}

static ObjectPropertyInfo *describe(const char *name, const char *type, const char *description)
{
    ObjectPropertyInfo *info = g_new0(ObjectPropertyInfo, 1);

    info->name = g_strdup(name);
    info->type = g_strdup(type);
    info->description = g_strdup(description);
    return info;
}

static ObjectPropertyInfo *describe_child(const QomNode *child)
{
    g_autofree char *type = g_strdup_printf("child<%s>", child->type);

    return describe(qom_node_name(child), type, NULL);
}

/* What query-memdev says of a backend, as JSON; its members are the object's properties. */
static struct json_object *memdev_members(const QomNode *node)
{
    g_autoptr(MemdevList) list = qmp_query_memdev(NULL);
    struct json_object *json = NULL;

    for (MemdevList *at = list; at; at = at->next) {
        if (!strcmp(at->value->id, qom_node_name(node))) {
            Visitor *v = json_output_visitor_new(&json);

            visit_type_Memdev(v, NULL, &at->value, &error_abort);
            visit_complete(v, &json);
            visit_free(v);
        }
    }
    return json;
}

static const char *json_type_name(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_boolean:
        return "bool";
    case json_type_int:
        return "size";
    case json_type_array:
        return "list";
    default:
        return "str";
    }
}

static void list_memdev(const QomNode *node, ObjectPropertyInfoList ***tail)
{
    struct json_object *members = memdev_members(node);

    json_object_object_foreach(members, name, value) {
        QAPI_LIST_APPEND(*tail, describe(name, json_type_name(value), NULL));
    }
    json_object_put(members);
}

static struct json_object *get_memdev(const QomNode *node, const char *property)
{
    struct json_object *members = memdev_members(node), *value = NULL;

    if (json_object_object_get_ex(members, property, &value)) {
        json_object_get(value);
    }
    json_object_put(members);
    return value;
}

ObjectPropertyInfoList *qmp_qom_list(const char *path, Error **errp)
{
    ObjectPropertyInfoList *list = NULL, **tail = &list;
    unsigned position = 0;
    QomNode node, child;

    if (!qom_tree_find(path, &node, errp)) {
        return NULL;
    }
    if (!node.dev) {
        QAPI_LIST_APPEND(tail, describe("type", "str", NULL));
    }
    if (node.cpu) {
        QAPI_LIST_APPEND(tail, describe("apic-id", "uint32", NULL));
    }
    if (node.is_memdev) {
        list_memdev(&node, &tail);
    }
    if (node.dev) {
        for (const Property *prop = device_common_properties; prop->name; prop++) {
            QAPI_LIST_APPEND(tail, describe_property(prop, false));
        }
        for (const Property *prop = node.dev->klass->properties; prop && prop->name; prop++) {
            QAPI_LIST_APPEND(tail, describe_property(prop, false));
        }
    }
    while (qom_tree_child(&node, &position, &child)) {
        QAPI_LIST_APPEND(tail, describe_child(&child));
    }
    return list;
}

/* A child's value is its path. */
static struct json_object *get_child(const QomNode *node, const char *property)
{
    unsigned position = 0;
    QomNode child;

    while (qom_tree_child(node, &position, &child)) {
        if (!strcmp(qom_node_name(&child), property)) {
            return json_object_new_string(child.path);
        }
    }
    return NULL;
}

struct json_object *qmp_qom_get(const char *path, const char *property, Error **errp)
{
    struct json_object *value;
    QomNode node;

    if (!qom_tree_find(path, &node, errp)) {
        return NULL;
    }
    if (node.dev) {
        return device_get_json(node.dev, property, errp);
    }
    if (!strcmp(property, "type")) {
        return json_object_new_string(node.type);
    }
    if (node.cpu && !strcmp(property, "apic-id")) {
        return json_object_new_uint64(node.cpu->apic_id);
    }
    value = node.is_memdev ? get_memdev(&node, property) : get_child(&node, property);
    if (!value) {
        error_setg(errp, "Property '%s.%s' not found", node.type, property);
    }
    return value;
}

void qmp_qom_set(const char *path, const char *property, struct json_object *value, Error **errp)
{
    struct json_object *old;
    QomNode node;

    if (!qom_tree_find(path, &node, errp)) {
        return;
    }
    if (node.dev) {
        device_set_json(node.dev, property, value, errp);
        return;
    }
    old = qmp_qom_get(path, property, errp);
    if (old) {
        json_object_put(old);
        error_setg(errp, "Property '%s.%s' is read-only", node.type, property);
    }
}

static void append_type(ObjectTypeInfoList ***tail, const char *name, bool abstract,
                        const char *parent)
{
    ObjectTypeInfo *info = g_new0(ObjectTypeInfo, 1);

    info->name = g_strdup(name);
    info->has_abstract = info->abstract = abstract;
    info->parent = g_strdup(parent);
    QAPI_LIST_APPEND(*tail, info);
}

ObjectTypeInfoList *qmp_qom_list_types(const char *implements, bool has_abstract, bool abstract,
                                       Error **errp)
{
    ObjectTypeInfoList *list = NULL, **tail = &list;
    bool all = !implements || !strcmp(implements, "object");
    bool devices = all || !strcmp(implements, "device");

    if (has_abstract && abstract && all) {
        append_type(&tail, "object", true, NULL);
    }
    if (has_abstract && abstract && devices) {
        append_type(&tail, "device", true, "object");
    }
    for (const DeviceClass *const *klass = device_classes; *klass; klass++) {
        if (devices || !strcmp(implements, (*klass)->name)) {
            append_type(&tail, (*klass)->name, false, "device");
        }
    }
    return list;
}

static ObjectPropertyInfoList *list_class_properties(const char *name, bool settable, Error **errp)
{
    ObjectPropertyInfoList *list = NULL, **tail = &list;
    const DeviceClass *klass = device_class_find(name);

    if (!klass) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", name);
        return NULL;
    }
    for (const Property *prop = klass->properties; prop && prop->name; prop++) {
        if (!settable || !property_is_read_only(prop)) {
            QAPI_LIST_APPEND(tail, describe_property(prop, true));
        }
    }
    if (!settable) {
        for (const Property *prop = device_common_properties; prop->name; prop++) {
            QAPI_LIST_APPEND(tail, describe_property(prop, false));
        }
    }
    return list;
}

ObjectPropertyInfoList *qmp_device_list_properties(const char *type_name, Error **errp)
{
    return list_class_properties(type_name, true, errp);
}

ObjectPropertyInfoList *qmp_qom_list_properties(const char *type_name, Error **errp)
{
    return list_class_properties(type_name, false, errp);
}

/* vCPUs that run are stopped meanwhile, which the guest does not notice and no event tells. */
static bool pause_cpus(void)
{
    bool running = runstate_is_running();

    if (running) {
        cpus_pause_all();
    }
    return running;
}

static void resume_cpus(bool paused)
{
    if (paused) {
        cpus_resume_all();
    }
}

void qmp_marshal_device_add(struct json_object *args, struct json_object **ret, Error **errp)
{
    struct json_object *options = args ? json_object_get(args) : json_object_new_object();
    bool paused = pause_cpus();

    device_add(options, true, errp);
    resume_cpus(paused);
    json_object_put(options);
}

void qmp_device_del(const char *id, Error **errp)
{
    DeviceState *dev = device_find(id);
    g_autofree char *old_id = NULL, *path = NULL;
    bool paused;

    if (!dev) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", id);
        return;
    }
    if (!dev->klass->hotpluggable) {
        error_setg(errp, "Device '%s' does not support hotplugging", id);
        return;
    }
    if (!device_hotplug_allowed(errp) ||
        (dev->klass->may_unplug && !dev->klass->may_unplug(dev, errp))) {
        return;
    }
    old_id = g_strdup(dev->id);
    path = g_strdup(dev->path);
    paused = pause_cpus();
    device_delete(dev);
    resume_cpus(paused);
    qapi_event_send_device_deleted(old_id, path);
}
