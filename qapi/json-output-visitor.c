/*
 * The JSON value grows as the walk goes: a stack of open containers, into the top of which every
 * visited value is added at once.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/json-output-visitor.h"

#include <math.h>

#include "qapi/visitor-impl.h"

typedef struct JsonOutputVisitor {
    Visitor visitor;
    struct json_object *root;
    struct json_object **result;
    GPtrArray *open;            /* containers; borrowed, the root owns them */
} JsonOutputVisitor;

static JsonOutputVisitor *self(Visitor *v)
{
    return (JsonOutputVisitor *)v;
}

/* Put @value, which is taken over, where the walk is. */
static void put(Visitor *v, const char *name, struct json_object *value)
{
    JsonOutputVisitor *out = self(v);

    if (out->open->len == 0) {
        json_object_put(out->root);
        out->root = value;
        return;
    }
    struct json_object *top = out->open->pdata[out->open->len - 1];
    if (json_object_is_type(top, json_type_array)) {
        json_object_array_add(top, value);
    } else {
        json_object_object_add(top, name, value);
    }
}

static bool open_object(Visitor *v, const char *name, void **obj, size_t size, Error **errp)
{
    struct json_object *object = json_object_new_object();

    put(v, name, object);
    g_ptr_array_add(self(v)->open, object);
    return true;
}

static bool open_array(Visitor *v, const char *name, GenericList **list, size_t size, Error **errp)
{
    struct json_object *array = json_object_new_array();

    put(v, name, array);
    g_ptr_array_add(self(v)->open, array);
    return true;
}

static GenericList *next_element(Visitor *v, GenericList *tail, size_t size)
{
    return tail->next;
}

static void close_container(Visitor *v, void **obj)
{
    g_ptr_array_set_size(self(v)->open, self(v)->open->len - 1);
}

static bool put_int64(Visitor *v, const char *name, int64_t *obj, const char *type, Error **errp)
{
    put(v, name, json_object_new_int64(*obj));
    return true;
}

static bool put_uint64(Visitor *v, const char *name, uint64_t *obj, const char *type, Error **errp)
{
    put(v, name, json_object_new_uint64(*obj));
    return true;
}

static bool put_bool(Visitor *v, const char *name, bool *obj, Error **errp)
{
    put(v, name, json_object_new_boolean(*obj));
    return true;
}

static bool put_str(Visitor *v, const char *name, char **obj, Error **errp)
{
    put(v, name, json_object_new_string(*obj ?: ""));
    return true;
}

static bool put_number(Visitor *v, const char *name, double *obj, Error **errp)
{
    put(v, name, json_object_new_double(isfinite(*obj) ? *obj : 0));
    return true;
}

static bool put_any(Visitor *v, const char *name, struct json_object **obj, Error **errp)
{
    put(v, name, json_object_get(*obj));
    return true;
}

static bool put_null(Visitor *v, const char *name, QNull **obj, Error **errp)
{
    put(v, name, NULL);
    return true;
}

static void complete(Visitor *v, void *opaque)
{
    JsonOutputVisitor *out = self(v);

    g_assert(out->open->len == 0 && opaque == out->result);
    *out->result = out->root;
    out->root = NULL;
}

static void free_visitor(Visitor *v)
{
    json_object_put(self(v)->root);
    g_ptr_array_free(self(v)->open, TRUE);
    g_free(v);
}

Visitor *json_output_visitor_new(struct json_object **result)
{
    JsonOutputVisitor *out = g_new0(JsonOutputVisitor, 1);
    Visitor *v = &out->visitor;

    v->kind = VISITOR_OUTPUT;
    v->start_struct = open_object;
    v->end_struct = close_container;
    v->start_list = open_array;
    v->next_list = next_element;
    v->end_list = close_container;
    v->type_int64 = put_int64;
    v->type_uint64 = put_uint64;
    v->type_bool = put_bool;
    v->type_str = put_str;
    v->type_number = put_number;
    v->type_any = put_any;
    v->type_null = put_null;
    v->complete = complete;
    v->free = free_visitor;
    out->result = result;
    out->open = g_ptr_array_new();
    return v;
}
