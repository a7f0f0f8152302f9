/*
 * File descriptors by name, and opening files: the one way from a string to a descriptor.
 *
 * A descriptor that somebody handed to this process has a number when it was inherited, a name when
 * it came through a monitor (getfd), and a set when it came by add-fd. Who keeps the names and the
 * sets registers here; who wants a descriptor asks here and need not know.
 *
 * Registration is for start-up; the other functions may be called from any thread if what is
 * registered may.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_FD_RESOLVER_H
#define IO_FD_RESOLVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/error.h"

/*
 * The descriptor with that name; @take: given away, the caller owns it, else it stays where it is.
 * -1 with @errp set.
 */
typedef int IoFdResolver(const char *name, bool take, Error **errp);
/* A new descriptor from set @id which fits @flags (see io_fdset_pick()); -1 with @errp set. */
typedef int IoFdsetOpener(int64_t id, int flags, Error **errp);

/* NULL to unregister. */
void io_fd_set_resolver(IoFdResolver *resolver);
void io_fdset_set_opener(IoFdsetOpener *opener);

/*
 * io_fd_get:
 * @name: decimal digits, or a name (which does not begin with a digit)
 *
 * Returns: an open descriptor, close-on-exec, which the caller owns: the one with that number, or
 * the one that the resolver gives; -1 with @errp set.
 *
 * A number means a descriptor that this process inherited, once: what it opened itself, be it a
 * guest's disk, is close-on-exec and not to be had.
 */
int io_fd_get(const char *name, Error **errp);

/* The same to look at, which io_fd_get() will give; it is not the caller's, nor close-on-exec. */
int io_fd_peek(const char *name, Error **errp);

/*
 * io_open:
 * @path: a file name, or /dev/fdset/N
 * @flags, @mode: as for open(2); O_CLOEXEC is added
 *
 * Returns: a descriptor, or -1 with @errp set to "Could not open 'PATH': REASON". From a set of
 * descriptors comes one opened with the same access mode and the same choice of O_DIRECT; O_TRUNC
 * is carried out, and flags that only make sense with a name are ignored.
 */
int io_open(const char *path, int flags, mode_t mode, Error **errp);

/*
 * The choice that an IoFdsetOpener makes: of the @n descriptors @fds in the set @id, duplicate the
 * first with the access mode and the O_DIRECT bit of @flags. Returns the duplicate, close-on-exec,
 * or -1 with an error that says which descriptor is missing.
 */
int io_fdset_pick(const int *fds, size_t n, int64_t id, int flags, Error **errp);

#endif
