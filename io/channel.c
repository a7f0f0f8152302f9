/*
 * What all kinds of channels share: checks, the `all` loops, reference counts and naming.
 *
 * A kind implements single reads and writes that may be short. Everything that loops is here and
 * works on a copy of the caller's vector, from which what is done is cut off the front.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-class.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/iov.h"

gpointer qio_channel_alloc(size_t size, const QIOChannelClass *klass)
{
    QIOChannel *ioc = g_malloc0(size);

    ioc->klass = klass;
    ioc->refs = 1;
    ioc->blocking = true;
    ioc->wake_fd[0] = ioc->wake_fd[1] = -1;
    qio_channel_set_feature(ioc, QIO_CHANNEL_FEATURE_SHUTDOWN);
    return ioc;
}

QIOChannel *qio_channel_ref(QIOChannel *ioc)
{
    if (ioc) {
        g_atomic_int_inc(&ioc->refs);
    }
    return ioc;
}

void qio_channel_unref(QIOChannel *ioc)
{
    if (!ioc || !g_atomic_int_dec_and_test(&ioc->refs)) {
        return;
    }
    qio_channel_close(ioc, NULL);
    if (ioc->klass->finalize) {
        ioc->klass->finalize(ioc);
    }
    for (int i = 0; i < 2; i++) {
        if (ioc->wake_fd[i] >= 0) {
            close(ioc->wake_fd[i]);
        }
    }
    g_free(ioc->name);
    g_free(ioc->target);
    g_free(ioc);
}

void qio_channel_set_name(QIOChannel *ioc, const char *name)
{
    g_free(ioc->name);
    ioc->name = g_strdup(name);
}

const char *qio_channel_get_name(QIOChannel *ioc)
{
    return ioc->name ?: ioc->klass->type_name;
}

char *qio_channel_describe(QIOChannel *ioc)
{
    return ioc->target ? g_strdup_printf("%s '%s'", ioc->klass->type_name, ioc->target)
                       : g_strdup(ioc->klass->type_name);
}

int qio_channel_fail(QIOChannel *ioc, const char *what, int err, Error **errp)
{
    g_autofree char *on = qio_channel_describe(ioc);

    error_setg_errno(errp, err, "Could not %s %s", what, on);
    return -1;
}

void qio_channel_set_feature(QIOChannel *ioc, QIOChannelFeature feature)
{
    ioc->features |= 1U << feature;
}

void qio_channel_set_target(QIOChannel *ioc, const char *target)
{
    g_free(ioc->target);
    ioc->target = g_strdup(target);
}

bool qio_channel_has_feature(QIOChannel *ioc, QIOChannelFeature feature)
{
    return ioc->features & (1U << feature);
}

bool qio_channel_is(QIOChannel *ioc, const QIOChannelClass *klass)
{
    return ioc && ioc->klass == klass;
}

/*
 * Refuse what this channel cannot do now; @which is the direction, an ended read is not an error.
 */
static bool usable(QIOChannel *ioc, const char *what, bool has_function, int which, Error **errp)
{
    g_autofree char *on = NULL;

    if (has_function && !ioc->closed &&
        !(which == CHANNEL_ENDED_WRITE && qio_channel_ended(ioc, which))) {
        return true;
    }
    on = qio_channel_describe(ioc);
    error_setg(errp, "Could not %s %s: %s", what, on,
               !has_function ? "not supported by this kind of channel"
               : ioc->closed ? "it is closed" : "it was shut down");
    return false;
}

/* Single reads and writes -------------------------------------------------------------------- */

ssize_t qio_channel_readv_full(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                               size_t *nfds, Error **errp)
{
    if (fds) {
        *fds = NULL;
        *nfds = 0;
    }
    if (!usable(ioc, "read from", ioc->klass->readv, CHANNEL_ENDED_READ, errp)) {
        return -1;
    }
    if (qio_channel_ended(ioc, CHANNEL_ENDED_READ) || !iov_size(iov, niov)) {
        return 0;
    }
    return ioc->klass->readv(ioc, iov, niov, fds, nfds, errp);
}

ssize_t qio_channel_writev_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const int *fds, size_t nfds, Error **errp)
{
    if (!usable(ioc, "write to", ioc->klass->writev, CHANNEL_ENDED_WRITE, errp)) {
        return -1;
    }
    if (nfds && (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS) ||
                 nfds > QIO_CHANNEL_FDS_MAX || !iov_size(iov, niov))) {
        g_autofree char *on = qio_channel_describe(ioc);

        error_setg(errp, "Could not send %zu file descriptors through %s", nfds, on);
        return -1;
    }
    if (!iov_size(iov, niov)) {
        return 0;
    }
    return ioc->klass->writev(ioc, iov, niov, fds, nfds, errp);
}

ssize_t qio_channel_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp)
{
    return qio_channel_readv_full(ioc, iov, niov, NULL, NULL, errp);
}

ssize_t qio_channel_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp)
{
    return qio_channel_writev_full(ioc, iov, niov, NULL, 0, errp);
}

ssize_t qio_channel_read(QIOChannel *ioc, void *buf, size_t len, Error **errp)
{
    struct iovec iov = { buf, len };
    return qio_channel_readv(ioc, &iov, 1, errp);
}

ssize_t qio_channel_write(QIOChannel *ioc, const void *buf, size_t len, Error **errp)
{
    struct iovec iov = { (void *)buf, len };
    return qio_channel_writev(ioc, &iov, 1, errp);
}

static bool seekable(QIOChannel *ioc, const char *what, int which, Error **errp)
{
    return usable(ioc, what, qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE), which,
                  errp);
}

ssize_t qio_channel_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           Error **errp)
{
    if (!seekable(ioc, "read at a position of", CHANNEL_ENDED_READ, errp)) {
        return -1;
    }
    if (qio_channel_ended(ioc, CHANNEL_ENDED_READ)) {
        return 0;
    }
    return ioc->klass->preadv(ioc, iov, niov, offset, errp);
}

ssize_t qio_channel_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            Error **errp)
{
    if (!seekable(ioc, "write at a position of", CHANNEL_ENDED_WRITE, errp)) {
        return -1;
    }
    return ioc->klass->pwritev(ioc, iov, niov, offset, errp);
}

off_t qio_channel_io_seek(QIOChannel *ioc, off_t offset, int whence, Error **errp)
{
    if (!seekable(ioc, "seek in", 0, errp)) {
        return -1;
    }
    return ioc->klass->seek(ioc, offset, whence, errp);
}

/* Everything or nothing ---------------------------------------------------------------------- */

/* A copy of a vector that can be cut; small ones need no memory of their own. */
typedef struct Rest {
    struct iovec few[16];
    struct iovec *all;
    struct iovec *iov;
    unsigned niov;
} Rest;

static void rest_init(Rest *r, const struct iovec *iov, size_t niov)
{
    r->all = niov <= G_N_ELEMENTS(r->few) ? NULL : g_new(struct iovec, niov);
    r->iov = r->all ?: r->few;
    r->niov = niov;
    if (niov) {
        memcpy(r->iov, iov, niov * sizeof(*iov));
    }
    /* Elements of no bytes at the front would look like the end of the file. */
    iov_discard_front(&r->iov, &r->niov, 0);
}

static void rest_clear(Rest *r)
{
    g_free(r->all);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Rest, rest_clear)

static void drop_fds(int **fds, size_t *nfds)
{
    for (size_t i = 0; fds && i < *nfds; i++) {
        close((*fds)[i]);
    }
    if (fds) {
        g_clear_pointer(fds, g_free);
        *nfds = 0;
    }
}

/* Add the descriptors that came with one read to those of the reads before. */
static void add_fds(int **fds, size_t *nfds, int *more, size_t n_more)
{
    if (!n_more) {
        return;
    }
    *fds = g_renew(int, *fds, *nfds + n_more);
    memcpy(*fds + *nfds, more, n_more * sizeof(int));
    *nfds += n_more;
    g_free(more);
}

int qio_channel_readv_full_all_eof(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                   int **fds, size_t *nfds, Error **errp)
{
    g_auto(Rest) rest;
    bool some = false;

    rest_init(&rest, iov, niov);
    if (fds) {
        *fds = NULL;
        *nfds = 0;
    }
    while (rest.niov) {
        int *more = NULL;
        size_t n_more = 0;
        ssize_t n = qio_channel_readv_full(ioc, rest.iov, rest.niov, fds ? &more : NULL,
                                           fds ? &n_more : NULL, errp);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            qio_channel_wait(ioc, G_IO_IN);
            continue;
        }
        if (fds) {
            add_fds(fds, nfds, more, n_more);
        }
        if (n == 0 && !some) {
            drop_fds(fds, nfds);
            return 0;
        }
        if (n == 0) {
            error_setg(errp, "Unexpected end-of-file before all data were read");
        }
        if (n <= 0) {
            drop_fds(fds, nfds);
            return -1;
        }
        some = true;
        iov_discard_front(&rest.iov, &rest.niov, n);
    }
    return 1;
}

int qio_channel_readv_all_eof(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp)
{
    return qio_channel_readv_full_all_eof(ioc, iov, niov, NULL, NULL, errp);
}

int qio_channel_read_all_eof(QIOChannel *ioc, void *buf, size_t len, Error **errp)
{
    struct iovec iov = { buf, len };
    return qio_channel_readv_all_eof(ioc, &iov, 1, errp);
}

int qio_channel_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp)
{
    int ret = qio_channel_readv_all_eof(ioc, iov, niov, errp);

    if (ret == 0) {
        error_setg(errp, "Unexpected end-of-file before all data were read");
    }
    return ret == 1 ? 0 : -1;
}

int qio_channel_read_all(QIOChannel *ioc, void *buf, size_t len, Error **errp)
{
    struct iovec iov = { buf, len };
    return qio_channel_readv_all(ioc, &iov, 1, errp);
}

int qio_channel_writev_full_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const int *fds, size_t nfds, Error **errp)
{
    g_auto(Rest) rest;

    rest_init(&rest, iov, niov);
    if (nfds && !rest.niov) {
        return qio_channel_writev_full(ioc, iov, niov, fds, nfds, errp);
    }
    while (rest.niov) {
        ssize_t n = qio_channel_writev_full(ioc, rest.iov, rest.niov, fds, nfds, errp);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            qio_channel_wait(ioc, G_IO_OUT);
            continue;
        }
        if (n < 0) {
            return -1;
        }
        iov_discard_front(&rest.iov, &rest.niov, n);
        /* They went with the first byte. */
        nfds = 0;
    }
    return 0;
}

int qio_channel_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp)
{
    return qio_channel_writev_full_all(ioc, iov, niov, NULL, 0, errp);
}

int qio_channel_write_all(QIOChannel *ioc, const void *buf, size_t len, Error **errp)
{
    struct iovec iov = { (void *)buf, len };
    return qio_channel_writev_all(ioc, &iov, 1, errp);
}

int qio_channel_writev_lent_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp)
{
    g_auto(Rest) rest;

    if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_LEND)) {
        return qio_channel_writev_all(ioc, iov, niov, errp);
    }
    rest_init(&rest, iov, niov);
    while (rest.niov) {
        if (!usable(ioc, "write to", true, CHANNEL_ENDED_WRITE, errp)) {
            return -1;
        }
        ssize_t n = ioc->klass->writev_lent(ioc, rest.iov, rest.niov, errp);

        if (n < 0) {
            return -1;
        }
        iov_discard_front(&rest.iov, &rest.niov, n);
    }
    return 0;
}

int qio_channel_preadv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           Error **errp)
{
    g_auto(Rest) rest;

    rest_init(&rest, iov, niov);
    while (rest.niov) {
        ssize_t n = qio_channel_preadv(ioc, rest.iov, rest.niov, offset, errp);

        if (n == 0) {
            g_autofree char *on = qio_channel_describe(ioc);
            error_setg(errp, "Unexpected end-of-file at offset %" PRIu64 " of %s",
                       (uint64_t)offset, on);
        }
        if (n <= 0) {
            return -1;
        }
        offset += n;
        iov_discard_front(&rest.iov, &rest.niov, n);
    }
    return 0;
}

int qio_channel_pread_all(QIOChannel *ioc, void *buf, size_t len, off_t offset, Error **errp)
{
    struct iovec iov = { buf, len };
    return qio_channel_preadv_all(ioc, &iov, 1, offset, errp);
}

int qio_channel_pwritev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            Error **errp)
{
    g_auto(Rest) rest;

    rest_init(&rest, iov, niov);
    while (rest.niov) {
        ssize_t n = qio_channel_pwritev(ioc, rest.iov, rest.niov, offset, errp);

        if (n == 0) {
            return qio_channel_fail(ioc, "write at a position of", ENOSPC, errp);
        }
        if (n < 0) {
            return -1;
        }
        offset += n;
        iov_discard_front(&rest.iov, &rest.niov, n);
    }
    return 0;
}

int qio_channel_pwrite_all(QIOChannel *ioc, const void *buf, size_t len, off_t offset,
                           Error **errp)
{
    struct iovec iov = { (void *)buf, len };
    return qio_channel_pwritev_all(ioc, &iov, 1, offset, errp);
}

/* State -------------------------------------------------------------------------------------- */

int qio_channel_set_blocking(QIOChannel *ioc, bool enabled, Error **errp)
{
    if (!usable(ioc, "set the blocking mode of", true, 0, errp)) {
        return -1;
    }
    if (ioc->klass->set_blocking && ioc->klass->set_blocking(ioc, enabled, errp) < 0) {
        return -1;
    }
    ioc->blocking = enabled;
    return 0;
}

void qio_channel_set_delay(QIOChannel *ioc, bool enabled)
{
    if (ioc->klass->set_delay && !ioc->closed) {
        ioc->klass->set_delay(ioc, enabled);
    }
}

int qio_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how, Error **errp)
{
    static const int bits[] = {
        [QIO_CHANNEL_SHUTDOWN_READ] = CHANNEL_ENDED_READ,
        [QIO_CHANNEL_SHUTDOWN_WRITE] = CHANNEL_ENDED_WRITE,
        [QIO_CHANNEL_SHUTDOWN_BOTH] = CHANNEL_ENDED_READ | CHANNEL_ENDED_WRITE,
    };

    if (!usable(ioc, "shut down", true, 0, errp)) {
        return -1;
    }
    g_atomic_int_or(&ioc->ended, bits[how]);
    for (int i = 0; i < 2; i++) {
        if (bits[how] & (1 << i) && ioc->wake_fd[i] >= 0) {
            eventfd_write(ioc->wake_fd[i], 1);
        }
    }
    return ioc->klass->shutdown ? ioc->klass->shutdown(ioc, how, errp) : 0;
}

int qio_channel_close(QIOChannel *ioc, Error **errp)
{
    if (ioc->closed) {
        return 0;
    }
    ioc->closed = true;
    return ioc->klass->close ? ioc->klass->close(ioc, errp) : 0;
}

int qio_channel_get_fd(QIOChannel *ioc)
{
    if (ioc->closed) {
        return -1;
    }
    int in = ioc->klass->poll_fd(ioc, G_IO_IN);
    int out = ioc->klass->poll_fd(ioc, G_IO_OUT);

    return in == out || out < 0 ? in : in < 0 ? out : -1;
}
