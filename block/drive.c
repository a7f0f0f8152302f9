/*
 * From the text of -drive to the description of a node.
 *
 * The image's name becomes a description first (block/filename.c); then every key that belongs to a
 * node is put into it as if it had been written there, and the whole is read by the visitor of
 * BlockdevOptions. So a driver's own option needs no line here, and what nobody knows is refused by
 * its name.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/drive.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>

#include "block/driver.h"
#include "qapi/json-input-visitor.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/cutils.h"
#include "util/keyval.h"

#define INDEX_MAX 255
/* The key that file= is renamed to: "file" may have members beside it. */
#define NAME_KEY "file-name"

static const char *const interface_names[DRIVE_IF__MAX] = {
    [DRIVE_IF_VIRTIO] = "virtio", [DRIVE_IF_NONE] = "none",
};

typedef struct json_object Pairs;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Pairs, json_object_put)

/* ---- keys ---- */

/* "file=a,file.locking=off" is common, and no tree: the name moves to a key of its own. */
static char *rename_file_key(const char *text)
{
    GString *out = g_string_new(NULL);
    const char *p = text;

    for (;;) {
        const char *end = p;

        /* A value ends at a single comma. */
        while (*end && !(end[0] == ',' && end[1] != ',')) {
            end += end[0] == ',' ? 2 : 1;
        }
        if (g_str_has_prefix(p, "file=")) {
            g_string_append(out, NAME_KEY);
            p += strlen("file");
        }
        g_string_append_len(out, p, end - p);
        if (!*end) {
            return g_string_free(out, FALSE);
        }
        g_string_append_c(out, ',');
        p = end + 1;
    }
}

/* The value of @key, taken out of @pairs; NULL when it is not there, or has members. */
static char *take(Pairs *pairs, const char *key)
{
    struct json_object *value;
    char *text;

    if (!json_object_object_get_ex(pairs, key, &value) ||
        !json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    text = g_strdup(json_object_get_string(value));
    json_object_object_del(pairs, key);
    return text;
}

static void put(Pairs *obj, const char *key, const char *value)
{
    json_object_object_add(obj, key, json_object_new_string(value));
}

/* The object that is @key of @obj, made when it is not there; NULL: something else is. */
static Pairs *member(Pairs *obj, const char *key)
{
    struct json_object *value;

    if (!json_object_object_get_ex(obj, key, &value)) {
        value = json_object_new_object();
        json_object_object_add(obj, key, value);
    }
    return json_object_is_type(value, json_type_object) ? value : NULL;
}

/* Put the members of @from into @into; objects that both have are merged, else @from's hold. */
static void merge(Pairs *into, Pairs *from)
{
    json_object_object_foreach(from, key, value) {
        struct json_object *old;

        if (json_object_object_get_ex(into, key, &old) &&
            json_object_is_type(old, json_type_object) &&
            json_object_is_type(value, json_type_object)) {
            merge(old, value);
        } else {
            json_object_object_add(into, key, json_object_get(value));
        }
    }
}

/* JSON with its types as JSON of strings, as option text is read. */
static struct json_object *as_text(struct json_object *value)
{
    struct json_object *copy;

    switch (json_object_get_type(value)) {
    case json_type_object:
        copy = json_object_new_object();
        json_object_object_foreach(value, key, m) {
            json_object_object_add(copy, key, as_text(m));
        }
        return copy;
    case json_type_array:
        copy = json_object_new_array();
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            json_object_array_add(copy, as_text(json_object_array_get_idx(value, i)));
        }
        return copy;
    case json_type_boolean:
        return json_object_new_string(json_object_get_boolean(value) ? "on" : "off");
    case json_type_null:
        return json_object_new_string("");
    default:
        return json_object_new_string(json_object_get_string(value));
    }
}

static Pairs *options_as_text(const BlockdevOptions *opts)
{
    BlockdevOptions *walked = (BlockdevOptions *)opts;
    g_autoptr(Pairs) typed = NULL;
    Visitor *v = json_output_visitor_new(&typed);

    visit_type_BlockdevOptions(v, NULL, &walked, &error_abort);
    visit_complete(v, &typed);
    visit_free(v);
    return as_text(typed);
}

/* ---- what belongs to the drive ---- */

static bool take_interface(DriveOptions *drive, Pairs *pairs, Error **errp)
{
    g_autofree char *name = take(pairs, "if"), *index = take(pairs, "index"),
                    *media = take(pairs, "media");
    int i = 0;

    while (name && i < DRIVE_IF__MAX && strcmp(name, interface_names[i])) {
        i++;
    }
    if (i == DRIVE_IF__MAX) {
        error_setg(errp, "unsupported bus type '%s'; there are virtio and none", name);
        return false;
    }
    drive->interface = i;
    if (media && strcmp(media, "disk")) {
        error_setg(errp, "'%s' invalid media; there are only disks (media=disk)", media);
        return false;
    }
    drive->has_index = index != NULL;
    if (index && !parse_uint64_range(index, 0, INDEX_MAX, &drive->index, errp)) {
        error_prepend(errp, "Parameter 'index': ");
        return false;
    }
    return true;
}

static bool take_on_error(Pairs *pairs, const char *key, bool is_read, BlockdevOnError *action,
                          Error **errp)
{
    g_autofree char *text = take(pairs, key);
    int value =
        text ? qapi_enum_parse(&BlockdevOnError_lookup, text, -1, NULL) : BLOCKDEV_ON_ERROR_AUTO;

    if (value < 0 || (is_read && value == BLOCKDEV_ON_ERROR_ENOSPC)) {
        error_setg(errp, "'%s' invalid %s error action", text, is_read ? "read" : "write");
        return false;
    }
    *action = value;
    if (value == BLOCKDEV_ON_ERROR_AUTO) {
        *action = is_read ? BLOCKDEV_ON_ERROR_REPORT : BLOCKDEV_ON_ERROR_ENOSPC;
    }
    return true;
}

/* Options of QEMU's -drive that would be easily missed if they were just unknown. */
static bool refuse_others(Pairs *pairs, Error **errp)
{
    g_autofree char *snapshot = take(pairs, "snapshot");
    bool on = false;

    if (snapshot && !parse_bool("snapshot", snapshot, &on, errp)) {
        return false;
    }
    if (on) {
        error_setg(errp,
                   "snapshot=on is not supported: make an overlay with 'ferry-img create -b'");
        return false;
    }
    json_object_object_foreach(pairs, key, value) {
        (void)value;
        if (!strcmp(key, "throttling") || g_str_has_prefix(key, "bps") ||
            g_str_has_prefix(key, "iops")) {
            error_setg(
                errp,
                "Property '%s' is not supported: limits are an object throttle-group and a node "
                "with driver=throttle",
                key);
            return false;
        }
    }
    return true;
}

/* ---- what belongs to the node ---- */

bool drive_parse_cache_mode(const char *mode, bool *direct, bool *no_flush, bool *writethrough)
{
    static const struct {
        const char *name;
        bool direct, no_flush, writethrough;
    } modes[] = {
        { "writeback", false, false, false }, { "none", true, false, false },
        { "off", true, false, false }, { "writethrough", false, false, true },
        { "directsync", true, false, true }, { "unsafe", false, true, false },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (!strcmp(mode, modes[i].name)) {
            *direct = modes[i].direct;
            *no_flush = modes[i].no_flush;
            *writethrough = modes[i].writethrough;
            return true;
        }
    }
    return false;
}

static bool take_cache(DriveOptions *drive, Pairs *pairs, Error **errp)
{
    g_autofree char *mode = take(pairs, "cache"), *writeback = NULL;
    struct json_object *members;
    bool direct, no_flush, on;

    if (mode) {
        if (!drive_parse_cache_mode(mode, &direct, &no_flush, &drive->writethrough)) {
            error_setg(errp, "invalid cache option '%s'", mode);
            return false;
        }
        put(member(pairs, "cache"), "direct", direct ? "on" : "off");
        put(member(pairs, "cache"), "no-flush", no_flush ? "on" : "off");
        return true;
    }
    if (json_object_object_get_ex(pairs, "cache", &members) &&
        json_object_is_type(members, json_type_object)) {
        writeback = take(members, "writeback");
        if (writeback) {
            if (!parse_bool("cache.writeback", writeback, &on, errp)) {
                return false;
            }
            drive->writethrough = !on;
        }
    }
    return true;
}

/* Older spellings. */
static bool take_read_only(Pairs *pairs, Error **errp)
{
    g_autofree char *text = take(pairs, "readonly");
    struct json_object *other;

    if (text && json_object_object_get_ex(pairs, "read-only", &other)) {
        error_setg(errp, "'read-only' and its alias 'readonly' can't be used at the same time");
        return false;
    }
    if (text) {
        put(pairs, "read-only", text);
    }
    return true;
}

/* discard=on and discard=off are other words for what the schema calls unmap and ignore. */
static void spell_discard(Pairs *obj)
{
    g_autofree char *text = take(obj, "discard");

    if (text) {
        put(obj, "discard", !strcmp(text, "on") ? "unmap" : !strcmp(text, "off") ? "ignore" : text);
    }
}

/* The object with the file or device at the bottom of the chain of "file". */
static Pairs *bottom(Pairs *obj)
{
    struct json_object *file;

    while (json_object_object_get_ex(obj, "file", &file) &&
           json_object_is_type(file, json_type_object)) {
        obj = file;
    }
    return obj;
}

/*
 * The description by name and format, as text; or, without a name, what the keys themselves
 * describe.
 */
static Pairs *describe_image(Pairs *pairs, Error **errp)
{
    g_autofree char *name = take(pairs, NAME_KEY), *format = take(pairs, "format");
    g_autoptr(BlockdevOptions) opts = NULL;
    struct json_object *driver;

    if (json_object_object_get_ex(pairs, "driver", &driver)) {
        if (format) {
            error_setg(errp, "'driver' and 'format' can't be used at the same time");
            return NULL;
        }
        format = take(pairs, "driver");
    }
    if (!name) {
        Pairs *obj;

        if (!format || !json_object_object_get_ex(pairs, "file", NULL)) {
            error_setg(errp, "Parameter '%s' is missing", format ? "file" : "format");
            return NULL;
        }
        obj = json_object_new_object();
        put(obj, "driver", format);
        return obj;
    }
    if (!format && !g_str_has_prefix(name, "json:")) {
        error_setg(
            errp,
            "Parameter 'format' is missing: write format=raw, format=qcow2 or another; it is not "
            "guessed, as a guest could have written what is guessed from");
        return NULL;
    }
    opts = bdrv_options_for_file(name, format, errp);
    return opts ? options_as_text(opts) : NULL;
}

static BlockdevOptions *read_options(Pairs *obj, Error **errp)
{
    BlockdevOptions *opts = NULL;
    Visitor *v = json_input_visitor_new_keyval(obj);

    visit_type_BlockdevOptions(v, NULL, &opts, errp);
    visit_free(v);
    return opts;
}

static BlockdevOptions *put_copy_on_read_above(BlockdevOptions *opts)
{
    BlockdevOptions *top = g_new0(BlockdevOptions, 1);

    top->driver = BLOCKDEV_DRIVER_COPY_ON_READ;
    top->u.copy_on_read.file = g_new0(BlockdevRef, 1);
    top->u.copy_on_read.file->type = QTYPE_QDICT;
    top->u.copy_on_read.file->u.definition = *opts;
    g_free(opts);
    return top;
}

static BlockdevOptions *node_options(Pairs *pairs, Error **errp)
{
    g_autofree char *copy_on_read = take(pairs, "copy-on-read"), *aio = take(pairs, "aio");
    g_autoptr(Pairs) obj = NULL;
    BlockdevOptions *opts;
    bool cor = false;

    if ((copy_on_read && !parse_bool("copy-on-read", copy_on_read, &cor, errp)) ||
        !take_read_only(pairs, errp)) {
        return NULL;
    }
    obj = describe_image(pairs, errp);
    if (!obj) {
        return NULL;
    }
    merge(obj, pairs);
    bdrv_imply_file_drivers(obj);
    spell_discard(obj);
    if (aio) {
        put(bottom(obj), "aio", aio);
    }
    opts = read_options(obj, errp);
    if (opts && cor && opts->has_read_only && opts->read_only) {
        error_setg(errp, "copy-on-read needs a drive that can be written");
        qapi_free_BlockdevOptions(opts);
        return NULL;
    }
    return opts && cor ? put_copy_on_read_above(opts) : opts;
}

/* ---- the whole ---- */

DriveOptions *drive_options_parse(const char *text, Error **errp)
{
    g_autofree char *renamed = rename_file_key(text);
    g_autoptr(Pairs) pairs = keyval_parse(renamed, NULL, NULL, errp);
    g_autoptr(DriveOptions) drive = g_new0(DriveOptions, 1);

    if (!pairs) {
        return NULL;
    }
    drive->id = take(pairs, "id");
    if (!take_interface(drive, pairs, errp) || !refuse_others(pairs, errp) ||
        !take_on_error(pairs, "rerror", true, &drive->on_read_error, errp) ||
        !take_on_error(pairs, "werror", false, &drive->on_write_error, errp) ||
        !take_cache(drive, pairs, errp)) {
        return NULL;
    }
    drive->opts = node_options(pairs, errp);
    return drive->opts ? g_steal_pointer(&drive) : NULL;
}

void drive_options_free(DriveOptions *drive)
{
    if (drive) {
        g_free(drive->id);
        qapi_free_BlockdevOptions(drive->opts);
        g_free(drive);
    }
}

/* "virtio0", "none1": the first number that is free. */
static bool choose_id(DriveOptions *drive, Error **errp)
{
    const char *name = interface_names[drive->interface];

    if (drive->id) {
        return true;
    }
    for (uint64_t i = drive->has_index ? drive->index : 0; i <= INDEX_MAX; i++) {
        g_autofree char *id = g_strdup_printf("%s%" PRIu64, name, i);

        if (!blk_by_name(id) && !bdrv_find_node(id)) {
            drive->id = g_steal_pointer(&id);
            drive->index = i;
            return true;
        }
        if (drive->has_index) {
            break;
        }
    }
    error_setg(errp, "drive with if=%s, index=%" PRIu64 " exists", name, drive->index);
    return false;
}

BlockBackend *drive_new(DriveOptions *drive, Error **errp)
{
    BlockDriverState *bs;
    BlockBackend *blk;

    if (!choose_id(drive, errp)) {
        return NULL;
    }
    bs = bdrv_open(drive->opts, errp);
    if (!bs) {
        return NULL;
    }
    blk = blk_new_with_bs(bs, 0, BLK_PERM_ALL, errp);
    bdrv_unref(bs);
    if (!blk) {
        return NULL;
    }
    blk_set_on_error(blk, drive->on_read_error, drive->on_write_error);
    blk_set_enable_write_cache(blk, !drive->writethrough);
    if (!monitor_add_blk(blk, drive->id, errp)) {
        blk_unref(blk);
        return NULL;
    }
    /* The monitor's reference stays. */
    blk_unref(blk);
    return blk;
}
