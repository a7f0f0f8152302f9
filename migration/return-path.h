/*
 * The return path: what a destination tells the source on the main channel. Each message is a
 * big-endian u16 type, a u16 length and the data.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RETURN_PATH_H
#define MIGRATION_RETURN_PATH_H

#include "io/channel.h"

enum {
    MIG_RP_SHUT = 1,            /* u32: 0 everything is loaded, else it failed */
    MIG_RP_PONG = 2,            /* u32 of the ping */
    MIG_RP_REQ_PAGES = 3,
    MIG_RP_REQ_PAGES_ID = 4,
    MIG_RP_RECV_BITMAP = 5,
    MIG_RP_RESUME_ACK = 6,
    MIG_RP_SWITCHOVER_ACK = 7,
    /*
     * Ferry's own: why loading failed, UTF-8 without NUL, before the SHUT. A source that does not
     * know it gives up, which is what it is about to do anyway.
     */
    MIG_RP_ERROR_TEXT = 0xf001,
};
#define MIG_RP_TEXT_MAX 1024

/* Destination. */
int return_path_send(QIOChannel *ioc, uint16_t type, const void *data, uint16_t len, Error **errp);

/*
 * Source: read messages until SHUT, the end of the stream or a message that makes no sense. Returns
 * 0 when the destination confirmed, -1 with @errp set to its reason or ours.
 */
int return_path_wait_shut(QIOChannel *ioc, Error **errp);
/*
 * Source, when a write failed: the reason, if the destination has sent one already, else NULL. Does
 * not wait. The caller owns it.
 */
Error *return_path_reason(QIOChannel *ioc);

#endif
