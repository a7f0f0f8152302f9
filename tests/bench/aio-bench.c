/*
 * What the layers below the disks cost: a coroutine's switch, and reads of 4 KiB from the page
 * cache through each engine, beside the bare system calls (pread, and io_uring by liburing alone).
 *
 *     aio-bench [FILE]        (default: a file of 256 MiB in the current directory, which is removed)
 *
 * All ways take turns for a number of rounds; the best round of each is printed, with its ratio to
 * the better bare way of the same depth: time that passed, and the processor's time of all threads,
 * which says more on a machine that does other things too.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "util/aio-engine.h"
#include "util/iothread.h"

#define BLOCK 4096
#define ROUNDS 15
#define DEPTH_MAX 32

static int fd;
static uint64_t n_blocks;
static uint8_t *bufs;
static unsigned reads_left;
static uint32_t seed = 1;

static uint64_t next_offset(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed % n_blocks * BLOCK;
}

/*
 * Ways: each does reads_left reads, @depth at a time --------------------------------------------
 */

static void way_pread(unsigned depth)
{
    for (; reads_left > 0; reads_left--) {
        if (pread(fd, bufs, BLOCK, next_offset()) != BLOCK) {
            abort();
        }
    }
}

static void way_liburing(unsigned depth)
{
    static struct io_uring ring;
    unsigned in_flight = 0;
    struct io_uring_cqe *cqe;

    if (!ring.ring_fd && io_uring_queue_init(256, &ring, 0) < 0) {
        return;
    }
    while (reads_left > 0 || in_flight > 0) {
        unsigned head, n = 0;

        while (in_flight < depth && reads_left > 0) {
            io_uring_prep_read(io_uring_get_sqe(&ring), fd, bufs + in_flight * BLOCK, BLOCK,
                               next_offset());
            in_flight++;
            reads_left--;
        }
        io_uring_submit_and_wait(&ring, 1);
        io_uring_for_each_cqe(&ring, head, cqe) {
            n++;
        }
        io_uring_cq_advance(&ring, n);
        in_flight -= n;
    }
}

typedef struct Worker {
    AioEngineKind kind;
    uint8_t *buf;
    unsigned *running;
} Worker;

static void coroutine_fn work(void *opaque)
{
    Worker *w = opaque;
    struct iovec iov = { .iov_base = w->buf, .iov_len = BLOCK };

    while (reads_left > 0) {
        AioRequest req = {
            .op = AIO_OP_READ, .fd = fd, .offset = next_offset(), .bytes = BLOCK, .iov = &iov,
            .niov = 1,
        };

        reads_left--;
        if (aio_engine_co_submit(w->kind, &req) != BLOCK) {
            abort();
        }
    }
    __atomic_sub_fetch(w->running, 1, __ATOMIC_RELEASE);
    aio_wait_kick();
}

static void run_engine(AioEngineKind kind, AioContext *ctx, unsigned depth)
{
    Worker workers[DEPTH_MAX];
    unsigned running = depth;

    for (unsigned i = 0; i < depth; i++) {
        workers[i] = (Worker) { .kind = kind, .buf = bufs + i * BLOCK, .running = &running };
        aio_co_schedule(ctx, coroutine_create(work, &workers[i]));
    }
    AIO_WAIT_WHILE(__atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0);
}

static void way_io_uring(unsigned depth)
{
    run_engine(AIO_ENGINE_IO_URING, aio_context_main(), depth);
}

static IOThread *iothread;

static void way_io_uring_iothread(unsigned depth)
{
    run_engine(AIO_ENGINE_IO_URING, iothread_context(iothread), depth);
}

static void way_threads(unsigned depth)
{
    run_engine(AIO_ENGINE_THREADS, aio_context_main(), depth);
}

static int64_t cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void coroutine_fn yielder(void *opaque)
{
    for (;;) {
        coroutine_yield();
    }
}

static void coroutine_fn ender(void *opaque)
{
}

static void bench_coroutines(void)
{
    enum { N = 5000000 };
    Coroutine *co = coroutine_create(yielder, NULL);
    int64_t start = cpu_ns();

    for (int i = 0; i < N; i++) {
        coroutine_enter(co);
    }
    printf("coroutine: enter and yield        %6.1f ns\n", (double)(cpu_ns() - start) / N);
    start = cpu_ns();
    for (int i = 0; i < N; i++) {
        coroutine_enter(coroutine_create(ender, NULL));
    }
    printf("coroutine: create, enter, end     %6.1f ns\n", (double)(cpu_ns() - start) / N);
}

static int compare(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : 1;
}

static const struct {
    const char *name;
    void (*run)(unsigned depth);
    unsigned reads;
    bool bare;
} ways[] = {
    { "pread", way_pread, 20000, true },
    { "liburing alone", way_liburing, 20000, true },
    { "engine io_uring, main context", way_io_uring, 20000 },
    { "engine io_uring, iothread", way_io_uring_iothread, 20000 },
    { "engine threads", way_threads, 2000 },
};

static double least(double *values)
{
    qsort(values, ROUNDS, sizeof(double), compare);
    return values[0];
}

static void bench_reads(unsigned depth)
{
    double times[G_N_ELEMENTS(ways)][ROUNDS], cpu[G_N_ELEMENTS(ways)][ROUNDS];
    double best = G_MAXDOUBLE, best_cpu = G_MAXDOUBLE;

    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
            int64_t start = aio_clock_ns(), start_cpu = cpu_ns();

            reads_left = ways[i].reads;
            ways[i].run(depth);
            times[i][round] = (double)(aio_clock_ns() - start) / ways[i].reads;
            cpu[i][round] = (double)(cpu_ns() - start_cpu) / ways[i].reads;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        double ns = least(times[i]), ns_cpu = least(cpu[i]);

        if (ways[i].bare) {
            best = MIN(ns, best);
            best_cpu = MIN(ns_cpu, best_cpu);
        }
        printf("depth %2u  %-30s %7.0f ns a read (%4.2f), %7.0f ns of CPU (%4.2f)\n", depth,
               ways[i].name, ns, best / ns, ns_cpu, best_cpu / ns_cpu);
    }
}

static void prepare_file(const char *path)
{
    const uint64_t bytes = 256 << 20;
    char template[] = "aio-bench.XXXXXX";

    if (path) {
        struct stat st;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0) {
            fprintf(stderr, "aio-bench: %s: %s\n", path, strerror(errno));
            exit(1);
        }
        n_blocks = st.st_size / BLOCK;
    } else {
        fd = mkstemp(template);
        unlink(template);
        n_blocks = bytes / BLOCK;
        memset(bufs, 0x5a, BLOCK);
        for (uint64_t i = 0; i < n_blocks; i++) {
            if (pwrite(fd, bufs, BLOCK, i * BLOCK) != BLOCK) {
                abort();
            }
        }
    }
}

int main(int argc, char **argv)
{
    bufs = aligned_alloc(BLOCK, DEPTH_MAX * BLOCK);
    prepare_file(argv[1]);
    aio_context_main();
    iothread = iothread_new("bench", 0, &error_abort);
    bench_coroutines();
    bench_reads(1);
    bench_reads(DEPTH_MAX);
    iothread_free(iothread);
    return 0;
}
