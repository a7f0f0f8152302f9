/*
 * Socket addresses: text to schema, schema to text, kernel to schema.
 *
 * Options after an inet address are handed to the schema's visitor together with host and port, so
 * that their names, types and messages are those of QMP.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/socket-address.h"

#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include "qapi/clone-visitor.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-sockets.h"
#include "util/cutils.h"
#include "util/keyval.h"

/* Text to schema ----------------------------------------------------------------------------- */

/* Cut `[HOST]:PORT` or `HOST:PORT` of @len characters; false when it is neither. */
static bool split_host_port(const char *str, size_t len, char **host, char **port)
{
    const char *end = str + len;
    const char *colon;

    if (*str == '[') {
        const char *close = memchr(str, ']', len);

        if (!close || close + 1 >= end || close[1] != ':') {
            return false;
        }
        str++;
        colon = close + 1;
        *host = g_strndup(str, close - str);
    } else {
        colon = memchr(str, ':', len);
        if (!colon || memchr(colon + 1, ':', end - colon - 1)) {
            return false;
        }
        *host = g_strndup(str, colon - str);
    }
    *port = g_strndup(colon + 1, end - colon - 1);
    return **port;
}

/* `,ipv6` is how people have always written `,ipv6=on`. Caller frees. */
static char *spell_out_flags(const char *options)
{
    g_auto(GStrv) words = g_strsplit(options, ",", -1);

    for (char **w = words; *w; w++) {
        if (!strcmp(*w, "ipv4") || !strcmp(*w, "ipv6")) {
            char *full = g_strconcat(*w, "=on", NULL);

            g_free(*w);
            *w = full;
        }
    }
    return g_strjoinv(",", words);
}

InetSocketAddress *inet_parse(const char *str, Error **errp)
{
    g_autofree char *host = NULL, *port = NULL;
    size_t len = strcspn(str, ",");
    InetSocketAddress *inet = NULL;

    if (!split_host_port(str, len, &host, &port)) {
        error_setg(errp, "error parsing address '%s': HOST:PORT is expected", str);
        return NULL;
    }

    g_autofree char *options = spell_out_flags(str[len] ? str + len + 1 : "");
    struct json_object *members = keyval_parse(options, NULL, NULL, errp);
    if (!members) {
        error_prepend(errp, "error parsing address '%s': ", str);
        return NULL;
    }
    json_object_object_add(members, "host", json_object_new_string(host));
    json_object_object_add(members, "port", json_object_new_string(port));

    Visitor *v = json_input_visitor_new_keyval(members);
    if (!visit_type_InetSocketAddress(v, NULL, &inet, errp)) {
        error_prepend(errp, "error parsing address '%s': ", str);
    }
    visit_free(v);
    json_object_put(members);
    return inet;
}

static bool vsock_parse(const char *str, VsockSocketAddress *vsock, Error **errp)
{
    const char *colon = strchr(str, ':');
    uint64_t unused;

    if (!colon) {
        error_setg(errp, "error parsing address 'vsock:%s': CID:PORT is expected", str);
        return false;
    }
    vsock->cid = g_strndup(str, colon - str);
    vsock->port = g_strdup(colon + 1);
    if (!parse_uint64_range(vsock->cid, 0, UINT32_MAX, &unused, errp) ||
        !parse_uint64_range(vsock->port, 0, UINT32_MAX, &unused, errp)) {
        error_prepend(errp, "error parsing address 'vsock:%s': ", str);
        return false;
    }
    return true;
}

SocketAddress *socket_parse(const char *str, Error **errp)
{
    g_autoptr(SocketAddress) addr = g_new0(SocketAddress, 1);
    const char *rest;

    if ((rest = strchr(str, ':'))) {
        rest++;
    }
    if (g_str_has_prefix(str, "unix:")) {
        addr->type = SOCKET_ADDRESS_TYPE_UNIX;
        if (!*rest) {
            error_setg(errp, "invalid Unix socket address");
            return NULL;
        }
        addr->u.q_unix.path = g_strdup(rest);
    } else if (g_str_has_prefix(str, "fd:")) {
        addr->type = SOCKET_ADDRESS_TYPE_FD;
        if (!*rest) {
            error_setg(errp, "invalid file descriptor address");
            return NULL;
        }
        addr->u.fd.str = g_strdup(rest);
    } else if (g_str_has_prefix(str, "vsock:")) {
        addr->type = SOCKET_ADDRESS_TYPE_VSOCK;
        if (!vsock_parse(rest, &addr->u.vsock, errp)) {
            return NULL;
        }
    } else {
        InetSocketAddress *inet = inet_parse(g_str_has_prefix(str, "tcp:") ? rest : str, errp);

        if (!inet) {
            return NULL;
        }
        addr->type = SOCKET_ADDRESS_TYPE_INET;
        addr->u.inet = *inet;
        g_free(inet);
    }
    return g_steal_pointer(&addr);
}

/* Schema to text ----------------------------------------------------------------------------- */

static char *inet_text(const InetSocketAddress *inet)
{
    return strchr(inet->host, ':') ? g_strdup_printf("[%s]:%s", inet->host, inet->port)
                                   : g_strdup_printf("%s:%s", inet->host, inet->port);
}

char *socket_describe(const SocketAddress *addr)
{
    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        return inet_text(&addr->u.inet);
    case SOCKET_ADDRESS_TYPE_UNIX:
        return g_strdup(addr->u.q_unix.path);
    case SOCKET_ADDRESS_TYPE_VSOCK:
        return g_strdup_printf("%s:%s", addr->u.vsock.cid, addr->u.vsock.port);
    case SOCKET_ADDRESS_TYPE_FD:
        return g_strdup(addr->u.fd.str);
    default:
        g_assert_not_reached();
    }
}

char *socket_uri(const SocketAddress *addr)
{
    static const char *const schemes[] = {
        [SOCKET_ADDRESS_TYPE_INET] = "tcp",
        [SOCKET_ADDRESS_TYPE_UNIX] = "unix",
        [SOCKET_ADDRESS_TYPE_VSOCK] = "vsock",
        [SOCKET_ADDRESS_TYPE_FD] = "fd",
    };
    g_autofree char *rest = socket_describe(addr);

    return g_strdup_printf("%s:%s", schemes[addr->type], rest);
}

SocketAddress *socket_address_copy(const SocketAddress *addr)
{
    return QAPI_CLONE(SocketAddress, addr);
}

SocketAddress *socket_address_flatten(const SocketAddressLegacy *legacy)
{
    SocketAddress *addr = g_new0(SocketAddress, 1);

    addr->type = legacy->type;
    switch (legacy->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        QAPI_CLONE_MEMBERS(InetSocketAddress, &addr->u.inet, legacy->u.inet.data);
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        QAPI_CLONE_MEMBERS(UnixSocketAddress, &addr->u.q_unix, legacy->u.q_unix.data);
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        QAPI_CLONE_MEMBERS(VsockSocketAddress, &addr->u.vsock, legacy->u.vsock.data);
        break;
    case SOCKET_ADDRESS_TYPE_FD:
        QAPI_CLONE_MEMBERS(FdSocketAddress, &addr->u.fd, legacy->u.fd.data);
        break;
    default:
        g_assert_not_reached();
    }
    return addr;
}

/* Kernel to schema --------------------------------------------------------------------------- */

static bool from_inet(const struct sockaddr_storage *sa, socklen_t len, InetSocketAddress *inet,
                      Error **errp)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    int ret = getnameinfo((const struct sockaddr *)sa, len, host, sizeof(host), port,
                          sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);

    if (ret) {
        error_setg(errp, "Could not format the address of a socket: %s", gai_strerror(ret));
        return false;
    }
    inet->host = g_strdup(host);
    inet->port = g_strdup(port);
    inet->has_ipv4 = inet->has_ipv6 = true;
    inet->ipv4 = sa->ss_family == AF_INET;
    inet->ipv6 = sa->ss_family == AF_INET6;
    return true;
}

static void from_unix(const struct sockaddr_storage *sa, socklen_t len, UnixSocketAddress *out)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)sa;
    size_t room = len > offsetof(struct sockaddr_un, sun_path)
                      ? len - offsetof(struct sockaddr_un, sun_path) : 0;

    if (room && !un->sun_path[0]) {
        /* An abstract name is as long as the address, and may hold anything. */
        out->path = g_strndup(un->sun_path + 1, room - 1);
        out->has_abstract = out->abstract = true;
        out->has_tight = true;
        out->tight = len < sizeof(*un);
    } else {
        out->path = g_strndup(un->sun_path, room);
    }
}

SocketAddress *socket_address_from_sockaddr(const struct sockaddr_storage *sa, socklen_t len,
                                            Error **errp)
{
    g_autoptr(SocketAddress) addr = g_new0(SocketAddress, 1);
    const struct sockaddr_vm *vm = (const struct sockaddr_vm *)sa;

    switch (sa->ss_family) {
    case AF_INET:
    case AF_INET6:
        addr->type = SOCKET_ADDRESS_TYPE_INET;
        if (!from_inet(sa, len, &addr->u.inet, errp)) {
            return NULL;
        }
        break;
    case AF_UNIX:
        addr->type = SOCKET_ADDRESS_TYPE_UNIX;
        from_unix(sa, len, &addr->u.q_unix);
        break;
    case AF_VSOCK:
        addr->type = SOCKET_ADDRESS_TYPE_VSOCK;
        addr->u.vsock.cid = g_strdup_printf("%u", vm->svm_cid);
        addr->u.vsock.port = g_strdup_printf("%u", vm->svm_port);
        break;
    default:
        error_setg(errp, "socket family %d unsupported", sa->ss_family);
        return NULL;
    }
    return g_steal_pointer(&addr);
}

SocketAddress *socket_local_address(int fd, Error **errp)
{
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(sa);

    if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
        error_setg_errno(errp, errno, "Unable to query local socket address");
        return NULL;
    }
    return socket_address_from_sockaddr(&sa, len, errp);
}

SocketAddress *socket_remote_address(int fd, Error **errp)
{
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(sa);

    if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0) {
        error_setg_errno(errp, errno, "Unable to query remote socket address");
        return NULL;
    }
    return socket_address_from_sockaddr(&sa, len, errp);
}
