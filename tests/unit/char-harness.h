/*
 * What the tests of character devices share: a front end that keeps what it gets, and the other end
 * of a UNIX socket in a directory of the test's own.
 *
 * The tests turn the default main context themselves, until what they wait for has happened; a
 * watchdog ends a test in which it never does.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_UNIT_CHAR_HARNESS_H
#define TESTS_UNIT_CHAR_HARNESS_H

#include "chardev/char-fe.h"
#include "io/channel-socket.h"

/* Where test files go. */
extern char *char_test_dir;

/* Turn the main loop until @condition holds. */
#define WAIT_FOR(condition)                       \
    do {                                          \
        while (!(condition)) {                    \
            g_main_context_iteration(NULL, TRUE); \
        }                                         \
    } while (0)

/* Let everything happen that can happen now. */
void settle(void);

/* A front end that keeps what it gets. */
typedef struct Port {
    CharFrontend fe;
    int room;           /* what can_read says; -1: without limit */
    GString *got;       /* what it has got */
    int opened, closed, mux_in, mux_out, breaks;     /* how often */
} Port;

void port_init(Port *p, Chardev *chr);
/* @del: the device goes too. */
void port_free(Port *p, bool del);
/* Wait for @text, which must be all that has come; start anew. */
void check_got(Port *p, const char *text);

/* A device from the formatted argument of -chardev. */
Chardev *make_chardev(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

/* Connect to the UNIX socket @name in the directory. */
QIOChannel *dial(const char *name);
void say(QIOChannel *ioc, const char *text);
/* Wait for exactly @text. */
void expect(QIOChannel *ioc, const char *text);

/* In place of g_test_init() and g_test_run(). */
void char_test_init(int *argc, char ***argv);
int char_test_run(void);

#endif
