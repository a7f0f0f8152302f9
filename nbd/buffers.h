/*
 * Buffers for the data of requests, kept for the next one of about the same length while they are
 * warm.
 *
 * A pool belongs to one connection and is used in its context only. Buffers are aligned to pages.
 * Zeroed memory is an empty pool.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_BUFFERS_H
#define NBD_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

/* Classes are powers of two from 4 KiB to 32 MiB. */
#define NBD_BUFFER_CLASSES 14
/* Most that a pool keeps. */
#define NBD_BUFFERS_KEPT_BYTES (4 * 1024 * 1024)

typedef struct NbdBuffer {
    void *data;                         /* NULL: none */
    unsigned size_class;
} NbdBuffer;

typedef struct NbdBuffers {
    void *kept[NBD_BUFFER_CLASSES];     /* chains through their first word */
    size_t kept_bytes;
} NbdBuffers;

/* A buffer of at least @bytes, at most 32 MiB; its content is anything. data is NULL: no memory. */
NbdBuffer nbd_buffer_get(NbdBuffers *pool, size_t bytes);
/* Give it back; one without data is allowed. */
void nbd_buffer_put(NbdBuffers *pool, NbdBuffer *buf);
void nbd_buffers_free(NbdBuffers *pool);

#endif
