/*
 * Split virtqueues (virtio 1.2, 2.7), the device's side: three rings in guest memory.
 *
 *     descriptors  num * 16   u64 address, u32 length, u16 flags, u16 next
 *     avail        u16 flags, u16 idx, u16 ring[num], u16 used_event          driver writes
 *     used         u16 flags, u16 idx, { u32 id, u32 length }[num], u16 avail_event   device writes
 *
 * Everything in them is the guest's word and may change at any time: each field is read once,
 * checked, and what was checked is what is used. An error (a loop, an address without RAM, ...)
 * says that the guest's driver broke the rules; the queue is then of no more use until the device
 * is reset.
 *
 * A queue is between virtqueue_start() and virtqueue_stop() the property of one thread at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_VIRTQUEUE_H
#define HW_VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "system/ramblock.h"
#include "util/error.h"

#define VIRTQUEUE_SIZE_MAX 1024u
/* Buffers of one chain, after cutting them at the borders of RAM. */
#define VIRTQUEUE_CHAIN_MAX 1024u

#define VRING_DESC_BYTES 16u
enum { VRING_DESC_NEXT = 1, VRING_DESC_WRITE = 2, VRING_DESC_INDIRECT = 4 };
enum { VRING_AVAIL_NO_INTERRUPT = 1 };
enum { VRING_USED_NO_NOTIFY = 1 };

typedef struct VirtQueue {
    /* The driver's choice; changed while the queue is stopped. */
    uint32_t num_max;           /* largest num; 0: there is no such queue */
    uint32_t num;
    bool ready;
    uint64_t desc, avail, used; /* guest physical addresses */

    /* How far the device is. */
    uint16_t last_avail_idx;    /* next to take */
    uint16_t used_idx;          /* next to give back */
    uint16_t signalled_used;    /* used_idx when it was last asked whether to interrupt */
    bool signalled_used_valid;

    /* While started. */
    bool started;
    bool event_idx, indirect;
    uint8_t *desc_host, *avail_host, *used_host;
    RAMBlock *used_block;
    uint64_t used_offset;       /* of the used ring in its block */
} VirtQueue;

/*
 * A chain of descriptors that was taken: buffers to read, then buffers to write. Made by
 * virtqueue_pop() as the beginning of an allocation of the caller's size; g_free() it.
 */
typedef struct VirtQueueElement {
    uint16_t head;
    unsigned out_num, in_num;
    struct iovec *out, *in;     /* behind the caller's struct, in the same allocation */
    uint64_t out_bytes, in_bytes;
} VirtQueueElement;

/* Back to what it is after a reset, and stopped. */
void virtqueue_reset(VirtQueue *vq);
/*
 * Check what the driver set up and take hold of the rings. @event_idx, @indirect: features that
 * were negotiated. Returns 0, or -1 with @errp set and nothing changed.
 */
int virtqueue_start(VirtQueue *vq, bool event_idx, bool indirect, Error **errp);
void virtqueue_stop(VirtQueue *vq);

/*
 * virtqueue_pop:
 * @bytes: of the struct to allocate, zeroed, which begins with a VirtQueueElement
 *
 * Returns: the next chain; NULL when there is none, or with @errp set when the guest broke the
 * rules.
 */
void *virtqueue_pop(VirtQueue *vq, size_t bytes, Error **errp);
/* The chain at @head once more, one that was taken and not given back: after a migration. */
void *virtqueue_pop_again(VirtQueue *vq, uint16_t head, size_t bytes, Error **errp);
/* Take back the last pop, whose element is not used any more. */
void virtqueue_unpop(VirtQueue *vq);
/*
 * Give a chain back with @written bytes written from the beginning of its writable buffers. Those
 * count as dirty, all of them. The guest is not told yet.
 */
void virtqueue_push(VirtQueue *vq, const VirtQueueElement *elem, uint32_t written);
/* Whether the guest wants to be interrupted for what was pushed since this was last asked. */
bool virtqueue_should_notify(VirtQueue *vq);

/* Whether nothing is there to take. */
bool virtqueue_empty(const VirtQueue *vq);
/*
 * Ask for notifications, or say that none are needed. After asking look at virtqueue_empty() again.
 */
void virtqueue_set_notification(VirtQueue *vq, bool enable);

#endif
