/*
 * IOThreads: names, users, what runs in them, and how they end.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/iothread.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static void check_thread(void *opaque)
{
    IOThread *iothread = *(IOThread **)opaque;
    sigset_t blocked;
    char name[16];

    g_assert_cmpint(gettid(), ==, iothread_thread_id(iothread));
    g_assert_true(aio_current() == iothread_context(iothread));
    g_assert_cmpint(pthread_getname_np(pthread_self(), name, sizeof(name)), ==, 0);
    g_assert_cmpstr(name, ==, "IO disk-thread-");
    g_assert_cmpint(pthread_sigmask(SIG_SETMASK, NULL, &blocked), ==, 0);
    g_assert_true(sigismember(&blocked, SIGTERM));
}

static void coroutine_fn check_thread_co(void *opaque)
{
    check_thread(opaque);
}

static void test_thread(void)
{
    IOThread *iothread = iothread_new("disk-thread-number-1", 1234, &error_abort);

    g_assert_cmpstr(iothread_id(iothread), ==, "disk-thread-number-1");
    g_assert_cmpint(iothread_thread_id(iothread), !=, gettid());
    g_assert_cmpint(aio_context_poll_max_ns(iothread_context(iothread)), ==, 1234);
    aio_co_run(iothread_context(iothread), check_thread_co, &iothread);
    iothread_free(iothread);
}

static void collect(IOThread *iothread, void *opaque)
{
    g_string_append_printf(opaque, "%s ", iothread_id(iothread));
}

static void test_names(void)
{
    IOThread *a = iothread_new("a", 0, &error_abort), *b = iothread_new("b", 0, &error_abort);
    IOThread *c = iothread_new("c", 0, &error_abort);
    g_autoptr(GString) names = g_string_new(NULL);
    g_autoptr(Error) err = NULL;

    g_assert_null(iothread_new("b", 0, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "an iothread 'b' exists already");
    g_assert_true(iothread_by_id("b") == b);
    g_assert_null(iothread_by_id("d"));
    iothread_foreach(collect, names);
    g_assert_cmpstr(names->str, ==, "a b c ");
    iothread_free(b);
    g_assert_null(iothread_by_id("b"));
    g_string_truncate(names, 0);
    iothread_foreach(collect, names);
    g_assert_cmpstr(names->str, ==, "a c ");
    iothread_free(a);
    iothread_free(c);
    g_string_truncate(names, 0);
    iothread_foreach(collect, names);
    g_assert_cmpstr(names->str, ==, "");
}

static void test_users(void)
{
    IOThread *iothread = iothread_new("a", 0, &error_abort);

    g_assert_cmpuint(iothread_users(iothread), ==, 0);
    iothread_get(iothread);
    iothread_get(iothread);
    g_assert_cmpuint(iothread_users(iothread), ==, 2);
    iothread_put(iothread);
    iothread_put(iothread);
    g_assert_cmpuint(iothread_users(iothread), ==, 0);
    iothread_free(iothread);
}

static void add_one(void *opaque)
{
    ++*(int *)opaque;
}

/* What was scheduled before the end is run. */
static void test_end(void)
{
    for (int i = 0; i < 100; i++) {
        IOThread *iothread = iothread_new("a", i % 2 ? 100000 : 0, &error_abort);
        int count = 0;

        for (int k = 0; k < 20; k++) {
            aio_bh_schedule_oneshot(iothread_context(iothread), add_one, &count);
        }
        iothread_free(iothread);
        g_assert_cmpint(count, ==, 20);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    aio_context_main();
    g_test_add_func("/iothread/thread", test_thread);
    g_test_add_func("/iothread/names", test_names);
    g_test_add_func("/iothread/users", test_users);
    g_test_add_func("/iothread/end", test_end);
    return g_test_run();
}
