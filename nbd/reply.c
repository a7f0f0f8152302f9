/*
 * Replies: the bytes that go before, between and instead of data, as the connection agreed on them.
 *
 * With simple headers a reply is a number and, for a READ that succeeded, the data. With structured
 * ones READ and BLOCK_STATUS are answered by chunks and errors carry a text; with extended ones
 * everything is.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "nbd/client.h"
#include "util/bswap.h"

size_t nbd_put_chunk(uint8_t *p, const NbdWork *w, uint16_t flags, uint16_t type, uint64_t length)
{
    bool extended = w->client->terms.mode == NBD_MODE_EXTENDED;

    stl_be_p(p, extended ? NBD_EXTENDED_CHUNK_MAGIC : NBD_CHUNK_MAGIC);
    stw_be_p(p + 4, flags);
    stw_be_p(p + 6, type);
    stq_be_p(p + 8, w->req.cookie);
    if (extended) {
        stq_be_p(p + 16, w->req.offset);
        stq_be_p(p + 24, length);
        return NBD_EXTENDED_CHUNK_BYTES;
    }
    stl_be_p(p + 16, length);
    return NBD_CHUNK_BYTES;
}

static size_t put_simple(uint8_t *p, const NbdWork *w, uint32_t error)
{
    stl_be_p(p, NBD_SIMPLE_REPLY_MAGIC);
    stl_be_p(p + 4, error);
    stq_be_p(p + 8, w->req.cookie);
    return NBD_SIMPLE_REPLY_BYTES;
}

static void add_iov(NbdWork *w, void *base, size_t len)
{
    w->iov[w->niov++] = (struct iovec) { .iov_base = base, .iov_len = len };
}

void nbd_reply_done(NbdWork *w)
{
    NbdMode mode = w->client->terms.mode;
    size_t len;

    if (mode == NBD_MODE_EXTENDED ||
        (mode == NBD_MODE_STRUCTURED && w->req.command == NBD_CMD_READ)) {
        len = nbd_put_chunk(w->local_head, w, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0);
    } else {
        len = put_simple(w->local_head, w, NBD_SUCCESS);
    }
    add_iov(w, w->local_head, len);
    nbd_send_reply(w);
}

void nbd_reply_error(NbdWork *w, uint32_t error, const char *why)
{
    size_t text = strlen(why), len;

    if (w->client->terms.mode == NBD_MODE_SIMPLE) {
        add_iov(w, w->local_head, put_simple(w->local_head, w, error));
        nbd_send_reply(w);
        return;
    }
    text = MIN(text, NBD_STRING_MAX_BYTES);
    w->head = g_malloc(NBD_EXTENDED_CHUNK_BYTES + 6 + text);
    len = nbd_put_chunk(w->head, w, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, 6 + text);
    stl_be_p(w->head + len, error);
    stw_be_p(w->head + len + 4, text);
    memcpy(w->head + len + 6, why, text);
    add_iov(w, w->head, len + 6 + text);
    nbd_send_reply(w);
}

void nbd_reply_errno(NbdWork *w, int err, const char *why)
{
    nbd_reply_error(w, nbd_error_from_errno(err), why);
}

/* Header and offset of a chunk of data. */
static size_t put_data_chunk(uint8_t *p, const NbdWork *w, uint16_t flags, uint64_t offset,
                             uint32_t length)
{
    size_t len = nbd_put_chunk(p, w, flags, NBD_REPLY_TYPE_OFFSET_DATA, 8 + (uint64_t)length);

    stq_be_p(p + len, offset);
    return len + 8;
}

static size_t put_hole_chunk(uint8_t *p, const NbdWork *w, uint16_t flags, uint64_t offset,
                             uint32_t length)
{
    size_t len = nbd_put_chunk(p, w, flags, NBD_REPLY_TYPE_OFFSET_HOLE, 12);

    stq_be_p(p + len, offset);
    stl_be_p(p + len + 8, length);
    return len + 12;
}

void nbd_reply_data(NbdWork *w)
{
    size_t len;

    if (w->client->terms.mode == NBD_MODE_SIMPLE) {
        len = put_simple(w->local_head, w, NBD_SUCCESS);
    } else {
        len = put_data_chunk(w->local_head, w, NBD_REPLY_FLAG_DONE, w->req.offset, w->req.length);
    }
    add_iov(w, w->local_head, len);
    if (w->buf.data) {
        add_iov(w, w->buf.data, w->req.length);
    } else {
        w->file_offset = w->req.offset;
        w->file_bytes = w->req.length;
    }
    nbd_send_reply(w);
}

void nbd_reply_segments(NbdWork *w, const NbdSegment *segments, unsigned n)
{
    uint8_t *p = w->head = g_malloc(n * (NBD_SEGMENT_HEAD_BYTES + 2 * sizeof(struct iovec)));

    /* The vector lies before the headers: it needs to be aligned. */
    w->iov = (struct iovec *)p;
    p += n * 2 * sizeof(struct iovec);
    for (unsigned i = 0; i < n; i++) {
        const NbdSegment *s = &segments[i];
        uint16_t flags = i + 1 == n ? NBD_REPLY_FLAG_DONE : 0;
        size_t len = s->hole ? put_hole_chunk(p, w, flags, s->offset, s->length)
                             : put_data_chunk(p, w, flags, s->offset, s->length);

        add_iov(w, p, len);
        if (!s->hole) {
            add_iov(w, (uint8_t *)w->buf.data + (s->offset - w->req.offset), s->length);
        }
        p += len;
    }
    nbd_send_reply(w);
}

void nbd_reply_chunks(NbdWork *w, uint8_t *head, size_t bytes)
{
    w->head = head;
    add_iov(w, head, bytes);
    nbd_send_reply(w);
}
