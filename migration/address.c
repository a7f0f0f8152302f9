/*
 * URI strings to MigrationAddress, once, at the edge.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/address.h"

#include <string.h>
#include "io/socket-address.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-migration.h"
#include "util/cutils.h"

static MigrationAddress *parse_exec(const char *command)
{
    MigrationAddress *addr = g_new0(MigrationAddress, 1);
    strList **tail = &addr->u.exec.args;
    const char *const argv[] = { "/bin/sh", "-c", command };

    addr->transport = MIGRATION_ADDRESS_TYPE_EXEC;
    for (unsigned i = 0; i < G_N_ELEMENTS(argv); i++) {
        *tail = g_new0(strList, 1);
        (*tail)->value = g_strdup(argv[i]);
        tail = &(*tail)->next;
    }
    return addr;
}

/* PATH[,offset=SIZE]: the path may hold commas, the option is the last ",offset=". */
static MigrationAddress *parse_file(const char *spec, Error **errp)
{
    const char *option = g_strrstr(spec, ",offset=");
    uint64_t offset = 0;

    if (option && !parse_size(option + strlen(",offset="), &offset, errp)) {
        error_prepend(errp, "file:%s: ", spec);
        return NULL;
    }
    g_autofree char *path = option ? g_strndup(spec, option - spec) : g_strdup(spec);
    if (!*path) {
        error_setg(errp, "file:%s: the path is empty", spec);
        return NULL;
    }

    MigrationAddress *addr = g_new0(MigrationAddress, 1);
    addr->transport = MIGRATION_ADDRESS_TYPE_FILE;
    addr->u.file.filename = g_steal_pointer(&path);
    addr->u.file.offset = offset;
    return addr;
}

static MigrationAddress *parse_rdma(const char *spec, Error **errp)
{
    g_autoptr(SocketAddress) inet = socket_parse(spec, errp);

    if (!inet) {
        return NULL;
    }
    if (inet->type != SOCKET_ADDRESS_TYPE_INET) {
        error_setg(errp, "rdma:%s is not of the form rdma:HOST:PORT", spec);
        return NULL;
    }

    MigrationAddress *addr = g_new0(MigrationAddress, 1);
    addr->transport = MIGRATION_ADDRESS_TYPE_RDMA;
    addr->u.rdma = inet->u.inet;
    memset(&inet->u.inet, 0, sizeof(inet->u.inet));
    return addr;
}

static MigrationAddress *parse_socket(const char *spec, Error **errp)
{
    SocketAddress *parsed = socket_parse(spec, errp);

    if (!parsed) {
        return NULL;
    }
    MigrationAddress *addr = g_new0(MigrationAddress, 1);
    addr->transport = MIGRATION_ADDRESS_TYPE_SOCKET;
    addr->u.socket = *parsed;
    g_free(parsed);                     /* its members have moved */
    return addr;
}

MigrationAddress *migration_address_parse(const char *uri, Error **errp)
{
    const char *rest;

    if (g_str_has_prefix(uri, "exec:")) {
        rest = uri + strlen("exec:");
        if (!*rest) {
            error_setg(errp, "exec: the command is empty");
            return NULL;
        }
        return parse_exec(rest);
    }
    if (g_str_has_prefix(uri, "file:")) {
        return parse_file(uri + strlen("file:"), errp);
    }
    if (g_str_has_prefix(uri, "rdma:")) {
        return parse_rdma(uri + strlen("rdma:"), errp);
    }
    if (g_str_has_prefix(uri, "tcp:")) {
        rest = uri + strlen("tcp:");
        /* What follows must be HOST:PORT, not another scheme of the socket parser. */
        if (g_str_has_prefix(rest, "unix:") || g_str_has_prefix(rest, "vsock:") ||
            g_str_has_prefix(rest, "fd:")) {
            error_setg(errp, "'%s' is not of the form tcp:HOST:PORT", uri);
            return NULL;
        }
        return parse_socket(rest, errp);
    }
    if (g_str_has_prefix(uri, "unix:") || g_str_has_prefix(uri, "vsock:") ||
        g_str_has_prefix(uri, "fd:")) {
        return parse_socket(uri, errp);
    }
    error_setg(errp, "unknown migration protocol: %s", uri);
    error_append_hint(errp, "Known are tcp:HOST:PORT, unix:PATH, vsock:CID:PORT, fd:NAME, "
                            "exec:COMMAND, file:PATH[,offset=SIZE].\n");
    return NULL;
}

MigrationAddress *migration_address_from_args(const char *uri, bool has_channels,
                                              MigrationChannelList *channels, Error **errp)
{
    if (uri && has_channels) {
        error_setg(errp, "'uri' and 'channels' are mutually exclusive: exactly one of the two "
                         "must be given");
        return NULL;
    }
    if (uri) {
        return migration_address_parse(uri, errp);
    }
    if (!has_channels) {
        error_setg(errp, "neither 'uri' nor 'channels' is given: exactly one of the two is needed");
        return NULL;
    }
    if (!channels) {
        error_setg(errp, "'channels' is empty: a channel of type 'main' is needed");
        return NULL;
    }
    if (channels->next) {
        error_setg(errp, "'channels' has more than one channel of type 'main'");
        return NULL;
    }
    return QAPI_CLONE(MigrationAddress, channels->value->addr);
}

static char *describe_socket(const SocketAddress *addr)
{
    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_UNIX:
        return g_strdup_printf("unix socket '%s'", addr->u.q_unix.path);
    case SOCKET_ADDRESS_TYPE_FD:
        return g_strdup_printf("file descriptor '%s'", addr->u.fd.str);
    case SOCKET_ADDRESS_TYPE_VSOCK:
        return g_strdup_printf("vsock %s:%s", addr->u.vsock.cid, addr->u.vsock.port);
    default:
        return g_strdup_printf("tcp socket %s:%s", addr->u.inet.host, addr->u.inet.port);
    }
}

char *migration_address_describe(const MigrationAddress *addr)
{
    switch (addr->transport) {
    case MIGRATION_ADDRESS_TYPE_FILE:
        return g_strdup_printf("file '%s'", addr->u.file.filename);
    case MIGRATION_ADDRESS_TYPE_EXEC: {
        g_autoptr(GString) text = g_string_new("command '");
        for (strList *arg = addr->u.exec.args; arg; arg = arg->next) {
            g_string_append_printf(text, "%s%s", arg->value, arg->next ? " " : "");
        }
        g_string_append_c(text, '\'');
        return g_string_free(g_steal_pointer(&text), FALSE);
    }
    case MIGRATION_ADDRESS_TYPE_RDMA:
        return g_strdup_printf("rdma %s:%s", addr->u.rdma.host, addr->u.rdma.port);
    default:
        return describe_socket(&addr->u.socket);
    }
}
