/*
 * Locks on image files.
 *
 * The order makes two processes that come at the same time exclude each other: first one's own
 * locks are taken, then others' are looked for. At worst both are refused.
 *
 * A lock's owner is an open file description, of which the kernel tells no process. Who has it open
 * is found in the fdinfo files of /proc, as far as they may be read.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/file-locks.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/cutils.h"

#define LOCK_PERM_BASE 100
#define LOCK_UNSHARED_BASE 200
/* No search for the holder of a lock looks at more files of /proc. */
#define SEARCH_MAX_FILES 100000

#define FOREACH_PERM(bit) \
    for (unsigned bit = 0; (UINT64_C(1) << (bit)) <= BLK_PERM_ALL; bit++)

static const char *const perm_names[] = { "consistent read", "write", "write unchanged", "resize" };

static int lock_byte(int fd, off_t start, short type)
{
    struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };
    int ret;

    do {
        ret = fcntl(fd, F_OFD_SETLK, &fl);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/* Whether nobody else has a lock on the byte: 0, -EAGAIN, or another negative errno. */
static int test_byte(int fd, off_t start)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };

    if (fcntl(fd, F_OFD_GETLK, &fl) < 0) {
        return -errno;
    }
    return fl.l_type == F_UNLCK ? 0 : -EAGAIN;
}

int file_locks_supported(int fd)
{
    int ret = test_byte(fd, 0);

    return ret == -EAGAIN ? 0 : ret;
}

/*
 * Finding out who holds a lock
 * -----------------------------------------------------------------------
 */

/* Whether a line of fdinfo tells of a lock on @byte of the file @dev, @ino. */
static bool line_has_lock(const char *line, dev_t dev, ino_t ino, off_t byte)
{
    unsigned major, minor;
    unsigned long inode;
    long long start, end;
    char kind[16], end_str[32];

    if (sscanf(line, "lock: %*[^:]: %15s %*s %*s %*d %x:%x:%lu %lld %31s", kind, &major, &minor,
               &inode, &start, end_str) != 6) {
        return false;
    }
    end = strcmp(end_str, "EOF") == 0 ? LLONG_MAX : g_ascii_strtoll(end_str, NULL, 10);
    return strcmp(kind, "OFDLCK") == 0 && makedev(major, minor) == dev && inode == ino &&
           start <= byte && byte <= end;
}

static bool fdinfo_has_lock(const char *path, dev_t dev, ino_t ino, off_t byte)
{
    FILE *file = fopen(path, "re");
    char line[256];
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file)) {
        found = line_has_lock(line, dev, ino, byte);
    }
    if (file) {
        fclose(file);
    }
    return found;
}

static bool process_has_lock(const char *pid, dev_t dev, ino_t ino, off_t byte, int own_fd,
                             unsigned *budget)
{
    g_autofree char *dirname = g_strdup_printf("/proc/%s/fdinfo", pid);
    g_autoptr(GDir) dir = g_dir_open(dirname, 0, NULL);
    bool own = (pid_t)g_ascii_strtoll(pid, NULL, 10) == getpid();
    const char *name;

    while (dir && *budget > 0 && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(dirname, name, NULL);

        --*budget;
        if ((!own || g_ascii_strtoll(name, NULL, 10) != own_fd) &&
            fdinfo_has_lock(path, dev, ino, byte)) {
            return true;
        }
    }
    return false;
}

/* "process 12 (name)", "this process", or "another process" where that cannot be known. */
static char *describe_holder(int fd, off_t byte)
{
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    unsigned budget = SEARCH_MAX_FILES;
    struct stat st;
    const char *pid;

    if (fstat(fd, &st) < 0) {
        return g_strdup("another process");
    }
    while (proc && (pid = g_dir_read_name(proc))) {
        if (!g_ascii_isdigit(*pid) ||
            !process_has_lock(pid, st.st_dev, st.st_ino, byte, fd, &budget)) {
            continue;
        }
        if ((pid_t)g_ascii_strtoll(pid, NULL, 10) == getpid()) {
            return g_strdup("another node of this process");
        }

        g_autofree char *comm_path = g_strdup_printf("/proc/%s/comm", pid);
        g_autofree char *comm = NULL;
        if (!g_file_get_contents(comm_path, &comm, NULL, NULL)) {
            return g_strdup_printf("process %s", pid);
        }
        return g_strdup_printf("process %s (%s)", pid, g_strchomp(comm));
    }
    return g_strdup("another process");
}

/*
 * Taking and checking
 * ---------------------------------------------------------------------------------
 */

static int take(FileLocks *locks, int fd, uint64_t perm, uint64_t unshared, const char *filename,
                Error **errp)
{
    FOREACH_PERM(i) {
        uint64_t bit = UINT64_C(1) << i;
        int ret = 0;

        if (perm & ~locks->held_perm & bit) {
            ret = lock_byte(fd, LOCK_PERM_BASE + i, F_RDLCK);
            if (ret == 0) {
                locks->held_perm |= bit;
            }
        }
        if (ret == 0 && unshared & ~locks->held_unshared & bit) {
            ret = lock_byte(fd, LOCK_UNSHARED_BASE + i, F_RDLCK);
            if (ret == 0) {
                locks->held_unshared |= bit;
            }
        }
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to lock '%s' for \"%s\"", filename, perm_names[i]);
            return -1;
        }
    }
    return 0;
}

/* Give up all but these. Unlocking what one holds does not fail. */
static void drop_except(FileLocks *locks, int fd, uint64_t perm, uint64_t unshared)
{
    FOREACH_PERM(i) {
        uint64_t bit = UINT64_C(1) << i;

        if (locks->held_perm & ~perm & bit) {
            lock_byte(fd, LOCK_PERM_BASE + i, F_UNLCK);
        }
        if (locks->held_unshared & ~unshared & bit) {
            lock_byte(fd, LOCK_UNSHARED_BASE + i, F_UNLCK);
        }
    }
    locks->held_perm &= perm;
    locks->held_unshared &= unshared;
}

static void refused(Error **errp, int fd, const char *filename, int err, off_t byte,
                    const char *lock, const char *why)
{
    if (err != -EAGAIN) {
        error_setg_errno(errp, -err, "Failed to look for locks on '%s'", filename);
        return;
    }

    g_autofree char *holder = describe_holder(fd, byte);
    error_setg(errp, "Failed to get %s lock on '%s': %s %s", lock, filename, holder, why);
    error_append_hint(errp, "Is another process using the image [%s]?\n", filename);
}

static int check(int fd, uint64_t perm, uint64_t unshared, const char *filename, Error **errp)
{
    FOREACH_PERM(i) {
        uint64_t bit = UINT64_C(1) << i;
        int ret;

        if (perm & bit && (ret = test_byte(fd, LOCK_UNSHARED_BASE + i)) < 0) {
            g_autofree char *lock = g_strdup_printf("\"%s\"", perm_names[i]);
            refused(errp, fd, filename, ret, LOCK_UNSHARED_BASE + i, lock, "does not share it");
            return -1;
        }
        if (unshared & bit && (ret = test_byte(fd, LOCK_PERM_BASE + i)) < 0) {
            g_autofree char *lock = g_strdup_printf("shared \"%s\"", perm_names[i]);
            refused(errp, fd, filename, ret, LOCK_PERM_BASE + i, lock, "is using it");
            return -1;
        }
    }
    return 0;
}

int file_locks_prepare(FileLocks *locks, int fd, const char *filename, uint64_t perm,
                       uint64_t shared, Error **errp)
{
    uint64_t unshared = ~shared & BLK_PERM_ALL;

    if (take(locks, fd, perm, unshared, filename, errp) < 0 ||
        check(fd, perm, unshared, filename, errp) < 0) {
        file_locks_abort(locks, fd);
        return -1;
    }
    return 0;
}

void file_locks_commit(FileLocks *locks, int fd, uint64_t perm, uint64_t shared)
{
    locks->perm = perm;
    locks->unshared = ~shared & BLK_PERM_ALL;
    drop_except(locks, fd, locks->perm, locks->unshared);
}

void file_locks_abort(FileLocks *locks, int fd)
{
    drop_except(locks, fd, locks->perm, locks->unshared);
}

int file_locks_copy(const FileLocks *locks, int to_fd)
{
    FOREACH_PERM(i) {
        uint64_t bit = UINT64_C(1) << i;
        int ret = 0;

        if (locks->held_perm & bit) {
            ret = lock_byte(to_fd, LOCK_PERM_BASE + i, F_RDLCK);
        }
        if (ret == 0 && locks->held_unshared & bit) {
            ret = lock_byte(to_fd, LOCK_UNSHARED_BASE + i, F_RDLCK);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}
