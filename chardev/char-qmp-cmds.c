/*
 * The QMP commands of character devices.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "chardev/char-class.h"
#include "qapi/qapi-commands-char.h"
#include "qapi/util.h"

ChardevInfoList *qmp_query_chardev(Error **errp)
{
    g_autoptr(GPtrArray) all = chardev_list();
    ChardevInfoList *list = NULL, **tail = &list;

    for (guint i = 0; i < all->len; i++) {
        Chardev *chr = g_ptr_array_index(all, i);
        ChardevInfo *info = g_new0(ChardevInfo, 1);

        info->label = g_strdup(chr->id);
        info->filename = chardev_filename(chr);
        info->frontend_open = chr->fe != NULL;
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

ChardevBackendInfoList *qmp_query_chardev_backends(Error **errp)
{
    ChardevBackendInfoList *list = NULL, **tail = &list;

    for (int kind = 0; kind < CHARDEV_BACKEND_KIND__MAX; kind++) {
        ChardevBackendInfo *info = g_new0(ChardevBackendInfo, 1);

        info->name = g_strdup(ChardevBackendKind_str(kind));
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}

ChardevReturn *qmp_chardev_add(const char *id, ChardevBackend *backend, Error **errp)
{
    if (backend->type == CHARDEV_BACKEND_KIND_SOCKET && backend->u.socket.data->wait) {
        error_setg(errp, "'wait' is not possible here: the monitor would stop answering");
        return NULL;
    }

    Chardev *chr = chardev_new(id, backend, errp);
    if (!chr) {
        return NULL;
    }
    ChardevReturn *ret = g_new0(ChardevReturn, 1);
    if (backend->type == CHARDEV_BACKEND_KIND_PTY) {
        g_autofree char *filename = chardev_filename(chr);
        ret->pty = g_strdup(filename + strlen("pty:"));
    }
    return ret;
}

void qmp_chardev_remove(const char *id, Error **errp)
{
    chardev_delete(id, errp);
}
