/*
 * The inside of a channel: for the files that implement a kind, and for channel.c.
 *
 * A kind is a struct whose first member is `QIOChannel parent`, made by qio_channel_alloc() with a
 * QIOChannelClass. Each function of the class has the contract of its namesake in channel.h, less
 * what the generic part does: checking features, arguments, and an ended direction.
 *
 * A kind over a pipe or another descriptor that shutdown(2) does not know uses the
 * qio_channel_stream_*() functions: the descriptor is put in non-blocking mode and blocking is a
 * poll of the descriptor and of an eventfd, which qio_channel_shutdown() makes readable for good.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_CHANNEL_CLASS_H
#define IO_CHANNEL_CLASS_H

#include "io/channel.h"

struct QIOChannelClass {
    const char *type_name;      /* as it reads in a message: "socket", "file", "command" */

    /* A NULL function is a feature that no channel of this kind has. */
    ssize_t (*readv)(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                     size_t *nfds, Error **errp);
    ssize_t (*writev)(QIOChannel *ioc, const struct iovec *iov, size_t niov, const int *fds,
                      size_t nfds, Error **errp);
    /*
     * One step of qio_channel_writev_lent_all(): the bytes that are under way, at least 1, or -1.
     */
    ssize_t (*writev_lent)(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp);
    ssize_t (*preadv)(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                      Error **errp);
    ssize_t (*pwritev)(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                       Error **errp);
    off_t (*seek)(QIOChannel *ioc, off_t offset, int whence, Error **errp);

    /*
     * Change the descriptor's mode; NULL when the `blocking` flag of the channel is all it takes.
     */
    int (*set_blocking)(QIOChannel *ioc, bool enabled, Error **errp);
    void (*set_delay)(QIOChannel *ioc, bool enabled);
    /* What there is to do beyond the flags and the wake-up; may be NULL. */
    int (*shutdown)(QIOChannel *ioc, QIOChannelShutdown how, Error **errp);
    /* Called at most once. */
    int (*close)(QIOChannel *ioc, Error **errp);
    /* The descriptor to poll for one direction; -1: that direction is always ready. */
    int (*poll_fd)(QIOChannel *ioc, GIOCondition direction);
    /* Free what the kind added; the channel is closed. May be NULL. */
    void (*finalize)(QIOChannel *ioc);
};

struct QIOChannel {
    const QIOChannelClass *klass;
    gint refs;
    unsigned features;      /* bit 1 << QIOChannelFeature */
    char *name;             /* for debugging, or NULL */
    char *target;           /* what it is open on, or NULL */
    bool blocking;
    bool closed;
    gint ended;             /* CHANNEL_ENDED_* bits, atomic */
    int wake_fd[2];         /* eventfds, readable once reading, writing ended; -1: not needed */
};

#define CHANNEL_ENDED_READ 1
#define CHANNEL_ENDED_WRITE 2

/* A zeroed channel of @size bytes with one reference, blocking, without features. */
gpointer qio_channel_alloc(size_t size, const QIOChannelClass *klass);
void qio_channel_set_feature(QIOChannel *ioc, QIOChannelFeature feature);
/* Whether @ioc is of the kind @klass; NULL is of no kind. */
bool qio_channel_is(QIOChannel *ioc, const QIOChannelClass *klass);
static inline bool qio_channel_ended(QIOChannel *ioc, int which)
{
    return g_atomic_int_get(&ioc->ended) & which;
}

/*
 * For a kind whose writes could raise SIGPIPE: the signal is ignored from now on, unless it is
 * used.
 */
void qio_channel_ignore_sigpipe(void);

/*
 * Make @fd, a pipe or the like, ready for the two functions below: non-blocking mode, eventfds
 * in ioc->wake_fd, SIGPIPE ignored. Returns 0, or -1 with @errp set.
 */
int qio_channel_stream_setup(QIOChannel *ioc, int fd, Error **errp);
ssize_t qio_channel_stream_readv(QIOChannel *ioc, int fd, const struct iovec *iov, size_t niov,
                                 Error **errp);
ssize_t qio_channel_stream_writev(QIOChannel *ioc, int fd, const struct iovec *iov, size_t niov,
                                  Error **errp);

/*
 * Let the reader of the pipe @fd see its end while other threads may still use the number: the
 * descriptor becomes one that is always ready and refuses every write.
 */
void qio_channel_stream_end_write(int fd);

/* Set @errp to "Could not WHAT KIND 'TARGET': REASON"; @err is an errno value. Returns -1. */
int qio_channel_fail(QIOChannel *ioc, const char *what, int err, Error **errp);

#endif
