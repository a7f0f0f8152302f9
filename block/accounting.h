/*
 * Counters of requests for query-blockstats.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_ACCOUNTING_H
#define BLOCK_ACCOUNTING_H

#include <stdbool.h>
#include <stdint.h>

typedef enum BlockAcctType {
    BLOCK_ACCT_READ,
    BLOCK_ACCT_WRITE,
    BLOCK_ACCT_FLUSH,
    BLOCK_ACCT_UNMAP,
    BLOCK_ACCT__MAX,
} BlockAcctType;

/* All atomic; zeroed memory is a fresh one. */
typedef struct BlockAcctStats {
    uint64_t bytes[BLOCK_ACCT__MAX];
    uint64_t ops[BLOCK_ACCT__MAX];
    uint64_t failed[BLOCK_ACCT__MAX];
    uint64_t invalid[BLOCK_ACCT__MAX];
    uint64_t total_time_ns[BLOCK_ACCT__MAX];
    uint64_t merged[BLOCK_ACCT__MAX];
    int64_t last_access_ns;
} BlockAcctStats;

/* On the stack of a request, from start to done or failed. */
typedef struct BlockAcctCookie {
    BlockAcctType type;
    int64_t bytes;
    int64_t start_ns;
} BlockAcctCookie;

/* Any thread. */
void block_acct_start(BlockAcctStats *stats, BlockAcctCookie *cookie, int64_t bytes,
                      BlockAcctType type);
void block_acct_done(BlockAcctStats *stats, BlockAcctCookie *cookie);
void block_acct_failed(BlockAcctStats *stats, BlockAcctCookie *cookie);
/* A request that was refused before it began. */
void block_acct_invalid(BlockAcctStats *stats, BlockAcctType type);
void block_acct_merge_done(BlockAcctStats *stats, BlockAcctType type, int num_requests);

#endif
