/*
 * Deep copies of values of schema types.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_CLONE_VISITOR_H
#define QAPI_CLONE_VISITOR_H

#include "qapi/visitor.h"

/*
 * A visitor that replaces every pointer that it meets by a pointer to a copy. Use the macros below;
 * the walk must start from a copy of the outermost pointer or struct.
 */
Visitor *qapi_clone_visitor_new(void);

/*
 * QAPI_CLONE(Type, src): a deep copy of `Type *src`, to be freed with qapi_free_Type(). NULL gives
 * NULL. Type is the C name of a struct, union, alternate or list; its visitor header must be
 * included.
 */
#define QAPI_CLONE(type, src) ({ \
    type *clone_copy_ = (type *)(src); \
    if (clone_copy_) { \
        Visitor *clone_visitor_ = qapi_clone_visitor_new(); \
        visit_type_##type(clone_visitor_, NULL, &clone_copy_, &error_abort); \
        visit_free(clone_visitor_); \
    } \
    clone_copy_; \
})

/* QAPI_CLONE_MEMBERS(Type, dst, src): make *dst a deep copy of *src; old contents are not freed. */
#define QAPI_CLONE_MEMBERS(type, dst, src) do { \
    type *clone_dst_ = (dst); \
    *clone_dst_ = *(src); \
    Visitor *clone_visitor_ = qapi_clone_visitor_new(); \
    visit_type_##type##_members(clone_visitor_, clone_dst_, &error_abort); \
    visit_free(clone_visitor_); \
} while (0)

#endif
