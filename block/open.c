/*
 * Opening and closing nodes.
 *
 * A description says what a node is; what it does not say a child takes from the node above it:
 * read-only, caches, force-share. The backing file is opened last, when the format has said what it
 * is.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "block/block-backend.h"
#include "block/drivers.h"
#include "block/graph-internal.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-block-core.h"

static bool open_inactive, open_for_check;

void bdrv_set_open_inactive(bool inactive)
{
    open_inactive = inactive;
}

void bdrv_set_open_for_check(bool for_check)
{
    open_for_check = for_check;
}

/* ---- options ---- */

void bdrv_inherit_options(BlockdevOptions *opts, const BdrvInherited *from, BdrvChildRole role)
{
    bool backing = role & BDRV_CHILD_COW;

    if (!opts->has_read_only) {
        opts->has_read_only = true;
        opts->read_only = backing || from->read_only;
    }
    /* A protocol node may be opened for writing only when somebody writes. */
    if (!opts->has_auto_read_only && !backing) {
        opts->has_auto_read_only = true;
        opts->auto_read_only = true;
    }
    if (!opts->has_force_share) {
        opts->has_force_share = true;
        opts->force_share = from->force_share;
    }
    if (!opts->cache) {
        opts->cache = g_new0(BlockdevCacheOptions, 1);
    }
    if (!opts->cache->has_direct) {
        opts->cache->has_direct = true;
        opts->cache->direct = from->cache_direct;
    }
    if (!opts->cache->has_no_flush) {
        opts->cache->has_no_flush = true;
        opts->cache->no_flush = from->cache_no_flush;
    }
    /* What a format frees is for it to decide; what a filter lets through is for its parent. */
    if (!opts->has_discard && !backing) {
        opts->has_discard = true;
        opts->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
}

BdrvInherited bdrv_inherited_from(const BlockDriverState *parent)
{
    return (BdrvInherited){
        .read_only = parent->read_only, .force_share = parent->force_share,
        .cache_direct = parent->cache_direct, .cache_no_flush = parent->cache_no_flush,
    };
}

void bdrv_apply_options(BlockDriverState *bs, const BlockdevOptions *opts)
{
    bs->read_only = opts->has_read_only && opts->read_only;
    bs->auto_read_only = opts->has_auto_read_only && opts->auto_read_only;
    bs->force_share = opts->has_force_share && opts->force_share;
    bs->cache_direct = opts->cache && opts->cache->has_direct && opts->cache->direct;
    bs->cache_no_flush = opts->cache && opts->cache->has_no_flush && opts->cache->no_flush;
    bs->discard_unmap = opts->has_discard && opts->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    bs->detect_zeroes = opts->has_detect_zeroes ? opts->detect_zeroes
                                                : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
}

bool bdrv_check_options(const BlockdevOptions *opts, Error **errp)
{
    bool read_only = opts->has_read_only && opts->read_only;
    bool unmap = opts->has_discard && opts->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP;

    if (opts->has_force_share && opts->force_share && !read_only) {
        error_setg(errp, "force-share=on can only be used with read-only=on");
        return false;
    }
    if (opts->has_detect_zeroes && opts->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP &&
        !unmap) {
        error_setg(
            errp, "setting detect-zeroes to unmap is not allowed without setting discard operation "
                  "to unmap");
        return false;
    }
    return true;
}

/* ---- backing files ---- */

static bool is_protocol_name(const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');

    return colon && (!slash || colon < slash);
}

char *bdrv_full_backing_filename(const BlockDriverState *bs, Error **errp)
{
    const BlockDriverState *file = bs->file ? bs->file->bs : NULL;
    g_autofree char *dir = NULL;

    if (is_protocol_name(bs->backing_file) || bs->backing_file[0] == '/') {
        return g_strdup(bs->backing_file);
    }
    if (!file || (file->drv->driver != BLOCKDEV_DRIVER_FILE &&
                  file->drv->driver != BLOCKDEV_DRIVER_HOST_DEVICE) ||
        g_str_has_prefix(file->filename, "/dev/fdset/")) {
        error_setg(
            errp,
            "The backing file '%s' of '%s' has a relative name, and the image is not at a path "
            "that it could be relative to",
            bs->backing_file, bdrv_get_filename(bs));
        return NULL;
    }
    dir = g_path_get_dirname(file->filename);
    return strcmp(dir, ".") || strchr(file->filename, '/')
           ? g_build_filename(dir, bs->backing_file, NULL) : g_strdup(bs->backing_file);
}

/* Images whose backing files are being opened, each inside the one before it. Main thread. */
typedef struct Opening Opening;
struct Opening {
    const BlockDriverState *bs;
    const Opening *above;
    unsigned depth;
};

static const Opening *opening;

#define BACKING_DEPTH_MAX 500

/* Whether two images are one file of the host. Windows into files (raw's offset) cannot tell. */
static bool is_same_file(const BlockDriverState *a, const BlockDriverState *b)
{
    const BlockDriverState *fa = a->file ? a->file->bs : NULL, *fb = b->file ? b->file->bs : NULL;
    struct stat sa, sb;

    return fa && fb && fa->drv == &bdrv_file && fb->drv == &bdrv_file &&
           stat(bdrv_get_filename(fa), &sa) == 0 && stat(bdrv_get_filename(fb), &sb) == 0 &&
           sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* A chain that comes back to an image in it, or has no end in sight, has none. */
static int check_no_loop(const BlockDriverState *bs, Error **errp)
{
    for (const Opening *o = opening; o; o = o->above) {
        if (is_same_file(o->bs, bs)) {
            error_setg(errp, "'%s' is in its own chain of backing files", bdrv_get_filename(bs));
            return -1;
        }
    }
    if (opening && opening->depth >= BACKING_DEPTH_MAX) {
        error_setg(errp, "the chain of backing files is longer than %d", BACKING_DEPTH_MAX);
        return -1;
    }
    return 0;
}

static BlockDriverState *open_default_backing(BlockDriverState *bs, Error **errp)
{
    Opening here = { bs, opening, opening ? opening->depth + 1 : 1 };
    g_autofree char *path = bdrv_full_backing_filename(bs, errp);
    g_autoptr(BlockdevOptions) opts = NULL;
    BlockDriverState *backing;

    if (!path || check_no_loop(bs, errp) < 0) {
        return NULL;
    }
    if (!bs->backing_format && !g_str_has_prefix(path, "json:")) {
        error_setg(
            errp,
            "'%s' does not say of which format its backing file '%s' is, and Ferry does not guess; "
            "write it into the image with 'ferry-img rebase -u -b %s -F FORMAT', or give "
            "\"backing\" "
            "with the node's options",
            bdrv_get_filename(bs), bs->backing_file, bs->backing_file);
        return NULL;
    }
    opts = bdrv_options_for_file(path, bs->backing_format, errp);
    if (!opts) {
        return NULL;
    }
    opening = &here;
    backing = bdrv_open_inherit(opts, bs, BDRV_CHILD_COW, errp);
    opening = here.above;
    if (!backing) {
        error_prepend(errp, "Could not open backing file '%s': ", bs->backing_file);
        return NULL;
    }
    bs->backing_is_default = true;
    return backing;
}

/* The backing node that the options ask for. NULL without an error: none. */
static BlockDriverState *open_backing(BlockDriverState *bs, const BlockdevOptions *opts,
                                      Error **errp)
{
    BlockdevRefOrNull *ref = bs->drv->backing_option ? bs->drv->backing_option(opts) : NULL;
    BlockDriverState *backing;

    if (!ref) {
        return bs->backing_file ? open_default_backing(bs, errp) : NULL;
    }
    if (ref->type == QTYPE_QNULL || (ref->type == QTYPE_QSTRING && !*ref->u.reference)) {
        return NULL;
    }
    if (ref->type == QTYPE_QDICT) {
        return bdrv_open_inherit(&ref->u.definition, bs, BDRV_CHILD_COW, errp);
    }
    backing = bdrv_lookup(ref->u.reference, errp);
    if (backing) {
        bdrv_ref(backing);
    }
    return backing;
}

static int attach_backing(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    Error *err = NULL;
    BlockDriverState *backing = open_backing(bs, opts, &err);

    if (!backing) {
        error_propagate(errp, err);
        return err ? -1 : 0;
    }
    bs->backing = bdrv_attach_child(bs, backing, "backing", BDRV_CHILD_COW, errp);
    bdrv_unref(backing);
    return bs->backing ? 0 : -1;
}

/* ---- nodes ---- */

static void detach_children(BlockDriverState *bs)
{
    BdrvChild *c;

    while (bs->children.head) {
        c = bs->children.head->data;
        if (c->bs->inherits_from == bs) {
            c->bs->inherits_from = NULL;
        }
        bdrv_detach_child(c);
    }
}

static void set_filename(BlockDriverState *bs)
{
    BlockDriverState *primary = bdrv_primary_bs(bs);

    if (!bs->filename && primary && primary->filename) {
        bs->filename = g_strdup(primary->filename);
    }
}

static int open_driver(BlockDriverState *bs, Error **errp)
{
    Error *err = NULL;
    int ret;

    if (bs->drv->open(bs, bs->options, &err) < 0) {
        error_propagate(errp, err);
        return -1;
    }
    bs->opened = true;
    if (bs->quiesce_counter && bs->drv->drain_begin) {
        bs->drv->drain_begin(bs);
    }
    set_filename(bs);
    if (bs->drv->supports_backing && attach_backing(bs, bs->options, errp) < 0) {
        return -1;
    }
    bdrv_refresh_thread_safe(bs);
    bdrv_refresh_limits(bs);
    ret = bdrv_refresh_length(bs);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the length of '%s'", bdrv_get_filename(bs));
        return -1;
    }
    return bdrv_update_perms(bs, errp);
}

BlockDriverState *bdrv_open_inherit(const BlockdevOptions *opts, BlockDriverState *parent,
                                    BdrvChildRole role, Error **errp)
{
    const BlockDriver *drv = bdrv_driver_of(opts->driver);
    BlockDriverState *bs;

    g_assert(!in_coroutine());
    if (!drv) {
        error_setg(errp, "Driver '%s' is not built in", BlockdevDriver_str(opts->driver));
        return NULL;
    }
    bs = bdrv_new(drv, opts->node_name, errp);
    if (!bs) {
        return NULL;
    }
    bs->options = QAPI_CLONE(BlockdevOptions, opts);
    bs->explicit_options = QAPI_CLONE(BlockdevOptions, opts);
    bs->inactive = open_inactive;
    bs->for_check = open_for_check;
    if (parent) {
        BdrvInherited from = bdrv_inherited_from(parent);

        bdrv_inherit_options(bs->options, &from, role);
        bs->inherits_from = parent;
        bs->aio_context = parent->aio_context;
    }
    bdrv_apply_options(bs, bs->options);
    if (bdrv_check_options(bs->options, errp) && open_driver(bs, errp) == 0) {
        return bs;
    }
    if (bs->opened && drv->close) {
        bs->opened = false;
        drv->close(bs);
    }
    detach_children(bs);
    bdrv_delete_node(bs);
    return NULL;
}

BlockDriverState *bdrv_open(const BlockdevOptions *opts, Error **errp)
{
    return bdrv_open_inherit(opts, NULL, 0, errp);
}

typedef struct FlushCall {
    BlockDriverState *bs;
    int ret;
} FlushCall;

static void coroutine_fn flush_entry(void *opaque)
{
    FlushCall *call = opaque;

    call->ret = bdrv_co_flush(call->bs);
}

int bdrv_flush(BlockDriverState *bs)
{
    FlushCall call = { .bs = bs };

    aio_co_run(bs->aio_context, flush_entry, &call);
    return call.ret;
}

int bdrv_flush_all(void)
{
    int result = 0;

    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        int ret = bdrv_flush(bs);

        if (ret < 0 && result == 0) {
            result = ret;
        }
    }
    return result;
}

void bdrv_close(BlockDriverState *bs)
{
    int ret;

    g_assert(!bs->parents.length && bs->refcnt == 1);
    bdrv_drained_begin(bs);
    ret = bdrv_flush(bs);
    if (ret < 0) {
        error_report("flushing node '%s' (file '%s') before closing it failed: %s", bs->node_name,
                     bdrv_get_filename(bs), g_strerror(-ret));
    }
    bs->opened = false;
    if (bs->drv->close) {
        bs->drv->close(bs);
    }
    detach_children(bs);
    bdrv_drained_end(bs);
    bdrv_delete_node(bs);
}

/* ---- children, for drivers ---- */

BdrvChild *bdrv_open_child(BlockDriverState *parent, const char *name, BlockdevRef *ref,
                           BdrvChildRole role, Error **errp)
{
    BlockDriverState *bs;
    BdrvChild *child;

    if (ref->type == QTYPE_QSTRING) {
        bs = bdrv_lookup(ref->u.reference, errp);
        if (bs) {
            bdrv_ref(bs);
        }
    } else {
        bs = bdrv_open_inherit(&ref->u.definition, parent, role, errp);
    }
    if (!bs) {
        return NULL;
    }
    child = bdrv_attach_child(parent, bs, name, role, errp);
    bdrv_unref(bs);
    return child;
}

int bdrv_open_file_child(BlockDriverState *parent, BlockdevRef *ref, BdrvChildRole role,
                         Error **errp)
{
    parent->file = bdrv_open_child(parent, "file", ref, role, errp);
    return parent->file ? 0 : -1;
}

/* ---- limits ---- */

static uint64_t min_limit(uint64_t a, uint64_t b)
{
    return !a ? b : !b ? a : MIN(a, b);
}

static void merge_limits(BlockLimits *bl, const BlockLimits *child)
{
    bl->max_transfer = min_limit(bl->max_transfer, child->max_transfer);
    bl->opt_transfer = MAX(bl->opt_transfer, child->opt_transfer);
    bl->max_iov = min_limit(bl->max_iov, child->max_iov);
    bl->min_mem_alignment = MAX(bl->min_mem_alignment, child->min_mem_alignment);
    bl->opt_mem_alignment = MAX(bl->opt_mem_alignment, child->opt_mem_alignment);
}

/* What a filter may be asked is what the node below may be asked. */
static void filter_limits(BlockLimits *bl, const BlockLimits *child)
{
    bl->request_alignment = child->request_alignment;
    bl->pwrite_zeroes_alignment = child->pwrite_zeroes_alignment;
    bl->max_pwrite_zeroes = child->max_pwrite_zeroes;
    bl->pdiscard_alignment = child->pdiscard_alignment;
    bl->max_pdiscard = child->max_pdiscard;
}

void bdrv_refresh_limits(BlockDriverState *bs)
{
    BlockLimits bl = { .request_alignment = 1, .min_mem_alignment = 1, .opt_mem_alignment = 4096 };
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        if (c->role & (BDRV_CHILD_DATA | BDRV_CHILD_FILTERED | BDRV_CHILD_COW)) {
            merge_limits(&bl, &c->bs->bl);
        }
        if (bs->drv->is_filter && (c->role & BDRV_CHILD_FILTERED)) {
            filter_limits(&bl, &c->bs->bl);
        }
    }
    bs->bl = bl;
    if (bs->drv->refresh_limits) {
        bs->drv->refresh_limits(bs);
    }
    g_assert(bs->bl.request_alignment && bs->bl.request_alignment <= BDRV_MAX_ALIGNMENT);
    BDRV_FOREACH_PARENT(bs, c) {
        if (c->parent) {
            bdrv_refresh_limits(c->parent);
        }
    }
}
