/*
 * Locks of coroutines, in one loop and between threads.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/coroutine-lock.h"

#include <glib.h>
#include <string.h>

#include "util/aio.h"
#include "util/iothread.h"

static AioContext *ctx;
static GString *trace;

static void drain(void)
{
    while (aio_poll(ctx, false)) {
    }
}

typedef struct Party {
    const char *name;
    CoMutex *mutex;
    CoQueue *queue;
    CoRwlock *rwlock;
    Coroutine *co;
} Party;

static void say(Party *p, const char *what)
{
    g_string_append_printf(trace, "%s%s ", p->name, what);
}

/* In the order in which they come, whoever yields while holding it. */
static void coroutine_fn mutex_user(void *opaque)
{
    Party *p = opaque;

    co_mutex_lock(p->mutex);
    say(p, "+");
    coroutine_yield();
    say(p, "-");
    co_mutex_unlock(p->mutex);
}

static void test_mutex_order(void)
{
    CoMutex mutex;
    Party parties[3];

    trace = g_string_new(NULL);
    co_mutex_init(&mutex);
    for (int i = 0; i < 3; i++) {
        parties[i] = (Party) { .name = (const char *[]) { "a", "b", "c" }[i], .mutex = &mutex };
        parties[i].co = coroutine_create(mutex_user, &parties[i]);
        aio_co_enter(ctx, parties[i].co);
    }
    g_assert_true(co_mutex_is_locked(&mutex));
    for (int i = 0; i < 3; i++) {
        aio_co_wake(parties[i].co);
        drain();
    }
    g_assert_cmpstr(trace->str, ==, "a+ a- b+ b- c+ c- ");
    g_assert_false(co_mutex_is_locked(&mutex));
    g_string_free(trace, TRUE);
}

/* Between threads: a counter that is not atomic, and everybody's turn. */
typedef struct Counter {
    CoMutex mutex;
    CoRwlock rwlock;
    uint64_t value, mirror;
    int left;
} Counter;

static void leave(Counter *c)
{
    __atomic_sub_fetch(&c->left, 1, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void coroutine_fn count(void *opaque)
{
    Counter *c = opaque;

    for (int i = 0; i < 1000; i++) {
        uint64_t seen;

        co_mutex_lock(&c->mutex);
        seen = c->value;
        if (i % 16 == 0) {
            aio_co_sleep_ns(100);
        }
        c->value = seen + 1;
        co_mutex_unlock(&c->mutex);
    }
    leave(c);
}

static void coroutine_fn read_or_write(void *opaque)
{
    Counter *c = opaque;

    for (int i = 0; i < 1000; i++) {
        bool write = i % 5 == 0;

        if (write) {
            co_rwlock_wrlock(&c->rwlock);
            c->value++;
            if (i % 50 == 0) {
                aio_co_sleep_ns(100);
            }
            c->mirror++;
        } else {
            co_rwlock_rdlock(&c->rwlock);
            g_assert_cmpuint(c->value, ==, c->mirror);
            if (i % 16 == 0) {
                aio_co_sleep_ns(100);
            }
            g_assert_cmpuint(c->value, ==, c->mirror);
        }
        co_rwlock_unlock(&c->rwlock);
    }
    leave(c);
}

static void run_between_threads(Counter *c, CoroutineEntry *fn, int n)
{
    IOThread *a = iothread_new("a", 0, &error_abort), *b = iothread_new("b", 10000, &error_abort);
    AioContext *homes[] = { ctx, iothread_context(a), iothread_context(b) };

    c->left = n;
    for (int i = 0; i < n; i++) {
        aio_co_schedule(homes[i % 3], coroutine_create(fn, c));
    }
    AIO_WAIT_WHILE(__atomic_load_n(&c->left, __ATOMIC_ACQUIRE) > 0);
    iothread_free(a);
    iothread_free(b);
}

static void test_mutex_threads(void)
{
    Counter c = { .left = 0 };

    run_between_threads(&c, count, 12);
    g_assert_cmpuint(c.value, ==, 12000);
    g_assert_false(co_mutex_is_locked(&c.mutex));
}

static void test_rwlock_threads(void)
{
    Counter c = { .left = 0 };

    run_between_threads(&c, read_or_write, 12);
    g_assert_cmpuint(c.value, ==, 12 * 200);
}

/* A queue with and without a mutex. */
static void coroutine_fn queue_user(void *opaque)
{
    Party *p = opaque;

    if (p->mutex) {
        co_mutex_lock(p->mutex);
    }
    say(p, "?");
    co_queue_wait(p->queue, p->mutex);
    say(p, "!");
    if (p->mutex) {
        g_assert_true(co_mutex_is_locked(p->mutex));
        co_mutex_unlock(p->mutex);
    }
}

static void test_queue(void)
{
    for (int with_mutex = 0; with_mutex < 2; with_mutex++) {
        CoMutex mutex = { 0 };
        CoQueue queue;
        Party parties[4];

        trace = g_string_new(NULL);
        co_queue_init(&queue);
        g_assert_true(co_queue_empty(&queue));
        g_assert_false(co_queue_next(&queue));
        for (int i = 0; i < 4; i++) {
            parties[i] = (Party) {
                .name = (const char *[]) { "a", "b", "c", "d" }[i], .queue = &queue,
                .mutex = with_mutex ? &mutex : NULL,
            };
            aio_co_enter(ctx, coroutine_create(queue_user, &parties[i]));
        }
        g_assert_false(co_queue_empty(&queue));
        g_assert_false(co_mutex_is_locked(&mutex));
        g_assert_true(co_queue_next(&queue));
        drain();
        g_assert_cmpstr(trace->str, ==, "a? b? c? d? a! ");
        co_queue_restart_all(&queue);
        drain();
        g_assert_cmpstr(trace->str, ==, "a? b? c? d? a! b! c! d! ");
        g_assert_true(co_queue_empty(&queue));
        g_string_free(trace, TRUE);
    }
}

/* Readers share; a writer that waits is not overtaken by readers that come later. */
static void coroutine_fn rw_user(void *opaque)
{
    Party *p = opaque;

    if (p->name[0] == 'w') {
        co_rwlock_wrlock(p->rwlock);
    } else {
        co_rwlock_rdlock(p->rwlock);
    }
    say(p, "+");
    coroutine_yield();
    say(p, "-");
    co_rwlock_unlock(p->rwlock);
}

static void test_rwlock_order(void)
{
    static const char *const names[] = { "r1", "r2", "w1", "r3", "r4", "w2", "w3" };
    CoRwlock lock;
    Party parties[G_N_ELEMENTS(names)];

    trace = g_string_new(NULL);
    co_rwlock_init(&lock);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        parties[i] = (Party) { .name = names[i], .rwlock = &lock };
        parties[i].co = coroutine_create(rw_user, &parties[i]);
        aio_co_enter(ctx, parties[i].co);
    }
    g_assert_cmpstr(trace->str, ==, "r1+ r2+ ");
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        aio_co_wake(parties[i].co);
        drain();
    }
    g_assert_cmpstr(trace->str, ==, "r1+ r2+ r1- r2- w1+ w1- r3+ r4+ r3- r4- w2+ w2- w3+ w3- ");
    g_string_free(trace, TRUE);
}

/* A bounded buffer between producers and consumers in different threads. */
typedef struct Buffer {
    Counter c;
    CoQueue not_empty, not_full;
    unsigned n, max, produced, consumed;
} Buffer;

static void coroutine_fn produce(Buffer *b)
{
    for (int i = 0; i < 1000; i++) {
        co_mutex_lock(&b->c.mutex);
        while (b->n == 3) {
            co_queue_wait(&b->not_full, &b->c.mutex);
        }
        b->n++;
        b->produced++;
        b->max = MAX(b->max, b->n);
        co_queue_next(&b->not_empty);
        co_mutex_unlock(&b->c.mutex);
    }
}

static void coroutine_fn consume(Buffer *b)
{
    for (int i = 0; i < 1000; i++) {
        co_mutex_lock(&b->c.mutex);
        while (b->n == 0) {
            co_queue_wait(&b->not_empty, &b->c.mutex);
        }
        b->n--;
        b->consumed++;
        co_queue_next(&b->not_full);
        co_mutex_unlock(&b->c.mutex);
    }
}

static void coroutine_fn produce_or_consume(void *opaque)
{
    Buffer *b = opaque;
    static int role;            /* atomic */

    if (__atomic_fetch_add(&role, 1, __ATOMIC_RELAXED) % 2) {
        produce(b);
    } else {
        consume(b);
    }
    leave(&b->c);
}

static void test_buffer(void)
{
    Buffer b = { .n = 0 };

    run_between_threads(&b.c, produce_or_consume, 10);
    g_assert_cmpuint(b.produced, ==, 5000);
    g_assert_cmpuint(b.consumed, ==, 5000);
    g_assert_cmpuint(b.n, ==, 0);
    g_assert_cmpuint(b.max, ==, 3);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_main();
    g_test_add_func("/coroutine-lock/mutex/order", test_mutex_order);
    g_test_add_func("/coroutine-lock/mutex/threads", test_mutex_threads);
    g_test_add_func("/coroutine-lock/queue", test_queue);
    g_test_add_func("/coroutine-lock/rwlock/order", test_rwlock_order);
    g_test_add_func("/coroutine-lock/rwlock/threads", test_rwlock_threads);
    g_test_add_func("/coroutine-lock/buffer", test_buffer);
    return g_test_run();
}
