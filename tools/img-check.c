/*
 * ferry-img check: whether the metadata of an image are sound, and their repair.
 *
 * Exit status: 0 nothing wrong (or all repaired), 1 the check could not be done, 2 corrupt, 3 leaks
 * only, 63 the format has nothing to check.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-common.h"

enum {
    STATUS_OK = 0,
    STATUS_FAILED = 1,
    STATUS_CORRUPT = 2,
    STATUS_LEAKS = 3,
    STATUS_NO_CHECKS = 63
};

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 'r', "repair", "WHAT", "repair leaks, or all" },
    { IMG_OPT_OUTPUT, "output", "FORM", "human (default) or json" },
    { 'T', NULL, "CACHE", "cache mode (default: writeback)" },
    { 'U', "force-share", NULL, "open the image although others write to it" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 0 },
};

typedef struct Check {
    ImgOpen how;
    const char *filename;
    BlockBackend *blk;
    int fix;                    /* BdrvCheckMode */
    bool json, quiet;
    BdrvCheckResult result;
    int ret;
} Check;

static void coroutine_fn check_entry(void *opaque)
{
    Check *c = opaque;
    BlockDriverState *bs = blk_bs(c->blk);

    c->result = (BdrvCheckResult) { 0 };
    c->ret = bs->drv->co_check(bs, &c->result, c->fix);
}

/* ---- what was found, as text ---- */

static void print_clusters(const BdrvCheckResult *r)
{
    if (r->total_clusters && r->allocated_clusters) {
        printf("%" PRIu64 "/%" PRIu64
               " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               r->allocated_clusters * 100.0 / r->total_clusters,
               r->fragmented_clusters * 100.0 / r->allocated_clusters,
               r->compressed_clusters * 100.0 / r->allocated_clusters);
    }
    if (r->image_end_offset > 0) {
        printf("Image end offset: %" PRId64 "\n", r->image_end_offset);
    }
}

static void print_human(const BdrvCheckResult *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors) {
        printf("No errors were found on the image.\n");
    }
    if (r->corruptions) {
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               r->corruptions);
    }
    if (r->leaks) {
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n", r->leaks);
    }
    if (r->check_errors) {
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", r->check_errors);
    }
    print_clusters(r);
}

static void print_repaired(const BdrvCheckResult *r)
{
    printf("The following inconsistencies were found and repaired:\n\n"
           "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
           "Double checking the fixed image now...\n", r->leaks_fixed, r->corruptions_fixed);
}

/* ---- and as JSON ---- */

static void add_number(struct json_object *obj, const char *name, uint64_t value, bool always)
{
    if (value || always) {
        json_object_object_add(obj, name, json_object_new_uint64(value));
    }
}

static void print_json(const Check *c)
{
    const BdrvCheckResult *r = &c->result;
    struct json_object *obj = json_object_new_object();

    json_object_object_add(obj, "filename", json_object_new_string(c->filename));
    json_object_object_add(obj, "format", json_object_new_string(blk_bs(c->blk)->drv->format_name));
    add_number(obj, "check-errors", r->check_errors, true);
    add_number(obj, "image-end-offset", MAX(r->image_end_offset, 0), false);
    add_number(obj, "corruptions", r->corruptions, false);
    add_number(obj, "leaks", r->leaks, false);
    add_number(obj, "corruptions-fixed", r->corruptions_fixed, false);
    add_number(obj, "leaks-fixed", r->leaks_fixed, false);
    add_number(obj, "total-clusters", r->total_clusters, false);
    add_number(obj, "allocated-clusters", r->allocated_clusters, false);
    add_number(obj, "fragmented-clusters", r->fragmented_clusters, false);
    add_number(obj, "compressed-clusters", r->compressed_clusters, false);
    img_print_json(obj);
}

/* ---- the whole ---- */

static int exit_status(const BdrvCheckResult *r)
{
    return r->check_errors  ? STATUS_FAILED
           : r->corruptions ? STATUS_CORRUPT
           : r->leaks       ? STATUS_LEAKS
                            : STATUS_OK;
}

static int run_check(Check *c)
{
    img_run(check_entry, c);
    if (c->ret < 0 && !c->result.check_errors && !c->result.corruptions && !c->result.leaks) {
        error_report("Check failed: %s", g_strerror(-c->ret));
        return -1;
    }
    return 0;
}

/* What was repaired is looked at anew; the numbers of what was repaired are kept. */
static int check_again(Check *c)
{
    uint64_t leaks = c->result.leaks_fixed, corruptions = c->result.corruptions_fixed;

    if (!leaks && !corruptions) {
        return 0;
    }
    if (!c->json && !c->quiet) {
        print_repaired(&c->result);
    }
    c->fix = 0;
    if (run_check(c) < 0) {
        return -1;
    }
    c->result.leaks_fixed = leaks;
    c->result.corruptions_fixed = corruptions;
    return 0;
}

static int check(Check *c)
{
    if (!blk_bs(c->blk)->drv->co_check) {
        if (!c->quiet) {
            error_report("This image format does not support checks");
        }
        return STATUS_NO_CHECKS;
    }
    if (run_check(c) < 0 || check_again(c) < 0) {
        return STATUS_FAILED;
    }
    if (c->json) {
        print_json(c);
    } else if (!c->quiet) {
        print_human(&c->result);
    }
    return exit_status(&c->result);
}

static void take_option(ImgArgs *args, Check *c, int opt)
{
    switch (opt) {
    case 'f': c->how.format = args->arg; break;
    case 'U': c->how.force_share = true; break;
    case 'q': c->quiet = true; break;
    case IMG_OPT_IMAGE_OPTS: c->how.image_opts = true; break;
    case IMG_OPT_OUTPUT: img_arg_output(args, &c->json); break;
    case 'r':
        c->how.writable = true;
        c->fix = !strcmp(args->arg, "leaks") ? BDRV_FIX_LEAKS
               : !strcmp(args->arg, "all") ? BDRV_FIX_LEAKS | BDRV_FIX_ERRORS : 0;
        if (!c->fix) {
            img_usage_error(args, "Unknown option value for -r (expecting 'leaks' or 'all'): %s",
                            args->arg);
        }
        break;
    case 'T':
        c->how.cache = args->arg;
        if (!img_cache_mode_ok(args->arg)) {
            img_usage_error(args, "Invalid source cache option: %s", args->arg);
        }
        break;
    }
}

static int run(ImgArgs *args)
{
    Check c = { .how = { .no_backing = true, .for_check = true } };
    Error *err = NULL;
    int opt, status;

    while ((opt = img_next_option(args)) != -1) {
        take_option(args, &c, opt);
    }
    if (args->stop) {
        return args->status;
    }
    if (args->n_operands != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    c.filename = args->operands[0];
    c.how.quiet = true;
    c.blk = img_open(c.filename, &c.how, &err);
    if (!c.blk) {
        error_report_err(err);
        return STATUS_FAILED;
    }
    status = check(&c);
    blk_unref(c.blk);
    return status;
}

const ImgCommand img_cmd_check = {
    "check", "Check the metadata of an image, and repair them", "FILENAME", options, STATUS_FAILED,
    run,
};
