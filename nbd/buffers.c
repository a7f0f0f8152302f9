/*
 * Buffers for the data of requests. What was freed last is handed out first: it is still in the
 * caches.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/buffers.h"

#include <glib.h>
#include <stdlib.h>

#define SMALLEST_BYTES ((size_t)4096)

static size_t class_bytes(unsigned size_class)
{
    return SMALLEST_BYTES << size_class;
}

static unsigned class_of(size_t bytes)
{
    unsigned size_class = 0;

    while (class_bytes(size_class) < bytes) {
        size_class++;
    }
    return size_class;
}

NbdBuffer nbd_buffer_get(NbdBuffers *pool, size_t bytes)
{
    NbdBuffer buf = { .size_class = class_of(bytes) };

    g_assert(buf.size_class < NBD_BUFFER_CLASSES);
    buf.data = pool->kept[buf.size_class];
    if (buf.data) {
        pool->kept[buf.size_class] = *(void **)buf.data;
        pool->kept_bytes -= class_bytes(buf.size_class);
    } else if (posix_memalign(&buf.data, SMALLEST_BYTES, class_bytes(buf.size_class)) != 0) {
        buf.data = NULL;
    }
    return buf;
}

void nbd_buffer_put(NbdBuffers *pool, NbdBuffer *buf)
{
    size_t bytes = class_bytes(buf->size_class);

    if (buf->data && pool->kept_bytes + bytes <= NBD_BUFFERS_KEPT_BYTES) {
        *(void **)buf->data = pool->kept[buf->size_class];
        pool->kept[buf->size_class] = buf->data;
        pool->kept_bytes += bytes;
    } else {
        free(buf->data);
    }
    buf->data = NULL;
}

void nbd_buffers_free(NbdBuffers *pool)
{
    for (unsigned i = 0; i < NBD_BUFFER_CLASSES; i++) {
        while (pool->kept[i]) {
            void *data = pool->kept[i];

            pool->kept[i] = *(void **)data;
            free(data);
        }
    }
    pool->kept_bytes = 0;
}
