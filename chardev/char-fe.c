/*
 * Front ends of character devices: thin, because a device does its own work and only a mux does it
 * otherwise.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "chardev/char-fe.h"

#include <stdarg.h>
#include <string.h>

#include "chardev/char-class.h"

bool chr_fe_init(CharFrontend *fe, Chardev *chr, Error **errp)
{
    memset(fe, 0, sizeof(*fe));
    if (!chr) {
        return true;
    }
    if (chr->klass->attach) {
        if (!chr->klass->attach(chr, fe, errp)) {
            return false;
        }
    } else if (chr->fe) {
        error_setg(errp, "Chardev '%s' is in use", chr->id);
        return false;
    } else {
        chr->fe = fe;
    }
    fe->chr = chr;
    return true;
}

void chr_fe_deinit(CharFrontend *fe, bool del)
{
    Chardev *chr = fe->chr;

    if (!chr) {
        return;
    }
    chr_fe_set_handlers(fe, NULL, NULL, NULL, NULL);
    fe->chr = NULL;
    if (chr->klass->detach) {
        chr->klass->detach(chr, fe);
    } else {
        chr->fe = NULL;
    }
    if (del) {
        chardev_delete(chr->id, NULL);
    }
}

void chr_fe_set_handlers(CharFrontend *fe, ChrCanReadHandler *can_read, ChrReadHandler *read,
                         ChrEventHandler *event, void *opaque)
{
    fe->can_read = can_read;
    fe->read = read;
    fe->event = event;
    fe->opaque = opaque;
    if (!fe->chr) {
        return;
    }
    if (fe->chr->klass->handlers_set) {
        fe->chr->klass->handlers_set(fe->chr, fe);
    }
    if (event && fe->chr->be_open) {
        event(opaque, CHR_EVENT_OPENED);
    }
    chr_fe_accept_input(fe);
}

void chr_fe_accept_input(CharFrontend *fe)
{
    if (fe->chr) {
        char_io_kick(fe->chr);
    }
}

static int fe_write(CharFrontend *fe, const void *buf, int len, bool all)
{
    Chardev *chr = fe->chr;

    if (!chr || len <= 0) {
        return len;
    }
    return chr->klass->write ? chr->klass->write(chr, fe, buf, len, all)
                             : char_io_write(chr, buf, len, all);
}

int chr_fe_write(CharFrontend *fe, const void *buf, int len)
{
    return fe_write(fe, buf, len, false);
}

int chr_fe_write_all(CharFrontend *fe, const void *buf, int len)
{
    return fe_write(fe, buf, len, true);
}

void chr_fe_set_output_limit(CharFrontend *fe, size_t bytes)
{
    if (fe->chr) {
        pthread_mutex_lock(&fe->chr->lock);
        fe->chr->queue_limit_bytes = bytes;
        pthread_mutex_unlock(&fe->chr->lock);
    }
}

int chr_fe_printf(CharFrontend *fe, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return chr_fe_write_all(fe, text, strlen(text));
}

guint chr_fe_add_watch(CharFrontend *fe, GIOCondition condition, ChrWatchFunc func, void *opaque)
{
    Chardev *chr = fe->chr;

    if (!chr) {
        return 0;
    }
    return chr->klass->add_watch ? chr->klass->add_watch(chr, condition, func, opaque)
                                 : char_io_add_watch(chr, condition, func, opaque);
}

void chr_fe_disconnect(CharFrontend *fe)
{
    /* A mux is not one front end's to end. */
    if (fe->chr && fe->chr->klass->hangup && fe->chr->be_open) {
        fe->chr->klass->hangup(fe->chr);
    }
}

bool chr_fe_backend_open(CharFrontend *fe)
{
    return fe->chr && fe->chr->be_open;
}

int chr_fe_get_msgfds(CharFrontend *fe, int *fds, int num)
{
    Chardev *chr = fe->chr;
    int n = chr ? MIN((size_t)MAX(num, 0), chr->n_msgfds) : 0;

    if (n) {
        memcpy(fds, chr->msgfds, n * sizeof(int));
        chr->n_msgfds -= n;
        memmove(chr->msgfds, chr->msgfds + n, chr->n_msgfds * sizeof(int));
    }
    return n;
}

int chr_fe_get_msgfd(CharFrontend *fe)
{
    int fd = -1;

    return chr_fe_get_msgfds(fe, &fd, 1) ? fd : -1;
}
