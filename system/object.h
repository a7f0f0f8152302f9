/*
 * Objects that a person creates by `-object` and `object-add`, and names in other options by their
 * id.
 *
 * Both ways come here with the same options (the QAPI union ObjectOptions). A kind of object is a
 * UserObjectClass: one file, and one line where it is registered. The id is the name in the
 * machine's tree: /objects/ID.
 *
 * Everything here is called under the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_OBJECT_H
#define SYSTEM_OBJECT_H

#include <stdbool.h>

#include "qapi/qapi-types-qom.h"
#include "util/error.h"

struct json_object;

typedef struct UserObjectClass {
    ObjectType type;
    const char *desc;           /* one line for "-object help" */
    /* Make one by @opts, of this type; the id is well formed and free. NULL with @errp set. */
    void *(*create)(const ObjectOptions *opts, Error **errp);
    /* Whether somebody needs it still; NULL: never. */
    bool (*in_use)(void *object);
    void (*destroy)(void *object);
} UserObjectClass;

/* Add a kind. @klass must stay valid. Those of system/ are there from the start. */
void object_register_class(const UserObjectClass *klass);

/*
 * object_new:
 * @opts: what to make; not kept
 *
 * Returns: what the class made, findable by its id from now on; NULL with @errp set when the id is
 * malformed or taken, the kind is not registered, or the class refuses.
 */
void *object_new(const ObjectOptions *opts, Error **errp);
/*
 * The same from the members of ObjectOptions as a JSON object: with JSON's types, or (@text) with
 * every leaf a string, as keyval_parse() gives it. Unknown kinds and properties are errors that
 * name them.
 */
void *object_new_from_opts(struct json_object *opts, bool text, Error **errp);
/* The same from the text after `-object`: `TYPE,id=ID,...` or a JSON object. */
void *object_new_from_str(const char *optarg, Error **errp);

/*
 * The answer to `help`, `TYPE,help` (or with `?`) after `-object`; NULL without an error when
 * @optarg asks for no help. Caller frees.
 */
char *object_help(const char *optarg, Error **errp);

/* The object of that id when it is of @type, else NULL. */
void *object_by_id(const char *id, ObjectType type);
/* Whether the id is taken by an object of any type. */
bool object_exists(const char *id);

/* Remove it. Fails when there is none, or it is in use. */
bool object_delete(const char *id, Error **errp);
/* Remove all, the last made first, whoever uses them. At exit. */
void objects_delete_all(void);

/* Call @fn for each object of @type, in order of creation. */
void objects_foreach(ObjectType type, void (*fn)(void *object, void *opaque), void *opaque);

#endif
