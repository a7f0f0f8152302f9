/*
 * -global: what a property is when nobody says anything else, for every device of a class.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/device.h"

#include <string.h>

#include "util/keyval.h"

typedef struct Global {
    const DeviceClass *klass;
    char *property, *value;
} Global;

static GArray *globals;         /* of Global, in the order given: later ones win */

static char *member(struct json_object *options, const char *name)
{
    struct json_object *value;

    if (!json_object_object_get_ex(options, name, &value) ||
        !json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    return g_strdup(json_object_get_string(value));
}

/* "driver=D,property=P,value=V", for names with dots in them. */
static bool parse_long(const char *text, char **driver, Global *global, Error **errp)
{
    struct json_object *options = keyval_parse(text, NULL, NULL, errp);

    if (!options) {
        return false;
    }
    *driver = member(options, "driver");
    global->property = member(options, "property");
    global->value = member(options, "value");
    if (!*driver || !global->property || !global->value ||
        json_object_object_length(options) != 3) {
        error_setg(errp,
                   "'%s' is neither DRIVER.PROPERTY=VALUE nor driver=DRIVER,property=PROPERTY,"
                   "value=VALUE",
                   text);
    }
    json_object_put(options);
    return *driver && global->property && global->value;
}

static bool parse(const char *text, char **driver, Global *global, Error **errp)
{
    const char *equals = strchr(text, '='), *dot = strchr(text, '.');

    if (!equals || !dot || dot > equals) {
        return parse_long(text, driver, global, errp);
    }
    *driver = g_strndup(text, dot - text);
    global->property = g_strndup(dot + 1, equals - dot - 1);
    global->value = g_strdup(equals + 1);
    return true;
}

static bool check(const char *driver, Global *global, Error **errp)
{
    global->klass = device_class_find(driver);
    if (!global->klass) {
        error_setg(errp, "'%s' is not a valid device model name", driver);
        return false;
    }
    if (!device_class_property(global->klass, global->property)) {
        error_setg(errp, "Property '%s.%s' not found", global->klass->name, global->property);
        return false;
    }
    return true;
}

bool device_add_global(const char *text, Error **errp)
{
    g_autofree char *driver = NULL;
    Global global = { 0 };
    Error *err = NULL;

    if (!parse(text, &driver, &global, &err) || !check(driver, &global, &err)) {
        error_propagate(errp, err);
        g_free(global.property);
        g_free(global.value);
        return false;
    }
    if (!globals) {
        globals = g_array_new(FALSE, FALSE, sizeof(Global));
    }
    g_array_append_val(globals, global);
    return true;
}

bool device_apply_globals(DeviceState *dev, Error **errp)
{
    for (guint i = 0; globals && i < globals->len; i++) {
        const Global *global = &g_array_index(globals, Global, i);

        if (global->klass == dev->klass &&
            !device_set_text(dev, global->property, global->value, errp)) {
            error_prepend(errp, "-global %s.%s=%s: ", dev->klass->name, global->property,
                          global->value);
            return false;
        }
    }
    return true;
}

void device_forget_globals(void)
{
    for (guint i = 0; globals && i < globals->len; i++) {
        g_free(g_array_index(globals, Global, i).property);
        g_free(g_array_index(globals, Global, i).value);
    }
    g_clear_pointer(&globals, g_array_unref);
}
