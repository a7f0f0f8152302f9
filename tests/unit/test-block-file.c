/*
 * The drivers file and host_device: one table of cases over the engines, cached and direct; locks
 * against other descriptors, processes and QEMU's programs; opening anew; making files.
 *
 * Started with --hold FILE PERMISSIONS SHARED the program is the other process: it opens the file
 * with these permissions, says so, and holds it until its input ends.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/block-harness.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/create.h"
#include "block/drivers.h"
#include "block/file-int.h"
#include "io/fd-resolver.h"
#include "util/aio-engine.h"
#include "util/cutils.h"

#define FILE_BYTES (8 * 1024 * 1024)

/*
 * Cases for every engine
 * ----------------------------------------------------------------------------------
 */

typedef struct Variant {
    const char *aio;
    bool direct;
} Variant;

static BlockBackend *open_variant(const Variant *v, const char *path)
{
    return blk_from("{'driver': 'file', 'filename': '%s', 'aio': '%s', 'discard': 'unmap', "
                    "'cache': {'direct': %s}}", path, v->aio, v->direct ? "true" : "false");
}

static FileState *state_of(BlockBackend *blk)
{
    return blk_bs(blk)->opaque;
}

static void case_read_write(const Variant *v)
{
    static const struct {
        int64_t offset, bytes;
    } parts[] = {
        { 0, 4096 }, { 4096, 65536 }, { 1, 1 }, { 511, 2 }, { 4095, 4098 }, { 70000, 100000 },
        { 1024 * 1024, 4 * 1024 * 1024 }, { FILE_BYTES - 512, 512 }, { FILE_BYTES - 3, 3 },
    };
    g_autofree char *path = make_file("rw", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);

    g_assert_cmpint(blk_getlength(blk), ==, FILE_BYTES);
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        expect_pattern(blk, parts[i].offset, parts[i].bytes, 1);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        write_pattern(blk, parts[i].offset, parts[i].bytes, 1);
        write_pattern(blk, parts[i].offset, parts[i].bytes, 2);
        expect_pattern(blk, parts[i].offset, parts[i].bytes, 2);
        write_pattern(blk, parts[i].offset, parts[i].bytes, 1);
    }
    expect_pattern(blk, 0, FILE_BYTES, 1);
    blk_unref(blk);
}

typedef struct VectorCase {
    BlockBackend *blk;
    size_t skew;
} VectorCase;

/* A vector of pieces of odd lengths, at odd addresses, of which a part is used. */
static void coroutine_fn vector_entry(void *opaque)
{
    VectorCase *c = opaque;
    const size_t bytes = 3 * 65536 + 4096, lead = 700;
    g_autofree uint8_t *buf = g_malloc(bytes + lead + 4096);
    IOVector v;

    iovector_init(&v, 0);
    for (size_t at = 0, n = 1; at < bytes + lead; at += n, n = n * 3 % 5000 + c->skew) {
        iovector_add(&v, buf + at + c->skew, MIN(n, bytes + lead - at));
    }
    fill_pattern(buf + c->skew + lead, 8192, bytes, 7);
    g_assert_cmpint(blk_co_pwritev_part(c->blk, 8192, bytes, &v, lead, 0), ==, 0);
    memset(buf, 0, bytes + lead);
    g_assert_cmpint(blk_co_preadv_part(c->blk, 8192, bytes, &v, lead, 0), ==, 0);
    check_pattern(buf + c->skew + lead, 8192, bytes, 7);
    iovector_destroy(&v);
}

static void case_vectors(const Variant *v)
{
    g_autofree char *path = make_file("vec", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);

    for (size_t skew = 1; skew < 20; skew += 3) {
        VectorCase c = { .blk = blk, .skew = skew };

        run_co(vector_entry, &c);
    }
    expect_pattern(blk, 0, 8192, 1);
    expect_pattern(blk, 8192 + 3 * 65536 + 4096, 65536, 1);
    blk_unref(blk);
}

static void case_zeroes(const Variant *v)
{
    static const BdrvRequestFlags flags[] = {
        0, BDRV_REQ_MAY_UNMAP, BDRV_REQ_FUA, BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK,
    };
    g_autofree char *path = make_file("zero", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);
    struct stat before, after;
    int64_t n;

    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        int64_t base = 1024 * 1024 * i;

        g_assert_cmpint(blk_pwrite_zeroes(blk, base + 65536, 262144, flags[i]), ==, 0);
        expect_pattern(blk, base, 65536, 1);
        expect_zeroes(blk, base + 65536, 262144);
        expect_pattern(blk, base + 65536 + 262144, 65536, 1);
    }
    /* What may be unmapped is: the file takes less space, and says that nothing is there. */
    g_assert_cmpint(stat(path, &before), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 4 * 1024 * 1024, 1024 * 1024, BDRV_REQ_MAY_UNMAP), ==,
                    0);
    g_assert_cmpint(stat(path, &after), ==, 0);
    g_assert_cmpint(after.st_blocks, <, before.st_blocks);
    g_assert_true(status_at(blk, 4 * 1024 * 1024, FILE_BYTES / 2, &n) & BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 1024 * 1024);
    /* What may not be keeps its space. */
    g_assert_cmpint(stat(path, &before), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 6 * 1024 * 1024, 1024 * 1024, 0), ==, 0);
    g_assert_cmpint(stat(path, &after), ==, 0);
    g_assert_cmpint(after.st_blocks, ==, before.st_blocks);
    expect_zeroes(blk, 6 * 1024 * 1024, 1024 * 1024);
    /* Odd ends. */
    g_assert_cmpint(blk_pwrite_zeroes(blk, 7 * 1024 * 1024 + 3, 12345, BDRV_REQ_MAY_UNMAP), ==, 0);
    expect_pattern(blk, 7 * 1024 * 1024, 3, 1);
    expect_zeroes(blk, 7 * 1024 * 1024 + 3, 12345);
    expect_pattern(blk, 7 * 1024 * 1024 + 3 + 12345, 4096, 1);
    blk_unref(blk);
}

static void case_discard(const Variant *v)
{
    g_autofree char *path = make_file("discard", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);
    int64_t n;

    g_assert_true(status_at(blk, 0, FILE_BYTES, &n) & BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, FILE_BYTES);
    g_assert_cmpint(blk_pdiscard(blk, 1024 * 1024, 2 * 1024 * 1024), ==, 0);
    expect_zeroes(blk, 1024 * 1024, 2 * 1024 * 1024);
    expect_pattern(blk, 0, 1024 * 1024, 1);
    expect_pattern(blk, 3 * 1024 * 1024, 1024 * 1024, 1);

    /* What was known to be data is not believed any more. */
    g_assert_true(status_at(blk, 0, FILE_BYTES, &n) & BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 1024 * 1024);
    g_assert_true(status_at(blk, n, FILE_BYTES - n, &n) & BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 2 * 1024 * 1024);
    blk_unref(blk);
}

static void case_status(const Variant *v)
{
    g_autofree char *path = make_file("status", FILE_BYTES, 0);
    BlockBackend *blk = open_variant(v, path);
    int64_t at = 0, n;
    int extents = 0, ret;

    /* Data in the second MiB of every two. */
    for (int64_t i = 0; i < 4; i++) {
        write_pattern(blk, (2 * i + 1) * 1024 * 1024, 1024 * 1024, 3);
    }
    g_assert_cmpint(blk_flush(blk), ==, 0);
    for (; at < FILE_BYTES; at += n, extents++) {
        ret = status_at(blk, at, FILE_BYTES - at, &n);
        g_assert_cmpint(n, ==, 1024 * 1024);
        g_assert_cmpint(ret & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO), ==,
                        extents % 2 ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO);
        g_assert_true(ret & BDRV_BLOCK_OFFSET_VALID);
        g_assert_cmpint(!!(ret & BDRV_BLOCK_EOF), ==, at + n == FILE_BYTES);
    }
    /* In the middle of an extent, and shorter than it. */
    g_assert_true(status_at(blk, 1024 * 1024 + 4096, 8192, &n) & BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 8192);
    g_assert_true(status_at(blk, 4096, 8192, &n) & BDRV_BLOCK_ZERO);
    g_assert_cmpint(n, ==, 8192);
    blk_unref(blk);
}

static void expect_file(const char *path, int64_t length, bool allocated)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, length);
    g_assert_cmpint((int64_t)st.st_blocks * 512 >= length, ==, allocated);
}

static void case_truncate(const Variant *v)
{
    g_autofree char *path = make_file("truncate", 65536, 1);
    BlockBackend *blk = open_variant(v, path);
    Error *err = NULL;

    g_assert_cmpint(blk_truncate(blk, 1048576, true, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    g_assert_cmpint(blk_getlength(blk), ==, 1048576);
    expect_file(path, 1048576, false);
    expect_pattern(blk, 0, 65536, 1);
    expect_zeroes(blk, 65536, 1048576 - 65536);

    g_assert_cmpint(blk_truncate(blk, 32768, true, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    expect_file(path, 32768, true);
    g_assert_cmpint(blk_truncate(blk, 1048576, true, PREALLOC_MODE_FALLOC, 0, &error_abort), ==, 0);
    expect_file(path, 1048576, true);
    expect_zeroes(blk, 32768, 1048576 - 32768);
    g_assert_cmpint(blk_truncate(blk, 2097152 + 100, true, PREALLOC_MODE_FULL, BDRV_REQ_ZERO_WRITE,
                                 &error_abort), ==, 0);
    expect_file(path, 2097152 + 100, true);
    expect_zeroes(blk, 32768, 2097152 + 100 - 32768);

    g_assert_cmpint(blk_truncate(blk, 4096, true, PREALLOC_MODE_FULL, 0, &err), <, 0);
    expect_error(err, "*Preallocation can only be used for growing");
    err = NULL;
    g_assert_cmpint(blk_truncate(blk, 4194304, true, PREALLOC_MODE_METADATA, 0, &err), <, 0);
    expect_error(err, "*Unsupported preallocation mode 'metadata'*");
    expect_file(path, 2097152 + 100, true);
    blk_unref(blk);
}

/* Beyond the end, as a format above writes. */
static void coroutine_fn grow_entry(void *opaque)
{
    BdrvChild *root = blk_root(opaque);
    g_autofree uint8_t *buf = g_malloc(65536);

    fill_pattern(buf, 65536, 65536, 1);
    g_assert_cmpint(bdrv_co_pwrite(root, 65536, 65536, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(root, 131072, 65536, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(root, 196608, 1048576, BDRV_REQ_MAY_UNMAP), ==, 0);
}

static void case_grow(const Variant *v)
{
    g_autofree char *path = make_file("grow", 4096, 1);
    BlockBackend *blk = open_variant(v, path);

    run_co(grow_entry, blk);
    expect_file(path, 196608 + 1048576, false);
    g_assert_cmpint(blk_getlength(blk), ==, 196608 + 1048576);
    expect_pattern(blk, 0, 4096, 1);
    expect_zeroes(blk, 4096, 61440);
    expect_pattern(blk, 65536, 65536, 1);
    expect_zeroes(blk, 131072, 65536 + 1048576);
    blk_unref(blk);
}

static void case_fua_flush(const Variant *v)
{
    g_autofree char *path = make_file("fua", FILE_BYTES, 0);
    BlockBackend *blk = open_variant(v, path);
    g_autofree uint8_t *buf = g_malloc(100000);

    fill_pattern(buf, 5000, 100000, 9);
    g_assert_cmpint(blk_pwrite(blk, 5000, 100000, buf, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    expect_pattern(blk, 5000, 100000, 9);
    blk_unref(blk);
}

/*
 * A length that no sector fits: the tail can be read and written. What is written past the cache
 * goes into the file in whole sectors; the disk does not get longer by that.
 */
static void case_odd_length(const Variant *v)
{
    g_autofree char *path = make_file("odd", 10000, 1);
    BlockBackend *blk = open_variant(v, path);
    int64_t align = blk_get_request_alignment(blk), n;

    g_assert_cmpint(blk_getlength(blk), ==, 10000);
    expect_pattern(blk, 0, 10000, 1);
    expect_pattern(blk, 9999, 1, 1);
    g_assert_true(status_at(blk, 0, 10000, &n) & BDRV_BLOCK_DATA);
    g_assert_cmpint(n, ==, 10000);
    write_pattern(blk, 9990, 10, 2);
    expect_pattern(blk, 9990, 10, 2);
    expect_pattern(blk, 0, 9990, 1);
    g_assert_cmpint(blk_getlength(blk), ==, 10000);
    expect_file(path, (10000 + align - 1) / align * align, true);
    blk_unref(blk);
}

typedef struct ManyCase {
    BlockBackend *blk;
    int64_t index;
    unsigned *left;
} ManyCase;

static void coroutine_fn many_entry(void *opaque)
{
    ManyCase *c = opaque;
    int64_t offset = c->index * 65536;
    g_autofree uint8_t *buf = g_malloc(65536);

    fill_pattern(buf, offset, 65536, 5);
    g_assert_cmpint(blk_co_pwrite(c->blk, offset, 65536, buf, c->index % 7 ? 0 : BDRV_REQ_FUA), ==,
                    0);
    memset(buf, 0, 65536);
    g_assert_cmpint(blk_co_pread(c->blk, offset, 65536, buf, 0), ==, 0);
    check_pattern(buf, offset, 65536, 5);
    --*c->left;
}

static void case_many(const Variant *v)
{
    g_autofree char *path = make_file("many", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);
    ManyCase cases[FILE_BYTES / 65536];
    unsigned left = G_N_ELEMENTS(cases);

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        cases[i] = (ManyCase){ .blk = blk, .index = i, .left = &left };
        aio_co_enter(aio_context_main(), coroutine_create(many_entry, &cases[i]));
    }
    while (left > 0) {
        aio_poll(aio_context_main(), true);
    }
    expect_pattern(blk, 0, FILE_BYTES, 5);
    blk_unref(blk);
}

/* Reads that the page cache can answer, and those that it cannot. */
static void case_cold_cache(const Variant *v)
{
    g_autofree char *path = make_file("cold", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);
    int fd = state_of(blk)->fd;

    for (int round = 0; round < 3; round++) {
        g_assert_cmpint(fdatasync(fd), ==, 0);
        g_assert_cmpint(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), ==, 0);
        for (int64_t at = 0; at < FILE_BYTES; at += 49152) {
            expect_pattern(blk, at, MIN(4096, FILE_BYTES - at), 1);
            expect_pattern(blk, at, MIN(49152, FILE_BYTES - at), 1);
        }
    }
    blk_unref(blk);
}

static int reopen(BlockBackend *blk, bool read_only, bool direct, const char *extra, bool commit,
                  Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    FileState *s = bs->opaque;
    g_autoptr(BlockdevOptions) opts = node_options(
        "{'driver': 'file', 'filename': '%s', 'read-only': %s, 'cache': {'direct': %s}%s}",
        s->filename, read_only ? "true" : "false", direct ? "true" : "false", extra);
    BdrvReopenState state = {
        .bs = bs, .options = opts, .read_only = read_only, .cache_direct = direct,
    };
    int ret;

    bdrv_drained_begin(bs);
    ret = bdrv_file.reopen_prepare(&state, errp);
    if (ret == 0 && commit) {
        bdrv_file.reopen_commit(&state);
        bs->read_only = state.read_only;
        bs->cache_direct = direct;
        bdrv_refresh_limits(bs);
    } else if (ret == 0) {
        bdrv_file.reopen_abort(&state);
    }
    bdrv_drained_end(bs);
    return ret;
}

static void expect_access(BlockBackend *blk, int flags)
{
    int is = fcntl(state_of(blk)->fd, F_GETFL);

    g_assert_cmpint(is & (O_ACCMODE | O_DIRECT | O_NONBLOCK), ==, flags);
}

static void case_reopen(const Variant *v)
{
    g_autofree char *path = make_file("reopen", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);
    int direct = v->direct ? O_DIRECT : 0;
    Error *err = NULL;

    expect_access(blk, O_RDWR | direct);
    /* The name may belong to another file by now. */
    g_assert_cmpint(unlink(path), ==, 0);
    g_free(make_file("reopen", 4096, 2));

    g_assert_cmpint(reopen(blk, true, v->direct, "", false, &error_abort), ==, 0);
    expect_access(blk, O_RDWR | direct);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort), ==, 0);
    g_assert_cmpint(reopen(blk, true, v->direct, "", true, &error_abort), ==, 0);
    expect_access(blk, O_RDONLY | direct);
    expect_pattern(blk, 0, FILE_BYTES, 1);
    g_assert_cmpint(reopen(blk, false, !v->direct, "", true, &error_abort), ==, 0);
    expect_access(blk, O_RDWR | (direct ^ O_DIRECT));
    g_assert_cmpint(blk_get_request_alignment(blk) > 1, ==, !v->direct);
    expect_pattern(blk, 0, FILE_BYTES, 1);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, 0, &error_abort),
                    ==, 0);
    write_pattern(blk, 3, 9999, 4);
    g_assert_cmpint(reopen(blk, false, v->direct, ", 'aio': 'threads'", true, &error_abort), ==, 0);
    expect_pattern(blk, 3, 9999, 4);

    g_assert_cmpint(reopen(blk, false, false, ", 'locking': 'on'", true, &err), <, 0);
    expect_error(err, "Cannot change the option 'locking' of '*'");
    err = NULL;
    g_assert_cmpint(reopen(blk, false, false, ", 'aio': 'native'", true, &err), <, 0);
    expect_error(err, "aio=native needs cache.direct=on*");
    blk_unref(blk);
}

/*
 * Locks
 * -------------------------------------------------------------------------------------------------
 */

/* Which bytes somebody else's lock would find locked: bits 0-3 from 100 on, 4-7 from 200 on. */
static unsigned lock_bits_by(const char *path, int access)
{
    int fd = open(path, access | O_CLOEXEC);
    unsigned bits = 0;

    g_assert_cmpint(fd, >=, 0);
    for (int i = 0; i < 8; i++) {
        struct flock fl = {
            .l_type = F_WRLCK,
            .l_whence = SEEK_SET,
            .l_start = (i < 4 ? 100 : 200 - 4) + i,
            .l_len = 1,
        };

        g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &fl), ==, 0);
        bits |= (fl.l_type != F_UNLCK) << i;
    }
    close(fd);
    return bits;
}

static unsigned lock_bits(const char *path)
{
    return lock_bits_by(path, O_RDWR);
}

static void case_lock_bytes(const Variant *v)
{
    g_autofree char *path = make_file("bytes", FILE_BYTES, 1);
    BlockBackend *blk = open_variant(v, path);

    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                                 BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, &error_abort),
                    ==, 0);
    g_assert_cmphex(lock_bits(path), ==, 0xa3);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort), ==, 0);
    g_assert_cmphex(lock_bits(path), ==, 0x01);
    /* They go with the descriptor, and stay when it is another one. */
    g_assert_cmpint(reopen(blk, true, v->direct, "", true, &error_abort), ==, 0);
    g_assert_cmphex(lock_bits(path), ==, 0x01);
    g_assert_cmpint(reopen(blk, false, !v->direct, "", true, &error_abort), ==, 0);
    g_assert_cmpint(blk_set_perm(blk, 0, BLK_PERM_CONSISTENT_READ, &error_abort), ==, 0);
    g_assert_cmphex(lock_bits(path), ==, 0xe0);
    blk_unref(blk);
    g_assert_cmphex(lock_bits(path), ==, 0);
}

/*
 * The table
 * ------------------------------------------------------------------------------------------------
 */

typedef struct Case {
    const char *name;
    void (*run)(const Variant *v);
} Case;

static const Case cases[] = {
    { "read-write", case_read_write }, { "vectors", case_vectors }, { "zeroes", case_zeroes },
    { "discard", case_discard }, { "status", case_status }, { "truncate", case_truncate },
    { "grow", case_grow }, { "fua-flush", case_fua_flush }, { "odd-length", case_odd_length },
    { "many", case_many }, { "cold-cache", case_cold_cache }, { "reopen", case_reopen },
    { "lock-bytes", case_lock_bytes },
};

static const Variant variants[] = {
    { "threads", false }, { "io_uring", false }, { "threads", true }, { "io_uring", true },
    { "native", true },
};

typedef struct Run {
    const Case *c;
    const Variant *v;
} Run;

static void run_case(const void *data)
{
    const Run *r = data;
    Error *err = NULL;
    int kind;

    for (kind = 0; strcmp(aio_engine_name(kind), r->v->aio) != 0; kind++) {
    }
    if (!aio_engine_available(kind, &err)) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        return;
    }
    r->c->run(r->v);
}

/*
 * Processes
 * -------------------------------------------------------------------------------------------------
 */

static const char *program;

/* The other process. */
static int hold(const char *path, uint64_t perm, uint64_t shared)
{
    g_autoptr(BlockdevOptions) opts =
        node_options("{'driver': 'file', 'filename': '%s', 'read-only': %s}", path,
                     perm & BLK_PERM_WRITE ? "false" : "true");
    BlockDriverState *bs = bdrv_open(opts, &error_abort);
    Error *err = NULL;
    BlockBackend *blk = blk_new_with_bs(bs, perm, shared, &err);
    char c;

    if (blk) {
        puts("holding");
    } else {
        puts(error_get_pretty(err));
        error_free(err);
    }
    fflush(stdout);
    while (read(STDIN_FILENO, &c, 1) > 0) {
    }
    blk_unref(blk);
    bdrv_unref(bs);
    return 0;
}

typedef struct Holder {
    GPid pid;
    int in;
    FILE *out;
} Holder;

static char *holder_start(Holder *h, const char *path, unsigned perm, unsigned shared)
{
    g_autofree char *perm_arg = g_strdup_printf("%u", perm);
    g_autofree char *shared_arg = g_strdup_printf("%u", shared);
    const char *argv[] = { program, "--hold", path, perm_arg, shared_arg, NULL };
    g_autoptr(GError) err = NULL;
    char line[1024];
    int out;

    g_spawn_async_with_pipes(NULL, (char **)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                             &h->pid, &h->in, &out, NULL, &err);
    g_assert_no_error(err);
    h->out = fdopen(out, "r");
    g_assert_nonnull(fgets(line, sizeof(line), h->out));
    return g_strdup(g_strchomp(line));
}

static void holder_stop(Holder *h)
{
    close(h->in);
    g_assert_cmpint(waitpid(h->pid, NULL, 0), ==, h->pid);
    fclose(h->out);
}

static void test_two_processes(void)
{
    g_autofree char *path = make_file("two", FILE_BYTES, 1);
    const uint64_t read_write = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE;
    g_autofree char *said = NULL, *said2 = NULL, *expect = NULL, *expect2 = NULL, *unshared = NULL;
    g_autoptr(BlockdevOptions) opts = node_options("{'driver': 'file', 'filename': '%s'}", path);
    g_autoptr(BlockdevOptions) off =
        node_options("{'driver': 'file', 'filename': '%s', 'locking': 'off'}", path);
    Error *err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;
    Holder h;

    /* They write, and share reading. */
    said = holder_start(&h, path, read_write, BLK_PERM_CONSISTENT_READ);
    g_assert_cmpstr(said, ==, "holding");
    expect = g_strdup_printf(
        "Failed to get \"write\" lock on '%s': process %d (test-block-file) does not "
        "share it",
        path, h.pid);
    bs = bdrv_open(opts, &error_abort);
    g_assert_null(blk_new_with_bs(bs, read_write, BLK_PERM_ALL, &err));
    expect_error(err, expect);
    err = NULL;
    expect2 = g_strdup_printf(
        "Failed to get shared \"write\" lock on '%s': process %d (test-block-file) is "
        "using it",
        path, h.pid);
    g_assert_null(blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_CONSISTENT_READ, &err));
    expect_error(err, expect2);
    /* What both allow goes. */
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    expect_pattern(blk, 0, FILE_BYTES, 1);
    blk_unref(blk);
    bdrv_unref(bs);
    /* Who does not lock is not stopped. */
    blk_unref(blk_new_open(off, &error_abort));
    holder_stop(&h);

    /* Afterwards it is ours, and they are refused. */
    blk = blk_new_open(opts, &error_abort);
    g_assert_cmpint(blk_set_perm(blk, read_write, 0, &error_abort), ==, 0);
    said2 = holder_start(&h, path, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL);
    unshared = g_strdup_printf("Failed to get \"consistent read\" lock on '%s': process %d "
                               "(test-block-file) does not share it", path, getpid());
    g_assert_cmpstr(said2, ==, unshared);
    holder_stop(&h);
    blk_unref(blk);
}

/* A refusal leaves what was there before. */
static void test_refused_keeps(void)
{
    g_autofree char *path = make_file("keeps", FILE_BYTES, 1);
    BlockBackend *a = blk_from("{'driver': 'file', 'filename': '%s'}", path), *b;
    g_autoptr(BlockdevOptions) ro =
        node_options("{'driver': 'file', 'filename': '%s', 'read-only': true}", path);
    Error *err = NULL;

    g_assert_cmpint(blk_set_perm(a, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort), ==, 0);
    b = blk_new_open(ro, &error_abort);
    g_assert_cmpint(blk_set_perm(b, BLK_PERM_CONSISTENT_READ,
                                 BLK_PERM_ALL & ~BLK_PERM_WRITE, &error_abort), ==, 0);
    g_assert_cmphex(lock_bits(path), ==, 0x21);
    g_assert_cmpint(blk_set_perm(a, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE,
                                 0, &err), <, 0);
    expect_error(
        err, "Failed to get shared \"consistent read\" lock on '*': another node of this process "
             "is using it");
    g_assert_cmphex(lock_bits(path), ==, 0x21);
    blk_unref(b);
    g_assert_cmphex(lock_bits(path), ==, 0x01);
    blk_unref(a);
}

/* The exit status, and what it wrote to stderr. */
static int run_program(char **message, const char *const *argv)
{
    g_autoptr(GError) err = NULL;
    int status;

    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL,
                 NULL, NULL, message, &status, &err);
    g_assert_no_error(err);
    return WEXITSTATUS(status);
}

static bool have_program(const char *name)
{
    g_autofree char *path = g_find_program_in_path(name);

    if (!path) {
        g_autofree char *text = g_strdup_printf("%s is not installed", name);

        g_test_skip(text);
    }
    return path;
}

static void test_against_qemu(void)
{
    g_autofree char *path = test_path("qemu.qcow2"), *message = NULL, *message2 = NULL;
    const char *create[] = { "qemu-img", "create", "-f", "qcow2", path, "1M", NULL };
    const char *write[] = { "qemu-io", "-f", "raw", "-c", "write -P 1 64k 4k", path, NULL };
    const char *info[] = { "qemu-img", "info", "-f", "qcow2", path, NULL };
    const char *forced[] = { "qemu-img", "info", "-U", "-f", "qcow2", path, NULL };
    BlockBackend *blk;

    if (!have_program("qemu-io") || !have_program("qemu-img")) {
        return;
    }
    g_assert_cmpint(run_program(NULL, create), ==, 0);
    blk = blk_from("{'driver': 'file', 'filename': '%s'}", path);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                                 BLK_PERM_CONSISTENT_READ, &error_abort), ==, 0);
    g_assert_cmpint(run_program(&message, write), ==, 1);
    g_assert_nonnull(strstr(message, "Failed to get \"write\" lock"));
    g_assert_cmpint(run_program(&message2, info), ==, 1);
    g_assert_nonnull(strstr(message2, "Failed to get shared \"write\" lock"));
    g_assert_cmpint(run_program(NULL, forced), ==, 0);
    blk_unref(blk);
    g_assert_cmpint(run_program(NULL, info), ==, 0);
    g_assert_cmpint(run_program(NULL, write), ==, 0);
}

/* The reverse: qemu-io has it open, and reads commands from its input. */
static void test_qemu_first(void)
{
    g_autofree char *path = make_file("first", FILE_BYTES, 1);
    const char *argv[] = { "qemu-io", "-f", "raw", path, NULL };
    g_autofree char *expect = NULL;
    g_autoptr(GError) err = NULL;
    GPid pid;
    int in, out;
    char c;

    if (!have_program("qemu-io")) {
        return;
    }
    g_spawn_async_with_pipes(NULL, (char **)argv, NULL,
                             G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid, &in,
                             &out, NULL, &err);
    g_assert_no_error(err);
    /* Its prompt comes when the image is open. */
    g_assert_cmpint(read(out, &c, 1), ==, 1);
    expect = g_strdup_printf(
        "Failed to get shared \"write\" lock on '%s': process %d (qemu-io) is using it", path, pid);
    expect_no_open(expect, "{'driver': 'file', 'filename': '%s'}", path);
    blk_unref(blk_from(
        "{'driver': 'file', 'filename': '%s', 'read-only': true, 'force-share': true}", path));
    close(in);
    while (read(out, &c, 1) > 0) {
    }
    close(out);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    blk_unref(blk_from("{'driver': 'file', 'filename': '%s'}", path));
}

/*
 * Opening
 * -------------------------------------------------------------------------------------------------
 */

/* A program that runs cannot be opened for writing, by root either. */
static void test_auto_read_only(void)
{
    g_autofree char *path = test_path("sleeper"), *sleep_path = g_find_program_in_path("sleep");
    const char *cp[] = { "cp", sleep_path, path, NULL };
    const char *run[] = { path, "600", NULL };
    g_autoptr(BlockdevOptions) opts = node_options(
        "{'driver': 'file', 'filename': '%s', 'auto-read-only': true}", path);
    Error *err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;
    GPid pid;

    g_assert_cmpint(run_program(NULL, cp), ==, 0);
    g_assert_true(
        g_spawn_async(NULL, (char **)run, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid, NULL));
    expect_no_open("Could not open '*': Text file busy", "{'driver': 'file', 'filename': '%s'}",
                   path);
    bs = bdrv_open(opts, &error_abort);
    g_assert_true(bdrv_is_read_only(bs));
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &err), <, 0);
    expect_error(err, "Could not open '*' for writing: Text file busy");
    g_assert_cmphex(lock_bits_by(path, O_RDONLY), ==, 0x01);

    kill(pid, SIGKILL);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL,
                                 &error_abort), ==, 0);
    g_assert_false(bdrv_is_read_only(bs));
    expect_access(blk, O_RDWR);
    g_assert_cmphex(lock_bits(path), ==, 0x03);
    write_pattern(blk, 0, 4096, 1);
    expect_pattern(blk, 0, 4096, 1);
    blk_unref(blk);
    bdrv_unref(bs);
}

static int set_fds[2], set_n;

static int pick_from_set(int64_t id, int flags, Error **errp)
{
    g_assert_cmpint(id, ==, 7);
    return io_fdset_pick(set_fds, set_n, id, flags, errp);
}

static void test_fdset(void)
{
    g_autofree char *path = make_file("fdset", FILE_BYTES, 1);
    g_autoptr(BlockdevOptions) opts = node_options(
        "{'driver': 'file', 'filename': '/dev/fdset/7', 'auto-read-only': true}");
    Error *err = NULL;
    BlockDriverState *bs;
    BlockBackend *blk;

    io_fdset_set_opener(pick_from_set);
    set_fds[0] = open(path, O_RDONLY | O_CLOEXEC);
    set_fds[1] = open(path, O_RDWR | O_CLOEXEC);
    set_n = 1;
    expect_no_open("Could not open '/dev/fdset/7': fdset 7 has no read-write file descriptor*",
                   "{'driver': 'file', 'filename': '/dev/fdset/7'}");
    bs = bdrv_open(opts, &error_abort);
    g_assert_true(bdrv_is_read_only(bs));
    blk = blk_new_with_bs(bs, BLK_PERM_CONSISTENT_READ, BLK_PERM_ALL, &error_abort);
    expect_pattern(blk, 0, FILE_BYTES, 1);
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_WRITE, BLK_PERM_ALL, &err), <, 0);
    expect_error(err, "Could not open '/dev/fdset/7': fdset 7 has no read-write*");
    /* One that can write arrives. */
    set_n = 2;
    g_assert_cmpint(blk_set_perm(blk, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL,
                                 &error_abort), ==, 0);
    write_pattern(blk, 0, 4096, 3);
    blk_unref(blk);
    bdrv_unref(bs);
    close(set_fds[0]);
    close(set_fds[1]);
    io_fdset_set_opener(NULL);
}

static void test_refused(void)
{
    g_autofree char *path = make_file("refused", 4096, 1), *fifo = test_path("fifo");
    g_autofree char *dir = g_path_get_dirname(path);

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    expect_no_open("Could not open '/nonexistent/x': No such file or directory",
                   "{'driver': 'file', 'filename': '/nonexistent/x'}");
    expect_no_open("'file' driver requires '*' to be a regular file",
                   "{'driver': 'file', 'filename': '%s', 'read-only': true}", dir);
    expect_no_open("'file' driver requires '*' to be a regular file",
                   "{'driver': 'file', 'filename': '%s', 'read-only': true}", fifo);
    expect_no_open("'file' driver requires '/dev/null' to be a regular file",
                   "{'driver': 'file', 'filename': '/dev/null'}");
    expect_no_open("'host_device' driver requires '*' to be a block device",
                   "{'driver': 'host_device', 'filename': '%s'}", path);
    expect_no_open("aio=native needs cache.direct=on for '*'*",
                   "{'driver': 'file', 'filename': '%s', 'aio': 'native'}", path);
    expect_no_open("Could not open '/proc/self/maps': *O_DIRECT*",
                   "{'driver': 'file', 'filename': '/proc/self/maps', 'read-only': true, "
                   "'cache': {'direct': true}}");
}

static void test_alignment(void)
{
    g_autofree char *path = make_file("align", 65536, 1), *empty = make_file("empty", 0, 0);
    BlockBackend *blk = blk_from("{'driver': 'file', 'filename': '%s'}", path);
    FileAlignment align;
    int fd;

    g_assert_cmpint(blk_get_request_alignment(blk), ==, 1);
    blk_unref(blk);
    blk = blk_from("{'driver': 'file', 'filename': '%s', 'cache': {'direct': true}}", path);
    g_assert_cmpint(blk_get_request_alignment(blk), >=, 512);
    /* What was found out is what the kernel takes. */
    fd = state_of(blk)->fd;
    align = state_of(blk)->align;
    void *mem = NULL;
    g_assert_cmpint(posix_memalign(&mem, 4096, 8192), ==, 0);
    g_assert_cmpint(pread(fd, (char *)mem + align.memory, align.request, align.request), ==,
                    align.request);
    free(mem);
    blk_unref(blk);
    fd = open(empty, O_RDWR | O_DIRECT | O_CLOEXEC);
    file_probe_alignment(fd, true, false, &align);
    g_assert_cmpint(align.request, >=, 512);
    close(fd);
}

static void test_info(void)
{
    g_autofree char *path = make_file("info", 65536, 1);
    BlockBackend *blk = blk_from("{'driver': 'file', 'filename': '%s'}", path);
    BlockDriverState *bs = blk_bs(blk);
    ImageInfoSpecific *info = bs->drv->get_specific_info(bs, &error_abort);

    g_assert_cmpint(info->type, ==, IMAGE_INFO_SPECIFIC_KIND_FILE);
    g_assert_false(info->u.file.data->has_extent_size_hint);
    qapi_free_ImageInfoSpecific(info);
    g_assert_cmpstr(bdrv_get_filename(bs), ==, path);
    blk_unref(blk);
}

/*
 * Making files
 * ------------------------------------------------------------------------------------------------
 */

typedef struct CreateCall {
    const char *name;
    uint64_t size;
    const char *prealloc;       /* NULL: no options */
    const char *key;
    int ret;
    Error *err;
} CreateCall;

static void coroutine_fn create_entry(void *opaque)
{
    CreateCall *c = opaque;
    struct json_object *opts = json_object_new_object();

    if (c->prealloc) {
        json_object_object_add(opts, c->key ? c->key : "preallocation",
                               json_object_new_string(c->prealloc));
    }
    c->ret = bdrv_co_create_protocol(c->name, c->size, opts, &c->err);
    json_object_put(opts);
}

static void create_ok(const char *name, uint64_t size, const char *prealloc)
{
    CreateCall c = { .name = name, .size = size, .prealloc = prealloc };

    run_co(create_entry, &c);
    g_assert_null(c.err);
    g_assert_cmpint(c.ret, ==, 0);
}

static void create_fails(const char *pattern, const char *name, uint64_t size, const char *key,
                         const char *value)
{
    CreateCall c = { .name = name, .size = size, .prealloc = value, .key = key };

    run_co(create_entry, &c);
    g_assert_cmpint(c.ret, <, 0);
    expect_error(c.err, pattern);
}

static void test_create(void)
{
    g_autofree char *path = test_path("new"), *url = g_strdup_printf("file:%s", path);
    BlockBackend *blk;

    create_ok(path, 1048576, NULL);
    expect_file(path, 1048576, false);
    create_ok(path, 65536, "off");
    expect_file(path, 65536, false);
    create_ok(url, 131072, "falloc");
    expect_file(path, 131072, true);
    create_ok(path, 1500000, "full");
    expect_file(path, 1500000, true);
    /* What was in it is gone. */
    blk = blk_from("{'driver': 'file', 'filename': '%s'}", path);
    write_pattern(blk, 0, 65536, 1);

    create_fails("Failed to get \"write\" lock on '*'*", path, 4096, NULL, NULL);
    expect_file(path, 1500000, true);
    blk_unref(blk);
    create_ok(path, 65536, NULL);
    blk = blk_from("{'driver': 'file', 'filename': '%s'}", path);
    expect_zeroes(blk, 0, 65536);
    blk_unref(blk);

    create_fails("Could not create '*': invalid parameter 'compat'", path, 4096, "compat", "1.1");
    create_fails("Could not create '*': preallocation: invalid parameter value: some", path, 4096,
                 NULL, "some");
    create_fails("Could not create '*': preallocation mode 'metadata'*", path, 4096, NULL,
                 "metadata");
    create_fails("Could not create '*': a length of * bytes is too large", path, UINT64_MAX, NULL,
                 NULL);
    create_fails("Could not open '/nonexistent/x': *", "/nonexistent/x", 4096, NULL, NULL);
    create_fails("Could not create 'nbd:unix:/x': the driver 'nbd' does not make images",
                 "nbd:unix:/x", 4096, NULL, NULL);
    /* A file that could not be allocated is not left behind. */
    g_assert_cmpint(unlink(path), ==, 0);
    create_fails("Could not create '*': Could not *", path, INT64_MAX / 4, NULL, "falloc");
    g_assert_cmpint(access(path, F_OK), <, 0);
}

/*
 * Devices
 * -------------------------------------------------------------------------------------------------
 */

/* A loop device on the file, or NULL, the test being skipped. */
static char *attach_loop(const char *path)
{
    const char *argv[] = { "losetup", "--find", "--show", path, NULL };
    char *device = NULL;
    int status = -1;

    if (geteuid() != 0 ||
        !g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL,
                      NULL, NULL, &device, NULL, &status, NULL) ||
        status != 0) {
        g_test_skip("no loop device can be made");
        g_free(device);
        return NULL;
    }
    return g_strchomp(device);
}

static void use_device(const char *device, bool direct)
{
    BlockBackend *blk = blk_from("{'driver': 'host_device', 'filename': '%s', 'discard': 'unmap', "
                                 "'cache': {'direct': %s}}", device, direct ? "true" : "false");
    Error *err = NULL;
    int64_t n;

    g_assert_cmpint(blk_getlength(blk), ==, FILE_BYTES);
    write_pattern(blk, 0, FILE_BYTES, 6);
    expect_pattern(blk, 0, FILE_BYTES, 6);
    g_assert_true(status_at(blk, 0, FILE_BYTES, &n) & BDRV_BLOCK_DATA);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 65536 + 100, 131072, 0), ==, 0);
    expect_zeroes(blk, 65536 + 100, 131072);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 1048576, 131072, BDRV_REQ_MAY_UNMAP), ==, 0);
    expect_zeroes(blk, 1048576, 131072);
    g_assert_cmpint(blk_pdiscard(blk, 2097152, 131072), ==, 0);
    expect_pattern(blk, 0, 65636, 6);
    expect_pattern(blk, 65636 + 131072, 1048576 - 65636 - 131072, 6);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_assert_cmpint(blk_truncate(blk, FILE_BYTES * 2, false, PREALLOC_MODE_OFF, 0, &err), <, 0);
    expect_error(err, "Cannot grow device '*' beyond its 8388608 bytes");
    err = NULL;
    g_assert_cmpint(blk_truncate(blk, 4096, true, PREALLOC_MODE_OFF, 0, &err), <, 0);
    expect_error(err, "Cannot resize device '*'");
    g_assert_cmpint(blk_truncate(blk, 4096, false, PREALLOC_MODE_OFF, 0, &error_abort), ==, 0);
    blk_unref(blk);
}

static void test_host_device(void)
{
    g_autofree char *path = make_file("loop", FILE_BYTES, 1);
    g_autofree char *device = attach_loop(path);
    const char *detach[] = { "losetup", "--detach", device, NULL };
    BlockBackend *blk;

    if (!device) {
        return;
    }
    use_device(device, false);
    use_device(device, true);
    create_fails("Could not create '*': the device has 8388608 bytes, 9000000 are needed", device,
                 9000000, NULL, NULL);
    create_ok(device, 1048576, NULL);
    blk = blk_from("{'driver': 'host_device', 'filename': '%s'}", device);
    expect_zeroes(blk, 0, 512);
    expect_pattern(blk, 512, 4096 - 512, 6);
    blk_unref(blk);
    expect_no_open("'file' driver requires '*' to be a regular file",
                   "{'driver': 'file', 'filename': '%s'}", device);
    g_assert_cmpint(run_program(NULL, detach), ==, 0);
}

int main(int argc, char **argv)
{
    int ret;

    program = argv[0];
    if (argc == 5 && strcmp(argv[1], "--hold") == 0) {
        return hold(argv[2], atoi(argv[3]), atoi(argv[4]));
    }
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(variants); i++) {
        for (size_t j = 0; j < G_N_ELEMENTS(cases); j++) {
            const Variant *v = &variants[i];
            g_autofree char *name = g_strdup_printf("/file/%s-%s/%s", v->aio,
                                                    v->direct ? "direct" : "cached", cases[j].name);
            Run *run = g_new(Run, 1);

            *run = (Run){ .c = &cases[j], .v = v };
            g_test_add_data_func_full(name, run, run_case, g_free);
        }
    }
    g_test_add_func("/file/two-processes", test_two_processes);
    g_test_add_func("/file/refused-keeps", test_refused_keeps);
    g_test_add_func("/file/against-qemu", test_against_qemu);
    g_test_add_func("/file/qemu-first", test_qemu_first);
    g_test_add_func("/file/auto-read-only", test_auto_read_only);
    g_test_add_func("/file/fdset", test_fdset);
    g_test_add_func("/file/refused", test_refused);
    g_test_add_func("/file/alignment", test_alignment);
    g_test_add_func("/file/info", test_info);
    g_test_add_func("/file/create", test_create);
    g_test_add_func("/file/host-device", test_host_device);
    ret = g_test_run();
    block_harness_clean_up();
    return ret;
}
