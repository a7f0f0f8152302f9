/*
 * The thread pool: results, many at once, blocking ones side by side, from several contexts.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/thread-pool.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>

#include "util/aio.h"
#include "util/iothread.h"
#include "util/mutex.h"

static AioContext *ctx;

typedef struct Work {
    int in;
    AioContext *home;
    pthread_t submitter;
    int *left;
} Work;

static int square(void *opaque)
{
    Work *w = opaque;

    g_assert_null(aio_current());
    g_assert_false(in_coroutine());
    g_assert_false(pthread_equal(pthread_self(), w->submitter));
    return w->in < 0 ? -ERANGE : w->in * w->in;
}

static void coroutine_fn submit(void *opaque)
{
    Work *w = opaque;

    w->submitter = pthread_self();
    g_assert_cmpint(thread_pool_submit_co(square, w), ==, w->in < 0 ? -ERANGE : w->in * w->in);
    g_assert_true(aio_current() == w->home);
    g_assert_true(pthread_equal(pthread_self(), w->submitter));
    if (w->left) {
        __atomic_sub_fetch(w->left, 1, __ATOMIC_RELEASE);
        aio_wait_kick();
    }
}

static void test_results(void)
{
    for (int i = -2; i < 100; i++) {
        Work w = { .in = i, .home = ctx };

        aio_co_run(ctx, submit, &w);
    }
}

static void test_many(void)
{
    enum { N = 2000 };
    IOThread *a = iothread_new("a", 0, &error_abort);
    g_autofree Work *works = g_new0(Work, N);
    int left = N;

    for (int i = 0; i < N; i++) {
        works[i] = (Work) { .in = i, .left = &left };
        works[i].home = i % 2 ? ctx : iothread_context(a);
        aio_co_schedule(works[i].home, coroutine_create(submit, &works[i]));
    }
    AIO_WAIT_WHILE(__atomic_load_n(&left, __ATOMIC_ACQUIRE) > 0);
    iothread_free(a);
}

/* As many as must meet before any goes on: they need a thread each. */
typedef struct Meeting {
    Mutex lock;
    Cond all_there;
    int there, want, left;
} Meeting;

static int meet(void *opaque)
{
    Meeting *m = opaque;
    gint64 deadline = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    bool in_time = true;

    mutex_lock(&m->lock);
    if (++m->there == m->want) {
        cond_broadcast(&m->all_there);
    }
    while (m->there < m->want && in_time) {
        in_time = cond_wait_until(&m->all_there, &m->lock, deadline);
    }
    mutex_unlock(&m->lock);
    return in_time ? 0 : -ETIMEDOUT;
}

static void coroutine_fn go_to_meeting(void *opaque)
{
    Meeting *m = opaque;

    g_assert_cmpint(thread_pool_submit_co(meet, m), ==, 0);
    m->left--;
}

static void test_side_by_side(void)
{
    for (int round = 0; round < 2; round++) {
        Meeting m = { .want = 64, .left = 64 };

        for (int i = 0; i < m.want; i++) {
            aio_co_enter(ctx, coroutine_create(go_to_meeting, &m));
        }
        while (m.left > 0) {
            aio_poll(ctx, true);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_main();
    g_test_add_func("/thread-pool/results", test_results);
    g_test_add_func("/thread-pool/many", test_many);
    g_test_add_func("/thread-pool/side-by-side", test_side_by_side);
    return g_test_run();
}
