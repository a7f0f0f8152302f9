/*
 * What all monitors have in common: input, output, and who is current.
 *
 * One function, monitor_pump(), moves everything along; it runs from the main loop and never from
 * within a command, so that a client that disconnects cannot pull the session from under the
 * command that is writing to it. Whatever may give it work (input arrived, output was appended, the
 * client reads again, a held monitor was released) posts it. It uses one command's worth of input
 * per call and posts itself again for the rest: a client with ten thousand pipelined commands takes
 * turns with the rest of the machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "monitor/monitor-internal.h"
#include "system/main-loop.h"
#include "util/mutex.h"

GPtrArray *monitor_list;
Mutex monitor_list_lock;

static __thread Monitor *cur_mon;

static void monitor_pump(Monitor *mon);

/* ---- the current monitor ---- */

Monitor *monitor_cur(void)
{
    return cur_mon;
}

bool monitor_cur_is_qmp(void)
{
    return cur_mon && cur_mon->is_qmp;
}

Monitor *monitor_set_cur(Monitor *mon)
{
    Monitor *old = cur_mon;

    cur_mon = mon;
    return old;
}

/* ---- posting ---- */

/* Whether @mon is still there: what was posted may come after its end. */
static bool monitor_is_listed(Monitor *mon)
{
    return monitor_list && g_ptr_array_find(monitor_list, mon, NULL);
}

static void pump_posted(void *opaque)
{
    Monitor *mon = opaque;

    if (monitor_is_listed(mon)) {
        g_atomic_int_set(&mon->pump_posted, 0);
        monitor_pump(mon);
    }
}

static void post_pump(Monitor *mon)
{
    if (mon->has_device && g_atomic_int_compare_and_exchange(&mon->pump_posted, 0, 1)) {
        main_loop_post(pump_posted, mon);
    }
}

/* ---- output ---- */

size_t monitor_out_pending(Monitor *mon)
{
    size_t n;

    mutex_lock(&mon->out_lock);
    n = mon->out->len - mon->out_sent;
    mutex_unlock(&mon->out_lock);
    return n;
}

void monitor_out(Monitor *mon, const char *data, size_t size)
{
    mutex_lock(&mon->out_lock);
    if (mon->out->len - mon->out_sent > MONITOR_OUT_MAX_BYTES) {
        mon->overflow = true;
    } else {
        g_string_append_len(mon->out, data, size);
    }
    mutex_unlock(&mon->out_lock);
    post_pump(mon);
}

/* Drop all output, or what was sent when that is all; memory of a big reply is given back. */
static void out_drop(Monitor *mon, bool unsent)
{
    mutex_lock(&mon->out_lock);
    if (unsent || mon->out_sent == mon->out->len) {
        if (mon->out->allocated_len > MONITOR_OUT_PAUSE_BYTES) {
            g_string_free(mon->out, TRUE);
            mon->out = g_string_new(NULL);
        } else {
            g_string_truncate(mon->out, 0);
        }
        mon->out_sent = 0;
    }
    if (unsent) {
        mon->overflow = false;
    }
    mutex_unlock(&mon->out_lock);
}

static gboolean out_writable(void *unused, GIOCondition cond, void *opaque)
{
    Monitor *mon = opaque;

    mon->out_watch = 0;
    monitor_pump(mon);
    return G_SOURCE_REMOVE;
}

/* Copy up to @size bytes from the front of the output; what was sent long ago is given up. */
static size_t out_peek(Monitor *mon, uint8_t *buf, size_t size)
{
    mutex_lock(&mon->out_lock);
    if (mon->out_sent > MONITOR_OUT_PAUSE_BYTES) {
        g_string_erase(mon->out, 0, mon->out_sent);
        mon->out_sent = 0;
    }
    size = MIN(size, mon->out->len - mon->out_sent);
    memcpy(buf, mon->out->str + mon->out_sent, size);
    mutex_unlock(&mon->out_lock);
    return size;
}

/*
 * Write what the device takes. No lock is held meanwhile: a device that finds its client gone says
 * so from within the call, and the session ends right there.
 */
static void out_flush(Monitor *mon)
{
    uint8_t buf[16 * 1024];
    size_t size = 0;
    bool overflow;

    while (mon->open && !mon->mux_out && (size = out_peek(mon, buf, sizeof(buf))) > 0) {
        int n = chr_fe_write(&mon->chr, buf, size);

        if (n <= 0 || !mon->open) {
            break;
        }
        mutex_lock(&mon->out_lock);
        mon->out_sent += n;
        mutex_unlock(&mon->out_lock);
    }
    if (!mon->open) {
        return;
    }
    mutex_lock(&mon->out_lock);
    overflow = mon->overflow;
    mutex_unlock(&mon->out_lock);
    if (overflow) {
        /* Its client is not there for us: the session ends, and what it missed is dropped. */
        out_drop(mon, true);
        chr_fe_disconnect(&mon->chr);
    } else if (size == 0) {
        out_drop(mon, false);
    } else if (!mon->out_watch && !mon->mux_out) {
        mon->out_watch = chr_fe_add_watch(&mon->chr, G_IO_OUT | G_IO_HUP, out_writable, mon);
    }
}

/* ---- input ---- */

static bool input_held(Monitor *mon)
{
    return mon->suspended > 0 || monitor_out_pending(mon) > MONITOR_OUT_PAUSE_BYTES;
}

static size_t in_left(Monitor *mon)
{
    return mon->in->len - mon->in_used;
}

static void in_discard(Monitor *mon)
{
    g_byte_array_set_size(mon->in, 0);
    mon->in_used = 0;
}

static int can_read(void *opaque)
{
    Monitor *mon = opaque;

    return in_left(mon) || input_held(mon) ? 0 : MONITOR_IN_BYTES;
}

static void read_input(void *opaque, const uint8_t *data, int size)
{
    Monitor *mon = opaque;

    g_byte_array_append(mon->in, data, size);
    post_pump(mon);
}

static void monitor_pump(Monitor *mon)
{
    size_t used;

    out_flush(mon);
    if (mon->busy) {
        return;
    }
    if (mon->open && in_left(mon) && !input_held(mon)) {
        mon->busy = true;
        used = mon->ops->input(mon, (char *)mon->in->data + mon->in_used, in_left(mon));
        mon->busy = false;
        /* A command that let the loop turn may find another session here. */
        mon->in_used = MIN(mon->in_used + used, mon->in->len);
        out_flush(mon);
    }
    if (in_left(mon)) {
        if (!input_held(mon)) {
            post_pump(mon);
        }
        return;
    }
    in_discard(mon);
    if (mon->open && !input_held(mon)) {
        chr_fe_accept_input(&mon->chr);
    }
}

void monitor_suspend(Monitor *mon)
{
    mon->suspended++;
}

void monitor_resume(Monitor *mon)
{
    g_assert(mon->suspended > 0);
    if (--mon->suspended == 0) {
        if (mon->ops->resumed) {
            mon->ops->resumed(mon);
        }
        post_pump(mon);
    }
}

int monitor_take_msgfd(Monitor *mon)
{
    if (mon->parent) {
        mon = mon->parent;
    }
    return mon->has_device ? chr_fe_get_msgfd(&mon->chr) : -1;
}

int monitor_get_fd(Monitor *mon, const char *name, Error **errp)
{
    return named_fds_take(mon->fds, name, errp);
}

int monitor_peek_fd(Monitor *mon, const char *name, Error **errp)
{
    return named_fds_peek(mon->fds, name, errp);
}

/* ---- sessions ---- */

static void session_end(Monitor *mon)
{
    if (!mon->open) {
        return;
    }
    mon->open = false;
    if (mon->out_watch) {
        g_source_remove(mon->out_watch);
        mon->out_watch = 0;
    }
    in_discard(mon);
    /* With the lock: an event of this session must not get into the next one. */
    mutex_lock(&monitor_list_lock);
    mon->ops->closed(mon);
    out_drop(mon, true);
    mutex_unlock(&monitor_list_lock);
}

static void device_event(void *opaque, ChrEvent event)
{
    Monitor *mon = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        session_end(mon);
        out_drop(mon, true);
        mon->open = true;
        mon->ops->opened(mon);
        break;
    case CHR_EVENT_CLOSED:
        session_end(mon);
        break;
    case CHR_EVENT_MUX_OUT:
        mon->mux_out = true;
        break;
    case CHR_EVENT_MUX_IN:
        mon->mux_out = false;
        if (mon->ops->mux_in) {
            mon->ops->mux_in(mon);
        }
        post_pump(mon);
        break;
    default:
        break;
    }
}

bool monitor_data_init(Monitor *mon, const MonitorOps *ops, bool is_qmp, Chardev *chr, Error **errp)
{
    mon->ops = ops;
    mon->is_qmp = is_qmp;
    if (chr && !chr_fe_init(&mon->chr, chr, errp)) {
        return false;
    }
    mon->has_device = chr != NULL;
    mon->in = g_byte_array_new();
    mon->out = g_string_new(NULL);
    mon->fds = named_fds_new();
    mutex_init(&mon->out_lock);
    return true;
}

void monitor_data_destroy(Monitor *mon)
{
    if (mon->has_device) {
        if (mon->out_watch) {
            g_source_remove(mon->out_watch);
        }
        chr_fe_deinit(&mon->chr, false);
    }
    named_fds_free(mon->fds);
    g_byte_array_unref(mon->in);
    g_string_free(mon->out, TRUE);
    mutex_destroy(&mon->out_lock);
}

void monitor_start(Monitor *mon)
{
    mutex_lock(&monitor_list_lock);
    if (!monitor_list) {
        monitor_list = g_ptr_array_new();
    }
    g_ptr_array_add(monitor_list, mon);
    mutex_unlock(&monitor_list_lock);
    chr_fe_set_handlers(&mon->chr, can_read, read_input, device_event, mon);
}

void monitor_cleanup(void)
{
    while (monitor_list && monitor_list->len) {
        Monitor *mon = monitor_list->pdata[monitor_list->len - 1];

        out_flush(mon);
        mutex_lock(&monitor_list_lock);
        g_ptr_array_set_size(monitor_list, monitor_list->len - 1);
        mutex_unlock(&monitor_list_lock);
        mon->ops->free(mon);
    }
    fdset_cleanup();
}

/* ---- printing ---- */

void monitor_puts(Monitor *mon, const char *text)
{
    g_autoptr(GString) out = NULL;

    if (!mon || mon->is_qmp) {
        return;
    }
    out = g_string_new(NULL);
    for (; *text; text++) {
        if (*text == '\n') {
            g_string_append_c(out, '\r');
        }
        g_string_append_c(out, *text);
    }
    monitor_out(mon, out->str, out->len);
}

int monitor_vprintf(Monitor *mon, const char *fmt, va_list ap)
{
    g_autofree char *text = NULL;

    if (!mon || mon->is_qmp) {
        return -1;
    }
    text = g_strdup_vprintf(fmt, ap);
    monitor_puts(mon, text);
    return strlen(text);
}

int monitor_printf(Monitor *mon, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = monitor_vprintf(mon, fmt, ap);
    va_end(ap);
    return n;
}
