/*
 * A disk that has its troubles, for LD_PRELOAD. They are about the file $FERRY_TEST_FAULT_FILE:
 *
 *     FERRY_TEST_FSYNC_MS=N    the first fsync() with more than a header takes N milliseconds, as if there
 *                              were much in a cache; those after it find nothing left to do
 *     FERRY_TEST_FSYNC_ERROR=N the N-th fsync() fails
 *     FERRY_TEST_READ_ERROR=N  reads of the byte at N fail
 *     FERRY_TEST_WRITE_ERROR=N writes of it do
 *
 * io_uring is refused then, because what it does passes by here.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static bool is_faulty(int fd)
{
    const char *path = getenv("FERRY_TEST_FAULT_FILE");
    struct stat want, have;

    return path && stat(path, &want) == 0 && fstat(fd, &have) == 0 && S_ISREG(have.st_mode) &&
           want.st_ino == have.st_ino && want.st_dev == have.st_dev;
}

/*
 * Whether a transfer from @offset on (-1: where the file stands) meets the byte that @what names.
 */
static bool meets(int fd, const struct iovec *iov, int niov, off_t offset, const char *what)
{
    const char *text = getenv(what);
    off_t at = text ? atoll(text) : 0, end;

    if (!text || !is_faulty(fd)) {
        return false;
    }
    if (offset < 0) {
        offset = lseek(fd, 0, SEEK_CUR);
    }
    end = offset;
    for (int i = 0; i < niov; i++) {
        end += iov[i].iov_len;
    }
    return offset <= at && at < end;
}

typedef ssize_t Positioned(int fd, const struct iovec *iov, int niov, off_t offset);
typedef ssize_t Sequential(int fd, const struct iovec *iov, int niov);

static ssize_t positioned(const char *name, int fd, const struct iovec *iov, int niov, off_t offset,
                          const char *what)
{
    if (meets(fd, iov, niov, offset, what)) {
        errno = EIO;
        return -1;
    }
    return ((Positioned *)dlsym(RTLD_NEXT, name))(fd, iov, niov, offset);
}

static ssize_t sequential(const char *name, int fd, const struct iovec *iov, int niov,
                          const char *what)
{
    if (meets(fd, iov, niov, -1, what)) {
        errno = EIO;
        return -1;
    }
    return ((Sequential *)dlsym(RTLD_NEXT, name))(fd, iov, niov);
}

/* On this architecture both names of these are one function; a program uses either. */
#undef preadv
#undef pwritev
EXPORT ssize_t preadv64(int fd, const struct iovec *iov, int niov, off_t offset)
{
    return positioned("preadv64", fd, iov, niov, offset, "FERRY_TEST_READ_ERROR");
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *iov, int niov, off_t offset)
{
    return positioned("pwritev64", fd, iov, niov, offset, "FERRY_TEST_WRITE_ERROR");
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int niov)
{
    return sequential("readv", fd, iov, niov, "FERRY_TEST_READ_ERROR");
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int niov)
{
    return sequential("writev", fd, iov, niov, "FERRY_TEST_WRITE_ERROR");
}

EXPORT int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    if (getenv("FERRY_TEST_READ_ERROR") || getenv("FERRY_TEST_WRITE_ERROR")) {
        return -EPERM;
    }
    return ((int (*)(unsigned, struct io_uring *, unsigned))dlsym(RTLD_NEXT,
                                                                  "io_uring_queue_init"))
        (entries, ring, flags);
}

EXPORT int fsync(int fd)
{
    static int called, number;
    const char *text = getenv("FERRY_TEST_FSYNC_MS");
    const char *fails = getenv("FERRY_TEST_FSYNC_ERROR");
    struct stat st;

    if (fails && is_faulty(fd) &&
        __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED) == atoi(fails)) {
        errno = EIO;
        return -1;
    }
    if (text && is_faulty(fd) && fstat(fd, &st) == 0 && st.st_size > 1 << 20 &&
        !__atomic_exchange_n(&called, 1, __ATOMIC_RELAXED)) {
        long ms = atol(text);
        struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

        nanosleep(&ts, NULL);
    }
    return syscall(SYS_fsync, fd);
}
