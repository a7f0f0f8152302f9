/*
 * ferry-img convert: images into an image of another format, or the same.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/img-convert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-bitmaps.h"
#include "util/cutils.h"

#define DEFAULT_COROUTINES 8
#define DEFAULT_SPARSE_BYTES 4096

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the sources (default: look into them)" },
    { 'O', NULL, "FORMAT", "format of the target (default: raw)" },
    { 'o', NULL, "OPTIONS", "options of the target's format, NAME=VALUE,...; 'help' lists them" },
    { 'B', NULL, "BACKING", "backing file of the target, with the content of the source's" },
    { 'F', NULL, "FORMAT", "format of the backing file" },
    { 'c', NULL, NULL, "compress the target" },
    { 'l', NULL, "SNAPSHOT", "from an internal snapshot: ID, NAME or snapshot.id=ID,snapshot.name=NAME" },
    { 'n', NULL, NULL, "the target exists: do not make it" },
    { 'm', NULL, "NUMBER", "how many coroutines copy, 1 to 16 (default: 8)" },
    { 'W', NULL, NULL, "write out of order" },
    { 'S', NULL, "SIZE", "so many zero bytes in a row become a hole (default: 4k; 0: none)" },
    { 'r', NULL, "RATE", "write at most so many bytes a second" },
    { 't', NULL, "CACHE", "cache mode of the target (default: unsafe)" },
    { 'T', NULL, "CACHE", "cache mode of the sources (default: writeback)" },
    { 'C', NULL, NULL, "let the host copy where it can" },
    { 'U', "force-share", NULL, "open the sources although others write to them" },
    { 'p', NULL, NULL, "show the progress" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "the sources are descriptions, KEY=VALUE,..." },
    { IMG_OPT_TARGET_IMAGE_OPTS, "target-image-opts", NULL, "the target is one; needs -n" },
    { IMG_OPT_TARGET_IS_ZERO, "target-is-zero", NULL, "the target reads as zeroes; needs -n" },
    { IMG_OPT_SALVAGE, "salvage", NULL, "take what cannot be read for zeroes" },
    { IMG_OPT_BITMAPS, "bitmaps", NULL, "copy the persistent bitmaps of the source" },
    { IMG_OPT_SKIP_BROKEN, "skip-broken-bitmaps", NULL, "but not those that are inconsistent" },
    { 0 },
};

typedef struct Convert {
    ImgOpen source, target;
    ImgCreate create;
    ImgCopy copy;
    ImgStaging staging;
    const char *target_name;
    bool exists, target_is_zero, progress, offload, bitmaps, skip_broken, has_sparse;
    int64_t rate;
} Convert;

static bool take_cache(ImgArgs *args, const char *what, const char **mode)
{
    *mode = args->arg;
    if (!img_cache_mode_ok(args->arg)) {
        img_usage_error(args, "Invalid %s option: %s", what, args->arg);
        return false;
    }
    return true;
}

static void take_option(ImgArgs *args, Convert *c, int opt)
{
    uint64_t n;

    switch (opt) {
    case 'f': c->source.format = args->arg; break;
    case 'O': c->create.format = args->arg; break;
    case 'o': g_ptr_array_add(c->create.options, (char *)args->arg); break;
    case 'B': c->create.backing = args->arg; break;
    case 'F': c->create.backing_format = args->arg; break;
    case 'c': c->copy.compress = true; break;
    case 'l': c->source.snapshot = args->arg; break;
    case 'n': c->exists = true; break;
    case 'm':
        if (img_arg_number(args, "number of coroutines", 1, IMG_COPY_MAX_COROUTINES, &n)) {
            c->copy.coroutines = n;
        }
        break;
    case 'W': c->copy.out_of_order = true; break;
    case 'S':
        if (img_arg_size(args, "sparse size", 0, INT64_C(1) << 30, &c->copy.min_sparse) &&
            c->copy.min_sparse % BDRV_SECTOR_BYTES) {
            img_usage_error(args, "Invalid buffer size for sparse output specified. Valid sizes are "
                            "multiples of %d up to 1G, 0 for none", (int)BDRV_SECTOR_BYTES);
        }
        c->has_sparse = true;
        break;
    case 'r': img_arg_size(args, "rate limit", 1, INT64_MAX, &c->rate); break;
    case 't': take_cache(args, "cache", &c->target.cache); break;
    case 'T': take_cache(args, "source cache", &c->source.cache); break;
    case 'C': c->offload = true; break;
    case 'U': c->source.force_share = true; break;
    case 'p': c->progress = true; break;
    case 'q': c->copy.quiet = true; break;
    case IMG_OPT_IMAGE_OPTS: c->source.image_opts = true; break;
    case IMG_OPT_TARGET_IMAGE_OPTS: c->target.image_opts = true; break;
    case IMG_OPT_TARGET_IS_ZERO: c->target_is_zero = true; break;
    case IMG_OPT_SALVAGE: c->copy.salvage = true; break;
    case IMG_OPT_BITMAPS: c->bitmaps = true; break;
    case IMG_OPT_SKIP_BROKEN: c->skip_broken = true; break;
    }
}

/* What does not go together. */
static int check_options(ImgArgs *args, const Convert *c)
{
    if (c->copy.compress && c->copy.out_of_order) {
        return img_usage_error(args, "Out of order write and compress are mutually exclusive");
    }
    if (c->offload && (c->copy.compress || c->has_sparse)) {
        return img_usage_error(args, "Cannot enable copy offloading when -%c is used",
                               c->copy.compress ? 'c' : 'S');
    }
    if (c->source.snapshot && args->n_operands > 2) {
        return img_usage_error(args, "No support for concatenating multiple snapshot");
    }
    if (c->source.snapshot && c->bitmaps) {
        return img_usage_error(args, "Bitmaps are not about a snapshot: -l and --bitmaps do not go "
                               "together");
    }
    if (c->target.image_opts && !c->exists) {
        return img_usage_error(args, "--target-image-opts requires use of -n flag");
    }
    if (c->target_is_zero && !c->exists) {
        return img_usage_error(args, "--target-is-zero requires use of -n flag");
    }
    if (c->exists && c->create.backing) {
        return img_usage_error(args, "-B is for a new image: it cannot be used with -n");
    }
    if (c->exists && c->create.options->len) {
        warn_report("-o has no effect when skipping image creation");
    }
    if (c->skip_broken && !c->bitmaps) {
        return img_usage_error(args, "Use of --skip-broken-bitmaps requires --bitmaps");
    }
    if (args->n_operands < 2) {
        return img_usage_error(args, "Must specify image file name");
    }
    return 0;
}

/* ---- sources ---- */

static int open_sources(Convert *c, char **names, unsigned n, Error **errp)
{
    c->copy.src = g_new0(BlockBackend *, n);
    c->copy.src_names = (const char *const *)names;
    for (; c->copy.n_src < n; c->copy.n_src++) {
        c->copy.src[c->copy.n_src] = img_open(names[c->copy.n_src], &c->source, errp);
        if (!c->copy.src[c->copy.n_src]) {
            return -1;
        }
    }
    return 0;
}

static int check_sources(Convert *c, Error **errp)
{
    if (c->create.backing && c->copy.n_src > 1) {
        error_setg(
            errp,
            "Having a backing file for the target makes no sense when concatenating multiple input "
            "images");
        return -1;
    }
    if (c->bitmaps && c->copy.n_src > 1) {
        error_setg(errp, "Copying bitmaps only possible with single source");
        return -1;
    }
    c->create.size = img_copy_length(&c->copy, errp);
    return c->create.size < 0 ? -1 : 0;
}

/* ---- the target ---- */

static int make_target(Convert *c, Error **errp)
{
    if (img_staging_begin(&c->staging, c->target_name, errp) < 0) {
        return -1;
    }
    c->create.filename = c->staging.name;
    c->create.shown_name = c->target_name;
    c->create.quiet = true;
    return img_make(&c->create, errp);
}

static int open_target(Convert *c, Error **errp)
{
    const char *name = c->exists ? c->target_name : c->staging.name;

    c->target.writable = true;
    c->target.quiet = c->copy.quiet;
    if (!c->target.image_opts) {
        c->target.format = c->create.format;
    }
    c->copy.target = img_open(name, &c->target, errp);
    c->copy.target_name = c->target_name;
    return c->copy.target ? 0 : -1;
}

static int check_target(Convert *c, Error **errp)
{
    int64_t size = blk_getlength(c->copy.target);
    BlockDriverState *bs = blk_bs(c->copy.target);

    if (size < 0) {
        error_setg_errno(errp, -size, "unable to get length of '%s'", c->target_name);
        return -1;
    }
    if (size < c->create.size && c->exists) {
        error_setg(errp, "output file is smaller than input file");
        return -1;
    }
    if (size < c->create.size) {
        error_setg(errp, "'%s' is too small: %" PRId64 " bytes, %" PRId64 " are needed",
                   c->target_name, size, c->create.size);
        return -1;
    }
    if (c->copy.compress && !bs->drv->co_pwritev_compressed) {
        error_setg(errp, "Compression not supported for this file format");
        return -1;
    }
    if (c->target_is_zero && bs->backing) {
        error_setg(errp,
                   "Cannot use --target-is-zero when the destination image has a backing file");
        return -1;
    }
    return 0;
}

/* Whether what is there reads as zeroes, or can be made to at once. */
typedef struct ZeroTarget {
    BlockBackend *blk;
    bool is_zero, may_clear;
} ZeroTarget;

static void coroutine_fn find_zero(void *opaque)
{
    ZeroTarget *z = opaque;
    int64_t length = blk_getlength(z->blk);

    z->is_zero = bdrv_co_is_zero_fast(blk_bs(z->blk), 0, length) > 0;
    if (!z->is_zero && z->may_clear) {
        z->is_zero =
            blk_co_pwrite_zeroes(z->blk, 0, length, BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK) >= 0;
    }
}

/* Clearing all of the target is only right where all of it will be written. */
static bool target_is_zero(Convert *c)
{
    BlockDriverState *bs = blk_bs(c->copy.target);
    ZeroTarget z = { .blk = c->copy.target };

    if (c->target_is_zero) {
        return true;
    }
    if (c->create.backing || bs->backing) {
        return false;
    }
    if (!c->exists && img_new_is_zero(bs)) {
        return true;
    }
    z.may_clear = blk_getlength(c->copy.target) == c->create.size && !c->copy.compress &&
                  c->copy.min_sparse > 0;
    img_run(find_zero, &z);
    return z.is_zero;
}

/* ---- the whole ---- */

static int copy(Convert *c, Error **errp)
{
    int ret;

    c->copy.target_has_backing = c->create.backing != NULL;
    c->copy.target_is_zero = target_is_zero(c);
    img_rate_init(&c->copy.rate, c->rate);
    img_progress_begin(c->progress && !c->copy.quiet, c->create.size);
    ret = img_copy_run(&c->copy, errp);
    img_progress_end(ret == 0);
    if (ret == 0 && c->bitmaps) {
        ret =
            img_copy_bitmaps(blk_bs(c->copy.src[0]), blk_bs(c->copy.target), c->skip_broken, errp);
    }
    return ret;
}

static int convert(Convert *c, char **names, unsigned n, Error **errp)
{
    if (open_sources(c, names, n, errp) < 0 || check_sources(c, errp) < 0) {
        return -1;
    }
    if (c->bitmaps && !img_bitmaps_supported(blk_bs(c->copy.src[0]))) {
        error_setg(errp,
                   "This will only work with a source that has persistent bitmaps, and '%s' cannot",
                   names[0]);
        return -1;
    }
    if (!c->exists && make_target(c, errp) < 0) {
        return -1;
    }
    if (open_target(c, errp) < 0 || check_target(c, errp) < 0) {
        return -1;
    }
    return copy(c, errp);
}

static void close_all(Convert *c)
{
    for (unsigned i = 0; i < c->copy.n_src; i++) {
        blk_unref(c->copy.src[i]);
    }
    g_free(c->copy.src);
    blk_unref(c->copy.target);
}

static int run(ImgArgs *args)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    Convert c = {
        .target.cache = "unsafe",
        .create = { .format = "raw", .options = list, .size = -1 },
        .copy = { .coroutines = DEFAULT_COROUTINES, .min_sparse = DEFAULT_SPARSE_BYTES },
    };
    Error *err = NULL;
    int opt, ret;

    while ((opt = img_next_option(args)) != -1) {
        take_option(args, &c, opt);
    }
    if (args->stop) {
        return args->status;
    }
    if (img_wants_option_help(list)) {
        ret = img_print_create_options(
            c.create.format, args->n_operands ? args->operands[args->n_operands - 1] : NULL, &err);
    } else if (check_options(args, &c)) {
        return args->status;
    } else {
        img_catch_signals();
        c.target_name = args->operands[args->n_operands - 1];
        ret = convert(&c, args->operands, args->n_operands - 1, &err);
        close_all(&c);
        if (ret == 0) {
            ret = img_staging_commit(&c.staging, &err);
        }
        img_staging_end(&c.staging);
    }
    if (ret < 0) {
        error_report_err(err);
    }
    return ret < 0 ? 1 : 0;
}

const ImgCommand img_cmd_convert = {
    "convert", "Copy images into an image of another format", "SOURCE... TARGET", options, 1, run,
};
