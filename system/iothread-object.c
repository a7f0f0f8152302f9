/*
 * iothread: from QAPI's properties to an IOThread, and the list of them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/iothread-object.h"

#include "qapi/qapi-commands-misc.h"
#include "util/iothread.h"

#define POLL_MAX_NS_DEFAULT 32768

typedef struct IothreadObject {
    IOThread *iothread;
    int64_t poll_grow, poll_shrink, aio_max_batch;
} IothreadObject;

/* Whether the value is @max or less, and not negative; @has: whether it was given at all. */
static bool check_range(const char *name, bool has, int64_t value, int64_t max, Error **errp)
{
    if (has && (value < 0 || value > max)) {
        error_setg(errp, "%s value must be in range [0, %" G_GINT64_FORMAT "]", name, max);
        return false;
    }
    return true;
}

static bool check_properties(const IothreadProperties *props, Error **errp)
{
    return check_range("poll-max-ns", props->has_poll_max_ns, props->poll_max_ns, INT64_MAX,
                       errp) &&
           check_range("poll-grow", props->has_poll_grow, props->poll_grow, INT32_MAX, errp) &&
           check_range("poll-shrink", props->has_poll_shrink, props->poll_shrink, INT32_MAX,
                       errp) &&
           check_range("aio-max-batch", props->has_aio_max_batch, props->aio_max_batch, INT32_MAX,
                       errp);
}

static void *iothread_create(const ObjectOptions *opts, Error **errp)
{
    const IothreadProperties *props = &opts->u.iothread;
    IothreadObject *object;
    IOThread *iothread;

    if (!check_properties(props, errp)) {
        return NULL;
    }
    iothread = iothread_new(
        opts->id, props->has_poll_max_ns ? props->poll_max_ns : POLL_MAX_NS_DEFAULT, errp);
    if (!iothread) {
        return NULL;
    }
    object = g_new0(IothreadObject, 1);
    object->iothread = iothread;
    object->poll_grow = props->has_poll_grow ? props->poll_grow : 0;
    object->poll_shrink = props->has_poll_shrink ? props->poll_shrink : 0;
    object->aio_max_batch = props->has_aio_max_batch ? props->aio_max_batch : 0;
    aio_context_set_poll_factors(iothread_context(iothread), object->poll_grow,
                                 object->poll_shrink);
    aio_context_set_max_batch(iothread_context(iothread), object->aio_max_batch);
    return object;
}

static bool iothread_in_use(void *opaque)
{
    IothreadObject *object = opaque;

    return iothread_users(object->iothread) > 0;
}

/* At the program's end it may be in use still: the thread then ends with the process. */
static void iothread_destroy(void *opaque)
{
    IothreadObject *object = opaque;

    if (iothread_users(object->iothread) == 0) {
        iothread_free(object->iothread);
    }
    g_free(object);
}

const UserObjectClass iothread_class = {
    .type = OBJECT_TYPE_IOTHREAD,
    .desc = "a thread that serves requests of disks and exports",
    .create = iothread_create,
    .in_use = iothread_in_use,
    .destroy = iothread_destroy,
};

static void describe(void *opaque, void *list)
{
    const IothreadObject *object = opaque;
    IOThreadInfoList ***tail = list;
    IOThreadInfo *info = g_new0(IOThreadInfo, 1);

    info->id = g_strdup(iothread_id(object->iothread));
    info->thread_id = iothread_thread_id(object->iothread);
    info->poll_max_ns = aio_context_poll_max_ns(iothread_context(object->iothread));
    info->poll_grow = object->poll_grow;
    info->poll_shrink = object->poll_shrink;
    info->aio_max_batch = object->aio_max_batch;
    QAPI_LIST_APPEND(*tail, info);
}

IOThreadInfoList *qmp_query_iothreads(Error **errp)
{
    IOThreadInfoList *list = NULL, **tail = &list;

    objects_foreach(OBJECT_TYPE_IOTHREAD, describe, &tail);
    return list;
}
