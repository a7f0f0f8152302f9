/*
 * QIOChannel: something that bytes go into and come out of.
 *
 * A channel is a socket, a file, the pipes of a command, or memory; who uses it sees one set of
 * functions. A kind is a QIOChannelClass, one file; its constructors are in its own header. What
 * not every kind can do is a QIOChannelFeature: asking a channel for something that it lacks is an
 * error, never undefined.
 *
 * Blocking. A new channel blocks: a read waits for at least one byte, a write until all of it is
 * under way. After qio_channel_set_blocking(ioc, false) both return QIO_CHANNEL_ERR_BLOCK instead
 * of waiting, and qio_channel_wait() or a watch says when to try again. The functions with `all` in
 * their name finish in both modes, waiting where they must.
 *
 * Threads. One thread may read while another writes. Two may not read at once, or write at once,
 * except with preadv and pwritev, which any number of threads may call. qio_channel_shutdown() may
 * be called by any thread at any time, and makes whoever is blocked in a read, a write or a wait
 * come back: it is how a transfer is cancelled. qio_channel_close() may not race with anything:
 * shut down, join the threads, then close.
 *
 * References are counted, atomically. The last qio_channel_unref() closes the channel if nobody
 * did; who cares whether the last bytes arrived calls qio_channel_close() and looks at its result.
 *
 * SIGPIPE is never raised by a channel: the first pipe that becomes one sets the signal to be
 * ignored, if it still had its default action.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_CHANNEL_H
#define IO_CHANNEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/error.h"

typedef struct QIOChannel QIOChannel;
typedef struct QIOChannelClass QIOChannelClass;

/* What a kind as a pointer becomes where any channel will do. */
#define QIO_CHANNEL(obj) ((QIOChannel *)(obj))

typedef enum QIOChannelFeature {
    QIO_CHANNEL_FEATURE_FD_PASS,    /* file descriptors travel with the bytes */
    QIO_CHANNEL_FEATURE_SHUTDOWN,   /* qio_channel_shutdown() works */
    QIO_CHANNEL_FEATURE_LISTEN,     /* a listening socket: accepts, moves no bytes */
    QIO_CHANNEL_FEATURE_SEEKABLE,   /* seek, preadv and pwritev work */
    QIO_CHANNEL_FEATURE_LEND,       /* qio_channel_writev_lent_all() copies nothing */
} QIOChannelFeature;

typedef enum QIOChannelShutdown {
    QIO_CHANNEL_SHUTDOWN_READ,      /* reads return end of file from now on */
    QIO_CHANNEL_SHUTDOWN_WRITE,     /* writes fail; a stream's peer sees end of file */
    QIO_CHANNEL_SHUTDOWN_BOTH,
} QIOChannelShutdown;

/* What a non-blocking read or write returns when it would have to wait; @errp is not set then. */
#define QIO_CHANNEL_ERR_BLOCK (-2)

/* Most file descriptors that one write can carry. */
#define QIO_CHANNEL_FDS_MAX 253

/*
 * Called when a watch fires, with what is true of the channel: the conditions asked for, and
 * G_IO_HUP and G_IO_ERR always. Returns G_SOURCE_CONTINUE or G_SOURCE_REMOVE.
 */
typedef gboolean (*QIOChannelFunc)(QIOChannel *ioc, GIOCondition condition, gpointer opaque);

/* References, names, features -------------------------------------------------------------- */

/* Take a reference; returns @ioc. NULL is allowed, here and in unref. */
QIOChannel *qio_channel_ref(QIOChannel *ioc);
void qio_channel_unref(QIOChannel *ioc);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QIOChannel, qio_channel_unref)

/* A name for people who debug, such as "migration-socket-outgoing"; copied. */
void qio_channel_set_name(QIOChannel *ioc, const char *name);
/* The name; the kind's name when none was set. Never NULL. */
const char *qio_channel_get_name(QIOChannel *ioc);
/* The kind and what it is open on, as in error messages: `file '/x/y'`, `socket`. g_free() it. */
char *qio_channel_describe(QIOChannel *ioc);

/*
 * What the channel is open on, for messages ("file 'TARGET'"), when it was made from a descriptor
 * and the caller knows better. Before other threads use it. @target is copied.
 */
void qio_channel_set_target(QIOChannel *ioc, const char *target);

/* Features are set when the channel is made and do not change. */
bool qio_channel_has_feature(QIOChannel *ioc, QIOChannelFeature feature);

/* Streams ------------------------------------------------------------------------------------ */

/*
 * qio_channel_readv_full:
 * @ioc: the channel
 * @iov, @niov: where the bytes go
 * @fds, @nfds: both NULL, or where received file descriptors go: *@fds becomes an array to
 *     g_free(), of *@nfds descriptors to close, close-on-exec; or NULL and 0. With @fds NULL,
 *     descriptors that arrive are closed.
 * @errp: where an error goes
 *
 * Read what is there, at least one byte.
 *
 * Returns: the number of bytes, 0 at the end of file (or when the vector has no room),
 * QIO_CHANNEL_ERR_BLOCK, or -1 with @errp set.
 */
ssize_t qio_channel_readv_full(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                               size_t *nfds, Error **errp);
/*
 * qio_channel_writev_full:
 * @fds, @nfds: file descriptors to send along, at most QIO_CHANNEL_FDS_MAX, or NULL and 0; they
 *     stay the caller's. They go with the first byte, so @niov must hold at least one. An error on
 *     a channel without QIO_CHANNEL_FEATURE_FD_PASS.
 *
 * Write as much as goes; on a blocking channel that may still be less than all.
 *
 * Returns: the number of bytes, QIO_CHANNEL_ERR_BLOCK, or -1 with @errp set.
 */
ssize_t qio_channel_writev_full(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const int *fds, size_t nfds, Error **errp);

/* The same without file descriptors, and with one buffer. */
ssize_t qio_channel_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp);
ssize_t qio_channel_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp);
ssize_t qio_channel_read(QIOChannel *ioc, void *buf, size_t len, Error **errp);
ssize_t qio_channel_write(QIOChannel *ioc, const void *buf, size_t len, Error **errp);

/*
 * Read exactly as much as the vector holds, waiting as long as it takes. The end of the file before
 * the first byte is not an error for the functions with `eof` in their name; anywhere else it is
 * "Unexpected end-of-file before all data were read".
 *
 * Returns: 1 when all was read, 0 at such an end of file, -1 with @errp set.
 */
int qio_channel_readv_all_eof(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp);
int qio_channel_readv_full_all_eof(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                   int **fds, size_t *nfds, Error **errp);
int qio_channel_read_all_eof(QIOChannel *ioc, void *buf, size_t len, Error **errp);
/* The same, and every end of file is an error. Returns 0, or -1 with @errp set. */
int qio_channel_readv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp);
int qio_channel_read_all(QIOChannel *ioc, void *buf, size_t len, Error **errp);

/* Write all of it, waiting as long as it takes. Returns 0, or -1 with @errp set. */
int qio_channel_writev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, Error **errp);
int qio_channel_writev_full_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                const int *fds, size_t nfds, Error **errp);
int qio_channel_write_all(QIOChannel *ioc, const void *buf, size_t len, Error **errp);

/*
 * qio_channel_writev_lent_all:
 * @iov, @niov: whole of it is written, waiting as long as it takes
 *
 * Write without a copy, where the channel can (QIO_CHANNEL_FEATURE_LEND): the kernel takes
 * references to the pages that the vector names, and the peer's read copies out of them. What it
 * reads is what they hold then: whatever is stored there before the peer has read it, it may see.
 * Who cannot live with that gives the pages up instead of using them again (util/fresh-pages.h);
 * unmapping them is harmless at any time. Nothing tells when the peer has read, except its own
 * word. A channel without the feature copies.
 *
 * Returns: 0, or -1 with @errp set; how much was written is unknown then.
 */
int qio_channel_writev_lent_all(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                Error **errp);

/* Positions: channels with QIO_CHANNEL_FEATURE_SEEKABLE ------------------------------------- */

/*
 * Read or write at @offset bytes from the beginning of the file; the position of the stream stays
 * where it is. A short count means the end of the file (read) or no more room for now (write).
 * Returns the number of bytes, or -1 with @errp set.
 */
ssize_t qio_channel_preadv(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           Error **errp);
ssize_t qio_channel_pwritev(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            Error **errp);
/* All of it; the end of the file is an error that says at which offset. 0, or -1 with @errp set. */
int qio_channel_preadv_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                           Error **errp);
int qio_channel_pread_all(QIOChannel *ioc, void *buf, size_t len, off_t offset, Error **errp);
int qio_channel_pwritev_all(QIOChannel *ioc, const struct iovec *iov, size_t niov, off_t offset,
                            Error **errp);
int qio_channel_pwrite_all(QIOChannel *ioc, const void *buf, size_t len, off_t offset,
                           Error **errp);
/* Move the stream's position as lseek(2) does. Returns it, or -1 with @errp set. */
off_t qio_channel_io_seek(QIOChannel *ioc, off_t offset, int whence, Error **errp);

/* State -------------------------------------------------------------------------------------- */

/* Returns 0, or -1 with @errp set. */
int qio_channel_set_blocking(QIOChannel *ioc, bool enabled, Error **errp);

/* Send small packets at once (true) or gather them; does nothing where that has no meaning. */
void qio_channel_set_delay(QIOChannel *ioc, bool enabled);

/*
 * End one direction or both, for good, without closing; wakes whoever waits. Calling it again is
 * harmless. Returns 0, or -1 with @errp set.
 */
int qio_channel_shutdown(QIOChannel *ioc, QIOChannelShutdown how, Error **errp);

/*
 * Close, and report what only closing shows: a write error that the system held back, the exit
 * status of a command. The channel is closed also when this fails. A second call does nothing and
 * succeeds. Returns 0, or -1 with @errp set.
 */
int qio_channel_close(QIOChannel *ioc, Error **errp);

/*
 * The file descriptor that both directions use, to hand to io_uring, poll or fstat; -1 when there
 * is none (memory) or two (a command with both pipes). It stays the channel's.
 */
int qio_channel_get_fd(QIOChannel *ioc);

/* Waiting ------------------------------------------------------------------------------------ */

/*
 * Sleep until @condition (G_IO_IN, G_IO_OUT or both), an error or hang-up is there, or the channel
 * is shut down; at most @timeout_ms milliseconds, -1 for ever. Returns whether any of it happened.
 */
bool qio_channel_wait_timeout(QIOChannel *ioc, GIOCondition condition, int timeout_ms);
void qio_channel_wait(QIOChannel *ioc, GIOCondition condition);

/*
 * A GSource that fires while @condition is true; its callback is a QIOChannelFunc. It holds a
 * reference to the channel. Attach it to a context, then g_source_unref() it; destroy it before
 * the channel is closed.
 */
GSource *qio_channel_create_watch(QIOChannel *ioc, GIOCondition condition);
/* The same, attached to @context (NULL: the default one). Returns the source's id there. */
guint qio_channel_add_watch_full(QIOChannel *ioc, GIOCondition condition, QIOChannelFunc func,
                                 gpointer opaque, GDestroyNotify notify, GMainContext *context);
guint qio_channel_add_watch(QIOChannel *ioc, GIOCondition condition, QIOChannelFunc func,
                            gpointer opaque, GDestroyNotify notify);

#endif
