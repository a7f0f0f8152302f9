/*
 * Asynchronous I/O: one table of cases, run over every engine, buffered and direct, in the main
 * context and in an iothread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-engine.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/iothread.h"

#define BLOCK 4096

typedef struct Fixture {
    AioEngineKind kind;
    bool direct, iothread;
    char *path;
    int fd;
} Fixture;

/* What byte N of a file is: row[N % PERIOD], which is different in every block. */
#define PERIOD 4093
static uint8_t row[PERIOD];

static void fill(uint8_t *buf, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t at = offset % PERIOD, n = MIN(PERIOD - at, bytes);

        memcpy(buf, row + at, n);
        buf += n;
        offset += n;
        bytes -= n;
    }
}

static void check(const uint8_t *buf, uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t at = offset % PERIOD, n = MIN(PERIOD - at, bytes);

        if (memcmp(buf, row + at, n) != 0) {
            g_error("bytes %" PRIu64 " to %" PRIu64 " of the file are wrong", offset, offset + n);
        }
        buf += n;
        offset += n;
        bytes -= n;
    }
}

static void *alloc(uint64_t bytes)
{
    void *buf = NULL;

    g_assert_cmpint(posix_memalign(&buf, BLOCK, bytes), ==, 0);
    memset(buf, 0xee, bytes);
    return buf;
}

static int64_t coroutine_fn rw(Fixture *f, AioOp op, void *buf, uint64_t offset, uint64_t bytes)
{
    struct iovec iov = { .iov_base = buf, .iov_len = bytes };
    AioRequest req = {
        .op = op, .fd = f->fd, .offset = offset, .bytes = bytes, .iov = &iov, .niov = 1,
    };

    return aio_engine_co_submit(f->kind, &req);
}

/* What the file has there, read by the plain system call. */
static void check_file(Fixture *f, uint64_t offset, uint64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(pread(fd, buf, bytes, offset), ==, bytes);
    check(buf, offset, bytes);
    close(fd);
}

/* Make the file @bytes of the pattern long. */
static void make_file(Fixture *f, uint64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    int fd = open(f->path, O_WRONLY | O_TRUNC | O_CLOEXEC);

    fill(buf, 0, bytes);
    g_assert_cmpint(pwrite(fd, buf, bytes, 0), ==, bytes);
    close(fd);
}

/*
 * The cases -------------------------------------------------------------------------------------
 */

static void coroutine_fn case_write_read(Fixture *f)
{
    static const uint64_t sizes[] = { BLOCK, 8 * BLOCK, 1024 * 1024, 5 * BLOCK };
    uint64_t offset = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        uint8_t *buf = alloc(sizes[i]);

        fill(buf, offset, sizes[i]);
        g_assert_cmpint(rw(f, AIO_OP_WRITE, buf, offset, sizes[i]), ==, sizes[i]);
        check_file(f, offset, sizes[i]);
        memset(buf, 0, sizes[i]);
        g_assert_cmpint(rw(f, AIO_OP_READ, buf, offset, sizes[i]), ==, sizes[i]);
        check(buf, offset, sizes[i]);
        offset += sizes[i] + 3 * BLOCK;
        free(buf);
    }
    g_assert_cmpint(rw(f, AIO_OP_READ, NULL, 0, 0), ==, 0);
    g_assert_cmpint(rw(f, AIO_OP_WRITE, NULL, 0, 0), ==, 0);
}

/* More elements than a system call takes; each a block, so that direct I/O does it, too. */
static void coroutine_fn case_long_vector(Fixture *f)
{
    enum { N = 5000 };
    uint8_t *buf = alloc((uint64_t)N * BLOCK);
    g_autofree struct iovec *iov = g_new(struct iovec, N);
    AioRequest req = {
        .op = AIO_OP_WRITE, .fd = f->fd, .offset = BLOCK, .bytes = (uint64_t)N * BLOCK, .iov = iov,
        .niov = N,
    };

    G_STATIC_ASSERT(N > 4 * IOV_MAX);
    /* Backwards in memory, so that nothing merges. */
    for (unsigned i = 0; i < N; i++) {
        iov[i].iov_base = buf + (uint64_t)(N - 1 - i) * BLOCK;
        iov[i].iov_len = BLOCK;
        fill(iov[i].iov_base, BLOCK + (uint64_t)i * BLOCK, BLOCK);
    }
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, req.bytes);
    check_file(f, BLOCK, req.bytes);
    memset(buf, 0, (uint64_t)N * BLOCK);
    req.op = AIO_OP_READ;
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, req.bytes);
    for (unsigned i = 0; i < N; i++) {
        check(iov[i].iov_base, BLOCK + (uint64_t)i * BLOCK, BLOCK);
    }
    free(buf);
}

/* Elements of all sizes, at odd offsets. */
static void coroutine_fn case_odd_vector(Fixture *f)
{
    enum { N = 3000, SPACE = N * (N + 1) / 2 };
    g_autofree uint8_t *buf = g_malloc(SPACE);
    g_autofree struct iovec *iov = g_new(struct iovec, N);
    AioRequest req = { .op = AIO_OP_WRITE, .fd = f->fd, .offset = 777, .iov = iov, .niov = N };
    uint8_t *at = buf;

    if (f->direct) {
        return;
    }
    for (unsigned i = 0; i < N; i++) {
        iov[i].iov_base = at;
        iov[i].iov_len = i % 700;
        at += i % 700;
    }
    req.bytes = at - buf;
    fill(buf, 777, req.bytes);
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, req.bytes);
    check_file(f, 777, req.bytes);
    memset(buf, 0, SPACE);
    req.op = AIO_OP_READ;
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, req.bytes);
    check(buf, 777, req.bytes);
}

static void coroutine_fn case_end_of_file(Fixture *f)
{
    static const uint64_t lengths[] = { 3 * BLOCK, 3 * BLOCK + 512, 2 * BLOCK + 100 };
    uint8_t *buf = alloc(8 * BLOCK);

    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        make_file(f, lengths[i]);
        memset(buf, 0xee, 8 * BLOCK);
        g_assert_cmpint(rw(f, AIO_OP_READ, buf, BLOCK, 7 * BLOCK), ==, lengths[i] - BLOCK);
        check(buf, BLOCK, lengths[i] - BLOCK);
        g_assert_cmpuint(buf[7 * BLOCK], ==, 0xee);
        g_assert_cmpint(rw(f, AIO_OP_READ, buf, 4 * BLOCK, BLOCK), ==, 0);
    }
    free(buf);
}

static void coroutine_fn case_bad_fd(Fixture *f)
{
    AioRequest sync = { .op = AIO_OP_FSYNC, .fd = -1 };
    AioRequest hole = { .op = AIO_OP_FALLOCATE, .fd = -1, .bytes = BLOCK };
    uint8_t *buf = alloc(BLOCK);
    int good = f->fd;

    f->fd = -1;
    g_assert_cmpint(rw(f, AIO_OP_READ, buf, 0, BLOCK), ==, -EBADF);
    g_assert_cmpint(rw(f, AIO_OP_WRITE, buf, 0, BLOCK), ==, -EBADF);
    g_assert_cmpint(aio_engine_co_submit(f->kind, &sync), ==, -EBADF);
    g_assert_cmpint(aio_engine_co_submit(f->kind, &hole), ==, -EBADF);
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | (f->direct ? O_DIRECT : 0));
    g_assert_cmpint(rw(f, AIO_OP_WRITE, buf, 0, BLOCK), ==, -EBADF);
    close(f->fd);
    f->fd = good;
    free(buf);
}

static void coroutine_fn case_full(Fixture *f)
{
    uint8_t *buf = alloc(BLOCK);
    int good = f->fd;

    f->fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    g_assert_cmpint(rw(f, AIO_OP_WRITE, buf, 0, BLOCK), ==, -ENOSPC);
    close(f->fd);
    f->fd = good;
    free(buf);
}

static void coroutine_fn case_too_big(Fixture *f)
{
    uint8_t *buf = alloc(2 * BLOCK);
    struct rlimit old, limit;

    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    limit = old;
    limit.rlim_cur = 16 * BLOCK;
    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    g_assert_cmpint(rw(f, AIO_OP_WRITE, buf, 16 * BLOCK, BLOCK), ==, -EFBIG);
    /* The first half is written, then it fails: the caller is told of the failure. */
    g_assert_cmpint(rw(f, AIO_OP_WRITE, buf, 15 * BLOCK, 2 * BLOCK), ==, -EFBIG);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_cmpint(rw(f, AIO_OP_READ, buf, UINT64_C(1) << 63, BLOCK), ==, -EINVAL);
    free(buf);
}

static void coroutine_fn case_fsync(Fixture *f)
{
    AioRequest sync = { .op = AIO_OP_FSYNC, .fd = f->fd };
    uint8_t *buf = alloc(BLOCK);
    struct iovec iov = { .iov_base = buf, .iov_len = BLOCK };
    AioRequest fua = {
        .op = AIO_OP_WRITE,
        .fd = f->fd,
        .fua = true,
        .offset = 9 * BLOCK,
        .bytes = BLOCK,
        .iov = &iov,
        .niov = 1,
    };

    fill(buf, 9 * BLOCK, BLOCK);
    g_assert_cmpint(aio_engine_co_submit(f->kind, &fua), ==, BLOCK);
    g_assert_cmpint(aio_engine_co_submit(f->kind, &sync), ==, 0);
    check_file(f, 9 * BLOCK, BLOCK);
    free(buf);
}

static void coroutine_fn case_fallocate(Fixture *f)
{
    AioRequest req = { .op = AIO_OP_FALLOCATE, .fd = f->fd, .bytes = 64 * BLOCK };
    g_autofree uint8_t *zeros = g_malloc0(4 * BLOCK), *buf = g_malloc(4 * BLOCK);
    struct stat st;

    make_file(f, 16 * BLOCK);
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, 0);
    g_assert_cmpint(fstat(f->fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 64 * BLOCK);
    g_assert_cmpint(st.st_blocks, >=, 64 * BLOCK / 512);

    req.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    req.offset = 4 * BLOCK;
    req.bytes = 4 * BLOCK;
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, 0);
    check_file(f, 0, 4 * BLOCK);
    check_file(f, 8 * BLOCK, 8 * BLOCK);
    {
        int fd = open(f->path, O_RDONLY | O_CLOEXEC);

        g_assert_cmpint(pread(fd, buf, 4 * BLOCK, 4 * BLOCK), ==, 4 * BLOCK);
        close(fd);
    }
    g_assert_cmpmem(buf, 4 * BLOCK, zeros, 4 * BLOCK);

    req.bytes = 0;
    g_assert_cmpint(aio_engine_co_submit(f->kind, &req), ==, -EINVAL);
}

/* Many at once: more than a ring has room for. */
#define FLIGHTS 1100

typedef struct Flight {
    Fixture *f;
    unsigned i, *left;
    Coroutine *parent;
    AioOp op;
} Flight;

static void coroutine_fn fly(void *opaque)
{
    Flight *flight = opaque;
    uint64_t offset = (uint64_t)flight->i * BLOCK;
    uint8_t *buf = alloc(BLOCK);

    if (flight->op == AIO_OP_WRITE) {
        fill(buf, offset, BLOCK);
    }
    g_assert_cmpint(rw(flight->f, flight->op, buf, offset, BLOCK), ==, BLOCK);
    check(buf, offset, BLOCK);
    free(buf);
    if (--*flight->left == 0) {
        aio_co_wake(flight->parent);
    }
}

static void coroutine_fn fly_all(Fixture *f, AioOp op)
{
    g_autofree Flight *flights = g_new(Flight, FLIGHTS);
    unsigned left = FLIGHTS;

    for (unsigned i = 0; i < FLIGHTS; i++) {
        flights[i] = (Flight) {
            .f = f, .i = i, .left = &left, .parent = coroutine_self(), .op = op,
        };
        coroutine_enter(coroutine_create(fly, &flights[i]));
    }
    while (left > 0) {
        coroutine_yield();
    }
}

static void coroutine_fn case_many(Fixture *f)
{
    g_autofree uint8_t *zeros = g_malloc0(FLIGHTS * BLOCK);
    int fd = open(f->path, O_WRONLY | O_CLOEXEC);

    g_assert_cmpint(pwrite(fd, zeros, FLIGHTS * BLOCK, 0), ==, FLIGHTS * BLOCK);
    close(fd);
    fly_all(f, AIO_OP_WRITE);
    check_file(f, 0, FLIGHTS * BLOCK);
    fly_all(f, AIO_OP_READ);
}

/* A request after the other, in a row. */
static void coroutine_fn case_sequence(Fixture *f)
{
    uint8_t *buf = alloc(BLOCK);

    make_file(f, 64 * BLOCK);
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t offset = i * 37 % 64 * BLOCK;

        g_assert_cmpint(rw(f, AIO_OP_READ, buf, offset, BLOCK), ==, BLOCK);
        check(buf, offset, BLOCK);
    }
    free(buf);
}

static const struct {
    const char *name;
    void coroutine_fn (*run)(Fixture *f);
} cases[] = {
    { "write-read", case_write_read },
    { "long-vector", case_long_vector },
    { "odd-vector", case_odd_vector },
    { "end-of-file", case_end_of_file },
    { "bad-fd", case_bad_fd },
    { "full", case_full },
    { "too-big", case_too_big },
    { "fsync", case_fsync },
    { "fallocate", case_fallocate },
    { "many", case_many },
    { "sequence", case_sequence },
};

/*
 * Running them ----------------------------------------------------------------------------------
 */

typedef struct Case {
    unsigned index;
    Fixture fixture;
} Case;

static void coroutine_fn case_entry(void *opaque)
{
    Case *c = opaque;

    cases[c->index].run(&c->fixture);
}

static void run_case(gconstpointer data)
{
    Case c = *(const Case *)data;
    Fixture *f = &c.fixture;
    g_autoptr(Error) err = NULL;
    IOThread *iothread = NULL;
    int fd;

    if (!aio_engine_available(f->kind, &err)) {
        g_test_skip(error_get_pretty(err));
        return;
    }
    f->path = g_strdup("aio-engine.XXXXXX");
    fd = g_mkstemp(f->path);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    f->fd = open(f->path, O_RDWR | O_CLOEXEC | (f->direct ? O_DIRECT : 0));
    if (f->fd < 0 && errno == EINVAL) {
        g_test_skip("the file system has no direct I/O");
    } else {
        g_assert_cmpint(f->fd, >=, 0);
        if (f->iothread) {
            iothread = iothread_new("test", 0, &error_abort);
        }
        aio_co_run(iothread ? iothread_context(iothread) : aio_context_main(), case_entry, &c);
        if (iothread) {
            iothread_free(iothread);
        }
        close(f->fd);
    }
    g_unlink(f->path);
    g_free(f->path);
}

static void add_cases(AioEngineKind kind, bool direct, bool iothread)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strdup_printf("/aio-engine/%s/%s/%s/%s", aio_engine_name(kind),
                                                direct ? "direct" : "buffered",
                                                iothread ? "iothread" : "main", cases[i].name);
        Case *c = g_new(Case, 1);

        *c = (Case) {
            .index = i, .fixture = { .kind = kind, .direct = direct, .iothread = iothread },
        };
        g_test_add_data_func_full(name, c, run_case, g_free);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    aio_context_main();
    for (unsigned i = 0; i < PERIOD; i++) {
        row[i] = i * 7 + i / 256 * 31 + 1;
    }
    for (int kind = 0; kind < AIO_ENGINE__MAX; kind++) {
        for (int how = 0; how < 4; how++) {
            add_cases(kind, how & 1, how & 2);
        }
    }
    return g_test_run();
}
