/*
 * ferry-img rebase: another backing file for an image.
 *
 * The content of the disk stays as it is: where the old and the new backing file differ and the
 * image has nothing of its own, it gets what the old one has, before its header names the new one.
 * So it is whole at every moment. With -u only the header changes.
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
#include "util/zero.h"

#define CHUNK_BYTES (INT64_C(1) << 20)
#define SKIP_BYTES (INT64_C(1) << 30)
#define COROUTINES 8

static const ImgOption options[] = {
    { 'b', NULL, "BACKING", "the new backing file; '': none" },
    { 'F', NULL, "FORMAT", "its format" },
    { 'u', NULL, NULL, "unsafe: change the name in the image and nothing else" },
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 't', NULL, "CACHE", "cache mode of the image (default: writeback)" },
    { 'T', NULL, "CACHE", "cache mode of the backing files (default: writeback)" },
    { 'p', NULL, NULL, "show the progress" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 'U', "force-share", NULL, "open the backing files although others write to them" },
    { 0 },
};

typedef struct Side {
    BlockBackend *blk;          /* NULL: reads as zeroes */
    int64_t length;
} Side;

typedef struct Rebase {
    ImgOpen how, backing_how;
    const char *filename, *new_name, *new_format;
    bool unsafe, progress;

    BlockBackend *blk;
    Side old, new;
    BlockDriverState
        *shared; /* the layer of the old chain that is the new backing file; NULL: none */
    int64_t length, unit, chunk;
    size_t mem_align;
    CoMutex lock;               /* of pos */
    int64_t pos;
    int ret;                    /* all coroutines are of one thread */
    int64_t failed_at;
    const char *failed_what;
} Rebase;

static void failed(Rebase *r, int ret, int64_t offset, const char *what)
{
    if (r->ret >= 0) {
        r->ret = ret;
        r->failed_at = offset;
        r->failed_what = what;
    }
}

/* ---- which ranges ---- */

/*
 * Whether the image shows the old backing file at r->pos, of which the new one may differ; *n: for
 * how long.
 */
static int coroutine_fn needs_look(Rebase *r, int64_t *n)
{
    BlockDriverState *bs = bdrv_skip_filters(blk_bs(r->blk));
    int64_t pnum = 0;
    int ret = bdrv_co_is_allocated(bs, r->pos, MIN(r->length - r->pos, SKIP_BYTES), &pnum), depth;

    *n = pnum;
    if (ret != 0 || pnum <= 0) {
        return ret > 0 ? 0 : ret < 0 ? ret : -EIO;
    }
    if (r->shared && r->old.blk && blk_bs(r->old.blk) != r->shared && r->pos < r->old.length) {
        /* What no layer above the shared one has is the same before and after. */
        ret =
            bdrv_co_block_status_above(blk_bs(r->old.blk), r->shared, r->pos,
                                       MIN(*n, r->old.length - r->pos), &pnum, NULL, NULL, &depth);
        if (ret < 0 || pnum <= 0) {
            return ret < 0 ? ret : -EIO;
        }
        *n = pnum;
        return ret & (BDRV_BLOCK_ALLOCATED | BDRV_BLOCK_ZERO) ? 1 : 0;
    }
    return r->shared && r->old.blk && blk_bs(r->old.blk) == r->shared ? 0 : 1;
}

typedef struct Piece {
    int64_t offset, bytes;
} Piece;

static bool coroutine_fn take_piece(Rebase *r, Piece *p)
{
    bool taken = false;

    co_mutex_lock(&r->lock);
    while (!taken && r->pos < r->length && r->ret >= 0 && !img_interrupted()) {
        int64_t n = 0;
        int ret = needs_look(r, &n);

        if (ret < 0) {
            failed(r, ret, r->pos, "reading the metadata of the image");
            break;
        }
        /* Pieces are whole clusters of the image; r->pos is always at the start of one. */
        n = ret ? MIN(n, r->chunk) : n / r->unit * r->unit;
        taken = ret || n == 0;
        n = taken ? (n + r->unit - 1) / r->unit * r->unit : n;
        p->offset = r->pos;
        p->bytes = MIN(MAX(n, r->unit), r->length - r->pos);
        r->pos += p->bytes;
        if (!taken) {
            img_progress_add(p->bytes);
        }
    }
    co_mutex_unlock(&r->lock);
    return taken;
}

/* ---- copying ---- */

static int coroutine_fn read_side(const Side *side, int64_t offset, int64_t bytes, uint8_t *buf)
{
    int64_t there = CLAMP(side->length - offset, 0, bytes);
    int ret = side->blk && there > 0 ? blk_co_pread(side->blk, offset, there, buf, 0) : 0;

    if (!side->blk) {
        there = 0;
    }
    if (ret >= 0) {
        memset(buf + there, 0, bytes - there);
    }
    return ret;
}

/*
 * Clusters that are the image's own already were written since it was asked, or are mixed with
 * others.
 */
static int coroutine_fn write_unit(Rebase *r, int64_t offset, int64_t bytes, const uint8_t *buf)
{
    int64_t pnum = 0;
    int ret = bdrv_co_is_allocated(bdrv_skip_filters(blk_bs(r->blk)), offset, bytes, &pnum);

    if (ret != 0) {
        return MIN(ret, 0);
    }
    return buffer_is_zero(buf, bytes) ? blk_co_pwrite_zeroes(r->blk, offset, bytes, 0)
                                      : blk_co_pwrite(r->blk, offset, bytes, buf, 0);
}

static void coroutine_fn do_piece(Rebase *r, const Piece *p, uint8_t *old, uint8_t *new)
{
    int ret = read_side(&r->old, p->offset, p->bytes, old);

    if (ret < 0) {
        failed(r, ret, p->offset, "reading from the old backing file");
        return;
    }
    ret = read_side(&r->new, p->offset, p->bytes, new);
    if (ret < 0) {
        failed(r, ret, p->offset, "reading from the new backing file");
        return;
    }
    for (int64_t at = 0; at < p->bytes && r->ret >= 0; at += r->unit) {
        int64_t n = MIN(r->unit, p->bytes - at);

        ret = memcmp(old + at, new + at, n) ? write_unit(r, p->offset + at, n, old + at) : 0;
        if (ret < 0) {
            failed(r, ret, p->offset + at, "writing to the image");
        }
    }
    img_progress_add(p->bytes);
}

static void coroutine_fn worker(void *opaque)
{
    Rebase *r = opaque;
    void *memory;
    Piece p;

    if (posix_memalign(&memory, r->mem_align, 2 * r->chunk) != 0) {
        failed(r, -ENOMEM, 0, "taking memory for the copy");
        return;
    }
    while (take_piece(r, &p)) {
        do_piece(r, &p, memory, (uint8_t *)memory + r->chunk);
    }
    free(memory);
}

typedef struct InfoCall {
    BlockDriverState *bs;
    BlockDriverInfo info;
} InfoCall;

static void coroutine_fn info_entry(void *opaque)
{
    InfoCall *c = opaque;

    if (!c->bs->drv->co_get_info || c->bs->drv->co_get_info(c->bs, &c->info) < 0) {
        c->info.cluster_size = 0;
    }
}

static int copy_differences(Rebase *r, Error **errp)
{
    InfoCall c = { .bs = bdrv_skip_filters(blk_bs(r->blk)) };

    img_run(info_entry, &c);
    r->unit = MAX(c.info.cluster_size, MAX(c.bs->bl.request_alignment, BDRV_SECTOR_BYTES));
    r->chunk = MAX(CHUNK_BYTES / r->unit, 1) * r->unit;
    r->mem_align = MAX(bdrv_min_mem_align(c.bs), 4096);
    co_mutex_init(&r->lock);
    img_progress_begin(r->progress, r->length);
    img_run_workers(COROUTINES, worker, r, false);
    img_progress_end(r->ret >= 0 && !img_interrupted());
    if (r->ret < 0) {
        error_setg_errno(errp, -r->ret, "error while %s at byte %" PRId64, r->failed_what,
                         r->failed_at);
        return -1;
    }
    if (img_interrupted()) {
        error_setg(errp, "interrupted; the image is as it was, and has its old backing file");
        return -1;
    }
    return 0;
}

/* ---- the backing files ---- */

static int hold(Side *side, BlockDriverState *bs, Error **errp)
{
    side->blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, errp);
    if (!side->blk) {
        return -1;
    }
    side->length = blk_getlength(side->blk);
    if (side->length < 0) {
        error_setg_errno(errp, -side->length, "Could not get size of '%s'", bdrv_get_filename(bs));
        return -1;
    }
    return 0;
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static BlockDriverState *find_in_chain(BlockDriverState *bs, BlockDriverState *other)
{
    for (; bs; bs = bdrv_backing_chain_next(bs)) {
        if (bs->drv == other->drv && same_file(bdrv_get_filename(bs), bdrv_get_filename(other))) {
            return bs;
        }
    }
    return NULL;
}

/* As the image will name it: from where the image is. */
static char *new_path(const Rebase *r)
{
    const char *colon = strchr(r->new_name, ':'), *slash = strchr(r->new_name, '/');
    g_autofree char *own = img_path_of(bdrv_get_filename(blk_bs(r->blk))), *dir = NULL;

    if (r->new_name[0] == '/' || (colon && (!slash || colon < slash)) || !own ||
        !strchr(own, '/')) {
        return g_strdup(r->new_name);
    }
    dir = g_path_get_dirname(own);
    return g_build_filename(dir, r->new_name, NULL);
}

static int open_new(Rebase *r, Error **errp)
{
    g_autofree char *path = NULL;

    if (!*r->new_name) {
        return 0;
    }
    path = new_path(r);
    r->backing_how.format = r->new_format;
    r->new.blk = img_open(path, &r->backing_how, errp);
    if (!r->new.blk) {
        error_prepend(errp, "Could not open new backing file '%s': ", r->new_name);
        return -1;
    }
    r->new.length = blk_getlength(r->new.blk);
    if (r->new.length < 0) {
        error_setg_errno(errp, -r->new.length, "Could not get size of '%s'", path);
        return -1;
    }
    return 0;
}

static int open_sides(Rebase *r, Error **errp)
{
    BlockDriverState *old = bdrv_backing_chain_next(blk_bs(r->blk));

    r->length = blk_getlength(r->blk);
    if (r->length < 0) {
        error_setg_errno(errp, -r->length, "Could not get size of '%s'", r->filename);
        return -1;
    }
    if ((old && hold(&r->old, old, errp) < 0) || open_new(r, errp) < 0) {
        return -1;
    }
    if (old && r->new.blk) {
        r->shared = find_in_chain(old, blk_bs(r->new.blk));
    }
    return 0;
}

/* ---- the header ---- */

typedef struct ChangeCall {
    BlockDriverState *bs;
    const char *name, *format;
    int ret;
} ChangeCall;

static void coroutine_fn change_entry(void *opaque)
{
    ChangeCall *c = opaque;

    /* What was copied is on disk before the image stops showing where it came from. */
    c->ret = bdrv_co_flush(c->bs);
    if (c->ret >= 0) {
        c->ret = c->bs->drv->co_change_backing_file(c->bs, c->name, c->format);
    }
    if (c->ret >= 0) {
        c->ret = bdrv_co_flush(c->bs);
    }
}

static int change_header(Rebase *r, Error **errp)
{
    ChangeCall c = { .bs = blk_bs(r->blk) };

    if (*r->new_name) {
        c.name = r->new_name;
        c.format = r->new_format;
    }
    img_run(change_entry, &c);
    if (c.ret == -ENOSPC) {
        error_setg(errp,
                   "Could not change the backing file to '%s': No space left in the file header",
                   r->new_name);
    } else if (c.ret < 0) {
        error_setg_errno(errp, -c.ret, "Could not change the backing file to '%s'", r->new_name);
    }
    return c.ret < 0 ? -1 : 0;
}

/* ---- the subcommand ---- */

static int rebase(Rebase *r, Error **errp)
{
    int ret = -1;

    r->how.writable = true;
    r->how.no_backing = r->unsafe;
    r->blk = img_open(r->filename, &r->how, errp);
    if (!r->blk) {
        return -1;
    }
    if (!blk_bs(r->blk)->drv->co_change_backing_file) {
        error_setg(errp, "Format driver '%s' does not support backing files",
                   blk_bs(r->blk)->drv->format_name);
    } else if (r->unsafe) {
        ret = change_header(r, errp);
    } else if (open_sides(r, errp) == 0 && copy_differences(r, errp) == 0) {
        ret = change_header(r, errp);
    }
    blk_unref(r->new.blk);
    blk_unref(r->old.blk);
    blk_unref(r->blk);
    return ret;
}

static int check_options(ImgArgs *args, const Rebase *r)
{
    if (args->n_operands != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!r->new_name) {
        return img_usage_error(args,
                               "Must specify backing file (-b) or use simple rebase mode (-u)");
    }
    if (*r->new_name && !r->new_format) {
        return img_usage_error(args, "backing format must be specified: give it with -F");
    }
    if (r->new_format && !bdrv_find_driver(r->new_format, NULL)) {
        return img_usage_error(args, "Invalid format name: '%s'", r->new_format);
    }
    return 0;
}

static const char *take_cache(ImgArgs *args, const char *what)
{
    if (!img_cache_mode_ok(args->arg)) {
        img_usage_error(args, "Invalid %s option: %s", what, args->arg);
    }
    return args->arg;
}

static int run(ImgArgs *args)
{
    Rebase r = { 0 };
    Error *err = NULL;
    int opt;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'b': r.new_name = args->arg; break;
        case 'F': r.new_format = args->arg; break;
        case 'u': r.unsafe = true; break;
        case 'f': r.how.format = args->arg; break;
        case IMG_OPT_IMAGE_OPTS: r.how.image_opts = true; break;
        case 't': r.how.cache = take_cache(args, "cache"); break;
        case 'T': r.backing_how.cache = take_cache(args, "source cache"); break;
        case 'p': r.progress = true; break;
        case 'q': r.how.quiet = true; break;
        case 'U': r.backing_how.force_share = true; break;
        }
    }
    if (r.unsafe && !r.new_name) {
        r.new_name = "";
    }
    if (args->stop || check_options(args, &r)) {
        return args->status;
    }
    r.filename = args->operands[0];
    img_catch_signals();
    if (rebase(&r, &err) < 0) {
        error_report_err(err);
        return 1;
    }
    return 0;
}

const ImgCommand img_cmd_rebase = {
    "rebase", "Give an image another backing file", "FILENAME", options, 1, run,
};
