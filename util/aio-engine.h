/*
 * Asynchronous I/O on files: three engines behind one function.
 *
 *   io_uring   liburing, one ring a context; the default where the kernel has it
 *   native     libaio; asynchronous only with O_DIRECT; what it cannot do goes to the pool
 *   threads    the system calls themselves, in the thread pool
 *
 * An engine is one file with one AioEngine. Its part of a context is made when the first request
 * comes. Requests that are submitted in one turn of the loop reach the kernel in one system call.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_AIO_ENGINE_H
#define UTIL_AIO_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "util/aio.h"

typedef enum AioEngineKind {
    AIO_ENGINE_IO_URING,
    AIO_ENGINE_NATIVE,
    AIO_ENGINE_THREADS,
    AIO_ENGINE__MAX,
} AioEngineKind;

typedef enum AioOp {
    AIO_OP_READ,
    AIO_OP_WRITE,
    AIO_OP_FSYNC,               /* fdatasync(2) */
    AIO_OP_FALLOCATE,           /* fallocate(2) with @mode, @offset, @bytes */
} AioOp;

typedef struct AioRequest {
    AioOp op;
    int fd;
    int mode;                   /* FALLOCATE: FALLOC_FL_* */
    bool fua;                   /* WRITE: on stable storage when it completes (RWF_DSYNC) */
    uint64_t offset, bytes;     /* READ, WRITE: bytes is what the vector holds */
    const struct iovec *iov;
    unsigned niov;              /* any number; more than IOV_MAX is cut up */
} AioRequest;

/* "io_uring", "native", "threads". */
const char *aio_engine_name(AioEngineKind kind);
/* Whether it works on this system; false with @errp set to the reason. Any thread. */
bool aio_engine_available(AioEngineKind kind, Error **errp);

/*
 * aio_engine_co_submit:
 * @req: the request; it, its vector and its memory stay the caller's and in place until this
 * returns
 *
 * Do it, yielding meanwhile. In any context's coroutine. Interrupted and short transfers are
 * continued; a read that meets the end of the file is short.
 *
 * Returns: bytes transferred (READ; WRITE: all), 0 for the others; a negative errno.
 */
int64_t coroutine_fn aio_engine_co_submit(AioEngineKind kind, const AioRequest *req);

#endif
