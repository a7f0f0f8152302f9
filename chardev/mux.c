/*
 * The character device that several front ends share: a serial port and the monitor on one
 * terminal.
 *
 * All write to the device below; one has the focus and gets the input. Ctrl-A and a letter is for
 * the mux itself. So that Ctrl-A c works also while the front end with the focus takes nothing, the
 * mux reads a little ahead for each of them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "chardev/char-class.h"

#define FRONTENDS_MAX 4
#define AHEAD_BYTES 32
#define ESCAPE 0x01

typedef struct MuxFrontend {
    CharFrontend *fe;           /* NULL: free */
    uint8_t ahead[AHEAD_BYTES];
    int n_ahead;
} MuxFrontend;

typedef struct MuxChardev {
    Chardev parent;
    CharFrontend below;
    MuxFrontend slots[FRONTENDS_MAX];
    int focus;                  /* index into slots, or -1 */
    bool keep_focus;            /* who has it keeps it when another comes */
    bool escaped;               /* the last character was Ctrl-A */
} MuxChardev;

static void (*quit_handler)(void);

void chardev_mux_set_quit_handler(void (*quit)(void))
{
    quit_handler = quit;
}

void chardev_mux_keep_focus(Chardev *chr)
{
    g_assert(chardev_is_mux(chr));
    ((MuxChardev *)chr)->keep_focus = true;
}

static MuxFrontend *focused(MuxChardev *mux)
{
    return mux->focus < 0 ? NULL : &mux->slots[mux->focus];
}

static void send_event(MuxFrontend *slot, ChrEvent event)
{
    if (slot && slot->fe && slot->fe->event) {
        slot->fe->event(slot->fe->opaque, event);
    }
}

static void set_focus(MuxChardev *mux, int slot)
{
    if (slot != mux->focus) {
        send_event(focused(mux), CHR_EVENT_MUX_OUT);
        mux->focus = slot;
        send_event(focused(mux), CHR_EVENT_MUX_IN);
    }
}

/* Give the focus to the next front end, the first again after the last. */
static void next_focus(MuxChardev *mux)
{
    for (int i = 1; i <= FRONTENDS_MAX; i++) {
        int slot = (mux->focus + i) % FRONTENDS_MAX;

        if (mux->slots[slot].fe && mux->slots[slot].fe->read) {
            set_focus(mux, slot);
            return;
        }
    }
}

/* Input -------------------------------------------------------------------------------------- */

static int slot_room(MuxFrontend *slot)
{
    CharFrontend *fe = slot ? slot->fe : NULL;

    return fe && fe->can_read && fe->read ? fe->can_read(fe->opaque) : 0;
}

/* Hand over what was read ahead, as far as it is taken now. */
static void deliver(MuxFrontend *slot)
{
    while (slot && slot->n_ahead) {
        int n = MIN(slot_room(slot), slot->n_ahead);
        uint8_t buf[AHEAD_BYTES];

        if (n <= 0) {
            return;
        }
        memcpy(buf, slot->ahead, n);
        slot->n_ahead -= n;
        memmove(slot->ahead, slot->ahead + n, slot->n_ahead);
        slot->fe->read(slot->fe->opaque, buf, n);
    }
}

/* A byte for the front end with the focus; without one it is lost. */
static void input_byte(MuxChardev *mux, uint8_t byte)
{
    MuxFrontend *slot = focused(mux);

    if (slot && slot->n_ahead < AHEAD_BYTES) {
        slot->ahead[slot->n_ahead++] = byte;
    }
}

static void print_help(MuxChardev *mux)
{
    static const char text[] =
        "\r\n"
        "C-a h    print this help\r\n"
        "C-a x    exit emulator\r\n"
        "C-a b    send break (magic sysrq)\r\n"
        "C-a c    switch between console and monitor\r\n"
        "C-a C-a  sends C-a\r\n";

    chr_fe_write_all(&mux->below, text, sizeof(text) - 1);
}

static void command_byte(MuxChardev *mux, uint8_t byte)
{
    switch (byte) {
    case 'h':
    case '?':
        print_help(mux);
        break;
    case 'x':
        chr_fe_printf(&mux->below, "%s: Terminated\r\n", g_get_prgname() ?: "ferry");
        if (quit_handler) {
            quit_handler();
        }
        break;
    case 'b':
        send_event(focused(mux), CHR_EVENT_BREAK);
        break;
    case 'c':
        deliver(focused(mux));
        next_focus(mux);
        break;
    case ESCAPE:
        input_byte(mux, ESCAPE);
        break;
    default:
        break;
    }
}

/* Nothing typed is lost: when a front end lets all this pile up, the terminal has to wait. */
static int below_can_read(void *opaque)
{
    MuxFrontend *slot = focused(opaque);

    return slot ? AHEAD_BYTES - slot->n_ahead : AHEAD_BYTES;
}

static void below_read(void *opaque, const uint8_t *buf, int size)
{
    MuxChardev *mux = opaque;

    for (int i = 0; i < size; i++) {
        if (mux->escaped) {
            mux->escaped = false;
            command_byte(mux, buf[i]);
        } else if (buf[i] == ESCAPE) {
            mux->escaped = true;
        } else {
            input_byte(mux, buf[i]);
        }
    }
    deliver(focused(mux));
}

static void below_event(void *opaque, ChrEvent event)
{
    MuxChardev *mux = opaque;

    if (event == CHR_EVENT_OPENED || event == CHR_EVENT_CLOSED) {
        mux->parent.be_open = event == CHR_EVENT_OPENED;
    }
    for (int i = 0; i < FRONTENDS_MAX; i++) {
        send_event(&mux->slots[i], event);
    }
}

/* What front ends do -------------------------------------------------------------------------- */

static bool mux_attach(Chardev *chr, CharFrontend *fe, Error **errp)
{
    MuxChardev *mux = (MuxChardev *)chr;

    for (int i = 0; i < FRONTENDS_MAX; i++) {
        if (!mux->slots[i].fe) {
            mux->slots[i] = (MuxFrontend) { .fe = fe };
            chr->fe = chr->fe ?: fe;
            return true;
        }
    }
    error_setg(errp, "too many uses of multiplexed chardev '%s' (maximum is %d)", chr->id,
               FRONTENDS_MAX);
    return false;
}

static void mux_detach(Chardev *chr, CharFrontend *fe)
{
    MuxChardev *mux = (MuxChardev *)chr;

    chr->fe = NULL;
    for (int i = 0; i < FRONTENDS_MAX; i++) {
        if (mux->slots[i].fe == fe) {
            mux->slots[i].fe = NULL;
            if (mux->focus == i) {
                mux->focus = -1;
            }
        }
        chr->fe = chr->fe ?: mux->slots[i].fe;
    }
    if (mux->focus < 0) {
        next_focus(mux);
    }
}

static void mux_handlers_set(Chardev *chr, CharFrontend *fe)
{
    MuxChardev *mux = (MuxChardev *)chr;

    for (int i = 0; fe->read && i < FRONTENDS_MAX; i++) {
        if (mux->slots[i].fe != fe) {
            continue;
        }
        if (mux->keep_focus && mux->focus >= 0 && mux->focus != i) {
            send_event(&mux->slots[i], CHR_EVENT_MUX_OUT);
        } else {
            set_focus(mux, i);
        }
    }
}

static void mux_accept_input(Chardev *chr)
{
    MuxChardev *mux = (MuxChardev *)chr;

    deliver(focused(mux));
    chr_fe_accept_input(&mux->below);
}

static int mux_write(Chardev *chr, CharFrontend *fe, const void *buf, int len, bool all)
{
    CharFrontend *below = &((MuxChardev *)chr)->below;

    return all ? chr_fe_write_all(below, buf, len) : chr_fe_write(below, buf, len);
}

static guint mux_add_watch(Chardev *chr, GIOCondition condition, ChrWatchFunc func, void *opaque)
{
    return chr_fe_add_watch(&((MuxChardev *)chr)->below, condition, func, opaque);
}

static bool mux_open(Chardev *chr, const ChardevBackend *backend, Error **errp)
{
    MuxChardev *mux = (MuxChardev *)chr;
    const char *id = backend->u.mux.data->chardev;
    Chardev *base = chardev_find(id);

    mux->focus = -1;
    if (!base) {
        error_setg(errp, "mux: base chardev %s not found", id);
        return false;
    }
    if (!chr_fe_init(&mux->below, base, errp)) {
        return false;
    }
    chr_fe_set_handlers(&mux->below, below_can_read, below_read, below_event, mux);
    return true;
}

static void mux_close(Chardev *chr)
{
    MuxChardev *mux = (MuxChardev *)chr;

    for (int i = 0; i < FRONTENDS_MAX; i++) {
        if (mux->slots[i].fe) {
            mux->slots[i].fe->chr = NULL;
        }
    }
    chr_fe_deinit(&mux->below, false);
}

static char *mux_filename(Chardev *chr)
{
    MuxChardev *mux = (MuxChardev *)chr;

    return mux->below.chr ? chardev_filename(mux->below.chr) : g_strdup("mux");
}

const ChardevClass chardev_mux_class = {
    .kind = CHARDEV_BACKEND_KIND_MUX,
    .size = sizeof(MuxChardev),
    .open = mux_open,
    .close = mux_close,
    .filename = mux_filename,
    .attach = mux_attach,
    .detach = mux_detach,
    .handlers_set = mux_handlers_set,
    .accept_input = mux_accept_input,
    .write = mux_write,
    .add_watch = mux_add_watch,
};
