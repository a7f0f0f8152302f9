/*
 * qcow2: making an image, by blockdev-create's options or by what follows -o on a command line.
 *
 * Nodes are opened and held by the main thread outside of coroutines, so that part is a call of the
 * main loop for which the coroutine waits.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "block/block-backend.h"
#include "block/create.h"
#include "block/qcow2.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/cutils.h"

#define DEFAULT_CLUSTER_BITS 16
#define DEFAULT_REFCOUNT_ORDER 4

const BdrvCreateOption qcow2_create_options[] = {
    { "backing_file", "File name of the image that has the content that this one lacks", NULL },
    { "backing_fmt", "Format of that image", NULL },
    { "cluster_size", "Bytes of a cluster, a power of two from 512 to 2M", "65536" },
    { "compat", "Version of the format: v2 or 0.10, v3 or 1.1", "v3" },
    { "compression_type", "How clusters are compressed: zlib or zstd", "zlib" },
    { "extended_l2", "Let parts of clusters be allocated, 32 of each: needs v3 and clusters of 16k",
      "off" },
    { "lazy_refcounts",
      "Put updates of reference counts off, at the price of a check after a crash", "off" },
    { "preallocation", "What is allocated at once: off, metadata, falloc or full", "off" },
    { "refcount_bits", "Bits of a reference count: 1, 2, 4, 8, 16, 32 or 64", "16" },
    { NULL }
};

/* ---- holding the file ---- */

typedef struct Hold {
    const BlockdevRef *ref;
    const char *filename;               /* instead of @ref */
    BlockBackend *blk;
    Error **errp;
    Coroutine *co;
    bool release;
} Hold;

static BlockBackend *hold_node(const char *name, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup(name, errp);

    return bs ? blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
                                BLK_PERM_ALL, errp)
              : NULL;
}

static BlockBackend *hold_file(const char *filename, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = bdrv_options_for_file(filename, "raw", errp);
    BlockdevRef *file;

    if (!opts) {
        return NULL;
    }
    if (opts->driver != BLOCKDEV_DRIVER_RAW || opts->u.raw.file->type != QTYPE_QDICT) {
        error_setg(errp, "Could not create '%s': a description is no name for a new image",
                   filename);
        return NULL;
    }
    file = opts->u.raw.file;
    return blk_new_open(&file->u.definition, errp);
}

static void hold_call(void *opaque)
{
    Hold *hold = opaque;

    if (hold->release) {
        blk_unref(hold->blk);
    } else if (hold->filename) {
        hold->blk = hold_file(hold->filename, hold->errp);
    } else if (hold->ref->type == QTYPE_QSTRING) {
        hold->blk = hold_node(hold->ref->u.reference, hold->errp);
    } else {
        hold->blk = blk_new_open(&hold->ref->u.definition, hold->errp);
    }
    aio_co_wake(hold->co);
}

static void coroutine_fn call_main(Hold *hold)
{
    hold->co = coroutine_self();
    aio_bh_schedule_oneshot(aio_context_main(), hold_call, hold);
    coroutine_yield();
}

/* In the home context of the node; the caller goes on in its own. */
static int coroutine_fn format_held(Hold *hold, const Qcow2FormatOptions *opts, Error **errp)
{
    AioContext *own = aio_current();
    int ret = -EINVAL;

    hold->errp = errp;
    call_main(hold);
    if (hold->blk) {
        aio_co_reschedule_self(blk_get_aio_context(hold->blk));
        ret = qcow2_format(blk_root(hold->blk), opts, errp);
        aio_co_reschedule_self(own);
        hold->release = true;
        call_main(hold);
    }
    return ret;
}

/* ---- options ---- */

static bool check_v2(const Qcow2FormatOptions *f, Error **errp)
{
    if (f->version >= 3) {
        return true;
    }
    if (f->lazy_refcounts) {
        error_setg(errp, "Lazy refcounts need a qcow2 image of version 3 (use compat=1.1)");
    } else if (f->refcount_order != DEFAULT_REFCOUNT_ORDER) {
        error_setg(errp, "Refcounts of another width than 16 bits need a qcow2 image of version 3 "
                         "(use compat=1.1)");
    } else if (f->compression != QCOW2_COMPRESSION_TYPE_ZLIB) {
        error_setg(
            errp,
            "Compression types other than zlib need a qcow2 image of version 3 (use compat=1.1)");
    } else if (f->extended_l2) {
        error_setg(errp, "Extended L2 entries need a qcow2 image of version 3 (use compat=1.1)");
    } else {
        return true;
    }
    return false;
}

static bool check_backing(const Qcow2FormatOptions *f, Error **errp)
{
    if (!f->backing_file) {
        if (f->backing_format) {
            error_setg(errp, "A backing format cannot be given without a backing file");
            return false;
        }
        return true;
    }
    if (!*f->backing_file || strlen(f->backing_file) > QCOW2_BACKING_NAME_MAX) {
        error_setg(errp, "The name of the backing file must have 1 to %u characters",
                   QCOW2_BACKING_NAME_MAX);
        return false;
    }
    if (f->preallocation != PREALLOC_MODE_OFF) {
        error_setg(errp, "A backing file and preallocation cannot be used at the same time: "
                         "nothing of the backing "
                         "file would be visible");
        return false;
    }
    return true;
}

static bool set_cluster_size(Qcow2FormatOptions *f, uint64_t size, Error **errp)
{
    if (size < UINT64_C(1) << QCOW2_MIN_CLUSTER_BITS ||
        size > UINT64_C(1) << QCOW2_MAX_CLUSTER_BITS || (size & (size - 1))) {
        error_setg(errp, "The cluster size must be a power of two between %u and %uk",
                   1u << QCOW2_MIN_CLUSTER_BITS, 1u << (QCOW2_MAX_CLUSTER_BITS - 10));
        return false;
    }
    f->cluster_bits = __builtin_ctzll(size);
    return true;
}

static bool set_refcount_bits(Qcow2FormatOptions *f, int64_t bits, Error **errp)
{
    if (bits < 1 || bits > 64 || (bits & (bits - 1))) {
        error_setg(errp, "The width of refcounts must be a power of two and not more than 64 bits");
        return false;
    }
    f->refcount_order = __builtin_ctzll(bits);
    return true;
}

static Qcow2FormatOptions default_format(uint64_t size)
{
    return (Qcow2FormatOptions) {
        .size = size, .version = 3, .cluster_bits = DEFAULT_CLUSTER_BITS,
        .refcount_order = DEFAULT_REFCOUNT_ORDER, .compression = QCOW2_COMPRESSION_TYPE_ZLIB,
    };
}

static bool check_format(const Qcow2FormatOptions *f, Error **errp)
{
    if (f->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "An image of %" PRIu64 " bytes is too large", f->size);
        return false;
    }
    if (f->extended_l2 && f->cluster_bits < QCOW2_MIN_EXTENDED_CLUSTER_BITS) {
        error_setg(errp, "Extended L2 entries need clusters of at least %u bytes",
                   1u << QCOW2_MIN_EXTENDED_CLUSTER_BITS);
        return false;
    }
    return check_v2(f, errp) && check_backing(f, errp) && qcow2_format_possible(f, errp);
}

int coroutine_fn qcow2_co_create(BlockdevCreateOptions *opts, Error **errp)
{
    const BlockdevCreateOptionsQcow2 *o = &opts->u.qcow2;
    Qcow2FormatOptions f = default_format(o->size);
    Hold hold = { .ref = o->file };

    f.version = o->has_version && o->version == BLOCKDEV_QCOW2_VERSION_V2 ? 2 : 3;
    f.lazy_refcounts = o->has_lazy_refcounts && o->lazy_refcounts;
    f.extended_l2 = o->has_extended_l2 && o->extended_l2;
    f.preallocation = o->has_preallocation ? o->preallocation : PREALLOC_MODE_OFF;
    f.compression = o->has_compression_type ? o->compression_type : QCOW2_COMPRESSION_TYPE_ZLIB;
    f.backing_file = o->backing_file;
    f.backing_format = o->has_backing_fmt ? BlockdevDriver_str(o->backing_fmt) : NULL;
    if ((o->has_cluster_size && !set_cluster_size(&f, o->cluster_size, errp)) ||
        (o->has_refcount_bits && !set_refcount_bits(&f, o->refcount_bits, errp)) ||
        !check_format(&f, errp)) {
        return -EINVAL;
    }
    return format_held(&hold, &f, errp);
}

/* ---- strings ---- */

static bool parse_compat(Qcow2FormatOptions *f, const char *value, Error **errp)
{
    if (!strcmp(value, "0.10") || !strcmp(value, "v2")) {
        f->version = 2;
    } else if (!strcmp(value, "1.1") || !strcmp(value, "v3")) {
        f->version = 3;
    } else {
        error_setg(errp, "Invalid compatibility level '%s': v2 (0.10) or v3 (1.1)", value);
        return false;
    }
    return true;
}

static bool parse_enum(const QEnumLookup *lookup, const char *value, int *result, Error **errp)
{
    *result = qapi_enum_parse(lookup, value, -1, errp);
    return *result >= 0;
}

static bool parse_backing_format(Qcow2FormatOptions *f, const char *value, Error **errp)
{
    const BlockDriver *drv = bdrv_find_driver(value, errp);

    f->backing_format = drv ? drv->format_name : NULL;
    return drv;
}

/* What others have and Ferry has not may be asked for by saying that it is off. */
static bool is_off(const char *name, const char *value)
{
    static const char *const absent[] = { "encryption", "data_file_raw" };
    bool on;

    for (size_t i = 0; i < G_N_ELEMENTS(absent); i++) {
        if (!strcmp(name, absent[i])) {
            return parse_bool(name, value, &on, NULL) && !on;
        }
    }
    return false;
}

static bool parse_option(Qcow2FormatOptions *f, const char *name, const char *value, Error **errp)
{
    uint64_t number;
    int choice;

    if (!strcmp(name, "backing_file")) {
        f->backing_file = value;
        return true;
    }
    if (!strcmp(name, "backing_fmt")) {
        return parse_backing_format(f, value, errp);
    }
    if (!strcmp(name, "cluster_size")) {
        return parse_size(value, &number, errp) && set_cluster_size(f, number, errp);
    }
    if (!strcmp(name, "compat")) {
        return parse_compat(f, value, errp);
    }
    if (!strcmp(name, "compression_type")) {
        if (!parse_enum(&Qcow2CompressionType_lookup, value, &choice, errp)) {
            return false;
        }
        f->compression = choice;
        return true;
    }
    if (!strcmp(name, "extended_l2")) {
        return parse_bool(name, value, &f->extended_l2, errp);
    }
    if (!strcmp(name, "lazy_refcounts")) {
        return parse_bool(name, value, &f->lazy_refcounts, errp);
    }
    if (!strcmp(name, "preallocation")) {
        if (!parse_enum(&PreallocMode_lookup, value, &choice, errp)) {
            return false;
        }
        f->preallocation = choice;
        return true;
    }
    if (!strcmp(name, "refcount_bits")) {
        return parse_uint64_range(value, 1, 64, &number, errp) &&
               set_refcount_bits(f, number, errp);
    }
    if (is_off(name, value)) {
        return true;
    }
    error_setg(errp, "The option is not supported for qcow2 images");
    return false;
}

int coroutine_fn qcow2_co_create_opts(const char *filename, uint64_t size, struct json_object *opts,
                                      Error **errp)
{
    Qcow2FormatOptions f = default_format(size);
    Hold hold = { .filename = filename };
    int ret;

    if (opts) {
        json_object_object_foreach(opts, name, value) {
            if (!parse_option(&f, name, json_object_get_string(value), errp)) {
                error_prepend(errp, "Could not create '%s': option %s=%s: ", filename, name,
                              json_object_get_string(value));
                return -EINVAL;
            }
        }
    }
    if (!check_format(&f, errp)) {
        error_prepend(errp, "Could not create '%s': ", filename);
        return -EINVAL;
    }
    ret = bdrv_co_create_protocol(filename, 0, NULL, errp);
    if (ret == 0) {
        ret = format_held(&hold, &f, errp);
    }
    return ret;
}
