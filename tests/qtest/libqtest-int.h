/*
 * What the files of libqtest share.
 *
 * libqtest.c starts and ends processes and has the test program's helpers, libqtest-proto.c speaks
 * the qtest protocol, libqtest-qmp.c speaks QMP.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_LIBQTEST_INT_H
#define TESTS_QTEST_LIBQTEST_INT_H

#include "tests/qtest/libqtest.h"
#include "util/mutex.h"

#define QTEST_IRQS 256

/* A connection that is read by lines. */
typedef struct LineSocket {
    int fd;
    const char *what;           /* for messages */
    GString *in;                /* read, not yet taken */
} LineSocket;

/* What a machine writes to one of its standard descriptors. */
typedef struct Capture {
    int fd;                     /* read end of the pipe */
    GThread *thread;            /* drains it, so that the machine never waits */
    Mutex lock;
    Cond changed;
    GString *text;
    bool ended;
} Capture;

struct QTestState {
    pid_t pid;                  /* 0: reaped */
    int status;                 /* of wait(), once reaped */
    int expected_status;
    char *args;
    Capture out, err;
    LineSocket qtest, qmp;
    GQueue events;              /* of json_object */
    bool irq_level[QTEST_IRQS];
};

/* The next line without its end, NULL at the end of the stream. Fails the test at the deadline. */
char *line_socket_read(QTestState *s, LineSocket *socket);
void line_socket_write(QTestState *s, LineSocket *socket, const void *bytes, size_t len,
                       const int *fds, size_t n_fds);

#endif
