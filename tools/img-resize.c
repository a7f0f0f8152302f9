/*
 * ferry-img resize: a disk of another length.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "qapi/util.h"
#include "tools/img-common.h"
#include "util/cutils.h"

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { IMG_OPT_PREALLOCATION, "preallocation", "MODE",
      "of what is added: off (default), metadata, falloc, full" },
    { IMG_OPT_SHRINK, "shrink", NULL, "the new length may be shorter" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 0 },
};

typedef struct Resize {
    ImgOpen how;
    const char *filename;
    char sign;                  /* '+', '-', or 0: the length itself */
    int64_t size;
    PreallocMode prealloc;
    bool shrink, quiet;
} Resize;

/* A length that begins with '-' is no option: it is taken off the line before options are read. */
static char *take_size(ImgArgs *args)
{
    static char *const help[] = { "-h", "--help" };
    char *last = args->argc > 1 ? args->argv[args->argc - 1] : NULL;

    if (!last || !strcmp(last, help[0]) || !strcmp(last, help[1])) {
        return NULL;
    }
    args->argc--;
    return last;
}

static bool parse_length(ImgArgs *args, Resize *r, const char *text)
{
    r->sign = *text == '+' || *text == '-' ? *text : 0;
    args->arg = text + (r->sign != 0);
    return img_arg_size(args, "image size", 0, BDRV_MAX_LENGTH, &r->size);
}

/* The new length; -1 with @errp set. */
static int64_t new_length(const Resize *r, int64_t current, Error **errp)
{
    int64_t length = r->sign == '-' ? current - r->size : r->size;

    if (r->sign == '+' &&
        (__builtin_add_overflow(current, r->size, &length) || length > BDRV_MAX_LENGTH)) {
        error_setg(errp, "The new image size would be too large");
        return -1;
    }
    if (length < 0 || (length == 0 && r->sign == '-')) {
        error_setg(errp, "New image size must be positive");
        return -1;
    }
    if (length < current && !r->shrink) {
        error_setg(errp, "Use the --shrink option to perform a shrink operation.");
        error_append_hint(errp, "Shrinking an image deletes all data beyond its new end.\n");
        return -1;
    }
    if (length <= current && r->prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation can only be used for growing images");
        return -1;
    }
    return length;
}

static int resize(const Resize *r, BlockBackend *blk, Error **errp)
{
    int64_t current = blk_getlength(blk), length, now;
    int ret;

    if (current < 0) {
        error_setg_errno(errp, -current, "Failed to query current image length");
        return -1;
    }
    length = new_length(r, current, errp);
    /* What is added is zero, whatever a longer backing file has there. */
    if (length < 0 ||
        blk_truncate(blk, length, false, r->prealloc, BDRV_REQ_ZERO_WRITE, errp) < 0) {
        return -1;
    }
    now = blk_getlength(blk);
    if (now != length && now >= 0 && blk_bs(blk)->drv->is_format) {
        warn_report("Image should have been resized to %" PRId64
                    " bytes, but was resized to %" PRId64 " bytes",
                    length, now);
    }
    ret = blk_flush(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not flush '%s'", r->filename);
    }
    return ret < 0 ? -1 : 0;
}

static void take_option(ImgArgs *args, Resize *r, int opt)
{
    Error *err = NULL;

    switch (opt) {
    case 'f': r->how.format = args->arg; break;
    case 'q': r->quiet = true; break;
    case IMG_OPT_IMAGE_OPTS: r->how.image_opts = true; break;
    case IMG_OPT_SHRINK: r->shrink = true; break;
    case IMG_OPT_PREALLOCATION:
        r->prealloc = qapi_enum_parse(&PreallocMode_lookup, args->arg, -1, &err);
        if (err) {
            error_free(err);
            img_usage_error(args, "Invalid preallocation mode '%s'", args->arg);
        }
        break;
    }
}

static int run(ImgArgs *args)
{
    const char *size = take_size(args);
    Resize r = { .how.writable = true };
    BlockBackend *blk;
    Error *err = NULL;
    int opt, ret = -1;

    while ((opt = img_next_option(args)) != -1) {
        take_option(args, &r, opt);
    }
    if (args->stop) {
        return args->status;
    }
    if (args->n_operands != 1 || !size) {
        return img_usage_error(args, "Expecting image file name and size");
    }
    if (!parse_length(args, &r, size)) {
        return args->status;
    }
    r.how.quiet = r.quiet;
    r.filename = args->operands[0];
    blk = img_open(r.filename, &r.how, &err);
    if (blk) {
        ret = resize(&r, blk, &err);
    }
    blk_unref(blk);
    if (ret < 0) {
        error_report_err(err);
        return 1;
    }
    if (!r.quiet) {
        puts("Image resized.");
    }
    return 0;
}

const ImgCommand img_cmd_resize = {
    "resize", "Change the length of a disk", "FILENAME [+|-]SIZE", options, 1, run,
};
