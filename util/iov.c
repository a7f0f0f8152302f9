/*
 * Vectors of buffers.
 *
 * All copying functions are one walk over the pieces of a byte range, so that offset arithmetic
 * exists once.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/iov.h"

#include <glib.h>
#include <stdbool.h>
#include <string.h>

/* A byte range of a vector, handed out piece by piece. */
typedef struct Walk {
    const struct iovec *iov;
    unsigned niov;
    size_t offset;
    size_t left;
} Walk;

/* The next non-empty piece; false at the end of the range or of the vector. */
static bool walk_next(Walk *w, struct iovec *piece)
{
    while (w->niov && w->left) {
        const struct iovec *el = w->iov++;

        w->niov--;
        if (w->offset >= el->iov_len) {
            w->offset -= el->iov_len;
            continue;
        }
        piece->iov_base = (char *)el->iov_base + w->offset;
        piece->iov_len = MIN(el->iov_len - w->offset, w->left);
        w->offset = 0;
        w->left -= piece->iov_len;
        return true;
    }
    return false;
}

size_t iov_size(const struct iovec *iov, unsigned niov)
{
    size_t total = 0;

    for (unsigned i = 0; i < niov; i++) {
        total += iov[i].iov_len;
    }
    return total;
}

size_t iov_from_buf(const struct iovec *iov, unsigned niov, size_t offset, const void *buf,
                    size_t bytes)
{
    Walk w = { iov, niov, offset, bytes };
    struct iovec piece;
    size_t done = 0;

    for (; walk_next(&w, &piece); done += piece.iov_len) {
        memcpy(piece.iov_base, (const char *)buf + done, piece.iov_len);
    }
    return done;
}

size_t iov_to_buf(const struct iovec *iov, unsigned niov, size_t offset, void *buf, size_t bytes)
{
    Walk w = { iov, niov, offset, bytes };
    struct iovec piece;
    size_t done = 0;

    for (; walk_next(&w, &piece); done += piece.iov_len) {
        memcpy((char *)buf + done, piece.iov_base, piece.iov_len);
    }
    return done;
}

size_t iov_memset(const struct iovec *iov, unsigned niov, size_t offset, int fill, size_t bytes)
{
    Walk w = { iov, niov, offset, bytes };
    struct iovec piece;
    size_t done = 0;

    for (; walk_next(&w, &piece); done += piece.iov_len) {
        memset(piece.iov_base, fill, piece.iov_len);
    }
    return done;
}

size_t iov_discard_front(struct iovec **iov, unsigned *niov, size_t bytes)
{
    size_t done = 0;

    while (*niov && bytes - done >= (*iov)->iov_len) {
        done += (*iov)->iov_len;
        (*iov)++;
        (*niov)--;
    }
    if (*niov && done < bytes) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + (bytes - done);
        (*iov)->iov_len -= bytes - done;
        done = bytes;
    }
    return done;
}

size_t iov_discard_back(struct iovec *iov, unsigned *niov, size_t bytes)
{
    size_t done = 0;

    while (*niov && bytes - done >= iov[*niov - 1].iov_len) {
        done += iov[--*niov].iov_len;
    }
    if (*niov && done < bytes) {
        iov[*niov - 1].iov_len -= bytes - done;
        done = bytes;
    }
    return done;
}

unsigned iov_copy(struct iovec *dst, unsigned dst_max, const struct iovec *src, unsigned src_n,
                  size_t offset, size_t bytes)
{
    Walk w = { src, src_n, offset, bytes };
    unsigned n = 0;

    while (n < dst_max && walk_next(&w, &dst[n])) {
        n++;
    }
    return n;
}
