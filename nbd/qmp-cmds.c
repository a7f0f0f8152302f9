/*
 * The commands of the NBD server.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "io/socket-address.h"
#include "nbd/export.h"
#include "nbd/server.h"
#include "qapi/qapi-commands-block-export.h"

void qmp_nbd_server_start(NbdServerOptionsLegacy *opts, Error **errp)
{
    g_autoptr(SocketAddress) addr = socket_address_flatten(opts->addr);
    NbdServerConfig config = {
        .addr = addr,
        .handshake_max_seconds = opts->has_handshake_max_seconds ? opts->handshake_max_seconds
                                                                 : NBD_DEFAULT_HANDSHAKE_SECONDS,
        .max_connections = opts->has_max_connections ? opts->max_connections
                                                     : NBD_DEFAULT_MAX_CONNECTIONS,
    };

    nbd_server_start(&config, errp);
}

void qmp_nbd_server_stop(Error **errp)
{
    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
        return;
    }
    nbd_server_stop();
}

void qmp_nbd_server_add(NbdServerAddOptions *arg, Error **errp)
{
    BlockDriverState *bs = bdrv_lookup(arg->device, errp);
    BlockDirtyBitmapOrStr bitmap = { .type = QTYPE_QSTRING, .u.local = arg->bitmap };
    BlockDirtyBitmapOrStrList bitmaps = { .value = &bitmap };
    char *name = arg->name ? arg->name : arg->device;
    BlockExportOptions opts = {
        .type = BLOCK_EXPORT_TYPE_NBD,
        .id = name,
        .node_name = arg->device,
        .has_writable = true,
        .u.nbd = {
            .name = name, .description = arg->description,
            .has_bitmaps = arg->bitmap, .bitmaps = &bitmaps,
        },
    };

    if (!bs) {
        return;
    }
    /* This command, other than block-export-add, gives what there is. */
    opts.writable = arg->has_writable && arg->writable && !bdrv_is_read_only(bs);
    block_export_add(&opts, BLK_PERM_ALL, errp);
}

void qmp_nbd_server_remove(const char *name, bool has_mode, BlockExportRemoveMode mode,
                           Error **errp)
{
    NbdExport *exp;

    if (!nbd_server_is_running()) {
        error_setg(errp, "NBD server not running");
        return;
    }
    exp = nbd_export_find(name, strlen(name));
    if (!exp) {
        error_setg(errp, "Export '%s' is not found", name);
        return;
    }
    block_export_remove(&exp->common, has_mode ? mode : BLOCK_EXPORT_REMOVE_MODE_SAFE, errp);
}
