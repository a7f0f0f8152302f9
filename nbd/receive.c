/*
 * Receiving: headers come in batches, payloads go straight to where they are needed.
 *
 * What a system call brings beyond what was asked for lies in client->ahead. A long payload is read
 * past it into its own buffer, with as much room behind it as the next header needs; small ones are
 * copied out of what was read ahead.
 *
 * A receiver that finds much work in what it has must not keep the thread from others: after a
 * share of requests or bytes it goes to the end of the queue.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Turns between clients. */
#define TURN_REQUESTS 64
#define TURN_BYTES (2 * 1024 * 1024)
/* A payload from this length on is long: it is not worth copying. */
#define LONG_PAYLOAD_BYTES (16 * 1024)
#define AHEAD_AFTER_LONG_BYTES 512

/* Let others run, when it is their turn; what is queued goes out first. */
static void coroutine_fn take_turns(NbdClient *c)
{
    if (c->turn_requests < TURN_REQUESTS && c->turn_bytes < TURN_BYTES) {
        return;
    }
    c->turn_requests = 0;
    c->turn_bytes = 0;
    c->gathering = false;
    nbd_send_flush(c);
    aio_co_schedule(c->ctx, c->receiver);
    coroutine_yield();
    c->gathering = true;
}

static void coroutine_fn wait_for_bytes(NbdClient *c)
{
    c->turn_requests = 0;
    c->turn_bytes = 0;
    c->gathering = false;
    aio_co_wait_fd(c->fd, false);
    c->gathering = true;
}

/* Bytes received, at least 1; 0: the client closed its side; -1: broken. */
static ssize_t coroutine_fn receive_some(NbdClient *c, struct iovec *iov, unsigned niov)
{
    struct msghdr msg = { .msg_iov = iov, .msg_iovlen = niov };
    ssize_t n;

    take_turns(c);
    nbd_send_flush(c);
    while ((n = recvmsg(c->fd, &msg, MSG_DONTWAIT)) < 0) {
        if (errno == EAGAIN) {
            wait_for_bytes(c);
        } else if (errno != EINTR) {
            return -1;
        }
    }
    c->turn_bytes += n;
    return n;
}

static size_t take_ahead(NbdClient *c, void *buf, size_t len)
{
    size_t n = MIN(len, c->ahead_end - c->ahead_start);

    if (buf) {
        memcpy(buf, c->ahead + c->ahead_start, n);
    }
    c->ahead_start += n;
    return n;
}

int coroutine_fn nbd_receive_peek(NbdClient *c, size_t len, const uint8_t **at)
{
    g_assert(len <= NBD_PEEK_MAX_BYTES);
    while (c->ahead_end - c->ahead_start < len) {
        size_t have = c->ahead_end - c->ahead_start;
        struct iovec iov;
        ssize_t n;

        memmove(c->ahead, c->ahead + c->ahead_start, have);
        c->ahead_start = 0;
        c->ahead_end = have;
        iov.iov_base = c->ahead + have;
        iov.iov_len = MAX(c->ahead_want, len) - have;
        n = receive_some(c, &iov, 1);
        if (n <= 0) {
            return n == 0 && have == 0 ? 0 : -1;
        }
        c->ahead_end += n;
    }
    *at = c->ahead + c->ahead_start;
    c->ahead_start += len;
    return 1;
}

int coroutine_fn nbd_receive(NbdClient *c, void *buf, size_t len)
{
    uint8_t *to = buf;
    size_t done = take_ahead(c, buf, len);

    c->ahead_want = len >= LONG_PAYLOAD_BYTES ? AHEAD_AFTER_LONG_BYTES : NBD_READ_AHEAD_BYTES;
    while (done < len) {
        /* Nothing lies ahead here. */
        struct iovec iov[2] = {
            { .iov_base = to + done, .iov_len = len - done },
            { .iov_base = c->ahead, .iov_len = c->ahead_want },
        };
        ssize_t n = receive_some(c, iov, 2);

        if (n <= 0) {
            return n == 0 && done == 0 ? 0 : -1;
        }
        if ((size_t)n > len - done) {
            c->ahead_start = 0;
            c->ahead_end = n - (len - done);
            done = len;
        } else {
            done += n;
        }
    }
    return 1;
}

int coroutine_fn nbd_receive_skip(NbdClient *c, uint64_t len)
{
    while ((len -= take_ahead(c, NULL, MIN(len, SIZE_MAX))) > 0) {
        struct iovec iov = { .iov_base = c->ahead, .iov_len = NBD_READ_AHEAD_BYTES };
        ssize_t n = receive_some(c, &iov, 1);

        if (n <= 0) {
            return -1;
        }
        c->ahead_start = 0;
        c->ahead_end = n;
    }
    return 1;
}
