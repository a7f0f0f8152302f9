/*
 * The inside of a character device: for the files that implement a kind.
 *
 * A kind is a ChardevClass and a struct that begins with a Chardev. Nearly every kind is a
 * QIOChannel for input and one for output (often the same) and differs in how they come and go: it
 * calls char_io_attach() when they are there and char_io_detach() when they are not, and its hangup
 * function is called when reading or writing shows that the other side is gone. A kind without
 * channels drops its output.
 *
 * Only the main thread changes a device. What chr_fe_write() and its like touch from other threads
 * is under chr->lock, and nothing is called with that lock held but channels and GSources.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CHARDEV_CHAR_CLASS_H
#define CHARDEV_CHAR_CLASS_H

#include <pthread.h>

#include "chardev/char-fe.h"
#include "io/channel.h"

typedef struct ChardevClass {
    ChardevBackendKind kind;
    size_t size;
    /* Begin; set chr->be_open when somebody is connected from the start. */
    bool (*open)(Chardev *chr, const ChardevBackend *backend, Error **errp);
    /* Give back everything; also called after open failed. May be NULL. */
    void (*close)(Chardev *chr);
    /* The other side is gone, or is to be sent away. NULL: only input or output is at its end. */
    void (*hangup)(Chardev *chr);
    /* As ChardevInfo's filename; NULL: the name of the kind. */
    char *(*filename)(Chardev *chr);

    /* Only a mux has these; they replace what the device does itself. */
    bool (*attach)(Chardev *chr, CharFrontend *fe, Error **errp);
    void (*detach)(Chardev *chr, CharFrontend *fe);
    void (*handlers_set)(Chardev *chr, CharFrontend *fe);
    void (*accept_input)(Chardev *chr);     /* from the main loop */
    int (*write)(Chardev *chr, CharFrontend *fe, const void *buf, int len, bool all);
    guint (*add_watch)(Chardev *chr, GIOCondition condition, ChrWatchFunc func, void *opaque);
} ChardevClass;

struct Chardev {
    const ChardevClass *klass;
    char *id;
    CharFrontend *fe;       /* NULL: not in use */
    bool be_open;           /* between CHR_EVENT_OPENED and CHR_EVENT_CLOSED */
    QIOChannel *in;         /* main thread only, as all down to the lock */
    GSource *in_watch;
    GSource *hup_watch;     /* while there is no in_watch: for the end, then for its grace */
    int *msgfds;
    size_t n_msgfds;
    GSource *kick;          /* made ready to have the main loop look after this device */

    pthread_mutex_t lock;   /* guards all below */
    QIOChannel *out;        /* NULL: output is dropped */
    char *out_error;        /* why a write failed; the main loop will act on it */
    GByteArray *queue;      /* accepted, not written yet */
    size_t queue_limit_bytes;
    GSource *queue_watch;
    GPtrArray *watches;     /* sources of front ends, to be woken when the connection ends */
};

extern const ChardevClass chardev_fd_class;
extern const ChardevClass chardev_file_class;
extern const ChardevClass chardev_mux_class;
extern const ChardevClass chardev_null_class;
extern const ChardevClass chardev_pipe_class;
extern const ChardevClass chardev_pty_class;
extern const ChardevClass chardev_socket_class;
extern const ChardevClass chardev_stdio_class;

/* All devices in the order in which they were made; unref the array. */
GPtrArray *chardev_list(void);

/* The device's side of its front end ---------------------------------------------------------- */

/* What the front end takes; 0 without one. */
int chr_be_can_write(Chardev *chr);
void chr_be_write(Chardev *chr, const uint8_t *buf, int len);
/* Tell the front end, and keep be_open up to date. */
void chr_be_event(Chardev *chr, ChrEvent event);

/* char-io.c ----------------------------------------------------------------------------------- */

/* Before open and after close; char.c calls them, kinds do not. */
void char_io_init(Chardev *chr);
void char_io_destroy(Chardev *chr);

/*
 * Use these channels from now on, in non-blocking mode; either may be NULL. References are taken.
 * The caller then tells CHR_EVENT_OPENED, if that is what it means.
 */
void char_io_attach(Chardev *chr, QIOChannel *in, QIOChannel *out);
/*
 * Use none, drop the queue, wake watches with G_IO_HUP. References are dropped, which closes
 * channels that nobody else holds. The caller then tells CHR_EVENT_CLOSED.
 */
void char_io_detach(Chardev *chr);
/* Only input is at its end. */
void char_io_detach_input(Chardev *chr);

/*
 * What chr_fe_write(), with @all chr_fe_write_all(), and chr_fe_add_watch() do on a device that
 * is no mux.
 */
int char_io_write(Chardev *chr, const void *buf, int len, bool all);
guint char_io_add_watch(Chardev *chr, GIOCondition condition, ChrWatchFunc func, void *opaque);
/* Have the main loop ask can_read again, and act on a broken connection. Any thread. */
void char_io_kick(Chardev *chr);

#endif
