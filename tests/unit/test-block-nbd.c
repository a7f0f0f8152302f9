/*
 * The driver nbd: drains, moves to other contexts, opening anew, closing; against a server in
 * threads of this process that can fall silent. tests/functional/test-nbd-client.py has other
 * people's servers.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/block-harness.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/drivers.h"
#include "block/nbd-session.h"
#include "util/bswap.h"
#include "util/iothread.h"

#define DISK_BYTES (1024 * 1024)
#define MS INT64_C(1000000)

/*
 * The server
 * -------------------------------------------------------------------------------------------------
 */

typedef enum Mode {
    ANSWER,
    SILENT,                     /* requests are taken, and not answered */
    MUTE,                       /* not even a greeting */
} Mode;

typedef struct Server {
    char *path;
    int listener;
    Mode mode;                  /* atomic */
    GThread *acceptor;
    Mutex lock;
    GArray *clients;            /* of int; under the lock */
    GPtrArray *threads;
    uint8_t disk[DISK_BYTES];   /* under the lock */
    unsigned requests, connections;     /* atomic */
} Server;

typedef struct Client {
    Server *server;
    int fd;
} Client;

static bool get(int fd, void *buf, size_t n)
{
    return n == 0 || recv(fd, buf, n, MSG_WAITALL) == (ssize_t)n;
}

static bool put(int fd, const void *buf, size_t n)
{
    return send(fd, buf, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool put_reply(int fd, uint32_t option, uint32_t type, const void *data, uint32_t n)
{
    uint8_t head[20];

    stq_be_p(head, 0x3e889045565a9);
    stl_be_p(head + 8, option);
    stl_be_p(head + 12, type);
    stl_be_p(head + 16, n);
    return put(fd, head, 20) && put(fd, data, n);
}

/* Only NBD_OPT_GO is known. */
static bool shake_hands(int fd)
{
    uint8_t head[16], info[12] = { 0 }, data[4096];

    if (!put(fd, "NBDMAGICIHAVEOPT\0\3", 18) || !get(fd, head, 4)) {
        return false;
    }
    while (get(fd, head, 16) && ldl_be_p(head + 12) <= sizeof(data) &&
           get(fd, data, ldl_be_p(head + 12))) {
        if (ldl_be_p(head + 8) == 7) {
            stq_be_p(info + 2, DISK_BYTES);
            stw_be_p(info + 10, 1 | 4);
            return put_reply(fd, 7, 3, info, 12) && put_reply(fd, 7, 1, NULL, 0);
        }
        put_reply(fd, ldl_be_p(head + 8), 0x80000001, NULL, 0);
    }
    return false;
}

static bool serve_request(Server *s, int fd)
{
    uint8_t head[28], reply[16];
    g_autofree uint8_t *data = NULL;
    uint64_t offset, length;
    bool ok;

    if (!get(fd, head, 28)) {
        return false;
    }
    offset = ldq_be_p(head + 16);
    length = ldl_be_p(head + 24);
    if (head[7] == 2 || offset > DISK_BYTES || length > DISK_BYTES - offset) {
        return false;
    }
    data = g_malloc(length);
    if (head[7] == 1 && !get(fd, data, length)) {
        return false;
    }
    __atomic_fetch_add(&s->requests, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->mode, __ATOMIC_SEQ_CST) == SILENT) {
        return true;
    }
    mutex_lock(&s->lock);
    if (head[7] == 1) {
        memcpy(s->disk + offset, data, length);
    } else if (length > 0) {
        memcpy(data, s->disk + offset, length);
    }
    mutex_unlock(&s->lock);
    stl_be_p(reply, 0x67446698);
    stl_be_p(reply + 4, 0);
    memcpy(reply + 8, head + 8, 8);
    ok = put(fd, reply, 16);
    return ok && (head[7] != 0 || put(fd, data, length));
}

static gpointer client_thread(gpointer opaque)
{
    Client *c = opaque;
    char byte;

    if (__atomic_load_n(&c->server->mode, __ATOMIC_SEQ_CST) == MUTE) {
        while (recv(c->fd, &byte, 1, 0) > 0) {
        }
    } else if (shake_hands(c->fd)) {
        while (serve_request(c->server, c->fd)) {
        }
    }
    /* The number stays taken until server_stop(). */
    shutdown(c->fd, SHUT_RDWR);
    g_free(c);
    return NULL;
}

static gpointer accept_thread(gpointer opaque)
{
    Server *s = opaque;
    int fd;

    while ((fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        Client *c = g_new(Client, 1);

        *c = (Client){ .server = s, .fd = fd };
        mutex_lock(&s->lock);
        g_array_append_val(s->clients, fd);
        g_ptr_array_add(s->threads, g_thread_new("client", client_thread, c));
        mutex_unlock(&s->lock);
        __atomic_fetch_add(&s->connections, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void server_start(Server *s, Mode mode)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    s->path = s->path ? s->path : test_path("nbd");
    s->mode = mode;
    s->clients = g_array_new(FALSE, FALSE, sizeof(int));
    s->threads = g_ptr_array_new();
    unlink(s->path);
    g_strlcpy(addr.sun_path, s->path, sizeof(addr.sun_path));
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(s->listener, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(s->listener, 16), ==, 0);
    s->acceptor = g_thread_new("acceptor", accept_thread, s);
}

/* The disk stays. */
static void server_stop(Server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    g_thread_join(s->acceptor);
    close(s->listener);
    unlink(s->path);
    for (guint i = 0; i < s->clients->len; i++) {
        shutdown(g_array_index(s->clients, int, i), SHUT_RDWR);
    }
    for (guint i = 0; i < s->threads->len; i++) {
        g_thread_join(s->threads->pdata[i]);
        close(g_array_index(s->clients, int, i));
    }
    g_array_free(s->clients, TRUE);
    g_ptr_array_free(s->threads, TRUE);
}

static Server *server_new(Mode mode)
{
    Server *s = g_new0(Server, 1);

    mutex_init(&s->lock);
    fill_pattern(s->disk, 0, DISK_BYTES, 1);
    server_start(s, mode);
    return s;
}

static void server_free(Server *s)
{
    mutex_destroy(&s->lock);
    g_free(s->path);
    g_free(s);
}

static BlockBackend *client_of(Server *s, unsigned reconnect_delay)
{
    return blk_from(
        "{'driver': 'nbd', 'reconnect-delay': %u, 'server': {'type': 'unix', 'path': '%s'}}",
        reconnect_delay, s->path);
}

/*
 * Requests in the background
 * ------------------------------------------------------------------------------------
 */

typedef struct Background {
    BlockBackend *blk;
    int64_t offset;
    unsigned *left;             /* atomic */
    int ret;
    uint8_t buf[4096];
} Background;

static void coroutine_fn background_entry(void *opaque)
{
    Background *b = opaque;

    b->ret = blk_co_pread(b->blk, b->offset, sizeof(b->buf), b->buf, 0);
    __atomic_fetch_sub(b->left, 1, __ATOMIC_SEQ_CST);
    aio_wait_kick();
}

static void background_start(Background *b, unsigned n, BlockBackend *blk, unsigned *left)
{
    *left = n;
    for (unsigned i = 0; i < n; i++) {
        b[i] = (Background){ .blk = blk, .offset = i * 4096, .left = left, .ret = 1 };
        aio_co_schedule(blk_get_aio_context(blk), coroutine_create(background_entry, &b[i]));
    }
}

static void background_end(unsigned *left)
{
    AIO_WAIT_WHILE(__atomic_load_n(left, __ATOMIC_SEQ_CST) > 0);
}

static void background_wait(Background *b, unsigned n, unsigned *left, int want)
{
    background_end(left);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(b[i].ret, ==, want);
        if (want == 0) {
            check_pattern(b[i].buf, b[i].offset, sizeof(b[i].buf), 1);
        }
    }
}

/* Until that many have reached the node. */
static void wait_until_under_way(BlockBackend *blk, unsigned n)
{
    while (__atomic_load_n(&blk_bs(blk)->in_flight, __ATOMIC_SEQ_CST) < n) {
        aio_poll(aio_context_main(), false);
        g_thread_yield();
    }
}

/* Until one succeeds: the connection is back. */
static void wait_for_connection(BlockBackend *blk)
{
    Background b;
    unsigned left;

    do {
        background_start(&b, 1, blk, &left);
        background_end(&left);
        aio_poll(aio_context_main(), false);
    } while (b.ret != 0);
}

static void wait_for_requests(Server *s, unsigned n)
{
    while (__atomic_load_n(&s->requests, __ATOMIC_SEQ_CST) < n) {
        aio_poll(aio_context_main(), false);
        g_thread_yield();
    }
}

/*
 * Cases
 * -------------------------------------------------------------------------------------------------
 */

static void test_basics(void)
{
    Server *s = server_new(ANSWER);
    BlockBackend *blk = client_of(s, 0);
    g_autofree char *name = g_strdup_printf("nbd+unix:///?socket=%s", s->path);
    Error *err = NULL;

    g_assert_cmpint(blk_getlength(blk), ==, DISK_BYTES);
    g_assert_cmpstr(bdrv_get_filename(blk_bs(blk)), ==, name);
    g_assert_cmpint(blk_get_request_alignment(blk), ==, 512);
    g_assert_cmpint(blk_get_max_transfer(blk), ==, 32 * 1024 * 1024);
    expect_pattern(blk, 0, DISK_BYTES, 1);
    write_pattern(blk, 1000, 100000, 2);
    expect_pattern(blk, 1000, 100000, 2);
    expect_pattern(blk, 0, 1000, 1);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 500000, 100, 0), ==, 0);
    expect_zeroes(blk, 500000, 100);
    g_assert_cmpint(blk_truncate(blk, 2 * DISK_BYTES, false, PREALLOC_MODE_OFF, 0, &err), <, 0);
    expect_error(err, "Cannot grow NBD nodes");
    err = NULL;
    g_assert_cmpint(blk_truncate(blk, 512, true, PREALLOC_MODE_OFF, 0, &err), <, 0);
    expect_error(err, "Cannot resize NBD nodes");
    blk_unref(blk);
    server_stop(s);
    server_free(s);
}

/*
 * Moved to a thread and back, with requests in between, and connections lost and made again there.
 */
static void test_move(void)
{
    Server *s = server_new(ANSWER);
    BlockBackend *blk = client_of(s, 60);
    IOThread *thread = iothread_new("t", 0, &error_abort);
    Background b[20];
    unsigned left;

    for (int i = 0; i < 6; i++) {
        AioContext *ctx = i % 2 ? aio_context_main() : iothread_context(thread);

        g_assert_cmpint(blk_set_aio_context(blk, ctx, &error_abort), ==, 0);
        background_start(b, G_N_ELEMENTS(b), blk, &left);
        background_wait(b, G_N_ELEMENTS(b), &left, 0);
        if (i > 2) {
            server_stop(s);
            background_start(b, G_N_ELEMENTS(b), blk, &left);
            server_start(s, ANSWER);
            background_wait(b, G_N_ELEMENTS(b), &left, 0);
        }
    }
    /* It moves while there is no connection, and finds one where it is then. */
    nbd_session_drain_reconnect_ns = 100 * MS;
    server_stop(s);
    background_start(b, 1, blk, &left);
    wait_until_under_way(blk, 1);
    g_assert_cmpint(blk_set_aio_context(blk, iothread_context(thread), &error_abort), ==, 0);
    background_wait(b, 1, &left, -EIO);
    nbd_session_drain_reconnect_ns = 10000 * MS;
    server_start(s, ANSWER);
    wait_for_connection(blk);
    background_start(b, G_N_ELEMENTS(b), blk, &left);
    background_wait(b, G_N_ELEMENTS(b), &left, 0);
    blk_unref(blk);
    iothread_free(thread);
    server_stop(s);
    server_free(s);
}

/* A drain ends although the server never answers: the requests fail. */
static void test_drain_silent(void)
{
    Server *s = server_new(SILENT);
    BlockBackend *blk = client_of(s, 0);
    int64_t start = aio_clock_ns();
    Background b[10];
    unsigned left;

    nbd_session_drain_silence_ns = 200 * MS;
    background_start(b, G_N_ELEMENTS(b), blk, &left);
    wait_for_requests(s, G_N_ELEMENTS(b));
    bdrv_drained_begin(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
    background_wait(b, G_N_ELEMENTS(b), &left, -EIO);
    g_assert_cmpint(aio_clock_ns() - start, >=, 200 * MS);

    /* Afterwards it goes on. */
    __atomic_store_n(&s->mode, ANSWER, __ATOMIC_SEQ_CST);
    wait_for_connection(blk);
    nbd_session_drain_silence_ns = 30000 * MS;
    blk_unref(blk);
    server_stop(s);
    server_free(s);
}

/* A drain does not wait for a reconnect delay to run out. */
static void test_drain_lost(void)
{
    Server *s = server_new(ANSWER);
    BlockBackend *blk = client_of(s, 3600);
    int64_t start = aio_clock_ns();
    Background b[10];
    unsigned left;

    nbd_session_drain_reconnect_ns = 200 * MS;
    server_stop(s);
    background_start(b, G_N_ELEMENTS(b), blk, &left);
    wait_until_under_way(blk, G_N_ELEMENTS(b));
    bdrv_drained_begin(blk_bs(blk));
    bdrv_drained_end(blk_bs(blk));
    background_wait(b, G_N_ELEMENTS(b), &left, -EIO);
    g_assert_cmpint(aio_clock_ns() - start, <, 20000 * MS);

    /* Without a drain they wait, and a server that comes back serves them. */
    background_start(b, G_N_ELEMENTS(b), blk, &left);
    server_start(s, ANSWER);
    background_wait(b, G_N_ELEMENTS(b), &left, 0);
    nbd_session_drain_reconnect_ns = 10000 * MS;
    blk_unref(blk);
    server_stop(s);
    server_free(s);
}

/* Closing does not wait for a handshake that never ends. */
static void test_close_while_connecting(void)
{
    Server *s = server_new(ANSWER);
    BlockBackend *blk = client_of(s, 0);
    int64_t start = aio_clock_ns();
    unsigned before;

    server_stop(s);
    before = s->connections;
    server_start(s, MUTE);
    while (__atomic_load_n(&s->connections, __ATOMIC_SEQ_CST) == before) {
        aio_poll(aio_context_main(), false);
        g_thread_yield();
    }
    blk_unref(blk);
    g_assert_cmpint(aio_clock_ns() - start, <, 20000 * MS);
    server_stop(s);
    server_free(s);
}

static int try_reopen(BlockBackend *blk, const char *path, unsigned delay, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = node_options(
        "{'driver': 'nbd', 'reconnect-delay': %u, 'server': {'type': 'unix', 'path': '%s'}}", delay,
        path);
    BdrvReopenState state = { .bs = blk_bs(blk), .options = opts };
    int ret = bdrv_nbd.reopen_prepare(&state, errp);

    if (ret == 0) {
        bdrv_nbd.reopen_commit(&state);
    }
    return ret;
}

static void test_reopen(void)
{
    Server *s = server_new(ANSWER);
    BlockBackend *blk = client_of(s, 0);
    Background b[3];
    Error *err = NULL;
    unsigned left;

    g_assert_cmpint(try_reopen(blk, "/elsewhere", 0, &err), <, 0);
    expect_error(err, "Cannot change the server or export of node '*'");
    /* With a delay from now on. */
    g_assert_cmpint(try_reopen(blk, s->path, 60, &error_abort), ==, 0);
    server_stop(s);
    background_start(b, G_N_ELEMENTS(b), blk, &left);
    server_start(s, ANSWER);
    background_wait(b, G_N_ELEMENTS(b), &left, 0);
    blk_unref(blk);
    server_stop(s);
    server_free(s);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd/basics", test_basics);
    g_test_add_func("/nbd/move", test_move);
    g_test_add_func("/nbd/drain-silent", test_drain_silent);
    g_test_add_func("/nbd/drain-lost", test_drain_lost);
    g_test_add_func("/nbd/close-while-connecting", test_close_while_connecting);
    g_test_add_func("/nbd/reopen", test_reopen);
    ret = g_test_run();
    block_harness_clean_up();
    return ret;
}
