/*
 * A plain client of a machine's monitor on a UNIX socket: bytes out, text in, with deadlines. For
 * what libqtest's own QMP connection hides: greetings, terminals, clients that misbehave.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_MONITOR_CLIENT_H
#define TESTS_QTEST_MONITOR_CLIENT_H

#include <glib.h>
#include <stdbool.h>

typedef struct MonitorClient {
    int fd;                     /* non-blocking */
    GString *in;                /* received, not yet taken */
    bool eof;
} MonitorClient;

MonitorClient *monitor_client_new(const char *path);
void monitor_client_free(MonitorClient *c);

/* Send all; false when the other side closed or takes nothing for the time of a deadline. */
bool monitor_client_send(MonitorClient *c, const char *data, size_t size);
void monitor_client_say(MonitorClient *c, const char *text);
/* As much as is taken at once; -1 when the other side closed. */
ssize_t monitor_client_try_send(MonitorClient *c, const char *data, size_t size);

/* Everything up to and with @until, which fails the test at the deadline. Caller frees. */
char *monitor_client_hear(MonitorClient *c, const char *until);
/* Wait until the other side closes. */
void monitor_client_wait_eof(MonitorClient *c);

/* An HMP command on a terminal: what is printed before the next prompt. Caller frees. */
char *monitor_client_hmp(MonitorClient *c, const char *line);

#endif
