/*
 * Every kind of channel does the same thing: one table of cases run over one table of kinds.
 *
 * A kind makes a Pair: what is written to `src` can be read from `dst`. Cases know of a kind only
 * whether it is a stream (which waits, and ends when src ends) or has positions.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/channel-buffer.h"
#include "io/channel-command.h"
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "io/channel.h"
#include "util/iov.h"

typedef struct Pair {
    QIOChannel *src;
    QIOChannel *dst;
    char *path;         /* to unlink, or NULL */
} Pair;

typedef struct Kind {
    const char *name;
    bool stream;
    void (*make)(Pair *p);
} Kind;

static void make_buffer(Pair *p)
{
    p->src = QIO_CHANNEL(qio_channel_buffer_new(0));
    p->dst = qio_channel_ref(p->src);
}

static void make_file(Pair *p)
{
    int fd = g_file_open_tmp("ferry-test-XXXXXX", &p->path, NULL);

    p->src = QIO_CHANNEL(qio_channel_file_new_fd(fd, &error_abort));
    p->dst = QIO_CHANNEL(qio_channel_file_new_path(p->path, O_RDONLY, 0, &error_abort));
}

static void make_pipe(Pair *p)
{
    int fds[2];

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    p->src = QIO_CHANNEL(qio_channel_file_new_fd(fds[1], &error_abort));
    p->dst = QIO_CHANNEL(qio_channel_file_new_fd(fds[0], &error_abort));
}

static void make_command(Pair *p)
{
    static const char *const cat[] = { "cat", NULL };

    p->src = QIO_CHANNEL(qio_channel_command_new_spawn(cat, O_RDWR, &error_abort));
    p->dst = qio_channel_ref(p->src);
}

/* Listen on @addr, connect to it, accept. */
static void make_socket(Pair *p, const char *uri)
{
    g_autoptr(SocketAddress) addr = socket_parse(uri, &error_abort);
    QIOChannelSocket *listener = qio_channel_socket_listen_sync(addr, 1, &error_abort);
    g_autoptr(SocketAddress) real = qio_channel_socket_get_local_address(listener, &error_abort);

    p->src = QIO_CHANNEL(qio_channel_socket_connect_sync(real, -1, &error_abort));
    p->dst = QIO_CHANNEL(qio_channel_socket_accept(listener, &error_abort));
    qio_channel_unref(QIO_CHANNEL(listener));
}

static void make_tcp(Pair *p)
{
    make_socket(p, "127.0.0.1:0");
}

static void make_unix(Pair *p)
{
    g_autofree char *dir = g_dir_make_tmp("ferry-test-XXXXXX", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", dir);

    make_socket(p, uri);
    /* The listening socket has removed its path. */
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static const Kind kinds[] = {
    { "buffer", false, make_buffer },
    { "command", true, make_command },
    { "file", false, make_file },
    { "pipe", true, make_pipe },
    { "tcp", true, make_tcp },
    { "unix", true, make_unix },
};

static const Kind *kind;

static Pair pair_new(void)
{
    Pair p = { 0 };

    kind->make(&p);
    g_assert_cmpint(qio_channel_has_feature(p.src, QIO_CHANNEL_FEATURE_SEEKABLE), ==,
                    !kind->stream);
    return p;
}

/* Nothing more will be written; for a kind with positions, go back to where reading begins. */
static void pair_end_src(Pair *p)
{
    if (kind->stream) {
        g_assert_cmpint(qio_channel_shutdown(p->src, QIO_CHANNEL_SHUTDOWN_WRITE, &error_abort),
                        ==, 0);
    } else {
        g_assert_cmpint(qio_channel_io_seek(p->dst, 0, SEEK_SET, &error_abort), ==, 0);
    }
}

/* A command that a case has left in the middle is cancelled, so that closing does not wait. */
static void pair_free(Pair *p)
{
    qio_channel_shutdown(p->dst, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    qio_channel_shutdown(p->src, QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    qio_channel_unref(p->src);
    qio_channel_unref(p->dst);
    if (p->path) {
        g_unlink(p->path);
        g_free(p->path);
    }
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] = (i * 131 + seed + (i >> 8) * 7) & 0xff;
    }
}

/* What is written arrives, whatever the cut of the vectors, with empty elements in them. */
static void case_vectors(void)
{
    uint8_t data[100], back[100];
    Pair p = pair_new();
    struct iovec out[] = {
        { NULL, 0 }, { data, 1 }, { data + 1, 60 }, { NULL, 0 }, { data + 61, 39 }, { NULL, 0 },
    };
    struct iovec in[] = { { back, 0 }, { back, 50 }, { back + 50, 0 }, { back + 50, 50 } };

    fill(data, sizeof(data), 1);
    g_assert_cmpint(qio_channel_writev_all(p.src, out, G_N_ELEMENTS(out), &error_abort), ==, 0);
    pair_end_src(&p);
    g_assert_cmpint(qio_channel_readv_all(p.dst, in, G_N_ELEMENTS(in), &error_abort), ==, 0);
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    pair_free(&p);
}

/* More elements than one system call takes. */
static void case_many_elements(void)
{
    enum { N = 3000 };
    uint8_t data[N], back[N];
    g_autofree struct iovec *out = g_new(struct iovec, N);
    g_autofree struct iovec *in = g_new(struct iovec, N);
    Pair p = pair_new();

    fill(data, N, 5);
    for (int i = 0; i < N; i++) {
        out[i] = (struct iovec) { data + i, 1 };
        in[i] = (struct iovec) { back + i, 1 };
    }
    g_assert_cmpint(qio_channel_writev_all(p.src, out, N, &error_abort), ==, 0);
    pair_end_src(&p);
    g_assert_cmpint(qio_channel_readv_all(p.dst, in, N, &error_abort), ==, 0);
    g_assert_cmpmem(data, N, back, N);
    pair_free(&p);
}

static void case_end_of_file(void)
{
    uint8_t buf[10] = "abc";
    Pair p = pair_new();
    g_autoptr(Error) err = NULL;
    g_autoptr(Error) err2 = NULL;

    g_assert_cmpint(qio_channel_write_all(p.src, buf, 3, &error_abort), ==, 0);
    pair_end_src(&p);
    g_assert_cmpint(qio_channel_read_all_eof(p.dst, buf, 4, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Unexpected end-of-file before all data were read");
    /* Now it is at its end: clean for one function, an error for the other. */
    g_assert_cmpint(qio_channel_read_all_eof(p.dst, buf, 4, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_read_all(p.dst, buf, 4, &err2), ==, -1);
    g_assert_cmpstr(error_get_pretty(err2), ==,
                    "Unexpected end-of-file before all data were read");
    g_assert_cmpint(qio_channel_read(p.dst, buf, 4, &error_abort), ==, 0);
    /* Reading nothing succeeds, also here. */
    g_assert_cmpint(qio_channel_read_all(p.dst, buf, 0, &error_abort), ==, 0);
    pair_free(&p);
}

#define BIG (4 << 20)

static gpointer write_big(gpointer opaque)
{
    Pair *p = opaque;
    g_autofree uint8_t *data = g_malloc(BIG);
    struct iovec iov[] = { { data, BIG / 4 + 1 }, { data + BIG / 4 + 1, BIG - BIG / 4 - 1 } };

    fill(data, BIG, 9);
    g_assert_cmpint(qio_channel_writev_all(p->src, iov, 2, &error_abort), ==, 0);
    if (kind->stream) {
        pair_end_src(p);
    }
    return NULL;
}

static void big(bool blocking)
{
    Pair p = pair_new();
    g_autofree uint8_t *want = g_malloc(BIG);
    g_autofree uint8_t *got = g_malloc(BIG);

    qio_channel_set_blocking(p.src, blocking, &error_abort);
    qio_channel_set_blocking(p.dst, blocking, &error_abort);
    GThread *writer = g_thread_new("writer", write_big, &p);
    if (!kind->stream) {
        g_thread_join(g_steal_pointer(&writer));
        pair_end_src(&p);
    }
    g_assert_cmpint(qio_channel_read_all(p.dst, got, BIG, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_read_all_eof(p.dst, got, 1, &error_abort), ==, 0);
    if (writer) {
        g_thread_join(writer);
    }
    fill(want, BIG, 9);
    got[0] = want[0];
    g_assert_cmpmem(got, BIG, want, BIG);
    pair_free(&p);
}

static void case_big_blocking(void)
{
    big(true);
}

static void case_big_non_blocking(void)
{
    big(false);
}

/* A stream with nothing in it says so, and a wait for it ends when it gets something. */
static void case_non_blocking(void)
{
    Pair p = pair_new();
    char buf[4];

    if (!kind->stream) {
        g_assert_true(qio_channel_wait_timeout(p.dst, G_IO_IN, 0));
        g_assert_true(qio_channel_wait_timeout(p.src, G_IO_OUT, 0));
        pair_free(&p);
        return;
    }
    qio_channel_set_blocking(p.dst, false, &error_abort);
    g_assert_cmpint(qio_channel_read(p.dst, buf, 4, &error_abort), ==, QIO_CHANNEL_ERR_BLOCK);
    g_assert_false(qio_channel_wait_timeout(p.dst, G_IO_IN, 0));
    g_assert_true(qio_channel_wait_timeout(p.src, G_IO_OUT, 0));
    qio_channel_write_all(p.src, "x", 1, &error_abort);
    qio_channel_wait(p.dst, G_IO_IN);
    g_assert_cmpint(qio_channel_read(p.dst, buf, 4, &error_abort), ==, 1);
    g_assert_cmpint(buf[0], ==, 'x');

    /* Fill it: at some point there is no more room. */
    static const char zeros[65536];
    qio_channel_set_blocking(p.src, false, &error_abort);
    ssize_t n;
    while ((n = qio_channel_write(p.src, zeros, sizeof(zeros), &error_abort)) > 0) {
        continue;
    }
    g_assert_cmpint(n, ==, QIO_CHANNEL_ERR_BLOCK);
    pair_free(&p);
}

typedef struct Sleeper {
    QIOChannel *ioc;
    bool writes;
    bool waits;
    gint tid;
    gint done;
    ssize_t result;
} Sleeper;

static gpointer sleeper_run(gpointer opaque)
{
    static const char zeros[65536];
    Sleeper *s = opaque;
    char buf[16];

    g_atomic_int_set(&s->tid, syscall(SYS_gettid));
    if (s->waits) {
        qio_channel_wait(s->ioc, G_IO_IN);
    } else if (s->writes) {
        do {
            s->result = qio_channel_write_all(s->ioc, zeros, sizeof(zeros), NULL);
        } while (s->result == 0);
    } else {
        s->result = qio_channel_read_all_eof(s->ioc, buf, sizeof(buf), NULL);
    }
    g_atomic_int_set(&s->done, 1);
    return NULL;
}

/* Return when the thread sleeps in a system call. */
static void sleeper_wait_asleep(Sleeper *s)
{
    while (!g_atomic_int_get(&s->tid)) {
        g_thread_yield();
    }
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/stat", g_atomic_int_get(&s->tid));
    for (;;) {
        g_autofree char *stat = NULL;

        g_assert_true(g_file_get_contents(path, &stat, NULL, NULL));
        if (strrchr(stat, ')')[2] == 'S') {
            return;
        }
        g_thread_yield();
    }
}

static void wake(bool writes, bool waits, QIOChannelShutdown first, QIOChannelShutdown how)
{
    Pair p = pair_new();
    Sleeper s = { .ioc = writes ? p.src : p.dst, .writes = writes, .waits = waits };

    if (kind->stream) {
        GThread *thread;

        if (first != how) {
            qio_channel_shutdown(s.ioc, first, &error_abort);
        }
        thread = g_thread_new("sleeper", sleeper_run, &s);
        sleeper_wait_asleep(&s);
        g_assert_cmpint(g_atomic_int_get(&s.done), ==, 0);
        g_assert_cmpint(qio_channel_shutdown(s.ioc, how, &error_abort), ==, 0);
        g_thread_join(thread);
        g_assert_cmpint(s.result, ==, writes ? -1 : 0);
    }
    pair_free(&p);
}

static void case_wake_reader(void)
{
    wake(false, false, QIO_CHANNEL_SHUTDOWN_READ, QIO_CHANNEL_SHUTDOWN_READ);
    wake(false, false, QIO_CHANNEL_SHUTDOWN_BOTH, QIO_CHANNEL_SHUTDOWN_BOTH);
}

static void case_wake_writer(void)
{
    wake(true, false, QIO_CHANNEL_SHUTDOWN_WRITE, QIO_CHANNEL_SHUTDOWN_WRITE);
    wake(true, false, QIO_CHANNEL_SHUTDOWN_BOTH, QIO_CHANNEL_SHUTDOWN_BOTH);
    /* One direction ended before: the other still sleeps, and still can be woken. */
    wake(true, false, QIO_CHANNEL_SHUTDOWN_READ, QIO_CHANNEL_SHUTDOWN_WRITE);
}

static void case_wake_waiter(void)
{
    wake(false, true, QIO_CHANNEL_SHUTDOWN_READ, QIO_CHANNEL_SHUTDOWN_READ);
}

static void case_after_shutdown(void)
{
    Pair p = pair_new();
    g_autoptr(Error) err = NULL;
    char buf[4] = "abc";
    g_autofree char *on = qio_channel_describe(p.src);
    g_autofree char *want = g_strdup_printf("Could not write to %s: it was shut down", on);

    g_assert_cmpint(qio_channel_shutdown(p.src, QIO_CHANNEL_SHUTDOWN_WRITE, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_shutdown(p.src, QIO_CHANNEL_SHUTDOWN_WRITE, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_write(p.src, buf, 3, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    qio_channel_shutdown(p.dst, QIO_CHANNEL_SHUTDOWN_READ, &error_abort);
    g_assert_cmpint(qio_channel_read(p.dst, buf, 3, &error_abort), ==, 0);
    pair_free(&p);
}

static void case_after_close(void)
{
    Pair p = pair_new();
    g_autoptr(Error) err = NULL;
    g_autofree char *on = qio_channel_describe(p.dst);
    g_autofree char *want = g_strdup_printf("Could not read from %s: it is closed", on);
    char buf[4];

    pair_end_src(&p);
    g_assert_cmpint(qio_channel_close(p.src, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_close(p.dst, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_close(p.dst, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_read(p.dst, buf, 1, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    g_assert_cmpint(qio_channel_write(p.src, buf, 1, NULL), ==, -1);
    g_assert_cmpint(qio_channel_get_fd(p.dst), ==, -1);
    pair_free(&p);
}

typedef struct Watched {
    GMainLoop *loop;
    GIOCondition seen;
    GString *got;
    guint calls;
} Watched;

static gboolean on_readable(QIOChannel *ioc, GIOCondition condition, gpointer opaque)
{
    Watched *w = opaque;
    char buf[4];
    ssize_t n = qio_channel_read(ioc, buf, sizeof(buf), &error_abort);

    w->seen |= condition;
    w->calls++;
    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return G_SOURCE_CONTINUE;
    }
    if (n == 0) {
        g_main_loop_quit(w->loop);
        return G_SOURCE_REMOVE;
    }
    g_string_append_len(w->got, buf, n);
    return G_SOURCE_CONTINUE;
}

static gboolean on_writable(QIOChannel *ioc, GIOCondition condition, gpointer opaque)
{
    Watched *w = opaque;

    w->seen |= condition;
    g_assert_cmpint(qio_channel_write(ioc, "written by a watch", 18, &error_abort), ==, 18);
    g_main_loop_quit(w->loop);
    return G_SOURCE_REMOVE;
}

/* A watch for each direction, in a context of its own. */
static void case_watch(void)
{
    Pair p = pair_new();
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autoptr(GMainLoop) loop = g_main_loop_new(context, FALSE);
    Watched w = { .loop = loop, .got = g_string_new(NULL) };

    qio_channel_set_blocking(p.dst, false, &error_abort);
    qio_channel_add_watch_full(p.src, G_IO_OUT, on_writable, &w, NULL, context);
    g_main_loop_run(loop);
    g_assert_cmpint(w.seen & G_IO_OUT, !=, 0);

    w.seen = 0;
    pair_end_src(&p);
    qio_channel_add_watch_full(p.dst, G_IO_IN, on_readable, &w, NULL, context);
    g_main_loop_run(loop);
    g_assert_cmpstr(w.got->str, ==, "written by a watch");
    g_assert_cmpint(w.seen & (G_IO_IN | G_IO_HUP), !=, 0);
    g_string_free(w.got, TRUE);
    pair_free(&p);
}

static gboolean on_shut(QIOChannel *ioc, GIOCondition condition, gpointer opaque)
{
    g_main_loop_quit(opaque);
    return G_SOURCE_REMOVE;
}

/* Shutting down fires a watch that had nothing to fire for. */
static void case_watch_shutdown(void)
{
    Pair p = pair_new();
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autoptr(GMainLoop) loop = g_main_loop_new(context, FALSE);

    qio_channel_add_watch_full(p.dst, G_IO_IN, on_shut, loop, NULL, context);
    qio_channel_shutdown(p.dst, QIO_CHANNEL_SHUTDOWN_READ, &error_abort);
    g_main_loop_run(loop);
    pair_free(&p);
}

static void case_positions(void)
{
    Pair p = pair_new();
    uint8_t data[300], back[300] = { 0 };
    struct iovec out[] = { { data, 100 }, { data + 100, 200 } };
    struct iovec in[] = { { back, 250 }, { back + 250, 50 } };
    g_autoptr(Error) err = NULL;

    fill(data, sizeof(data), 3);
    if (kind->stream) {
        g_autofree char *on = qio_channel_describe(p.src);
        g_autofree char *want = g_strdup_printf("Could not write at a position of %s: "
                                                "not supported by this kind of channel", on);
        g_assert_cmpint(qio_channel_pwritev_all(p.src, out, 2, 0, &err), ==, -1);
        g_assert_cmpstr(error_get_pretty(err), ==, want);
        g_assert_cmpint(qio_channel_preadv(p.dst, in, 2, 0, NULL), ==, -1);
        g_assert_cmpint(qio_channel_io_seek(p.dst, 0, SEEK_SET, NULL), ==, -1);
        pair_free(&p);
        return;
    }
    g_assert_cmpint(qio_channel_write_all(p.src, "head", 4, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_pwritev_all(p.src, out, 2, 1000, &error_abort), ==, 0);
    /* The stream's position did not move. */
    g_assert_cmpint(qio_channel_io_seek(p.src, 0, SEEK_CUR, &error_abort), ==, 4);
    g_assert_cmpint(qio_channel_preadv_all(p.dst, in, 2, 1000, &error_abort), ==, 0);
    g_assert_cmpmem(back, 300, data, 300);
    /* The gap reads as zeros. */
    g_assert_cmpint(qio_channel_pread_all(p.dst, back, 10, 2, &error_abort), ==, 0);
    g_assert_cmpmem(back, 10, "ad\0\0\0\0\0\0\0\0", 10);
    g_assert_cmpint(qio_channel_preadv(p.dst, in, 2, 1290, &error_abort), ==, 10);
    g_assert_cmpint(qio_channel_preadv(p.dst, in, 2, 1300, &error_abort), ==, 0);

    g_autofree char *on = qio_channel_describe(p.dst);
    g_autofree char *want = g_strdup_printf("Unexpected end-of-file at offset 1300 of %s", on);
    g_assert_cmpint(qio_channel_preadv_all(p.dst, in, 2, 1200, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    g_assert_cmpint(qio_channel_io_seek(p.dst, -300, SEEK_END, &error_abort), ==, 1000);
    g_assert_cmpint(qio_channel_read_all(p.dst, back, 300, &error_abort), ==, 0);
    g_assert_cmpmem(back, 300, data, 300);
    g_assert_cmpint(qio_channel_io_seek(p.dst, -1, SEEK_SET, NULL), ==, -1);
    pair_free(&p);
}

/* Descriptors go through or are refused; they are never silently left behind. */
static void case_fds(void)
{
    Pair p = pair_new();
    int pipefd[2], *fds = NULL;
    size_t nfds = 0;
    char c = 'c';
    struct iovec iov = { &c, 1 };
    g_autoptr(Error) err = NULL;

    g_assert_cmpint(pipe2(pipefd, O_CLOEXEC), ==, 0);
    if (!qio_channel_has_feature(p.src, QIO_CHANNEL_FEATURE_FD_PASS)) {
        g_autofree char *on = qio_channel_describe(p.src);
        g_autofree char *want = g_strdup_printf("Could not send 1 file descriptors through %s",
                                                on);
        g_assert_cmpint(qio_channel_writev_full_all(p.src, &iov, 1, pipefd, 1, &err), ==, -1);
        g_assert_cmpstr(error_get_pretty(err), ==, want);
    } else {
        g_assert_cmpint(qio_channel_writev_full_all(p.src, &iov, 1, &pipefd[1], 1, &error_abort),
                        ==, 0);
        g_assert_cmpint(qio_channel_readv_full_all_eof(p.dst, &iov, 1, &fds, &nfds, &error_abort),
                        ==, 1);
        g_assert_cmpuint(nfds, ==, 1);
        g_assert_cmpint(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, ==, FD_CLOEXEC);
        g_assert_cmpint(write(fds[0], "!", 1), ==, 1);
        g_assert_cmpint(read(pipefd[0], &c, 1), ==, 1);
        g_assert_cmpint(c, ==, '!');
        close(fds[0]);
        g_free(fds);
    }
    close(pipefd[0]);
    close(pipefd[1]);
    pair_free(&p);
}

static void case_names(void)
{
    Pair p = pair_new();
    QIOChannel *again = qio_channel_ref(p.src);

    qio_channel_set_name(p.src, "first");
    qio_channel_set_name(p.src, "second");
    g_assert_cmpstr(qio_channel_get_name(again), ==, "second");
    qio_channel_unref(again);
    pair_free(&p);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    { "vectors", case_vectors },
    { "many-elements", case_many_elements },
    { "end-of-file", case_end_of_file },
    { "big-blocking", case_big_blocking },
    { "big-non-blocking", case_big_non_blocking },
    { "non-blocking", case_non_blocking },
    { "wake-reader", case_wake_reader },
    { "wake-writer", case_wake_writer },
    { "wake-waiter", case_wake_waiter },
    { "after-shutdown", case_after_shutdown },
    { "after-close", case_after_close },
    { "watch", case_watch },
    { "watch-shutdown", case_watch_shutdown },
    { "positions", case_positions },
    { "fds", case_fds },
    { "names", case_names },
};

typedef struct Combination {
    const Kind *kind;
    void (*run)(void);
} Combination;

static void run_case(gconstpointer opaque)
{
    const Combination *c = opaque;

    kind = c->kind;
    c->run();
}

int main(int argc, char **argv)
{
    static Combination all[G_N_ELEMENTS(kinds) * G_N_ELEMENTS(cases)];
    size_t n = 0;

    g_test_init(&argc, &argv, NULL);
    for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
        for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
            g_autofree char *path = g_strdup_printf("/io/%s/%s", kinds[k].name, cases[i].name);

            all[n] = (Combination) { &kinds[k], cases[i].run };
            g_test_add_data_func(path, &all[n++], run_case);
        }
    }
    return g_test_run();
}
