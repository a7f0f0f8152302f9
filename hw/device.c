/*
 * The life of devices: making, connecting, finding, deleting, and -device.
 *
 * Realized devices are in one list in the order in which they were realized; that is also the order
 * of reset and of their sections in the stream, so two processes with the same command line agree.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/device.h"

#include <string.h>

#include "system/reset.h"
#include "util/cutils.h"
#include "util/keyval.h"

static GPtrArray *devices;      /* of DeviceState, realized; NULL until the first */

const DeviceClass *device_class_find(const char *name)
{
    for (const DeviceClass *const *klass = device_classes; *klass; klass++) {
        if (!strcmp((*klass)->name, name) || !g_strcmp0((*klass)->alias, name)) {
            return *klass;
        }
    }
    return NULL;
}

static unsigned device_count(void)
{
    return devices ? devices->len : 0;
}

static DeviceState *device_at(unsigned index)
{
    return g_ptr_array_index(devices, index);
}

DeviceState *device_next(const DeviceState *after)
{
    for (unsigned i = 0; i < device_count(); i++) {
        if (!after) {
            return device_at(i);
        }
        if (device_at(i) == after) {
            return i + 1 < device_count() ? device_at(i + 1) : NULL;
        }
    }
    return NULL;
}

DeviceState *device_find(const char *id_or_path)
{
    bool is_path = *id_or_path == '/';

    for (unsigned i = 0; i < device_count(); i++) {
        const char *name = is_path ? device_at(i)->path : device_at(i)->id;

        if (name && !strcmp(name, id_or_path)) {
            return device_at(i);
        }
    }
    return NULL;
}

static void set_defaults(DeviceState *dev)
{
    for (const Property *prop = dev->klass->properties; prop && prop->name; prop++) {
        if (!prop->set && !prop->get) {
            PropertyValue value = {
                .boolean = prop->default_number, .number = prop->default_number,
            };
            device_store_property(dev, prop, &value);
        }
    }
}

static bool is_string_field(const Property *prop)
{
    return !prop->set && !prop->get && property_is_string(prop);
}

DeviceState *device_new(const char *name, const char *id, Error **errp)
{
    const DeviceClass *klass = device_class_find(name);
    DeviceState *dev;

    if (!klass) {
        error_setg(errp, "'%s' is not a valid device model name", name);
        return NULL;
    }
    if (id && !id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier, not '%s'", id);
        return NULL;
    }
    if (id && device_find(id)) {
        error_setg(errp, "Duplicate device ID '%s'", id);
        return NULL;
    }
    dev = g_malloc0(klass->instance_size);
    dev->klass = klass;
    dev->id = g_strdup(id);
    set_defaults(dev);
    if (klass->init) {
        klass->init(dev);
    }
    if (!device_apply_globals(dev, errp)) {
        device_delete(dev);
        return NULL;
    }
    return dev;
}

static bool check_required(DeviceState *dev, Error **errp)
{
    for (const Property *prop = dev->klass->properties; prop && prop->name; prop++) {
        if (is_string_field(prop) && (prop->flags & PROP_REQUIRED) &&
            !*(char **)((char *)dev + prop->offset)) {
            error_setg(errp, "Property '%s.%s' is required", dev->klass->name, prop->name);
            return false;
        }
    }
    return true;
}

/* The lowest number that no device of the same kind and state has. */
static uint32_t free_instance_id(const DeviceState *dev)
{
    uint32_t number = 0;

    for (unsigned i = 0; i < device_count();) {
        const DeviceState *other = device_at(i);

        if (other->klass->vmsd && !strcmp(other->klass->vmsd->name, dev->klass->vmsd->name) &&
            other->instance_id == number) {
            number++;
            i = 0;
        } else {
            i++;
        }
    }
    return number;
}

/* Likewise for the N of device[N] in a container. */
static unsigned free_anonymous_index(const DeviceState *dev)
{
    unsigned number = 0;

    for (unsigned i = 0; i < device_count();) {
        const DeviceState *other = device_at(i);

        if (!other->id && other->user_created == dev->user_created &&
            other->anonymous_index == number) {
            number++;
            i = 0;
        } else {
            i++;
        }
    }
    return number;
}

static void name_device(DeviceState *dev)
{
    if (dev->id) {
        dev->path = g_strdup_printf("/machine/peripheral/%s", dev->id);
        return;
    }
    dev->anonymous_index = free_anonymous_index(dev);
    dev->path = g_strdup_printf("/machine/%s/device[%u]",
                                dev->user_created ? "peripheral-anon" : "unattached",
                                dev->anonymous_index);
}

static void reset_device(void *opaque)
{
    DeviceState *dev = opaque;

    dev->klass->reset(dev);
}

bool device_realize(DeviceState *dev, Error **errp)
{
    const DeviceClass *klass = dev->klass;

    g_assert(!dev->realized);
    if (!check_required(dev, errp)) {
        return false;
    }
    name_device(dev);
    if (klass->realize && !klass->realize(dev, errp)) {
        g_clear_pointer(&dev->path, g_free);
        return false;
    }
    if (klass->vmsd) {
        dev->instance_id = free_instance_id(dev);
        if (vmstate_register(klass->vmsd->name, dev->instance_id, klass->vmsd, dev, errp) < 0) {
            if (klass->unrealize) {
                klass->unrealize(dev);
            }
            g_clear_pointer(&dev->path, g_free);
            return false;
        }
    }
    if (klass->reset) {
        klass->reset(dev);
        reset_register(reset_device, dev);
    }
    if (!devices) {
        devices = g_ptr_array_new();
    }
    g_ptr_array_add(devices, dev);
    dev->realized = true;
    return true;
}

static void unrealize(DeviceState *dev)
{
    const DeviceClass *klass = dev->klass;

    if (klass->reset) {
        reset_unregister(reset_device, dev);
    }
    if (klass->vmsd) {
        vmstate_unregister(klass->vmsd, dev);
    }
    if (klass->unrealize) {
        klass->unrealize(dev);
    }
    g_ptr_array_remove(devices, dev);
    dev->realized = false;
}

void device_delete(DeviceState *dev)
{
    if (!dev) {
        return;
    }
    if (dev->realized) {
        unrealize(dev);
    }
    if (dev->klass->finalize) {
        dev->klass->finalize(dev);
    }
    for (const Property *prop = dev->klass->properties; prop && prop->name; prop++) {
        if (is_string_field(prop)) {
            g_free(*(char **)((char *)dev + prop->offset));
        }
    }
    g_free(dev->id);
    g_free(dev->path);
    g_free(dev);
}

void device_delete_all(void)
{
    while (device_count()) {
        device_delete(device_at(device_count() - 1));
    }
    g_clear_pointer(&devices, g_ptr_array_unref);
}

char *device_classes_help(void)
{
    GString *text = g_string_new(NULL);

    for (const DeviceClass *const *klass = device_classes; *klass; klass++) {
        if ((*klass)->user_creatable) {
            g_string_append_printf(text, "name \"%s\"", (*klass)->name);
            if ((*klass)->alias) {
                g_string_append_printf(text, ", alias \"%s\"", (*klass)->alias);
            }
            g_string_append_printf(text, ", desc \"%s\"\n", (*klass)->desc);
        }
    }
    return g_string_free(text, false);
}

/* A string member of the options that is not a property. */
static bool get_option(struct json_object *options, const char *name, const char **value,
                       Error **errp)
{
    struct json_object *member;

    *value = NULL;
    if (!json_object_object_get_ex(options, name, &member)) {
        return true;
    }
    if (json_object_get_type(member) != json_type_string) {
        error_setg(errp, "Invalid parameter type for '%s', expected: string", name);
        return false;
    }
    *value = json_object_get_string(member);
    return true;
}

static bool (*hotplug_check)(Error **errp);

void device_set_hotplug_check(bool (*check)(Error **errp))
{
    hotplug_check = check;
}

bool device_hotplug_allowed(Error **errp)
{
    return !hotplug_check || hotplug_check(errp);
}

static bool check_class(const char *driver, bool hotplug, Error **errp)
{
    const DeviceClass *klass;

    if (!driver) {
        error_setg(errp, "Parameter 'driver' is missing");
        return false;
    }
    klass = device_class_find(driver);
    if (klass && !klass->user_creatable) {
        error_setg(errp, "Parameter 'driver' expects a pluggable device type, not '%s'", driver);
        return false;
    }
    if (klass && hotplug && !klass->hotpluggable) {
        error_setg(errp, "Device '%s' does not support hotplugging", driver);
        return false;
    }
    return !hotplug || device_hotplug_allowed(errp);
}

static bool set_properties(DeviceState *dev, struct json_object *options, Error **errp)
{
    json_object_object_foreach(options, name, value) {
        if (strcmp(name, "driver") && strcmp(name, "id") &&
            !device_set_json(dev, name, value, errp)) {
            return false;
        }
    }
    return true;
}

DeviceState *device_add(struct json_object *options, bool hotplug, Error **errp)
{
    const char *driver, *id;
    DeviceState *dev;

    if (!get_option(options, "driver", &driver, errp) || !get_option(options, "id", &id, errp) ||
        !check_class(driver, hotplug, errp)) {
        return NULL;
    }
    dev = device_new(driver, id, errp);
    if (!dev) {
        return NULL;
    }
    dev->user_created = true;
    dev->hotplugged = hotplug;
    if (!set_properties(dev, options, errp) || !device_realize(dev, errp)) {
        device_delete(dev);
        return NULL;
    }
    return dev;
}

static struct json_object *parse_options(const char *text, bool *help, Error **errp)
{
    struct json_object *options = NULL;

    if (*text != '{') {
        return keyval_parse(text, "driver", help, errp);
    }
    return json_parse_text(text, &options, errp) < 0 ? NULL : options;
}

static bool give_help(struct json_object *options, char **help, Error **errp)
{
    const DeviceClass *klass;
    const char *driver;

    if (!get_option(options, "driver", &driver, errp)) {
        return false;
    }
    if (!driver) {
        *help = device_classes_help();
        return true;
    }
    klass = device_class_find(driver);
    if (!klass) {
        error_setg(errp, "'%s' is not a valid device model name", driver);
        return false;
    }
    *help = device_class_help(klass);
    return true;
}

bool device_add_text(const char *text, char **help, Error **errp)
{
    bool help_wanted = false, ok;
    struct json_object *options;

    *help = NULL;
    options = parse_options(text, &help_wanted, errp);
    if (!options) {
        return false;
    }
    ok = help_wanted ? give_help(options, help, errp) : device_add(options, false, errp) != NULL;
    json_object_put(options);
    return ok;
}
