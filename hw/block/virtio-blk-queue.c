/*
 * From the queues into requests and back.
 *
 * Whoever wants a queue looked at (the guest's notification, a drain that ended) schedules a call
 * in the device's context. The guest is told of what was given back once a turn of that loop, for
 * all that came back in it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/block/virtio-blk.h"

static void in_flight_inc(VirtIOBlk *s)
{
    __atomic_fetch_add(&s->in_flight, 1, __ATOMIC_SEQ_CST);
}

static void in_flight_dec(VirtIOBlk *s)
{
    if (__atomic_sub_fetch(&s->in_flight, 1, __ATOMIC_SEQ_CST) == 0) {
        aio_wait_kick();
    }
}

static bool stands(const VirtIOBlk *s)
{
    return __atomic_load_n(&s->stopped, __ATOMIC_SEQ_CST) ||
           __atomic_load_n(&s->drained, __ATOMIC_SEQ_CST);
}

/* ---- taking ---- */

/*
 * The next chain as a request; NULL: none, or the guest broke the rules and the device is broken.
 */
static VirtIOBlkRequest *take_request(VirtIOBlk *s, unsigned index)
{
    VirtQueue *vq = &s->vdev.queues[index];
    Error *err = NULL;
    VirtIOBlkRequest *req = virtqueue_pop(vq, sizeof(*req), &err);

    if (req) {
        req->s = s;
        req->queue = index;
        if (!virtio_blk_parse(req, &err)) {
            /* It stays in the queue: nobody has seen it. */
            virtqueue_unpop(vq);
            g_clear_pointer(&req, g_free);
        }
    }
    if (err) {
        error_prepend(&err, "queue %u: ", index);
        virtio_error(&s->vdev, err);
    }
    return req;
}

/* At most as many chains as the queue is long, so that a busy guest leaves others their turn. */
static bool serve_turn(VirtIOBlk *s, unsigned index)
{
    VirtQueue *vq = &s->vdev.queues[index];
    VirtIOBlkBatch batch = { .n = 0 };
    bool more = true;

    for (uint32_t turn = 0; turn < vq->num && more; turn++) {
        VirtIOBlkRequest *req = NULL;

        s->starved |= s->taken >= VIRTIO_BLK_TAKEN_MAX;
        if (!s->starved) {
            req = take_request(s, index);
        }
        more = req;
        if (req) {
            s->taken++;
            in_flight_inc(s);
            virtio_blk_submit(req, &batch);
        }
    }
    virtio_blk_submit_batch(&batch);
    return more;
}

static void kick(VirtIOBlkQueue *q);

static void serve_queue(VirtIOBlkQueue *q)
{
    VirtIOBlk *s = q->s;
    VirtQueue *vq = &s->vdev.queues[q->index];

    if (!vq->started || virtio_is_broken(&s->vdev)) {
        return;
    }
    virtqueue_set_notification(vq, false);
    do {
        if (serve_turn(s, q->index)) {
            kick(q);
            return;
        }
        if (s->starved || virtio_is_broken(&s->vdev)) {
            return;
        }
        virtqueue_set_notification(vq, true);
    } while (!virtqueue_empty(vq));
}

static void queue_call(void *opaque)
{
    VirtIOBlkQueue *q = opaque;

    __atomic_store_n(&q->kicked, false, __ATOMIC_SEQ_CST);
    if (!stands(q->s)) {
        serve_queue(q);
    }
    in_flight_dec(q->s);
}

/* Have the queue looked at. Any thread. */
static void kick(VirtIOBlkQueue *q)
{
    if (!__atomic_exchange_n(&q->kicked, true, __ATOMIC_SEQ_CST)) {
        in_flight_inc(q->s);
        aio_bh_schedule_oneshot(q->s->ctx, queue_call, q);
    }
}

static void kick_all(VirtIOBlk *s)
{
    for (unsigned i = 0; i < s->num_queues; i++) {
        kick(&s->queues[i]);
    }
}

void virtio_blk_notify(VirtIODevice *vdev, unsigned index)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);

    if (!stands(s)) {
        kick(&s->queues[index]);
    }
}

/* ---- giving back ---- */

static void notify_call(void *opaque)
{
    VirtIOBlk *s = opaque;
    bool wanted = false;

    s->notify_scheduled = false;
    for (unsigned i = 0; i < s->num_queues; i++) {
        VirtQueue *vq = &s->vdev.queues[i];

        if (s->queues[i].notify) {
            s->queues[i].notify = false;
            wanted |= vq->started && virtqueue_should_notify(vq);
        }
    }
    if (wanted) {
        virtio_interrupt(&s->vdev);
    }
    in_flight_dec(s);
}

static void schedule_notify(VirtIOBlk *s, unsigned index)
{
    s->queues[index].notify = true;
    if (!s->notify_scheduled) {
        s->notify_scheduled = true;
        in_flight_inc(s);
        aio_bh_schedule_oneshot(s->ctx, notify_call, s);
    }
}

static void note_one_less(VirtIOBlk *s)
{
    s->taken--;
    if (s->starved && s->taken < VIRTIO_BLK_TAKEN_MAX / 2) {
        s->starved = false;
        kick_all(s);
    }
}

void virtio_blk_complete(VirtIOBlkRequest *req, uint8_t status)
{
    VirtIOBlk *s = req->s;
    struct iovec *last = &req->elem.in[req->elem.in_num - 1];
    uint32_t written = 1;

    /* virtio_blk_parse() took the byte of status off. */
    *((uint8_t *)last->iov_base + last->iov_len) = status;
    last->iov_len++;
    if (req->type == VIRTIO_BLK_T_IN || req->type == VIRTIO_BLK_T_GET_ID) {
        written += MIN(req->data_bytes, UINT32_MAX - 1);
    }
    virtqueue_push(&s->vdev.queues[req->queue], &req->elem, written);
    schedule_notify(s, req->queue);
    g_free(req);
    note_one_less(s);
    in_flight_dec(s);
}

/* ---- what waits for the machine to go on ---- */

void virtio_blk_hold(VirtIOBlkRequest *req)
{
    VirtIOBlk *s = req->s;

    req->next = NULL;
    *s->held_tail = req;
    s->held_tail = &req->next;
    in_flight_dec(s);
}

static VirtIOBlkRequest *steal_held(VirtIOBlk *s)
{
    VirtIOBlkRequest *held = s->held;

    s->held = NULL;
    s->held_tail = &s->held;
    return held;
}

void virtio_blk_forget_held(VirtIOBlk *s)
{
    VirtIOBlkRequest *next;

    for (VirtIOBlkRequest *req = steal_held(s); req; req = next) {
        next = req->next;
        s->taken--;
        g_free(req);
    }
    s->num_held = 0;
}

/* In the serving thread: do again what was held. */
static void resubmit_call(void *opaque)
{
    VirtIOBlk *s = opaque;
    VirtIOBlkRequest *next;

    if (stands(s)) {
        /* drained_end() or the next start sees to it. */
        in_flight_dec(s);
        return;
    }
    s->resubmit = false;
    for (VirtIOBlkRequest *req = steal_held(s); req; req = next) {
        VirtIOBlkBatch batch = { .n = 0 };

        next = req->next;
        req->next = NULL;
        in_flight_inc(s);
        virtio_blk_submit(req, &batch);
        virtio_blk_submit_batch(&batch);
    }
    in_flight_dec(s);
}

/* Chains that a stream said were held become requests again. */
static void read_held(VirtIOBlk *s)
{
    for (uint32_t i = 0; i < s->num_held; i++) {
        const VirtIOBlkHeld *h = &s->held_heads[i];
        Error *err = NULL;
        VirtIOBlkRequest *req =
            virtqueue_pop_again(&s->vdev.queues[h->queue], h->head, sizeof(*req), &err);

        if (req) {
            req->s = s;
            req->queue = h->queue;
            if (!virtio_blk_parse(req, &err)) {
                g_clear_pointer(&req, g_free);
            }
        }
        if (!req) {
            error_prepend(&err, "queue %u: ", h->queue);
            virtio_error(&s->vdev, err);
            continue;
        }
        s->taken++;
        in_flight_inc(s);
        virtio_blk_hold(req);
    }
    s->num_held = 0;
}

/* ---- starting and stopping ---- */

void virtio_blk_queues_init(VirtIOBlk *s)
{
    for (unsigned i = 0; i < s->num_queues; i++) {
        s->queues[i] = (VirtIOBlkQueue){ .s = s, .index = i };
    }
    s->held_tail = &s->held;
    s->stopped = true;
}

/* Neither stopped nor drained any more. */
static void go_on(VirtIOBlk *s)
{
    if (s->resubmit) {
        in_flight_inc(s);
        aio_bh_schedule_oneshot(s->ctx, resubmit_call, s);
    }
    kick_all(s);
}

void virtio_blk_start(VirtIODevice *vdev)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);

    read_held(s);
    blk_iostatus_reset(s->blk);
    s->resubmit = s->held;
    __atomic_store_n(&s->stopped, false, __ATOMIC_SEQ_CST);
    if (!s->drained) {
        go_on(s);
    }
}

void virtio_blk_stop(VirtIODevice *vdev)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);

    __atomic_store_n(&s->stopped, true, __ATOMIC_SEQ_CST);
    /* Through the graph, so that filters which delay requests let them go. */
    blk_drain(s->blk);
    AIO_WAIT_WHILE(virtio_blk_drained_poll(s));
    s->starved = false;
}

void virtio_blk_drained_begin(void *opaque)
{
    VirtIOBlk *s = opaque;

    __atomic_store_n(&s->drained, true, __ATOMIC_SEQ_CST);
}

void virtio_blk_drained_end(void *opaque)
{
    VirtIOBlk *s = opaque;

    __atomic_store_n(&s->drained, false, __ATOMIC_SEQ_CST);
    if (!s->stopped) {
        go_on(s);
    }
}

bool virtio_blk_drained_poll(void *opaque)
{
    VirtIOBlk *s = opaque;

    return __atomic_load_n(&s->in_flight, __ATOMIC_SEQ_CST) > 0;
}
