/*
 * Compression of multifd pages with zlib: one deflate stream a channel, Z_SYNC_FLUSH after the
 * last page of each packet.
 *
 * zlib does not promise to bear input that changes while it is being compressed, and guests write
 * to their memory at any time, so each page is copied first.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd-method.h"

#include <glib.h>
#include <string.h>
#include <zlib.h>

#include "migration/multifd-format.h"
#include "system/ramblock.h"

typedef struct ZlibState {
    z_stream stream;
    uint8_t page[TARGET_PAGE_SIZE];
} ZlibState;

static const char *zlib_reason(const z_stream *stream, int ret)
{
    return stream->msg ? stream->msg : zError(ret);
}

static void *zlib_compress_new(const MigrationOptions *opts, Error **errp)
{
    ZlibState *z = g_new0(ZlibState, 1);
    int ret = deflateInit(&z->stream, opts->params.multifd_zlib_level);

    if (ret != Z_OK) {
        error_setg(errp, "zlib: cannot start compression: %s", zlib_reason(&z->stream, ret));
        g_free(z);
        return NULL;
    }
    return z;
}

static void zlib_compress_free(void *state)
{
    deflateEnd(&((ZlibState *)state)->stream);
    g_free(state);
}

static int64_t zlib_compress(void *state, uint8_t *const *pages, unsigned n, uint8_t *out,
                             Error **errp)
{
    ZlibState *z = state;
    z_stream *stream = &z->stream;

    stream->next_out = out;
    stream->avail_out = MULTIFD_COMPRESSED_MAX;
    for (unsigned i = 0; i < n; i++) {
        int flush = i == n - 1 ? Z_SYNC_FLUSH : Z_NO_FLUSH;
        int ret;

        memcpy(z->page, pages[i], TARGET_PAGE_SIZE);
        stream->next_in = z->page;
        stream->avail_in = TARGET_PAGE_SIZE;
        ret = deflate(stream, flush);
        /* A flush is complete only when there was room left. */
        if (ret != Z_OK || stream->avail_in || !stream->avail_out) {
            error_setg(errp, "zlib: compression failed: %s", zlib_reason(stream, ret));
            return -1;
        }
    }
    return MULTIFD_COMPRESSED_MAX - stream->avail_out;
}

static void *zlib_decompress_new(Error **errp)
{
    ZlibState *z = g_new0(ZlibState, 1);
    int ret = inflateInit(&z->stream);

    if (ret != Z_OK) {
        error_setg(errp, "zlib: cannot start decompression: %s", zlib_reason(&z->stream, ret));
        g_free(z);
        return NULL;
    }
    return z;
}

static void zlib_decompress_free(void *state)
{
    inflateEnd(&((ZlibState *)state)->stream);
    g_free(state);
}

static int zlib_decompress(void *state, const uint8_t *in, size_t len, uint8_t *const *pages,
                           unsigned n, Error **errp)
{
    z_stream *stream = &((ZlibState *)state)->stream;
    uint8_t beyond;
    int ret;

    stream->next_in = (uint8_t *)in;
    stream->avail_in = len;
    for (unsigned i = 0; i < n; i++) {
        stream->next_out = pages[i];
        stream->avail_out = TARGET_PAGE_SIZE;
        ret = inflate(stream, Z_SYNC_FLUSH);
        if ((ret != Z_OK && ret != Z_BUF_ERROR) || stream->avail_out) {
            error_setg(errp, "zlib: decompression of page %u of %u failed: %s", i + 1, n,
                       ret == Z_OK || ret == Z_BUF_ERROR ? "the data end too early"
                                                         : zlib_reason(stream, ret));
            return -1;
        }
    }
    /* What is left may only be the flush's marker: no more output comes of it. */
    stream->next_out = &beyond;
    stream->avail_out = 1;
    ret = inflate(stream, Z_SYNC_FLUSH);
    if ((ret != Z_OK && ret != Z_BUF_ERROR) || !stream->avail_out || stream->avail_in) {
        error_setg(errp, "zlib: the data of %u pages hold more than them", n);
        return -1;
    }
    return 0;
}

const MultifdMethod multifd_method_zlib = {
    .name = "zlib",
    .flag = MULTIFD_FLAG_ZLIB,
    .compress_new = zlib_compress_new,
    .compress_free = zlib_compress_free,
    .compress = zlib_compress,
    .decompress_new = zlib_decompress_new,
    .decompress_free = zlib_decompress_free,
    .decompress = zlib_decompress,
};
