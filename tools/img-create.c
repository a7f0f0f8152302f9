/*
 * ferry-img create: a new image.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/img-common.h"
#include "util/cutils.h"

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the image (default: raw)" },
    { 'o', NULL, "OPTIONS", "options of the format, NAME=VALUE,...; 'help' lists them" },
    { 'b', NULL, "BACKING", "backing file" },
    { 'F', NULL, "FORMAT", "format of the backing file" },
    { 'u', NULL, NULL, "do not open the backing file" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 0 },
};

static bool take_size(ImgArgs *args, ImgCreate *c)
{
    if (args->n_operands < 2) {
        return true;
    }
    args->arg = args->operands[1];
    return img_arg_size(args, "image size", 0, BDRV_MAX_LENGTH, &c->size);
}

static int run(ImgArgs *args)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    ImgCreate c = { .format = "raw", .options = list, .size = -1 };
    Error *err = NULL;
    int opt, ret;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'f': c.format = args->arg; break;
        case 'o': g_ptr_array_add(list, (char *)args->arg); break;
        case 'b': c.backing = args->arg; break;
        case 'F': c.backing_format = args->arg; break;
        case 'u': c.backing_unchecked = true; break;
        case 'q': c.quiet = true; break;
        }
    }
    if (args->stop) {
        return args->status;
    }
    if (img_wants_option_help(list)) {
        ret = img_print_create_options(c.format, args->n_operands ? args->operands[0] : NULL, &err);
    } else if (args->n_operands < 1) {
        return img_usage_error(args, "Expecting image file name");
    } else if (args->n_operands > 2) {
        return img_usage_error(args, "Unexpected argument: %s", args->operands[2]);
    } else if (!take_size(args, &c)) {
        return args->status;
    } else {
        c.filename = args->operands[0];
        ret = img_make(&c, &err);
    }
    if (ret < 0) {
        error_report_err(err);
    }
    return ret < 0 ? 1 : 0;
}

const ImgCommand img_cmd_create = {
    "create", "Make a new image", "FILENAME [SIZE]", options, 1, run,
};
