/*
 * Making images: what -o says, what the backing file says, and the driver that does it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-common.h"
#include "util/cutils.h"
#include "util/keyval.h"

/* ---- options ---- */

bool img_wants_option_help(const GPtrArray *options)
{
    for (guint i = 0; options && i < options->len; i++) {
        g_auto(GStrv) parts = g_strsplit(options->pdata[i], ",", -1);

        if (g_strv_contains((const char *const *)parts, "help") ||
            g_strv_contains((const char *const *)parts, "?")) {
            return true;
        }
    }
    return false;
}

static const BdrvCreateOption *find_option(const BdrvCreateOption *table, const char *name)
{
    for (; table && table->name; table++) {
        if (!strcmp(table->name, name)) {
            return table;
        }
    }
    return NULL;
}

/* `size` is not the driver's, but everybody writes it. */
static bool option_known(const BlockDriver *drv, const char *name)
{
    return !strcmp(name, "size") || find_option(drv->create_options, name);
}

struct json_object *img_parse_create_options(const BlockDriver *drv, const GPtrArray *options,
                                             Error **errp)
{
    struct json_object *all = json_object_new_object();

    for (guint i = 0; options && i < options->len; i++) {
        struct json_object *some = keyval_parse(options->pdata[i], NULL, NULL, errp);

        if (!some) {
            json_object_put(all);
            return NULL;
        }
        json_object_object_foreach(some, key, value) {
            if (!option_known(drv, key) || !json_object_is_type(value, json_type_string)) {
                error_setg(errp, "Invalid parameter '%s'", key);
                json_object_put(some);
                json_object_put(all);
                return NULL;
            }
            json_object_object_add(all, key, json_object_get(value));
        }
        json_object_put(some);
    }
    return all;
}

static void print_options(const BdrvCreateOption *table, const BdrvCreateOption *except)
{
    for (; table && table->name; table++) {
        if (!find_option(except, table->name)) {
            g_autofree char *left = g_strdup_printf("  %s=<str>", table->name);

            printf(
                "%-24s - %s%s%s%s\n", left, table->desc, table->default_value ? " (default: " : "",
                table->default_value ? table->default_value : "", table->default_value ? ")" : "");
        }
    }
}

static const BlockDriver *format_to_create(const char *format, Error **errp)
{
    const BlockDriver *drv = bdrv_find_driver(format, NULL);

    if (!drv) {
        error_setg(errp, "Unknown file format '%s'", format);
    } else if (!drv->co_create_opts) {
        error_setg(errp, "Format driver '%s' does not support image creation", format);
        drv = NULL;
    }
    return drv;
}

int img_print_create_options(const char *format, const char *filename, Error **errp)
{
    const BlockDriver *drv = format_to_create(format, errp);
    const BdrvCreateOption *below = drv ? drv->create_options : NULL;

    if (!drv) {
        return -1;
    }
    printf("Supported %s options:\n", format);
    print_options(drv->create_options, NULL);
    printf("  size=<size>            - Virtual disk size\n");
    if (filename) {
        g_autofree char *path = img_path_of(filename);
        const BlockDriver *file = path ? bdrv_driver_of(BLOCKDEV_DRIVER_FILE) : NULL;

        if (file && file != drv) {
            print_options(file->create_options, below);
        }
    }
    return 0;
}

/* ---- backing files ---- */

static char *directory_of(const char *image)
{
    g_autofree char *path = img_path_of(image);

    return path && strchr(path, '/') ? g_path_get_dirname(path) : NULL;
}

/*
 * The path of a backing file for who stands in our working directory: images name it from where
 * they are.
 */
static char *backing_seen_from_here(const char *image, const char *backing)
{
    const char *colon = strchr(backing, ':'), *slash = strchr(backing, '/');
    g_autofree char *dir = NULL;

    if (backing[0] == '/' || (colon && (!slash || colon < slash))) {
        return g_strdup(backing);
    }
    dir = directory_of(image);
    return dir ? g_build_filename(dir, backing, NULL) : g_strdup(backing);
}

/*
 * Open the backing file once, as whoever opens the image will have to. Its length, or -1 with @errp
 * set.
 */
static int64_t look_at_backing(const ImgCreate *c, const char *format, Error **errp)
{
    g_autofree char *path = backing_seen_from_here(c->filename, c->backing);
    ImgOpen how = { .format = format, .force_share = true };
    g_autoptr(BlockBackend) blk = img_open(path, &how, errp);
    int64_t length;

    if (!blk) {
        error_append_hint(errp, "Could not open backing image.\n");
        return -1;
    }
    length = blk_getlength(blk);
    if (length < 0) {
        error_setg_errno(errp, -length, "Could not get size of '%s'", path);
        return -1;
    }
    return length;
}

static const char *get_string(struct json_object *opts, const char *key)
{
    struct json_object *value;

    return json_object_object_get_ex(opts, key, &value) ? json_object_get_string(value) : NULL;
}

static int settle_backing(ImgCreate *c, const BlockDriver *drv, struct json_object *opts,
                          Error **errp)
{
    int64_t length;

    if (!drv->supports_backing) {
        if (c->backing || c->backing_format) {
            error_setg(errp, "Backing file not supported for file format '%s'", drv->format_name);
            return -1;
        }
        return 0;
    }
    c->backing = c->backing ? c->backing : get_string(opts, "backing_file");
    c->backing_format = c->backing_format ? c->backing_format : get_string(opts, "backing_fmt");
    if (!c->backing || !*c->backing) {
        c->backing = NULL;
        json_object_object_del(opts, "backing_file");
        return 0;
    }
    if (c->backing_format && !bdrv_find_driver(c->backing_format, NULL)) {
        error_setg(errp, "Unknown backing file format '%s'", c->backing_format);
        return -1;
    }
    if (!c->backing_format) {
        error_setg(errp, "Backing file specified without backing format");
        error_append_hint(errp, "Give it with -F.\n");
        return -1;
    }
    if (!c->backing_unchecked) {
        length = look_at_backing(c, c->backing_format, errp);
        if (length < 0) {
            return -1;
        }
        c->size = c->size < 0 ? length : c->size;
    }
    json_object_object_add(opts, "backing_file", json_object_new_string(c->backing));
    json_object_object_add(opts, "backing_fmt", json_object_new_string(c->backing_format));
    return 0;
}

/* ---- creation ---- */

static int settle_size(ImgCreate *c, struct json_object *opts, Error **errp)
{
    const char *text = get_string(opts, "size");
    uint64_t size;

    if (text && c->size < 0) {
        if (!parse_size(text, &size, errp)) {
            return -1;
        }
        if (size > BDRV_MAX_LENGTH) {
            error_setg(errp, "An image of %" PRIu64 " bytes is too large", size);
            return -1;
        }
        c->size = size;
    }
    json_object_object_del(opts, "size");
    return 0;
}

static void print_formatting(const ImgCreate *c, const BlockDriver *drv, struct json_object *opts)
{
    printf("Formatting '%s', fmt=%s size=%" PRId64, c->shown_name ? c->shown_name : c->filename,
           drv->format_name, c->size);
    for (const BdrvCreateOption *o = drv->create_options; o && o->name; o++) {
        const char *value = get_string(opts, o->name);

        if (value) {
            printf(" %s=%s", o->name, value);
        } else if (o->default_value && drv->is_format) {
            printf(" %s=%s", o->name, o->default_value);
        }
    }
    putchar('\n');
}

typedef struct MakeCall {
    const BlockDriver *drv;
    const ImgCreate *c;
    struct json_object *opts;
    Error **errp;
    int ret;
} MakeCall;

static void coroutine_fn make_entry(void *opaque)
{
    MakeCall *call = opaque;

    call->ret = call->drv->co_create_opts(call->c->filename, call->c->size, call->opts, call->errp);
}

static int make(ImgCreate *c, const BlockDriver *drv, struct json_object *opts, Error **errp)
{
    MakeCall call = { .drv = drv, .c = c, .opts = opts, .errp = errp };
    const char *prealloc;

    if (settle_size(c, opts, errp) < 0 || settle_backing(c, drv, opts, errp) < 0) {
        return -1;
    }
    if (c->size < 0) {
        error_setg(errp, "Image creation needs a size parameter");
        return -1;
    }
    /* Formats that count in sectors. */
    if (drv->is_format && c->size % BDRV_SECTOR_BYTES &&
        c->size <= BDRV_MAX_LENGTH - BDRV_SECTOR_BYTES) {
        c->size += BDRV_SECTOR_BYTES - c->size % BDRV_SECTOR_BYTES;
    }
    prealloc = get_string(opts, "preallocation");
    c->explicit_prealloc = prealloc && strcmp(prealloc, "off");
    if (!c->quiet) {
        print_formatting(c, drv, opts);
        fflush(stdout);
    }
    img_run(make_entry, &call);
    return call.ret < 0 ? -1 : 0;
}

int img_make(ImgCreate *c, Error **errp)
{
    const char *shown = c->shown_name ? c->shown_name : c->filename;
    const BlockDriver *drv = format_to_create(c->format, errp);
    struct json_object *opts = drv ? img_parse_create_options(drv, c->options, errp) : NULL;
    int ret = opts ? make(c, drv, opts, errp) : -1;

    json_object_put(opts);
    if (ret < 0) {
        error_prepend(errp, "%s: ", shown);
    }
    return ret;
}
