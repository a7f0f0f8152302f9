/*
 * Counters of requests: each request adds to its kind once, when it ends, from whichever thread
 * ended it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/accounting.h"

#include "util/aio.h"

static void add(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, int64_t bytes,
                      BlockAcctType type)
{
    cookie->type = type;
    cookie->bytes = bytes;
    cookie->start_ns = aio_clock_ns();
}

/* How long the request took, and that the disk was in use until now. */
static uint64_t end_request(BlockAcctStats *stats, const BlockAcctCookie *cookie)
{
    int64_t now_ns = aio_clock_ns();

    __atomic_store_n(&stats->last_access_ns, now_ns, __ATOMIC_RELAXED);
    return now_ns - cookie->start_ns;
}

void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    add(&stats->total_time_ns[cookie->type], end_request(stats, cookie));
    add(&stats->bytes[cookie->type], cookie->bytes);
    add(&stats->ops[cookie->type], 1);
}

void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie)
{
    add(&stats->total_time_ns[cookie->type], end_request(stats, cookie));
    add(&stats->failed[cookie->type], 1);
}

void block_acct_invalid(BlockAcctStats *stats, BlockAcctType type)
{
    __atomic_store_n(&stats->last_access_ns, aio_clock_ns(), __ATOMIC_RELAXED);
    add(&stats->invalid[type], 1);
}

void block_acct_merge_done(BlockAcctStats *stats, BlockAcctType type, int num_requests)
{
    add(&stats->merged[type], num_requests);
}
