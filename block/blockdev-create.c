/*
 * blockdev-create: an image is made by a job, as that can take its time.
 *
 * Nodes are opened here, on the main thread: the driver gets references only.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/driver.h"
#include "block/job.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-commands-block.h"
#include "qapi/qapi-visit-block-core.h"

typedef struct CreateJob {
    const BlockDriver *drv;
    BlockdevCreateOptions *opts;
    BlockDriverState *file;     /* opened here, or held; NULL */
} CreateJob;

static int coroutine_fn create_run(Job *job, void *opaque, Error **errp)
{
    CreateJob *c = opaque;
    int ret;

    job_progress_set_remaining(job, 1);
    ret = c->drv->co_create(c->opts, errp);
    job_progress_update(job, 1);
    return ret;
}

/* A job may wait long for its dismissal; the node is free by then. */
static void create_clean(Job *job, void *opaque)
{
    CreateJob *c = opaque;

    bdrv_unref(g_steal_pointer(&c->file));
}

static void create_free(void *opaque)
{
    CreateJob *c = opaque;

    qapi_free_BlockdevCreateOptions(c->opts);
    bdrv_unref(c->file);
    g_free(c);
}

static const JobDriver create_driver = {
    .type = JOB_TYPE_CREATE,
    .run = create_run,
    .clean = create_clean,
    .free = create_free,
};

static BlockdevRef *file_of(BlockdevCreateOptions *opts)
{
    return opts->driver == BLOCKDEV_DRIVER_QCOW2 ? opts->u.qcow2.file : NULL;
}

/* What the image is written to becomes a node with a reference; in the options stands its name. */
static int open_file(CreateJob *c, Error **errp)
{
    BlockdevRef *ref = file_of(c->opts);
    char *name;

    if (!ref) {
        return 0;
    }
    if (ref->type == QTYPE_QSTRING) {
        c->file = bdrv_lookup(ref->u.reference, errp);
        if (c->file) {
            bdrv_ref(c->file);
        }
        return c->file ? 0 : -1;
    }
    c->file = bdrv_open(&ref->u.definition, errp);
    if (!c->file) {
        return -1;
    }
    name = g_strdup(bdrv_get_node_name(c->file));
    qapi_free_BlockdevRef(ref);
    ref = g_new0(BlockdevRef, 1);
    ref->type = QTYPE_QSTRING;
    ref->u.reference = name;
    c->opts->u.qcow2.file = ref;
    return 0;
}

void qmp_blockdev_create(const char *job_id, BlockdevCreateOptions *options, Error **errp)
{
    const BlockDriver *drv = bdrv_driver_of(options->driver);
    CreateJob *c;
    Job *job;

    if (!drv || !drv->co_create) {
        error_setg(errp, "Driver '%s' does not support blockdev-create",
                   BlockdevDriver_str(options->driver));
        return;
    }
    c = g_new0(CreateJob, 1);
    c->drv = drv;
    c->opts = QAPI_CLONE(BlockdevCreateOptions, options);
    job = open_file(c, errp) == 0
              ? job_create(job_id, &create_driver, aio_context_main(), JOB_MANUAL_DISMISS, c, errp)
              : NULL;
    if (!job) {
        create_free(c);
        return;
    }
    job_start(job);
}
