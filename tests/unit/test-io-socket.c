/*
 * Sockets: addresses as text, listening, connecting, cancelling, descriptors through UNIX sockets.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netdb.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "io/fd-resolver.h"
#include "io/net-listener.h"
#include "io/sockets.h"
#include "util/fresh-pages.h"

static char *dir;

static void check_error(Error *err, const char *msg)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, msg);
    error_free(err);
}

/* Addresses ---------------------------------------------------------------------------------- */

static void test_parse_flags(void)
{
    g_autoptr(SocketAddress) addr = socket_parse("tcp:[::]:0,ipv6,to=9", &error_abort);

    g_assert_true(addr->u.inet.has_ipv6 && addr->u.inet.ipv6);
    g_assert_false(addr->u.inet.has_ipv4);
    g_assert_cmpint(addr->u.inet.to, ==, 9);
}

static void test_parse(void)
{
    static const struct {
        const char *text, *uri;
    } same[] = {
        { "localhost:4444", "tcp:localhost:4444" },
        { "tcp:10.0.0.1:80", "tcp:10.0.0.1:80" },
        { ":0", "tcp::0" },
        { "[::1]:22", "tcp:[::1]:22" },
        { "[fe80::1%eth0]:ssh", "tcp:[fe80::1%eth0]:ssh" },
        { "unix:/tmp/a b:c,d", "unix:/tmp/a b:c,d" },
        { "vsock:3:1024", "vsock:3:1024" },
        { "fd:mig", "fd:mig" },
        { "fd:7", "fd:7" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(same); i++) {
        g_autoptr(SocketAddress) addr = socket_parse(same[i].text, &error_abort);
        g_autofree char *uri = socket_uri(addr);
        g_autoptr(SocketAddress) again = socket_parse(uri, &error_abort);
        g_autofree char *uri2 = socket_uri(again);

        g_assert_cmpstr(uri, ==, same[i].uri);
        g_assert_cmpstr(uri2, ==, same[i].uri);
    }
}

static void test_parse_options(void)
{
    g_autoptr(SocketAddress) addr = socket_parse("h:1,to=9,ipv4=on,ipv6=off,keep-alive=on",
                                                 &error_abort);
    InetSocketAddress *inet = &addr->u.inet;

    g_assert_cmpstr(inet->host, ==, "h");
    g_assert_cmpstr(inet->port, ==, "1");
    g_assert_true(inet->has_to && inet->to == 9);
    g_assert_true(inet->has_ipv4 && inet->ipv4);
    g_assert_true(inet->has_ipv6 && !inet->ipv6);
    g_assert_true(inet->has_keep_alive && inet->keep_alive);
    g_assert_false(inet->has_numeric);
}

static void test_parse_bad(void)
{
    static const struct {
        const char *text, *msg;
    } bad[] = {
        { "", "error parsing address '': HOST:PORT is expected" },
        { "host", "error parsing address 'host': HOST:PORT is expected" },
        { "host:", "error parsing address 'host:': HOST:PORT is expected" },
        { "::1:22", "error parsing address '::1:22': HOST:PORT is expected" },
        { "[::1]22", "error parsing address '[::1]22': HOST:PORT is expected" },
        { "[::1", "error parsing address '[::1': HOST:PORT is expected" },
        { "unix:", "invalid Unix socket address" },
        { "fd:", "invalid file descriptor address" },
        { "vsock:3", "error parsing address 'vsock:3': CID:PORT is expected" },
        { "vsock:x:1", "error parsing address 'vsock:x:1': 'x' is not a number" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        Error *err = NULL;
        g_assert_null(socket_parse(bad[i].text, &err));
        check_error(err, bad[i].msg);
    }

    Error *err = NULL;
    g_assert_null(socket_parse("h:1,speed=5", &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "speed"));
    error_free(err);
}

static void test_address_from_kernel(void)
{
    struct sockaddr_storage sa = { 0 };
    struct sockaddr_un *un = (struct sockaddr_un *)&sa;
    g_autoptr(Error) err = NULL;

    un->sun_family = AF_UNIX;
    strcpy(un->sun_path, "/x");
    g_autoptr(SocketAddress) path = socket_address_from_sockaddr(&sa, sizeof(*un), &error_abort);
    g_assert_cmpstr(path->u.q_unix.path, ==, "/x");
    g_assert_false(path->u.q_unix.has_abstract);

    strcpy(un->sun_path, "");
    strcpy(un->sun_path + 1, "name");
    g_autoptr(SocketAddress) name = socket_address_from_sockaddr(&sa, sizeof(sa_family_t) + 5,
                                                                 &error_abort);
    g_assert_cmpstr(name->u.q_unix.path, ==, "name");
    g_assert_true(name->u.q_unix.abstract && name->u.q_unix.tight);

    g_autoptr(SocketAddress) none = socket_address_from_sockaddr(&sa, sizeof(sa_family_t),
                                                                 &error_abort);
    g_assert_cmpstr(none->u.q_unix.path, ==, "");

    sa.ss_family = AF_APPLETALK;
    g_assert_null(socket_address_from_sockaddr(&sa, sizeof(sa), &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "socket family 5 unsupported");
}

/* Listening ---------------------------------------------------------------------------------- */

static SocketAddress *addr_of(const char *uri)
{
    return socket_parse(uri, &error_abort);
}

/* Say hello from one end to the other. */
static void check_talk(QIOChannelSocket *a, QIOChannelSocket *b)
{
    char buf[5];

    g_assert_nonnull(a);
    g_assert_nonnull(b);
    g_assert_cmpint(qio_channel_write_all(QIO_CHANNEL(a), "hello", 5, &error_abort), ==, 0);
    g_assert_cmpint(qio_channel_read_all(QIO_CHANNEL(b), buf, 5, &error_abort), ==, 0);
    g_assert_cmpmem(buf, 5, "hello", 5);
}

static void check_reachable(QIONetListener *l, const SocketAddress *addr)
{
    g_autoptr(QIOChannel) client = QIO_CHANNEL(
        qio_channel_socket_connect_sync(addr, -1, &error_abort));
    g_autoptr(QIOChannel) server = QIO_CHANNEL(qio_net_listener_wait_client(l, &error_abort));

    check_talk(qio_channel_socket_cast(client), qio_channel_socket_cast(server));
}

static bool have_ipv6(void)
{
    g_autoptr(SocketAddress) addr = addr_of("[::1]:0");
    int fd = socket_listen(addr, 1, NULL);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* An empty host is reached by both families. */
static void test_wildcard(void)
{
    g_autoptr(QIONetListener) l = qio_net_listener_new();
    g_autoptr(SocketAddress) addr = addr_of(":0");

    g_assert_cmpint(qio_net_listener_open_sync(l, addr, 4, &error_abort), ==, 0);
    g_autoptr(SocketAddress) got = qio_net_listener_get_address(l, 0, &error_abort);
    g_assert_cmpstr(got->u.inet.port, !=, "0");

    g_autofree char *uri4 = g_strdup_printf("127.0.0.1:%s", got->u.inet.port);
    g_autoptr(SocketAddress) v4 = addr_of(uri4);
    check_reachable(l, v4);
    if (have_ipv6()) {
        g_autofree char *uri6 = g_strdup_printf("[::1]:%s", got->u.inet.port);
        g_autoptr(SocketAddress) v6 = addr_of(uri6);
        check_reachable(l, v6);
    }
}

/* All addresses of a name get the same port. */
static void test_name(void)
{
    g_autoptr(QIONetListener) l = qio_net_listener_new();
    g_autoptr(SocketAddress) addr = addr_of("localhost:0");
    g_autofree char *port = NULL;

    g_assert_cmpint(qio_net_listener_open_sync(l, addr, 4, &error_abort), ==, 0);
    for (size_t i = 0; i < qio_net_listener_n_sockets(l); i++) {
        g_autoptr(SocketAddress) got = qio_net_listener_get_address(l, i, &error_abort);

        if (!port) {
            port = g_strdup(got->u.inet.port);
        }
        g_assert_cmpstr(got->u.inet.port, ==, port);
        check_reachable(l, got);
    }
    g_assert_cmpuint(qio_net_listener_n_sockets(l), >=, 1);
}

static void test_port_range(void)
{
    g_autoptr(SocketAddress) any = addr_of("127.0.0.1:0");
    int first = socket_listen(any, 1, &error_abort);
    g_autoptr(SocketAddress) taken = socket_local_address(first, &error_abort);
    unsigned port = atoi(taken->u.inet.port);
    Error *err = NULL;

    g_autofree char *msg = g_strdup_printf("Failed to bind socket to '127.0.0.1:%u': "
                                           "Address already in use", port);
    g_assert_cmpint(socket_listen(taken, 1, &err), ==, -1);
    check_error(err, msg);

    /* With room to move it gets another, if the neighbours are not all taken. */
    taken->u.inet.has_to = true;
    taken->u.inet.to = MIN(port + 50, 65535);
    int second = socket_listen(taken, 1, &error_abort);
    g_autoptr(SocketAddress) next = socket_local_address(second, &error_abort);
    g_assert_cmpint(atoi(next->u.inet.port), >, port);
    g_assert_cmpint(atoi(next->u.inet.port), <=, taken->u.inet.to);

    err = NULL;
    taken->u.inet.to = port - 1;
    g_autofree char *empty = g_strdup_printf("Port range '%u' to '%u' is empty", port, port - 1);
    g_assert_cmpint(socket_listen(taken, 1, &err), ==, -1);
    check_error(err, empty);
    close(first);
    close(second);
}

static void test_inet_bad(void)
{
    static const struct {
        const char *uri, *msg;
    } bad[] = {
        { "127.0.0.1:0,ipv4=off,ipv6=off", "Cannot disable IPv4 and IPv6 at same time" },
        { "127.0.0.1:0,keep-alive=on",
          "keep-alive option is not supported for passive sockets" },
        { "127.0.0.1:65536",
          "address resolution failed for 127.0.0.1:65536: a port is at most 65535" },
        { ":99999", "address resolution failed for :99999: a port is at most 65535" },
        { "127.0.0.1:-1", "address resolution failed for 127.0.0.1:-1: a port is at most 65535" },
        { "127.0.0.1:18446744073709551616",
          "address resolution failed for 127.0.0.1:18446744073709551616: a port is at most 65535" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(SocketAddress) addr = addr_of(bad[i].uri);
        Error *err = NULL;
        g_assert_cmpint(socket_listen(addr, 1, &err), ==, -1);
        check_error(err, bad[i].msg);
    }

    g_autoptr(SocketAddress) named = addr_of("no such host:1,numeric=on");
    Error *err = NULL;
    g_assert_cmpint(socket_connect(named, -1, &err), ==, -1);
    g_assert_true(g_str_has_prefix(error_get_pretty(err),
                                   "address resolution failed for no such host:1: "));
    error_free(err);
}

static void test_port(void)
{
    static const struct {
        const char *uri, *port;
    } good[] = {
        { "127.0.0.1:0", "0" }, { "127.0.0.1:65535", "65535" }, { "127.0.0.1:ssh", "22" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        if (strstr(good[i].uri, ":ssh") && !getservbyname("ssh", "tcp")) {
            g_test_message("no /etc/services here");
            continue;
        }
        g_autoptr(SocketAddress) addr = addr_of(good[i].uri);
        g_autoptr(GPtrArray) list = socket_resolve(addr, &error_abort);
        const SocketAddress *one = list->pdata[0];

        g_assert_cmpstr(one->u.inet.port, ==, good[i].port);
    }

    g_autoptr(SocketAddress) above = addr_of("127.0.0.1:99999");
    Error *err = NULL, *err2 = NULL;
    g_assert_cmpint(socket_connect(above, -1, &err), ==, -1);
    check_error(err, "address resolution failed for 127.0.0.1:99999: a port is at most 65535");
    g_assert_null(socket_resolve(above, &err2));
    check_error(err2, "address resolution failed for 127.0.0.1:99999: a port is at most 65535");
}

static SocketAddress *unix_addr(const char *name)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/%s", dir, name);
    return addr_of(uri);
}

static void test_unix_paths(void)
{
    g_autoptr(SocketAddress) addr = unix_addr("sock");
    const char *path = addr->u.q_unix.path;
    g_autofree char *in_use = g_strdup_printf("Failed to bind socket to '%s': "
                                              "Address already in use", path);
    g_autofree char *refused = g_strdup_printf("Failed to connect to '%s': Connection refused",
                                               path);
    g_autofree char *missing = g_strdup_printf("Failed to connect to '%s': "
                                               "No such file or directory", path);
    Error *err = NULL, *err2 = NULL, *err3 = NULL, *err4 = NULL;

    g_assert_cmpint(socket_connect(addr, -1, &err), ==, -1);
    check_error(err, missing);

    /* In use: refused. Left behind by a dead process: replaced. */
    int fd = socket_listen(addr, 1, &error_abort);
    g_assert_cmpint(socket_listen(addr, 1, &err2), ==, -1);
    check_error(err2, in_use);
    close(fd);
    g_assert_cmpint(socket_connect(addr, -1, &err3), ==, -1);
    check_error(err3, refused);
    QIOChannelSocket *s = qio_channel_socket_listen_sync(addr, 1, &error_abort);

    /* Its end removes the path, but not what somebody else has put there. */
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_true(g_file_set_contents(path, "mine", -1, NULL));
    qio_channel_unref(QIO_CHANNEL(s));
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(socket_listen(addr, 1, &err4), ==, -1);
    check_error(err4, in_use);
    g_assert_cmpint(g_unlink(path), ==, 0);

    s = qio_channel_socket_listen_sync(addr, 1, &error_abort);
    qio_channel_unref(QIO_CHANNEL(s));
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void test_unix_long(void)
{
    g_autofree char *name = g_strnfill(200, 'x');
    g_autoptr(SocketAddress) addr = unix_addr(name);
    g_autofree char *msg = g_strdup_printf("UNIX socket path '%s' is too long",
                                           addr->u.q_unix.path);
    Error *err = NULL;

    g_assert_cmpint(socket_listen(addr, 1, &err), ==, -1);
    check_error(err, msg);
}

static void test_abstract(void)
{
    for (int tight = 0; tight <= 1; tight++) {
        g_autoptr(QIONetListener) l = qio_net_listener_new();
        g_autofree char *uri = g_strdup_printf("unix:ferry-test-%d-%d", getpid(), tight);
        g_autoptr(SocketAddress) addr = addr_of(uri);

        addr->u.q_unix.has_abstract = addr->u.q_unix.abstract = true;
        addr->u.q_unix.has_tight = true;
        addr->u.q_unix.tight = tight;
        g_assert_cmpint(qio_net_listener_open_sync(l, addr, 1, &error_abort), ==, 0);
        g_assert_false(g_file_test(addr->u.q_unix.path, G_FILE_TEST_EXISTS));
        check_reachable(l, addr);
        addr->u.q_unix.tight = !tight;
        g_assert_cmpint(socket_connect(addr, -1, NULL), ==, -1);
    }
}

/* Cancelling --------------------------------------------------------------------------------- */

typedef struct Connecting {
    const SocketAddress *addr;
    int cancel_fd;
    Error *err;
    int fd;
} Connecting;

static gpointer connecting_run(gpointer opaque)
{
    Connecting *c = opaque;

    c->fd = socket_connect(c->addr, c->cancel_fd, &c->err);
    return NULL;
}

/* A UNIX socket whose backlog is full keeps a client waiting, as a silent host does over TCP. */
static void test_cancel(void)
{
    g_autoptr(SocketAddress) addr = unix_addr("full");
    int listener = socket_listen(addr, 1, &error_abort);
    int waiting[8], n = 0;
    g_autofree char *msg = g_strdup_printf("Failed to connect to '%s': Operation canceled",
                                           addr->u.q_unix.path);
    Connecting c = { .addr = addr, .cancel_fd = eventfd(0, EFD_CLOEXEC) };

    for (;;) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct sockaddr_un un = { .sun_family = AF_UNIX };

        g_strlcpy(un.sun_path, addr->u.q_unix.path, sizeof(un.sun_path));
        if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
            g_assert_cmpint(errno, ==, EAGAIN);
            close(fd);
            break;
        }
        waiting[n++] = fd;
        g_assert_cmpint(n, <, 8);
    }
    GThread *thread = g_thread_new("connect", connecting_run, &c);
    eventfd_write(c.cancel_fd, 1);
    g_thread_join(thread);
    g_assert_cmpint(c.fd, ==, -1);
    check_error(c.err, msg);

    /* Without the cancel the same attempt ends well as soon as there is room. */
    c = (Connecting) { .addr = addr, .cancel_fd = c.cancel_fd };
    eventfd_t unused;
    eventfd_read(c.cancel_fd, &unused);
    thread = g_thread_new("connect", connecting_run, &c);
    close(accept(listener, NULL, NULL));
    g_thread_join(thread);
    g_assert_cmpint(c.fd, >=, 0);

    close(c.fd);
    close(c.cancel_fd);
    while (n) {
        close(waiting[--n]);
    }
    close(listener);
    g_unlink(addr->u.q_unix.path);
}

/* Descriptors -------------------------------------------------------------------------------- */

static void socket_pair(QIOChannel **a, QIOChannel **b)
{
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    *a = QIO_CHANNEL(qio_channel_socket_new_fd(fds[0], &error_abort));
    *b = QIO_CHANNEL(qio_channel_socket_new_fd(fds[1], &error_abort));
}

static int count_open_fds(void)
{
    GDir *d = g_dir_open("/proc/self/fd", 0, NULL);
    int n = 0;

    while (g_dir_read_name(d)) {
        n++;
    }
    g_dir_close(d);
    return n;
}

/* Several at once, in several messages; and nobody who wants them: they are closed. */
static void test_fds(void)
{
    g_autoptr(QIOChannel) a = NULL, b = NULL;
    struct iovec iov = { "abcd", 4 };
    char buf[8];
    struct iovec in = { buf, sizeof(buf) };
    int send[3] = { 0, 1, 2 };
    int *fds;
    size_t nfds;

    socket_pair(&a, &b);
    int before = count_open_fds();
    qio_channel_writev_full_all(a, &iov, 1, send, 3, &error_abort);
    qio_channel_writev_full_all(a, &iov, 1, send, 2, &error_abort);
    g_assert_cmpint(qio_channel_readv_full_all_eof(b, &in, 1, &fds, &nfds, &error_abort), ==, 1);
    g_assert_cmpuint(nfds, ==, 5);
    g_assert_cmpint(count_open_fds(), ==, before + 5);
    for (size_t i = 0; i < nfds; i++) {
        struct stat sent, got;
        g_assert_cmpint(fstat(send[i % 3], &sent), ==, 0);
        g_assert_cmpint(fstat(fds[i], &got), ==, 0);
        g_assert_cmpuint(sent.st_ino, ==, got.st_ino);
        close(fds[i]);
    }
    g_free(fds);

    qio_channel_writev_full_all(a, &iov, 1, send, 3, &error_abort);
    g_assert_cmpint(qio_channel_read_all(b, buf, 4, &error_abort), ==, 0);
    g_assert_cmpint(count_open_fds(), ==, before);

    /* An end of file in the middle does not leak them either. */
    qio_channel_writev_full_all(a, &iov, 1, send, 3, &error_abort);
    qio_channel_close(a, &error_abort);
    g_assert_cmpint(qio_channel_readv_full_all_eof(b, &in, 1, &fds, &nfds, NULL), ==, -1);
    g_assert_cmpuint(nfds, ==, 0);
    g_assert_null(fds);
    g_assert_cmpint(count_open_fds(), ==, before - 1);
}

/* No room for them: an error, not fewer than were sent; what came before is closed again. */
static void test_fds_lost(void)
{
    g_autoptr(QIOChannel) a = NULL, b = NULL;
    char data[4] = "abcd";
    struct iovec iov = { data, 4 };
    struct rlimit keep, low;
    int send[3] = { 0, 1, 2 };
    int *fds;
    size_t nfds;
    g_autoptr(Error) err = NULL;

    socket_pair(&a, &b);
    int before = count_open_fds();
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &keep), ==, 0);
    low = keep;
    /* The highest number that there is room for: two more than the lowest that is free. */
    int free_fd = dup(0);
    close(free_fd);
    low.rlim_cur = free_fd + 2;
    qio_channel_writev_full_all(a, &iov, 1, send, 3, &error_abort);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &low), ==, 0);
    ssize_t n = qio_channel_readv_full(b, &iov, 1, &fds, &nfds, &err);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &keep), ==, 0);
    g_assert_cmpint(n, ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not receive file descriptors from socket: Too many open files");
    g_assert_cmpuint(nfds, ==, 0);
    g_assert_cmpint(count_open_fds(), ==, before);
}

static int resolve_to;

static int test_resolver(const char *name, bool take, Error **errp)
{
    if (!strcmp(name, "known")) {
        return dup(resolve_to);
    }
    error_setg(errp, "File descriptor named '%s' has not been found", name);
    return -1;
}

static void test_fd_address(void)
{
    int fds[2], pipefd[2];
    Error *err = NULL, *err2 = NULL, *err3 = NULL;
    g_autoptr(SocketAddress) known = addr_of("fd:known"), unknown = addr_of("fd:unknown");

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    resolve_to = fds[0];
    io_fd_set_resolver(test_resolver);
    g_autoptr(QIOChannel) a = QIO_CHANNEL(
        qio_channel_socket_connect_sync(known, -1, &error_abort));
    close(fds[0]);
    g_autofree char *uri = g_strdup_printf("fd:%d", fds[1]);
    fcntl(fds[1], F_SETFD, 0);          /* as one that was inherited */
    g_autoptr(SocketAddress) number = addr_of(uri);
    g_autoptr(QIOChannel) b = QIO_CHANNEL(
        qio_channel_socket_connect_sync(number, -1, &error_abort));
    check_talk(qio_channel_socket_cast(a), qio_channel_socket_cast(b));

    g_assert_null(qio_channel_socket_connect_sync(unknown, -1, &err));
    check_error(err, "File descriptor named 'unknown' has not been found");
    io_fd_set_resolver(NULL);

    g_assert_cmpint(pipe(pipefd), ==, 0);
    g_autofree char *pipe_uri = g_strdup_printf("fd:%d", pipefd[0]);
    g_autofree char *msg = g_strdup_printf("File descriptor '%d' is not a socket", pipefd[0]);
    g_autoptr(SocketAddress) pipe_addr = addr_of(pipe_uri);
    g_assert_cmpint(socket_connect(pipe_addr, -1, &err2), ==, -1);
    check_error(err2, msg);
    close(pipefd[1]);

    g_autoptr(SocketAddress) closed = addr_of("fd:999999");
    g_assert_cmpint(socket_connect(closed, -1, &err3), ==, -1);
    check_error(err3, "Could not use file descriptor 999999: Bad file descriptor");
}

/* The listener's callback -------------------------------------------------------------------- */

typedef struct Clients {
    GMainLoop *loop;
    int left;
    bool free_listener;
} Clients;

static void on_client(QIONetListener *l, QIOChannelSocket *client, gpointer opaque)
{
    Clients *c = opaque;

    g_assert_cmpstr(qio_channel_get_name(QIO_CHANNEL(client)), ==, "test");
    qio_channel_write_all(QIO_CHANNEL(client), "hello", 5, &error_abort);
    if (!--c->left) {
        g_main_loop_quit(c->loop);
        if (c->free_listener) {
            qio_net_listener_free(l);
        }
    }
}

static void test_listener_callback(void)
{
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autoptr(GMainLoop) loop = g_main_loop_new(context, FALSE);
    g_autoptr(SocketAddress) addr = unix_addr("listener");
    QIONetListener *l = qio_net_listener_new();
    Clients c = { .loop = loop, .left = 3, .free_listener = true };
    QIOChannelSocket *s[3];
    char buf[6];

    qio_net_listener_set_name(l, "test");
    qio_net_listener_set_client_func(l, on_client, &c, context);
    g_assert_cmpint(qio_net_listener_open_sync(l, addr, 3, &error_abort), ==, 0);
    for (int i = 0; i < 3; i++) {
        s[i] = qio_channel_socket_connect_sync(addr, -1, &error_abort);
    }
    g_main_loop_run(loop);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(qio_channel_read_all(QIO_CHANNEL(s[i]), buf, 5, &error_abort), ==, 0);
        g_assert_cmpmem(buf, 5, "hello", 5);
        g_assert_cmpint(qio_channel_read_all_eof(QIO_CHANNEL(s[i]), buf, 1, &error_abort), ==, 0);
        qio_channel_unref(QIO_CHANNEL(s[i]));
    }
    g_assert_cmpint(socket_connect(addr, -1, NULL), ==, -1);
}

static void count_client(QIONetListener *l, QIOChannelSocket *client, gpointer opaque)
{
    ++*(int *)opaque;
}

/* No descriptor for a client: it is served when there is one again. */
static void test_listener_no_fds(void)
{
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autoptr(SocketAddress) addr = unix_addr("listener");
    g_autoptr(QIONetListener) l = qio_net_listener_new();
    g_autoptr(QIOChannel) client = NULL;
    struct rlimit keep, low;
    int served = 0;

    g_assert_cmpint(qio_net_listener_open_sync(l, addr, 3, &error_abort), ==, 0);
    qio_net_listener_set_client_func(l, count_client, &served, context);
    client = QIO_CHANNEL(qio_channel_socket_connect_sync(addr, -1, &error_abort));

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &keep), ==, 0);
    int free_fd = dup(0);
    close(free_fd);
    low = keep;
    low.rlim_cur = free_fd;
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &low), ==, 0);
    g_test_message("the next line of standard error belongs to the test");
    while (g_main_context_iteration(context, FALSE)) {
        g_assert_cmpint(served, ==, 0);
    }
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &keep), ==, 0);
    while (!served) {
        g_main_context_iteration(context, TRUE);
    }
    g_assert_cmpint(served, ==, 1);
}

static gpointer accept_run(gpointer opaque)
{
    g_autoptr(Error) err = NULL;
    QIOChannelSocket *got = qio_channel_socket_accept(opaque, &err);

    g_assert_null(err);
    return got;
}

static void test_accept_shutdown(void)
{
    g_autoptr(SocketAddress) addr = unix_addr("accept");
    QIOChannelSocket *s = qio_channel_socket_listen_sync(addr, 1, &error_abort);
    GThread *thread = g_thread_new("accept", accept_run, s);

    g_assert_true(qio_channel_has_feature(QIO_CHANNEL(s), QIO_CHANNEL_FEATURE_LISTEN));
    qio_channel_shutdown(QIO_CHANNEL(s), QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    g_assert_null(g_thread_join(thread));
    qio_channel_unref(QIO_CHANNEL(s));
}

/* Lending ------------------------------------------------------------------------------------ */

#define LENT_PAGES 1500
#define LENT_HEADER 8

typedef struct Reader {
    QIOChannel *ioc;
    uint8_t *data;
    size_t len;
    int ret;
} Reader;

static gpointer reader_run(gpointer opaque)
{
    Reader *r = opaque;

    r->ret = qio_channel_read_all(r->ioc, r->data, r->len, &error_abort);
    return NULL;
}

/* Records of a header and a page, as a vector, into fresh pages of their own. */
static size_t make_records(uint8_t *pages, uint8_t *headers, struct iovec *iov)
{
    size_t page = getpagesize();

    for (size_t i = 0; i < LENT_PAGES; i++) {
        memset(headers + i * LENT_HEADER, i & 0xff, LENT_HEADER);
        memset(pages + i * page, (i * 7 + 1) & 0xff, page);
        iov[2 * i] = (struct iovec) { headers + i * LENT_HEADER, LENT_HEADER };
        iov[2 * i + 1] = (struct iovec) { pages + i * page, page };
    }
    return LENT_PAGES * (page + LENT_HEADER);
}

static void check_records(const uint8_t *data)
{
    size_t page = getpagesize();

    for (size_t i = 0; i < LENT_PAGES; i++, data += LENT_HEADER + page) {
        for (size_t at = 0; at < LENT_HEADER; at++) {
            g_assert_cmphex(data[at], ==, i & 0xff);
        }
        for (size_t at = 0; at < page; at++) {
            g_assert_cmphex(data[LENT_HEADER + at], ==, (i * 7 + 1) & 0xff);
        }
    }
}

/* More than pipe and socket hold, over and over, with pages that are renewed after each write. */
static void test_lend(gconstpointer blocking)
{
    g_autoptr(QIOChannel) a = NULL, b = NULL;
    size_t pages_size = (size_t)LENT_PAGES * getpagesize();
    uint8_t *pages = fresh_pages_new(pages_size);
    uint8_t *headers = fresh_pages_new(LENT_PAGES * LENT_HEADER);
    g_autofree struct iovec *iov = g_new(struct iovec, 2 * LENT_PAGES);

    socket_pair(&a, &b);
    g_assert_true(qio_channel_has_feature(a, QIO_CHANNEL_FEATURE_LEND));
    qio_channel_set_blocking(a, blocking != NULL, &error_abort);
    qio_channel_socket_set_buffer_size(qio_channel_socket_cast(a), 65536);
    for (int round = 0; round < 3; round++) {
        size_t len = make_records(pages, headers, iov);
        g_autofree uint8_t *got = g_malloc(len);
        Reader reader = { b, got, len, -1 };
        GThread *thread = g_thread_new("reader", reader_run, &reader);

        g_assert_cmpint(qio_channel_writev_lent_all(a, iov, 2 * LENT_PAGES, &error_abort), ==, 0);
        fresh_pages_renew(pages, pages_size);
        fresh_pages_renew(headers, LENT_PAGES * LENT_HEADER);
        g_assert_cmphex(pages[0] | headers[LENT_HEADER], ==, 0);
        g_thread_join(thread);
        check_records(got);
    }
    fresh_pages_free(pages, pages_size);
    fresh_pages_free(headers, LENT_PAGES * LENT_HEADER);
}

/* What the contract warns of: the peer reads what is there when it reads. */
static void test_lend_is_no_copy(void)
{
    g_autoptr(QIOChannel) a = NULL, b = NULL;
    uint8_t *pages = fresh_pages_new(4096);
    struct iovec iov = { pages, 4096 };
    char buf[4096];

    socket_pair(&a, &b);
    memset(pages, 'a', 4096);
    g_assert_cmpint(qio_channel_writev_lent_all(a, &iov, 1, &error_abort), ==, 0);
    memset(pages, 'b', 4096);
    g_assert_cmpint(qio_channel_read_all(b, buf, sizeof(buf), &error_abort), ==, 0);
    if (buf[0] == 'a') {
        g_test_skip("memory cannot be lent here");
    } else {
        g_assert_cmpint(buf[4095], ==, 'b');
    }
    /* Unmapping is harmless. */
    g_assert_cmpint(qio_channel_writev_lent_all(a, &iov, 1, &error_abort), ==, 0);
    fresh_pages_free(pages, 4096);
    g_assert_cmpint(qio_channel_read_all(b, buf, sizeof(buf), &error_abort), ==, 0);
    g_assert_cmpint(buf[0], ==, 'b');
}

static gpointer lender_run(gpointer opaque)
{
    QIOChannel *ioc = opaque;
    size_t size = 64 * 1024 * 1024;
    uint8_t *pages = fresh_pages_new(size);
    struct iovec iov = { pages, size };
    Error *err = NULL;

    g_assert_cmpint(qio_channel_writev_lent_all(ioc, &iov, 1, &err), ==, -1);
    fresh_pages_free(pages, size);
    return err;
}

/* A write that waits ends with the peer, or when it is shut down. No signal. */
static void test_lend_broken(gconstpointer by_peer)
{
    g_autoptr(QIOChannel) a = NULL, b = NULL;
    char first;

    socket_pair(&a, &b);
    GThread *thread = g_thread_new("lender", lender_run, a);
    g_assert_cmpint(qio_channel_read_all(b, &first, 1, &error_abort), ==, 0);
    if (by_peer) {
        qio_channel_close(b, &error_abort);
    } else {
        qio_channel_shutdown(a, QIO_CHANNEL_SHUTDOWN_BOTH, &error_abort);
    }
    g_autoptr(Error) err = g_thread_join(thread);
    const char *text = error_get_pretty(err);
    /* It may not have begun to wait. */
    g_assert_true(!strcmp(text, "Could not write to socket: Broken pipe") ||
                  (by_peer && strstr(text, "Connection reset by peer")) ||
                  (!by_peer && !strcmp(text, "Could not write to socket: it was shut down")));

    g_clear_pointer(&err, error_free);
    struct iovec iov = { &first, 1 };
    g_assert_cmpint(qio_channel_writev_lent_all(a, &iov, 1, &err), ==, -1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("ferry-test-XXXXXX", NULL);
    g_test_add_func("/socket/parse", test_parse);
    g_test_add_func("/socket/parse-flags", test_parse_flags);
    g_test_add_func("/socket/parse-options", test_parse_options);
    g_test_add_func("/socket/parse-bad", test_parse_bad);
    g_test_add_func("/socket/from-kernel", test_address_from_kernel);
    g_test_add_func("/socket/wildcard", test_wildcard);
    g_test_add_func("/socket/name", test_name);
    g_test_add_func("/socket/port-range", test_port_range);
    g_test_add_func("/socket/inet-bad", test_inet_bad);
    g_test_add_func("/socket/port", test_port);
    g_test_add_func("/socket/unix-paths", test_unix_paths);
    g_test_add_func("/socket/unix-long", test_unix_long);
    g_test_add_func("/socket/abstract", test_abstract);
    g_test_add_func("/socket/cancel", test_cancel);
    g_test_add_func("/socket/fds", test_fds);
    g_test_add_func("/socket/fds-lost", test_fds_lost);
    g_test_add_data_func("/socket/lend/blocking", "", test_lend);
    g_test_add_data_func("/socket/lend/non-blocking", NULL, test_lend);
    g_test_add_func("/socket/lend/is-no-copy", test_lend_is_no_copy);
    g_test_add_data_func("/socket/lend/peer-gone", "", test_lend_broken);
    g_test_add_data_func("/socket/lend/shut-down", NULL, test_lend_broken);
    g_test_add_func("/socket/fd-address", test_fd_address);
    g_test_add_func("/socket/listener-callback", test_listener_callback);
    g_test_add_func("/socket/listener-no-fds", test_listener_no_fds);
    g_test_add_func("/socket/accept-shutdown", test_accept_shutdown);
    int ret = g_test_run();
    g_rmdir(dir);
    g_free(dir);
    return ret;
}
