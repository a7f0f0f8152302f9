/*
 * Copying by walking: at each pointer the memory is duplicated byte for byte, which copies all
 * scalars, and the walk goes on inside the copy, whose pointers still lead into the original until
 * they are visited in turn.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/clone-visitor.h"

#include "qapi/visitor-impl.h"

static bool clone_struct(Visitor *v, const char *name, void **obj, size_t size, Error **errp)
{
    if (obj) {
        *obj = g_memdup2(*obj, size);
    }
    return true;
}

static bool clone_list(Visitor *v, const char *name, GenericList **list, size_t size, Error **errp)
{
    *list = g_memdup2(*list, size);
    return true;
}

static GenericList *clone_next(Visitor *v, GenericList *tail, size_t size)
{
    tail->next = g_memdup2(tail->next, size);
    return tail->next;
}

static bool clone_alternate(Visitor *v, const char *name, GenericAlternate **obj, size_t size,
                            Error **errp)
{
    *obj = g_memdup2(*obj, size);
    return true;
}

static bool clone_str(Visitor *v, const char *name, char **obj, Error **errp)
{
    *obj = g_strdup(*obj);
    return true;
}

/* A copy, not a reference: json-c counts references without atomics, and clones cross threads. */
static bool clone_any(Visitor *v, const char *name, struct json_object **obj, Error **errp)
{
    struct json_object *copy = NULL;

    if (*obj && json_object_deep_copy(*obj, &copy, NULL) < 0) {
        g_error("out of memory while copying a JSON value");
    }
    *obj = copy;
    return true;
}

static void free_visitor(Visitor *v)
{
    g_free(v);
}

Visitor *qapi_clone_visitor_new(void)
{
    Visitor *v = g_new0(Visitor, 1);

    v->kind = VISITOR_CLONE;
    v->start_struct = clone_struct;
    v->start_list = clone_list;
    v->next_list = clone_next;
    v->start_alternate = clone_alternate;
    v->type_str = clone_str;
    v->type_any = clone_any;
    v->free = free_visitor;
    return v;
}
