/*
 * Sending: many replies in one system call.
 *
 * Replies wait in a queue. While the receiver works through what it has read (client->gathering), they
 * gather until it is about to wait; else a call for later sends what the completions of one turn of the
 * loop have left. A lone reply, and much data, go at once.
 *
 * When the socket is full a sender coroutine takes over and waits for it; until it is done, replies only
 * join the queue.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/client.h"

#include <errno.h>
#include <sys/socket.h>

#define IOVS_MAX 128
/* So much is not held back. */
#define GATHER_BYTES (256 * 1024)

/* Elements of what is first in the queue. */
static unsigned gather(const NbdClient *c, struct iovec *iov)
{
    unsigned n = 0;

    for (const NbdWork *w = c->queue; w; w = w->next) {
        for (unsigned i = w->iov_at; i < w->niov; i++) {
            if (n == IOVS_MAX) {
                return n;
            }
            iov[n++] = w->iov[i];
        }
    }
    return n;
}

static void drop_first(NbdClient *c)
{
    NbdWork *w = c->queue;

    c->queue = w->next;
    nbd_work_free(w);
}

/* @n bytes were sent. */
static void advance(NbdClient *c, size_t n)
{
    c->queue_bytes -= n;
    while (c->queue) {
        NbdWork *w = c->queue;

        while (w->iov_at < w->niov && n >= w->iov[w->iov_at].iov_len) {
            n -= w->iov[w->iov_at++].iov_len;
        }
        if (w->iov_at < w->niov) {
            w->iov[w->iov_at].iov_base = (uint8_t *)w->iov[w->iov_at].iov_base + n;
            w->iov[w->iov_at].iov_len -= n;
            return;
        }
        drop_first(c);
    }
}

/* The other side will not get any more. */
static void give_up(NbdClient *c)
{
    c->broken = true;
    c->queue_bytes = 0;
    shutdown(c->fd, SHUT_RDWR);
    while (c->queue) {
        drop_first(c);
    }
}

/* Send until the queue is empty. False: the socket is full. */
static bool send_queue(NbdClient *c)
{
    while (c->queue) {
        struct iovec iov[IOVS_MAX];
        struct msghdr msg = { .msg_iov = iov, .msg_iovlen = gather(c, iov) };
        ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0) {
            advance(c, n);
        } else if (errno == EAGAIN) {
            return false;
        } else if (errno != EINTR) {
            give_up(c);
        }
    }
    return true;
}

static void coroutine_fn sender(void *opaque)
{
    NbdClient *c = opaque;

    do {
        aio_co_wait_fd(c->fd, true);
    } while (!send_queue(c));
    c->sending = false;
    nbd_client_progress(c);
}

void nbd_send_flush(NbdClient *c)
{
    if (c->queue && !c->sending && !send_queue(c)) {
        c->sending = true;
        coroutine_enter(coroutine_create(sender, c));
    }
}

static void flush_later(void *opaque)
{
    NbdClient *c = opaque;

    c->flush_scheduled = false;
    nbd_send_flush(c);
    nbd_client_progress(c);
}

void nbd_send_reply(NbdWork *w)
{
    NbdClient *c = w->client;

    if (c->broken) {
        nbd_work_free(w);
        return;
    }
    w->next = NULL;
    w->iov_at = 0;
    if (c->queue) {
        c->queue_last->next = w;
    } else {
        c->queue = w;
    }
    c->queue_last = w;
    for (unsigned i = 0; i < w->niov; i++) {
        c->queue_bytes += w->iov[i].iov_len;
    }
    if (c->queue_bytes >= GATHER_BYTES || (!c->gathering && c->in_flight == 1)) {
        nbd_send_flush(c);
    } else if (!c->gathering && !c->flush_scheduled && !c->sending) {
        c->flush_scheduled = true;
        aio_bh_schedule_oneshot(c->ctx, flush_later, c);
    }
}

bool coroutine_fn nbd_send_all(NbdClient *c, struct iovec *iov, unsigned niov)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = niov };

    while (msg.msg_iovlen > 0) {
        ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno == EAGAIN) {
            aio_co_wait_fd(c->fd, true);
            continue;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
        while (msg.msg_iovlen > 0 && n >= 0 && (size_t)n >= msg.msg_iov->iov_len) {
            n -= msg.msg_iov->iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen > 0 && n > 0) {
            msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + n;
            msg.msg_iov->iov_len -= n;
        }
    }
    return true;
}
