/*
 * File descriptors that clients and the command line gave to the machine.
 *
 * There are two kinds of shelf:
 *
 *   named    (getfd, closefd)  a name to one descriptor; whoever uses it takes it away. Each monitor
 *            has its own.
 *   fdset    (add-fd, remove-fd, query-fdsets, -add-fd)  a number to several descriptors of the same
 *            file, opened in different ways. /dev/fdset/N names it wherever a file name goes;
 *            opening it gives a duplicate of the descriptor whose access mode and O_DIRECT fit. It
 *            goes away with its last descriptor; duplicates in use live on.
 *
 * Descriptors on a shelf are owned by it. Named descriptors belong to the main thread; fdset
 * functions may be called from any.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_FDS_H
#define MONITOR_FDS_H

#include <glib.h>
#include <stdbool.h>
#include "util/error.h"

/* ---- named descriptors ---- */

typedef struct NamedFds NamedFds;

/* No more than this many on one shelf: a client must not use up the machine's descriptors. */
#define NAMED_FDS_MAX 128
#define FDSET_FDS_MAX 256

/* An empty shelf; freeing it closes what is on it. */
NamedFds *named_fds_new(void);
void named_fds_free(NamedFds *fds);
/* Shelve @fd, which is taken over in any case. One that had the same name is closed. */
bool named_fds_add(NamedFds *fds, const char *name, int fd, Error **errp);
/* Take the descriptor off the shelf. -1: "File descriptor named 'NAME' has not been found" */
int named_fds_take(NamedFds *fds, const char *name, Error **errp);
/* The same, and it stays there. */
int named_fds_peek(NamedFds *fds, const char *name, Error **errp);
/* Close it. "File descriptor named 'NAME' not found" */
bool named_fds_close(NamedFds *fds, const char *name, Error **errp);

/* ---- fdsets ---- */

/*
 * fdset_add:
 * @fd: the descriptor, taken over in any case
 * @id: the set's number, or -1 for the lowest unused one
 * @opaque: text that query-fdsets shows; may be NULL
 * @errp: where an error goes
 *
 * Returns: the set's number, or -1 with @errp set.
 */
int64_t fdset_add(int fd, int64_t id, const char *opaque, Error **errp);

/* Close descriptor @fd of set @id, or all of them when @fd is -1. */
bool fdset_remove(int64_t id, int fd, Error **errp);

/*
 * fdset_open:
 * @id: the set's number
 * @flags: as for open(2); the access mode and O_DIRECT count
 * @errp: where an error goes; when nothing fits it says what is missing
 *
 * An opener for io/fd-resolver.h; any thread. Returns: a new descriptor, close-on-exec, which
 * shares the file offset with the set's; or -1.
 */
int fdset_open(int64_t id, int flags, Error **errp);

/* Visit all, by ascending number of the set and in order of addition. */
typedef void FdsetVisitor(int64_t id, int fd, const char *opaque_text, void *opaque);
void fdset_foreach(FdsetVisitor *visit, void *opaque);

/*
 * fdset_add_inherited:
 * @fd: a descriptor that this process inherited, as -add-fd names it
 * @id: the set's number
 * @opaque: as above
 * @errp: where an error goes
 *
 * Puts a duplicate into the set. The original stays open until fdset_close_inherited(), so that one
 * descriptor can go into several sets.
 */
bool fdset_add_inherited(int fd, int64_t id, const char *opaque, Error **errp);
/* Close all descriptors that -add-fd named; once all options are parsed. */
void fdset_close_inherited(void);

/* Close everything; at exit. */
void fdset_cleanup(void);

#endif
