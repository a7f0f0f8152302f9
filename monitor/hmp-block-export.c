/*
 * HMP: the NBD server.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-c/json.h>

#include "io/socket-address.h"
#include "monitor/hmp.h"
#include "qapi/qapi-commands-block-export.h"

/* The older form of an address, as nbd-server-start takes it; the members stay @addr's. */
static void wrap(SocketAddressLegacy *legacy, SocketAddress *addr)
{
    legacy->type = addr->type;
    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        legacy->u.inet.data = &addr->u.inet;
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        legacy->u.q_unix.data = &addr->u.q_unix;
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        legacy->u.vsock.data = &addr->u.vsock;
        break;
    default:
        legacy->u.fd.data = &addr->u.fd;
        break;
    }
}

static int start(const char *uri, Error **errp)
{
    g_autoptr(SocketAddress) addr = socket_parse(uri, errp);
    SocketAddressLegacy legacy = { 0 };
    NbdServerOptionsLegacy opts = { .addr = &legacy };
    Error *err = NULL;

    if (!addr) {
        return -1;
    }
    wrap(&legacy, addr);
    qmp_nbd_server_start(&opts, &err);
    error_propagate(errp, err);
    return err ? -1 : 0;
}

static int export_device(const char *device, bool writable, Error **errp)
{
    NbdServerAddOptions opts = {
        .device = (char *)device, .has_writable = true, .writable = writable,
    };
    Error *err = NULL;

    qmp_nbd_server_add(&opts, &err);
    error_propagate(errp, err);
    return err ? -1 : 0;
}

/* Every block device that has an image. */
static int export_all(bool writable, Error **errp)
{
    struct json_object *devices = hmp_call_qmp("query-block", NULL, errp);
    int ret = devices ? 0 : -1;

    for (size_t i = 0; ret == 0 && i < json_object_array_length(devices); i++) {
        struct json_object *info = json_object_array_get_idx(devices, i), *device;

        if (json_object_object_get_ex(info, "inserted", NULL) &&
            json_object_object_get_ex(info, "device", &device) &&
            json_object_get_string_len(device) > 0) {
            ret = export_device(json_object_get_string(device), writable, errp);
        }
    }
    json_object_put(devices);
    return ret;
}

void hmp_nbd_server_start(Monitor *mon, HMPArgs *args)
{
    bool all = hmp_bool(args, "all", false), writable = hmp_bool(args, "writable", false);
    Error *err = NULL;

    if (writable && !all) {
        error_setg(&err, "-w only valid together with -a");
    } else if (start(hmp_str(args, "uri"), &err) == 0 && all && export_all(writable, &err) < 0) {
        qmp_nbd_server_stop(NULL);
    }
    hmp_handle_error(mon, err);
}

void hmp_nbd_server_add(Monitor *mon, HMPArgs *args)
{
    NbdServerAddOptions opts = {
        .device = (char *)hmp_str(args, "device"), .name = (char *)hmp_str(args, "name"),
        .has_writable = true, .writable = hmp_bool(args, "writable", false),
    };
    Error *err = NULL;

    qmp_nbd_server_add(&opts, &err);
    hmp_handle_error(mon, err);
}

void hmp_nbd_server_remove(Monitor *mon, HMPArgs *args)
{
    BlockExportRemoveMode mode = hmp_bool(args, "force", false) ? BLOCK_EXPORT_REMOVE_MODE_HARD
                                                                : BLOCK_EXPORT_REMOVE_MODE_SAFE;
    Error *err = NULL;

    qmp_nbd_server_remove(hmp_str(args, "name"), true, mode, &err);
    hmp_handle_error(mon, err);
}

void hmp_nbd_server_stop(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_nbd_server_stop(&err);
    hmp_handle_error(mon, err);
}
