/*
 * The walk is directed by the schema type; the JSON value follows. A stack of open containers says
 * where the walk is: for an object, which members nobody has asked for yet, for an array, which
 * element is next. The names along the stack are the path that messages show.
 *
 * JSON and key=value differ in how a leaf is read, and in nothing else.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qapi/json-input-visitor.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "qapi/visitor-impl.h"
#include "util/cutils.h"
#include "util/keyval.h"

typedef struct Frame {
    const char *name;           /* of this container in the one below; NULL in an array */
    struct json_object *obj;    /* borrowed, the root owns it */
    GHashTable *unvisited;      /* member names, borrowed from obj; NULL for an array */
    size_t index;               /* array: the current element */
} Frame;

typedef struct JsonInputVisitor {
    Visitor visitor;
    struct json_object *root;
    bool keyval;
    GArray *frames;             /* of Frame */
} JsonInputVisitor;

static JsonInputVisitor *self(Visitor *v)
{
    return (JsonInputVisitor *)v;
}

static Frame *frame_at(JsonInputVisitor *in, guint i)
{
    return &g_array_index(in->frames, Frame, i);
}

/* The innermost open container, or NULL. */
static Frame *top(Visitor *v)
{
    JsonInputVisitor *in = self(v);

    return in->frames->len ? frame_at(in, in->frames->len - 1) : NULL;
}

/* Paths */

static void append_step(GString *path, JsonInputVisitor *in, const Frame *parent, const char *name)
{
    if (parent && !parent->unvisited) {
        g_string_append_printf(path, in->keyval ? ".%zu" : "[%zu]", parent->index);
    } else if (name) {
        g_string_append_printf(path, "%s%s", path->len ? "." : "", name);
    }
}

static char *path_of(Visitor *v, const char *name)
{
    JsonInputVisitor *in = self(v);
    GString *path = g_string_new(NULL);
    const Frame *parent = NULL;

    for (guint i = 0; i < in->frames->len; i++) {
        append_step(path, in, parent, frame_at(in, i)->name);
        parent = frame_at(in, i);
    }
    append_step(path, in, parent, name);
    if (path->len == 0) {
        g_string_append(path, "<anonymous>");
    }
    return g_string_free(path, FALSE);
}

static bool wrong_value(Visitor *v, const char *name, const char *expected, Error **errp)
{
    g_autofree char *path = path_of(v, name);

    error_setg(errp, "Parameter '%s' expects %s", path, expected);
    return false;
}

static bool wrong_type(Visitor *v, const char *name, const char *expected, Error **errp)
{
    visit_wrong_type(v, name, expected, errp);
    return false;
}

/* Finding values */

/* The value called @name where the walk is, without taking note of it. */
static bool look(Visitor *v, const char *name, struct json_object **obj)
{
    Frame *frame = top(v);

    if (!frame) {
        *obj = self(v)->root;
        return true;
    }
    if (frame->unvisited) {
        return json_object_object_get_ex(frame->obj, name, obj);
    }
    if (frame->index >= json_object_array_length(frame->obj)) {
        return false;
    }
    *obj = json_object_array_get_idx(frame->obj, frame->index);
    return true;
}

static bool take(Visitor *v, const char *name, struct json_object **obj, Error **errp)
{
    Frame *frame = top(v);

    if (!look(v, name, obj)) {
        g_autofree char *path = path_of(v, name);
        error_setg(errp, "Parameter '%s' is missing", path);
        return false;
    }
    if (frame && frame->unvisited) {
        g_hash_table_remove(frame->unvisited, name);
    }
    return true;
}

static void optional(Visitor *v, const char *name, bool *present)
{
    struct json_object *obj;

    *present = look(v, name, &obj);
}

/* Containers */

static bool push(Visitor *v, const char *name, struct json_object *obj, Error **errp)
{
    Frame frame = { .name = name, .obj = obj };

    if (self(v)->frames->len >= JSON_INPUT_DEPTH_MAX) {
        g_autofree char *path = path_of(v, name);
        error_setg(errp, "Parameter '%.64s...' is nested too deeply", path);
        return false;
    }
    if (json_object_is_type(obj, json_type_object)) {
        frame.unvisited = g_hash_table_new(g_str_hash, g_str_equal);
        json_object_object_foreach(obj, key, value) {
            (void)value;
            g_hash_table_add(frame.unvisited, key);
        }
    }
    g_array_append_val(self(v)->frames, frame);
    return true;
}

static void pop(Visitor *v, void **obj)
{
    g_clear_pointer(&top(v)->unvisited, g_hash_table_unref);
    g_array_set_size(self(v)->frames, self(v)->frames->len - 1);
}

static bool start_struct(Visitor *v, const char *name, void **obj, size_t size, Error **errp)
{
    struct json_object *value;

    if (obj) {
        *obj = NULL;
    }
    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_object)) {
        return wrong_type(v, name, "object", errp);
    }
    if (!push(v, name, value, errp)) {
        return false;
    }
    if (obj) {
        *obj = g_malloc0(size);
    }
    return true;
}

static bool check_struct(Visitor *v, Error **errp)
{
    Frame *frame = top(v);

    if (g_hash_table_size(frame->unvisited) == 0) {
        return true;
    }
    /* in the order of the input, so that the message is the same each time */
    json_object_object_foreach(frame->obj, name, value) {
        (void)value;
        if (g_hash_table_contains(frame->unvisited, name)) {
            g_autofree char *path = path_of(v, name);
            error_setg(errp, "Parameter '%s' is unexpected", path);
            break;
        }
    }
    return false;
}

static bool start_list(Visitor *v, const char *name, GenericList **list, size_t size, Error **errp)
{
    struct json_object *value;

    *list = NULL;
    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_array)) {
        return wrong_type(v, name, "array", errp);
    }
    if (!push(v, name, value, errp)) {
        return false;
    }
    if (json_object_array_length(value) > 0) {
        *list = g_malloc0(size);
    }
    return true;
}

static GenericList *next_list(Visitor *v, GenericList *tail, size_t size)
{
    Frame *frame = top(v);

    if (++frame->index >= json_object_array_length(frame->obj)) {
        return NULL;
    }
    tail->next = g_malloc0(size);
    return tail->next;
}

static bool start_alternate(Visitor *v, const char *name, GenericAlternate **obj, size_t size,
                            Error **errp)
{
    struct json_object *value;

    *obj = NULL;
    if (!look(v, name, &value)) {
        return take(v, name, &value, errp);
    }
    *obj = g_malloc0(size);
    (*obj)->type = qtype_of_json(value);
    return true;
}

/* Leaves of JSON */

/* Distinguish what json-c saturates: it keeps int64 and uint64, each in its own range. */
static bool read_int64(Visitor *v, const char *name, int64_t *obj, const char *type,
                       Error **errp)
{
    struct json_object *value;

    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_int)) {
        return wrong_type(v, name, "integer", errp);
    }
    if (json_object_get_uint64(value) > INT64_MAX) {
        return wrong_value(v, name, type, errp);
    }
    *obj = json_object_get_int64(value);
    return true;
}

static bool read_uint64(Visitor *v, const char *name, uint64_t *obj, const char *type,
                        Error **errp)
{
    struct json_object *value;

    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_int)) {
        return wrong_type(v, name, "uint64", errp);
    }
    if (json_object_get_int64(value) < 0) {
        return wrong_value(v, name, type, errp);
    }
    *obj = json_object_get_uint64(value);
    return true;
}

static bool read_bool(Visitor *v, const char *name, bool *obj, Error **errp)
{
    struct json_object *value;

    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_boolean)) {
        return wrong_type(v, name, "boolean", errp);
    }
    *obj = json_object_get_boolean(value);
    return true;
}

static bool read_number(Visitor *v, const char *name, double *obj, Error **errp)
{
    struct json_object *value;

    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_int) &&
        !json_object_is_type(value, json_type_double)) {
        return wrong_type(v, name, "number", errp);
    }
    double number = json_object_get_double(value);
    if (!isfinite(number)) {
        return wrong_value(v, name, "a finite number", errp);
    }
    *obj = number;
    return true;
}

/* Both kinds */

static bool take_str(Visitor *v, const char *name, const char **str, Error **errp)
{
    struct json_object *value;

    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (!json_object_is_type(value, json_type_string)) {
        return wrong_type(v, name, "string", errp);
    }
    *str = json_object_get_string(value);
    if (strlen(*str) != (size_t)json_object_get_string_len(value)) {
        return wrong_value(v, name, "a string without NUL characters", errp);
    }
    return true;
}

static bool any_str(Visitor *v, const char *name, char **obj, Error **errp)
{
    const char *str;

    *obj = NULL;
    if (!take_str(v, name, &str, errp)) {
        return false;
    }
    *obj = g_strdup(str);
    return true;
}

static bool any_any(Visitor *v, const char *name, struct json_object **obj, Error **errp)
{
    struct json_object *value;

    *obj = NULL;
    if (!take(v, name, &value, errp)) {
        return false;
    }
    *obj = json_object_get(value);
    return true;
}

static bool any_null(Visitor *v, const char *name, QNull **obj, Error **errp)
{
    struct json_object *value;

    *obj = NULL;
    if (!take(v, name, &value, errp)) {
        return false;
    }
    if (value) {
        return wrong_type(v, name, "null", errp);
    }
    *obj = qnull();
    return true;
}

/* Leaves of key=value */

static bool parse_int64(const char *str, int64_t *value)
{
    char *end;

    if (!g_ascii_isdigit(str[0]) && !(str[0] == '-' && g_ascii_isdigit(str[1]))) {
        return false;
    }
    errno = 0;
    gint64 parsed = g_ascii_strtoll(str, &end, 0);
    if (errno || *end) {
        return false;
    }
    *value = parsed;
    return true;
}

static bool parse_number(const char *str, double *value)
{
    char *end;

    if (!g_ascii_isdigit(str[0]) && !(str[0] == '-' && g_ascii_isdigit(str[1]))) {
        return false;
    }
    double parsed = g_ascii_strtod(str, &end);
    if (*end || !isfinite(parsed)) {
        return false;
    }
    *value = parsed;
    return true;
}

static bool parse_text_int64(Visitor *v, const char *name, int64_t *obj, const char *type,
                             Error **errp)
{
    const char *str;

    if (!take_str(v, name, &str, errp)) {
        return false;
    }
    return parse_int64(str, obj) ? true : wrong_value(v, name, "integer", errp);
}

static bool parse_text_uint64(Visitor *v, const char *name, uint64_t *obj, const char *type,
                              Error **errp)
{
    const char *str;

    if (!take_str(v, name, &str, errp)) {
        return false;
    }
    return parse_uint64(str, obj, NULL) ? true : wrong_value(v, name, type, errp);
}

static bool parse_text_size(Visitor *v, const char *name, uint64_t *obj, Error **errp)
{
    const char *str;

    if (!take_str(v, name, &str, errp)) {
        return false;
    }
    if (!parse_size(str, obj, NULL)) {
        wrong_value(v, name, "a size", errp);
        error_append_hint(errp, "A size is a number of bytes below 2^64; the suffixes k, M, G, T, "
                          "P and E multiply it by powers of 1024.\n");
        return false;
    }
    return true;
}

static bool parse_text_bool(Visitor *v, const char *name, bool *obj, Error **errp)
{
    const char *str;

    if (!take_str(v, name, &str, errp)) {
        return false;
    }
    return parse_bool(name, str, obj, NULL) ? true : wrong_value(v, name, "'on' or 'off'", errp);
}

static bool parse_text_number(Visitor *v, const char *name, double *obj, Error **errp)
{
    const char *str;

    if (!take_str(v, name, &str, errp)) {
        return false;
    }
    return parse_number(str, obj) ? true : wrong_value(v, name, "number", errp);
}

/* The visitor itself */

static void free_visitor(Visitor *v)
{
    JsonInputVisitor *in = self(v);

    while (in->frames->len) {
        pop(v, NULL);
    }
    g_array_free(in->frames, TRUE);
    json_object_put(in->root);
    g_free(in);
}

static Visitor *new_visitor(struct json_object *obj)
{
    JsonInputVisitor *in = g_new0(JsonInputVisitor, 1);
    Visitor *v = &in->visitor;

    v->kind = VISITOR_INPUT;
    v->start_struct = start_struct;
    v->check_struct = check_struct;
    v->end_struct = pop;
    v->start_list = start_list;
    v->next_list = next_list;
    v->end_list = pop;
    v->start_alternate = start_alternate;
    v->type_str = any_str;
    v->type_any = any_any;
    v->type_null = any_null;
    v->optional = optional;
    v->path = path_of;
    v->free = free_visitor;
    in->root = json_object_get(obj);
    in->frames = g_array_new(FALSE, FALSE, sizeof(Frame));
    return v;
}

Visitor *json_input_visitor_new(struct json_object *obj)
{
    Visitor *v = new_visitor(obj);

    v->type_int64 = read_int64;
    v->type_uint64 = read_uint64;
    v->type_bool = read_bool;
    v->type_number = read_number;
    return v;
}

Visitor *json_input_visitor_new_keyval(struct json_object *obj)
{
    Visitor *v = new_visitor(obj);

    self(v)->keyval = true;
    v->type_int64 = parse_text_int64;
    v->type_uint64 = parse_text_uint64;
    v->type_size = parse_text_size;
    v->type_bool = parse_text_bool;
    v->type_number = parse_text_number;
    return v;
}

Visitor *json_input_visitor_new_str(const char *str, const char *implied_key, Error **errp)
{
    struct json_object *obj;
    Visitor *v;

    if (str[0] == '{') {
        if (json_parse_text(str, &obj, errp) < 0) {
            return NULL;
        }
        v = json_input_visitor_new(obj);
    } else {
        obj = keyval_parse(str, implied_key, NULL, errp);
        if (!obj) {
            return NULL;
        }
        v = json_input_visitor_new_keyval(obj);
    }
    json_object_put(obj);
    return v;
}
