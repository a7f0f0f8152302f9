/*
 * Coroutines without a loop: entering, yielding, nesting, many at once, registers, stacks used
 * again.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/coroutine.h"

#include <glib.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <xmmintrin.h>

static GString *trace;

static void coroutine_fn tracer(void *opaque)
{
    g_assert_true(in_coroutine());
    for (int i = 0; i < 3; i++) {
        g_string_append_printf(trace, "%s%d ", (char *)opaque, i);
        coroutine_yield();
    }
    g_string_append_printf(trace, "%s. ", (char *)opaque);
}

static void test_order(void)
{
    Coroutine *a = coroutine_create(tracer, (char *)"a");
    Coroutine *b = coroutine_create(tracer, (char *)"b");

    trace = g_string_new(NULL);
    g_assert_false(in_coroutine());
    g_assert_null(coroutine_self());
    g_assert_false(coroutine_entered(a));
    for (int i = 0; i < 4; i++) {
        coroutine_enter(a);
        g_string_append(trace, "| ");
        coroutine_enter(b);
        g_assert_false(in_coroutine());
    }
    g_assert_cmpstr(trace->str, ==, "a0 | b0 a1 | b1 a2 | b2 a. | b. ");
    g_string_free(trace, TRUE);
}

/* Depth @n below this one, each entered by the one above; all see themselves. */
static void coroutine_fn nester(void *opaque)
{
    int *n = opaque;
    Coroutine *self = coroutine_self();

    if (*n > 0) {
        int below = *n - 1;
        Coroutine *co = coroutine_create(nester, &below);

        coroutine_enter(co);
        g_assert_true(coroutine_self() == self);
        g_assert_true(coroutine_entered(self));
        g_assert_false(coroutine_entered(co));
        coroutine_yield();
        g_assert_true(coroutine_self() == self);
        coroutine_enter(co);
    } else {
        coroutine_yield();
    }
    *n = -1;
}

static void test_nesting(void)
{
    int n = 50;
    Coroutine *co = coroutine_create(nester, &n);

    coroutine_enter(co);
    g_assert_cmpint(n, ==, 50);
    coroutine_enter(co);
    g_assert_cmpint(n, ==, -1);
}

typedef struct Summer {
    Coroutine *co;
    uint64_t seed, sum;
    bool done;
} Summer;

/* Keep much in registers and on the stack across yields. */
static void coroutine_fn summer(void *opaque)
{
    Summer *s = opaque;
    uint64_t a = s->seed, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5;
    double x = a * 0.5;
    char local[512];

    memset(local, (char)a, sizeof(local));
    for (int i = 0; i < 20; i++) {
        a += b; b += c; c += d; d += e; e += f; f += i;
        x += 0.25;
        coroutine_yield();
        for (unsigned k = 0; k < sizeof(local); k++) {
            g_assert_cmpint(local[k], ==, (char)s->seed);
        }
    }
    g_assert_cmpfloat(x, ==, s->seed * 0.5 + 5);
    s->sum = a + b + c + d + e + f;
    s->done = true;
}

static uint64_t sum_of(uint64_t seed)
{
    uint64_t a = seed, b = a + 1, c = a + 2, d = a + 3, e = a + 4, f = a + 5;

    for (int i = 0; i < 20; i++) {
        a += b; b += c; c += d; d += e; e += f; f += i;
    }
    return a + b + c + d + e + f;
}

/* More than all pools hold, in changing order; twice, so that stacks are used again. */
#ifdef __SANITIZE_THREAD__
#define MANY 200                /* it has few fibers, and they are dear */
#else
#define MANY 1500
#endif

static void test_many(void)
{
    enum { N = MANY };
    g_autofree Summer *all = g_new0(Summer, N);

    for (int round = 0; round < 2; round++) {
        unsigned left = N;

        for (unsigned i = 0; i < N; i++) {
            all[i] = (Summer) { .seed = i + round * 7 };
            all[i].co = coroutine_create(summer, &all[i]);
        }
        for (unsigned at = 0; left > 0; at = (at + 7) % N) {
            if (!all[at].done) {
                coroutine_enter(all[at].co);
                left -= all[at].done;
            }
        }
        for (unsigned i = 0; i < N; i++) {
            g_assert_cmpuint(all[i].sum, ==, sum_of(all[i].seed));
        }
    }
}

#define ROUND_BITS 0x6000       /* of mxcsr */

static void coroutine_fn rounder(void *opaque)
{
    g_assert_cmphex(_mm_getcsr() & ROUND_BITS, ==, 0);
    _mm_setcsr(_mm_getcsr() | 0x4000);
    coroutine_yield();
    *(unsigned *)opaque = _mm_getcsr() & ROUND_BITS;
}

/* The floating point control is each one's own. */
static void test_rounding(void)
{
    unsigned mode = 0;
    Coroutine *co = coroutine_create(rounder, &mode);

    coroutine_enter(co);
    g_assert_cmphex(_mm_getcsr() & ROUND_BITS, ==, 0);
    coroutine_enter(co);
    g_assert_cmphex(mode, ==, 0x4000);
    g_assert_cmphex(_mm_getcsr() & ROUND_BITS, ==, 0);
}

static void coroutine_fn ender(void *opaque)
{
    (*(unsigned *)opaque)++;
}

static void *thread_of_coroutines(void *opaque)
{
    unsigned ended = 0;

    for (int i = 0; i < 2000; i++) {
        coroutine_enter(coroutine_create(ender, &ended));
    }
    g_assert_cmpuint(ended, ==, 2000);
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, thread_of_coroutines, NULL), ==, 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
}

typedef struct Mover {
    Coroutine *co;
    pthread_t seen[3];
} Mover;

static void coroutine_fn mover(void *opaque)
{
    Mover *m = opaque;

    for (int i = 0; i < 3; i++) {
        g_assert_true(coroutine_self() == m->co);
        m->seen[i] = pthread_self();
        coroutine_yield();
    }
}

static void *enter_once(void *opaque)
{
    Mover *m = opaque;

    coroutine_enter(m->co);
    g_assert_null(coroutine_self());
    return NULL;
}

/* One thread after the other runs it. */
static void test_moving(void)
{
    Mover m;
    pthread_t thread;

    m.co = coroutine_create(mover, &m);
    coroutine_enter(m.co);
    g_assert_cmpint(pthread_create(&thread, NULL, enter_once, &m), ==, 0);
    pthread_join(thread, NULL);
    coroutine_enter(m.co);
    coroutine_enter(m.co);
    g_assert_true(pthread_equal(m.seen[0], pthread_self()));
    g_assert_false(pthread_equal(m.seen[1], pthread_self()));
    g_assert_true(pthread_equal(m.seen[2], pthread_self()));
}

static void coroutine_fn deep(void *opaque)
{
    volatile char frame[200 * 1024];

    for (unsigned i = 0; i < sizeof(frame); i += 4096) {
        frame[sizeof(frame) - 1 - i] = 1;
    }
    *(bool *)opaque = frame[sizeof(frame) - 1];
}

static void test_deep(void)
{
    bool reached = false;

    coroutine_enter(coroutine_create(deep, &reached));
    g_assert_true(reached);
}

static void coroutine_fn self_enterer(void *opaque)
{
    coroutine_enter(coroutine_self());
}

static void test_misuse(void)
{
    if (g_test_subprocess()) {
        coroutine_enter(coroutine_create(self_enterer, NULL));
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*a coroutine was entered that is running*");
}

static void test_yield_outside(void)
{
    if (g_test_subprocess()) {
        coroutine_yield();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*outside of a coroutine*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/coroutine/order", test_order);
    g_test_add_func("/coroutine/nesting", test_nesting);
    g_test_add_func("/coroutine/many", test_many);
    g_test_add_func("/coroutine/rounding", test_rounding);
    g_test_add_func("/coroutine/threads", test_threads);
    g_test_add_func("/coroutine/moving", test_moving);
    g_test_add_func("/coroutine/deep", test_deep);
    g_test_add_func("/coroutine/misuse", test_misuse);
    g_test_add_func("/coroutine/yield-outside", test_yield_outside);
    return g_test_run();
}
