/*
 * Character devices over channels: reading as much as the front end takes, writing without waiting.
 *
 * A read watch exists exactly while there is an input channel and the front end takes bytes. Any
 * thread may change the second part; it makes the `kick` source ready, and the main loop then puts
 * things in order. A write that fails does the same, so that the front end hears of the end from
 * the main loop and never from within its own call.
 *
 * When a write fails while input can be read, the read finds the end in due time, after what the
 * client had still said. While nothing is read, because the front end takes nothing, a watch for
 * G_IO_HUP finds it: what is unread then gets a moment more, and is lost with the client.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "chardev/char-class.h"

#include <glib-unix.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define READ_BYTES 16384
#define HUP_GRACE_MS 1000
#define QUEUE_LIMIT_BYTES (1 << 20)

/* A front end's watch: the output channel's descriptor, or a ready time once that is gone. */
typedef struct CharWatch {
    GSource parent;
    Chardev *chr;       /* NULL once the connection has ended */
    QIOChannel *out;
    gpointer tag;
    GIOCondition condition;
} CharWatch;

typedef struct CharKick {
    GSource parent;
    Chardev *chr;
} CharKick;

/* Reading ------------------------------------------------------------------------------------ */

static void drop_source(GSource **source)
{
    if (*source) {
        g_source_destroy(*source);
        g_source_unref(*source);
        *source = NULL;
    }
}

static void drop_msgfds(Chardev *chr)
{
    for (size_t i = 0; i < chr->n_msgfds; i++) {
        close(chr->msgfds[i]);
    }
    g_clear_pointer(&chr->msgfds, g_free);
    chr->n_msgfds = 0;
}

static void hang_up(Chardev *chr)
{
    if (chr->klass->hangup) {
        chr->klass->hangup(chr);
    } else {
        char_io_detach_input(chr);
    }
}

static ssize_t read_some(Chardev *chr, QIOChannel *ioc, uint8_t *buf, size_t size)
{
    struct iovec iov = { buf, size };
    int *fds = NULL;
    size_t nfds = 0;
    ssize_t n;

    if (!qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_FD_PASS)) {
        return qio_channel_readv(ioc, &iov, 1, NULL);
    }
    n = qio_channel_readv_full(ioc, &iov, 1, &fds, &nfds, NULL);
    if (nfds) {
        drop_msgfds(chr);
        chr->msgfds = fds;
        chr->n_msgfds = nfds;
    }
    return n;
}

static gboolean on_hup_grace_over(gpointer opaque)
{
    hang_up(opaque);
    return G_SOURCE_REMOVE;
}

static gboolean on_hup(gint fd, GIOCondition condition, gpointer opaque)
{
    Chardev *chr = opaque;
    int unread = 0;

    if (ioctl(fd, FIONREAD, &unread) < 0 || !unread) {
        hang_up(chr);
        return G_SOURCE_REMOVE;
    }
    drop_source(&chr->hup_watch);
    chr->hup_watch = g_timeout_source_new(HUP_GRACE_MS);
    /* After all else, so that a main loop that was held up reads first. */
    g_source_set_priority(chr->hup_watch, G_PRIORITY_LOW);
    g_source_set_callback(chr->hup_watch, on_hup_grace_over, chr, NULL);
    g_source_attach(chr->hup_watch, NULL);
    return G_SOURCE_REMOVE;
}

static void watch_hup(Chardev *chr)
{
    int fd = qio_channel_get_fd(chr->in);

    if (fd >= 0 && chr->klass->hangup && !chr->hup_watch) {
        chr->hup_watch = g_unix_fd_source_new(fd, G_IO_HUP | G_IO_ERR);
        g_source_set_callback(chr->hup_watch, (GSourceFunc)(void (*)(void))on_hup, chr, NULL);
        g_source_attach(chr->hup_watch, NULL);
    }
}

static gboolean on_readable(QIOChannel *ioc, GIOCondition condition, gpointer opaque)
{
    Chardev *chr = opaque;
    uint8_t buf[READ_BYTES];
    int room = chr_be_can_write(chr);

    if (room <= 0) {
        drop_source(&chr->in_watch);
        watch_hup(chr);
        return G_SOURCE_REMOVE;
    }
    ssize_t n = read_some(chr, ioc, buf, MIN(room, READ_BYTES));
    if (n == QIO_CHANNEL_ERR_BLOCK) {
        return G_SOURCE_CONTINUE;
    }
    if (n <= 0) {
        hang_up(chr);
        return G_SOURCE_REMOVE;
    }

    /* The front end may do anything in there, but for removing a device that it uses. */
    g_autoptr(GSource) self = g_source_ref(chr->in_watch);
    chr_be_write(chr, buf, n);
    return g_source_is_destroyed(self) ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

static void update_in_watch(Chardev *chr)
{
    if (!chr->in || chr->in_watch) {
        return;
    }
    if (chr_be_can_write(chr) <= 0) {
        watch_hup(chr);
        return;
    }
    drop_source(&chr->hup_watch);
    chr->in_watch = qio_channel_create_watch(chr->in, G_IO_IN);
    g_source_set_callback(chr->in_watch, (GSourceFunc)(void (*)(void))on_readable, chr, NULL);
    g_source_attach(chr->in_watch, NULL);
}

/* The connection has ended: each fires, once more or until its owner removes it. */
static void wake_watches(Chardev *chr)
{
    for (guint i = 0; i < chr->watches->len; i++) {
        CharWatch *w = g_ptr_array_index(chr->watches, i);

        if (!g_source_is_destroyed(&w->parent)) {
            if (w->tag) {
                g_source_remove_unix_fd(&w->parent, w->tag);
                w->tag = NULL;
            }
            w->chr = NULL;
            g_source_set_ready_time(&w->parent, 0);
        }
    }
    g_ptr_array_set_size(chr->watches, 0);
}

/* Stop writing, with the lock held; the caller drops the reference without it. */
static QIOChannel *detach_output(Chardev *chr)
{
    g_byte_array_set_size(chr->queue, 0);
    drop_source(&chr->queue_watch);
    g_clear_pointer(&chr->out_error, g_free);
    wake_watches(chr);
    return g_steal_pointer(&chr->out);
}

/* The kick ----------------------------------------------------------------------------------- */

/*
 * Writing has failed: from now on output is dropped. Who hangs up does more; others are reported.
 */
static void break_output(Chardev *chr)
{
    g_autofree char *reason = NULL;

    pthread_mutex_lock(&chr->lock);
    reason = g_steal_pointer(&chr->out_error);
    QIOChannel *out = reason ? detach_output(chr) : NULL;
    pthread_mutex_unlock(&chr->lock);
    qio_channel_unref(out);
    if (!reason) {
        return;
    }
    if (!chr->klass->hangup) {
        warn_report("chardev '%s': %s; its output is dropped from now on", chr->id, reason);
    } else if (!chr->in_watch) {
        hang_up(chr);
    }
}

static gboolean kick_dispatch(GSource *source, GSourceFunc unused, gpointer unused2)
{
    Chardev *chr = ((CharKick *)source)->chr;

    g_source_set_ready_time(source, -1);
    if (chr->klass->accept_input) {
        chr->klass->accept_input(chr);
    }
    update_in_watch(chr);
    break_output(chr);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs kick_funcs = { .dispatch = kick_dispatch };

void char_io_kick(Chardev *chr)
{
    g_source_set_ready_time(chr->kick, 0);
}

/* Writing: everything below is called with the lock ------------------------------------------- */

/* Write what goes; -1 when the connection is broken, which the main loop is told. */
static int write_some(Chardev *chr, const void *buf, int len)
{
    int done = 0;

    while (done < len && !chr->out_error) {
        g_autoptr(Error) err = NULL;
        ssize_t n = qio_channel_write(chr->out, (const char *)buf + done, len - done, &err);

        if (n == QIO_CHANNEL_ERR_BLOCK) {
            break;
        }
        if (n < 0) {
            chr->out_error = g_strdup(error_get_pretty(err));
            g_byte_array_set_size(chr->queue, 0);
            char_io_kick(chr);
            break;
        }
        done += n;
    }
    return done || !chr->out_error ? done : -1;
}

static gboolean on_queue_writable(QIOChannel *ioc, GIOCondition condition, gpointer opaque)
{
    Chardev *chr = opaque;
    gboolean more = G_SOURCE_REMOVE;

    pthread_mutex_lock(&chr->lock);
    if (chr->out == ioc && chr->queue_watch) {
        int n = write_some(chr, chr->queue->data, chr->queue->len);

        if (n > 0 && chr->queue->len) {
            g_byte_array_remove_range(chr->queue, 0, n);
        }
        more = chr->queue->len != 0;
        if (!more) {
            drop_source(&chr->queue_watch);
        }
    }
    pthread_mutex_unlock(&chr->lock);
    return more;
}

static void enqueue(Chardev *chr, const void *buf, int len)
{
    g_byte_array_append(chr->queue, buf, len);
    if (!chr->queue_watch) {
        chr->queue_watch = qio_channel_create_watch(chr->out, G_IO_OUT);
        g_source_set_callback(chr->queue_watch, (GSourceFunc)(void (*)(void))on_queue_writable,
                              chr, NULL);
        g_source_attach(chr->queue_watch, NULL);
    }
}

static int write_locked(Chardev *chr, const void *buf, int len, bool all)
{
    int n = 0;

    if (!chr->out) {
        return len;
    }
    if (!chr->queue->len) {
        n = write_some(chr, buf, len);
    }
    if (!all || n < 0 || n == len) {
        return n;
    }
    if (chr->out_error || chr->queue->len + (len - n) > chr->queue_limit_bytes) {
        return -1;
    }
    enqueue(chr, (const char *)buf + n, len - n);
    return len;
}

int char_io_write(Chardev *chr, const void *buf, int len, bool all)
{
    pthread_mutex_lock(&chr->lock);
    int n = write_locked(chr, buf, len, all);
    pthread_mutex_unlock(&chr->lock);
    return n;
}

/* Watches of front ends ----------------------------------------------------------------------- */

static GIOCondition watch_ready(CharWatch *w)
{
    if (!w->chr) {
        return G_IO_HUP;
    }
    return w->tag ? g_source_query_unix_fd(&w->parent, w->tag) : w->condition & G_IO_OUT;
}

static gboolean watch_check(GSource *source)
{
    return watch_ready((CharWatch *)source) != 0;
}

static gboolean watch_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    ChrWatchFunc func = (ChrWatchFunc)(void (*)(void))callback;

    return func(NULL, watch_ready((CharWatch *)source), opaque);
}

static void watch_finalize(GSource *source)
{
    qio_channel_unref(((CharWatch *)source)->out);
}

static GSourceFuncs watch_funcs = {
    .check = watch_check,
    .dispatch = watch_dispatch,
    .finalize = watch_finalize,
};

/* Forget sources that their owners have removed meanwhile. */
static void prune_watches(Chardev *chr)
{
    for (guint i = chr->watches->len; i-- > 0;) {
        if (g_source_is_destroyed(g_ptr_array_index(chr->watches, i))) {
            g_ptr_array_remove_index_fast(chr->watches, i);
        }
    }
}

guint char_io_add_watch(Chardev *chr, GIOCondition condition, ChrWatchFunc func, void *opaque)
{
    GSource *source = g_source_new(&watch_funcs, sizeof(CharWatch));
    CharWatch *w = (CharWatch *)source;

    g_source_set_name(source, "Chardev output");
    g_source_set_callback(source, (GSourceFunc)(void (*)(void))func, opaque, NULL);
    w->condition = condition;

    pthread_mutex_lock(&chr->lock);
    int fd = chr->out ? qio_channel_get_fd(chr->out) : -1;
    if (chr->out) {
        prune_watches(chr);
        w->chr = chr;
        w->out = qio_channel_ref(chr->out);
        g_ptr_array_add(chr->watches, g_source_ref(source));
    }
    if (fd >= 0) {
        w->tag = g_source_add_unix_fd(source, fd,
                                      (condition & G_IO_OUT) | G_IO_HUP | G_IO_ERR);
    } else {
        g_source_set_ready_time(source, 0);
    }
    guint id = g_source_attach(source, NULL);
    pthread_mutex_unlock(&chr->lock);
    g_source_unref(source);
    return id;
}

/* Coming and going --------------------------------------------------------------------------- */

static void unref_source(gpointer source)
{
    g_source_unref(source);
}

void char_io_init(Chardev *chr)
{
    pthread_mutex_init(&chr->lock, NULL);
    chr->queue = g_byte_array_new();
    chr->queue_limit_bytes = QUEUE_LIMIT_BYTES;
    chr->watches = g_ptr_array_new_with_free_func(unref_source);
    chr->kick = g_source_new(&kick_funcs, sizeof(CharKick));
    ((CharKick *)chr->kick)->chr = chr;
    g_source_set_name(chr->kick, "Chardev");
    g_source_attach(chr->kick, NULL);
}

void char_io_destroy(Chardev *chr)
{
    char_io_detach(chr);
    drop_source(&chr->kick);
    g_byte_array_unref(chr->queue);
    g_ptr_array_unref(chr->watches);
    pthread_mutex_destroy(&chr->lock);
}

void char_io_attach(Chardev *chr, QIOChannel *in, QIOChannel *out)
{
    if (in) {
        qio_channel_set_blocking(in, false, NULL);
    }
    if (out) {
        qio_channel_set_blocking(out, false, NULL);
    }
    chr->in = qio_channel_ref(in);
    pthread_mutex_lock(&chr->lock);
    chr->out = qio_channel_ref(out);
    pthread_mutex_unlock(&chr->lock);
    char_io_kick(chr);
}

void char_io_detach_input(Chardev *chr)
{
    drop_source(&chr->in_watch);
    drop_source(&chr->hup_watch);
    drop_msgfds(chr);
    g_clear_pointer(&chr->in, qio_channel_unref);
}

void char_io_detach(Chardev *chr)
{
    char_io_detach_input(chr);

    pthread_mutex_lock(&chr->lock);
    if (chr->out && chr->queue->len && !chr->out_error) {
        /* The last words, if they go at once. */
        qio_channel_write(chr->out, chr->queue->data, chr->queue->len, NULL);
    }
    QIOChannel *out = detach_output(chr);
    pthread_mutex_unlock(&chr->lock);
    qio_channel_unref(out);
}
