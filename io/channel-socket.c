/*
 * Channels over sockets.
 *
 * The kernel does nearly all of it: shutdown(2) wakes sleepers and both modes of blocking are real.
 * A blocking channel may still meet a socket that somebody else, who shares it, made non-blocking;
 * it then waits in poll.
 *
 * Lending. splice(2) moves references to pages from a pipe into a UNIX socket, and vmsplice(2) puts
 * those of our own memory into the pipe. The pipe is empty between two writes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/channel-class.h"
#include "io/sockets.h"

struct QIOChannelSocket {
    QIOChannel parent;
    int fd;
    int family;
    /* A listening UNIX socket: what to remove at its end. */
    char *path;
    dev_t path_dev;
    ino_t path_ino;
    /* What pages are lent through: -1, not made yet. */
    int lend_pipe[2];
    bool no_lending;            /* was tried and does not work here */
};

/* Takes 128 pages with a record's header before each. */
#define LEND_PIPE_BYTES (1024 * 1024)
/* With less it costs more than it saves. */
#define LEND_PIPE_MIN_BYTES (64 * 1024)

typedef union FdBuffer {
    char bytes[CMSG_SPACE(sizeof(int) * QIO_CHANNEL_FDS_MAX)];
    struct cmsghdr align;
} FdBuffer;

/* Receiving and sending ---------------------------------------------------------------------- */

/* Take the descriptors out of a message; the caller closes or keeps them. */
static int *take_fds(struct msghdr *msg, size_t *nfds)
{
    int *fds = NULL;

    *nfds = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        fds = g_renew(int, fds, *nfds + n);
        memcpy(fds + *nfds, CMSG_DATA(c), n * sizeof(int));
        *nfds += n;
    }
    return fds;
}

/* Deal with what came beside the bytes: 0, or -1 when descriptors were lost on the way. */
static int receive_fds(QIOChannel *ioc, struct msghdr *msg, int **fds, size_t *nfds, Error **errp)
{
    size_t n;
    g_autofree int *got = take_fds(msg, &n);
    bool lost = msg->msg_flags & MSG_CTRUNC;

    if (fds && n && !lost) {
        *fds = g_steal_pointer(&got);
        *nfds = n;
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        close(got[i]);
    }
    return fds && lost ? qio_channel_fail(ioc, "receive file descriptors from", EMFILE, errp) : 0;
}

/* Whether to try again after @err: a signal, or the end of a wait. Sets *ret when not. */
static bool again(QIOChannel *ioc, GIOCondition condition, int err, ssize_t *ret)
{
    if (err == EINTR) {
        return true;
    }
    if (err != EAGAIN) {
        *ret = -1;
        return false;
    }
    if (!ioc->blocking) {
        *ret = QIO_CHANNEL_ERR_BLOCK;
        return false;
    }
    qio_channel_wait(ioc, condition);
    return true;
}

static ssize_t socket_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov, int **fds,
                            size_t *nfds, Error **errp)
{
    QIOChannelSocket *s = (QIOChannelSocket *)ioc;
    FdBuffer control;
    ssize_t n, ret;

    for (;;) {
        struct msghdr msg = {
            .msg_iov = (struct iovec *)iov,
            .msg_iovlen = MIN(niov, IOV_MAX),
        };
        if (s->family == AF_UNIX) {
            msg.msg_control = &control;
            msg.msg_controllen = sizeof(control);
        }
        n = recvmsg(s->fd, &msg, MSG_CMSG_CLOEXEC);
        if (n >= 0) {
            return s->family == AF_UNIX && receive_fds(ioc, &msg, fds, nfds, errp) < 0 ? -1 : n;
        }
        int err = errno;
        if (!again(ioc, G_IO_IN, err, &ret)) {
            return ret == -1 ? qio_channel_fail(ioc, "read from", err, errp) : ret;
        }
    }
}

static ssize_t socket_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             const int *fds, size_t nfds, Error **errp)
{
    QIOChannelSocket *s = (QIOChannelSocket *)ioc;
    FdBuffer control;
    ssize_t n, ret;
    struct msghdr msg = {
        .msg_iov = (struct iovec *)iov,
        .msg_iovlen = MIN(niov, IOV_MAX),
    };

    if (nfds) {
        memset(&control, 0, sizeof(control));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(&control.align), fds, nfds * sizeof(int));
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
    }
    for (;;) {
        n = sendmsg(s->fd, &msg, MSG_NOSIGNAL);
        if (n >= 0) {
            return n;
        }
        int err = errno;
        if (!again(ioc, G_IO_OUT, err, &ret)) {
            return ret == -1 ? qio_channel_fail(ioc, "write to", err, errp) : ret;
        }
    }
}

/* Lending ------------------------------------------------------------------------------------ */

static void close_lend_pipe(QIOChannelSocket *s)
{
    for (int i = 0; i < 2; i++) {
        if (s->lend_pipe[i] >= 0) {
            close(s->lend_pipe[i]);
            s->lend_pipe[i] = -1;
        }
    }
}

static bool make_lend_pipe(QIOChannelSocket *s)
{
    int size;

    if (s->no_lending || s->lend_pipe[0] >= 0) {
        return !s->no_lending;
    }
    /* splice(2) has no flag against it. */
    qio_channel_ignore_sigpipe();
    if (pipe2(s->lend_pipe, O_CLOEXEC) < 0) {
        s->lend_pipe[0] = s->lend_pipe[1] = -1;
        s->no_lending = true;
        return false;
    }
    size = fcntl(s->lend_pipe[1], F_SETPIPE_SZ, LEND_PIPE_BYTES);
    if (size < 0) {
        /* This user has many large pipes. */
        size = fcntl(s->lend_pipe[1], F_GETPIPE_SZ);
    }
    if (size < LEND_PIPE_MIN_BYTES) {
        close_lend_pipe(s);
        s->no_lending = true;
    }
    return !s->no_lending;
}

/* Everything in the pipe, @n bytes, into the socket. */
static int splice_out(QIOChannelSocket *s, size_t n, Error **errp)
{
    QIOChannel *ioc = &s->parent;

    while (n) {
        ssize_t done = splice(s->lend_pipe[0], NULL, s->fd, NULL, n, 0);

        if (done > 0) {
            n -= done;
        } else if (done < 0 && errno == EAGAIN) {
            qio_channel_wait(ioc, G_IO_OUT);
        } else if (done == 0 || errno != EINTR) {
            return qio_channel_fail(ioc, "write to", done ? errno : EPIPE, errp);
        }
    }
    return 0;
}

static ssize_t socket_writev_lent(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                                  Error **errp)
{
    QIOChannelSocket *s = (QIOChannelSocket *)ioc;
    ssize_t n;

    if (make_lend_pipe(s)) {
        n = vmsplice(s->lend_pipe[1], iov, MIN(niov, IOV_MAX), SPLICE_F_NONBLOCK);
        if (n > 0) {
            return splice_out(s, n, errp) < 0 ? -1 : n;
        }
        /* Forbidden to us, or memory that is no pages: copying tells why, if that fails too. */
        s->no_lending = true;
    }
    for (;;) {
        n = socket_writev(ioc, iov, niov, NULL, 0, errp);
        if (n != QIO_CHANNEL_ERR_BLOCK) {
            return n;
        }
        qio_channel_wait(ioc, G_IO_OUT);
    }
}

/* State -------------------------------------------------------------------------------------- */

static int socket_set_blocking(QIOChannel *ioc, bool enabled, Error **errp)
{
    int fd = ((QIOChannelSocket *)ioc)->fd;
    int flags = fcntl(fd, F_GETFL);
    int want = enabled ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;

    if (flags < 0 || (want != flags && fcntl(fd, F_SETFL, want) < 0)) {
        return qio_channel_fail(ioc, "set the blocking mode of", errno, errp);
    }
    return 0;
}

static void socket_set_delay(QIOChannel *ioc, bool enabled)
{
    QIOChannelSocket *s = (QIOChannelSocket *)ioc;

    if (s->family == AF_INET || s->family == AF_INET6) {
        setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &(int) { !enabled }, sizeof(int));
    }
}

static int socket_shutdown(QIOChannel *ioc, QIOChannelShutdown how, Error **errp)
{
    static const int hows[] = {
        [QIO_CHANNEL_SHUTDOWN_READ] = SHUT_RD,
        [QIO_CHANNEL_SHUTDOWN_WRITE] = SHUT_WR,
        [QIO_CHANNEL_SHUTDOWN_BOTH] = SHUT_RDWR,
    };

    /* A peer that is gone already has done it for us. */
    if (shutdown(((QIOChannelSocket *)ioc)->fd, hows[how]) < 0 && errno != ENOTCONN) {
        return qio_channel_fail(ioc, "shut down", errno, errp);
    }
    return 0;
}

static int socket_close(QIOChannel *ioc, Error **errp)
{
    QIOChannelSocket *s = (QIOChannelSocket *)ioc;
    struct stat st;

    if (s->path && lstat(s->path, &st) == 0 && st.st_dev == s->path_dev &&
        st.st_ino == s->path_ino) {
        unlink(s->path);
    }
    close_lend_pipe(s);
    return close(s->fd) < 0 ? qio_channel_fail(ioc, "close", errno, errp) : 0;
}

static int socket_poll_fd(QIOChannel *ioc, GIOCondition direction)
{
    return ((QIOChannelSocket *)ioc)->fd;
}

static void socket_finalize(QIOChannel *ioc)
{
    g_free(((QIOChannelSocket *)ioc)->path);
}

static const QIOChannelClass socket_class = {
    .type_name = "socket",
    .readv = socket_readv,
    .writev = socket_writev,
    .writev_lent = socket_writev_lent,
    .set_blocking = socket_set_blocking,
    .set_delay = socket_set_delay,
    .shutdown = socket_shutdown,
    .close = socket_close,
    .poll_fd = socket_poll_fd,
    .finalize = socket_finalize,
};

QIOChannelSocket *qio_channel_socket_cast(QIOChannel *ioc)
{
    return qio_channel_is(ioc, &socket_class) ? (QIOChannelSocket *)ioc : NULL;
}

/* Construction ------------------------------------------------------------------------------- */

QIOChannelSocket *qio_channel_socket_new_fd(int fd, Error **errp)
{
    int listening = 0, family = 0;
    socklen_t len = sizeof(int), len2 = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &len2) < 0) {
        error_setg_errno(errp, errno, "Could not use file descriptor %d as a socket", fd);
        if (errno != EBADF) {
            close(fd);
        }
        return NULL;
    }

    QIOChannelSocket *s = qio_channel_alloc(sizeof(*s), &socket_class);
    s->fd = fd;
    s->family = family;
    s->lend_pipe[0] = s->lend_pipe[1] = -1;
    if (listening) {
        qio_channel_set_feature(&s->parent, QIO_CHANNEL_FEATURE_LISTEN);
    } else if (family == AF_UNIX) {
        qio_channel_set_feature(&s->parent, QIO_CHANNEL_FEATURE_FD_PASS);
        qio_channel_set_feature(&s->parent, QIO_CHANNEL_FEATURE_LEND);
    }
    if (qio_channel_set_blocking(&s->parent, true, errp) < 0) {
        qio_channel_unref(&s->parent);
        return NULL;
    }
    qio_channel_set_delay(&s->parent, false);
    return s;
}

QIOChannelSocket *qio_channel_socket_connect_sync(const SocketAddress *addr, int cancel_fd,
                                                  Error **errp)
{
    int fd = socket_connect(addr, cancel_fd, errp);
    QIOChannelSocket *s = fd < 0 ? NULL : qio_channel_socket_new_fd(fd, errp);

    if (s) {
        s->parent.target = socket_describe(addr);
    }
    return s;
}

QIOChannelSocket *qio_channel_socket_listen_sync(const SocketAddress *addr, int backlog,
                                                 Error **errp)
{
    int fd = socket_listen(addr, backlog, errp);
    QIOChannelSocket *s = fd < 0 ? NULL : qio_channel_socket_new_fd(fd, errp);
    struct stat st;

    if (!s) {
        return NULL;
    }
    s->parent.target = socket_describe(addr);
    if (addr->type == SOCKET_ADDRESS_TYPE_UNIX &&
        !(addr->u.q_unix.has_abstract && addr->u.q_unix.abstract) &&
        lstat(addr->u.q_unix.path, &st) == 0) {
        s->path = g_strdup(addr->u.q_unix.path);
        s->path_dev = st.st_dev;
        s->path_ino = st.st_ino;
    }
    return s;
}

QIOChannelSocket *qio_channel_socket_accept(QIOChannelSocket *s, Error **errp)
{
    QIOChannel *ioc = &s->parent;
    ssize_t ret;

    for (;;) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0) {
            return qio_channel_socket_new_fd(fd, errp);
        }
        int err = errno;
        if (qio_channel_ended(ioc, CHANNEL_ENDED_READ)) {
            return NULL;
        }
        /* A client that went away while it waited is none. */
        if (err == ECONNABORTED || again(ioc, G_IO_IN, err, &ret)) {
            continue;
        }
        if (ret == -1) {
            qio_channel_fail(ioc, "accept a connection on", err, errp);
        }
        return NULL;
    }
}

SocketAddress *qio_channel_socket_get_local_address(QIOChannelSocket *s, Error **errp)
{
    return socket_local_address(s->fd, errp);
}

SocketAddress *qio_channel_socket_get_remote_address(QIOChannelSocket *s, Error **errp)
{
    return socket_remote_address(s->fd, errp);
}

void qio_channel_socket_set_buffer_size(QIOChannelSocket *s, unsigned bytes)
{
    int size = MIN(bytes, INT_MAX / 2);

    if (s->family != AF_INET && s->family != AF_INET6) {
        /* The administrator's limit is for those who may not go beyond it. */
        if (setsockopt(s->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0) {
            setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        }
        setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    }
}
