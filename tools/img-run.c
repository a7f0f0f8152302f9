/*
 * How ferry-img works: coroutines in one or several threads, signals, progress, rates.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/img-common.h"
#include "util/iothread.h"

/* ---- workers ---- */

typedef struct Workers {
    CoroutineEntry *fn;
    void *opaque;
    unsigned running;           /* atomic */
} Workers;

static void coroutine_fn worker_entry(void *opaque)
{
    Workers *w = opaque;

    w->fn(w->opaque);
    __atomic_fetch_sub(&w->running, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

/* As many threads as make sense; fewer when the system gives no more. */
static GPtrArray *start_threads(unsigned n)
{
    GPtrArray *threads = g_ptr_array_new();

    n = MIN(n, g_get_num_processors());
    for (unsigned i = 0; n > 1 && i < n; i++) {
        g_autofree char *name = g_strdup_printf("worker%u", i);
        IOThread *t = iothread_new(name, 0, NULL);

        if (!t) {
            break;
        }
        g_ptr_array_add(threads, t);
    }
    return threads;
}

void img_run_workers(unsigned n, CoroutineEntry *fn, void *opaque, bool threads)
{
    Workers w = { .fn = fn, .opaque = opaque, .running = n };
    g_autoptr(GPtrArray) pool = start_threads(threads ? n : 0);

    for (unsigned i = 0; i < n; i++) {
        AioContext *ctx =
            pool->len ? iothread_context(pool->pdata[i % pool->len]) : aio_context_main();

        aio_co_schedule(ctx, coroutine_create(worker_entry, &w));
    }
    AIO_WAIT_WHILE(__atomic_load_n(&w.running, __ATOMIC_SEQ_CST) > 0);
    for (unsigned i = 0; i < pool->len; i++) {
        iothread_free(pool->pdata[i]);
    }
}

void img_run(CoroutineEntry *fn, void *opaque)
{
    aio_co_run(aio_context_main(), fn, opaque);
}

/* ---- signals ---- */

static int caught_signal;               /* atomic; 0: none */
static int progress_wanted;             /* atomic: SIGUSR1 came */
static char *unlink_at_signal;          /* atomic */

static void on_deadly_signal(int sig)
{
    char *path;

    if (__atomic_exchange_n(&caught_signal, sig, __ATOMIC_SEQ_CST) == 0) {
        return;
    }
    path = __atomic_load_n(&unlink_at_signal, __ATOMIC_SEQ_CST);
    if (path) {
        unlink(path);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void on_progress_signal(int sig)
{
    __atomic_store_n(&progress_wanted, 1, __ATOMIC_SEQ_CST);
}

void img_catch_signals(void)
{
    static const int deadly[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction sa = { .sa_handler = on_deadly_signal, .sa_flags = SA_RESTART };
    struct sigaction old;

    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < G_N_ELEMENTS(deadly); i++) {
        /* What nohup(1) or a shell's background ignores stays ignored. */
        if (sigaction(deadly[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(deadly[i], &sa, NULL);
        }
    }
    sa.sa_handler = on_progress_signal;
    sigaction(SIGUSR1, &sa, NULL);
}

bool img_interrupted(void)
{
    return __atomic_load_n(&caught_signal, __ATOMIC_RELAXED) != 0;
}

void img_die_of_signal(void)
{
    int sig = __atomic_load_n(&caught_signal, __ATOMIC_SEQ_CST);

    if (sig) {
        fflush(stdout);
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

void img_signal_unlink(const char *path)
{
    /* None is ever freed: a signal may be reading it. There are few. */
    static GSList *paths;
    char *copy = g_strdup(path);

    if (copy) {
        paths = g_slist_prepend(paths, copy);
    }
    __atomic_store_n(&unlink_at_signal, copy, __ATOMIC_SEQ_CST);
}

/* ---- progress ---- */

static struct {
    Mutex lock;
    bool active, show;
    int64_t total, done;
    double printed;             /* percent */
} progress;

static double percent_done(void)
{
    return progress.total > 0 ? MIN(100.0 * progress.done / progress.total, 100.0) : 100.0;
}

static void print_progress(FILE *to, char end)
{
    fprintf(to, "    (%3.2f/100%%)%c", percent_done(), end);
    fflush(to);
    progress.printed = percent_done();
}

void img_progress_begin(bool show, int64_t total)
{
    mutex_init(&progress.lock);
    progress.active = true;
    progress.show = show;
    progress.total = total;
    progress.done = 0;
    if (show) {
        print_progress(stdout, '\r');
    }
}

void img_progress_add(int64_t bytes)
{
    if (!progress.active) {
        return;
    }
    mutex_lock(&progress.lock);
    progress.done += bytes;
    if (progress.show && percent_done() - progress.printed >= 1) {
        print_progress(stdout, '\r');
    } else if (__atomic_exchange_n(&progress_wanted, 0, __ATOMIC_SEQ_CST) && !progress.show) {
        print_progress(stderr, '\n');
    }
    mutex_unlock(&progress.lock);
}

void img_progress_end(bool complete)
{
    if (progress.active && progress.show) {
        if (complete) {
            progress.done = progress.total;
            print_progress(stdout, '\r');
        }
        putchar('\n');
        fflush(stdout);
    }
    if (progress.active) {
        mutex_destroy(&progress.lock);
    }
    progress.active = false;
}

/* ---- rates ---- */

/* A long wait is cut, so that a signal ends it. */
#define RATE_SLEEP_MAX_NS (100 * 1000 * 1000)

void img_rate_init(ImgRate *rate, int64_t bytes_per_s)
{
    rate->bytes_per_s = bytes_per_s;
    rate->next_ns = 0;
    mutex_init(&rate->lock);
}

void coroutine_fn img_rate_wait(ImgRate *rate, int64_t bytes)
{
    int64_t now = aio_clock_ns(), mine;

    if (rate->bytes_per_s <= 0) {
        return;
    }
    mutex_lock(&rate->lock);
    mine = MAX(rate->next_ns, now);
    rate->next_ns = mine + (int64_t)((double)bytes / rate->bytes_per_s * 1e9);
    mutex_unlock(&rate->lock);
    while (now < mine && !img_interrupted()) {
        aio_co_sleep_ns(MIN(mine - now, RATE_SLEEP_MAX_NS));
        now = aio_clock_ns();
    }
}
