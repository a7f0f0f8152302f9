/*
 * What the tests of character devices share.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "char-harness.h"

#include <glib/gstdio.h>
#include <string.h>

char *char_test_dir;

void settle(void)
{
    while (g_main_context_iteration(NULL, FALSE)) {
        continue;
    }
}

static int port_can_read(void *opaque)
{
    Port *p = opaque;

    return p->room < 0 ? 4096 : p->room;
}

static void port_read(void *opaque, const uint8_t *buf, int size)
{
    Port *p = opaque;

    g_assert_cmpint(size, >, 0);
    if (p->room >= 0) {
        g_assert_cmpint(size, <=, p->room);
        p->room -= size;
    }
    g_string_append_len(p->got, (const char *)buf, size);
}

static void port_event(void *opaque, ChrEvent event)
{
    Port *p = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        p->opened++;
        break;
    case CHR_EVENT_CLOSED:
        p->closed++;
        break;
    case CHR_EVENT_MUX_IN:
        p->mux_in++;
        break;
    case CHR_EVENT_MUX_OUT:
        p->mux_out++;
        break;
    case CHR_EVENT_BREAK:
        p->breaks++;
        break;
    }
}

void port_init(Port *p, Chardev *chr)
{
    *p = (Port) { .room = -1, .got = g_string_new(NULL) };
    g_assert_nonnull(chr);
    g_assert_true(chr_fe_init(&p->fe, chr, &error_abort));
    chr_fe_set_handlers(&p->fe, port_can_read, port_read, port_event, p);
}

void port_free(Port *p, bool del)
{
    chr_fe_deinit(&p->fe, del);
    g_string_free(p->got, TRUE);
}

void check_got(Port *p, const char *text)
{
    WAIT_FOR(p->got->len >= strlen(text));
    g_assert_cmpstr(p->got->str, ==, text);
    g_string_truncate(p->got, 0);
}

Chardev *make_chardev(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_autofree char *opts = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return chardev_new_from_opts(opts, &error_abort);
}

QIOChannel *dial(const char *name)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/%s", char_test_dir, name);
    g_autoptr(SocketAddress) addr = socket_parse(uri, &error_abort);

    return QIO_CHANNEL(qio_channel_socket_connect_sync(addr, -1, &error_abort));
}

void say(QIOChannel *ioc, const char *text)
{
    g_assert_cmpint(qio_channel_write_all(ioc, text, strlen(text), &error_abort), ==, 0);
}

void expect(QIOChannel *ioc, const char *text)
{
    g_autofree char *buf = g_malloc0(strlen(text) + 1);

    while (!qio_channel_wait_timeout(ioc, G_IO_IN, 0)) {
        g_main_context_iteration(NULL, FALSE);
    }
    g_assert_cmpint(qio_channel_read_all(ioc, buf, strlen(text), &error_abort), ==, 0);
    g_assert_cmpstr(buf, ==, text);
}

static gboolean on_deadline(gpointer unused)
{
    g_error("nothing happens any more");
    return G_SOURCE_REMOVE;
}

void char_test_init(int *argc, char ***argv)
{
    g_test_init(argc, argv, NULL);
    char_test_dir = g_dir_make_tmp("ferry-test-XXXXXX", NULL);
    g_timeout_add_seconds(50, on_deadline, NULL);
}

int char_test_run(void)
{
    int ret = g_test_run();

    chardev_cleanup();
    g_rmdir(char_test_dir);
    g_free(char_test_dir);
    return ret;
}
