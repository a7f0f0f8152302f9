/*
 * Sending what is in the page cache without copying it: for exports of plain files.
 *
 * The socket gets references to the pages, so what the peer reads is what the file holds then, not
 * when it was sent. That is right for a reader of the disk as it is: its read is not over yet, and
 * may see what is written meanwhile. It would not be for a reader of a frozen copy; so only nodes
 * that are nothing but a file have a page cache here (BlockDriver.page_cache_fd).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/block-backend-internal.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

/* As the kernel has them (include/uapi/linux/mman.h). */
typedef struct CacheRange {
    uint64_t offset, length;
} CacheRange;

typedef struct CacheStat {
    uint64_t cached_pages, dirty, writeback, evicted, recently_evicted;
} CacheStat;

/*
 * A descriptor with the range in its file at *@offset; -1. When it is there, unlock() must follow.
 */
static int lock_file(BlockBackend *blk, int64_t *offset, int64_t bytes)
{
    BlockDriverState *bs;
    int fd = -1;

    blk_inc_in_flight(blk);
    bs = blk_bs(blk);
    if (!__atomic_load_n(&blk->quiesce_counter, __ATOMIC_SEQ_CST) && bs && bs->thread_safe &&
        bs->drv->page_cache_fd) {
        fd = bs->drv->page_cache_fd(bs, offset, bytes);
    }
    if (fd < 0) {
        blk_dec_in_flight(blk);
    }
    return fd;
}

static void unlock_file(BlockBackend *blk)
{
    blk_dec_in_flight(blk);
}

bool blk_is_cached(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    static int unusable;        /* atomic: the kernel does not tell us */
    long page = sysconf(_SC_PAGESIZE);
    CacheStat stat = { 0 };
    CacheRange range;
    int fd, ret;

    if (__atomic_load_n(&unusable, __ATOMIC_RELAXED)) {
        return false;
    }
    fd = lock_file(blk, &offset, bytes);
    if (fd < 0) {
        return false;
    }
    range = (CacheRange) { .offset = offset, .length = bytes };
    ret = syscall(SYS_cachestat, fd, &range, &stat, 0);
    if (ret < 0 && errno == ENOSYS) {
        __atomic_store_n(&unusable, 1, __ATOMIC_RELAXED);
    }
    unlock_file(blk);
    return ret == 0 &&
           stat.cached_pages == (uint64_t)((offset + bytes - 1) / page - offset / page + 1);
}

ssize_t blk_try_sendfile(BlockBackend *blk, int64_t offset, int64_t bytes, int sock)
{
    off_t at;
    ssize_t n;
    int fd = lock_file(blk, &offset, bytes);

    if (fd < 0) {
        return -ENOTSUP;
    }
    at = offset;
    n = sendfile(sock, fd, &at, bytes);
    if (n < 0) {
        n = -errno;
    }
    unlock_file(blk);
    return n == 0 ? -ENOTSUP : n;
}
