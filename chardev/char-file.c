/*
 * Character devices on files and descriptors: null, file, pipe, fd.
 *
 * They are there from the start and for good: opening is all there is to them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>

#include "chardev/char-class.h"
#include "io/channel-file.h"
#include "io/channel-socket.h"
#include "io/fd-resolver.h"

#include <sys/stat.h>
#include <unistd.h>

/* Use the channels, which may be NULL together with @errp set; drops the caller's references. */
static bool use_channels(Chardev *chr, QIOChannel *in, QIOChannel *out)
{
    if (!out) {
        return false;
    }
    char_io_attach(chr, in, out);
    qio_channel_unref(in);
    qio_channel_unref(out);
    chr->be_open = true;
    return true;
}

static bool null_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    chr->be_open = true;
    return true;
}

const ChardevClass chardev_null_class = {
    .kind = CHARDEV_BACKEND_KIND_NULL,
    .size = sizeof(Chardev),
    .open = null_open,
};

static bool file_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    const ChardevFile *file = backend->u.file.data;
    int how = file->has_append && file->append ? O_APPEND : O_TRUNC;

    return use_channels(chr, NULL, QIO_CHANNEL(
        qio_channel_file_new_path(file->out, O_WRONLY | O_CREAT | how, 0666, errp)));
}

const ChardevClass chardev_file_class = {
    .kind = CHARDEV_BACKEND_KIND_FILE,
    .size = sizeof(Chardev),
    .open = file_open,
};

/* O_RDWR, so that neither opening waits for another process nor its coming and going ends input. */
static bool pipe_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    const char *path = backend->u.pipe.data->device;
    g_autofree char *in_path = g_strdup_printf("%s.in", path);
    g_autofree char *out_path = g_strdup_printf("%s.out", path);
    QIOChannel *in, *out;

    if (access(in_path, F_OK) < 0 || access(out_path, F_OK) < 0) {
        in = QIO_CHANNEL(qio_channel_file_new_path(path, O_RDWR, 0, errp));
        return use_channels(chr, in, qio_channel_ref(in));
    }
    in = QIO_CHANNEL(qio_channel_file_new_path(in_path, O_RDWR, 0, errp));
    if (!in) {
        return false;
    }
    out = QIO_CHANNEL(qio_channel_file_new_path(out_path, O_RDWR, 0, errp));
    if (!out) {
        qio_channel_unref(in);
    }
    return use_channels(chr, in, out);
}

const ChardevClass chardev_pipe_class = {
    .kind = CHARDEV_BACKEND_KIND_PIPE,
    .size = sizeof(Chardev),
    .open = pipe_open,
};

static bool fd_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    int fd = io_fd_get(backend->u.fd.data->fd, errp);
    struct stat st;
    QIOChannel *ioc;

    if (fd < 0) {
        return false;
    }
    if (fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode)) {
        ioc = QIO_CHANNEL(qio_channel_socket_new_fd(fd, errp));
    } else {
        ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd, errp));
    }
    return use_channels(chr, ioc, qio_channel_ref(ioc));
}

static void fd_hangup(Chardev *chr)
{
    char_io_detach(chr);
    if (chr->be_open) {
        chr_be_event(chr, CHR_EVENT_CLOSED);
    }
}

const ChardevClass chardev_fd_class = {
    .kind = CHARDEV_BACKEND_KIND_FD,
    .size = sizeof(Chardev),
    .open = fd_open,
    .hangup = fd_hangup,
};
