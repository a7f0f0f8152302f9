/*
 * The main loop and the big lock: who holds it when, order of posted calls, waiting with a
 * deadline.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include "system/bql.h"
#include "system/main-loop.h"

#define THREADS 4
#define POSTS 2000

static unsigned next_of[THREADS];
static int posts_done;

static void in_order(void *opaque)
{
    unsigned value = GPOINTER_TO_UINT(opaque);
    unsigned thread = value / POSTS;

    g_assert_true(bql_locked());
    g_assert_true(main_loop_is_main_thread());
    g_assert_cmpuint(value % POSTS, ==, next_of[thread]);
    next_of[thread]++;
    if (++posts_done == THREADS * POSTS) {
        main_loop_quit(7);
        main_loop_quit(8);
    }
}

static gpointer poster(gpointer opaque)
{
    unsigned thread = GPOINTER_TO_UINT(opaque);

    g_assert_false(main_loop_is_main_thread());
    for (unsigned i = 0; i < POSTS; i++) {
        if (i % 3 == 0) {
            /* With the lock held, too: nothing may wait for the main thread here. */
            bql_lock();
            main_loop_post(in_order, GUINT_TO_POINTER(thread * POSTS + i));
            bql_unlock();
        } else {
            main_loop_post(in_order, GUINT_TO_POINTER(thread * POSTS + i));
        }
    }
    return NULL;
}

static void test_post(void)
{
    GThread *threads[THREADS];

    bql_lock();
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = g_thread_new("poster", poster, GUINT_TO_POINTER(i));
    }
    g_assert_cmpint(main_loop_run(), ==, 7);
    g_assert_true(bql_locked());
    bql_unlock();
    for (unsigned i = 0; i < THREADS; i++) {
        g_thread_join(threads[i]);
        g_assert_cmpuint(next_of[i], ==, POSTS);
    }
}

static pthread_cond_t cond;
static bool flag;

static gpointer signaller(gpointer opaque)
{
    bql_lock();
    flag = true;
    pthread_cond_broadcast(&cond);
    bql_unlock();
    return NULL;
}

static void test_cond(void)
{
    g_autoptr(GThread) thread = NULL;
    int64_t begin = g_get_monotonic_time();

    bql_cond_init(&cond);
    bql_lock();
    while (bql_cond_wait_until(&cond, begin + 2000)) {
        g_assert_true(bql_locked());
    }
    g_assert_cmpint(g_get_monotonic_time(), >=, begin + 2000);

    thread = g_thread_new("signaller", signaller, NULL);
    while (!flag) {
        bql_cond_wait(&cond);
        g_assert_true(bql_locked());
    }
    bql_unlock();
    g_thread_join(g_steal_pointer(&thread));
    pthread_cond_destroy(&cond);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    g_test_add_func("/main-loop/post", test_post);
    g_test_add_func("/main-loop/cond", test_cond);
    return g_test_run();
}
