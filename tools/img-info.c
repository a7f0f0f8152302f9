/*
 * ferry-img info: what an image is.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "block/image-info.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "tools/img-common.h"

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { IMG_OPT_OUTPUT, "output", "FORM", "human (default) or json" },
    { IMG_OPT_BACKING_CHAIN, "backing-chain", NULL, "the backing files too, each as an image" },
    { 'U', "force-share", NULL, "open the image although others write to it" },
    { 0 },
};

/* The members of one image; its backing image is one of its own. */
static struct json_object *to_json(ImageInfo *info)
{
    ImageInfo *below = g_steal_pointer(&info->backing_image);
    struct json_object *obj = NULL;
    Visitor *v = json_output_visitor_new(&obj);

    visit_type_ImageInfo(v, NULL, &info, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    info->backing_image = below;
    return obj;
}

static void print_chain_json(ImageInfo *info)
{
    struct json_object *list = json_object_new_array();

    for (; info; info = info->backing_image) {
        json_object_array_add(list, to_json(info));
    }
    img_print_json(list);
}

static void print_human(ImageInfo *info)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (ImageInfo *i = info; i; i = i->backing_image) {
        if (i != info) {
            g_string_append_c(text, '\n');
        }
        bdrv_node_info_print(text, qapi_ImageInfo_base(i), 0, false);
    }
    fputs(text->str, stdout);
}

static ImageInfo *query(const char *name, const ImgOpen *how, bool chain, Error **errp)
{
    g_autoptr(BlockBackend) blk = img_open(name, how, errp);

    return blk ? bdrv_query_image_info(blk_bs(blk), !chain, errp) : NULL;
}

static int run(ImgArgs *args)
{
    ImgOpen how = { 0 };
    bool json = false, chain = false;
    g_autoptr(ImageInfo) info = NULL;
    Error *err = NULL;
    int opt;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'f': how.format = args->arg; break;
        case 'U': how.force_share = true; break;
        case IMG_OPT_IMAGE_OPTS: how.image_opts = true; break;
        case IMG_OPT_OUTPUT: img_arg_output(args, &json); break;
        case IMG_OPT_BACKING_CHAIN: chain = true; break;
        }
    }
    if (args->stop) {
        return args->status;
    }
    if (args->n_operands != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    /* An image is told about even when its backing file is gone. */
    how.no_backing = !chain;
    info = query(args->operands[0], &how, chain, &err);
    if (!info) {
        error_report_err(err);
        return 1;
    }
    if (!json) {
        print_human(info);
    } else if (chain) {
        print_chain_json(info);
    } else {
        img_print_json(to_json(info));
    }
    return 0;
}

const ImgCommand img_cmd_info = {
    "info", "Tell what an image is", "FILENAME", options, 1, run,
};
