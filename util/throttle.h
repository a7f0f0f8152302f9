/*
 * Limits on the rate of requests: leaky buckets.
 *
 * A bucket fills with what passes and leaks at the rate that is allowed. While it holds more than
 * it may, the next request waits. What it may hold is what may come at once: a tenth of a second's
 * worth, or, with a burst rate, what comes in burst-length seconds at that rate; then the burst
 * rate itself has a bucket, too.
 *
 * Pure arithmetic: the caller brings the time, keeps the order of requests, and locks.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_THROTTLE_H
#define UTIL_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/error.h"

/* No rate and no burst is larger. */
#define THROTTLE_VALUE_MAX INT64_C(1000000000000000)

typedef enum ThrottleBucketType {
    THROTTLE_BPS_TOTAL,
    THROTTLE_BPS_READ,
    THROTTLE_BPS_WRITE,
    THROTTLE_OPS_TOTAL,
    THROTTLE_OPS_READ,
    THROTTLE_OPS_WRITE,
    THROTTLE_BUCKETS,
} ThrottleBucketType;

typedef enum ThrottleDirection {
    THROTTLE_READ,
    THROTTLE_WRITE,
    THROTTLE_DIRECTIONS,
} ThrottleDirection;

/* The limits of one bucket, a second; 0: no limit. */
typedef struct ThrottleLimit {
    uint64_t avg;               /* in the long run */
    uint64_t max;               /* in bursts; 0: no bursts */
    uint64_t burst_length;      /* seconds that a burst may last, at least 1 */
} ThrottleLimit;

typedef struct ThrottleConfig {
    ThrottleLimit limits[THROTTLE_BUCKETS];
    uint64_t op_size;           /* a request counts once for each such many bytes; 0: once */
} ThrottleConfig;

typedef struct ThrottleState {
    ThrottleConfig cfg;
    double level[THROTTLE_BUCKETS];             /* units over the average rate */
    double burst_level[THROTTLE_BUCKETS];       /* units over the burst rate */
    int64_t leaked_ns;                          /* when the buckets last leaked */
} ThrottleState;

/* No limits. */
void throttle_config_init(ThrottleConfig *cfg);
/* Whether the limits make sense together; false with @errp set. */
bool throttle_config_check(const ThrottleConfig *cfg, Error **errp);
/* Whether there is any limit. */
bool throttle_enabled(const ThrottleConfig *cfg);

/* Take valid limits, with empty buckets, at time @now_ns. */
void throttle_configure(ThrottleState *ts, const ThrottleConfig *cfg, int64_t now_ns);
/* How long a request in that direction has to wait, in nanoseconds; 0: it may go. */
int64_t throttle_wait_ns(ThrottleState *ts, ThrottleDirection dir, int64_t now_ns);
/* A request of that many bytes goes. */
void throttle_account(ThrottleState *ts, ThrottleDirection dir, uint64_t bytes);

#endif
