/*
 * The engine `threads`: the system calls themselves, in threads of the pool.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-engine-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/thread-pool.h"

typedef struct ThreadsJob {
    const AioRequest *req;
    int64_t ret;
} ThreadsJob;

static int64_t do_request(const AioRequest *req)
{
    switch (req->op) {
    case AIO_OP_READ:
        return preadv(req->fd, req->iov, req->niov, req->offset);
    case AIO_OP_WRITE:
        return pwritev2(req->fd, req->iov, req->niov, req->offset, req->fua ? RWF_DSYNC : 0);
    case AIO_OP_FSYNC:
        return fdatasync(req->fd);
    case AIO_OP_FALLOCATE:
        return fallocate(req->fd, req->mode, req->offset, req->bytes);
    }
    g_assert_not_reached();
}

static int run_job(void *opaque)
{
    ThreadsJob *job = opaque;

    job->ret = do_request(job->req);
    if (job->ret < 0) {
        job->ret = -errno;
    }
    return 0;
}

int64_t coroutine_fn aio_threads_co_submit(AioContext *ctx, const AioRequest *part)
{
    ThreadsJob job = { .req = part };

    thread_pool_submit_co(run_job, &job);
    return job.ret;
}

static bool threads_available(Error **errp)
{
    return true;
}

const AioEngine aio_engine_threads = {
    .name = "threads", .available = threads_available, .co_submit = aio_threads_co_submit,
};
