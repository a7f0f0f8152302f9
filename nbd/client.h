/*
 * A connection: its state, its two directions, and the work that is under way for it.
 *
 * Inside of nbd/ only. A connection begins in the main context, where it shakes hands, and then
 * moves to the context that serves its export (client->ctx) for good. Everything is touched in its
 * context alone, with these exceptions: `in_server` and `exp` are changed by the main thread while
 * the connection is there or gone; nbd_client_disconnect() is called by the main thread at any
 * time.
 *
 * Two coroutines at most wait for the socket: the receiver, which lives as long as the connection,
 * and a sender while the socket is full. Each request is a coroutine of its own and never waits for
 * the socket: it leaves its reply in the queue. So nothing that a drain of the node waits for
 * depends on a client.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_CLIENT_H
#define NBD_CLIENT_H

#include "io/channel-socket.h"
#include "nbd/buffers.h"
#include "nbd/export.h"
#include "nbd/meta-context.h"
#include "nbd/request.h"
#include "util/aio.h"
#include "util/coroutine-lock.h"

/* Requests of a connection under way, replies that wait to be sent among them. */
#define NBD_MAX_REQUESTS 256
/* Memory for their data. One request always goes. */
#define NBD_MAX_IN_FLIGHT_BYTES (UINT64_C(64) << 20)
/*
 * Replies that wait for the socket. Beyond that no more requests are taken: a client that reads
 * slowly gains nothing from replies that wait, and the processor's caches lose.
 */
#define NBD_MAX_QUEUED_BYTES (UINT64_C(1) << 20)
/* Bytes that are read before they are needed. */
#define NBD_READ_AHEAD_BYTES (64 * 1024)

typedef struct NbdClient NbdClient;
typedef struct NbdWork NbdWork;

/* A piece of a READ, for sparse replies. */
typedef struct NbdSegment {
    uint64_t offset;
    uint32_t length;
    bool hole;
} NbdSegment;

#define NBD_MAX_SEGMENTS 32
/* Chunk header, offset, length of a hole. */
#define NBD_SEGMENT_HEAD_BYTES (NBD_EXTENDED_CHUNK_BYTES + 8 + 4)

/* A request, and then its reply. */
struct NbdWork {
    NbdClient *client;
    NbdRequest req;
    NbdBuffer buf;                      /* payload of the request, or data of the reply */
    uint64_t charged;                   /* bytes that count as in flight */
    uint64_t file_offset, file_bytes; /* of the export, to be sent from the page cache after iov */

    NbdWork *next;                      /* in the queue of replies, or of spare ones */
    struct iovec *iov;                  /* what is to be sent */
    unsigned niov, iov_at;
    struct iovec local_iov[2];
    uint8_t local_head[NBD_SEGMENT_HEAD_BYTES];
    uint8_t *head;                      /* other memory for headers and extents; NULL: none */
};

struct NbdClient {
    /* Main thread. */
    GList in_server;
    unsigned thread;                    /* of the server that serves it, from 1; 0: none */
    char *peer;

    QIOChannelSocket *ioc;
    int fd;
    AioContext *ctx;
    Coroutine *receiver;
    NbdExport *exp;                     /* chosen; NULL during the handshake */

    /* Handshake. */
    AioTimer *deadline;
    bool fixed, no_zeroes;
    NbdMeta meta;
    NbdTerms terms;                     /* mode from the handshake on, all of it from GO on */

    /* receive.c */
    uint8_t *ahead;                     /* NBD_READ_AHEAD_BYTES */
    size_t ahead_start, ahead_end;
    size_t ahead_want;                  /* how much of it to fill: little where payloads are long */
    unsigned turn_requests;             /* since the receiver last let others run */
    uint64_t turn_bytes;

    /* Work. */
    unsigned in_flight;
    uint64_t in_flight_bytes;
    bool receiver_waits;                /* for less work, to be woken when some is done */
    NbdWork *spare;
    unsigned n_spare;
    NbdBuffers buffers;
    uint64_t data_start, data_end;      /* of the export, known to be no hole at the last look */
    CoMutex long_work;                  /* held for a piece of a long TRIM or WRITE_ZEROES */

    /* send.c */
    NbdWork *queue, *queue_last;
    uint64_t queue_bytes;
    bool gathering;                     /* the receiver runs and will flush before it waits */
    bool sending;                       /* a sender coroutine has the queue */
    bool flush_scheduled;
    bool broken;                        /* nothing can be sent any more */
};

/* client.c: life. Main thread: takes a reference to @ioc; then starts the receiver. */
NbdClient *nbd_client_new(QIOChannelSocket *ioc, unsigned handshake_max_seconds);
void nbd_client_start(NbdClient *c);
/* End it soon: both directions are shut down. Main thread, as long as the server knows it. */
void nbd_client_disconnect(NbdClient *c);
/*
 * Whether nothing can reach the client any more: it has closed its socket, or was disconnected, or
 * its replies could not be sent. One that has only said that it will not ask for more is still
 * there; so, for a while, is one behind TCP that has closed. Any thread; a system call.
 */
bool nbd_client_is_gone(const NbdClient *c);
/* Free it, when the receiver has ended. Main thread. */
void nbd_client_free(NbdClient *c);
/* Work was done: the receiver goes on if it waits for that. In the client's context. */
void nbd_client_progress(NbdClient *c);
/* A line for people who watch; printf. */
void nbd_client_log(NbdClient *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * server.c, for client.c: the context that will serve @c, as it has chosen its export. Main thread.
 */
AioContext *nbd_server_place_client(NbdClient *c);
/* The receiver has ended: forget and free it. Main thread. */
void nbd_server_client_gone(NbdClient *c);
/* Whether somebody watches, and a line for them. Any thread. */
bool nbd_server_logs(void);
void nbd_server_log(const char *message);
/* Disconnect the clients of @exp, NULL: all. Main thread. */
void nbd_server_disconnect_clients(const NbdExport *exp);
/* Whether there will be one connection at most: its effects need not be seen by others. */
bool nbd_server_is_single(void);

/* options.c: true when transmission begins, false when the connection ends. */
bool coroutine_fn nbd_handshake(NbdClient *c);

/* transmission.c: serves requests until the client goes. */
void coroutine_fn nbd_transmission(NbdClient *c);

/*
 * receive.c. All: 1; 0 when the client closed before the first byte; -1 when it is broken or cut
 * short.
 */
int coroutine_fn nbd_receive(NbdClient *c, void *buf, size_t len);
int coroutine_fn nbd_receive_skip(NbdClient *c, uint64_t len);
/* @len bytes in one piece, at most NBD_PEEK_MAX_BYTES; valid until the next call. */
int coroutine_fn nbd_receive_peek(NbdClient *c, size_t len, const uint8_t **at);
#define NBD_PEEK_MAX_BYTES 64

/* send.c */
/* Send all of it, waiting as long as it takes: for the handshake. False: it is broken. */
bool coroutine_fn nbd_send_all(NbdClient *c, struct iovec *iov, unsigned niov);
/* Queue the reply of @w, whose iov is set; it is freed when it is sent. */
void nbd_send_reply(NbdWork *w);
/* Send what is queued, as far as the socket takes it; the rest goes in the background. */
void nbd_send_flush(NbdClient *c);

/* work.c */
/* Room for one more request with @bytes of data. */
bool nbd_work_has_room(const NbdClient *c, uint64_t bytes);
/* A request that has, or will have, @bytes of data; without a buffer. */
NbdWork *nbd_work_new(NbdClient *c, const NbdRequest *req, uint64_t bytes);
/* Give it a buffer of @bytes, at least 1. False: there is no memory. */
bool nbd_work_alloc(NbdWork *w, uint64_t bytes);
void nbd_work_free(NbdWork *w);
void nbd_work_free_spare(NbdClient *c);

/* reply.c: fill the iov of @w and queue it. */
void nbd_reply_done(NbdWork *w);
void nbd_reply_error(NbdWork *w, uint32_t error, const char *why);
void nbd_reply_errno(NbdWork *w, int err, const char *why);
/* All of the request's data: in @w's buffer or, when it has none, in the page cache. */
void nbd_reply_data(NbdWork *w);
/* The request's range in pieces; data where the request's data would be in the buffer. */
void nbd_reply_segments(NbdWork *w, const NbdSegment *segments, unsigned n);
/* A reply of chunks that is complete in @head, which it takes over. */
void nbd_reply_chunks(NbdWork *w, uint8_t *head, size_t bytes);
/* Write a chunk's header; returns its length. */
size_t nbd_put_chunk(uint8_t *p, const NbdWork *w, uint16_t flags, uint16_t type, uint64_t length);

#endif
