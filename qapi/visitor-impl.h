/*
 * What a kind of visitor implements. For qapi/X-visitor.c only; everybody else uses
 * qapi/visitor.h, whose contracts are those of the functions here.
 *
 * A pointer that is NULL means that there is nothing to do (success), except where noted.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_VISITOR_IMPL_H
#define QAPI_VISITOR_IMPL_H

#include "qapi/visitor.h"

typedef enum VisitorKind {
    VISITOR_INPUT,
    VISITOR_OUTPUT,
    VISITOR_CLONE,
    VISITOR_DEALLOC,
} VisitorKind;

struct Visitor {
    VisitorKind kind;

    bool (*start_struct)(Visitor *v, const char *name, void **obj, size_t size, Error **errp);
    bool (*check_struct)(Visitor *v, Error **errp);
    void (*end_struct)(Visitor *v, void **obj);

    bool (*start_list)(Visitor *v, const char *name, GenericList **list, size_t size,
                       Error **errp);
    /* Never NULL. */
    GenericList *(*next_list)(Visitor *v, GenericList *tail, size_t size);
    bool (*check_list)(Visitor *v, Error **errp);
    void (*end_list)(Visitor *v, void **list);

    bool (*start_alternate)(Visitor *v, const char *name, GenericAlternate **obj, size_t size,
                            Error **errp);
    void (*end_alternate)(Visitor *v, void **obj);

    /*
     * All integers go through these two; the range of smaller types is checked by the caller.
     * @type is the C type that is wanted, for messages.
     */
    bool (*type_int64)(Visitor *v, const char *name, int64_t *obj, const char *type, Error **errp);
    bool (*type_uint64)(Visitor *v, const char *name, uint64_t *obj, const char *type,
                        Error **errp);
    /* NULL means type_uint64. */
    bool (*type_size)(Visitor *v, const char *name, uint64_t *obj, Error **errp);
    bool (*type_bool)(Visitor *v, const char *name, bool *obj, Error **errp);
    bool (*type_str)(Visitor *v, const char *name, char **obj, Error **errp);
    bool (*type_number)(Visitor *v, const char *name, double *obj, Error **errp);
    bool (*type_any)(Visitor *v, const char *name, struct json_object **obj, Error **errp);
    bool (*type_null)(Visitor *v, const char *name, QNull **obj, Error **errp);

    void (*optional)(Visitor *v, const char *name, bool *present);

    /*
     * The whole path of @name, as messages show it; free with g_free(). NULL in a visitor that
     * reports no errors.
     */
    char *(*path)(Visitor *v, const char *name);

    void (*complete)(Visitor *v, void *opaque);
    /* Never NULL. */
    void (*free)(Visitor *v);
};

#endif
