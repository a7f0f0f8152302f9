/*
 * Properties of devices: checking, storing and showing values, by the type in the property's table.
 *
 * Every way in (C, text, JSON) makes a PropertyValue of it and ends in store(), where range, life
 * cycle and setter are looked after once.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/device.h"

#include <inttypes.h>
#include <string.h>

#include "util/cutils.h"

static bool get_realized(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->boolean = dev->realized;
    return true;
}

static bool get_hotplugged(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->boolean = dev->hotplugged;
    return true;
}

static bool get_hotpluggable(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->boolean = dev->klass->hotpluggable;
    return true;
}

static bool get_type(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->string = g_strdup(dev->klass->name);
    return true;
}

const Property device_common_properties[] = {
    DEFINE_PROP_FUNCTIONS("hotpluggable", PROP_BOOL, get_hotpluggable, NULL, 0, NULL),
    DEFINE_PROP_FUNCTIONS("hotplugged", PROP_BOOL, get_hotplugged, NULL, 0, NULL),
    DEFINE_PROP_FUNCTIONS("realized", PROP_BOOL, get_realized, NULL, 0, NULL),
    DEFINE_PROP_FUNCTIONS("type", PROP_STR, get_type, NULL, 0, NULL),
    DEFINE_PROP_END(),
};

static const Property *find_in(const Property *table, const char *name)
{
    for (const Property *prop = table; prop && prop->name; prop++) {
        if (!strcmp(prop->name, name)) {
            return prop;
        }
    }
    return NULL;
}

const Property *device_class_property(const DeviceClass *klass, const char *name)
{
    return find_in(klass->properties, name) ?: find_in(device_common_properties, name);
}

bool property_is_read_only(const Property *prop)
{
    return (prop->flags & PROP_READ_ONLY) || (prop->get && !prop->set);
}

const char *property_type_name(PropertyType type)
{
    static const char *const names[] = {
        [PROP_BOOL] = "bool", [PROP_UINT8] = "uint8", [PROP_UINT16] = "uint16",
        [PROP_UINT32] = "uint32", [PROP_UINT64] = "uint64", [PROP_SIZE] = "size",
        [PROP_STR] = "str", [PROP_CHARDEV] = "str", [PROP_MEMDEV] = "link<memory-backend>",
        [PROP_DRIVE] = "str", [PROP_IOTHREAD] = "link<iothread>",
    };

    return names[type];
}

bool property_is_string(const Property *prop)
{
    switch (prop->type) {
    case PROP_STR:
    case PROP_CHARDEV:
    case PROP_MEMDEV:
    case PROP_DRIVE:
    case PROP_IOTHREAD:
        return true;
    default:
        return false;
    }
}

static uint64_t number_max(const Property *prop)
{
    switch (prop->type) {
    case PROP_UINT8:
        return UINT8_MAX;
    case PROP_UINT16:
        return UINT16_MAX;
    case PROP_UINT32:
        return UINT32_MAX;
    default:
        return UINT64_MAX;
    }
}

void device_store_property(DeviceState *dev, const Property *prop, const PropertyValue *value)
{
    void *field = (char *)dev + prop->offset;

    switch (prop->type) {
    case PROP_BOOL:
        *(bool *)field = value->boolean;
        break;
    case PROP_UINT8:
        *(uint8_t *)field = value->number;
        break;
    case PROP_UINT16:
        *(uint16_t *)field = value->number;
        break;
    case PROP_UINT32:
        *(uint32_t *)field = value->number;
        break;
    case PROP_UINT64:
    case PROP_SIZE:
        *(uint64_t *)field = value->number;
        break;
    case PROP_STR:
    case PROP_CHARDEV:
    case PROP_MEMDEV:
    case PROP_DRIVE:
    case PROP_IOTHREAD:
        g_free(*(char **)field);
        *(char **)field = g_strdup(value->string);
        break;
    }
}

static void load_from_field(DeviceState *dev, const Property *prop, PropertyValue *value)
{
    const void *field = (const char *)dev + prop->offset;

    switch (prop->type) {
    case PROP_BOOL:
        value->boolean = *(const bool *)field;
        break;
    case PROP_UINT8:
        value->number = *(const uint8_t *)field;
        break;
    case PROP_UINT16:
        value->number = *(const uint16_t *)field;
        break;
    case PROP_UINT32:
        value->number = *(const uint32_t *)field;
        break;
    case PROP_UINT64:
    case PROP_SIZE:
        value->number = *(const uint64_t *)field;
        break;
    case PROP_STR:
    case PROP_CHARDEV:
    case PROP_MEMDEV:
    case PROP_DRIVE:
    case PROP_IOTHREAD:
        value->string = g_strdup(*(char *const *)field);
        break;
    }
}

/* The property, if it exists and can be set now. */
static const Property *find_settable(DeviceState *dev, const char *name, Error **errp)
{
    const Property *prop = device_class_property(dev->klass, name);

    if (!prop) {
        error_setg(errp, "Property '%s.%s' not found", dev->klass->name, name);
        return NULL;
    }
    if (property_is_read_only(prop)) {
        error_setg(errp, "Property '%s.%s' is read-only", dev->klass->name, name);
        return NULL;
    }
    if (dev->realized && !(prop->flags & PROP_RUNTIME)) {
        error_setg(errp, "Attempt to set property '%s' on device '%s' (type '%s') after it was "
                   "realized", name, dev->id ?: dev->path, dev->klass->name);
        return NULL;
    }
    return prop;
}

static bool store(DeviceState *dev, const Property *prop, const PropertyValue *value, Error **errp)
{
    if (!property_is_string(prop) && prop->type != PROP_BOOL && value->number > number_max(prop)) {
        error_setg(errp, "Property '%s.%s' doesn't take value %" PRIu64 " (maximum: %" PRIu64 ")",
                   dev->klass->name, prop->name, value->number, number_max(prop));
        return false;
    }
    if (prop->set) {
        return prop->set(dev, value, errp);
    }
    device_store_property(dev, prop, value);
    return true;
}

static bool wrong_type(DeviceState *dev, const Property *prop, const char *expected, Error **errp)
{
    error_setg(errp, "Invalid parameter type for '%s', expected: %s", prop->name, expected);
    return false;
}

bool device_set_bool(DeviceState *dev, const char *name, bool boolean, Error **errp)
{
    const Property *prop = find_settable(dev, name, errp);
    PropertyValue value = { .boolean = boolean };

    if (!prop) {
        return false;
    }
    if (prop->type != PROP_BOOL) {
        return wrong_type(dev, prop, property_type_name(prop->type), errp);
    }
    return store(dev, prop, &value, errp);
}

bool device_set_uint(DeviceState *dev, const char *name, uint64_t number, Error **errp)
{
    const Property *prop = find_settable(dev, name, errp);
    PropertyValue value = { .number = number };

    if (!prop) {
        return false;
    }
    if (prop->type == PROP_BOOL || property_is_string(prop)) {
        return wrong_type(dev, prop, property_type_name(prop->type), errp);
    }
    return store(dev, prop, &value, errp);
}

bool device_set_str(DeviceState *dev, const char *name, const char *string, Error **errp)
{
    const Property *prop = find_settable(dev, name, errp);
    PropertyValue value = { .string = (char *)string };

    if (!prop) {
        return false;
    }
    if (!property_is_string(prop)) {
        return wrong_type(dev, prop, property_type_name(prop->type), errp);
    }
    return store(dev, prop, &value, errp);
}

bool device_set_text(DeviceState *dev, const char *name, const char *text, Error **errp)
{
    const Property *prop = find_settable(dev, name, errp);
    PropertyValue value = { .string = (char *)text };
    Error *local_err = NULL;
    bool ok = true;

    if (!prop) {
        return false;
    }
    if (prop->type == PROP_BOOL) {
        ok = parse_bool(name, text, &value.boolean, &local_err);
    } else if (prop->type == PROP_SIZE) {
        ok = parse_size(text, &value.number, &local_err);
    } else if (!property_is_string(prop)) {
        ok = parse_uint64(text, &value.number, &local_err);
    }
    if (!ok) {
        error_propagate(errp, local_err);
        error_prepend(errp, "Property '%s.%s': ", dev->klass->name, name);
        return false;
    }
    return store(dev, prop, &value, errp);
}

bool device_set_json(DeviceState *dev, const char *name, struct json_object *json, Error **errp)
{
    const Property *prop = find_settable(dev, name, errp);

    if (!prop) {
        return false;
    }
    switch (json_object_get_type(json)) {
    case json_type_string:
        return device_set_text(dev, name, json_object_get_string(json), errp);
    case json_type_boolean:
        if (prop->type == PROP_BOOL) {
            return device_set_bool(dev, name, json_object_get_boolean(json), errp);
        }
        break;
    case json_type_int:
        if (prop->type == PROP_BOOL || property_is_string(prop)) {
            break;
        }
        /* json-c gives 0 for a negative number that is asked for as unsigned. */
        if (json_object_get_int64(json) < 0) {
            error_setg(errp, "Property '%s.%s' doesn't take a negative value", dev->klass->name,
                       name);
            return false;
        }
        return device_set_uint(dev, name, json_object_get_uint64(json), errp);
    default:
        break;
    }
    return wrong_type(dev, prop, property_type_name(prop->type), errp);
}

struct json_object *device_get_json(DeviceState *dev, const char *name, Error **errp)
{
    const Property *prop = device_class_property(dev->klass, name);
    g_autofree char *owned = NULL;
    PropertyValue value = { 0 };

    if (!prop) {
        error_setg(errp, "Property '%s.%s' not found", dev->klass->name, name);
        return NULL;
    }
    if (!prop->get) {
        load_from_field(dev, prop, &value);
    } else if (!prop->get(dev, &value, errp)) {
        return NULL;
    }
    owned = value.string;
    if (property_is_string(prop)) {
        return json_object_new_string(owned ?: "");
    }
    return prop->type == PROP_BOOL ? json_object_new_boolean(value.boolean) :
                                     json_object_new_uint64(value.number);
}

static void append_property_help(GString *text, const Property *prop)
{
    g_autofree char *head = g_strdup_printf("%s=<%s>", prop->name, property_type_name(prop->type));

    g_string_append_printf(text, "  %-22s", head);
    if (prop->desc) {
        g_string_append_printf(text, " - %s", prop->desc);
    }
    if (property_is_read_only(prop)) {
        g_string_append(text, " (read-only)");
    } else if (prop->type == PROP_BOOL) {
        g_string_append_printf(text, " (default: %s)", prop->default_number ? "on" : "off");
    } else if (!property_is_string(prop)) {
        g_string_append_printf(text, " (default: %" PRIu64 ")", prop->default_number);
    }
    g_string_append_c(text, '\n');
}

char *device_class_help(const DeviceClass *klass)
{
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, "%s options:\n", klass->name);
    for (const Property *prop = klass->properties; prop && prop->name; prop++) {
        append_property_help(text, prop);
    }
    return g_string_free(text, false);
}
