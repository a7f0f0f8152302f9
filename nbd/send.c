/*
 * Sending: many replies in one system call.
 *
 * Replies wait in a queue. While the receiver works through what it has read (client->gathering),
 * they gather until it is about to wait; else a call for later sends what the completions of one
 * turn of the loop have left. A lone reply, and much data, go at once.
 *
 * When the socket is full a sender coroutine takes over and waits for it; until it is done, replies
 * only join the queue.
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
/* Of a file whose pages have gone, what is read at a time. */
#define PIECE_BYTES (256 * 1024)

/* Elements of what is first in the queue, up to a file. */
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
        if (w->file_bytes > 0) {
            break;
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
        if (w->file_bytes > 0) {
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

typedef enum Sent {
    SENT_SOME,
    SENT_ALL,                   /* the queue is empty */
    SENT_FULL,                  /* the socket is full */
    SENT_NOT_CACHED,            /* what comes next must be read first */
} Sent;

static Sent send_iov(NbdClient *c)
{
    struct iovec iov[IOVS_MAX];
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = gather(c, iov) };
    ssize_t n = sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n >= 0) {
        advance(c, n);
    } else if (errno == EAGAIN) {
        return SENT_FULL;
    } else if (errno != EINTR) {
        give_up(c);
    }
    return SENT_SOME;
}

static Sent send_file(NbdClient *c)
{
    NbdWork *w = c->queue;
    ssize_t n = blk_try_sendfile(c->exp->common.blk, w->file_offset, w->file_bytes, c->fd);

    if (n > 0) {
        w->file_offset += n;
        w->file_bytes -= n;
        c->queue_bytes -= n;
        if (w->file_bytes == 0) {
            drop_first(c);
        }
    } else if (n == -EAGAIN) {
        return SENT_FULL;
    } else if (n != -EINTR) {
        /* If it is the socket that is broken, that will show. */
        return SENT_NOT_CACHED;
    }
    return SENT_SOME;
}

/* Send until the queue is empty or something must be waited for. */
static Sent send_queue(NbdClient *c)
{
    Sent sent = SENT_SOME;

    while (c->queue && sent == SENT_SOME) {
        sent = c->queue->iov_at < c->queue->niov ? send_iov(c) : send_file(c);
    }
    return c->queue ? sent : SENT_ALL;
}

/*
 * The pages have gone, or the node is drained: read a piece of what is to come into memory. The
 * header is out, so that a failure cannot be told any more but by ending the connection.
 */
static void coroutine_fn read_piece(NbdClient *c)
{
    NbdWork *w = c->queue;
    uint64_t n = MIN(w->file_bytes, PIECE_BYTES);

    if (!w->buf.data) {
        w->buf = nbd_buffer_get(&c->buffers, n);
    }
    if (!w->buf.data || blk_co_pread(c->exp->common.blk, w->file_offset, n, w->buf.data, 0) < 0) {
        nbd_client_log(c, "reading from the export failed in the middle of a reply");
        give_up(c);
        return;
    }
    w->file_offset += n;
    w->file_bytes -= n;
    w->iov = w->local_iov;
    w->iov[0] = (struct iovec) { .iov_base = w->buf.data, .iov_len = n };
    w->iov_at = 0;
    w->niov = 1;
}

static void coroutine_fn sender(void *opaque)
{
    NbdClient *c = opaque;
    Sent sent;

    while ((sent = send_queue(c)) != SENT_ALL) {
        if (sent == SENT_FULL) {
            aio_co_wait_fd(c->fd, true);
        } else {
            read_piece(c);
        }
    }
    c->sending = false;
    nbd_client_progress(c);
}

void nbd_send_flush(NbdClient *c)
{
    if (c->queue && !c->sending && send_queue(c) != SENT_ALL) {
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
    c->queue_bytes += w->file_bytes;
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
