/*
 * Reading and writing return path messages.
 *
 * Until the end the destination sends only a pong for each ping, a few bytes that the socket holds,
 * so the source need not listen while it sends; it reads once, when it wants the confirmation or
 * wants to know why its writes fail.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/return-path.h"

#include <string.h>
#include <sys/socket.h>
#include "util/bswap.h"

/* A destination has one or two things to say; one that never ends must not keep us. */
#define MESSAGES_MAX 1000
#define DESTINATION_FAILED "the destination failed to load the machine"

int return_path_send(QIOChannel *ioc, uint16_t type, const void *data, uint16_t len, Error **errp)
{
    g_autofree uint8_t *message = g_malloc(4 + len);

    stw_be_p(message, type);
    stw_be_p(message + 2, len);
    memcpy(message + 4, data, len);
    return qio_channel_write_all(ioc, message, 4 + len, errp);
}

/*
 * Read @len bytes. A cancel shuts the channel down, but what the destination had sent before is
 * still in the socket, and may be its confirmation: it must be seen, or the machine would run
 * twice.
 */
static int read_exact(QIOChannel *ioc, uint8_t *buf, size_t len, Error **errp)
{
    Error *err = NULL;

    if (qio_channel_read_all(ioc, buf, len, &err) == 0) {
        return 0;
    }
    if (recv(qio_channel_get_fd(ioc), buf, len, MSG_DONTWAIT) == (ssize_t)len) {
        error_free(err);
        return 0;
    }
    error_propagate(errp, err);
    return -1;
}

/* One message into @data; its length, or -1. */
static int read_message(QIOChannel *ioc, uint16_t *type, uint8_t data[MIG_RP_TEXT_MAX],
                        Error **errp)
{
    uint8_t header[4];

    if (read_exact(ioc, header, sizeof(header), errp) < 0) {
        error_prepend(errp, "the destination went away before it confirmed: ");
        return -1;
    }
    *type = lduw_be_p(header);
    uint16_t len = lduw_be_p(header + 2);
    if (len > MIG_RP_TEXT_MAX) {
        error_setg(errp, "the destination sent a message of type %u with %u bytes", *type, len);
        return -1;
    }
    return read_exact(ioc, data, len, errp) < 0 ? -1 : len;
}

/* What another program wrote, fit to be shown. */
static char *clean_text(const uint8_t *data, int len)
{
    char *text = g_utf8_make_valid((const char *)data, len);

    for (char *p = text; *p; p++) {
        if (g_ascii_iscntrl(*p)) {
            *p = ' ';
        }
    }
    return text;
}

int return_path_wait_shut(QIOChannel *ioc, Error **errp)
{
    g_autofree char *reason = NULL;
    uint8_t data[MIG_RP_TEXT_MAX];

    for (unsigned n = 0; n < MESSAGES_MAX; n++) {
        uint16_t type;
        int len = read_message(ioc, &type, data, errp);

        if (len < 0) {
            return -1;
        }
        switch (type) {
        case MIG_RP_PONG:
            break;
        case MIG_RP_ERROR_TEXT:
            g_free(reason);
            reason = clean_text(data, len);
            break;
        case MIG_RP_SHUT:
            if (len == 4 && ldl_be_p(data) == 0) {
                return 0;
            }
            error_setg(errp, DESTINATION_FAILED ": %s",
                       reason ?: "it gave no reason, see its own log");
            return -1;
        default:
            error_setg(errp, "the destination sent a message of type %u, which is not known", type);
            return -1;
        }
    }
    error_setg(errp, "the destination sent %u messages and no confirmation", MESSAGES_MAX);
    return -1;
}

Error *return_path_reason(QIOChannel *ioc)
{
    Error *reason = NULL;

    if (!qio_channel_wait_timeout(ioc, G_IO_IN, 0) || return_path_wait_shut(ioc, &reason) == 0) {
        return NULL;
    }
    if (!g_str_has_prefix(error_get_pretty(reason), DESTINATION_FAILED)) {
        error_free(reason);
        return NULL;
    }
    return reason;
}
