/*
 * Event loops: calls, timers, descriptors, nesting, and waking from everywhere.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/iothread.h"

#define MS INT64_C(1000000)

static AioContext *ctx;         /* the main one */

static void drain(void)
{
    while (aio_poll(ctx, false)) {
    }
}

static void make_pair(int pair[2])
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), ==,
                    0);
}

static void send_byte(int fd)
{
    g_assert_cmpint(write(fd, "x", 1), ==, 1);
}

static void take_byte(int fd)
{
    char c;

    g_assert_cmpint(read(fd, &c, 1), ==, 1);
}

static void set_flag(void *opaque)
{
    __atomic_store_n((int *)opaque, 1, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static int flag_of(int *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

/*
 * Calls for later -------------------------------------------------------------------------------
 */

static GString *trace;

static void call_b(void *opaque)
{
    g_string_append(trace, opaque);
}

static void call_a(void *opaque)
{
    g_string_append(trace, opaque);
    aio_bh_schedule_oneshot(ctx, call_b, (void *)"later");
}

static void test_calls(void)
{
    trace = g_string_new(NULL);
    aio_bh_schedule_oneshot(ctx, call_a, (void *)"1 ");
    aio_bh_schedule_oneshot(ctx, call_b, (void *)"2 ");
    aio_bh_schedule_oneshot(ctx, call_b, (void *)"3 ");
    g_assert_cmpstr(trace->str, ==, "");
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpstr(trace->str, ==, "1 2 3 ");
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpstr(trace->str, ==, "1 2 3 later");
    drain();
    g_assert_false(aio_poll(ctx, false));
    g_string_free(trace, TRUE);
}

static void nested_call(void *opaque)
{
    g_string_append(trace, "( ");
    while (trace->str[trace->len - 2] != 'z') {
        aio_poll(ctx, true);
    }
    g_string_append(trace, ") ");
}

/* The calls behind one that polls are run by that poll, once. */
static void test_nested_calls(void)
{
    trace = g_string_new(NULL);
    aio_bh_schedule_oneshot(ctx, nested_call, NULL);
    aio_bh_schedule_oneshot(ctx, call_b, (void *)"y ");
    aio_bh_schedule_oneshot(ctx, call_b, (void *)"z ");
    aio_poll(ctx, true);
    drain();
    g_assert_cmpstr(trace->str, ==, "( y z ) ");
    g_string_free(trace, TRUE);
}

/*
 * Timers ----------------------------------------------------------------------------------------
 */

typedef struct Tick {
    AioTimer *timer;
    int64_t deadline, fired;
    GArray *order;
    int id, again;
} Tick;

static void on_tick(void *opaque)
{
    Tick *tick = opaque;

    tick->fired = aio_clock_ns();
    g_assert_cmpint(tick->fired, >=, tick->deadline);
    g_assert_false(aio_timer_pending(tick->timer));
    g_array_append_val(tick->order, tick->id);
    if (tick->again-- > 0) {
        tick->deadline = tick->fired + MS / 2;
        aio_timer_mod(tick->timer, tick->deadline);
    }
}

/* In the order of their deadlines, never early, whatever the order of arming. */
static void test_timers(void)
{
    enum { N = 200 };
    g_autofree Tick *ticks = g_new0(Tick, N);
    g_autoptr(GArray) order = g_array_new(FALSE, FALSE, sizeof(int));
    int64_t now = aio_clock_ns();

    for (int i = 0; i < N; i++) {
        int place = i * 77 % N;

        ticks[i].order = order;
        ticks[i].id = place;
        ticks[i].timer = aio_timer_new(ctx, on_tick, &ticks[i]);
        aio_timer_mod(ticks[i].timer, now + 1000 * MS);
        ticks[i].deadline = now + 5 * MS + place * MS / 20;
        aio_timer_mod(ticks[i].timer, ticks[i].deadline);
        g_assert_true(aio_timer_pending(ticks[i].timer));
    }
    /* Some are taken out, from all over the heap. */
    for (int i = 0; i < N; i += 3) {
        aio_timer_del(ticks[i].timer);
        g_assert_false(aio_timer_pending(ticks[i].timer));
    }
    while (order->len < N - (N + 2) / 3) {
        aio_poll(ctx, true);
    }
    for (guint i = 1; i < order->len; i++) {
        g_assert_cmpint(g_array_index(order, int, i - 1), <, g_array_index(order, int, i));
    }
    for (int i = 0; i < N; i++) {
        g_assert_cmpint(ticks[i].fired != 0, ==, i % 3 != 0);
        aio_timer_free(ticks[i].timer);
    }
    aio_timer_free(NULL);
}

/* The main loop's sleep is GLib's, which knows milliseconds only. */
static void test_timers_glib(void)
{
    g_autoptr(GArray) order = g_array_new(FALSE, FALSE, sizeof(int));
    Tick tick = { .order = order, .again = 20 };
    int iterations = 0;

    tick.timer = aio_timer_new(ctx, on_tick, &tick);
    tick.deadline = aio_clock_ns() + MS / 2;
    aio_timer_mod(tick.timer, tick.deadline);
    while (order->len < 21) {
        g_main_context_iteration(NULL, TRUE);
        iterations++;
    }
    /* It sleeps between; a loop that spins needs thousands. */
    g_assert_cmpint(iterations, <, 21 * 10);
    aio_timer_free(tick.timer);
}

/*
 * Descriptors -----------------------------------------------------------------------------------
 */

typedef struct End {
    int fd, reads, writes;
    struct End *remove;
    bool keep_data, poll;
} End;

static void on_readable(void *opaque)
{
    End *end = opaque;

    end->reads++;
    if (!end->keep_data) {
        take_byte(end->fd);
    }
    if (end->poll) {
        end->poll = false;
        aio_poll(ctx, false);
    }
    if (end->remove) {
        aio_set_fd_handler(ctx, end->remove->fd, NULL, NULL, NULL);
        end->remove->fd = -1;
        end->remove = NULL;
    }
}

static void on_writable(void *opaque)
{
    End *end = opaque;

    end->writes++;
    aio_set_fd_handler(ctx, end->fd, on_readable, NULL, end);
}

static void test_handlers(void)
{
    int pair[2];
    End end = { 0 };

    make_pair(pair);
    end.fd = pair[0];
    aio_set_fd_handler(ctx, pair[0], on_readable, on_writable, &end);
    aio_poll(ctx, true);
    drain();
    g_assert_cmpint(end.writes, ==, 1);
    g_assert_cmpint(end.reads, ==, 0);

    send_byte(pair[1]);
    send_byte(pair[1]);
    drain();
    g_assert_cmpint(end.reads, ==, 2);

    /* Level-triggered: it is told for as long as there is something. */
    end.keep_data = true;
    send_byte(pair[1]);
    for (int i = 0; i < 5; i++) {
        g_assert_true(aio_poll(ctx, false));
    }
    g_assert_cmpint(end.reads, ==, 7);
    take_byte(pair[0]);

    /* A hang-up is readable. */
    close(pair[1]);
    g_assert_true(aio_poll(ctx, true));
    g_assert_cmpint(end.reads, ==, 8);
    aio_set_fd_handler(ctx, pair[0], NULL, NULL, NULL);
    g_assert_false(aio_poll(ctx, false));
    close(pair[0]);
}

/* Whichever of two ready ones runs first removes the other, which is not called any more. */
static void test_handlers_remove(void)
{
    for (int round = 0; round < 2; round++) {
        int a[2], b[2];
        End ends[2] = { { 0 } };

        make_pair(a);
        make_pair(b);
        ends[0] = (End) { .fd = a[0], .remove = &ends[round ? 0 : 1] };
        ends[1] = (End) { .fd = b[0], .remove = &ends[round ? 1 : 0] };
        aio_set_fd_handler(ctx, a[0], on_readable, NULL, &ends[0]);
        aio_set_fd_handler(ctx, b[0], on_readable, NULL, &ends[1]);
        send_byte(a[1]);
        send_byte(b[1]);
        drain();
        g_assert_cmpint(ends[0].reads + ends[1].reads, ==, round ? 2 : 1);
        for (int i = 0; i < 2; i++) {
            if (ends[i].fd >= 0) {
                aio_set_fd_handler(ctx, ends[i].fd, NULL, NULL, NULL);
            }
            close(a[i]);
            close(b[i]);
        }
    }
}

/* A handler polls; what is ready is handled there, and not a second time by the poll outside. */
static void test_handlers_nested(void)
{
    int pairs[8][2];
    End ends[8] = { { 0 } };

    for (int i = 0; i < 8; i++) {
        make_pair(pairs[i]);
        ends[i] = (End) { .fd = pairs[i][0], .poll = true };
        aio_set_fd_handler(ctx, pairs[i][0], on_readable, NULL, &ends[i]);
        send_byte(pairs[i][1]);
    }
    drain();
    for (int i = 0; i < 8; i++) {
        g_assert_cmpint(ends[i].reads, ==, 1);
        aio_set_fd_handler(ctx, pairs[i][0], NULL, NULL, NULL);
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

/* The same through GLib's loop, with another source beside. */
static void test_glib(void)
{
    int pair[2], flag = 0, flag2 = 0;
    End end = { 0 };

    make_pair(pair);
    end.fd = pair[0];
    aio_set_fd_handler(ctx, pair[0], on_readable, NULL, &end);
    send_byte(pair[1]);
    aio_bh_schedule_oneshot(ctx, set_flag, &flag);
    while (!flag || !end.reads) {
        g_main_context_iteration(NULL, TRUE);
    }
    aio_bh_schedule_oneshot(ctx, set_flag, &flag2);
    g_main_context_iteration(NULL, FALSE);
    g_assert_cmpint(flag2, ==, 1);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
    aio_set_fd_handler(ctx, pair[0], NULL, NULL, NULL);
    close(pair[0]);
    close(pair[1]);
}

/*
 * Coroutines that wait for descriptors ----------------------------------------------------------
 */

typedef struct Pipe {
    int fd;
    uint64_t bytes, waits;
    bool early, done;
    Coroutine *co;
} Pipe;

static void coroutine_fn reader(void *opaque)
{
    Pipe *p = opaque;
    char buf[1000];
    uint64_t got = 0;

    while (got < p->bytes) {
        ssize_t n = read(p->fd, buf, sizeof(buf));

        if (n < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            p->waits++;
            aio_co_wait_fd(p->fd, false);
            continue;
        }
        g_assert_cmpint(n, >, 0);
        for (ssize_t i = 0; i < n; i++) {
            g_assert_cmpint(buf[i], ==, (char)((got + i) % 199));
        }
        got += n;
    }
    aio_forget_fd(aio_current(), p->fd);
    p->done = true;
}

static void coroutine_fn writer(void *opaque)
{
    Pipe *p = opaque;
    uint64_t sent = 0;

    while (sent < p->bytes) {
        char buf[3001];
        size_t want = MIN(sizeof(buf), p->bytes - sent);
        ssize_t n;

        for (size_t i = 0; i < want; i++) {
            buf[i] = (sent + i) % 199;
        }
        n = write(p->fd, buf, want);
        if (n < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            p->waits++;
            aio_co_wait_fd(p->fd, true);
            continue;
        }
        sent += n;
    }
    aio_forget_fd(aio_current(), p->fd);
    p->done = true;
}

static void test_streams(void)
{
    enum { N = 10 };
    int pairs[N][2];
    Pipe in[N], out[N];
    bool done;

    for (int i = 0; i < N; i++) {
        make_pair(pairs[i]);
        in[i] = (Pipe) { .fd = pairs[i][0], .bytes = 2000000 };
        out[i] = (Pipe) { .fd = pairs[i][1], .bytes = 2000000 };
        aio_co_enter(ctx, coroutine_create(reader, &in[i]));
        aio_co_enter(ctx, coroutine_create(writer, &out[i]));
    }
    do {
        aio_poll(ctx, true);
        done = true;
        for (int i = 0; i < N; i++) {
            done &= in[i].done && out[i].done;
        }
    } while (!done);
    for (int i = 0; i < N; i++) {
        g_assert_cmpuint(in[i].waits, >, 0);
        g_assert_cmpuint(out[i].waits, >, 0);
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
}

static void coroutine_fn wait_once(void *opaque)
{
    Pipe *p = opaque;

    p->co = coroutine_self();
    aio_co_wait_fd(p->fd, false);
    p->done = true;
    aio_forget_fd(aio_current(), p->fd);
}

/* aio_co_wake() ends a wait; an event that comes in the same turn does no harm. */
static void test_wait_ended(void)
{
    for (int with_data = 0; with_data < 2; with_data++) {
        Pipe p = { 0 };
        int pair[2];

        make_pair(pair);
        p.fd = pair[0];
        aio_co_enter(ctx, coroutine_create(wait_once, &p));
        drain();
        g_assert_false(p.done);
        if (with_data) {
            send_byte(pair[1]);
        }
        aio_co_wake(p.co);
        g_assert_true(p.done);
        drain();
        close(pair[0]);
        close(pair[1]);
    }
}

/* A file is always ready. */
static void test_wait_file(void)
{
    Pipe p = { .fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC) };

    aio_co_enter(ctx, coroutine_create(wait_once, &p));
    g_assert_true(p.done);
    close(p.fd);
}

/*
 * Coroutines and contexts -----------------------------------------------------------------------
 */

typedef struct Sleep {
    int64_t ns;
    int *order, place;
} Sleep;

static void coroutine_fn sleeper(void *opaque)
{
    Sleep *s = opaque;
    int64_t start = aio_clock_ns();

    aio_co_sleep_ns(s->ns);
    g_assert_cmpint(aio_clock_ns() - start, >=, s->ns);
    s->place = ++*s->order;
}

static void test_sleep(void)
{
    int order = 0;
    Sleep a = { 200 * MS, &order }, b = { 10 * MS, &order }, c = { 0, &order }, d = { MS, &order };

    aio_co_enter(ctx, coroutine_create(sleeper, &a));
    aio_co_enter(ctx, coroutine_create(sleeper, &b));
    aio_co_enter(ctx, coroutine_create(sleeper, &c));
    aio_co_run(ctx, sleeper, &d);
    while (!a.place) {
        aio_poll(ctx, true);
    }
    g_assert_cmpint(c.place, <, d.place);
    g_assert_cmpint(a.place, ==, 4);
}

typedef struct Where {
    AioContext *want;
    int64_t sleep_ns;
    int ran, done;
} Where;

static void coroutine_fn where_am_i(void *opaque)
{
    Where *w = opaque;

    g_assert_true(aio_current() == w->want);
    g_assert_true(aio_co_context(coroutine_self()) == w->want);
    aio_co_sleep_ns(w->sleep_ns);
    g_assert_true(aio_current() == w->want);
    w->ran++;
}

static void *foreign_runner(void *opaque)
{
    Where *w = opaque;

    g_assert_null(aio_current());
    for (int i = 0; i < 100; i++) {
        aio_co_run(w->want, where_am_i, w);
    }
    g_assert_cmpint(w->ran, ==, 100);
    aio_bh_schedule_oneshot(aio_context_main(), set_flag, &w->done);
    return NULL;
}

/* From the main thread, from the iothread itself, and from a thread that has no context. */
static void run_in_iothread(void *opaque)
{
    Where *w = opaque;

    aio_co_run(aio_current(), where_am_i, w);
    set_flag(&w->done);
}

static void test_co_run(void)
{
    IOThread *iothread = iothread_new("runner", 0, &error_abort);
    AioContext *other = iothread_context(iothread);
    Where here = { .want = ctx }, there = { .want = other, .sleep_ns = MS / 10 };
    Where own = { .want = other }, foreign = { .want = other }, foreign2 = { .want = ctx };
    pthread_t threads[2];

    aio_co_run(ctx, where_am_i, &here);
    g_assert_cmpint(here.ran, ==, 1);
    for (int i = 0; i < 100; i++) {
        aio_co_run(other, where_am_i, &there);
    }
    g_assert_cmpint(there.ran, ==, 100);

    aio_bh_schedule_oneshot(other, run_in_iothread, &own);
    AIO_WAIT_WHILE(!flag_of(&own.done));

    pthread_create(&threads[0], NULL, foreign_runner, &foreign);
    pthread_create(&threads[1], NULL, foreign_runner, &foreign2);
    AIO_WAIT_WHILE(!flag_of(&foreign.done) || !flag_of(&foreign2.done));
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    iothread_free(iothread);
}

/* Coroutines that wander between threads, all at once. */
typedef struct Wanderer {
    AioContext **homes;
    unsigned n, rounds;
    unsigned *left;
} Wanderer;

static void coroutine_fn wander(void *opaque)
{
    Wanderer *w = opaque;
    unsigned seed = (uintptr_t)w / 64;

    for (unsigned i = 0; i < w->rounds; i++) {
        AioContext *home;

        seed = seed * 1103515245 + 12345;
        home = w->homes[seed / 65536 % w->n];
        aio_co_reschedule_self(home);
        g_assert_true(aio_current() == home);
    }
    __atomic_sub_fetch(w->left, 1, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void test_wander(void)
{
    enum { N = 50 };
    IOThread *a = iothread_new("a", 0, &error_abort), *b = iothread_new("b", 20000, &error_abort);
    AioContext *homes[] = { ctx, iothread_context(a), iothread_context(b) };
    Wanderer all[N];
    unsigned left = N;

    for (int i = 0; i < N; i++) {
        all[i] = (Wanderer) { .homes = homes, .n = 3, .rounds = 1000, .left = &left };
        aio_co_schedule(homes[i % 3], coroutine_create(wander, &all[i]));
    }
    AIO_WAIT_WHILE(__atomic_load_n(&left, __ATOMIC_ACQUIRE) > 0);
    iothread_free(a);
    iothread_free(b);
}

/*
 * The classical race: a coroutine lets another thread wake it, which does so while the coroutine is
 * on its way into the yield.
 */
typedef struct Echo {
    AioContext *waker;
    unsigned rounds;
    int done;
} Echo;

static void wake_it(void *opaque)
{
    aio_co_wake(opaque);
}

static void coroutine_fn echo(void *opaque)
{
    Echo *e = opaque;

    for (unsigned i = 0; i < e->rounds; i++) {
        aio_bh_schedule_oneshot(e->waker, wake_it, coroutine_self());
        coroutine_yield();
    }
    set_flag(&e->done);
}

static void test_wake_race(void)
{
    IOThread *a = iothread_new("a", 50000, &error_abort),
             *b = iothread_new("b", 50000, &error_abort);
    Echo e1 = { .waker = iothread_context(b), .rounds = 20000 };
    Echo e2 = { .waker = iothread_context(a), .rounds = 20000 };
    Echo e3 = { .waker = iothread_context(a), .rounds = 5000 };

    aio_co_schedule(iothread_context(a), coroutine_create(echo, &e1));
    aio_co_schedule(iothread_context(b), coroutine_create(echo, &e2));
    aio_co_schedule(ctx, coroutine_create(echo, &e3));
    AIO_WAIT_WHILE(!flag_of(&e1.done) || !flag_of(&e2.done) || !flag_of(&e3.done));
    iothread_free(a);
    iothread_free(b);
}

/* Many threads that schedule calls into a loop which keeps falling asleep: none is lost. */
typedef struct Storm {
    AioContext *target;
    int calls;
    int *count;
} Storm;

static void count_call(void *opaque)
{
    ++*(int *)opaque;           /* in the target's thread only */
}

static void *storm(void *opaque)
{
    Storm *s = opaque;

    for (int i = 0; i < s->calls; i++) {
        aio_bh_schedule_oneshot(s->target, count_call, s->count);
        if (i % 64 == 0) {
            usleep(50);         /* let it fall asleep */
        }
    }
    return NULL;
}

static void finish_storm(void *opaque)
{
    set_flag(opaque);
}

static void run_storm(AioContext *target, bool by_glib)
{
    enum { THREADS = 4, CALLS = 5000 };
    pthread_t threads[THREADS];
    int count = 0, done = 0;
    Storm s = { .target = target, .calls = CALLS, .count = &count };

    for (int i = 0; i < THREADS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, storm, &s), ==, 0);
    }
    if (target == ctx) {
        while (count < THREADS * CALLS) {
            if (by_glib) {
                g_main_context_iteration(NULL, TRUE);
            } else {
                aio_poll(ctx, true);
            }
        }
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    aio_bh_schedule_oneshot(target, finish_storm, &done);
    AIO_WAIT_WHILE(!flag_of(&done));
    g_assert_cmpint(count, ==, THREADS * CALLS);
}

static void test_storm(void)
{
    IOThread *iothread = iothread_new("storm", 0, &error_abort);
    IOThread *spinner = iothread_new("spinner", 32000, &error_abort);

    run_storm(ctx, false);
    run_storm(ctx, true);
    run_storm(iothread_context(iothread), false);
    run_storm(iothread_context(spinner), false);
    iothread_free(iothread);
    iothread_free(spinner);
}

/*
 * The main context's home moves with a lock, while the main thread sleeps in GLib's poll --------
 */

static pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;
static __thread bool big_lock_mine;

static bool holds_big_lock(void)
{
    return big_lock_mine;
}

static void take_big_lock(void)
{
    pthread_mutex_lock(&big_lock);
    big_lock_mine = true;
}

static void drop_big_lock(void)
{
    big_lock_mine = false;
    pthread_mutex_unlock(&big_lock);
}

static int poll_without_lock(GPollFD *fds, guint n, int timeout)
{
    int ret;

    drop_big_lock();
    ret = g_poll(fds, n, timeout);
    take_big_lock();
    return ret;
}

typedef struct Guest {
    IOThread *iothread;
    int done;
} Guest;

static void on_guest_timer(void *opaque)
{
    (*(int *)opaque)++;
}

/*
 * Like a vCPU: takes the lock now and then, waits for an iothread, arms timers, leaves calls
 * behind.
 */
static void *guest_thread(void *opaque)
{
    Guest *g = opaque;
    int ticks = 0;

    for (int i = 0; i < 300; i++) {
        Where w = { .want = iothread_context(g->iothread) };
        int flag = 0;
        AioTimer *timer;

        g_assert_null(aio_current());
        take_big_lock();
        g_assert_true(aio_current() == ctx);
        aio_co_run(iothread_context(g->iothread), where_am_i, &w);
        g_assert_cmpint(w.ran, ==, 1);
        timer = aio_timer_new(ctx, on_guest_timer, &ticks);
        aio_timer_mod(timer, aio_clock_ns() + MS / 10);
        aio_bh_schedule_oneshot(ctx, set_flag, &flag);
        drop_big_lock();

        /* The main thread must run both, from its sleep. */
        while (!flag_of(&flag)) {
            sched_yield();
        }
        for (bool fired = false; !fired;) {
            take_big_lock();
            fired = ticks == i + 1;
            drop_big_lock();
            sched_yield();
        }
        take_big_lock();
        aio_timer_free(timer);
        drop_big_lock();
    }
    aio_bh_schedule_oneshot(ctx, set_flag, &g->done);
    return NULL;
}

static void test_moving_home(void)
{
    Guest g = { 0 };
    pthread_t thread;

    g.iothread = iothread_new("moving", 0, &error_abort);
    take_big_lock();
    aio_set_main_home(holds_big_lock);
    g_main_context_set_poll_func(NULL, poll_without_lock);
    pthread_create(&thread, NULL, guest_thread, &g);
    while (!flag_of(&g.done)) {
        g_main_context_iteration(NULL, TRUE);
    }
    pthread_join(thread, NULL);
    g_main_context_set_poll_func(NULL, NULL);
    aio_set_main_home(NULL);
    drop_big_lock();
    iothread_free(g.iothread);
}

/*
 * A context of its own, by hand ------------------------------------------------------------------
 */

static void test_own_context(void)
{
    AioContext *own = aio_context_new(&error_abort);
    int flag = 0;

    g_assert_true(aio_current() == ctx);
    aio_set_current(own);
    g_assert_true(aio_current() == own);
    aio_context_set_poll_max_ns(own, 1000000);
    g_assert_cmpint(aio_context_poll_max_ns(own), ==, 1000000);
    aio_poll(own, false);
    aio_bh_schedule_oneshot(own, set_flag, &flag);
    aio_poll(own, true);
    g_assert_cmpint(flag, ==, 1);
    aio_set_current(NULL);
    aio_context_ref(own);
    aio_context_unref(own);
    aio_context_unref(own);
}

static void coroutine_fn wake_self_and_end(void *opaque)
{
    aio_co_wake(coroutine_self());
}

static void test_stale_wake(void)
{
    if (g_test_subprocess()) {
        aio_co_enter(ctx, coroutine_create(wake_self_and_end, NULL));
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*a coroutine ended that was to be woken again*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_main();
    g_test_add_func("/aio/calls", test_calls);
    g_test_add_func("/aio/calls/nested", test_nested_calls);
    g_test_add_func("/aio/timers", test_timers);
    g_test_add_func("/aio/timers/glib", test_timers_glib);
    g_test_add_func("/aio/handlers", test_handlers);
    g_test_add_func("/aio/handlers/remove", test_handlers_remove);
    g_test_add_func("/aio/handlers/nested", test_handlers_nested);
    g_test_add_func("/aio/glib", test_glib);
    g_test_add_func("/aio/wait/streams", test_streams);
    g_test_add_func("/aio/wait/ended", test_wait_ended);
    g_test_add_func("/aio/wait/file", test_wait_file);
    g_test_add_func("/aio/co/sleep", test_sleep);
    g_test_add_func("/aio/co/run", test_co_run);
    g_test_add_func("/aio/co/wander", test_wander);
    g_test_add_func("/aio/co/wake-race", test_wake_race);
    g_test_add_func("/aio/co/stale-wake", test_stale_wake);
    g_test_add_func("/aio/storm", test_storm);
    g_test_add_func("/aio/moving-home", test_moving_home);
    g_test_add_func("/aio/own-context", test_own_context);
    return g_test_run();
}
