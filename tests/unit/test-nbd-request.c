/*
 * Requests of NBD clients: every field that can be wrong, and what the protocol says about it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib.h>

#include "nbd/request.h"
#include "util/bswap.h"

#define SIZE UINT64_C(0x100000000000)
#define MIB (UINT64_C(1) << 20)
#define WRITABLE                                                                         \
    (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM | \
     NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO | NBD_FLAG_SEND_CACHE)

enum { SIMPLE = NBD_MODE_SIMPLE, STRUCTURED = NBD_MODE_STRUCTURED, EXTENDED = NBD_MODE_EXTENDED };
enum { READ = NBD_CMD_READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS };
enum { FUA = 1, NO_HOLE = 2, DF = 4, REQ_ONE = 8, FAST_ZERO = 16, PAYLOAD = 32 };
enum { RW, RO };

typedef struct Case {
    int mode, access;
    uint16_t command, flags;
    uint64_t offset, length;
    int verdict;                /* -1: disconnect; else the error, 0: it is done */
} Case;

static const Case cases[] = {
    /* What is right. */
    { SIMPLE, RW, READ, 0, 0, 1, 0 },
    { SIMPLE, RO, READ, 0, SIZE - 1, 1, 0 },
    { SIMPLE, RO, READ, 0, SIZE, 0, 0 },
    { STRUCTURED, RW, READ, DF, 0, 32 * MIB, 0 },
    { EXTENDED, RW, READ, DF | FUA, 5, 7, 0 },
    { SIMPLE, RW, WRITE, 0, 0, 32 * MIB, 0 },
    { STRUCTURED, RW, WRITE, FUA, SIZE - 512, 512, 0 },
    { EXTENDED, RW, WRITE, PAYLOAD | FUA, 0, 512, 0 },
    { SIMPLE, RW, FLUSH, 0, 0, 0, 0 },
    { SIMPLE, RO, FLUSH, FUA, 0, 0, 0 },
    { SIMPLE, RW, TRIM, FUA, 0, UINT32_MAX, 0 },
    { EXTENDED, RW, TRIM, 0, 0, SIZE, 0 },
    { SIMPLE, RW, ZEROES, FUA | NO_HOLE | FAST_ZERO, 0, UINT32_MAX, 0 },
    { EXTENDED, RW, ZEROES, 0, 0, SIZE, 0 },
    { SIMPLE, RO, CACHE, 0, 0, 32 * MIB, 0 },
    { STRUCTURED, RO, STATUS, REQ_ONE, 0, UINT32_MAX, 0 },
    { EXTENDED, RO, STATUS, 0, 0, SIZE, 0 },
    { EXTENDED, RO, STATUS, PAYLOAD, 0, 8 + 4, 0 },
    /* FUA is no mistake where nothing is written. */
    { SIMPLE, RO, READ, FUA, 0, 512, 0 },
    { SIMPLE, RO, CACHE, FUA, 0, 512, 0 },
    { STRUCTURED, RO, STATUS, FUA, 0, 512, 0 },

    /* Ranges: beyond the end, and around the end of numbers. */
    { SIMPLE, RW, READ, 0, SIZE, 1, NBD_EINVAL },
    { SIMPLE, RW, READ, 0, SIZE - 511, 512, NBD_EINVAL },
    { SIMPLE, RW, READ, 0, UINT64_MAX, 1, NBD_EINVAL },
    { SIMPLE, RW, READ, 0, UINT64_MAX - 511, 512, NBD_EINVAL },
    { SIMPLE, RW, READ, 0, INT64_MAX, 512, NBD_EINVAL },
    { SIMPLE, RW, WRITE, 0, SIZE, 1, NBD_ENOSPC },
    { SIMPLE, RW, WRITE, 0, UINT64_MAX, 512, NBD_ENOSPC },
    { SIMPLE, RW, ZEROES, 0, SIZE - 1, 2, NBD_ENOSPC },
    { EXTENDED, RW, ZEROES, 0, 1, UINT64_MAX, NBD_ENOSPC },
    { SIMPLE, RW, TRIM, 0, SIZE - 1, 2, NBD_EINVAL },
    { EXTENDED, RW, TRIM, 0, UINT64_MAX, UINT64_MAX, NBD_EINVAL },
    { SIMPLE, RW, CACHE, 0, SIZE, 512, NBD_EINVAL },
    { STRUCTURED, RW, STATUS, 0, SIZE, 512, NBD_EINVAL },
    { STRUCTURED, RW, STATUS, 0, 0, 0, NBD_EINVAL },
    { SIMPLE, RW, FLUSH, 0, 1, 0, NBD_EINVAL },
    { SIMPLE, RW, FLUSH, 0, 0, 1, NBD_EINVAL },

    /* Lengths. */
    { SIMPLE, RW, READ, 0, 0, 32 * MIB + 1, NBD_EINVAL },
    { EXTENDED, RW, READ, 0, 0, UINT64_MAX, NBD_EINVAL },
    { SIMPLE, RW, WRITE, 0, 0, 32 * MIB + 1, NBD_EINVAL },
    { SIMPLE, RW, WRITE, 0, 0, 64 * MIB, NBD_EINVAL },
    { SIMPLE, RW, WRITE, 0, 0, 64 * MIB + 1, -1 },
    { SIMPLE, RO, WRITE, 0, 0, UINT32_MAX, -1 },
    { SIMPLE, RO, CACHE, 0, 0, 32 * MIB + 1, NBD_EINVAL },
    { EXTENDED, RW, CACHE, 0, 0, SIZE / 2, NBD_EINVAL },
    { EXTENDED, RW, WRITE, PAYLOAD, 0, UINT64_MAX, -1 },
    { EXTENDED, RW, STATUS, PAYLOAD, 0, 0, NBD_EINVAL },
    { EXTENDED, RW, STATUS, PAYLOAD, 0, 7, NBD_EINVAL },
    { EXTENDED, RW, STATUS, PAYLOAD, 0, 13, NBD_EINVAL },
    { EXTENDED, RW, STATUS, PAYLOAD, 0, 8 + 4 * NBD_MAX_STATUS_IDS, 0 },
    { EXTENDED, RW, STATUS, PAYLOAD, 0, 12 + 4 * NBD_MAX_STATUS_IDS, NBD_EINVAL },

    /* A payload where none belongs is skipped when it is short enough. */
    { EXTENDED, RW, READ, PAYLOAD, 0, 512, NBD_EINVAL },
    { EXTENDED, RW, FLUSH, PAYLOAD, 0, 512, NBD_EINVAL },
    { EXTENDED, RW, 77, PAYLOAD, 0, 64 * MIB, NBD_EINVAL },
    { EXTENDED, RW, 77, PAYLOAD, 0, 64 * MIB + 1, -1 },
    { EXTENDED, RW, WRITE, 0, 0, 512, NBD_EINVAL },

    /* Rights. */
    { SIMPLE, RO, WRITE, 0, 0, 512, NBD_EPERM },
    { SIMPLE, RO, TRIM, 0, 0, 512, NBD_EPERM },
    { SIMPLE, RO, ZEROES, FAST_ZERO, 0, 512, NBD_EPERM },
    { SIMPLE, RO, WRITE, 0, SIZE, 512, NBD_EPERM },

    /* Flags that a command does not have, or that were not agreed on. */
    { SIMPLE, RW, READ, DF, 0, 512, NBD_EINVAL },
    { STRUCTURED, RW, READ, NO_HOLE, 0, 512, NBD_EINVAL },
    { STRUCTURED, RW, READ, PAYLOAD, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, WRITE, NO_HOLE, 0, 512, NBD_EINVAL },
    { STRUCTURED, RW, WRITE, PAYLOAD, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, WRITE, DF, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, TRIM, FAST_ZERO, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, FLUSH, REQ_ONE, 0, 0, NBD_EINVAL },
    { SIMPLE, RW, CACHE, NO_HOLE, 0, 512, NBD_EINVAL },
    { STRUCTURED, RW, STATUS, DF, 0, 512, NBD_EINVAL },
    { STRUCTURED, RW, STATUS, PAYLOAD, 0, 12, NBD_EINVAL },
    { SIMPLE, RW, ZEROES, REQ_ONE, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, READ, 1 << 6, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, READ, 1 << 15, 0, 512, NBD_EINVAL },

    /* Commands that there are not, or not here. */
    { SIMPLE, RW, STATUS, 0, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, 8, 0, 0, 512, NBD_EINVAL },
    { SIMPLE, RW, 0xffff, 0, 0, 0, NBD_EINVAL },
    { SIMPLE, RW, DISC, 0, 0, 0, -1 },
    { EXTENDED, RW, DISC, 0xffff, 1, 1, -1 },
};

static NbdTerms terms_of(const Case *c)
{
    NbdTerms terms = {
        .mode = c->mode, .flags = WRITABLE, .meta_contexts = c->mode != SIMPLE, .size = SIZE,
    };

    if (c->access == RO) {
        terms.flags =
            NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;
    }
    if (c->mode != SIMPLE) {
        terms.flags |= NBD_FLAG_SEND_DF;
    }
    if (c->mode == EXTENDED) {
        terms.flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    }
    return terms;
}

static void put_header(uint8_t *header, const Case *c)
{
    stl_be_p(header, c->mode == EXTENDED ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);
    stw_be_p(header + 4, c->flags);
    stw_be_p(header + 6, c->command);
    stq_be_p(header + 8, UINT64_C(0x0123456789abcdef));
    stq_be_p(header + 16, c->offset);
    if (c->mode == EXTENDED) {
        stq_be_p(header + 24, c->length);
    } else {
        stl_be_p(header + 24, c->length);
    }
}

static void test_table(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Case *c = &cases[i];
        NbdTerms terms = terms_of(c);
        uint8_t header[NBD_EXTENDED_REQUEST_BYTES];
        const char *why = "";
        uint32_t error = 0;
        NbdRequest req;
        NbdVerdict verdict;
        int got;

        put_header(header, c);
        g_assert_true(nbd_request_parse(header, c->mode, &req));
        g_assert_cmpuint(req.command, ==, c->command);
        g_assert_cmpuint(req.flags, ==, c->flags);
        g_assert_cmphex(req.cookie, ==, UINT64_C(0x0123456789abcdef));
        g_assert_cmpuint(req.offset, ==, c->offset);
        g_assert_cmpuint(req.length, ==, c->length);
        verdict = nbd_request_validate(&req, &terms, &error, &why);
        got = verdict == NBD_DO ? 0 : verdict == NBD_REFUSE ? (int)error : -1;
        if (got != c->verdict) {
            g_error("row %zu: %s of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT
                    ": %d instead of %d (%s)",
                    i, nbd_command_name(c->command), c->length, c->offset, got, c->verdict, why);
        }
        if (got > 0) {
            g_assert_nonnull(why);
            g_assert_cmpstr(why, !=, "");
        }
    }
}

static void test_payload_length(void)
{
    const struct {
        int mode;
        uint16_t command, flags;
        uint64_t payload;
    } rows[] = {
        { SIMPLE, WRITE, 0, 512 },         { SIMPLE, READ, 0, 0 },
        { SIMPLE, READ, PAYLOAD, 0 },      { EXTENDED, WRITE, 0, 0 },
        { EXTENDED, WRITE, PAYLOAD, 512 }, { EXTENDED, READ, PAYLOAD, 512 },
        { EXTENDED, 99, PAYLOAD, 512 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        Case c = {
            .mode = rows[i].mode, .command = rows[i].command, .flags = rows[i].flags, .length = 512
        };
        uint8_t header[NBD_EXTENDED_REQUEST_BYTES];
        NbdRequest req;

        put_header(header, &c);
        g_assert_true(nbd_request_parse(header, c.mode, &req));
        g_assert_cmpuint(req.payload, ==, rows[i].payload);
    }
}

/* Each mode has its own magic number, and takes no other. */
static void test_magic(void)
{
    for (int mode = SIMPLE; mode <= EXTENDED; mode++) {
        for (int other = SIMPLE; other <= EXTENDED; other++) {
            Case c = { .mode = other, .command = READ };
            uint8_t header[NBD_EXTENDED_REQUEST_BYTES];
            NbdRequest req;

            put_header(header, &c);
            g_assert_cmpint(nbd_request_parse(header, mode, &req), ==,
                            (mode == EXTENDED) == (other == EXTENDED));
            header[3] ^= 1;
            g_assert_false(nbd_request_parse(header, mode, &req));
        }
    }
}

static NbdVerdict status(uint64_t offset, uint64_t length, const uint32_t *ids, unsigned n,
                         uint32_t *got, unsigned *n_got, uint32_t *error)
{
    static const uint32_t known[] = { 0, 2, 3 };
    NbdTerms terms = { .mode = NBD_MODE_EXTENDED, .size = SIZE, .meta_contexts = true };
    NbdRequest req = {
        .command = STATUS, .flags = PAYLOAD, .offset = offset, .payload = 8 + 4 * n
    };
    g_autofree uint8_t *payload = g_malloc(req.payload);
    const char *why = "";
    NbdVerdict verdict;

    stq_be_p(payload, length);
    for (unsigned i = 0; i < n; i++) {
        stl_be_p(payload + 8 + 4 * i, ids[i]);
    }
    verdict = nbd_status_payload_validate(&req, payload, &terms, known, 3, got, n_got, error, &why);
    if (verdict == NBD_DO) {
        g_assert_cmpuint(req.length, ==, length);
    }
    return verdict;
}

static void test_status_payload(void)
{
    static const uint32_t good[] = { 3, 0 }, unknown[] = { 0, 1 }, twice[] = { 2, 2 };
    uint32_t got[NBD_MAX_STATUS_IDS], error = 0;
    unsigned n = 0;

    g_assert_cmpint(status(0, SIZE, good, 2, got, &n, &error), ==, NBD_DO);
    g_assert_cmpuint(n, ==, 2);
    g_assert_cmpuint(got[0], ==, 3);
    g_assert_cmpuint(got[1], ==, 0);
    g_assert_cmpint(status(0, 512, unknown, 2, got, &n, &error), ==, NBD_REFUSE);
    g_assert_cmpint(status(0, 512, twice, 2, got, &n, &error), ==, NBD_REFUSE);
    g_assert_cmpint(status(0, 512, good, 0, got, &n, &error), ==, NBD_REFUSE);
    g_assert_cmpint(status(0, 0, good, 1, got, &n, &error), ==, NBD_REFUSE);
    g_assert_cmpint(status(1, SIZE, good, 1, got, &n, &error), ==, NBD_REFUSE);
    g_assert_cmpint(status(UINT64_MAX, UINT64_MAX, good, 1, got, &n, &error), ==, NBD_REFUSE);
    g_assert_cmpuint(error, ==, NBD_EINVAL);
}

static void test_errno(void)
{
    const struct {
        int err;
        uint32_t error;
    } rows[] = {
        { 0, 0 }, { -EPERM, 1 }, { -EACCES, 1 }, { -EROFS, 1 }, { -EIO, 5 }, { -ENOMEM, 12 },
        { -EINVAL, 22 },
        { -ENOSPC, 28 }, { -EDQUOT, 28 }, { -EFBIG, 28 }, { -EOVERFLOW, 75 }, { -ENOTSUP, 95 },
        { -ESHUTDOWN, 108 }, { -EBADF, 5 }, { -ENOMEDIUM, 5 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_assert_cmpuint(nbd_error_from_errno(rows[i].err), ==, rows[i].error);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd/request/table", test_table);
    g_test_add_func("/nbd/request/payload-length", test_payload_length);
    g_test_add_func("/nbd/request/magic", test_magic);
    g_test_add_func("/nbd/request/status-payload", test_status_payload);
    g_test_add_func("/nbd/request/errno", test_errno);
    return g_test_run();
}
