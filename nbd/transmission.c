/*
 * Transmission: the receiver takes requests from the socket, and each becomes a coroutine that does
 * what it asks for and leaves a reply.
 *
 * Many are under way at the same time and end in any order. The receiver stops taking more when
 * there are too many, or too much data (work.c), so that a client that does not read its replies
 * costs a bounded amount of memory and nothing else.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/socket.h>

#include "nbd/client.h"
#include "util/bswap.h"

/* Extents in the reply to one BLOCK_STATUS, of one context. */
#define EXTENTS_MAX 4096
/* A READ shorter than this is not looked at for holes: sending zeroes is cheaper than asking. */
#define SPARSE_MIN_BYTES (16 * 1024)
/* Shortest hole worth a chunk of its own. */
#define HOLE_MIN_BYTES 4096
/*
 * A READ from this length on is sent from the page cache, when that has it; copying a shorter one
 * is cheaper.
 */
#define SENDFILE_MIN_BYTES (32 * 1024)
/* How much of a long CACHE is read at a time. */
#define CACHE_PIECE_BYTES (1024 * 1024)
/*
 * How much of a long TRIM or WRITE_ZEROES is done at a time: more and more, as long as a piece takes
 * next to no time. Powers of two, from the largest cluster on.
 */
#define LONG_PIECE_MIN_BYTES (UINT64_C(16) << 20)
#define LONG_PIECE_MAX_BYTES (UINT64_C(1) << 30)
#define LONG_PIECE_NS (INT64_C(5) * 1000 * 1000)
/* How long a client that has said good-bye is served, and may take to read what it is owed. */
#define LINGER_NS (INT64_C(30) * 1000 * 1000 * 1000)

static BlockBackend *blk_of(const NbdWork *w)
{
    return w->client->exp->common.blk;
}

/*
 * READ
 * ------------------------------------------------------------------------------------------------
 */

/* Whether all of the range was data when somebody looked: then it need not be asked again. */
static bool is_known_data(const NbdClient *c, const NbdRequest *req)
{
    return req->offset >= c->data_start && req->offset + req->length <= c->data_end;
}

/* What lies at @offset: up to @length bytes of data or zeroes. Without an answer it is data. */
static uint64_t coroutine_fn look_at(NbdWork *w, uint64_t offset, uint64_t length, bool *hole)
{
    NbdClient *c = w->client;
    uint64_t size = c->terms.size;
    int64_t n = 0;
    int status = -EIO;

    /* All up to the end, if it is one extent: what it says of data is remembered. */
    if (offset + length <= size) {
        status =
            blk_co_block_status_above(blk_of(w), NULL, offset, size - offset, &n, NULL, NULL, NULL);
    }
    if (status < 0 || n <= 0) {
        *hole = false;
        return length;
    }
    *hole = status & BDRV_BLOCK_ZERO;
    if (!*hole) {
        c->data_start = offset;
        c->data_end = offset + n;
    }
    return MIN((uint64_t)n, length);
}

/*
 * Cut the range into data and holes. Returns the number of segments; one, when there is no hole
 * worth mentioning.
 */
static unsigned coroutine_fn find_segments(NbdWork *w, NbdSegment *segments)
{
    uint64_t offset = w->req.offset, left = w->req.length;
    unsigned n = 0;

    while (left > 0) {
        bool hole = false;
        uint64_t length = n + 1 < NBD_MAX_SEGMENTS ? look_at(w, offset, left, &hole) : left;

        hole = hole && (length >= HOLE_MIN_BYTES || length == w->req.length);
        if (n > 0 && segments[n - 1].hole == hole) {
            segments[n - 1].length += length;
        } else {
            segments[n++] = (NbdSegment) { .offset = offset, .length = length, .hole = hole };
        }
        offset += length;
        left -= length;
    }
    return n;
}

static bool may_be_sparse(const NbdWork *w)
{
    return w->client->terms.mode != NBD_MODE_SIMPLE && !(w->req.flags & NBD_CMD_FLAG_DF) &&
           w->req.length >= SPARSE_MIN_BYTES && !is_known_data(w->client, &w->req);
}

static int coroutine_fn read_part(NbdWork *w, uint64_t offset, uint64_t length)
{
    return blk_co_pread(blk_of(w), offset, length,
                        (uint8_t *)w->buf.data + (offset - w->req.offset), 0);
}

static int coroutine_fn read_segments(NbdWork *w, const NbdSegment *segments, unsigned n)
{
    int ret = 0;

    for (unsigned i = 0; i < n && ret == 0; i++) {
        if (!segments[i].hole) {
            ret = read_part(w, segments[i].offset, segments[i].length);
        }
    }
    return ret;
}

/* Read all that is no hole into a buffer. */
static void coroutine_fn read_and_reply(NbdWork *w, const NbdSegment *segments, unsigned n)
{
    int ret;

    if (!nbd_work_alloc(w, w->req.length)) {
        nbd_reply_error(w, NBD_ENOMEM, "there is not enough memory");
        return;
    }
    ret = n > 0 ? read_segments(w, segments, n) : read_part(w, w->req.offset, w->req.length);
    if (ret < 0) {
        nbd_reply_errno(w, ret, "reading from the export failed");
    } else if (n > 0) {
        nbd_reply_segments(w, segments, n);
    } else {
        nbd_reply_data(w);
    }
}

static void coroutine_fn do_read(NbdWork *w)
{
    NbdSegment segments[NBD_MAX_SEGMENTS];
    unsigned n = 0;

    if (w->req.length == 0) {
        nbd_reply_done(w);
        return;
    }
    if (may_be_sparse(w)) {
        n = find_segments(w, segments);
        if (n == 1 && !segments[0].hole) {
            n = 0;
        }
    }
    if (n == 0 && w->req.length >= SENDFILE_MIN_BYTES &&
        blk_is_cached(blk_of(w), w->req.offset, w->req.length)) {
        nbd_reply_data(w);
    } else {
        read_and_reply(w, segments, n);
    }
}

/*
 * Commands without data in their replies
 * ----------------------------------------------------------------
 */

static void reply_result(NbdWork *w, int ret, const char *why)
{
    if (ret < 0) {
        nbd_reply_errno(w, ret, why);
    } else {
        nbd_reply_done(w);
    }
}

static BdrvRequestFlags write_flags(const NbdWork *w)
{
    return w->req.flags & NBD_CMD_FLAG_FUA ? BDRV_REQ_FUA : 0;
}

static void coroutine_fn do_write(NbdWork *w)
{
    int ret = 0;

    if (w->req.length > 0) {
        ret = blk_co_pwrite(blk_of(w), w->req.offset, w->req.length, w->buf.data, write_flags(w));
    }
    reply_result(w, ret, "writing to the export failed");
}

/*
 * Long requests
 * -----------------------------------------------------------------------------------------
 *
 * A client may ask for much with few bytes. What has no bound of its own is done in pieces, each a
 * request to the block layer: a drain of the node waits for a piece, and what is left of a request
 * is given up when its client is gone.
 */

typedef int coroutine_fn PieceFn(NbdWork *w, uint64_t offset, uint64_t bytes);

/* After a piece. False: nobody is there who wants another. */
static bool coroutine_fn next_piece(NbdWork *w)
{
    NbdClient *c = w->client;

    if (nbd_client_is_gone(c)) {
        return false;
    }
    /* A node that never waits must not keep the thread from other clients. */
    aio_co_schedule(c->ctx, coroutine_self());
    coroutine_yield();
    return true;
}

/*
 * Of all the long requests of a client one is at work at a time. So a drain, and the end of the
 * connection, wait for one piece of them and not for one of each.
 */
static int coroutine_fn do_long_piece(NbdWork *w, PieceFn *fn, uint64_t offset, uint64_t bytes)
{
    NbdClient *c = w->client;
    int ret;

    co_mutex_lock(&c->long_work);
    ret = nbd_client_is_gone(c) ? -ESHUTDOWN : fn(w, offset, bytes);
    co_mutex_unlock(&c->long_work);
    return ret;
}

/* Pieces end where their length divides the offset, so that they cut no cluster in two. */
static int coroutine_fn in_long_pieces(NbdWork *w, PieceFn *fn)
{
    uint64_t offset = w->req.offset, left = w->req.length, piece = LONG_PIECE_MIN_BYTES;

    if (left == 0) {
        return 0;
    }
    if (left <= LONG_PIECE_MIN_BYTES) {
        return fn(w, offset, left);
    }
    for (;;) {
        uint64_t n = MIN(left, piece - offset % piece);
        int64_t begun = aio_clock_ns();
        int ret = do_long_piece(w, fn, offset, n);

        if (ret < 0 || n == left) {
            return ret;
        }
        offset += n;
        left -= n;
        piece = aio_clock_ns() - begun > LONG_PIECE_NS ? LONG_PIECE_MIN_BYTES
                                                       : MIN(2 * piece, LONG_PIECE_MAX_BYTES);
        if (!next_piece(w)) {
            return -ESHUTDOWN;
        }
    }
}

static bool is_long(const NbdWork *w)
{
    return w->req.length > LONG_PIECE_MIN_BYTES;
}

static int coroutine_fn zero_piece(NbdWork *w, uint64_t offset, uint64_t bytes)
{
    /* One flush at the end is cheaper than one for each piece. */
    BdrvRequestFlags flags = is_long(w) ? 0 : write_flags(w);

    if (!(w->req.flags & NBD_CMD_FLAG_NO_HOLE)) {
        flags |= BDRV_REQ_MAY_UNMAP;
    }
    if (w->req.flags & NBD_CMD_FLAG_FAST_ZERO) {
        flags |= BDRV_REQ_NO_FALLBACK;
    }
    return blk_co_pwrite_zeroes(blk_of(w), offset, bytes, flags);
}

static void coroutine_fn do_write_zeroes(NbdWork *w)
{
    int ret = in_long_pieces(w, zero_piece);

    if (ret == 0 && is_long(w) && w->req.flags & NBD_CMD_FLAG_FUA) {
        ret = blk_co_flush(blk_of(w));
    }
    w->client->data_end = 0;
    if (ret == -ENOTSUP && !(w->req.flags & NBD_CMD_FLAG_FAST_ZERO)) {
        /* That answer is reserved for fast zeroing. */
        ret = -EIO;
    }
    reply_result(w, ret, "writing zeroes to the export failed");
}

static int coroutine_fn trim_piece(NbdWork *w, uint64_t offset, uint64_t bytes)
{
    return blk_co_pdiscard(blk_of(w), offset, bytes);
}

static void coroutine_fn do_trim(NbdWork *w)
{
    int ret = in_long_pieces(w, trim_piece);

    w->client->data_end = 0;
    if (ret == -ENOTSUP) {
        ret = 0;
    }
    if (ret == 0 && w->req.flags & NBD_CMD_FLAG_FUA) {
        ret = blk_co_flush(blk_of(w));
    }
    reply_result(w, ret, "discarding in the export failed");
}

static void coroutine_fn do_flush(NbdWork *w)
{
    reply_result(w, blk_co_flush(blk_of(w)), "flushing the export failed");
}

/* Bring it into the caches of this host, and into the top layer where the node copies on read. */
static void coroutine_fn do_cache(NbdWork *w)
{
    uint64_t offset = w->req.offset, left = w->req.length;
    int ret = left == 0 || nbd_work_alloc(w, MIN(left, CACHE_PIECE_BYTES)) ? 0 : -ENOMEM;

    while (left > 0 && ret == 0) {
        uint64_t n = MIN(left, CACHE_PIECE_BYTES);

        ret = blk_co_pread(blk_of(w), offset, n, w->buf.data, 0);
        offset += n;
        left -= n;
        if (ret == 0 && left > 0 && !next_piece(w)) {
            ret = -ESHUTDOWN;
        }
    }
    reply_result(w, ret, "reading from the export failed");
}

/*
 * BLOCK_STATUS
 * ------------------------------------------------------------------------------------------
 */

/* Bytes that the extents of a context take in a chunk, with the numbers before them. */
static size_t status_bytes(const NbdWork *w, unsigned n)
{
    return w->client->terms.mode == NBD_MODE_EXTENDED ? 8 + 16 * (size_t)n : 4 + 8 * (size_t)n;
}

static size_t put_status(uint8_t *p, const NbdWork *w, bool last, uint32_t id,
                         const NbdExtent *extents, unsigned n)
{
    bool extended = w->client->terms.mode == NBD_MODE_EXTENDED;
    uint16_t type = extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
    uint8_t *start = p;

    p += nbd_put_chunk(p, w, last ? NBD_REPLY_FLAG_DONE : 0, type, status_bytes(w, n));
    stl_be_p(p, id);
    p += 4;
    if (extended) {
        stl_be_p(p, n);
        p += 4;
    }
    for (unsigned i = 0; i < n; i++) {
        if (extended) {
            stq_be_p(p, extents[i].length);
            stq_be_p(p + 8, extents[i].flags);
            p += 16;
        } else {
            stl_be_p(p, extents[i].length);
            stl_be_p(p + 4, extents[i].flags);
            p += 8;
        }
    }
    return p - start;
}

static void coroutine_fn send_status(NbdWork *w, const uint32_t *ids, unsigned n_ids)
{
    unsigned max = w->req.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX;
    g_autofree NbdExtent *extents = g_new(NbdExtent, max);
    uint8_t *reply = NULL;
    size_t bytes = 0;

    for (unsigned i = 0; i < n_ids; i++) {
        int n = nbd_meta_status(w->client->exp, ids[i], w->req.offset, w->req.length, extents, max);

        if (n < 0) {
            g_free(reply);
            nbd_reply_errno(w, n, "the status of the range cannot be found out");
            return;
        }
        reply = g_realloc(reply, bytes + NBD_EXTENDED_CHUNK_BYTES + status_bytes(w, n));
        bytes += put_status(reply + bytes, w, i + 1 == n_ids, ids[i], extents, n);
    }
    nbd_reply_chunks(w, reply, bytes);
}

static void coroutine_fn do_block_status(NbdWork *w)
{
    NbdClient *c = w->client;
    g_autofree uint32_t *ids = NULL;
    const char *why;
    uint32_t error;
    unsigned n_ids;

    if (!(w->req.flags & NBD_CMD_FLAG_PAYLOAD_LEN)) {
        send_status(w, c->meta.ids, c->meta.n);
        return;
    }
    ids = g_new(uint32_t, NBD_MAX_STATUS_IDS);
    if (nbd_status_payload_validate(&w->req, w->buf.data, &c->terms, c->meta.ids, c->meta.n, ids,
                                    &n_ids, &error, &why) == NBD_DO) {
        send_status(w, ids, n_ids);
    } else {
        nbd_reply_error(w, error, why);
    }
}

/*
 * The receiver
 * ------------------------------------------------------------------------------------------
 */

static void coroutine_fn serve(void *opaque)
{
    static void coroutine_fn (*const commands[])(NbdWork *w) = {
        [NBD_CMD_READ] = do_read,
        [NBD_CMD_WRITE] = do_write,
        [NBD_CMD_FLUSH] = do_flush,
        [NBD_CMD_TRIM] = do_trim,
        [NBD_CMD_CACHE] = do_cache,
        [NBD_CMD_WRITE_ZEROES] = do_write_zeroes,
        [NBD_CMD_BLOCK_STATUS] = do_block_status,
    };
    NbdWork *w = opaque;

    commands[w->req.command](w);
}

/* Memory that a request needs for data, sooner or later. */
static uint64_t data_bytes(const NbdRequest *req)
{
    if (req->payload > 0) {
        return req->payload;
    }
    switch (req->command) {
    case NBD_CMD_READ:
        return req->length;
    case NBD_CMD_CACHE:
        return MIN(req->length, CACHE_PIECE_BYTES);
    default:
        return 0;
    }
}

static void coroutine_fn wait_for_room(NbdClient *c, uint64_t bytes)
{
    while (!nbd_work_has_room(c, bytes)) {
        c->gathering = false;
        nbd_send_flush(c);
        if (!nbd_work_has_room(c, bytes)) {
            c->receiver_waits = true;
            coroutine_yield();
        }
        c->gathering = true;
    }
}

/* Refuse a request: its payload is thrown away. False: the connection ends. */
static bool coroutine_fn refuse(NbdClient *c, const NbdRequest *req, uint32_t error,
                                const char *why)
{
    NbdWork *w;

    nbd_client_log(c, "refused %s at %" PRIu64 " of %" PRIu64 " bytes: %s",
                   nbd_command_name(req->command), req->offset, req->length, why);
    if (req->payload > 0 && nbd_receive_skip(c, req->payload) <= 0) {
        return false;
    }
    wait_for_room(c, 0);
    w = nbd_work_new(c, req, 0);
    nbd_reply_error(w, error, why);
    return true;
}

static bool coroutine_fn begin(NbdClient *c, const NbdRequest *req)
{
    uint64_t bytes = data_bytes(req);
    NbdWork *w;

    wait_for_room(c, bytes);
    w = nbd_work_new(c, req, bytes);
    if (req->payload > 0 && !nbd_work_alloc(w, req->payload)) {
        nbd_work_free(w);
        return refuse(c, req, NBD_ENOMEM, "there is not enough memory");
    }
    if (req->payload > 0 && nbd_receive(c, w->buf.data, req->payload) <= 0) {
        nbd_work_free(w);
        return false;
    }
    c->turn_requests++;
    coroutine_enter(coroutine_create(serve, w));
    return true;
}

/* Take one request. False: the connection ends. */
static bool coroutine_fn take_request(NbdClient *c)
{
    const uint8_t *header;
    const char *why;
    NbdRequest req;
    uint32_t error;
    int ret = nbd_receive_peek(c, nbd_request_bytes(c->terms.mode), &header);

    if (ret <= 0) {
        if (ret < 0) {
            nbd_client_log(c, "the connection broke");
        }
        return false;
    }
    if (!nbd_request_parse(header, c->terms.mode, &req)) {
        nbd_client_log(c, "a request has a wrong magic number");
        return false;
    }
    c->terms.size = nbd_export_size(c->exp);
    switch (nbd_request_validate(&req, &c->terms, &error, &why)) {
    case NBD_DO:
        return begin(c, &req);
    case NBD_REFUSE:
        return refuse(c, &req, error, why);
    default:
        if (why) {
            nbd_client_log(c, "refused %s of %" PRIu64 " bytes: %s", nbd_command_name(req.command),
                           req.payload, why);
        }
        return false;
    }
}

/* Either it does not read, or it has left us with more than can be done in that time. */
static void linger_ends(void *opaque)
{
    NbdClient *c = opaque;

    nbd_client_log(c, c->queue ? "the client does not read its replies"
                               : "the client has gone and its requests take too long");
    nbd_client_disconnect(c);
}

/* What is under way is finished and sent. */
static void coroutine_fn finish(NbdClient *c)
{
    AioTimer *timer = aio_timer_new(c->ctx, linger_ends, c);

    c->gathering = false;
    nbd_send_flush(c);
    aio_timer_mod(timer, aio_clock_ns() + LINGER_NS);
    while (c->in_flight > 0 || c->sending || c->flush_scheduled) {
        c->receiver_waits = true;
        coroutine_yield();
    }
    aio_timer_free(timer);
}

void coroutine_fn nbd_transmission(NbdClient *c)
{
    c->gathering = true;
    while (!c->broken && take_request(c)) {
    }
    finish(c);
}
