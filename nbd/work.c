/*
 * Requests under way: their memory, and how many there may be.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/client.h"

#define SPARE_MAX 64

bool nbd_work_has_room(const NbdClient *c, uint64_t bytes)
{
    return c->in_flight == 0 || (c->in_flight < NBD_MAX_REQUESTS &&
                                 c->in_flight_bytes + bytes <= NBD_MAX_IN_FLIGHT_BYTES &&
                                 c->queue_bytes <= NBD_MAX_QUEUED_BYTES);
}

NbdWork *nbd_work_new(NbdClient *c, const NbdRequest *req, uint64_t bytes)
{
    NbdWork *w = c->spare;

    if (w) {
        c->spare = w->next;
        c->n_spare--;
    } else {
        w = g_new(NbdWork, 1);
    }
    w->client = c;
    w->req = *req;
    w->buf = (NbdBuffer) { 0 };
    w->charged = bytes;
    w->file_bytes = 0;
    w->iov = w->local_iov;
    w->niov = 0;
    w->head = NULL;
    c->in_flight++;
    c->in_flight_bytes += bytes;
    return w;
}

bool nbd_work_alloc(NbdWork *w, uint64_t bytes)
{
    w->buf = nbd_buffer_get(&w->client->buffers, bytes);
    return w->buf.data;
}

void nbd_work_free(NbdWork *w)
{
    NbdClient *c = w->client;

    nbd_buffer_put(&c->buffers, &w->buf);
    g_free(w->head);
    c->in_flight--;
    c->in_flight_bytes -= w->charged;
    if (c->n_spare < SPARE_MAX) {
        w->next = c->spare;
        c->spare = w;
        c->n_spare++;
    } else {
        g_free(w);
    }
    nbd_client_progress(c);
}

void nbd_work_free_spare(NbdClient *c)
{
    while (c->spare) {
        NbdWork *w = c->spare;

        c->spare = w->next;
        g_free(w);
    }
    c->n_spare = 0;
}
