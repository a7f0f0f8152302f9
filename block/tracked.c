/*
 * Requests that must not overlap others: a read-modify-write cycle, copy on read, a change of
 * length.
 *
 * Every request of a node is in its list. Ordinary ones overlap freely, as on any disk; a
 * serialising one waits for those that overlap it, and they for it. Of two that would wait for each
 * other one goes on: a request never waits for one that is itself waiting.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/io-internal.h"

static bool overlaps(const BdrvTrackedRequest *a, const BdrvTrackedRequest *b)
{
    return a->overlap_offset < b->overlap_offset + b->overlap_bytes &&
           b->overlap_offset < a->overlap_offset + a->overlap_bytes;
}

static BdrvTrackedRequest *find_conflict(BdrvTrackedRequest *self)
{
    for (BdrvTrackedRequest *req = self->bs->tracked_requests; req; req = req->next) {
        if (req != self && (req->serialising || self->serialising) && overlaps(req, self) &&
            !req->waiting_for) {
            return req;
        }
    }
    return NULL;
}

/* With reqs_lock held; it is dropped while waiting. */
static void coroutine_fn wait_for_conflicts(BdrvTrackedRequest *self)
{
    BdrvTrackedRequest *other;

    while (self->bs->serialising_in_flight && (other = find_conflict(self)) != NULL) {
        self->waiting_for = other;
        other->waiters = g_slist_append(other->waiters, coroutine_self());
        mutex_unlock(&self->bs->reqs_lock);
        /* Exactly one wake-up comes, perhaps before this yields: it must be taken. */
        coroutine_yield();
        mutex_lock(&self->bs->reqs_lock);
    }
}

void coroutine_fn bdrv_tracked_begin(BdrvTrackedRequest *req, BlockDriverState *bs, int64_t offset,
                                     int64_t bytes, BdrvTrackedType type)
{
    *req = (BdrvTrackedRequest) {
        .bs = bs, .type = type, .offset = offset, .bytes = bytes,
        .overlap_offset = offset, .overlap_bytes = bytes,
    };
    mutex_lock(&bs->reqs_lock);
    req->next = bs->tracked_requests;
    if (req->next) {
        req->next->prev = req;
    }
    bs->tracked_requests = req;
    if (bs->serialising_in_flight) {
        wait_for_conflicts(req);
    }
    mutex_unlock(&bs->reqs_lock);
}

void coroutine_fn bdrv_make_serialising(BdrvTrackedRequest *req, uint64_t align)
{
    int64_t start = round_down_i64(req->offset, align);
    int64_t end = round_up_i64(req->offset + req->bytes, align);

    mutex_lock(&req->bs->reqs_lock);
    if (!req->serialising) {
        req->serialising = true;
        req->bs->serialising_in_flight++;
    }
    end = MAX(end, req->overlap_offset + req->overlap_bytes);
    req->overlap_offset = MIN(req->overlap_offset, start);
    req->overlap_bytes = end - req->overlap_offset;
    wait_for_conflicts(req);
    mutex_unlock(&req->bs->reqs_lock);
}

void bdrv_tracked_end(BdrvTrackedRequest *req)
{
    BlockDriverState *bs = req->bs;
    GSList *waiters;

    mutex_lock(&bs->reqs_lock);
    if (req->prev) {
        req->prev->next = req->next;
    } else {
        bs->tracked_requests = req->next;
    }
    if (req->next) {
        req->next->prev = req->prev;
    }
    if (req->serialising) {
        bs->serialising_in_flight--;
    }
    waiters = req->waiters;
    for (BdrvTrackedRequest *r = waiters ? bs->tracked_requests : NULL; r; r = r->next) {
        if (r->waiting_for == req) {
            r->waiting_for = NULL;
        }
    }
    mutex_unlock(&bs->reqs_lock);
    for (GSList *l = waiters; l; l = l->next) {
        aio_co_wake(l->data);
    }
    g_slist_free(waiters);
}
