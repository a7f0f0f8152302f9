/*
 * The stream file: what is put comes out, in whatever pieces; errors stick; positions are right.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/channel-buffer.h"
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "migration/migration-file.h"
#include "system/bql.h"

static MigrationFile *rewound_input(QIOChannel *ioc)
{
    qio_channel_io_seek(ioc, 0, SEEK_SET, &error_abort);
    return mfile_new_input(ioc);
}

static void test_fields(void)
{
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) out = mfile_new_output(ioc);
    g_autoptr(MigrationFile) in = NULL;
    char name[256];
    size_t size;
    const uint8_t *data;

    mfile_put_u8(out, 0x7e);
    mfile_put_be16(out, 0x0102);
    mfile_put_be32(out, 0x03040506);
    mfile_put_be64(out, 0x0708090a0b0c0d0e);
    mfile_put_counted_string(out, "pc.ram");
    mfile_put_buffer(out, "\3a\0b", 4);
    mfile_put_counted_string(out, "");
    g_assert_cmpuint(mfile_transferred(out), ==, 15 + 7 + 4 + 1);
    g_assert_cmpint(mfile_flush(out, &error_abort), ==, 0);

    data = qio_channel_buffer_data((QIOChannelBuffer *)ioc, &size);
    g_assert_cmpmem(data, 15, "\x7e\1\2\3\4\5\6\7\x8\x9\xa\xb\xc\xd\xe", 15);
    g_assert_cmpuint(size, ==, 27);

    in = rewound_input(ioc);
    g_assert_cmphex(mfile_get_u8(in), ==, 0x7e);
    g_assert_cmphex(mfile_get_be16(in), ==, 0x0102);
    g_assert_cmphex(mfile_get_be32(in), ==, 0x03040506);
    g_assert_cmphex(mfile_get_be64(in), ==, 0x0708090a0b0c0d0e);
    g_assert_true(mfile_get_counted_string(in, name));
    g_assert_cmpstr(name, ==, "pc.ram");
    g_assert_false(mfile_get_counted_string(in, name));     /* a NUL inside */
    g_assert_false(mfile_has_error(in));
    g_assert_false(mfile_at_eof(in));
    g_assert_true(mfile_get_counted_string(in, name));
    g_assert_cmpstr(name, ==, "");
    g_assert_true(mfile_at_eof(in));
    g_assert_cmpuint(mfile_transferred(in), ==, 27);
}

/* Any mix of puts, read back by any mix of gets, is the same bytes. */
static void test_random_pieces(void)
{
    g_autoptr(GRand) rnd = g_rand_new_with_seed(7);
    const size_t total = 8 * 1024 * 1024;
    g_autofree uint8_t *data = g_malloc(total), *back = g_malloc(total);
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_buffer_new(total));
    g_autoptr(MigrationFile) out = mfile_new_output(ioc);
    g_autoptr(MigrationFile) in = NULL;
    size_t at = 0, have;

    for (size_t i = 0; i < total; i += 4) {
        guint32 word = g_rand_int(rnd);
        memcpy(data + i, &word, 4);
    }
    while (at < total) {
        size_t scale = (size_t)1 << g_rand_int_range(rnd, 0, 19);
        size_t n = 1 + g_rand_int(rnd) % scale;

        n = MIN(n, total - at);
        if (g_rand_boolean(rnd)) {
            mfile_put_ref(out, data + at, n);
        } else {
            /* What was put may change at once. */
            g_autofree uint8_t *copy = g_memdup2(data + at, n);
            mfile_put_buffer(out, copy, n);
            memset(copy, 0xdd, n);
        }
        at += n;
    }
    g_assert_cmpint(mfile_flush(out, &error_abort), ==, 0);
    g_assert_cmpuint(mfile_transferred(out), ==, total);

    in = rewound_input(ioc);
    for (at = 0; at < total;) {
        size_t scale = (size_t)1 << g_rand_int_range(rnd, 0, 19);
        size_t n = 1 + g_rand_int(rnd) % scale;

        n = MIN(n, total - at);
        if (g_rand_boolean(rnd) && n <= 64 * 1024) {
            const uint8_t *p = mfile_peek(in, n, &have);
            g_assert_cmpuint(have, >=, n);
            memcpy(back + at, p, n);
            mfile_skip(in, n);
        } else {
            g_assert_cmpuint(mfile_get_buffer(in, back + at, n), ==, n);
        }
        at += n;
        g_assert_cmpuint(mfile_transferred(in), ==, at);
    }
    g_assert_cmpint(memcmp(data, back, total), ==, 0);
    g_assert_true(mfile_at_eof(in));
}

typedef struct LentStream {
    QIOChannel *ioc;
    uint8_t *data;
    size_t len;
    bool big_lock;
} LentStream;

/* Small values and references in turn; what was put by value is spoiled at once. */
static gpointer put_lent(gpointer opaque)
{
    LentStream *s = opaque;
    g_autoptr(MigrationFile) out = mfile_new_output(s->ioc);
    g_autoptr(GRand) rnd = g_rand_new_with_seed(8);

    mfile_lend(out);
    if (s->big_lock) {
        bql_lock();
    }
    for (size_t at = 0; at < s->len;) {
        bool by_value = g_rand_boolean(rnd);
        size_t scale = 1u << g_rand_int_range(rnd, 0, 18);
        size_t n = by_value ? 1 + g_rand_int(rnd) % scale : 4096;

        n = MIN(n, s->len - at);
        if (by_value) {
            g_autofree uint8_t *copy = g_memdup2(s->data + at, n);
            mfile_put_buffer(out, copy, n);
            memset(copy, 0xdd, n);
        } else {
            mfile_put_ref(out, s->data + at, n);
        }
        at += n;
    }
    if (s->big_lock) {
        bql_unlock();
    }
    g_assert_cmpint(mfile_flush(out, &error_abort), ==, 0);
    return NULL;
}

/* Over a channel that lends memory, what was put by value stays what it was until it is read. */
static void test_lent(gconstpointer big_lock)
{
    const size_t total = 24 * 1024 * 1024;
    g_autofree uint8_t *data = g_malloc(total), *back = g_malloc(total);
    g_autoptr(GRand) rnd = g_rand_new_with_seed(9);
    int fds[2];

    for (size_t i = 0; i < total; i += 4) {
        guint32 word = g_rand_int(rnd);
        memcpy(data + i, &word, 4);
    }
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    g_autoptr(QIOChannel) a = QIO_CHANNEL(qio_channel_socket_new_fd(fds[0], &error_abort));
    g_autoptr(QIOChannel) b = QIO_CHANNEL(qio_channel_socket_new_fd(fds[1], &error_abort));
    LentStream s = { a, data, total, big_lock != NULL };
    GThread *thread = g_thread_new("put", put_lent, &s);
    g_assert_cmpint(qio_channel_read_all(b, back, total, &error_abort), ==, 0);
    g_thread_join(thread);
    g_assert_cmpint(memcmp(data, back, total), ==, 0);
}

static void test_truncated(void)
{
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) in = NULL;
    Error *err = NULL;
    uint8_t buf[16];
    size_t have;

    qio_channel_write_all(ioc, "abcde", 5, &error_abort);
    in = rewound_input(ioc);
    g_assert_cmpuint(mfile_get_be32(in), ==, 0x61626364);
    g_assert_cmpuint(mfile_get_buffer(in, buf, 16), ==, 1);
    g_assert_true(mfile_has_error(in));
    g_assert_cmpint(mfile_check(in, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "the migration stream ends unexpectedly after 5 bytes");
    error_free(err);
    /* From now on there are zeroes. */
    g_assert_cmpuint(mfile_get_be64(in), ==, 0);
    g_assert_null(mfile_peek(in, 1, &have));
    g_assert_cmpuint(have, ==, 0);
    g_assert_false(mfile_at_eof(in));
}

static void test_sticky_write_error(void)
{
    g_autoptr(QIOChannel) ioc =
        QIO_CHANNEL(qio_channel_file_new_path("/dev/full", O_WRONLY, 0, &error_abort));
    g_autoptr(MigrationFile) out = mfile_new_output(ioc);
    Error *err = NULL;
    uint64_t before;

    mfile_put_be64(out, 1);
    g_assert_false(mfile_has_error(out));
    g_assert_cmpint(mfile_flush(out, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "No space left on device"));
    error_free(err);
    err = NULL;
    before = mfile_transferred(out);
    mfile_put_be64(out, 1);
    g_assert_cmpuint(mfile_transferred(out), ==, before);
    /* The first error stays. */
    error_setg(&err, "another");
    mfile_set_error(out, err);
    err = NULL;
    g_assert_cmpint(mfile_check(out, &err), ==, -1);
    g_assert_nonnull(strstr(error_get_pretty(err), "No space left on device"));
    error_free(err);
}

typedef struct PipeEnds {
    QIOChannel *in, *out;
} PipeEnds;

static PipeEnds pipe_new(void)
{
    int fds[2];
    PipeEnds p;

    g_assert_cmpint(pipe(fds), ==, 0);
    p.in = QIO_CHANNEL(qio_channel_file_new_fd(fds[0], &error_abort));
    p.out = QIO_CHANNEL(qio_channel_file_new_fd(fds[1], &error_abort));
    return p;
}

static gpointer shutdown_thread(gpointer opaque)
{
    mfile_shutdown(opaque);
    return NULL;
}

static void test_shutdown_wakes_reader(void)
{
    PipeEnds p = pipe_new();
    g_autoptr(MigrationFile) in = mfile_new_input(p.in);
    GThread *thread = g_thread_new("shutdown", shutdown_thread, in);
    Error *err = NULL;

    /* Whether it comes before or while we wait: there is nothing to read, ever. */
    g_assert_cmpuint(mfile_get_u8(in), ==, 0);
    g_thread_join(thread);
    g_assert_cmpint(mfile_check(in, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==, "the migration was cancelled");
    error_free(err);
    qio_channel_unref(p.in);
    qio_channel_unref(p.out);
}

static gpointer locked_writer_thread(gpointer opaque)
{
    bql_lock();
    qio_channel_write_all(opaque, "\x2a", 1, &error_abort);
    bql_unlock();
    return NULL;
}

static void test_input_drops_big_lock(void)
{
    PipeEnds p = pipe_new();
    g_autoptr(MigrationFile) in = mfile_new_input(p.in);
    GThread *thread;

    bql_lock();
    /* Can write only once we wait. */
    thread = g_thread_new("writer", locked_writer_thread, p.out);
    g_assert_cmpuint(mfile_get_u8(in), ==, 0x2a);
    g_assert_true(bql_locked());
    bql_unlock();
    g_thread_join(thread);
    qio_channel_unref(p.in);
    qio_channel_unref(p.out);
}

static void test_output_under_big_lock_waits_for_flush(void)
{
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) out = mfile_new_output(ioc);
    g_autofree uint8_t *data = g_malloc0(100000);
    size_t size;

    bql_lock();
    for (unsigned i = 0; i < 5000; i++) {
        data[0] = i;
        mfile_put_buffer(out, data, 100);
        mfile_put_ref(out, data + 1000, 100);
    }
    mfile_put_buffer(out, data, 100000);
    data[0] = 0xff;
    qio_channel_buffer_data((QIOChannelBuffer *)ioc, &size);
    g_assert_cmpuint(size, ==, 0);
    bql_unlock();
    g_assert_cmpint(mfile_flush(out, &error_abort), ==, 0);
    data =
        (g_free(data), g_memdup2(qio_channel_buffer_data((QIOChannelBuffer *)ioc, &size), 1200000));
    g_assert_cmpuint(size, ==, 5000 * 200 + 100000);
    for (unsigned i = 0; i < 5000; i++) {
        g_assert_cmpuint(data[i * 200], ==, (uint8_t)i);
    }
    g_assert_cmpuint(data[5000 * 200], ==, (uint8_t)4999);
}

static void test_seek(void)
{
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "ferry-mfile-XXXXXX", NULL);
    int fd = g_mkstemp(path);
    g_autoptr(QIOChannel) ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd, &error_abort));
    g_autoptr(MigrationFile) out = NULL, in = NULL;
    Error *err = NULL;

    qio_channel_io_seek(ioc, 100, SEEK_SET, &error_abort);
    out = mfile_new_output(ioc);
    g_assert_true(mfile_seekable(out));
    g_assert_cmpuint(mfile_offset(out), ==, 100);
    mfile_put_be32(out, 1);
    g_assert_cmpuint(mfile_offset(out), ==, 104);
    g_assert_cmpint(mfile_seek(out, 3 << 20, &error_abort), ==, 0);
    g_assert_cmpuint(mfile_offset(out), ==, 3 << 20);
    mfile_put_be32(out, 2);
    g_assert_cmpuint(mfile_transferred(out), ==, 8);
    g_assert_cmpint(mfile_seek(out, 200, &error_abort), ==, 0);
    mfile_put_be32(out, 3);
    g_assert_cmpint(mfile_flush(out, &error_abort), ==, 0);

    qio_channel_io_seek(ioc, 100, SEEK_SET, &error_abort);
    in = mfile_new_input(ioc);
    g_assert_cmpuint(mfile_get_be32(in), ==, 1);
    g_assert_cmpint(mfile_seek(in, 200, &error_abort), ==, 0);      /* read ahead already */
    g_assert_cmpuint(mfile_offset(in), ==, 200);
    g_assert_cmpuint(mfile_get_be32(in), ==, 3);
    g_assert_cmpuint(mfile_offset(in), ==, 204);
    g_assert_cmpint(mfile_seek(in, 3 << 20, &error_abort), ==, 0);  /* far */
    g_assert_cmpuint(mfile_get_be32(in), ==, 2);
    g_assert_true(mfile_at_eof(in));
    g_assert_cmpint(mfile_seek(in, 100, &error_abort), ==, 0);      /* back */
    g_assert_cmpuint(mfile_get_be32(in), ==, 1);
    g_assert_cmpint(mfile_seek(in, UINT64_MAX, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "file offset 18446744073709551615 is out of range");
    error_free(err);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration-file/fields", test_fields);
    g_test_add_func("/migration-file/random-pieces", test_random_pieces);
    g_test_add_data_func("/migration-file/lent/free", NULL, test_lent);
    g_test_add_data_func("/migration-file/lent/big-lock", "", test_lent);
    g_test_add_func("/migration-file/truncated", test_truncated);
    g_test_add_func("/migration-file/sticky-write-error", test_sticky_write_error);
    g_test_add_func("/migration-file/shutdown", test_shutdown_wakes_reader);
    g_test_add_func("/migration-file/big-lock/input", test_input_drops_big_lock);
    g_test_add_func("/migration-file/big-lock/output",
                    test_output_under_big_lock_waits_for_flush);
    g_test_add_func("/migration-file/seek", test_seek);
    return g_test_run();
}
