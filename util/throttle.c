/*
 * Limits on the rate of requests.
 *
 * A request is counted in full when it goes, however large it is; those behind it wait until what
 * it put into the bucket has leaked away. So no request is too large to pass.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/throttle.h"

#include <inttypes.h>
#include <string.h>

#define NS_PER_SEC 1e9
/* The share of a second that may come at once where bursts are not configured. */
#define SMOOTHING 10
/* Thirty years: a deadline so far away still fits. */
#define LONGEST_WAIT_NS INT64_C(1000000000000000000)

static const char *const bucket_names[THROTTLE_BUCKETS] = {
    "bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write",
};

/* The buckets that a direction goes through. */
static const ThrottleBucketType buckets_of[THROTTLE_DIRECTIONS][4] = {
    [THROTTLE_READ] = {
        THROTTLE_BPS_TOTAL, THROTTLE_OPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_OPS_READ,
    },
    [THROTTLE_WRITE] = {
        THROTTLE_BPS_TOTAL, THROTTLE_OPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_OPS_WRITE,
    },
};

/*
 * Configuration
 * -------------------------------------------------------------------------------------------
 */

void throttle_config_init(ThrottleConfig *cfg)
{
    memset(cfg, 0, sizeof(*cfg));
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        cfg->limits[i].burst_length = 1;
    }
}

bool throttle_enabled(const ThrottleConfig *cfg)
{
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        if (cfg->limits[i].avg > 0) {
            return true;
        }
    }
    return false;
}

static bool check_limit(const ThrottleLimit *limit, const char *name, Error **errp)
{
    if (limit->avg > THROTTLE_VALUE_MAX || limit->max > THROTTLE_VALUE_MAX) {
        error_setg(errp, "%s and %s-max must lie within 0 and %" PRId64, name, name,
                   THROTTLE_VALUE_MAX);
    } else if (limit->burst_length == 0) {
        error_setg(errp, "%s-max-length cannot be 0", name);
    } else if (limit->burst_length > 1 && limit->max == 0) {
        error_setg(errp, "%s-max-length without %s-max", name, name);
    } else if (limit->max > 0 && limit->burst_length > THROTTLE_VALUE_MAX / limit->max) {
        error_setg(errp, "%s-max-length is too long for such a %s-max", name, name);
    } else if (limit->max > 0 && limit->avg == 0) {
        error_setg(errp, "%s-max requires %s", name, name);
    } else if (limit->max > 0 && limit->max < limit->avg) {
        error_setg(errp, "%s-max cannot be lower than %s", name, name);
    } else {
        return true;
    }
    return false;
}

/* A total and one of its parts: which of them would hold? */
static bool check_total(const ThrottleConfig *cfg, ThrottleBucketType total, Error **errp)
{
    const ThrottleLimit *l = cfg->limits + total;

    if ((l[0].avg && (l[1].avg || l[2].avg)) || (l[0].max && (l[1].max || l[2].max))) {
        error_setg(errp, "%s and %s or %s cannot be used at the same time", bucket_names[total],
                   bucket_names[total + 1], bucket_names[total + 2]);
        return false;
    }
    return true;
}

bool throttle_config_check(const ThrottleConfig *cfg, Error **errp)
{
    const ThrottleLimit *ops = cfg->limits + THROTTLE_OPS_TOTAL;

    if (!check_total(cfg, THROTTLE_BPS_TOTAL, errp) ||
        !check_total(cfg, THROTTLE_OPS_TOTAL, errp)) {
        return false;
    }
    if (cfg->op_size && !ops[0].avg && !ops[1].avg && !ops[2].avg) {
        error_setg(errp, "iops-size requires a value for iops");
        return false;
    }
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        if (!check_limit(&cfg->limits[i], bucket_names[i], errp)) {
            return false;
        }
    }
    return true;
}

void throttle_configure(ThrottleState *ts, const ThrottleConfig *cfg, int64_t now_ns)
{
    memset(ts, 0, sizeof(*ts));
    ts->cfg = *cfg;
    ts->leaked_ns = now_ns;
}

/*
 * Time
 * -------------------------------------------------------------------------------------------------
 */

static void leak(ThrottleState *ts, int64_t now_ns)
{
    double seconds = (now_ns - ts->leaked_ns) / NS_PER_SEC;

    if (seconds <= 0) {
        return;
    }
    ts->leaked_ns = now_ns;
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        const ThrottleLimit *limit = &ts->cfg.limits[i];

        ts->level[i] -= limit->avg * seconds;
        ts->burst_level[i] -= limit->max * seconds;
        ts->level[i] = ts->level[i] > 0 ? ts->level[i] : 0;
        ts->burst_level[i] = ts->burst_level[i] > 0 ? ts->burst_level[i] : 0;
    }
}

/* Until the bucket has leaked down to @size units. At least 1 when it has to. */
static int64_t drain_ns(double level, double size, uint64_t rate)
{
    double ns = (level - size) / rate * NS_PER_SEC;

    if (ns <= 0) {
        return 0;
    }
    return ns < LONGEST_WAIT_NS ? (int64_t)ns + 1 : LONGEST_WAIT_NS;
}

static int64_t bucket_wait_ns(const ThrottleState *ts, ThrottleBucketType i)
{
    const ThrottleLimit *limit = &ts->cfg.limits[i];
    int64_t wait, burst_wait;

    if (limit->avg == 0) {
        return 0;
    }
    if (limit->max == 0) {
        return drain_ns(ts->level[i], (double)limit->avg / SMOOTHING, limit->avg);
    }
    wait = drain_ns(ts->level[i], (double)limit->max * limit->burst_length, limit->avg);
    if (limit->burst_length == 1) {
        return wait;
    }
    burst_wait = drain_ns(ts->burst_level[i], (double)limit->max / SMOOTHING, limit->max);
    return burst_wait > wait ? burst_wait : wait;
}

int64_t throttle_wait_ns(ThrottleState *ts, ThrottleDirection dir, int64_t now_ns)
{
    int64_t longest = 0;

    leak(ts, now_ns);
    for (int i = 0; i < 4; i++) {
        int64_t wait = bucket_wait_ns(ts, buckets_of[dir][i]);

        longest = wait > longest ? wait : longest;
    }
    return longest;
}

void throttle_account(ThrottleState *ts, ThrottleDirection dir, uint64_t bytes)
{
    double ops = 1;

    if (ts->cfg.op_size && bytes > ts->cfg.op_size) {
        ops = (double)bytes / ts->cfg.op_size;
    }
    for (int i = 0; i < 4; i++) {
        ThrottleBucketType b = buckets_of[dir][i];
        double units = b < THROTTLE_OPS_TOTAL ? (double)bytes : ops;

        ts->level[b] += units;
        ts->burst_level[b] += units;
    }
}
