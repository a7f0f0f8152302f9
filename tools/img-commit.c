/*
 * ferry-img commit: what an image has goes into its backing file.
 *
 * Every layer is opened alone, without its backing file, so that it shows what is its own; the base
 * is opened with its chain, and written. The topmost layer that has a range decides. Committed data
 * is on stable storage before the image is emptied; interrupted before that, it can be done again.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/img-common.h"

#define CHUNK_BYTES (INT64_C(1) << 20)
#define SKIP_BYTES (INT64_C(1) << 30)
#define COROUTINES 8

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 'b', NULL, "BASE", "commit down to this image of the chain; implies -d" },
    { 'd', NULL, NULL, "do not empty the image afterwards" },
    { 'r', NULL, "RATE", "write at most so many bytes a second" },
    { 't', NULL, "CACHE", "cache mode (default: writeback)" },
    { 'p', NULL, NULL, "show the progress" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 0 },
};

typedef struct Layer {
    char *name;                 /* as img_open() takes it */
    char *format;
    bool image_opts;
    BlockBackend *blk;
    int64_t length;
} Layer;

typedef struct Commit {
    ImgOpen how;
    const char *filename, *base_name;
    bool keep, progress, quiet;
    ImgRate rate;

    GPtrArray *layers;          /* of Layer: the image first, the base last */
    Layer *base;
    int64_t length;
    CoMutex lock;               /* of pos */
    int64_t pos;
    size_t mem_align;
    int ret;                    /* all coroutines are of one thread */
    int64_t failed_at;
    const char *failed_what;
} Commit;

static void failed(Commit *c, int ret, int64_t offset, const char *what)
{
    if (c->ret >= 0) {
        c->ret = ret;
        c->failed_at = offset;
        c->failed_what = what;
    }
}

/* ---- copying ---- */

typedef struct Piece {
    Layer *layer;               /* NULL: the base has it */
    int64_t offset, bytes;
    bool zero;
} Piece;

/* Which layer has what lies at @p->offset; p->bytes is cut. */
static int coroutine_fn find_layer(Commit *c, Piece *p)
{
    for (guint i = 0; i + 1 < c->layers->len; i++) {
        Layer *layer = c->layers->pdata[i];
        int64_t n = 0;
        int ret;

        if (p->offset >= layer->length) {
            /* It is shorter than what is above it, which therefore shows zeroes. */
            p->layer = layer;
            p->zero = true;
            return 0;
        }
        ret = bdrv_co_block_status(blk_bs(layer->blk), p->offset,
                                   MIN(p->bytes, layer->length - p->offset), &n, NULL, NULL);
        if (ret < 0 || n <= 0) {
            return ret < 0 ? ret : -EIO;
        }
        p->bytes = MIN(p->bytes, n);
        if (ret & BDRV_BLOCK_ALLOCATED) {
            p->layer = layer;
            p->zero = ret & BDRV_BLOCK_ZERO;
            return 0;
        }
    }
    return 0;
}

static bool coroutine_fn take_piece(Commit *c, Piece *p)
{
    bool taken = false;

    co_mutex_lock(&c->lock);
    while (!taken && c->pos < c->length && c->ret >= 0 && !img_interrupted()) {
        int ret;

        *p = (Piece) { .offset = c->pos, .bytes = MIN(c->length - c->pos, SKIP_BYTES) };
        ret = find_layer(c, p);
        if (ret < 0) {
            failed(c, ret, c->pos, "reading metadata");
            break;
        }
        taken = p->layer != NULL;
        if (taken && !p->zero) {
            p->bytes = MIN(p->bytes, CHUNK_BYTES - p->offset % CHUNK_BYTES);
        }
        c->pos += p->bytes;
        if (!taken) {
            img_progress_add(p->bytes);
        }
    }
    co_mutex_unlock(&c->lock);
    return taken;
}

static void coroutine_fn do_piece(Commit *c, const Piece *p, void *buf)
{
    int ret = p->zero ? 0 : blk_co_pread(p->layer->blk, p->offset, p->bytes, buf, 0);

    if (ret < 0) {
        failed(c, ret, p->offset, "reading");
        return;
    }
    img_rate_wait(&c->rate, p->bytes);
    if (img_interrupted()) {
        return;
    }
    ret = p->zero ? blk_co_pwrite_zeroes(c->base->blk, p->offset, p->bytes, BDRV_REQ_MAY_UNMAP)
                  : blk_co_pwrite(c->base->blk, p->offset, p->bytes, buf, 0);
    if (ret < 0) {
        failed(c, ret, p->offset, "writing");
    }
    img_progress_add(p->bytes);
}

static void coroutine_fn worker(void *opaque)
{
    Commit *c = opaque;
    void *buf;
    Piece p;

    if (posix_memalign(&buf, c->mem_align, CHUNK_BYTES) != 0) {
        failed(c, -ENOMEM, 0, "taking memory for the copy");
        return;
    }
    while (take_piece(c, &p)) {
        do_piece(c, &p, buf);
    }
    free(buf);
}

static int copy(Commit *c, Error **errp)
{
    int ret;

    co_mutex_init(&c->lock);
    c->mem_align = MAX(bdrv_min_mem_align(blk_bs(c->base->blk)), 4096);
    img_progress_begin(c->progress && !c->quiet, c->length);
    img_run_workers(COROUTINES, worker, c, false);
    img_progress_end(c->ret >= 0 && !img_interrupted());
    if (c->ret < 0) {
        error_setg_errno(errp, -c->ret, "error while %s at byte %" PRId64, c->failed_what,
                         c->failed_at);
        return -1;
    }
    if (img_interrupted()) {
        error_setg(errp,
                   "interrupted; a part is in the backing file, and all of it still in the image");
        return -1;
    }
    ret = blk_flush(c->base->blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush '%s'", c->base->name);
    }
    return ret < 0 ? -1 : 0;
}

/* ---- the chain ---- */

static void layer_free(void *opaque)
{
    Layer *layer = opaque;

    blk_unref(layer->blk);
    g_free(layer->name);
    g_free(layer->format);
    g_free(layer);
}

static void add_layer(Commit *c, BlockDriverState *bs)
{
    Layer *layer = g_new0(Layer, 1);
    bool top = c->layers->len == 0;

    layer->name = g_strdup(top ? c->filename : bdrv_get_filename(bs));
    layer->image_opts = top && c->how.image_opts;
    layer->format = layer->image_opts ? NULL : g_strdup(bs->drv->format_name);
    g_ptr_array_add(c->layers, layer);
}

/* Whether the user means @bs, which @above has for a backing file. */
static bool is_base(const Commit *c, BlockDriverState *bs, const BlockDriverState *above)
{
    const char *name = bdrv_get_filename(bs);
    struct stat x, y;

    if (!c->base_name) {
        return true;
    }
    if (!strcmp(c->base_name, name) ||
        (above->backing_file && !strcmp(c->base_name, above->backing_file))) {
        return true;
    }
    return stat(c->base_name, &x) == 0 && stat(name, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

/* The names of the layers from the image down to the base. */
static int find_layers(Commit *c, Error **errp)
{
    ImgOpen how = c->how;
    g_autoptr(BlockBackend) blk = img_open(c->filename, &how, errp);
    BlockDriverState *bs = blk ? bdrv_skip_filters(blk_bs(blk)) : NULL, *above = bs;

    if (!bs) {
        return -1;
    }
    if (!bdrv_backing_chain_next(bs)) {
        error_setg(errp, "Image does not have a backing file");
        return -1;
    }
    add_layer(c, bs);
    while ((bs = bdrv_backing_chain_next(above))) {
        add_layer(c, bs);
        if (is_base(c, bs, above)) {
            return 0;
        }
        above = bs;
    }
    error_setg(errp, "Did not find '%s' in the backing chain of '%s'", c->base_name, c->filename);
    return -1;
}

static int open_layer(Commit *c, Layer *layer, ImgOpen how, Error **errp)
{
    how.format = layer->format;
    how.image_opts = layer->image_opts;
    how.quiet = true;
    layer->blk = img_open(layer->name, &how, errp);
    if (!layer->blk) {
        return -1;
    }
    layer->length = blk_getlength(layer->blk);
    if (layer->length < 0) {
        error_setg_errno(errp, -layer->length, "Could not get size of '%s'", layer->name);
        return -1;
    }
    return 0;
}

static int open_layers(Commit *c, Error **errp)
{
    ImgOpen how = c->how;

    c->base = c->layers->pdata[c->layers->len - 1];
    for (guint i = 0; i < c->layers->len; i++) {
        Layer *layer = c->layers->pdata[i];

        how.no_backing = layer != c->base;
        how.writable = layer == c->base || (i == 0 && !c->keep);
        if (open_layer(c, layer, how, errp) < 0) {
            return -1;
        }
    }
    c->length = ((Layer *)c->layers->pdata[0])->length;
    return 0;
}

static int grow_base(Commit *c, Error **errp)
{
    if (c->base->length >= c->length) {
        return 0;
    }
    if (blk_truncate(c->base->blk, c->length, false, PREALLOC_MODE_OFF, BDRV_REQ_ZERO_WRITE, errp) <
        0) {
        error_prepend(errp, "Could not grow '%s': ", c->base->name);
        return -1;
    }
    return 0;
}

/* ---- the subcommand ---- */

typedef struct EmptyCall {
    BlockDriverState *bs;
    int ret;
} EmptyCall;

static void coroutine_fn empty_entry(void *opaque)
{
    EmptyCall *c = opaque;

    c->ret = c->bs->drv->co_make_empty(c->bs);
    if (c->ret >= 0) {
        c->ret = bdrv_co_flush(c->bs);
    }
}

static int make_empty(Commit *c, Error **errp)
{
    Layer *top = c->layers->pdata[0];
    EmptyCall call = { .bs = blk_bs(top->blk) };

    if (c->keep) {
        return 0;
    }
    if (!call.bs->drv->co_make_empty) {
        error_setg(errp, "Could not empty '%s': its format cannot", top->name);
        return -1;
    }
    img_run(empty_entry, &call);
    if (call.ret < 0) {
        error_setg_errno(errp, -call.ret, "Could not empty '%s'", top->name);
    }
    return call.ret < 0 ? -1 : 0;
}

static int commit(Commit *c, Error **errp)
{
    if (find_layers(c, errp) < 0 || open_layers(c, errp) < 0 || grow_base(c, errp) < 0 ||
        copy(c, errp) < 0) {
        return -1;
    }
    return make_empty(c, errp);
}

static int run(ImgArgs *args)
{
    Commit c = { .layers = g_ptr_array_new_with_free_func(layer_free) };
    Error *err = NULL;
    int64_t rate = 0;
    int opt, ret;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'f': c.how.format = args->arg; break;
        case IMG_OPT_IMAGE_OPTS: c.how.image_opts = true; break;
        case 'b': c.base_name = args->arg; c.keep = true; break;
        case 'd': c.keep = true; break;
        case 'r': img_arg_size(args, "rate limit", 1, INT64_MAX, &rate); break;
        case 'p': c.progress = true; break;
        case 'q': c.quiet = true; break;
        case 't':
            c.how.cache = args->arg;
            if (!img_cache_mode_ok(args->arg)) {
                img_usage_error(args, "Invalid cache option: %s", args->arg);
            }
            break;
        }
    }
    if (!args->stop && args->n_operands != 1) {
        img_usage_error(args, "Expecting one image file name");
    }
    if (args->stop) {
        g_ptr_array_unref(c.layers);
        return args->status;
    }
    c.filename = args->operands[0];
    img_rate_init(&c.rate, rate);
    img_catch_signals();
    ret = commit(&c, &err);
    g_ptr_array_unref(c.layers);
    if (ret < 0) {
        error_report_err(err);
        return 1;
    }
    if (!c.quiet) {
        puts("Image committed.");
    }
    return 0;
}

const ImgCommand img_cmd_commit = {
    "commit", "Move what an image has into its backing file", "FILENAME", options, 1, run,
};
