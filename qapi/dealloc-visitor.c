/*
 * Freeing by walking: members first, then the memory that holds them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/dealloc-visitor.h"

#include "qapi/visitor-impl.h"

static void free_container(Visitor *v, void **obj)
{
    if (obj) {
        g_free(*obj);
    }
}

static GenericList *free_and_advance(Visitor *v, GenericList *tail, size_t size)
{
    GenericList *next = tail->next;

    g_free(tail);
    return next;
}

static bool free_str(Visitor *v, const char *name, char **obj, Error **errp)
{
    g_free(*obj);
    return true;
}

static bool free_any(Visitor *v, const char *name, struct json_object **obj, Error **errp)
{
    json_object_put(*obj);
    return true;
}

static void free_visitor(Visitor *v)
{
    g_free(v);
}

Visitor *qapi_dealloc_visitor_new(void)
{
    Visitor *v = g_new0(Visitor, 1);

    v->kind = VISITOR_DEALLOC;
    v->end_struct = free_container;
    v->end_alternate = free_container;
    v->next_list = free_and_advance;
    v->type_str = free_str;
    v->type_any = free_any;
    v->free = free_visitor;
    return v;
}
