/*
 * ferry-nbd --list: what another server exports.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_FERRY_NBD_LIST_H
#define TOOLS_FERRY_NBD_LIST_H

#include "qapi/qapi-types-sockets.h"
#include "util/error.h"

/* Print all exports of the server at @addr, qemu-nbd's layout. 0, or -1 with @errp set. */
int nbd_tool_list(const SocketAddress *addr, Error **errp);

#endif
