/*
 * The list of character devices, and what a device tells its front end.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "chardev/char-class.h"

#include <string.h>

#include "util/cutils.h"

static const ChardevClass *const classes[CHARDEV_BACKEND_KIND__MAX] = {
    [CHARDEV_BACKEND_KIND_FD] = &chardev_fd_class,
    [CHARDEV_BACKEND_KIND_FILE] = &chardev_file_class,
    [CHARDEV_BACKEND_KIND_MUX] = &chardev_mux_class,
    [CHARDEV_BACKEND_KIND_NULL] = &chardev_null_class,
    [CHARDEV_BACKEND_KIND_PIPE] = &chardev_pipe_class,
    [CHARDEV_BACKEND_KIND_PTY] = &chardev_pty_class,
    [CHARDEV_BACKEND_KIND_SOCKET] = &chardev_socket_class,
    [CHARDEV_BACKEND_KIND_STDIO] = &chardev_stdio_class,
};

/* In the order in which they were made: a mux stands behind its base. */
static GPtrArray *devices;

static void chardev_free(Chardev *chr)
{
    if (chr->fe) {
        chr->fe->chr = NULL;
    }
    if (chr->klass->close) {
        chr->klass->close(chr);
    }
    char_io_destroy(chr);
    g_free(chr->id);
    g_free(chr);
}

Chardev *chardev_find(const char *id)
{
    for (guint i = 0; devices && i < devices->len; i++) {
        Chardev *chr = g_ptr_array_index(devices, i);

        if (!strcmp(chr->id, id)) {
            return chr;
        }
    }
    return NULL;
}

Chardev *chardev_new(const char *id, const ChardevBackend *backend, Error **errp)
{
    const ChardevClass *klass = classes[backend->type];

    if (!id_wellformed(id)) {
        error_setg(errp, "Parameter 'id' expects an identifier, not '%s'", id);
        return NULL;
    }
    if (chardev_find(id)) {
        error_setg(errp, "Chardev with id '%s' already exists", id);
        return NULL;
    }

    Chardev *chr = g_malloc0(klass->size);
    chr->klass = klass;
    chr->id = g_strdup(id);
    char_io_init(chr);
    if (!klass->open(chr, backend, errp)) {
        chardev_free(chr);
        return NULL;
    }
    if (!devices) {
        devices = g_ptr_array_new();
    }
    g_ptr_array_add(devices, chr);
    return chr;
}

GPtrArray *chardev_list(void)
{
    return devices ? g_ptr_array_ref(devices) : g_ptr_array_new();
}

const char *chardev_id(Chardev *chr)
{
    return chr->id;
}

char *chardev_filename(Chardev *chr)
{
    return chr->klass->filename ? chr->klass->filename(chr)
                                : g_strdup(ChardevBackendKind_str(chr->klass->kind));
}

bool chardev_is_mux(Chardev *chr)
{
    return chr->klass == &chardev_mux_class;
}

bool chardev_delete(const char *id, Error **errp)
{
    Chardev *chr = chardev_find(id);

    if (!chr) {
        error_setg(errp, "Chardev '%s' not found", id);
        return false;
    }
    if (chr->fe) {
        error_setg(errp, "Chardev '%s' is busy", id);
        return false;
    }
    g_ptr_array_remove(devices, chr);
    chardev_free(chr);
    return true;
}

void chardev_cleanup(void)
{
    while (devices && devices->len) {
        chardev_free(g_ptr_array_steal_index(devices, devices->len - 1));
    }
    g_clear_pointer(&devices, g_ptr_array_unref);
}

/* The device's side -------------------------------------------------------------------------- */

int chr_be_can_write(Chardev *chr)
{
    CharFrontend *fe = chr->fe;

    return fe && fe->can_read && fe->read ? fe->can_read(fe->opaque) : 0;
}

void chr_be_write(Chardev *chr, const uint8_t *buf, int len)
{
    if (chr->fe && chr->fe->read) {
        chr->fe->read(chr->fe->opaque, buf, len);
    }
}

void chr_be_event(Chardev *chr, ChrEvent event)
{
    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        chr->be_open = event == CHR_EVENT_OPENED;
    }
    if (chr->fe && chr->fe->event) {
        chr->fe->event(chr->fe->opaque, event);
    }
}

