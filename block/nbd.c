/*
 * The driver `nbd`: an export of an NBD server, through libnbd.
 *
 * This file is the node: options, limits, and from requests to commands. Connections are in
 * nbd-session.c and nbd-conn.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

#include "block/driver.h"
#include "block/drivers.h"
#include "block/nbd-session.h"
#include "io/socket-address.h"

#define PERM_MODIFY (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)
#define STRING_MAX 4096                         /* of names in the protocol */
#define PAYLOAD_MAX_BYTES (32 * 1024 * 1024)    /* what every server takes */
#define EXTENT_MAX_BYTES (INT64_C(2) << 30)     /* block status: lengths have 32 bits */

/* Flags of extents in the context base:allocation. */
#define STATE_HOLE 1
#define STATE_ZERO 2

typedef struct NbdState {
    NbdSession *session;
    bool other_context;         /* x-dirty-bitmap: what is set there is data */
} NbdState;

static const NbdInfo *info_of(BlockDriverState *bs)
{
    NbdState *s = bs->opaque;

    return nbd_session_info(s->session);
}

/*
 * Opening
 * -------------------------------------------------------------------------------------------------
 */

static const char *context_of(const BlockdevOptionsNbd *o)
{
    return o->x_dirty_bitmap ? o->x_dirty_bitmap : LIBNBD_CONTEXT_BASE_ALLOCATION;
}

static int check_options(const BlockdevOptionsNbd *o, Error **errp)
{
    if (o->export && strlen(o->export) > STRING_MAX) {
        error_setg(errp, "export name too long to send to server");
        return -1;
    }
    if (o->x_dirty_bitmap && (!*o->x_dirty_bitmap || strlen(o->x_dirty_bitmap) > STRING_MAX)) {
        error_setg(errp, "x-dirty-bitmap must have 1 to %d bytes", STRING_MAX);
        return -1;
    }
    return 0;
}

/*
 * "nbd://HOST:PORT/NAME", "nbd+unix:///NAME?socket=PATH": names that other programs take as well.
 */
static char *make_filename(const BlockdevOptionsNbd *o)
{
    const SocketAddress *addr = o->server;
    g_autofree char *name = g_uri_escape_string(o->export ? o->export : "", "/", false);
    g_autofree char *place = NULL;

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_UNIX:
        place = g_uri_escape_string(addr->u.q_unix.path, "/", false);
        return g_strdup_printf("nbd+unix:///%s?socket=%s", name, place);
    case SOCKET_ADDRESS_TYPE_VSOCK:
        return g_strdup_printf("nbd+vsock://%s:%s/%s", addr->u.vsock.cid, addr->u.vsock.port, name);
    case SOCKET_ADDRESS_TYPE_FD:
        return g_strdup_printf("nbd:fd:%s", addr->u.fd.str);
    default:
        place = socket_describe(addr);
        return g_strdup_printf("nbd://%s/%s", place, name);
    }
}

static int check_export(BlockDriverState *bs, const BlockdevOptionsNbd *o, Error **errp)
{
    const NbdInfo *info = info_of(bs);

    if (o->x_dirty_bitmap && !info->has_context) {
        error_setg(errp, "NBD server lacks the metadata context '%s' for export '%s'",
                   o->x_dirty_bitmap, o->export ? o->export : "");
        return -1;
    }
    if (!bs->read_only && info->read_only) {
        if (!bs->auto_read_only) {
            error_setg(errp, "The NBD server offers export '%s' read-only",
                       o->export ? o->export : "");
            return -1;
        }
        bs->read_only = true;
    }
    return 0;
}

static void set_flags(BlockDriverState *bs)
{
    const NbdInfo *info = info_of(bs);
    BdrvRequestFlags fua = info->can_fua ? BDRV_REQ_FUA : 0;

    bs->supported_write_flags = fua;
    if (info->can_zero) {
        bs->supported_zero_flags = fua | BDRV_REQ_MAY_UNMAP |
                                   (info->can_fast_zero ? BDRV_REQ_NO_FALLBACK : 0);
    }
}

static int nbd_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsNbd *o = &opts->u.nbd;
    NbdState *s = bs->opaque;

    if (check_options(o, errp) < 0) {
        return -1;
    }
    s->session = nbd_session_new(o->server, o->export ? o->export : "", context_of(o));
    s->other_context = o->x_dirty_bitmap;
    nbd_session_set_reconnect_delay(s->session, o->has_reconnect_delay ? o->reconnect_delay : 0);
    if (nbd_session_open(s->session, bs->aio_context, o->has_open_timeout ? o->open_timeout : 0,
                         errp) < 0) {
        nbd_session_free(s->session);
        return -1;
    }
    if (check_export(bs, o, errp) < 0) {
        nbd_session_close(s->session);
        nbd_session_free(s->session);
        return -1;
    }
    set_flags(bs);
    bs->filename = make_filename(o);
    bs->total_bytes = info_of(bs)->size;
    return 0;
}

static void nbd_driver_close(BlockDriverState *bs)
{
    NbdState *s = bs->opaque;

    nbd_session_close(s->session);
    nbd_session_free(s->session);
}

/*
 * A server that says nothing of block sizes gets what the protocol's document advises for that
 * case.
 */
static void nbd_refresh_limits(BlockDriverState *bs)
{
    const NbdInfo *info = info_of(bs);
    uint32_t min = info->min_block                  ? info->min_block
                   : info->size % BDRV_SECTOR_BYTES ? 1
                                                    : BDRV_SECTOR_BYTES;
    uint32_t max = info->max_block ? MIN(info->max_block, PAYLOAD_MAX_BYTES) : PAYLOAD_MAX_BYTES;

    bs->bl.request_alignment = min;
    bs->bl.max_transfer = bs->bl.max_pwrite_zeroes = MAX(max / min * min, min);
    bs->bl.max_pdiscard = BDRV_REQUEST_MAX_BYTES;
    bs->bl.opt_transfer = info->preferred_block > min ? info->preferred_block : 0;
}

static int nbd_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp)
{
    if (perm & PERM_MODIFY && info_of(bs)->read_only) {
        error_setg(errp, "The NBD server offers '%s' read-only", bs->filename);
        return -1;
    }
    return 0;
}

static void nbd_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    if (perm & PERM_MODIFY) {
        bs->read_only = false;
    }
}

/* Opening anew: what the connection is to may not change. */
static int nbd_reopen_prepare(BdrvReopenState *state, Error **errp)
{
    const BlockdevOptionsNbd *o = &state->options->u.nbd, *was = &state->bs->options->u.nbd;
    g_autofree char *name = make_filename(o), *old_name = make_filename(was);

    if (strcmp(name, old_name) != 0) {
        error_setg(errp, "Cannot change the server or export of node '%s'",
                   bdrv_get_node_name(state->bs));
        return -1;
    }
    if (strcmp(context_of(o), context_of(was)) != 0) {
        error_setg(errp, "Cannot change the option 'x-dirty-bitmap' of node '%s'",
                   bdrv_get_node_name(state->bs));
        return -1;
    }
    if (!state->read_only && info_of(state->bs)->read_only) {
        if (!state->auto_read_only) {
            error_setg(errp, "The NBD server offers '%s' read-only", state->bs->filename);
            return -1;
        }
        state->read_only = true;
    }
    return 0;
}

static void nbd_reopen_commit(BdrvReopenState *state)
{
    const BlockdevOptionsNbd *o = &state->options->u.nbd;
    NbdState *s = state->bs->opaque;

    nbd_session_set_reconnect_delay(s->session, o->has_reconnect_delay ? o->reconnect_delay : 0);
}

/*
 * Contexts and drains
 * -----------------------------------------------------------------------------------------
 */

static void nbd_detach_aio_context(BlockDriverState *bs)
{
    NbdState *s = bs->opaque;

    nbd_session_detach(s->session);
}

static void nbd_attach_aio_context(BlockDriverState *bs, AioContext *ctx)
{
    NbdState *s = bs->opaque;

    nbd_session_attach(s->session, ctx);
}

static void drain_begin_at_home(void *opaque)
{
    BlockDriverState *bs = opaque;
    NbdState *s = bs->opaque;

    nbd_session_drain_begin(s->session);
    bdrv_dec_in_flight(bs);
}

static void drain_end_at_home(void *opaque)
{
    BlockDriverState *bs = opaque;
    NbdState *s = bs->opaque;

    nbd_session_drain_end(s->session);
    bdrv_dec_in_flight(bs);
}

/* They are counted until they have happened, so that nothing goes away under them. */
static void nbd_drain_begin(BlockDriverState *bs)
{
    bdrv_inc_in_flight(bs);
    aio_bh_schedule_oneshot(bs->aio_context, drain_begin_at_home, bs);
}

static void nbd_drain_end(BlockDriverState *bs)
{
    bdrv_inc_in_flight(bs);
    aio_bh_schedule_oneshot(bs->aio_context, drain_end_at_home, bs);
}

/*
 * Requests
 * -------------------------------------------------------------------------------------------------
 */

static int coroutine_fn command(BlockDriverState *bs, NbdCommand *cmd)
{
    NbdState *s = bs->opaque;

    return nbd_session_co_command(s->session, cmd);
}

/*
 * The part of the vector when it lies in one piece, else NULL: libnbd takes flat buffers.
 */
static void *flat_part(const IOVector *v, size_t offset, size_t bytes)
{
    for (unsigned i = 0; i < v->niov; i++) {
        if (offset < v->iov[i].iov_len) {
            return bytes <= v->iov[i].iov_len - offset ? (char *)v->iov[i].iov_base + offset : NULL;
        }
        offset -= v->iov[i].iov_len;
    }
    return NULL;
}

static int coroutine_fn nbd_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                      IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    void *flat = flat_part(qiov, qiov_offset, bytes), *bounce = NULL;
    NbdCommand cmd = { .type = NBD_COMMAND_READ, .offset = offset, .bytes = bytes };
    int ret;

    if (!flat) {
        bounce = bdrv_try_blockalign(bs, bytes);
        if (!bounce) {
            return -ENOMEM;
        }
    }
    cmd.buf = flat ? flat : bounce;
    ret = command(bs, &cmd);
    if (ret == 0 && bounce) {
        iovector_from_buf(qiov, qiov_offset, bounce, bytes);
    }
    free(bounce);
    return ret;
}

static int coroutine_fn nbd_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags)
{
    void *flat = flat_part(qiov, qiov_offset, bytes), *bounce = NULL;
    NbdCommand cmd = {
        .type = NBD_COMMAND_WRITE, .offset = offset, .bytes = bytes,
        .flags = flags & BDRV_REQ_FUA ? LIBNBD_CMD_FLAG_FUA : 0,
    };
    int ret;

    if (!flat) {
        bounce = bdrv_try_blockalign(bs, bytes);
        if (!bounce) {
            return -ENOMEM;
        }
        iovector_to_buf(qiov, qiov_offset, bounce, bytes);
    }
    cmd.buf = flat ? flat : bounce;
    ret = command(bs, &cmd);
    free(bounce);
    return ret;
}

static int coroutine_fn nbd_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    NbdCommand cmd = {
        .type = NBD_COMMAND_ZERO, .offset = offset, .bytes = bytes,
        .flags = (flags & BDRV_REQ_FUA ? LIBNBD_CMD_FLAG_FUA : 0) |
                 (flags & BDRV_REQ_MAY_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE) |
                 (flags & BDRV_REQ_NO_FALLBACK ? LIBNBD_CMD_FLAG_FAST_ZERO : 0),
    };

    return info_of(bs)->can_zero ? command(bs, &cmd) : -ENOTSUP;
}

static int coroutine_fn nbd_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    NbdCommand cmd = { .type = NBD_COMMAND_TRIM, .offset = offset, .bytes = bytes };

    return info_of(bs)->can_trim ? command(bs, &cmd) : -ENOTSUP;
}

static int coroutine_fn nbd_co_flush(BlockDriverState *bs)
{
    NbdCommand cmd = { .type = NBD_COMMAND_FLUSH };

    return info_of(bs)->can_flush ? command(bs, &cmd) : 0;
}

/* What is not known to read as zeroes is data, holes of unknown content too. */
static int status_of_extent(const NbdState *s, uint32_t flags)
{
    if (s->other_context) {
        return flags ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO;
    }
    if (!(flags & STATE_ZERO)) {
        return BDRV_BLOCK_DATA;
    }
    return BDRV_BLOCK_ZERO | (flags & STATE_HOLE ? 0 : BDRV_BLOCK_DATA);
}

static int coroutine_fn nbd_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                            int64_t bytes, int64_t *pnum, int64_t *map,
                                            BlockDriverState **file)
{
    NbdState *s = bs->opaque;
    NbdCommand cmd = {
        .type = NBD_COMMAND_BLOCK_STATUS, .offset = offset, .bytes = MIN(bytes, EXTENT_MAX_BYTES),
        .flags = LIBNBD_CMD_FLAG_REQ_ONE,
    };
    int ret;

    *map = offset;
    *file = bs;
    *pnum = bytes;
    if (!info_of(bs)->has_context || !want_zero) {
        return BDRV_BLOCK_DATA | BDRV_BLOCK_OFFSET_VALID;
    }
    ret = command(bs, &cmd);
    if (ret < 0) {
        return ret;
    }
    if (cmd.extent_bytes == 0) {
        /* It said nothing of the context that it had agreed to. */
        return -EIO;
    }
    *pnum = MIN(bytes, (int64_t)cmd.extent_bytes);
    return status_of_extent(s, cmd.extent_flags) | BDRV_BLOCK_OFFSET_VALID;
}

static int coroutine_fn nbd_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                        PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    if (offset > bs->total_bytes) {
        error_setg(errp, "Cannot grow NBD nodes");
        return -EINVAL;
    }
    if (exact && offset != bs->total_bytes) {
        error_setg(errp, "Cannot resize NBD nodes");
        return -ENOTSUP;
    }
    return 0;
}

const BlockDriver bdrv_nbd = {
    .format_name = "nbd",
    .driver = BLOCKDEV_DRIVER_NBD,
    .instance_size = sizeof(NbdState),
    .open = nbd_open,
    .close = nbd_driver_close,
    .refresh_limits = nbd_refresh_limits,
    .check_perm = nbd_check_perm,
    .set_perm = nbd_set_perm,
    .reopen_prepare = nbd_reopen_prepare,
    .reopen_commit = nbd_reopen_commit,
    .detach_aio_context = nbd_detach_aio_context,
    .attach_aio_context = nbd_attach_aio_context,
    .drain_begin = nbd_drain_begin,
    .drain_end = nbd_drain_end,
    .co_preadv = nbd_co_preadv,
    .co_pwritev = nbd_co_pwritev,
    .co_pwrite_zeroes = nbd_co_pwrite_zeroes,
    .co_pdiscard = nbd_co_pdiscard,
    .co_flush_to_disk = nbd_co_flush,
    .co_block_status = nbd_co_block_status,
    .co_truncate = nbd_co_truncate,
};
