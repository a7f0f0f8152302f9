/*
 * The part of visiting that is the same for every kind of visitor: dispatch to the vtable, ranges
 * of small integers, names of enumeration values.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/visitor.h"

#include "qapi/visitor-impl.h"

static char *path_of(Visitor *v, const char *name)
{
    return v->path ? v->path(v, name) : g_strdup(name ?: "<anonymous>");
}

bool visit_start_struct(Visitor *v, const char *name, void **obj, size_t size, Error **errp)
{
    return v->start_struct ? v->start_struct(v, name, obj, size, errp) : true;
}

bool visit_check_struct(Visitor *v, Error **errp)
{
    return v->check_struct ? v->check_struct(v, errp) : true;
}

void visit_end_struct(Visitor *v, void **obj)
{
    if (v->end_struct) {
        v->end_struct(v, obj);
    }
}

bool visit_start_list(Visitor *v, const char *name, GenericList **list, size_t size, Error **errp)
{
    return v->start_list ? v->start_list(v, name, list, size, errp) : true;
}

GenericList *visit_next_list(Visitor *v, GenericList *tail, size_t size)
{
    return v->next_list(v, tail, size);
}

bool visit_check_list(Visitor *v, Error **errp)
{
    return v->check_list ? v->check_list(v, errp) : true;
}

void visit_end_list(Visitor *v, void **list)
{
    if (v->end_list) {
        v->end_list(v, list);
    }
}

bool visit_start_alternate(Visitor *v, const char *name, GenericAlternate **obj, size_t size,
                           Error **errp)
{
    return v->start_alternate ? v->start_alternate(v, name, obj, size, errp) : true;
}

void visit_end_alternate(Visitor *v, void **obj)
{
    if (v->end_alternate) {
        v->end_alternate(v, obj);
    }
}

bool visit_optional(Visitor *v, const char *name, bool *present)
{
    if (v->optional) {
        v->optional(v, name, present);
    }
    return *present;
}

static bool out_of_range(Visitor *v, const char *name, const char *type, int64_t min, uint64_t max,
                         Error **errp)
{
    g_autofree char *path = path_of(v, name);

    error_setg(errp, "Parameter '%s' expects %s (%" PRId64 " to %" PRIu64 ")", path, type, min,
               max);
    return false;
}

/* The integer types differ in their limits and in what messages call them; nothing else. */
static bool visit_signed(Visitor *v, const char *name, int64_t *value, int64_t min, int64_t max,
                         const char *type, Error **errp)
{
    if (v->type_int64 && !v->type_int64(v, name, value, type, errp)) {
        return false;
    }
    return *value >= min && *value <= max ? true : out_of_range(v, name, type, min, max, errp);
}

static bool visit_unsigned(Visitor *v, const char *name, uint64_t *value, uint64_t max,
                           const char *type, Error **errp)
{
    if (v->type_uint64 && !v->type_uint64(v, name, value, type, errp)) {
        return false;
    }
    return *value <= max ? true : out_of_range(v, name, type, 0, max, errp);
}

#define SIGNED_VISITOR(bits) \
    bool visit_type_int##bits(Visitor *v, const char *name, int##bits##_t *obj, Error **errp) \
    { \
        int64_t value = *obj; \
        if (!visit_signed(v, name, &value, INT##bits##_MIN, INT##bits##_MAX, \
                          "int" #bits "_t", errp)) { \
            return false; \
        } \
        *obj = value; \
        return true; \
    }

#define UNSIGNED_VISITOR(bits) \
    bool visit_type_uint##bits(Visitor *v, const char *name, uint##bits##_t *obj, Error **errp) \
    { \
        uint64_t value = *obj; \
        if (!visit_unsigned(v, name, &value, UINT##bits##_MAX, "uint" #bits "_t", errp)) { \
            return false; \
        } \
        *obj = value; \
        return true; \
    }

SIGNED_VISITOR(8)
SIGNED_VISITOR(16)
SIGNED_VISITOR(32)
SIGNED_VISITOR(64)
UNSIGNED_VISITOR(8)
UNSIGNED_VISITOR(16)
UNSIGNED_VISITOR(32)
UNSIGNED_VISITOR(64)

bool visit_type_int(Visitor *v, const char *name, int64_t *obj, Error **errp)
{
    return visit_type_int64(v, name, obj, errp);
}

bool visit_type_size(Visitor *v, const char *name, uint64_t *obj, Error **errp)
{
    return v->type_size ? v->type_size(v, name, obj, errp)
                        : visit_type_uint64(v, name, obj, errp);
}

bool visit_type_bool(Visitor *v, const char *name, bool *obj, Error **errp)
{
    return v->type_bool ? v->type_bool(v, name, obj, errp) : true;
}

bool visit_type_str(Visitor *v, const char *name, char **obj, Error **errp)
{
    return v->type_str ? v->type_str(v, name, obj, errp) : true;
}

bool visit_type_number(Visitor *v, const char *name, double *obj, Error **errp)
{
    return v->type_number ? v->type_number(v, name, obj, errp) : true;
}

bool visit_type_any(Visitor *v, const char *name, struct json_object **obj, Error **errp)
{
    return v->type_any ? v->type_any(v, name, obj, errp) : true;
}

bool visit_type_null(Visitor *v, const char *name, QNull **obj, Error **errp)
{
    return v->type_null ? v->type_null(v, name, obj, errp) : true;
}

static bool input_enum(Visitor *v, const char *name, int *obj, const QEnumLookup *lookup,
                       Error **errp)
{
    g_autofree char *text = NULL;

    if (!visit_type_str(v, name, &text, errp)) {
        return false;
    }
    int value = qapi_enum_parse(lookup, text, -1, NULL);
    if (value < 0) {
        g_autofree char *path = path_of(v, name);
        error_setg(errp, "Parameter '%s' does not accept value '%s'", path, text);
        qapi_enum_hint(errp, lookup);
        return false;
    }
    *obj = value;
    return true;
}

bool visit_type_enum(Visitor *v, const char *name, int *obj, const QEnumLookup *lookup,
                     Error **errp)
{
    switch (v->kind) {
    case VISITOR_INPUT:
        return input_enum(v, name, obj, lookup, errp);
    case VISITOR_OUTPUT: {
        char *text = (char *)qapi_enum_lookup(lookup, *obj);
        return visit_type_str(v, name, &text, errp);
    }
    case VISITOR_CLONE:
    case VISITOR_DEALLOC:
        break;
    }
    return true;
}

void visit_wrong_type(Visitor *v, const char *name, const char *expected, Error **errp)
{
    g_autofree char *path = path_of(v, name);

    error_setg(errp, "Invalid parameter type for '%s', expected: %s", path, expected);
}

bool visit_is_input(const Visitor *v)
{
    return v->kind == VISITOR_INPUT;
}

bool visit_is_dealloc(const Visitor *v)
{
    return v->kind == VISITOR_DEALLOC;
}

void visit_complete(Visitor *v, void *opaque)
{
    if (v->complete) {
        v->complete(v, opaque);
    }
}

void visit_free(Visitor *v)
{
    if (v) {
        v->free(v);
    }
}
