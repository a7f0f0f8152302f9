/*
 * ferry-img snapshot: the internal snapshots of an image, listed.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>

#include "block/image-info.h"
#include "tools/img-common.h"

static const ImgOption options[] = {
    { 'l', NULL, NULL, "list the snapshots (default)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 'U', "force-share", NULL, "open the image although others write to it" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 0 },
};

typedef struct ListCall {
    BlockDriverState *bs;
    SnapshotInfoList *list;
    Error **errp;
    int ret;
} ListCall;

static void coroutine_fn list_entry(void *opaque)
{
    ListCall *c = opaque;

    c->ret = c->bs->drv->co_list_snapshots(c->bs, &c->list, c->errp);
}

static int list(const char *name, const ImgOpen *how, bool quiet, Error **errp)
{
    g_autoptr(BlockBackend) blk = img_open(name, how, errp);
    ListCall call = { .errp = errp };

    if (!blk) {
        return -1;
    }
    call.bs = blk_bs(blk);
    if (!call.bs->drv->co_list_snapshots) {
        return 0;
    }
    img_run(list_entry, &call);
    if (call.ret < 0) {
        error_prepend(errp, "Could not list the snapshots of '%s': ", name);
        return -1;
    }
    if (call.list && !quiet) {
        g_autoptr(GString) text = g_string_new("Snapshot list:\n");

        bdrv_snapshots_print(text, call.list, 0);
        fputs(text->str, stdout);
    }
    qapi_free_SnapshotInfoList(call.list);
    return 0;
}

static int run(ImgArgs *args)
{
    ImgOpen how = { .no_backing = true };
    bool quiet = false;
    Error *err = NULL;
    int opt;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'l': break;
        case 'U': how.force_share = true; break;
        case 'q': quiet = true; break;
        case IMG_OPT_IMAGE_OPTS: how.image_opts = true; break;
        }
    }
    if (args->stop) {
        return args->status;
    }
    if (args->n_operands != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (list(args->operands[0], &how, quiet, &err) < 0) {
        error_report_err(err);
        return 1;
    }
    return 0;
}

const ImgCommand img_cmd_snapshot = {
    "snapshot", "List the internal snapshots of an image", "FILENAME", options, 1, run,
};
