/*
 * What all engines have in common: long requests are cut up, short transfers continued, interrupted
 * ones repeated. An engine sees parts that one system call could do.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-engine-internal.h"

#include <errno.h>
#include <limits.h>

#include "util/iov.h"

#define SECTOR_BYTES 512        /* of O_DIRECT, at least */

static const AioEngine *const engines[AIO_ENGINE__MAX] = {
    [AIO_ENGINE_IO_URING] = &aio_engine_io_uring,
    [AIO_ENGINE_NATIVE] = &aio_engine_native,
    [AIO_ENGINE_THREADS] = &aio_engine_threads,
};

const char *aio_engine_name(AioEngineKind kind)
{
    return engines[kind]->name;
}

bool aio_engine_available(AioEngineKind kind, Error **errp)
{
    return engines[kind]->available(errp);
}

/*
 * One part. What a ring refuses for the moment (its memory ran out, its submitter has ended) is
 * done by a thread of the pool, whose answer is final.
 */
static int64_t coroutine_fn submit_part(AioEngineKind kind, const AioRequest *part)
{
    AioContext *ctx = aio_current();
    int64_t ret;

    do {
        ret = engines[kind]->co_submit(ctx, part);
        if (ret == -EAGAIN || ret == -ECANCELED) {
            ret = aio_threads_co_submit(ctx, part);
        }
    } while (ret == -EINTR);
    return ret;
}

/*
 * Whether @ret, the result of the part that begins @done bytes into @req, is the end of the file.
 */
static bool at_end_of_file(const AioRequest *req, uint64_t done, int64_t ret)
{
    /* Direct I/O cannot go on where an end of file that is no sector's left it. */
    return req->op == AIO_OP_READ &&
           (ret == 0 || (ret == -EINVAL && (req->offset + done) % SECTOR_BYTES != 0 && done > 0));
}

/* Transfer what is left of @req after the first @done bytes, part by part. */
static int64_t coroutine_fn transfer_rest(AioEngineKind kind, const AioRequest *req, uint64_t done)
{
    unsigned max = MIN(req->niov, IOV_MAX);
    g_autofree struct iovec *iov = g_new(struct iovec, max);
    AioRequest part = *req;
    int64_t ret;

    part.iov = iov;
    while (done < req->bytes) {
        part.offset = req->offset + done;
        part.niov = iov_copy(iov, max, req->iov, req->niov, done,
                             MIN(req->bytes - done, PART_BYTES_MAX));
        part.bytes = iov_size(iov, part.niov);
        ret = submit_part(kind, &part);
        if (at_end_of_file(req, done, ret)) {
            break;
        }
        if (ret <= 0) {
            return ret < 0 ? ret : -EIO;
        }
        done += ret;
    }
    return done;
}

int64_t coroutine_fn aio_engine_co_submit(AioEngineKind kind, const AioRequest *req)
{
    int64_t ret;

    if (req->op != AIO_OP_READ && req->op != AIO_OP_WRITE) {
        return submit_part(kind, req);
    }
    if (req->bytes == 0) {
        return 0;
    }
    if (req->niov > IOV_MAX || req->bytes > PART_BYTES_MAX) {
        return transfer_rest(kind, req, 0);
    }
    ret = submit_part(kind, req);
    if (ret == req->bytes || at_end_of_file(req, 0, ret)) {
        return ret;
    }
    if (ret <= 0) {
        return ret < 0 ? ret : -EIO;
    }
    return transfer_rest(kind, req, ret);
}
