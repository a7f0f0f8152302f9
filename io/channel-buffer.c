/*
 * Channels over memory.
 *
 * A GByteArray would do but for its sizes, which are 32 bits.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/channel-class.h"
#include "util/iov.h"

#define CAPACITY_MIN 4096

struct QIOChannelBuffer {
    QIOChannel parent;
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t offset;
};

static bool reserve(QIOChannelBuffer *b, size_t size)
{
    if (size <= b->capacity) {
        return true;
    }

    size_t capacity = MAX(MAX(b->capacity + b->capacity / 2, size), CAPACITY_MIN);
    uint8_t *data = g_try_realloc(b->data, capacity);
    if (data) {
        b->data = data;
        b->capacity = capacity;
    }
    return data;
}

static ssize_t buffer_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                             Error **errp)
{
    QIOChannelBuffer *b = (QIOChannelBuffer *)ioc;

    if (offset < 0) {
        return qio_channel_fail(ioc, "read from", EINVAL, errp);
    }
    return offset >= b->size ? 0 : iov_from_buf(iov, niov, 0, b->data + offset, b->size - offset);
}

static ssize_t buffer_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                              Error **errp)
{
    QIOChannelBuffer *b = (QIOChannelBuffer *)ioc;
    size_t len = iov_size(iov, niov);
    size_t end;

    if (offset < 0 || __builtin_add_overflow((size_t)offset, len, &end) || !reserve(b, end)) {
        return qio_channel_fail(ioc, "write to", offset < 0 ? EINVAL : ENOMEM, errp);
    }
    if (offset > b->size) {
        memset(b->data + b->size, 0, offset - b->size);
    }
    iov_to_buf(iov, niov, 0, b->data + offset, len);
    b->size = MAX(b->size, end);
    return len;
}

static ssize_t buffer_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                            size_t *nfds, Error **errp)
{
    QIOChannelBuffer *b = (QIOChannelBuffer *)ioc;
    ssize_t n = buffer_preadv(ioc, iov, niov, b->offset, errp);

    b->offset += MAX(n, 0);
    return n;
}

static ssize_t buffer_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             const int *fds, size_t nfds, Error **errp)
{
    QIOChannelBuffer *b = (QIOChannelBuffer *)ioc;
    ssize_t n = buffer_pwritev(ioc, iov, niov, b->offset, errp);

    b->offset += MAX(n, 0);
    return n;
}

static off_t buffer_seek(QIOChannel *ioc, off_t offset, int whence, Error **errp)
{
    QIOChannelBuffer *b = (QIOChannelBuffer *)ioc;
    off_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? b->offset : b->size;
    off_t at;

    if ((whence != SEEK_SET && whence != SEEK_CUR && whence != SEEK_END) ||
        __builtin_add_overflow(base, offset, &at) || at < 0) {
        return qio_channel_fail(ioc, "seek in", EINVAL, errp);
    }
    b->offset = at;
    return at;
}

static int buffer_poll_fd(QIOChannel *ioc, GIOCondition direction)
{
    return -1;
}

static void buffer_finalize(QIOChannel *ioc)
{
    g_free(((QIOChannelBuffer *)ioc)->data);
}

static const QIOChannelClass buffer_class = {
    .type_name = "buffer",
    .readv = buffer_readv,
    .writev = buffer_writev,
    .preadv = buffer_preadv,
    .pwritev = buffer_pwritev,
    .seek = buffer_seek,
    .poll_fd = buffer_poll_fd,
    .finalize = buffer_finalize,
};

QIOChannelBuffer *qio_channel_buffer_new(size_t capacity)
{
    QIOChannelBuffer *b = qio_channel_alloc(sizeof(*b), &buffer_class);

    if (capacity) {
        b->data = g_malloc(capacity);
        b->capacity = capacity;
    }
    qio_channel_set_feature(&b->parent, QIO_CHANNEL_FEATURE_SEEKABLE);
    return b;
}

const uint8_t *qio_channel_buffer_data(QIOChannelBuffer *b, size_t *size)
{
    *size = b->size;
    return b->data;
}
