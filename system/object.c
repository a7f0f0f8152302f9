/*
 * The table of objects, and the one way in for options and commands.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/object.h"

#include <json-c/json.h>
#include <string.h>

#include "qapi/introspect.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-qom.h"
#include "system/iothread-object.h"
#include "system/memory-backend.h"
#include "system/throttle-group-object.h"
#include "util/cutils.h"
#include "util/keyval.h"

typedef struct UserObject {
    char *id;
    const UserObjectClass *klass;
    void *object;
} UserObject;

static const UserObjectClass *classes[OBJECT_TYPE__MAX];
static GPtrArray *objects;

static void register_own_classes(void)
{
    static bool done;

    if (!done) {
        done = true;
        object_register_class(&iothread_class);
        object_register_class(&memory_backend_file_class);
        object_register_class(&memory_backend_memfd_class);
        object_register_class(&memory_backend_ram_class);
        object_register_class(&throttle_group_class);
    }
}

void object_register_class(const UserObjectClass *klass)
{
    register_own_classes();
    g_assert(klass->type < OBJECT_TYPE__MAX && !classes[klass->type]);
    classes[klass->type] = klass;
}

static UserObject *object_lookup(const char *id)
{
    for (guint i = 0; objects && i < objects->len; i++) {
        UserObject *entry = g_ptr_array_index(objects, i);

        if (!strcmp(entry->id, id)) {
            return entry;
        }
    }
    return NULL;
}

void *object_new(const ObjectOptions *opts, Error **errp)
{
    const UserObjectClass *klass;
    UserObject *entry;
    void *object;

    register_own_classes();
    klass = classes[opts->qom_type];
    if (!klass) {
        error_setg(errp, "Objects of type '%s' cannot be created in this program",
                   ObjectType_str(opts->qom_type));
        return NULL;
    }
    if (!id_wellformed(opts->id)) {
        error_setg(errp, "Parameter 'id' expects an identifier, not '%s'", opts->id);
        error_append_hint(errp, "Identifiers consist of letters, digits, '-', '.', '_', starting "
                          "with a letter.\n");
        return NULL;
    }
    if (object_lookup(opts->id)) {
        error_setg(errp, "There is an object '%s' already", opts->id);
        return NULL;
    }
    object = klass->create(opts, errp);
    if (!object) {
        return NULL;
    }
    entry = g_new(UserObject, 1);
    *entry = (UserObject){ g_strdup(opts->id), klass, object };
    if (!objects) {
        objects = g_ptr_array_new();
    }
    g_ptr_array_add(objects, entry);
    return object;
}

static void *object_new_from_visitor(Visitor *v, Error **errp)
{
    ObjectOptions *opts = NULL;
    void *object = NULL;

    if (visit_type_ObjectOptions(v, NULL, &opts, errp)) {
        object = object_new(opts, errp);
        qapi_free_ObjectOptions(opts);
    }
    visit_free(v);
    return object;
}

void *object_new_from_opts(struct json_object *opts, bool text, Error **errp)
{
    return object_new_from_visitor(text ? json_input_visitor_new_keyval(opts)
                                        : json_input_visitor_new(opts), errp);
}

void *object_new_from_str(const char *optarg, Error **errp)
{
    Visitor *v = json_input_visitor_new_str(optarg, "qom-type", errp);

    return v ? object_new_from_visitor(v, errp) : NULL;
}

void *object_by_id(const char *id, ObjectType type)
{
    UserObject *entry = object_lookup(id);

    return entry && entry->klass->type == type ? entry->object : NULL;
}

bool object_exists(const char *id)
{
    return object_lookup(id) != NULL;
}

static void entry_delete(UserObject *entry)
{
    g_ptr_array_remove(objects, entry);
    entry->klass->destroy(entry->object);
    g_free(entry->id);
    g_free(entry);
}

bool object_delete(const char *id, Error **errp)
{
    UserObject *entry = object_lookup(id);

    if (!entry) {
        error_setg(errp, "object '%s' not found", id);
        return false;
    }
    if (entry->klass->in_use && entry->klass->in_use(entry->object)) {
        error_setg(errp, "object '%s' is in use, can not be deleted", id);
        return false;
    }
    entry_delete(entry);
    return true;
}

void objects_delete_all(void)
{
    while (objects && objects->len) {
        entry_delete(g_ptr_array_index(objects, objects->len - 1));
    }
}

void objects_foreach(ObjectType type, void (*fn)(void *object, void *opaque), void *opaque)
{
    for (guint i = 0; objects && i < objects->len; i++) {
        UserObject *entry = g_ptr_array_index(objects, i);

        if (entry->klass->type == type) {
            fn(entry->object, opaque);
        }
    }
}

static char *help_types(void)
{
    GString *out = g_string_new("List of user creatable objects:\n");

    for (int i = 0; i < OBJECT_TYPE__MAX; i++) {
        if (classes[i]) {
            g_string_append_printf(out, "  %-24s %s\n", ObjectType_str(i), classes[i]->desc);
        }
    }
    return g_string_free(out, FALSE);
}

/* The element of array @infos whose member @key is @value; NULL when there is none. */
static struct json_object *info_find(struct json_object *infos, const char *key, const char *value)
{
    size_t n = infos ? json_object_array_length(infos) : 0;

    for (size_t i = 0; i < n; i++) {
        struct json_object *info = json_object_array_get_idx(infos, i);
        const char *have = json_object_get_string(json_object_object_get(info, key));

        if (!g_strcmp0(have, value)) {
            return info;
        }
    }
    return NULL;
}

static const char *info_str(struct json_object *info, const char *key)
{
    return info ? json_object_get_string(json_object_object_get(info, key)) : NULL;
}

/* The properties of a type, as the schema has them. */
static char *help_type(ObjectType type)
{
    struct json_object *schema = qmp_introspect_schema();
    struct json_object *options = info_find(schema, "name",
                                            info_str(info_find(schema, "name", "object-add"),
                                                     "arg-type"));
    struct json_object *variant = info_find(json_object_object_get(options, "variants"), "case",
                                            ObjectType_str(type));
    struct json_object *members = json_object_object_get(
        info_find(schema, "name", info_str(variant, "type")), "members");
    GString *out = g_string_new(NULL);

    g_string_append_printf(out, "%s options:\n", ObjectType_str(type));
    for (size_t i = 0; members && i < json_object_array_length(members); i++) {
        struct json_object *member = json_object_array_get_idx(members, i);

        g_string_append_printf(out, "  %s=<%s>%s\n", info_str(member, "name"),
                               info_str(member, "type"),
                               json_object_object_get_ex(member, "default", NULL) ? ""
                                                                                  : " (required)");
    }
    json_object_put(schema);
    return g_string_free(out, FALSE);
}

char *object_help(const char *optarg, Error **errp)
{
    struct json_object *opts;
    const char *name;
    char *text = NULL;
    bool help = false;
    int type;

    register_own_classes();
    if (*optarg == '{') {
        return NULL;
    }
    opts = keyval_parse(optarg, "qom-type", &help, errp);
    if (!opts) {
        return NULL;
    }
    name = info_str(opts, "qom-type");
    if (help && !name) {
        text = help_types();
    } else if (help) {
        for (type = 0; type < OBJECT_TYPE__MAX && strcmp(ObjectType_str(type), name); type++) {
        }
        if (type < OBJECT_TYPE__MAX && classes[type]) {
            text = help_type(type);
        } else {
            error_setg(errp, "There is no object type '%s'", name);
        }
    }
    json_object_put(opts);
    return text;
}
