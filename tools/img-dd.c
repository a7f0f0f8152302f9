/*
 * ferry-img dd: a part of an image into a new one, with the operands of dd(1).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-convert.h"
#include "util/cutils.h"

#define DEFAULT_BLOCK_BYTES 512
#define COROUTINES 8

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the input (default: look into it)" },
    { 'O', NULL, "FORMAT", "format of the output (default: raw)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "the input is a description, KEY=VALUE,..." },
    { 'U', "force-share", NULL, "open the input although others write to it" },
    { 0 },
};

typedef struct Dd {
    ImgOpen in;
    const char *in_name, *out_name, *out_format;
    int64_t block, count, skip; /* count -1: all */
} Dd;

static bool take_operand(ImgArgs *args, Dd *d, const char *text)
{
    const char *value = strchr(text, '=');
    g_autofree char *key = value ? g_strndup(text, value - text) : NULL;

    if (!key) {
        img_usage_error(args, "unrecognized operand %s", text);
        return false;
    }
    args->arg = value + 1;
    if (!strcmp(key, "if")) {
        d->in_name = args->arg;
    } else if (!strcmp(key, "of")) {
        d->out_name = args->arg;
    } else if (!strcmp(key, "bs")) {
        return img_arg_size(args, "bs", 1, INT32_MAX, &d->block);
    } else if (!strcmp(key, "count")) {
        return img_arg_size(args, "count", 0, BDRV_MAX_LENGTH, &d->count);
    } else if (!strcmp(key, "skip")) {
        return img_arg_size(args, "skip", 0, BDRV_MAX_LENGTH, &d->skip);
    } else {
        img_usage_error(args, "unrecognized operand %s", text);
        return false;
    }
    return true;
}

/* The part of the input, as a raw node above it. NULL with @errp set. */
static BlockBackend *open_part(const Dd *d, Error **errp)
{
    g_autoptr(BlockBackend) whole = img_open(d->in_name, &d->in, errp);
    g_autoptr(BlockdevOptions) window = g_new0(BlockdevOptions, 1);
    int64_t length = whole ? blk_getlength(whole) : 0, offset, part;

    if (!whole) {
        return NULL;
    }
    if (length < 0) {
        error_setg_errno(errp, -length, "Failed to get size for '%s'", d->in_name);
        return NULL;
    }
    if (__builtin_mul_overflow(d->skip, d->block, &offset) || offset > length) {
        error_report("%s: cannot skip to specified offset", d->in_name);
        offset = length;
    }
    part = length - offset;
    if (d->count >= 0 && d->count <= part / d->block) {
        part = d->count * d->block;
    }
    window->driver = BLOCKDEV_DRIVER_RAW;
    window->has_read_only = window->read_only = true;
    window->u.raw.has_offset = window->u.raw.has_size = true;
    window->u.raw.offset = offset;
    window->u.raw.size = part;
    window->u.raw.file = g_new0(BlockdevRef, 1);
    window->u.raw.file->type = QTYPE_QSTRING;
    window->u.raw.file->u.reference = g_strdup(bdrv_get_node_name(blk_bs(whole)));
    return blk_new_open(window, errp);
}

static int copy(const Dd *d, BlockBackend *part, const char *name, Error **errp)
{
    ImgOpen how = { .format = d->out_format, .writable = true, .cache = "writeback" };
    g_autoptr(BlockBackend) target = img_open(name, &how, errp);
    ImgCopy job = {
        .src = &part,
        .src_names = &d->in_name,
        .n_src = 1,
        .target = target,
        .target_name = d->out_name,
        .coroutines = COROUTINES,
        .min_sparse = 4096,
    };

    if (!target) {
        return -1;
    }
    job.target_is_zero = img_new_is_zero(blk_bs(target));
    img_rate_init(&job.rate, 0);
    return img_copy_run(&job, errp);
}

static int make_and_copy(const Dd *d, BlockBackend *part, Error **errp)
{
    ImgStaging staging;
    ImgCreate create = { .format = d->out_format, .size = blk_getlength(part), .quiet = true,
                         .shown_name = d->out_name };
    int ret = img_staging_begin(&staging, d->out_name, errp);

    if (ret == 0) {
        create.filename = staging.name;
        ret = img_make(&create, errp);
    }
    if (ret == 0) {
        ret = copy(d, part, staging.name, errp);
    }
    if (ret == 0) {
        ret = img_staging_commit(&staging, errp);
    }
    img_staging_end(&staging);
    return ret;
}

static int dd(const Dd *d, Error **errp)
{
    g_autoptr(BlockBackend) part = open_part(d, errp);

    return part ? make_and_copy(d, part, errp) : -1;
}

static int run(ImgArgs *args)
{
    Dd d = { .out_format = "raw", .block = DEFAULT_BLOCK_BYTES, .count = -1 };
    Error *err = NULL;
    int opt;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'f': d.in.format = args->arg; break;
        case 'O': d.out_format = args->arg; break;
        case 'U': d.in.force_share = true; break;
        case IMG_OPT_IMAGE_OPTS: d.in.image_opts = true; break;
        }
    }
    for (int i = 0; !args->stop && i < args->n_operands; i++) {
        take_operand(args, &d, args->operands[i]);
    }
    if (args->stop) {
        return args->status;
    }
    if (!d.in_name || !d.out_name) {
        return img_usage_error(args, "Must specify both input and output file names");
    }
    img_catch_signals();
    if (dd(&d, &err) < 0) {
        error_report_err(err);
        return 1;
    }
    return 0;
}

const ImgCommand img_cmd_dd = {
    "dd",
    "Copy a part of an image into a new one",
    "[bs=SIZE] [count=N] [skip=N] if=INPUT of=OUTPUT",
    options,
    1,
    run,
};
