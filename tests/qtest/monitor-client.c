/*
 * See the header. poll() waits for either direction, so a client that sends also drains what it is
 * sent, unless it does not want to.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/qtest/libqtest.h"
#include "tests/qtest/monitor-client.h"

MonitorClient *monitor_client_new(const char *path)
{
    MonitorClient *c = g_new0(MonitorClient, 1);
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    g_assert_cmpuint(strlen(path), <, sizeof(un.sun_path));
    memcpy(un.sun_path, path, strlen(path) + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(c->fd, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_cmpint(fcntl(c->fd, F_SETFL, O_NONBLOCK), ==, 0);
    c->in = g_string_new(NULL);
    return c;
}

void monitor_client_free(MonitorClient *c)
{
    close(c->fd);
    g_string_free(c->in, TRUE);
    g_free(c);
}

static bool wait_for(MonitorClient *c, short events, gint64 deadline)
{
    struct pollfd p = { .fd = c->fd, .events = events };
    gint64 left_ms = (deadline - g_get_monotonic_time()) / 1000;

    return left_ms > 0 && poll(&p, 1, (int)left_ms) > 0;
}

ssize_t monitor_client_try_send(MonitorClient *c, const char *data, size_t size)
{
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);

    return n < 0 && errno == EAGAIN ? 0 : n;
}

bool monitor_client_send(MonitorClient *c, const char *data, size_t size)
{
    gint64 deadline = qtest_deadline();

    while (size > 0) {
        ssize_t n = monitor_client_try_send(c, data, size);

        if (n < 0 || (n == 0 && !wait_for(c, POLLOUT, deadline))) {
            return false;
        }
        data += n;
        size -= n;
    }
    return true;
}

void monitor_client_say(MonitorClient *c, const char *text)
{
    if (!monitor_client_send(c, text, strlen(text))) {
        qtest_fail(NULL, "the monitor does not take '%s'", text);
    }
}

static void receive(MonitorClient *c)
{
    char buf[65536];
    ssize_t n = recv(c->fd, buf, sizeof(buf), 0);

    if (n > 0) {
        g_string_append_len(c->in, buf, n);
    } else if (n == 0 || errno != EAGAIN) {
        c->eof = true;
    }
}

char *monitor_client_hear(MonitorClient *c, const char *until)
{
    gint64 deadline = qtest_deadline();
    char *at, *text;

    while (!(at = strstr(c->in->str, until))) {
        if (c->eof || !wait_for(c, POLLIN, deadline)) {
            qtest_fail(NULL, "waited for '%s' and got '%s'%s", until, c->in->str,
                       c->eof ? ", then the end" : "");
        }
        receive(c);
    }
    at += strlen(until);
    text = g_strndup(c->in->str, at - c->in->str);
    g_string_erase(c->in, 0, at - c->in->str);
    return text;
}

void monitor_client_wait_eof(MonitorClient *c)
{
    gint64 deadline = qtest_deadline();

    while (!c->eof) {
        if (!wait_for(c, POLLIN, deadline)) {
            qtest_fail(NULL, "the monitor does not close the connection");
        }
        receive(c);
        g_string_truncate(c->in, 0);
    }
}

char *monitor_client_hmp(MonitorClient *c, const char *line)
{
    g_autofree char *with_cr = g_strconcat(line, "\r", NULL);
    g_autofree char *echo = g_strconcat(line, "\r\n", NULL);
    char *text;

    monitor_client_say(c, with_cr);
    g_free(monitor_client_hear(c, echo));
    text = monitor_client_hear(c, "(qemu) ");
    text[strlen(text) - strlen("(qemu) ")] = '\0';
    return text;
}
