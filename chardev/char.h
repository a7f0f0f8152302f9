/*
 * Character devices: the host's side of a serial port, a monitor, a qtest connection.
 *
 * A Chardev is made from an option or over QMP, has an id, and is looked up by it. What uses it is
 * a front end (char-fe.h); a device has at most one, a mux several.
 *
 * Everything here belongs to the main thread. All events and input come from the default
 * GMainContext, which is the main loop, so they run with the big lock held where there is one.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CHARDEV_CHAR_H
#define CHARDEV_CHAR_H

#include <glib.h>
#include <stdbool.h>

#include "qapi/qapi-types-char.h"
#include "util/error.h"

typedef struct Chardev Chardev;

/*
 * Make a device called @id. One that listens with `wait` returns after its first client has come.
 * It belongs to the list of devices. NULL with @errp set.
 */
Chardev *chardev_new(const char *id, const ChardevBackend *backend, Error **errp);

/*
 * From the argument of -chardev: KIND,id=ID[,mux=on][,OPTIONS], with the kinds and options
 *     null   stdio[,signal=on|off]   pty   file,path=P[,append=on]   pipe,path=P   fd,fd=N
 *     socket,path=P[,abstract=on][,tight=off]      socket,fd=N      socket,host=H,port=P[,to=P]
 *         [,ipv4=..][,ipv6=..][,server=on[,wait=off]][,nodelay=on][,reconnect=SECONDS]
 * With mux=on ID is a mux over the device, which then is ID-base. NULL with @errp set.
 */
Chardev *chardev_new_from_opts(const char *optarg, Error **errp);

/*
 * chardev_new_legacy:
 * @id: the id of a new device
 * @spec: as in -serial and -monitor: null, stdio, pty, file:PATH, pipe:PATH, fd:N,
 *     unix:PATH[,OPTIONS], tcp:[HOST]:PORT[,OPTIONS], chardev:ID for one that exists, none;
 *     mon: before it when @permit_mon_mux
 * @permit_mon_mux: whether mon: is taken: the result is a mux for serial port and monitor, and with
 *     stdio Ctrl-C is input like any other
 *
 * Returns: the device; NULL with @errp set; NULL without an error for none.
 */
Chardev *chardev_new_legacy(const char *id, const char *spec, bool permit_mon_mux, Error **errp);

/* The device with that id, or NULL. */
Chardev *chardev_find(const char *id);
const char *chardev_id(Chardev *chr);
/* What it is at this moment, as in ChardevInfo; g_free() it. */
char *chardev_filename(Chardev *chr);
bool chardev_is_mux(Chardev *chr);

/* Remove a device that has no front end; false with @errp set. */
bool chardev_delete(const char *id, Error **errp);
/* At the end of the program: remove all, whether used or not; the terminal becomes what it was. */
void chardev_cleanup(void);

/*
 * From now on a front end that is connected to the mux @chr waits in the background when another
 * has the terminal, instead of taking it.
 */
void chardev_mux_keep_focus(Chardev *chr);
/* From now on stdio is refused: the process will not keep the terminal. */
void chardev_stdio_refuse(void);
/* What Ctrl-A x does on a mux; without one it does nothing. */
void chardev_mux_set_quit_handler(void (*quit)(void));

#endif
