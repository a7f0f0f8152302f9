/*
 * What a node has with an NBD server: its connections, made again when they are lost, over which
 * commands are spread.
 *
 * A command that was under way when its connection was lost is sent again over another one. When
 * there is none, commands wait for the reconnect delay, counted from the loss, and then fail with
 * -EIO until there is a connection again; it is tried for as long as the session lives.
 *
 * Made, opened, moved and closed on the main thread, outside of coroutines. Commands: coroutines in
 * the session's context.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_NBD_SESSION_H
#define BLOCK_NBD_SESSION_H

#include "block/nbd-conn.h"
#include "qapi/qapi-types-sockets.h"

typedef struct NbdSession NbdSession;

/* All is copied. @context: the metadata context for block status. */
NbdSession *nbd_session_new(const SocketAddress *addr, const char *export_name,
                            const char *context);
void nbd_session_free(NbdSession *s);
/* Seconds. Holds from now on. */
void nbd_session_set_reconnect_delay(NbdSession *s, uint32_t seconds);

/*
 * Make the first connection, in @ctx, which stays the session's. A server that cannot be reached is
 * tried again for @timeout seconds. 0, or -1 with @errp set.
 */
int nbd_session_open(NbdSession *s, AioContext *ctx, uint32_t timeout, Error **errp);
/* Say goodbye. No command is under way. */
void nbd_session_close(NbdSession *s);
const NbdInfo *nbd_session_info(const NbdSession *s);

/* Leave the context, go on in another one. No command is under way. */
void nbd_session_detach(NbdSession *s);
void nbd_session_attach(NbdSession *s, AioContext *ctx);

/*
 * Between these somebody waits for the commands under way. Those that wait for a connection do so
 * for ten seconds at most, and a server that says nothing for half a minute is given up. In the
 * context's home.
 */
extern int64_t nbd_session_drain_reconnect_ns,
    nbd_session_drain_silence_ns; /* tests shorten them */
void nbd_session_drain_begin(NbdSession *s);
void nbd_session_drain_end(NbdSession *s);

/* Do it. 0, or a negative errno: the server's, or -EIO. */
int coroutine_fn nbd_session_co_command(NbdSession *s, NbdCommand *cmd);

#endif
