/*
 * The character device that is a new pseudo terminal, for somebody to open.
 *
 * The kernel does not say when somebody opens the other side, only, by POLLHUP, that nobody has it
 * open. So while nobody has, a timer looks; while somebody has, reading shows the end.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#include "chardev/char-class.h"
#include "io/channel-file.h"

#define LOOK_MS 100

typedef struct PtyChardev {
    Chardev parent;
    QIOChannel *master;
    char *name;
    guint timer;
} PtyChardev;

static bool somebody_there(PtyChardev *pty)
{
    struct pollfd p = { .fd = qio_channel_get_fd(pty->master), .events = POLLIN };

    return poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP);
}

static gboolean look(gpointer opaque)
{
    PtyChardev *pty = opaque;

    if (!somebody_there(pty)) {
        return G_SOURCE_CONTINUE;
    }
    pty->timer = 0;
    char_io_attach(&pty->parent, pty->master, pty->master);
    chr_be_event(&pty->parent, CHR_EVENT_OPENED);
    return G_SOURCE_REMOVE;
}

static void pty_hangup(Chardev *chr)
{
    PtyChardev *pty = (PtyChardev *)chr;

    char_io_detach(chr);
    if (!pty->timer) {
        pty->timer = g_timeout_add(LOOK_MS, look, pty);
    }
    if (chr->be_open) {
        chr_be_event(chr, CHR_EVENT_CLOSED);
    }
}

/* The terminal passes bytes on as they are, until who opens it decides otherwise. */
static int open_pair(int *master, char **name)
{
    struct termios tty;
    char path[PATH_MAX];
    int slave;

    if (openpty(master, &slave, path, NULL, NULL) < 0) {
        return -1;
    }
    tcgetattr(slave, &tty);
    cfmakeraw(&tty);
    tcsetattr(slave, TCSAFLUSH, &tty);
    close(slave);
    fcntl(*master, F_SETFD, FD_CLOEXEC);
    *name = g_strdup(path);
    return 0;
}

static bool pty_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    PtyChardev *pty = (PtyChardev *)chr;
    int master;

    if (open_pair(&master, &pty->name) < 0) {
        error_setg_errno(errp, errno, "Failed to create PTY");
        return false;
    }
    pty->master = QIO_CHANNEL(qio_channel_file_new_fd(master, errp));
    if (!pty->master) {
        return false;
    }
    fprintf(stdout, "char device redirected to %s (label %s)\n", pty->name, chr->id);
    fflush(stdout);
    pty->timer = g_timeout_add(LOOK_MS, look, pty);
    return true;
}

static void pty_close(Chardev *chr)
{
    PtyChardev *pty = (PtyChardev *)chr;

    if (pty->timer) {
        g_source_remove(pty->timer);
    }
    char_io_detach(chr);
    qio_channel_unref(pty->master);
    g_free(pty->name);
}

static char *pty_filename(Chardev *chr)
{
    return g_strdup_printf("pty:%s", ((PtyChardev *)chr)->name);
}

const ChardevClass chardev_pty_class = {
    .kind = CHARDEV_BACKEND_KIND_PTY,
    .size = sizeof(PtyChardev),
    .open = pty_open,
    .close = pty_close,
    .hangup = pty_hangup,
    .filename = pty_filename,
};
