/*
 * A visitor walks a value of a schema type, whichever the type and whatever the purpose.
 *
 * Generated visit_type_X() functions know the shape of each type; a visitor knows what to do at
 * each place: build the value from JSON or from key=value text (an input visitor), turn it into
 * JSON (output), copy it (clone) or free it (dealloc). Neither knows of the other.
 *
 * Who makes visitors:
 *   qapi/json-input-visitor.h, qapi/json-output-visitor.h, qapi/clone-visitor.h,
 *   qapi/dealloc-visitor.h
 *
 * Using an input visitor from hand-written code:
 *
 *     SocketAddress *addr = NULL;
 *     Visitor *v = json_input_visitor_new(obj);
 *     bool ok = visit_type_SocketAddress(v, NULL, &addr, errp);
 *     visit_free(v);
 *
 * A function that returns bool returns false exactly when it set an error. Names are those of the
 * schema; @name is NULL for the root of a walk and for elements of a list. A failed input visit
 * leaves nothing behind: *obj is NULL.
 *
 * A visitor belongs to one thread and is used for one walk.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef QAPI_VISITOR_H
#define QAPI_VISITOR_H

#include "qapi/builtin.h"
#include "util/error.h"

typedef struct Visitor Visitor;

/* What every generated list begins with. */
typedef struct GenericList {
    struct GenericList *next;
    char padding[];
} GenericList;

/* What every generated alternate begins with. */
typedef struct GenericAlternate {
    QType type;
    char padding[];
} GenericAlternate;

/* Containers */

/*
 * Begin a struct or union. @obj is NULL when the members are walked in place (then @size is 0);
 * otherwise input and clone visitors set *@obj to @size bytes of new memory. When it returned true,
 * visit_end_struct() with the same @obj must follow, whatever happened between.
 */
bool visit_start_struct(Visitor *v, const char *name, void **obj, size_t size, Error **errp);
/* After the last member: an input visitor complains of members that nobody visited. */
bool visit_check_struct(Visitor *v, Error **errp);
void visit_end_struct(Visitor *v, void **obj);

/*
 * Begin a list; sets *@list to its first element, of @size bytes, or NULL when it is empty.
 * visit_end_list() must follow as above.
 */
bool visit_start_list(Visitor *v, const char *name, GenericList **list, size_t size,
                      Error **errp);
/* Returns: the element after @tail, NULL at the end. */
GenericList *visit_next_list(Visitor *v, GenericList *tail, size_t size);
bool visit_check_list(Visitor *v, Error **errp);
void visit_end_list(Visitor *v, void **list);

/* Begin an alternate; input and clone visitors allocate it and set its type. */
bool visit_start_alternate(Visitor *v, const char *name, GenericAlternate **obj, size_t size,
                           Error **errp);
void visit_end_alternate(Visitor *v, void **obj);

/* Members */

/*
 * Whether optional member @name is to be visited. An input visitor sets *@present; others leave it
 * as it is.
 *
 * Returns: *@present.
 */
bool visit_optional(Visitor *v, const char *name, bool *present);

/* Integers; a value outside of the type's range is an error. */
bool visit_type_int(Visitor *v, const char *name, int64_t *obj, Error **errp);
bool visit_type_int8(Visitor *v, const char *name, int8_t *obj, Error **errp);
bool visit_type_int16(Visitor *v, const char *name, int16_t *obj, Error **errp);
bool visit_type_int32(Visitor *v, const char *name, int32_t *obj, Error **errp);
bool visit_type_int64(Visitor *v, const char *name, int64_t *obj, Error **errp);
bool visit_type_uint8(Visitor *v, const char *name, uint8_t *obj, Error **errp);
bool visit_type_uint16(Visitor *v, const char *name, uint16_t *obj, Error **errp);
bool visit_type_uint32(Visitor *v, const char *name, uint32_t *obj, Error **errp);
bool visit_type_uint64(Visitor *v, const char *name, uint64_t *obj, Error **errp);
/* Bytes; key=value text may have a suffix (k, M, G, T, P, E; powers of 1024). */
bool visit_type_size(Visitor *v, const char *name, uint64_t *obj, Error **errp);
bool visit_type_bool(Visitor *v, const char *name, bool *obj, Error **errp);
/* A string without NUL characters; never NULL after an input visit. */
bool visit_type_str(Visitor *v, const char *name, char **obj, Error **errp);
/* A finite floating-point number. */
bool visit_type_number(Visitor *v, const char *name, double *obj, Error **errp);
/* Any JSON value; input gives a new reference. */
bool visit_type_any(Visitor *v, const char *name, struct json_object **obj, Error **errp);
bool visit_type_null(Visitor *v, const char *name, QNull **obj, Error **errp);
/* An enumeration value by its name; an unknown name is an error, with all names as its hint. */
bool visit_type_enum(Visitor *v, const char *name, int *obj, const QEnumLookup *lookup,
                     Error **errp);

/* Set @errp: the value @name of the current container is not of @expected JSON type. */
void visit_wrong_type(Visitor *v, const char *name, const char *expected, Error **errp);

/* The visitor itself */

/* Whether @v makes values, and whether it frees them; else it reads or copies them. */
bool visit_is_input(const Visitor *v);
bool visit_is_dealloc(const Visitor *v);

/*
 * An output visitor hands over its result; @opaque is the pointer that it was made with. Called
 * once, after the whole walk succeeded. Others do nothing.
 */
void visit_complete(Visitor *v, void *opaque);
/* Free the visitor, with a result that was not handed over. */
void visit_free(Visitor *v);

#endif
