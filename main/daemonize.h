/*
 * -daemonize and -pidfile: how the process goes into the background and leaves its number behind.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MAIN_DAEMONIZE_H
#define MAIN_DAEMONIZE_H

#include "util/error.h"

/*
 * Continue in a child process, in a session of its own. The parent waits for daemonize_finish() and
 * exits with status 0; when the child ends before, with status 1: the child has told the reason on
 * the standard error that both still share. Before any thread is started.
 */
int daemonize_begin(Error **errp);
/* The machine stands: let the parent go, change to /, standard streams to /dev/null. */
int daemonize_finish(Error **errp);

/*
 * Create @path, lock it for the life of the process, and write the process id into it; it is
 * removed at exit. Fails when another process holds the lock.
 */
int pidfile_create(const char *path, Error **errp);

#endif
