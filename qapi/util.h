/*
 * Helpers for generated types: names of enumeration values and lists.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_UTIL_H
#define QAPI_UTIL_H

#include <glib.h>

#include "util/error.h"

/* The names of an enumeration's values; array[value], NULL behind the last. */
typedef struct QEnumLookup {
    const char *const *array;
    int size;
} QEnumLookup;

/* The name of @val, which must be a value of the enumeration. Generated X_str() calls this. */
const char *qapi_enum_lookup(const QEnumLookup *lookup, int val);

/*
 * qapi_enum_parse:
 * @buf: a name, or NULL for @def
 * @def: what to return on failure
 *
 * Returns: the value that is called @buf, or @def. A name that is unknown sets @errp to
 * "invalid parameter value: NAME"; with @buf NULL no error is set.
 */
int qapi_enum_parse(const QEnumLookup *lookup, const char *buf, int def, Error **errp);

/*
 * A hint for a person that lists every value of @lookup, appended to the error in @errp; does
 * nothing without one.
 */
void qapi_enum_hint(Error **errp, const QEnumLookup *lookup);

/* Put @element before the first of list @list (a variable of type XList *). */
#define QAPI_LIST_PREPEND(list, element) do { \
    typeof(list) list_node_ = g_malloc(sizeof(*(list))); \
    list_node_->value = (element); \
    list_node_->next = (list); \
    (list) = list_node_; \
} while (0)

/*
 * Append @element. @tail is a variable of type XList **; it starts as the address of the list's
 * head and is moved along.
 */
#define QAPI_LIST_APPEND(tail, element) do { \
    *(tail) = g_malloc0(sizeof(**(tail))); \
    (*(tail))->value = (element); \
    (tail) = &(*(tail))->next; \
} while (0)

/* The number of elements of a list. */
#define QAPI_LIST_LENGTH(list) ({ \
    size_t list_length_ = 0; \
    for (typeof(list) list_tail_ = (list); list_tail_; list_tail_ = list_tail_->next) { \
        list_length_++; \
    } \
    list_length_; \
})

#endif
