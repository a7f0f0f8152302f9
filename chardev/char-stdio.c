/*
 * The character device on standard input and output.
 *
 * A terminal is put in raw mode, so that each key arrives as it is typed, and restored when the
 * device goes or the program exits. The descriptors themselves are duplicated, and their blocking
 * mode, which the shell shares, is restored too. A shell that stopped the program (Ctrl-Z) has
 * changed both back for itself, so SIGCONT sets them again.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "chardev/char-class.h"
#include "io/channel-file.h"

/* There is one standard input, so one device may have it. */
static struct {
    Chardev *owner;
    bool exit_hook;
    bool have_termios;
    struct termios termios;     /* as it was */
    struct termios raw;         /* as we want it */
    int flags[2];
} saved;

/* Also at exit, where everything else is gone already. */
static void restore(void)
{
    if (!saved.owner) {
        return;
    }
    saved.owner = NULL;
    if (saved.have_termios) {
        tcsetattr(STDIN_FILENO, TCSANOW, &saved.termios);
    }
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        if (saved.flags[fd] >= 0) {
            fcntl(fd, F_SETFL, saved.flags[fd]);
        }
    }
}

/* Keys one by one, without echo, output as it is; Ctrl-C a signal only if wanted. */
static void make_raw(bool signals)
{
    struct termios tty = saved.termios;

    tty.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    tty.c_oflag |= OPOST;
    tty.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signals) {
        tty.c_lflag &= ~ISIG;
    }
    tty.c_cflag &= ~(CSIZE | PARENB);
    tty.c_cflag |= CS8;
    tty.c_cc[VMIN] = 1;
    tty.c_cc[VTIME] = 0;
    saved.raw = tty;
    tcsetattr(STDIN_FILENO, TCSANOW, &tty);
}

/* A signal handler: only what is safe in one. */
static void on_continue(int signal)
{
    if (!saved.owner) {
        return;
    }
    if (saved.have_termios) {
        tcsetattr(STDIN_FILENO, TCSANOW, &saved.raw);
    }
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        if (saved.flags[fd] >= 0) {
            fcntl(fd, F_SETFL, saved.flags[fd] | O_NONBLOCK);
        }
    }
}

static bool refused;

void chardev_stdio_refuse(void)
{
    refused = true;
}

static bool stdio_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    const ChardevStdio *opts = backend->u.stdio.data;

    if (refused) {
        error_setg(errp, "cannot use stdio with -daemonize");
        return false;
    }
    if (saved.owner) {
        error_setg(errp, "cannot use stdio by multiple character devices");
        return false;
    }
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        saved.flags[fd] = fcntl(fd, F_GETFL);
    }
    g_autoptr(QIOChannel) in = QIO_CHANNEL(qio_channel_file_new_dupfd(STDIN_FILENO, errp));
    if (!in) {
        return false;
    }
    g_autoptr(QIOChannel) out = QIO_CHANNEL(qio_channel_file_new_dupfd(STDOUT_FILENO, errp));
    if (!out) {
        return false;
    }

    saved.owner = chr;
    if (!saved.exit_hook) {
        struct sigaction action = { .sa_handler = on_continue, .sa_flags = SA_RESTART };

        saved.exit_hook = true;
        atexit(restore);
        sigaction(SIGCONT, &action, NULL);
    }
    saved.have_termios = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp() &&
                         tcgetattr(STDIN_FILENO, &saved.termios) == 0;
    if (saved.have_termios) {
        make_raw(!opts->has_signal || opts->signal);
    }
    char_io_attach(chr, in, out);
    chr->be_open = true;
    return true;
}

static void stdio_close(Chardev *chr)
{
    if (saved.owner == chr) {
        char_io_detach(chr);
        restore();
    }
}

const ChardevClass chardev_stdio_class = {
    .kind = CHARDEV_BACKEND_KIND_STDIO,
    .size = sizeof(Chardev),
    .open = stdio_open,
    .close = stdio_close,
};
