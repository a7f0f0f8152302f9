/*
 * What the parts of the drivers `file` and `host_device` share.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_FILE_INT_H
#define BLOCK_FILE_INT_H

#include "block/driver.h"
#include "block/file-locks.h"
#include "block/file-probe.h"
#include "util/aio-engine.h"

/* What the file turned out not to be able to do; not tried again. */
enum {
    FILE_CANNOT_PUNCH = 1 << 0,
    FILE_CANNOT_ZERO_RANGE = 1 << 1,
    FILE_CANNOT_ALLOCATE = 1 << 2,
    FILE_CANNOT_DISCARD = 1 << 3,       /* devices */
    FILE_CANNOT_ZERO_OUT = 1 << 4,
    FILE_CANNOT_SEEK_DATA = 1 << 5,
};

/* Which small reads try to do without the engine; file-io.c explains it. All atomic. */
typedef struct FileNowait {
    unsigned engine_left;       /* reads that go by the engine before another tries */
    unsigned tries_left;        /* reads that try before some go by the engine */
    unsigned penalty;           /* how many go by the engine after the next miss */
    unsigned depth, deepest;    /* by the engine at a time: now, and at most of late */
} FileNowait;

typedef struct FileState {
    int fd; /* the number stays when the file is opened anew: see file_replace_fd() */
    int open_flags;             /* access mode and O_DIRECT */
    bool device, direct;
    bool in_memory;             /* the file system has no disk: nothing waits but for memory */
    AioEngineKind engine;
    OnOffAuto locking;
    bool can_lock;
    char *filename;
    FileAlignment align;

    FileLocks locks;            /* main thread */
    int pending_fd;             /* opened for writing by check_perm, until set_perm; -1 */

    unsigned cannot;            /* FILE_CANNOT_*; atomic */
    int flush_error; /* of a flush that lost data of the page cache: negative errno; atomic */

    FileNowait nowait;
    /*
     * Writes that go by the engine after one into the page cache took long: now, after the next.
     * Atomic.
     */
    unsigned copy_skip, copy_penalty;

    Mutex status_lock;
    int64_t data_start, data_end;       /* known to be data: the last answer of SEEK_DATA */
} FileState;

/* file-io.c: the requests. */
int coroutine_fn file_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes, IOVector *qiov,
                                size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn file_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn file_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       BdrvRequestFlags flags);
int coroutine_fn file_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn file_co_flush(BlockDriverState *bs);
int coroutine_fn file_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                      int64_t bytes, int64_t *pnum, int64_t *map,
                                      BlockDriverState **file);
/* What is remembered of the status of the file does not hold any more. */
void file_forget_status(FileState *s);

/* file-resize.c: lengths, and making files. */
int64_t coroutine_fn file_co_getlength(BlockDriverState *bs);
int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs);
int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, Error **errp);
int coroutine_fn file_co_create(BlockdevCreateOptions *opts, Error **errp);
int coroutine_fn file_co_create_opts(const char *filename, uint64_t size, struct json_object *opts,
                                     Error **errp);
int coroutine_fn host_device_co_create_opts(const char *filename, uint64_t size,
                                            struct json_object *opts, Error **errp);

#endif
