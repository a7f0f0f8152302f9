/*
 * Both shelves are short arrays that are searched from the front. An fdset is not an object of its
 * own: it is the descriptors that carry its number, so it is there exactly as long as it has any.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>
#include "io/fd-resolver.h"
#include "monitor/fds.h"
#include "util/mutex.h"

/* ---- named descriptors ---- */

typedef struct NamedFd {
    char *name;
    int fd;
} NamedFd;

struct NamedFds {
    GArray *list;               /* of NamedFd */
};

NamedFds *named_fds_new(void)
{
    NamedFds *fds = g_new(NamedFds, 1);

    fds->list = g_array_new(FALSE, FALSE, sizeof(NamedFd));
    return fds;
}

static int named_find(NamedFds *fds, const char *name)
{
    for (guint i = 0; i < fds->list->len; i++) {
        if (!strcmp(g_array_index(fds->list, NamedFd, i).name, name)) {
            return i;
        }
    }
    return -1;
}

static int named_remove(NamedFds *fds, int i)
{
    NamedFd *n = &g_array_index(fds->list, NamedFd, i);
    int fd = n->fd;

    g_free(n->name);
    g_array_remove_index(fds->list, i);
    return fd;
}

void named_fds_free(NamedFds *fds)
{
    if (!fds) {
        return;
    }
    while (fds->list->len) {
        close(named_remove(fds, 0));
    }
    g_array_free(fds->list, TRUE);
    g_free(fds);
}

bool named_fds_add(NamedFds *fds, const char *name, int fd, Error **errp)
{
    NamedFd n;
    int i;

    if (g_ascii_isdigit(name[0])) {
        error_setg(errp, "Parameter 'fdname' expects a name not starting with a digit");
        close(fd);
        return false;
    }
    i = named_find(fds, name);
    if (i >= 0) {
        close(named_remove(fds, i));
    }
    if (fds->list->len >= NAMED_FDS_MAX) {
        error_setg(errp, "Cannot keep file descriptor '%s': there are %d already", name,
                   NAMED_FDS_MAX);
        close(fd);
        return false;
    }
    n.name = g_strdup(name);
    n.fd = fd;
    g_array_append_val(fds->list, n);
    return true;
}

static int named_must_find(NamedFds *fds, const char *name, Error **errp)
{
    int i = named_find(fds, name);

    if (i < 0) {
        error_setg(errp, "File descriptor named '%s' has not been found", name);
    }
    return i;
}

int named_fds_take(NamedFds *fds, const char *name, Error **errp)
{
    int i = named_must_find(fds, name, errp);

    return i < 0 ? -1 : named_remove(fds, i);
}

int named_fds_peek(NamedFds *fds, const char *name, Error **errp)
{
    int i = named_must_find(fds, name, errp);

    return i < 0 ? -1 : g_array_index(fds->list, NamedFd, i).fd;
}

bool named_fds_close(NamedFds *fds, const char *name, Error **errp)
{
    int i = named_find(fds, name);

    if (i < 0) {
        error_setg(errp, "File descriptor named '%s' not found", name);
        return false;
    }
    close(named_remove(fds, i));
    return true;
}

/* ---- fdsets ---- */

typedef struct SetFd {
    int64_t id;
    int fd;
    char *opaque;
} SetFd;

static Mutex set_lock;
static GArray *set_fds;         /* of SetFd, by id, then in order of addition; under set_lock */
static GArray *inherited;       /* of int: originals that -add-fd named */

#define SET_FD(i) (&g_array_index(set_fds, SetFd, i))

static guint set_count(void)
{
    return set_fds ? set_fds->len : 0;
}

static void set_remove(guint i)
{
    close(SET_FD(i)->fd);
    g_free(SET_FD(i)->opaque);
    g_array_remove_index(set_fds, i);
}

int64_t fdset_add(int fd, int64_t id, const char *opaque, Error **errp)
{
    SetFd s = { .fd = fd };
    guint at = 0;

    mutex_lock(&set_lock);
    if (set_count() >= FDSET_FDS_MAX) {
        mutex_unlock(&set_lock);
        error_setg(errp, "Cannot add a file descriptor: fdsets hold %d already", FDSET_FDS_MAX);
        close(fd);
        return -1;
    }
    if (id < 0) {
        for (id = 0, at = 0; at < set_count() && SET_FD(at)->id <= id; at++) {
            id = SET_FD(at)->id + 1;
        }
    }
    if (!set_fds) {
        set_fds = g_array_new(FALSE, FALSE, sizeof(SetFd));
    }
    for (at = 0; at < set_fds->len && SET_FD(at)->id <= id; at++) {
    }
    s.id = id;
    s.opaque = g_strdup(opaque);
    g_array_insert_val(set_fds, at, s);
    mutex_unlock(&set_lock);
    return id;
}

bool fdset_remove(int64_t id, int fd, Error **errp)
{
    bool found = false;

    mutex_lock(&set_lock);
    for (guint i = 0; i < set_count();) {
        if (SET_FD(i)->id == id && (fd < 0 || SET_FD(i)->fd == fd)) {
            set_remove(i);
            found = true;
        } else {
            i++;
        }
    }
    mutex_unlock(&set_lock);
    if (!found && fd < 0) {
        error_setg(errp, "File descriptor named 'fdset-id:%" PRId64 "' not found", id);
    } else if (!found) {
        error_setg(errp, "File descriptor named 'fdset-id:%" PRId64 ", fd:%d' not found", id, fd);
    }
    return found;
}

int fdset_open(int64_t id, int flags, Error **errp)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
    int fd;

    mutex_lock(&set_lock);
    for (guint i = 0; i < set_count(); i++) {
        if (SET_FD(i)->id == id) {
            g_array_append_val(fds, SET_FD(i)->fd);
        }
    }
    /* With the lock held: a descriptor must not be closed between the choice and its duplicate. */
    if (fds->len) {
        fd = io_fdset_pick((int *)fds->data, fds->len, id, flags, errp);
    } else {
        error_setg(errp, "fdset %" PRId64 " does not exist", id);
        fd = -1;
    }
    mutex_unlock(&set_lock);
    return fd;
}

void fdset_foreach(FdsetVisitor *visit, void *opaque)
{
    mutex_lock(&set_lock);
    for (guint i = 0; i < set_count(); i++) {
        visit(SET_FD(i)->id, SET_FD(i)->fd, SET_FD(i)->opaque, opaque);
    }
    mutex_unlock(&set_lock);
}

void fdset_cleanup(void)
{
    mutex_lock(&set_lock);
    while (set_count()) {
        set_remove(0);
    }
    g_clear_pointer(&set_fds, g_array_unref);
    mutex_unlock(&set_lock);
}

/* ---- -add-fd ---- */

bool fdset_add_inherited(int fd, int64_t id, const char *opaque, Error **errp)
{
    int flags, copy;

    if (fd <= STDERR_FILENO) {
        error_setg(errp, "fd cannot be a standard I/O stream");
        return false;
    }
    /* What this program opened itself is close-on-exec; what it inherited cannot be. */
    flags = fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC)) {
        error_setg(errp, "fd is not valid or already in use");
        return false;
    }
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) {
        error_setg_errno(errp, errno, "error duplicating fd");
        return false;
    }
    if (fdset_add(copy, id, opaque, errp) < 0) {
        return false;
    }
    if (!inherited) {
        inherited = g_array_new(FALSE, FALSE, sizeof(int));
    }
    g_array_append_val(inherited, fd);
    return true;
}

void fdset_close_inherited(void)
{
    for (guint i = 0; inherited && i < inherited->len; i++) {
        int fd = g_array_index(inherited, int, i);
        bool closed_before = false;

        for (guint k = 0; k < i; k++) {
            closed_before |= g_array_index(inherited, int, k) == fd;
        }
        if (!closed_before) {
            close(fd);
        }
    }
    g_clear_pointer(&inherited, g_array_unref);
}
