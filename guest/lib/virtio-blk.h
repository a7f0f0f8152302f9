/*
 * A driver for one virtio-blk disk on virtio-mmio, polled: one queue, requests of one block each.
 *
 * A request is begun, and blk_poll() hands it back when it is done; several may be under way. Only
 * processor 0 may call these.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef GUEST_LIB_VIRTIO_BLK_H
#define GUEST_LIB_VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#define BLK_REQUESTS_MAX 64u
#define BLK_BYTES 4096u                 /* of one request */

enum { BLK_READ = 0, BLK_WRITE = 1, BLK_FLUSH = 4, BLK_DISCARD = 11 };

typedef struct BlkRequest {
    uint32_t type;
    uint64_t block;                     /* in BLK_BYTES */
    uint8_t status;                     /* 0: well, once it is handed back */
    uint8_t *data;                      /* BLK_BYTES bytes, its own */
} BlkRequest;

/*
 * Find disk number @index (from 0, in the order of slots) and make it ready. @depth: requests that
 * may be under way, at most BLK_REQUESTS_MAX. Returns its length in blocks; 0 with a line printed
 * when there is none or it does not work.
 */
uint64_t blk_init(unsigned index, unsigned depth);
/* Request @n of @depth, whose data may be filled in while it is not under way. */
BlkRequest *blk_request(unsigned n);
/* Begin what type, block and data say. */
void blk_begin(BlkRequest *request);
/* One that is done, or NULL. */
BlkRequest *blk_poll(void);

#endif
