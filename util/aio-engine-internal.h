/*
 * What an engine of asynchronous I/O is, for util/ only.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_AIO_ENGINE_INTERNAL_H
#define UTIL_AIO_ENGINE_INTERNAL_H

#include "util/aio-engine.h"
#include "util/aio-internal.h"

typedef struct AioEngine {
    const char *name;
    bool (*available)(Error **errp);
    /*
     * Do a request whose vector has at most IOV_MAX elements and PART_BYTES_MAX bytes, as its
     * system call would: the result may be short, and -EINTR and -EAGAIN are results.
     */
    int64_t coroutine_fn (*co_submit)(AioContext *ctx, const AioRequest *part);
} AioEngine;

#define PART_BYTES_MAX (UINT64_C(1) << 30)

extern const AioEngine aio_engine_io_uring, aio_engine_native, aio_engine_threads;

/* The request's system call in a thread of the pool: what other engines do when they cannot. */
int64_t coroutine_fn aio_threads_co_submit(AioContext *ctx, const AioRequest *part);

#endif
