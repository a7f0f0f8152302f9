/*
 * Leaky buckets, on a clock that the test turns.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/throttle.h"

#include <glib.h>

#define SECOND INT64_C(1000000000)

typedef struct Clocked {
    ThrottleState ts;
    int64_t now, start;
    uint64_t done;
} Clocked;

static ThrottleConfig limit(ThrottleBucketType bucket, uint64_t avg, uint64_t max, uint64_t length)
{
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    cfg.limits[bucket] = (ThrottleLimit){ .avg = avg, .max = max, .burst_length = length };
    g_assert_true(throttle_config_check(&cfg, &error_abort));
    return cfg;
}

static void begin(Clocked *c, const ThrottleConfig *cfg)
{
    *c = (Clocked){ .now = 77 * SECOND, .start = 77 * SECOND };
    throttle_configure(&c->ts, cfg, c->now);
}

/* Requests one after the other, as fast as allowed, until @ns after the beginning. */
static void run_until(Clocked *c, ThrottleDirection dir, uint64_t bytes, int64_t ns)
{
    while (true) {
        int64_t wait = throttle_wait_ns(&c->ts, dir, c->now);

        g_assert_cmpint(wait, >=, 0);
        if (c->now + wait > c->start + ns) {
            c->now = c->start + ns;
            return;
        }
        c->now += wait;
        if (wait == 0) {
            throttle_account(&c->ts, dir, bytes);
            c->done += bytes;
        }
    }
}

static void expect_about(double is, double should, double tolerance)
{
    if (is < should * (1 - tolerance) || is > should * (1 + tolerance)) {
        g_error("%g is not about %g", is, should);
    }
}

static void test_rate(void)
{
    static const uint64_t sizes[] = { 512, 4096, 65536, 1048576, 10 * 1048576 };

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        ThrottleConfig cfg = limit(THROTTLE_BPS_TOTAL, 10000000, 0, 1);
        Clocked c;

        begin(&c, &cfg);
        run_until(&c, THROTTLE_READ, sizes[i], 100 * SECOND);
        expect_about(c.done, 1e9, 0.02);
    }
}

static void test_iops(void)
{
    ThrottleConfig cfg = limit(THROTTLE_OPS_READ, 100, 0, 1);
    Clocked c;

    begin(&c, &cfg);
    run_until(&c, THROTTLE_READ, 1, 50 * SECOND);
    expect_about(c.done, 5000, 0.01);
    /* Writes have no limit. */
    for (int i = 0; i < 100000; i++) {
        g_assert_cmpint(throttle_wait_ns(&c.ts, THROTTLE_WRITE, c.now), ==, 0);
        throttle_account(&c.ts, THROTTLE_WRITE, 1 << 30);
    }
    /* A large request counts as several. */
    cfg.op_size = 4096;
    begin(&c, &cfg);
    run_until(&c, THROTTLE_READ, 65536, 160 * SECOND);
    expect_about(c.done, 65536 * 1000, 0.01);
    begin(&c, &cfg);
    run_until(&c, THROTTLE_READ, 1, 50 * SECOND);
    expect_about(c.done, 5000, 0.01);
}

static void test_total(void)
{
    ThrottleConfig cfg = limit(THROTTLE_OPS_TOTAL, 1000, 0, 1);
    Clocked c;

    begin(&c, &cfg);
    for (int i = 1; i <= 100; i++) {
        run_until(&c, i % 2 ? THROTTLE_READ : THROTTLE_WRITE, 1, i * SECOND / 10);
    }
    expect_about(c.done, 10000, 0.02);
}

static void test_burst(void)
{
    ThrottleConfig cfg = limit(THROTTLE_BPS_WRITE, 1000, 10000, 5);
    Clocked c;

    /* The burst rate for its length, then the average. */
    begin(&c, &cfg);
    run_until(&c, THROTTLE_WRITE, 10, 5 * SECOND);
    expect_about(c.done, 50000, 0.03);
    run_until(&c, THROTTLE_WRITE, 10, 105 * SECOND);
    expect_about(c.done, 50000 + 5000 + 100000, 0.03);
    /* After a rest there is another burst. */
    c.now += 100 * SECOND;
    c.start = c.now;
    c.done = 0;
    run_until(&c, THROTTLE_WRITE, 10, 4 * SECOND);
    expect_about(c.done, 40000, 0.03);

    /* A burst of one second may come at once. */
    cfg = limit(THROTTLE_BPS_WRITE, 1000, 10000, 1);
    begin(&c, &cfg);
    run_until(&c, THROTTLE_WRITE, 10, 0);
    expect_about(c.done, 10000, 0.01);
    run_until(&c, THROTTLE_WRITE, 10, 100 * SECOND);
    expect_about(c.done, 110000, 0.01);
}

/* Numbers at the end of what is allowed do not overflow. */
static void test_extremes(void)
{
    ThrottleConfig cfg = limit(THROTTLE_BPS_TOTAL, 1, THROTTLE_VALUE_MAX, 1);
    Clocked c;

    begin(&c, &cfg);
    for (int i = 0; i < 100; i++) {
        throttle_account(&c.ts, THROTTLE_READ, INT64_MAX);
    }
    g_assert_cmpint(throttle_wait_ns(&c.ts, THROTTLE_READ, c.now), >, 1000000 * SECOND);
    g_assert_cmpint(throttle_wait_ns(&c.ts, THROTTLE_READ, c.now), <, INT64_MAX / 2);
    /* A clock that stands still or runs backwards does no harm. */
    g_assert_cmpint(throttle_wait_ns(&c.ts, THROTTLE_READ, 0), >, 0);
}

static void refuse(const ThrottleConfig *cfg, const char *text)
{
    Error *err = NULL;

    g_assert_false(throttle_config_check(cfg, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, text);
    error_free(err);
}

static void test_check(void)
{
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    g_assert_true(throttle_config_check(&cfg, &error_abort));
    g_assert_false(throttle_enabled(&cfg));
    cfg.limits[THROTTLE_BPS_TOTAL].avg = 1;
    g_assert_true(throttle_enabled(&cfg));
    cfg.limits[THROTTLE_BPS_WRITE].avg = 1;
    refuse(&cfg, "bps-total and bps-read or bps-write cannot be used at the same time");

    throttle_config_init(&cfg);
    cfg.op_size = 1;
    refuse(&cfg, "iops-size requires a value for iops");

    throttle_config_init(&cfg);
    ThrottleLimit *l = &cfg.limits[THROTTLE_OPS_READ];
    l->avg = THROTTLE_VALUE_MAX + 1;
    refuse(&cfg, "iops-read and iops-read-max must lie within 0 and 1000000000000000");
    *l = (ThrottleLimit){ .avg = 10, .burst_length = 0 };
    refuse(&cfg, "iops-read-max-length cannot be 0");
    *l = (ThrottleLimit){ .avg = 10, .burst_length = 2 };
    refuse(&cfg, "iops-read-max-length without iops-read-max");
    *l = (ThrottleLimit){ .avg = 10, .max = 100, .burst_length = THROTTLE_VALUE_MAX };
    refuse(&cfg, "iops-read-max-length is too long for such a iops-read-max");
    *l = (ThrottleLimit){ .max = 100, .burst_length = 1 };
    refuse(&cfg, "iops-read-max requires iops-read");
    *l = (ThrottleLimit){ .avg = 10, .max = 9, .burst_length = 1 };
    refuse(&cfg, "iops-read-max cannot be lower than iops-read");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/throttle/rate", test_rate);
    g_test_add_func("/throttle/iops", test_iops);
    g_test_add_func("/throttle/total", test_total);
    g_test_add_func("/throttle/burst", test_burst);
    g_test_add_func("/throttle/extremes", test_extremes);
    g_test_add_func("/throttle/check", test_check);
    return g_test_run();
}
