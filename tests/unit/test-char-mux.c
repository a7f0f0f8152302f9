/*
 * The mux: several front ends on one terminal.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "char-harness.h"

static int quits;

static void on_quit(void)
{
    quits++;
}

static void test_mux(void)
{
    g_autofree char *spec = g_strdup_printf("mon:unix:%s/s,server=on,wait=off", char_test_dir);
    Chardev *chr = chardev_new_legacy("m", spec, true, &error_abort);
    Port serial, monitor;

    g_assert_true(chardev_is_mux(chr));
    g_assert_nonnull(chardev_find("m-base"));
    port_init(&monitor, chr);
    port_init(&serial, chr);
    g_assert_cmpint(monitor.mux_in, ==, 1);
    g_assert_cmpint(monitor.mux_out, ==, 1);
    g_assert_cmpint(serial.mux_in, ==, 1);

    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(serial.opened && monitor.opened);
    say(client, "serial");
    check_got(&serial, "serial");
    say(client, "\x01" "cmonitor");
    check_got(&monitor, "monitor");
    g_assert_cmpint(monitor.mux_in, ==, 2);
    g_assert_cmpint(serial.mux_out, ==, 1);
    say(client, "\x01" "c\x01\x01.");
    check_got(&serial, "\x01.");
    say(client, "\x01" "b");
    WAIT_FOR(serial.breaks == 1);
    g_assert_cmpint(monitor.breaks, ==, 0);

    /* Both write; the keys work also while the one with the focus takes nothing. */
    chr_fe_write(&serial.fe, "one ", 4);
    chr_fe_write(&monitor.fe, "two", 3);
    expect(client, "one two");
    serial.room = 0;
    say(client, "kept\x01" "cmon");
    check_got(&monitor, "mon");
    g_assert_cmpuint(serial.got->len, ==, 0);
    say(client, "\x01" "c");
    WAIT_FOR(serial.mux_in == 3);
    serial.room = 100;
    chr_fe_accept_input(&serial.fe);
    check_got(&serial, "kept");

    say(client, "\x01h");
    expect(client, "\r\nC-a h ");
    chardev_mux_set_quit_handler(on_quit);
    say(client, "\x01x");
    WAIT_FOR(quits == 1);
    chardev_mux_set_quit_handler(NULL);

    g_autoptr(Error) busy = NULL;
    g_assert_false(chardev_delete("m-base", &busy));
    port_free(&serial, false);
    g_assert_cmpint(monitor.mux_in, ==, 4);
    port_free(&monitor, true);
    g_assert_true(chardev_delete("m-base", &error_abort));
}

/* More than it reads ahead: nothing is lost, it waits. */
static void test_mux_flow(void)
{
    g_autofree char *text = g_strnfill(500, 'z');
    Chardev *chr = make_chardev("socket,id=m,path=%s/s,server=on,wait=off,mux=on", char_test_dir);
    Port p;

    port_init(&p, chr);
    p.room = 0;
    g_autoptr(QIOChannel) client = dial("s");
    WAIT_FOR(p.opened);
    say(client, text);
    settle();
    while (p.got->len < 500) {
        p.room = 7;
        chr_fe_accept_input(&p.fe);
        WAIT_FOR(p.room < 7);
        settle();
    }
    check_got(&p, text);
    port_free(&p, true);
    g_assert_true(chardev_delete("m-base", &error_abort));
}

int main(int argc, char **argv)
{
    char_test_init(&argc, &argv);
    g_test_add_func("/char-mux/focus", test_mux);
    g_test_add_func("/char-mux/flow", test_mux_flow);
    return char_test_run();
}
