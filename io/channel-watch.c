/*
 * Waiting for a channel: in poll(2) for one thread, as a GSource for an event loop.
 *
 * Both ask the kind for the descriptor of each direction. A kind without one (memory) is always
 * ready. A kind with wake-up descriptors has the one of that direction watched as well, so that a
 * direction that was shut down, which nobody may wait on any longer, is always ready too.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "io/channel-class.h"

#include <errno.h>
#include <poll.h>

#define N_DIRECTIONS 2

static const struct {
    GIOCondition condition;
    short events;
    int ended;
} directions[N_DIRECTIONS] = {
    { G_IO_IN, POLLIN, CHANNEL_ENDED_READ },
    { G_IO_OUT, POLLOUT, CHANNEL_ENDED_WRITE },
};

typedef struct ChannelSource {
    GSource parent;
    QIOChannel *ioc;
    GIOCondition condition;
    /* For each direction asked for, the tags of its descriptor and of its wake-up; NULL: none. */
    gpointer tag[N_DIRECTIONS];
    gpointer wake[N_DIRECTIONS];
} ChannelSource;

static int poll_fd(QIOChannel *ioc, int direction)
{
    return ioc->closed ? -1 : ioc->klass->poll_fd(ioc, directions[direction].condition);
}

bool qio_channel_wait_timeout(QIOChannel *ioc, GIOCondition condition, int timeout_ms)
{
    struct pollfd fds[2 * N_DIRECTIONS];
    nfds_t n = 0;
    int ret;

    for (int i = 0; i < N_DIRECTIONS; i++) {
        if (!(condition & directions[i].condition)) {
            continue;
        }
        int fd = poll_fd(ioc, i);
        if (fd < 0) {
            return true;
        }
        fds[n++] = (struct pollfd) { .fd = fd, .events = directions[i].events };
        if (ioc->wake_fd[i] >= 0) {
            fds[n++] = (struct pollfd) { .fd = ioc->wake_fd[i], .events = POLLIN };
        }
    }
    /* A signal starts the time again: the deadlines here are for what is stuck, not exact. */
    do {
        ret = poll(fds, n, timeout_ms);
    } while (ret < 0 && errno == EINTR);
    return ret != 0;
}

void qio_channel_wait(QIOChannel *ioc, GIOCondition condition)
{
    qio_channel_wait_timeout(ioc, condition, -1);
}

/* What is true of the channel now, as far as the source asked. */
static GIOCondition source_ready(ChannelSource *s)
{
    GIOCondition ready = 0;

    for (int i = 0; i < N_DIRECTIONS; i++) {
        GIOCondition wanted = s->condition & directions[i].condition;

        if (!wanted) {
            continue;
        }
        if (s->tag[i]) {
            ready |= g_source_query_unix_fd(&s->parent, s->tag[i]);
        }
        if (!s->tag[i] || (s->wake[i] && g_source_query_unix_fd(&s->parent, s->wake[i]))) {
            ready |= wanted;
        }
    }
    return ready;
}

/* Whether a direction is ready although no descriptor would ever end the poll for it. */
static gboolean source_prepare(GSource *source, gint *timeout)
{
    ChannelSource *s = (ChannelSource *)source;

    *timeout = -1;
    for (int i = 0; i < N_DIRECTIONS; i++) {
        if (s->condition & directions[i].condition && !s->tag[i]) {
            return TRUE;
        }
    }
    return FALSE;
}

static gboolean source_check(GSource *source)
{
    return source_ready((ChannelSource *)source) != 0;
}

static gboolean source_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    ChannelSource *s = (ChannelSource *)source;
    QIOChannelFunc func = (QIOChannelFunc)(void (*)(void))callback;

    return func(s->ioc, source_ready(s), opaque);
}

static void source_finalize(GSource *source)
{
    qio_channel_unref(((ChannelSource *)source)->ioc);
}

static GSourceFuncs channel_source_funcs = {
    .prepare = source_prepare,
    .check = source_check,
    .dispatch = source_dispatch,
    .finalize = source_finalize,
};

GSource *qio_channel_create_watch(QIOChannel *ioc, GIOCondition condition)
{
    GSource *source = g_source_new(&channel_source_funcs, sizeof(ChannelSource));
    ChannelSource *s = (ChannelSource *)source;

    s->ioc = qio_channel_ref(ioc);
    s->condition = condition;
    g_source_set_name(source, "QIOChannel");
    for (int i = 0; i < N_DIRECTIONS; i++) {
        int fd = condition & directions[i].condition ? poll_fd(ioc, i) : -1;

        if (fd < 0) {
            continue;
        }
        s->tag[i] = g_source_add_unix_fd(source, fd,
                                         directions[i].condition | G_IO_HUP | G_IO_ERR);
        if (ioc->wake_fd[i] >= 0) {
            s->wake[i] = g_source_add_unix_fd(source, ioc->wake_fd[i], G_IO_IN);
        }
    }
    return source;
}

guint qio_channel_add_watch_full(QIOChannel *ioc, GIOCondition condition, QIOChannelFunc func,
                                 gpointer opaque, GDestroyNotify notify, GMainContext *context)
{
    g_autoptr(GSource) source = qio_channel_create_watch(ioc, condition);

    g_source_set_callback(source, (GSourceFunc)(void (*)(void))func, opaque, notify);
    return g_source_attach(source, context);
}

guint qio_channel_add_watch(QIOChannel *ioc, GIOCondition condition, QIOChannelFunc func,
                            gpointer opaque, GDestroyNotify notify)
{
    return qio_channel_add_watch_full(ioc, condition, func, opaque, notify, NULL);
}
