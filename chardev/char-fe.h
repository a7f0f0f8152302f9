/*
 * The front end of a character device: what a serial port or a monitor holds.
 *
 * Input. The front end says by can_read how many bytes it takes now; not more are read from the
 * device and handed to read. When can_read has said 0, chr_fe_accept_input() makes it be asked
 * again. Nothing is read while there is no read handler.
 *
 * Output never waits. chr_fe_write() takes what the device takes at this moment; whoever wants to
 * write the rest later adds a watch. chr_fe_write_all() queues the rest up to a limit. While nobody
 * is connected (CHR_EVENT_CLOSED, or no CHR_EVENT_OPENED yet) output is taken and dropped, as by a
 * serial line without a cable.
 *
 * Threads: chr_fe_write(), chr_fe_write_all(), chr_fe_printf(), chr_fe_add_watch() and
 * chr_fe_accept_input() may be called from any thread, the others from the main thread. Handlers
 * run on the main thread, never from within one of these functions but for chr_fe_set_handlers()
 * and chr_fe_disconnect().
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CHARDEV_CHAR_FE_H
#define CHARDEV_CHAR_FE_H

#include <stdint.h>

#include "chardev/char.h"

typedef enum ChrEvent {
    CHR_EVENT_BREAK,    /* a break condition on the line */
    CHR_EVENT_OPENED,   /* somebody is connected */
    CHR_EVENT_MUX_IN,   /* this front end of a mux now has the terminal */
    CHR_EVENT_MUX_OUT,  /* another has it */
    CHR_EVENT_CLOSED,   /* nobody is connected any more */
} ChrEvent;

/* How many bytes the front end takes now. */
typedef int ChrCanReadHandler(void *opaque);
/* Here they are: at least 1, not more than can_read said. */
typedef void ChrReadHandler(void *opaque, const uint8_t *buf, int size);
typedef void ChrEventHandler(void *opaque, ChrEvent event);
/* Output is possible (G_IO_OUT) or pointless (G_IO_HUP); returns whether to keep the watch. */
typedef gboolean (*ChrWatchFunc)(void *unused, GIOCondition condition, void *opaque);

/* Embedded in its owner; zeroed, it is one without a device, on which all functions do nothing. */
typedef struct CharFrontend {
    Chardev *chr;
    ChrCanReadHandler *can_read;
    ChrReadHandler *read;
    ChrEventHandler *event;
    void *opaque;
} CharFrontend;

/* Connect @fe to @chr, which may be NULL; false with @errp set when another has it. */
bool chr_fe_init(CharFrontend *fe, Chardev *chr, Error **errp);
/* Disconnect; with @del the device is removed too. */
void chr_fe_deinit(CharFrontend *fe, bool del);

/*
 * Replace the handlers; each may be NULL. When somebody is connected already, @event is called with
 * CHR_EVENT_OPENED from here. On a mux this takes the terminal.
 */
void chr_fe_set_handlers(CharFrontend *fe, ChrCanReadHandler *can_read, ChrReadHandler *read,
                         ChrEventHandler *event, void *opaque);

/* Ask can_read again, soon, from the main loop. */
void chr_fe_accept_input(CharFrontend *fe);

/*
 * Write without waiting. Returns how many bytes were taken, possibly 0; -1 when the connection
 * broke, which CHR_EVENT_CLOSED will tell.
 */
int chr_fe_write(CharFrontend *fe, const void *buf, int len);
/*
 * Write all, queueing what the device does not take yet. Returns @len, or -1 when the connection
 * broke or the queue would pass its limit: then output is incomplete, and a front end whose output
 * must not have holes calls chr_fe_disconnect().
 */
int chr_fe_write_all(CharFrontend *fe, const void *buf, int len);
/* The limit of that queue in bytes; 1 MiB when never set. */
void chr_fe_set_output_limit(CharFrontend *fe, size_t bytes);
/* chr_fe_write_all() of a formatted text. */
int chr_fe_printf(CharFrontend *fe, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/*
 * Call @func from the main loop when @condition (G_IO_OUT; G_IO_HUP is implied) is true. Returns
 * the id of the source, for g_source_remove(); 0 when there is no device. A watch also fires, with
 * G_IO_HUP, when the connection ends, and at once when there is none.
 */
guint chr_fe_add_watch(CharFrontend *fe, GIOCondition condition, ChrWatchFunc func, void *opaque);

/* End the connection, if the device has such a thing: the client of a socket is closed. */
void chr_fe_disconnect(CharFrontend *fe);

/* Whether somebody is connected. */
bool chr_fe_backend_open(CharFrontend *fe);

/*
 * Take up to @num of the file descriptors that came with the last input which had any; they become
 * the caller's. Returns how many. Those not taken are closed when others come: take them while
 * handling the input, or read no further until then.
 */
int chr_fe_get_msgfds(CharFrontend *fe, int *fds, int num);
/* One of them, or -1. */
int chr_fe_get_msgfd(CharFrontend *fe);

#endif
