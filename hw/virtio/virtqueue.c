/*
 * Rings are reached through host pointers that are looked up when the queue starts: guest memory
 * never moves or goes while a machine lives. Buffers are looked up chain by chain.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/virtio/virtqueue.h"

#include <glib.h>
#include <inttypes.h>
#include <string.h>

#include "system/memory.h"
#include "util/bswap.h"

#define AVAIL_IDX 2u
#define AVAIL_RING 4u
#define USED_IDX 2u
#define USED_RING 4u
#define USED_ELEM_BYTES 8u

typedef struct Descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
} Descriptor;

/* ---- fields in guest memory, each one access ---- */

static uint16_t load16(const uint8_t *p, int order)
{
    uint16_t value;

    __atomic_load((const uint16_t *)p, &value, order);
    return le16toh(value);
}

static void store16(uint8_t *p, uint16_t value, int order)
{
    uint16_t bytes = htole16(value);

    __atomic_store((uint16_t *)p, &bytes, order);
}

static void store32(uint8_t *p, uint32_t value)
{
    uint32_t bytes = htole32(value);

    __atomic_store((uint32_t *)p, &bytes, __ATOMIC_RELAXED);
}

static void load_descriptor(const uint8_t *table, uint32_t index, Descriptor *d)
{
    uint8_t bytes[VRING_DESC_BYTES];

    memcpy(bytes, table + (size_t)index * VRING_DESC_BYTES, sizeof(bytes));
    /* The copy is what counts from here on; the compiler must not look at the guest's again. */
    __asm__ volatile("" : : : "memory");
    d->addr = ldq_le_p(bytes);
    d->len = ldl_le_p(bytes + 8);
    d->flags = lduw_le_p(bytes + 12);
    d->next = lduw_le_p(bytes + 14);
}

static void mark_used(VirtQueue *vq, uint64_t offset, uint64_t len)
{
    ram_block_mark_dirty(vq->used_block, vq->used_offset + offset, len);
}

static uint64_t used_ring_at(const VirtQueue *vq, uint16_t idx)
{
    return USED_RING + (uint64_t)(idx & (vq->num - 1)) * USED_ELEM_BYTES;
}

static uint64_t avail_event_at(const VirtQueue *vq)
{
    return USED_RING + (uint64_t)vq->num * USED_ELEM_BYTES;
}

/* ---- life ---- */

void virtqueue_reset(VirtQueue *vq)
{
    uint32_t num_max = vq->num_max;

    memset(vq, 0, sizeof(*vq));
    vq->num_max = num_max;
    vq->num = num_max;
}

/* A ring as one piece of host memory. */
static uint8_t *map_ring(const char *what, uint64_t gpa, uint64_t bytes, unsigned align,
                         bool is_write, Error **errp)
{
    uint64_t len = bytes;
    uint8_t *host;

    if (gpa % align) {
        error_setg(errp, "the %s at 0x%" PRIx64 " is not aligned to %u bytes", what, gpa, align);
        return NULL;
    }
    host = address_space_map(gpa, &len, is_write);
    if (!host || len != bytes) {
        error_setg(errp, "the %s, %" PRIu64 " bytes at 0x%" PRIx64 ", is not in RAM", what, bytes,
                   gpa);
        return NULL;
    }
    return host;
}

int virtqueue_start(VirtQueue *vq, bool event_idx, bool indirect, Error **errp)
{
    uint64_t num = vq->num;
    uint16_t in_use = vq->last_avail_idx - vq->used_idx;
    uint8_t *desc, *avail, *used;

    if (!num || num > vq->num_max || (num & (num - 1))) {
        error_setg(errp, "a size of %u is not a power of two up to %u", vq->num, vq->num_max);
        return -1;
    }
    if (in_use > num) {
        error_setg(errp, "%u chains cannot be in use in a queue of %u", in_use, vq->num);
        return -1;
    }
    desc = map_ring("descriptor table", vq->desc, num * VRING_DESC_BYTES, 16, false, errp);
    if (!desc) {
        return -1;
    }
    avail = map_ring("avail ring", vq->avail, AVAIL_RING + num * 2 + 2, 2, false, errp);
    if (!avail) {
        return -1;
    }
    used = map_ring("used ring", vq->used, USED_RING + num * USED_ELEM_BYTES + 2, 4, true, errp);
    if (!used) {
        return -1;
    }
    vq->desc_host = desc;
    vq->avail_host = avail;
    vq->used_host = used;
    vq->used_block = ram_block_from_host(used, &vq->used_offset);
    vq->event_idx = event_idx;
    vq->indirect = indirect;
    vq->started = true;
    return 0;
}

void virtqueue_stop(VirtQueue *vq)
{
    vq->started = false;
    vq->desc_host = vq->avail_host = vq->used_host = NULL;
    vq->used_block = NULL;
}

/* ---- chains ---- */

typedef struct Chain {
    struct iovec iov[VIRTQUEUE_CHAIN_MAX];
    unsigned out_num, in_num;
    uint64_t out_bytes, in_bytes;
} Chain;

static int add_piece(Chain *chain, void *host, uint64_t len, bool is_write, Error **errp)
{
    unsigned n = chain->out_num + chain->in_num;

    if (n == VIRTQUEUE_CHAIN_MAX) {
        error_setg(errp, "a chain has more than %u buffers", VIRTQUEUE_CHAIN_MAX);
        return -1;
    }
    chain->iov[n] = (struct iovec){ .iov_base = host, .iov_len = len };
    if (is_write) {
        chain->in_num++;
        chain->in_bytes += len;
    } else {
        chain->out_num++;
        chain->out_bytes += len;
    }
    return 0;
}

/* The buffer of a descriptor, in as many pieces as there are ranges of RAM below it. */
static int add_buffer(Chain *chain, const Descriptor *d, Error **errp)
{
    bool is_write = d->flags & VRING_DESC_WRITE;
    uint64_t gpa = d->addr, left = d->len;

    if (!left) {
        error_setg(errp, "a buffer at 0x%" PRIx64 " has no length", d->addr);
        return -1;
    }
    if (!is_write && chain->in_num) {
        error_setg(errp, "a buffer to read comes after one to write");
        return -1;
    }
    while (left) {
        uint64_t len = left;
        void *host = address_space_map(gpa, &len, is_write);

        if (!host) {
            error_setg(errp, "a buffer of %" PRIu32 " bytes at 0x%" PRIx64 " is not in %sRAM",
                       d->len, d->addr, is_write ? "writable " : "");
            return -1;
        }
        if (add_piece(chain, host, len, is_write, errp) < 0) {
            return -1;
        }
        gpa += len;
        left -= len;
    }
    return 0;
}

static const uint8_t *indirect_table(const VirtQueue *vq, const Descriptor *d, uint32_t *entries,
                                     Error **errp)
{
    uint64_t len = d->len;
    const uint8_t *table;

    if (!vq->indirect) {
        error_setg(errp, "an indirect descriptor was not negotiated");
        return NULL;
    }
    if ((d->flags & VRING_DESC_NEXT) || !len || len % VRING_DESC_BYTES) {
        error_setg(errp, "an indirect table of %" PRIu32 " bytes with flags 0x%x is not possible",
                   d->len, d->flags);
        return NULL;
    }
    table = address_space_map(d->addr, &len, false);
    if (!table || len != d->len) {
        error_setg(errp, "an indirect table of %" PRIu32 " bytes at 0x%" PRIx64 " is not in RAM",
                   d->len, d->addr);
        return NULL;
    }
    *entries = len / VRING_DESC_BYTES;
    return table;
}

static int walk_chain(const VirtQueue *vq, uint16_t head, Chain *chain, Error **errp)
{
    const uint8_t *table = vq->desc_host;
    uint32_t entries = vq->num, index = head, seen = 0;
    bool in_indirect = false;
    Descriptor d;

    chain->out_num = chain->in_num = 0;
    chain->out_bytes = chain->in_bytes = 0;
    for (;;) {
        if (index >= entries) {
            error_setg(errp, "descriptor %u is outside of a table of %u", index, entries);
            return -1;
        }
        if (seen++ == MIN(entries, VIRTQUEUE_CHAIN_MAX)) {
            error_setg(errp, "a chain of descriptors does not end");
            return -1;
        }
        load_descriptor(table, index, &d);
        if (d.flags & VRING_DESC_INDIRECT) {
            if (in_indirect) {
                error_setg(errp, "an indirect table is inside of another");
                return -1;
            }
            table = indirect_table(vq, &d, &entries, errp);
            if (!table) {
                return -1;
            }
            in_indirect = true;
            index = seen = 0;
            continue;
        }
        if (add_buffer(chain, &d, errp) < 0) {
            return -1;
        }
        if (!(d.flags & VRING_DESC_NEXT)) {
            return 0;
        }
        index = d.next;
    }
}

static void *read_element(VirtQueue *vq, uint16_t head, size_t bytes, Error **errp)
{
    VirtQueueElement *elem;
    unsigned n;
    Chain chain;

    if (walk_chain(vq, head, &chain, errp) < 0) {
        return NULL;
    }
    n = chain.out_num + chain.in_num;
    bytes = (bytes + sizeof(void *) - 1) & -sizeof(void *);
    elem = g_malloc(bytes + n * sizeof(struct iovec));
    memset(elem, 0, bytes);
    elem->head = head;
    elem->out_num = chain.out_num;
    elem->in_num = chain.in_num;
    elem->out_bytes = chain.out_bytes;
    elem->in_bytes = chain.in_bytes;
    elem->out = (struct iovec *)((char *)elem + bytes);
    elem->in = elem->out + elem->out_num;
    memcpy(elem->out, chain.iov, n * sizeof(struct iovec));
    return elem;
}

/* ---- taking and giving back ---- */

void *virtqueue_pop(VirtQueue *vq, size_t bytes, Error **errp)
{
    uint16_t avail = load16(vq->avail_host + AVAIL_IDX, __ATOMIC_ACQUIRE);
    uint16_t waiting = avail - vq->last_avail_idx;
    uint16_t in_use = vq->last_avail_idx - vq->used_idx;
    uint16_t head;
    void *elem;

    if (!waiting) {
        return NULL;
    }
    if (waiting > vq->num || in_use >= vq->num) {
        error_setg(errp,
                   "the avail index moved from %u to %u in a queue of %u of which %u are in use",
                   vq->last_avail_idx, avail, vq->num, in_use);
        return NULL;
    }
    head = load16(vq->avail_host + AVAIL_RING + (vq->last_avail_idx & (vq->num - 1)) * 2,
                  __ATOMIC_RELAXED);
    elem = read_element(vq, head, bytes, errp);
    if (elem) {
        vq->last_avail_idx++;
    }
    return elem;
}

void *virtqueue_pop_again(VirtQueue *vq, uint16_t head, size_t bytes, Error **errp)
{
    return read_element(vq, head, bytes, errp);
}

void virtqueue_unpop(VirtQueue *vq)
{
    vq->last_avail_idx--;
}

void virtqueue_push(VirtQueue *vq, const VirtQueueElement *elem, uint32_t written)
{
    uint64_t at = used_ring_at(vq, vq->used_idx);

    for (unsigned i = 0; i < elem->in_num; i++) {
        address_space_unmap_write(elem->in[i].iov_base, elem->in[i].iov_len);
    }
    store32(vq->used_host + at, elem->head);
    store32(vq->used_host + at + 4, written);
    vq->used_idx++;
    store16(vq->used_host + USED_IDX, vq->used_idx, __ATOMIC_RELEASE);
    mark_used(vq, at, USED_ELEM_BYTES);
    mark_used(vq, USED_IDX, 2);
}

/*
 * Whether @event lies in what happened between @old and @now: the specification's vring_need_event.
 */
static bool passed_event(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

bool virtqueue_should_notify(VirtQueue *vq)
{
    uint16_t old = vq->signalled_used, now = vq->used_idx;
    bool valid = vq->signalled_used_valid;

    /* The used index must be seen before the guest's wish is looked at. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!vq->event_idx) {
        return !(load16(vq->avail_host, __ATOMIC_RELAXED) & VRING_AVAIL_NO_INTERRUPT);
    }
    vq->signalled_used = now;
    vq->signalled_used_valid = true;
    return !valid ||
           passed_event(load16(vq->avail_host + AVAIL_RING + vq->num * 2, __ATOMIC_RELAXED), now,
                        old);
}

bool virtqueue_empty(const VirtQueue *vq)
{
    return load16(vq->avail_host + AVAIL_IDX, __ATOMIC_ACQUIRE) == vq->last_avail_idx;
}

void virtqueue_set_notification(VirtQueue *vq, bool enable)
{
    if (vq->event_idx) {
        /* Left behind where it is, it asks for nothing. */
        if (enable) {
            store16(vq->used_host + avail_event_at(vq), vq->last_avail_idx, __ATOMIC_RELAXED);
            mark_used(vq, avail_event_at(vq), 2);
        }
    } else {
        store16(vq->used_host, enable ? 0 : VRING_USED_NO_NOTIFY, __ATOMIC_RELAXED);
        mark_used(vq, 0, 2);
    }
    if (enable) {
        /* What the guest adds from here on it tells; what it added before the caller looks for. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
}
