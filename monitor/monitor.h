/*
 * Monitors: where programs (QMP) and people (HMP) talk to the machine.
 *
 * A monitor sits on a character device and serves one client at a time; when the client goes and
 * another comes, the session begins anew. Any number of monitors may exist.
 *
 * Commands run on the main thread with the big lock held. While one runs, monitor_cur() is the
 * monitor that it came from.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include <stdarg.h>
#include <stdbool.h>
#include "monitor/fds.h"
#include "qapi/dispatch.h"
#include "qapi/qapi-types-control.h"
#include "util/error.h"

typedef struct Monitor Monitor;

/* Every command of the schema; filled by monitor_init_globals(). */
extern QmpCommandList qmp_commands;

/*
 * Once, at program start, before any monitor and any thread: registers commands, the emitter of
 * events, and the keepers of file descriptors (io/fd-resolver.h).
 */
void monitor_init_globals(void);
/*
 * At program end, with the big lock held: what monitors still have to send is sent as far as their
 * clients take it at once; then all are closed.
 */
void monitor_cleanup(void);

/*
 * monitor_init:
 * @opts: what -mon says; the character device must exist and have no other user
 * @errp: where an error goes
 *
 * Returns: true; or false with @errp set, and the device as it was.
 */
bool monitor_init(MonitorOptions *opts, Error **errp);

/*
 * monitor_init_opts:
 * @text: the argument of -mon: [chardev=]ID[,mode=readline|control][,pretty=on|off][,id=NAME]
 */
bool monitor_init_opts(const char *text, Error **errp);

/*
 * monitor_init_device:
 * @device: the argument of -monitor, -qmp or -qmp-pretty: a character device in the short spelling,
 *     e.g. stdio, pty, unix:PATH,server=on,wait=off, tcp:HOST:PORT; chardev:ID for one that exists;
 *     none for no monitor
 * @mode: the kind of monitor
 * @pretty: for QMP
 *
 * Creates the device, with the name compat_monitorN, and a monitor on it.
 */
bool monitor_init_device(const char *device, MonitorMode mode, bool pretty, Error **errp);

/* The monitor whose command runs in this thread; NULL when none does. */
Monitor *monitor_cur(void);
bool monitor_cur_is_qmp(void);

/*
 * Print on an HMP monitor; nothing happens when @mon is NULL or a QMP monitor. "\n" becomes "\r\n".
 * Main thread.
 */
int monitor_printf(Monitor *mon, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
int monitor_vprintf(Monitor *mon, const char *fmt, va_list ap) G_GNUC_PRINTF(2, 0);
void monitor_puts(Monitor *mon, const char *text);

/*
 * Take the file descriptor @name that getfd keeps for @mon's client; the caller owns it.
 * Returns: -1 with @errp set when there is none.
 */
int monitor_get_fd(Monitor *mon, const char *name, Error **errp);
/* The same to look at: it stays the client's. */
int monitor_peek_fd(Monitor *mon, const char *name, Error **errp);

#endif
