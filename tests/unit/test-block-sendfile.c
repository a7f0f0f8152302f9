/*
 * What is in the page cache goes into a socket without being copied: which nodes have one, that the
 * bytes are right, that a drained node sends nothing; and writes that are copied where a thread may
 * block.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block-harness.h"

#define SIZE (4 * 1024 * 1024)

static int sockets[2];

static void make_sockets(void)
{
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets), ==, 0);
}

static void close_sockets(void)
{
    close(sockets[0]);
    close(sockets[1]);
}

/* The kernel may not have cachestat, or not let us use it: then nothing is ever cached. */
static bool can_tell(BlockBackend *blk)
{
    if (!blk_is_cached(blk, 0, 4096)) {
        g_test_skip("this kernel does not tell what its page cache holds");
        return false;
    }
    return true;
}

/* Send the range and look at what arrives. */
static void check_send(BlockBackend *blk, int64_t offset, int64_t bytes, int64_t shift)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    int64_t sent = 0, got = 0;
    bool was_full = false;

    while (got < bytes) {
        ssize_t n =
            sent < bytes ? blk_try_sendfile(blk, offset + sent, bytes - sent, sockets[0]) : -EAGAIN;

        if (n > 0) {
            sent += n;
            continue;
        }
        g_assert_cmpint(n, ==, -EAGAIN);
        was_full |= sent < bytes;
        n = recv(sockets[1], buf + got, bytes - got, 0);
        g_assert_cmpint(n, >, 0);
        got += n;
    }
    g_assert_true(was_full || bytes < SIZE);
    check_pattern(buf, offset + shift, bytes, 1);
}

static void test_plain(void)
{
    g_autofree char *path = make_file("plain", SIZE, 1);
    BlockBackend *blk = blk_from("{'driver':'raw','file':{'driver':'file','filename':'%s'}}", path);
    g_autofree uint8_t *buf = g_malloc(SIZE);

    g_assert_cmpint(blk_pread(blk, 0, SIZE, buf, 0), ==, 0);
    if (can_tell(blk)) {
        make_sockets();
        g_assert_true(blk_is_cached(blk, 0, SIZE));
        g_assert_true(blk_is_cached(blk, 4095, 2));
        check_send(blk, 0, SIZE, 0);
        check_send(blk, 12345, 54321, 0);
        check_send(blk, SIZE - 1, 1, 0);
        close_sockets();
    }
    blk_unref(blk);
}

static void test_window(void)
{
    g_autofree char *path = make_file("window", SIZE, 1);
    g_autofree uint8_t *buf = g_malloc(SIZE);
    BlockBackend *blk = blk_from("{'driver':'raw','offset':65536,'size':131072,"
                                 "'file':{'driver':'file','filename':'%s'}}", path);

    g_assert_cmpint(blk_pread(blk, 0, 131072, buf, 0), ==, 0);
    if (can_tell(blk)) {
        make_sockets();
        check_send(blk, 1000, 100000, 65536);
        /* Beyond the window there is nothing, though the file goes on. */
        g_assert_false(blk_is_cached(blk, 131072 - 512, 1024));
        g_assert_cmpint(blk_try_sendfile(blk, 131072 - 512, 1024, sockets[0]), ==, -ENOTSUP);
        close_sockets();
    }
    blk_unref(blk);
}

/* What was never read is not there; nodes that are more than a file have no page cache. */
static void test_not_there(void)
{
    g_autofree char *path = make_file("cold", SIZE, 0);
    BlockBackend *blk = blk_from("{'driver':'file','filename':'%s'}", path);

    g_assert_false(blk_is_cached(blk, 0, SIZE));
    blk_unref(blk);
    blk = blk_from("{'driver':'null-co','size':%d}", SIZE);
    make_sockets();
    g_assert_false(blk_is_cached(blk, 0, 4096));
    g_assert_cmpint(blk_try_sendfile(blk, 0, 4096, sockets[0]), ==, -ENOTSUP);
    close_sockets();
    blk_unref(blk);
}

static void test_drained(void)
{
    g_autofree char *path = make_file("drained", SIZE, 1);
    g_autofree uint8_t *buf = g_malloc(SIZE);
    BlockBackend *blk = blk_from("{'driver':'file','filename':'%s'}", path);

    g_assert_cmpint(blk_pread(blk, 0, SIZE, buf, 0), ==, 0);
    if (can_tell(blk)) {
        make_sockets();
        bdrv_drained_begin(blk_bs(blk));
        g_assert_cmpint(blk_try_sendfile(blk, 0, 4096, sockets[0]), ==, -ENOTSUP);
        g_assert_false(blk_is_cached(blk, 0, 4096));
        bdrv_drained_end(blk_bs(blk));
        check_send(blk, 0, 4096, 0);
        close_sockets();
    }
    blk_unref(blk);
}

static void test_peer_gone(void)
{
    g_autofree char *path = make_file("gone", SIZE, 1);
    g_autofree uint8_t *buf = g_malloc(SIZE);
    BlockBackend *blk = blk_from("{'driver':'file','filename':'%s'}", path);

    g_assert_cmpint(blk_pread(blk, 0, SIZE, buf, 0), ==, 0);
    make_sockets();
    close(sockets[1]);
    g_assert_cmpint(blk_try_sendfile(blk, 0, 4096, sockets[0]), ==, -EPIPE);
    close(sockets[0]);
    blk_unref(blk);
}

/* Writes of a context that may block are copied at once, and are the same writes. */
static void test_may_block(void)
{
    g_autofree char *path = make_file("copied", SIZE, 0);
    BlockBackend *blk = blk_from("{'driver':'file','filename':'%s'}", path);

    g_assert_false(aio_may_block());
    write_pattern(blk, 0, SIZE / 2, 3);
    aio_context_set_may_block(aio_context_main(), true);
    g_assert_true(aio_may_block());
    write_pattern(blk, SIZE / 2, SIZE / 2, 3);
    aio_context_set_may_block(aio_context_main(), false);
    expect_pattern(blk, 0, SIZE, 3);
    blk_unref(blk);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    aio_context_main();
    g_test_add_func("/block/sendfile/plain", test_plain);
    g_test_add_func("/block/sendfile/window", test_window);
    g_test_add_func("/block/sendfile/not-there", test_not_there);
    g_test_add_func("/block/sendfile/drained", test_drained);
    g_test_add_func("/block/sendfile/peer-gone", test_peer_gone);
    g_test_add_func("/block/sendfile/may-block", test_may_block);
    ret = g_test_run();
    block_harness_clean_up();
    return ret;
}
