/*
 * Compression of multifd pages with zstd: one frame a channel, ZSTD_e_flush after the last page of
 * each packet. Pages are copied first, since they may change meanwhile.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd-method.h"

#include <glib.h>
#include <string.h>
#include <zstd.h>

#include "migration/multifd-format.h"
#include "system/ramblock.h"

typedef struct ZstdState {
    ZSTD_CStream *compress;
    ZSTD_DStream *decompress;
    uint8_t page[TARGET_PAGE_SIZE];
} ZstdState;

static void zstd_free(void *state)
{
    ZstdState *z = state;

    ZSTD_freeCStream(z->compress);
    ZSTD_freeDStream(z->decompress);
    g_free(z);
}

static void *zstd_compress_new(const MigrationOptions *opts, Error **errp)
{
    ZstdState *z = g_new0(ZstdState, 1);
    size_t ret;

    z->compress = ZSTD_createCStream();
    ret = z->compress ? ZSTD_initCStream(z->compress, opts->params.multifd_zstd_level) : 0;
    if (!z->compress || ZSTD_isError(ret)) {
        error_setg(errp, "zstd: cannot start compression: %s",
                   z->compress ? ZSTD_getErrorName(ret) : "not enough memory");
        zstd_free(z);
        return NULL;
    }
    return z;
}

static int64_t zstd_compress(void *state, uint8_t *const *pages, unsigned n, uint8_t *out,
                             Error **errp)
{
    ZstdState *z = state;
    ZSTD_outBuffer to = { out, MULTIFD_COMPRESSED_MAX, 0 };

    for (unsigned i = 0; i < n; i++) {
        ZSTD_EndDirective op = i == n - 1 ? ZSTD_e_flush : ZSTD_e_continue;
        ZSTD_inBuffer from = { z->page, TARGET_PAGE_SIZE, 0 };
        size_t left;

        memcpy(z->page, pages[i], TARGET_PAGE_SIZE);
        do {
            left = ZSTD_compressStream2(z->compress, &to, &from, op);
        } while (!ZSTD_isError(left) && to.pos < to.size &&
                 (from.pos < from.size || (op == ZSTD_e_flush && left)));
        if (ZSTD_isError(left) || from.pos < from.size || (op == ZSTD_e_flush && left)) {
            error_setg(errp, "zstd: compression failed: %s",
                       ZSTD_isError(left) ? ZSTD_getErrorName(left) : "the result is too large");
            return -1;
        }
    }
    return to.pos;
}

static void *zstd_decompress_new(Error **errp)
{
    ZstdState *z = g_new0(ZstdState, 1);
    size_t ret;

    z->decompress = ZSTD_createDStream();
    ret = z->decompress ? ZSTD_initDStream(z->decompress) : 0;
    if (!z->decompress || ZSTD_isError(ret)) {
        error_setg(errp, "zstd: cannot start decompression: %s",
                   z->decompress ? ZSTD_getErrorName(ret) : "not enough memory");
        zstd_free(z);
        return NULL;
    }
    return z;
}

/* Until @to is full or nothing more comes. */
static int zstd_fill(ZstdState *z, ZSTD_outBuffer *to, ZSTD_inBuffer *from, Error **errp)
{
    size_t before_in, before_out, ret;

    do {
        before_in = from->pos;
        before_out = to->pos;
        ret = ZSTD_decompressStream(z->decompress, to, from);
        if (ZSTD_isError(ret)) {
            error_setg(errp, "zstd: decompression failed: %s", ZSTD_getErrorName(ret));
            return -1;
        }
    } while (to->pos < to->size && (from->pos > before_in || to->pos > before_out));
    return 0;
}

static int zstd_decompress(void *state, const uint8_t *in, size_t len, uint8_t *const *pages,
                           unsigned n, Error **errp)
{
    ZstdState *z = state;
    ZSTD_inBuffer from = { in, len, 0 };
    uint8_t beyond;
    ZSTD_outBuffer more = { &beyond, 1, 0 };

    for (unsigned i = 0; i < n; i++) {
        ZSTD_outBuffer to = { pages[i], TARGET_PAGE_SIZE, 0 };

        if (zstd_fill(z, &to, &from, errp) < 0) {
            return -1;
        }
        if (to.pos < to.size) {
            error_setg(errp, "zstd: decompression of page %u of %u failed: the data end too early",
                       i + 1, n);
            return -1;
        }
    }
    if (zstd_fill(z, &more, &from, errp) < 0) {
        return -1;
    }
    if (more.pos || from.pos < from.size) {
        error_setg(errp, "zstd: the data of %u pages hold more than them", n);
        return -1;
    }
    return 0;
}

const MultifdMethod multifd_method_zstd = {
    .name = "zstd",
    .flag = MULTIFD_FLAG_ZSTD,
    .compress_new = zstd_compress_new,
    .compress_free = zstd_free,
    .compress = zstd_compress,
    .decompress_new = zstd_decompress_new,
    .decompress_free = zstd_free,
    .decompress = zstd_decompress,
};
