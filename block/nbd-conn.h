/*
 * One connection to an NBD server, through libnbd.
 *
 * libnbd is a state machine that is told when its socket is readable or writable. A connection has
 * it told by the AioContext that it is attached to, and lets coroutines wait for the completion of
 * commands, many at a time.
 *
 * All of this happens in the home of the context that the connection is attached to.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_NBD_CONN_H
#define BLOCK_NBD_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/aio.h"
#include "util/error.h"

typedef struct NbdConn NbdConn;

/* What the server said of the export. */
typedef struct NbdInfo {
    int64_t size;
    /* Bytes; what the server did not say is 0. The first two are powers of two. */
    uint32_t min_block, preferred_block, max_block;
    bool read_only, can_flush, can_fua, can_trim, can_zero, can_fast_zero, can_multi_conn;
    bool has_context;           /* block status in the context that was asked for */
} NbdInfo;

typedef enum NbdCommandType {
    NBD_COMMAND_READ,
    NBD_COMMAND_WRITE,
    NBD_COMMAND_FLUSH,
    NBD_COMMAND_TRIM,
    NBD_COMMAND_ZERO,
    NBD_COMMAND_BLOCK_STATUS,
} NbdCommandType;

typedef struct NbdCommand {
    NbdCommandType type;
    uint32_t flags;             /* LIBNBD_CMD_FLAG_* */
    uint64_t offset, bytes;
    void *buf;                  /* READ, WRITE */
    /* BLOCK_STATUS: the first extent that the server told; @extent_bytes 0: none. */
    uint64_t extent_bytes;
    uint32_t extent_flags;
} NbdCommand;

/*
 * nbd_conn_co_open:
 * @fd: a connected socket; taken over in any case
 * @export_name: the export; @context: the metadata context to ask for
 * @timeout_ns: how long the handshake may take
 * @abort_slot: while the handshake runs the connection is put here, for nbd_conn_abort()
 *
 * Returns: a connection, attached to the coroutine's context; NULL with @errp set.
 */
NbdConn *coroutine_fn nbd_conn_co_open(int fd, const char *export_name, const char *context,
                                       int64_t timeout_ns, NbdConn **abort_slot, Error **errp);
const NbdInfo *nbd_conn_info(const NbdConn *conn);

/* Say goodbye if the server is there, and free it. No command is under way. */
void nbd_conn_close(NbdConn *conn);

/*
 * Call @fn once when the connection breaks, after all commands have ended. It may close the
 * connection.
 */
void nbd_conn_on_lost(NbdConn *conn, void (*fn)(NbdConn *conn, void *opaque), void *opaque);
/* Break it now: every command ends with -ENOTCONN, a handshake fails. */
void nbd_conn_abort(NbdConn *conn, const char *why);
/* Whether it is broken, also when on_lost is yet to be called. */
bool nbd_conn_is_lost(const NbdConn *conn);
/* Why it broke. */
const char *nbd_conn_reason(const NbdConn *conn);

/* Leave the context; then, in another one's home, go on there. */
void nbd_conn_detach(NbdConn *conn);
void nbd_conn_attach(NbdConn *conn, AioContext *ctx);

/*
 * Do a command. @cmd and its buffer stay in place until this returns.
 * Returns: 0, or a negative errno: the server's, -ENOTCONN when the connection broke.
 */
int coroutine_fn nbd_conn_co_command(NbdConn *conn, NbdCommand *cmd);
unsigned nbd_conn_in_flight(const NbdConn *conn);
/* When bytes last arrived, of aio_clock_ns(). */
int64_t nbd_conn_last_activity_ns(const NbdConn *conn);

#endif
