/*
 * Making sockets.
 *
 * An address of the schema becomes a list of kernel addresses (inet: what the resolver says; the
 * others: one), and connecting and listening are loops over such a list that know nothing of
 * families but where these really differ: IPv6 sockets that take IPv4 too, paths that lie in the
 * file system.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "io/fd-resolver.h"
#include "util/cutils.h"

/* A full backlog of a UNIX socket has no event to wait for: look again this often. */
#define UNIX_RETRY_MS 10

/* One address in the kernel's form. */
typedef struct Candidate {
    struct sockaddr_storage sa;
    socklen_t len;
    bool dual;      /* an IPv6 wildcard that shall take IPv4 too */
} Candidate;

/* Schema to kernel --------------------------------------------------------------------------- */

/* The families that the ipv4 and ipv6 members leave; each defaults to the opposite of the other. */
static bool inet_families(const InetSocketAddress *inet, bool *v4, bool *v6, Error **errp)
{
    *v4 = inet->has_ipv4 ? inet->ipv4 : !(inet->has_ipv6 && inet->ipv6);
    *v6 = inet->has_ipv6 ? inet->ipv6 : !(inet->has_ipv4 && inet->ipv4);
    if (!*v4 && !*v6) {
        error_setg(errp, "Cannot disable IPv4 and IPv6 at same time");
    }
    return *v4 || *v6;
}

static void add_inet(GArray *list, const struct addrinfo *ai, bool dual)
{
    Candidate c = { .len = ai->ai_addrlen, .dual = dual && ai->ai_family == AF_INET6 };

    memcpy(&c.sa, ai->ai_addr, ai->ai_addrlen);
    /*
     * A dual socket covers the IPv4 wildcard, so it comes first; the other is for hosts without it.
     */
    if (c.dual) {
        g_array_prepend_val(list, c);
    } else {
        g_array_append_val(list, c);
    }
}

/* A number is the resolver's to read, but it takes any and keeps 16 bits; a name is its alone. */
static bool check_port(const InetSocketAddress *inet, Error **errp)
{
    char *end;
    unsigned long long port = strtoull(inet->port, &end, 10);

    if (end != inet->port && !*end && port > UINT16_MAX) {
        error_setg(errp, "address resolution failed for %s:%s: a port is at most %d", inet->host,
                   inet->port, UINT16_MAX);
        return false;
    }
    return true;
}

static bool resolve_inet(GArray *list, const InetSocketAddress *inet, bool passive, Error **errp)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0 };
    struct addrinfo *result, *ai;
    bool v4, v6, any_host = !*inet->host;

    if (!inet_families(inet, &v4, &v6, errp) || !check_port(inet, errp)) {
        return false;
    }
    hints.ai_family = v4 && v6 ? AF_UNSPEC : v4 ? AF_INET : AF_INET6;
    if (inet->has_numeric && inet->numeric) {
        hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    }

    int ret = getaddrinfo(any_host ? NULL : inet->host, inet->port, &hints, &result);
    if (ret) {
        error_setg(errp, "address resolution failed for %s:%s: %s", inet->host, inet->port,
                   ret == EAI_SYSTEM ? g_strerror(errno) : gai_strerror(ret));
        return false;
    }
    for (ai = result; ai; ai = ai->ai_next) {
        if (ai->ai_family == AF_INET || ai->ai_family == AF_INET6) {
            add_inet(list, ai, passive && any_host && v4 && v6);
        }
    }
    freeaddrinfo(result);
    if (!list->len) {
        error_setg(errp, "address resolution failed for %s:%s: no address", inet->host, inet->port);
    }
    return list->len;
}

static bool resolve_unix(GArray *list, const UnixSocketAddress *q_unix, Error **errp)
{
    Candidate c = { 0 };
    struct sockaddr_un *un = (struct sockaddr_un *)&c.sa;
    bool abstract = q_unix->has_abstract && q_unix->abstract;
    bool tight = !q_unix->has_tight || q_unix->tight;
    size_t len = strlen(q_unix->path);

    un->sun_family = AF_UNIX;
    /* An abstract name has a zero before it, a path one behind it. */
    if (len + 1 > sizeof(un->sun_path)) {
        error_setg(errp, "UNIX socket path '%s' is too long", q_unix->path);
        error_append_hint(errp, "Path must be less than %zu bytes\n", sizeof(un->sun_path));
        return false;
    }
    if (!len) {
        error_setg(errp, "UNIX socket path is empty");
        return false;
    }
    memcpy(un->sun_path + abstract, q_unix->path, len);
    c.len = abstract && tight ? offsetof(struct sockaddr_un, sun_path) + 1 + len : sizeof(*un);
    g_array_append_val(list, c);
    return true;
}

static bool resolve_vsock(GArray *list, const VsockSocketAddress *vsock, Error **errp)
{
    Candidate c = { .len = sizeof(struct sockaddr_vm) };
    struct sockaddr_vm *vm = (struct sockaddr_vm *)&c.sa;
    uint64_t cid, port;

    if (!parse_uint64_range(vsock->cid, 0, UINT32_MAX, &cid, errp) ||
        !parse_uint64_range(vsock->port, 0, UINT32_MAX, &port, errp)) {
        error_prepend(errp, "Invalid vsock address: ");
        return false;
    }
    vm->svm_family = AF_VSOCK;
    vm->svm_cid = cid;
    vm->svm_port = port;
    g_array_append_val(list, c);
    return true;
}

static GArray *candidates(const SocketAddress *addr, bool passive, Error **errp)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(Candidate));
    bool ok;

    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        ok = resolve_inet(list, &addr->u.inet, passive, errp);
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        ok = resolve_unix(list, &addr->u.q_unix, errp);
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        ok = resolve_vsock(list, &addr->u.vsock, errp);
        break;
    default:
        g_assert_not_reached();
    }
    return ok ? g_steal_pointer(&list) : NULL;
}

/* The descriptor that an `fd` address means, if it is a socket. */
static int get_fd(const SocketAddress *addr, Error **errp)
{
    const char *name = addr->u.fd.str;
    int fd = io_fd_get(name, errp);
    struct stat st;

    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode))) {
        error_setg(errp, "File descriptor '%s' is not a socket", name);
        close(fd);
        return -1;
    }
    return fd;
}

/* Connecting --------------------------------------------------------------------------------- */

/*
 * Wait for @events on @fd (-1: only for the time), or for the cancel. An errno value: 0, ECANCELED,
 * or poll's.
 */
static int wait_or_cancel(int fd, short events, int cancel_fd, int timeout_ms)
{
    struct pollfd p[] = {
        { .fd = fd, .events = events },
        { .fd = cancel_fd, .events = POLLIN },
    };

    while (poll(p, G_N_ELEMENTS(p), timeout_ms) < 0) {
        if (errno != EINTR) {
            return errno;
        }
    }
    return p[1].revents ? ECANCELED : 0;
}

/* Connect a non-blocking socket; an errno value. */
static int connect_fd(int fd, const Candidate *c, int cancel_fd)
{
    int err = 0;
    socklen_t len = sizeof(err);

    for (;;) {
        if (connect(fd, (const struct sockaddr *)&c->sa, c->len) == 0 || errno == EISCONN) {
            return 0;
        }
        if (errno == EAGAIN && c->sa.ss_family == AF_UNIX) {
            err = wait_or_cancel(-1, 0, cancel_fd, UNIX_RETRY_MS);
            if (err) {
                return err;
            }
            continue;
        }
        if (errno != EINPROGRESS && errno != EINTR && errno != EALREADY) {
            return errno;
        }
        err = wait_or_cancel(fd, POLLOUT, cancel_fd, -1);
        if (err) {
            return err;
        }
        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno : err;
    }
}

static int set_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

/* A connected socket or a negative errno value. */
static int connect_candidate(const Candidate *c, int cancel_fd)
{
    int fd = socket(c->sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return -errno;
    }
    int err = connect_fd(fd, c, cancel_fd);
    if (!err && set_blocking(fd) < 0) {
        err = errno;
    }
    if (err) {
        close(fd);
        return -err;
    }
    return fd;
}

int socket_connect(const SocketAddress *addr, int cancel_fd, Error **errp)
{
    int fd = -EINVAL;

    if (addr->type == SOCKET_ADDRESS_TYPE_FD) {
        return get_fd(addr, errp);
    }

    g_autoptr(GArray) list = candidates(addr, false, errp);
    if (!list) {
        return -1;
    }
    for (guint i = 0; i < list->len; i++) {
        fd = connect_candidate(&g_array_index(list, Candidate, i), cancel_fd);
        if (fd >= 0 || fd == -ECANCELED) {
            break;
        }
    }
    if (fd < 0) {
        g_autofree char *where = socket_describe(addr);
        error_setg_errno(errp, -fd, "Failed to connect to '%s'", where);
        return -1;
    }
    if (addr->type == SOCKET_ADDRESS_TYPE_INET && addr->u.inet.has_keep_alive &&
        addr->u.inet.keep_alive) {
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int) { 1 }, sizeof(int));
    }
    return fd;
}

/* Listening ---------------------------------------------------------------------------------- */

/* Remove the socket that lies at a path when nobody listens on it any more. */
static void remove_stale(const Candidate *c)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&c->sa;
    struct stat st;

    if (!un->sun_path[0] || lstat(un->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    if (connect(fd, (const struct sockaddr *)un, c->len) < 0 && errno == ECONNREFUSED) {
        unlink(un->sun_path);
    }
    close(fd);
}

static void set_port(Candidate *c, unsigned port)
{
    if (c->sa.ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)&c->sa)->sin6_port = htons(port);
    } else {
        ((struct sockaddr_in *)&c->sa)->sin_port = htons(port);
    }
}

/* A listening socket or a negative errno value. */
static int listen_candidate(const Candidate *c, int backlog)
{
    int family = c->sa.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    if (family == AF_UNIX) {
        remove_stale(c);
    } else if (family == AF_INET || family == AF_INET6) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int) { 1 }, sizeof(int));
    }
    if (family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int) { !c->dual }, sizeof(int));
    }
    if (bind(fd, (const struct sockaddr *)&c->sa, c->len) < 0 || listen(fd, backlog) < 0) {
        int err = errno;
        close(fd);
        return -err;
    }
    return fd;
}

/* The number of the port that the resolver made of a name. */
static unsigned get_port(const Candidate *c)
{
    return ntohs(c->sa.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&c->sa)->sin6_port
                                             : ((const struct sockaddr_in *)&c->sa)->sin_port);
}

static int listen_inet(const InetSocketAddress *inet, GArray *list, int backlog, Error **errp)
{
    unsigned first = get_port(&g_array_index(list, Candidate, 0));
    unsigned last = inet->has_to ? inet->to : first;
    int fd = -EADDRINUSE;

    if (inet->has_keep_alive && inet->keep_alive) {
        error_setg(errp, "keep-alive option is not supported for passive sockets");
        return -1;
    }
    if (last < first) {
        error_setg(errp, "Port range '%u' to '%u' is empty", first, last);
        return -1;
    }
    for (unsigned port = first; port <= last; port++) {
        for (guint i = 0; i < list->len; i++) {
            Candidate *c = &g_array_index(list, Candidate, i);

            set_port(c, port);
            fd = listen_candidate(c, backlog);
            /* A port in use is in use for all; another error may be of this address alone. */
            if (fd >= 0 || fd == -EADDRINUSE) {
                break;
            }
        }
        if (fd >= 0) {
            return fd;
        }
        if (fd != -EADDRINUSE) {
            break;
        }
    }
    error_setg_errno(errp, -fd, "Failed to bind socket to '%s:%s'", inet->host, inet->port);
    return -1;
}

int socket_listen(const SocketAddress *addr, int backlog, Error **errp)
{
    int fd;

    if (addr->type == SOCKET_ADDRESS_TYPE_FD) {
        fd = get_fd(addr, errp);
        if (fd >= 0 && listen(fd, backlog) < 0) {
            error_setg_errno(errp, errno, "Failed to listen on fd socket");
            close(fd);
            return -1;
        }
        return fd;
    }

    g_autoptr(GArray) list = candidates(addr, true, errp);
    if (!list) {
        return -1;
    }
    if (addr->type == SOCKET_ADDRESS_TYPE_INET) {
        return listen_inet(&addr->u.inet, list, backlog, errp);
    }
    fd = listen_candidate(&g_array_index(list, Candidate, 0), backlog);
    if (fd < 0) {
        g_autofree char *where = socket_describe(addr);
        error_setg_errno(errp, -fd, "Failed to bind socket to '%s'", where);
        return -1;
    }
    return fd;
}

GPtrArray *socket_resolve(const SocketAddress *addr, Error **errp)
{
    g_autoptr(GPtrArray) result =
        g_ptr_array_new_with_free_func((GDestroyNotify)qapi_free_SocketAddress);

    if (addr->type != SOCKET_ADDRESS_TYPE_INET || !*addr->u.inet.host) {
        g_ptr_array_add(result, socket_address_copy(addr));
        return g_steal_pointer(&result);
    }

    g_autoptr(GArray) list = candidates(addr, true, errp);
    for (guint i = 0; list && i < list->len; i++) {
        Candidate *c = &g_array_index(list, Candidate, i);
        SocketAddress *one = socket_address_from_sockaddr(&c->sa, c->len, errp);

        if (!one) {
            return NULL;
        }
        one->u.inet.has_numeric = one->u.inet.numeric = true;
        one->u.inet.has_to = addr->u.inet.has_to;
        one->u.inet.to = addr->u.inet.to;
        one->u.inet.has_keep_alive = addr->u.inet.has_keep_alive;
        one->u.inet.keep_alive = addr->u.inet.keep_alive;
        g_ptr_array_add(result, one);
    }
    return result->len ? g_steal_pointer(&result) : NULL;
}
