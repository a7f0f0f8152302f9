/*
 * isa-serial: a 16550A on a character device.
 *
 * Receiver and transmitter are each a queue of sixteen bytes, of which one is used while the FIFOs
 * are off; everything else (line status, interrupt identification) follows from the queues and is
 * brought up to date after each change. No time is modelled: a byte that the character device takes
 * is sent. What it does not take stays in the transmit queue, "transmitter empty" stays clear, and
 * a watch sends the rest, so no byte is lost and nobody waits; where there is no device, or nobody
 * at its other end, bytes go nowhere at once. Input is only asked for while the receive queue has
 * room.
 *
 * A machine that stands has a port that stands: nothing is taken in and the rest of the transmit
 * queue waits, so a migration carries exactly what has not been sent.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "chardev/char-fe.h"
#include "hw/devices.h"
#include "system/irq.h"
#include "system/memory.h"
#include "system/runstate.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REG_COUNT };

enum { IER_RDI = 0x01, IER_THRI = 0x02, IER_RLSI = 0x04, IER_MSI = 0x08, IER_ALL = 0x0f };
enum { IIR_NONE = 0x01, IIR_MSI = 0x00, IIR_THRI = 0x02, IIR_RDI = 0x04, IIR_RLSI = 0x06,
       IIR_TIMEOUT = 0x0c, IIR_ID = 0x0f, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RECV = 0x02, FCR_CLEAR_XMIT = 0x04, FCR_KEPT = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10,
       MCR_ALL = 0x1f };
enum { LSR_DR = 0x01, LSR_OE = 0x02, LSR_BI = 0x10, LSR_THRE = 0x20, LSR_TEMT = 0x40,
       LSR_ERRORS = 0x1e };
enum { MSR_DCTS = 0x01, MSR_DDSR = 0x02, MSR_TERI = 0x04, MSR_DDCD = 0x08, MSR_CTS = 0x10,
       MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_DELTAS = 0x0f, MSR_LINES = 0xf0 };

#define FIFO_BYTES 16
#define DIVIDER_9600 12
#define INDEX_AUTO UINT32_MAX

typedef struct SerialQueue {
    uint8_t data[FIFO_BYTES];           /* the oldest first */
    uint32_t num;
} SerialQueue;

typedef struct Serial {
    DeviceState parent;
    char *chardev;
    uint32_t index, iobase, irq;
    CharFrontend chr;
    guint watch;                        /* waits until the rest of xmit can be written; 0: none */
    bool machine_runs;
    bool irq_level;

    uint16_t divider;
    uint8_t rbr;                        /* the byte read last */
    uint8_t ier, iir, lcr, mcr, lsr, msr, scr, fcr;
    SerialQueue recv, xmit;
    bool thr_ipending, timeout_ipending;
} Serial;

/* ---- queues ---- */

static unsigned capacity(const Serial *s)
{
    return s->fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static void queue_push(SerialQueue *queue, uint8_t byte)
{
    g_assert(queue->num < FIFO_BYTES);
    queue->data[queue->num++] = byte;
}

static void queue_drop(SerialQueue *queue, unsigned n)
{
    g_assert(n <= queue->num);
    memmove(queue->data, queue->data + n, queue->num - n);
    queue->num -= n;
}

/* ---- what follows from the state ---- */

static unsigned recv_trigger(const Serial *s)
{
    static const uint8_t levels[] = { 1, 4, 8, 14 };

    return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

static uint8_t pending_interrupt(const Serial *s)
{
    if ((s->ier & IER_RLSI) && (s->lsr & LSR_ERRORS)) {
        return IIR_RLSI;
    }
    if ((s->ier & IER_RDI) && s->recv.num >= recv_trigger(s)) {
        return IIR_RDI;
    }
    if ((s->ier & IER_RDI) && s->timeout_ipending) {
        return IIR_TIMEOUT;
    }
    if ((s->ier & IER_THRI) && s->thr_ipending) {
        return IIR_THRI;
    }
    if ((s->ier & IER_MSI) && (s->msr & MSR_DELTAS)) {
        return IIR_MSI;
    }
    return IIR_NONE;
}

/* Line status and interrupt identification, by the queues and flags. */
static void derive(Serial *s)
{
    s->lsr &= ~(LSR_DR | LSR_THRE | LSR_TEMT);
    s->lsr |= s->recv.num ? LSR_DR : 0;
    s->lsr |= s->xmit.num ? 0 : LSR_THRE | LSR_TEMT;
    s->iir = pending_interrupt(s) | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static void update(Serial *s)
{
    bool level;

    derive(s);
    level = (s->iir & IIR_ID) != IIR_NONE;
    if (level != s->irq_level) {
        s->irq_level = level;
        irq_set(s->irq, level);
    }
}

/* The modem lines change; transitions are noted. */
static void set_lines(Serial *s, uint8_t lines)
{
    uint8_t changed = (s->msr ^ lines) & MSR_LINES;

    s->msr |= changed & MSR_CTS ? MSR_DCTS : 0;
    s->msr |= changed & MSR_DSR ? MSR_DDSR : 0;
    s->msr |= changed & MSR_DCD ? MSR_DDCD : 0;
    s->msr |= (changed & MSR_RI) && !(lines & MSR_RI) ? MSR_TERI : 0;
    s->msr = (s->msr & MSR_DELTAS) | lines;
}

/* In loopback the port's own outputs, else a peer that is always ready. */
static uint8_t modem_lines(const Serial *s)
{
    if (!(s->mcr & MCR_LOOP)) {
        return MSR_DCD | MSR_DSR | MSR_CTS;
    }
    return (s->mcr & MCR_DTR ? MSR_DSR : 0) | (s->mcr & MCR_RTS ? MSR_CTS : 0) |
           (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

/* ---- receiver ---- */

/* What is in the queue and below the trigger level is announced as by the character timeout. */
static void check_timeout(Serial *s)
{
    s->timeout_ipending = (s->fcr & FCR_ENABLE) && s->recv.num && s->recv.num < recv_trigger(s);
}

static void receive_byte(Serial *s, uint8_t byte)
{
    if (s->recv.num < capacity(s)) {
        queue_push(&s->recv, byte);
        return;
    }
    s->lsr |= LSR_OE;
    if (!(s->fcr & FCR_ENABLE)) {
        s->recv.data[0] = byte;         /* without FIFO the new byte takes the place of the old */
    }
}

static int serial_can_receive(void *opaque)
{
    Serial *s = opaque;

    if (!s->machine_runs || (s->mcr & MCR_LOOP)) {
        return 0;
    }
    return (int)(capacity(s) - s->recv.num);
}

static void serial_receive(void *opaque, const uint8_t *buf, int size)
{
    Serial *s = opaque;

    for (int i = 0; i < size; i++) {
        receive_byte(s, buf[i]);
    }
    check_timeout(s);
    update(s);
}

static void serial_event(void *opaque, ChrEvent event)
{
    Serial *s = opaque;

    if (event == CHR_EVENT_BREAK && s->machine_runs && !(s->mcr & MCR_LOOP)) {
        receive_byte(s, 0);
        s->lsr |= LSR_BI;
        check_timeout(s);
        update(s);
    }
}

static uint8_t read_data(Serial *s)
{
    if (s->recv.num) {
        s->rbr = s->recv.data[0];
        queue_drop(&s->recv, 1);
        check_timeout(s);
        update(s);
        chr_fe_accept_input(&s->chr);
    }
    return s->rbr;
}

/* ---- transmitter ---- */

static void transmit(Serial *s);

static gboolean transmit_more(void *unused, GIOCondition condition, void *opaque)
{
    Serial *s = opaque;

    s->watch = 0;
    if (s->machine_runs) {
        transmit(s);
    }
    return G_SOURCE_REMOVE;
}

static void stop_watch(Serial *s)
{
    if (s->watch) {
        g_source_remove(s->watch);
        s->watch = 0;
    }
}

/* Give the character device what it takes, and wait for it where it does not take all. */
static void send_queue(Serial *s)
{
    int n = s->chr.chr ? chr_fe_write(&s->chr, s->xmit.data, (int)s->xmit.num) : -1;

    queue_drop(&s->xmit, n < 0 ? s->xmit.num : (unsigned)n);
    if (s->xmit.num && !s->watch) {
        s->watch = chr_fe_add_watch(&s->chr, G_IO_OUT, transmit_more, s);
        if (!s->watch) {
            s->xmit.num = 0;
        }
    }
}

static void transmit(Serial *s)
{
    if (!s->xmit.num) {
        return;
    }
    if (s->mcr & MCR_LOOP) {
        for (unsigned i = 0; i < s->xmit.num; i++) {
            receive_byte(s, s->xmit.data[i]);
        }
        s->xmit.num = 0;
        check_timeout(s);
    } else {
        send_queue(s);
    }
    s->thr_ipending = !s->xmit.num;
    update(s);
}

static void write_data(Serial *s, uint8_t byte)
{
    if (s->xmit.num == capacity(s)) {
        /* The guest did not wait for an empty transmitter: a byte is overwritten. */
        s->xmit.data[s->xmit.num - 1] = byte;
        return;
    }
    queue_push(&s->xmit, byte);
    s->thr_ipending = false;
    update(s);
    if (!s->watch) {
        transmit(s);
    }
}

/* ---- registers ---- */

static void write_ier(Serial *s, uint8_t value)
{
    uint8_t enabled = value & ~s->ier;

    s->ier = value & IER_ALL;
    /* Enabling it asks at once when the transmitter is empty already. */
    if ((enabled & IER_THRI) && (s->lsr & LSR_THRE)) {
        s->thr_ipending = true;
    }
    update(s);
}

static void write_fcr(Serial *s, uint8_t value)
{
    if ((value ^ s->fcr) & FCR_ENABLE) {
        value |= FCR_CLEAR_RECV | FCR_CLEAR_XMIT;
    }
    if (!(value & FCR_ENABLE)) {
        value &= FCR_CLEAR_RECV | FCR_CLEAR_XMIT;
    }
    if (value & FCR_CLEAR_RECV) {
        s->recv.num = 0;
        s->lsr &= ~LSR_BI;
    }
    if ((value & FCR_CLEAR_XMIT) && s->xmit.num) {
        stop_watch(s);
        s->xmit.num = 0;
        s->thr_ipending = true;
    }
    s->fcr = value & FCR_KEPT;
    check_timeout(s);
    update(s);
    chr_fe_accept_input(&s->chr);
}

static void write_mcr(Serial *s, uint8_t value)
{
    s->mcr = value & MCR_ALL;
    set_lines(s, modem_lines(s));
    update(s);
    if (!(s->mcr & MCR_LOOP)) {
        chr_fe_accept_input(&s->chr);
    }
}

static void serial_write(void *opaque, uint64_t reg, uint64_t value64, unsigned size)
{
    Serial *s = opaque;
    uint8_t value = (uint8_t)value64;

    switch (reg) {
    case REG_DATA:
        if (s->lcr & LCR_DLAB) {
            s->divider = (s->divider & 0xff00) | value;
        } else {
            write_data(s, value);
        }
        break;
    case REG_IER:
        if (s->lcr & LCR_DLAB) {
            s->divider = (uint16_t)((s->divider & 0x00ff) | value << 8);
        } else {
            write_ier(s, value);
        }
        break;
    case REG_IIR_FCR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        write_mcr(s, value);
        break;
    case REG_SCR:
        s->scr = value;
        break;
    }
}

static uint8_t read_iir(Serial *s)
{
    uint8_t iir = s->iir;

    if ((iir & IIR_ID) == IIR_THRI) {
        s->thr_ipending = false;
        update(s);
    }
    return iir;
}

static uint8_t read_lsr(Serial *s)
{
    uint8_t lsr = s->lsr;

    s->lsr &= ~LSR_ERRORS;
    update(s);
    return lsr;
}

static uint8_t read_msr(Serial *s)
{
    uint8_t msr = s->msr;

    s->msr &= ~MSR_DELTAS;
    update(s);
    return msr;
}

static uint64_t serial_read(void *opaque, uint64_t reg, unsigned size)
{
    Serial *s = opaque;

    switch (reg) {
    case REG_DATA:
        return s->lcr & LCR_DLAB ? s->divider & 0xff : read_data(s);
    case REG_IER:
        return s->lcr & LCR_DLAB ? s->divider >> 8 : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return read_lsr(s);
    case REG_MSR:
        return read_msr(s);
    default:
        return s->scr;
    }
}

static const IOOps serial_ops = {
    .read = serial_read, .write = serial_write, .min_size = 1, .max_size = 1,
};

/* ---- life ---- */

static void serial_run_state_changed(void *opaque, bool running, RunState state)
{
    Serial *s = opaque;

    s->machine_runs = running;
    if (running) {
        transmit(s);
        chr_fe_accept_input(&s->chr);
    } else {
        stop_watch(s);
    }
}

static void serial_reset(DeviceState *dev)
{
    Serial *s = DEVICE_CAST(Serial, dev);

    stop_watch(s);
    s->recv.num = s->xmit.num = 0;
    s->rbr = s->ier = s->lcr = s->scr = s->fcr = 0;
    s->mcr = MCR_OUT2;
    s->msr = MSR_DCD | MSR_DSR | MSR_CTS;
    s->lsr = 0;
    s->divider = DIVIDER_9600;
    s->thr_ipending = s->timeout_ipending = false;
    update(s);
    chr_fe_accept_input(&s->chr);
}

/* Port and interrupt by the number of the port, where they were not given. */
static bool place(Serial *s, Error **errp)
{
    static const uint16_t ports[] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
    static const uint8_t irqs[] = { 4, 3, 4, 3 };

    if (s->index == INDEX_AUTO) {
        s->index = 0;
        for (DeviceState *dev = device_next(NULL); dev; dev = device_next(dev)) {
            s->index += dev->klass == s->parent.klass;
        }
    }
    if (s->index >= G_N_ELEMENTS(ports)) {
        error_setg(errp, "Max. supported number of ISA serial ports is %u",
                   (unsigned)G_N_ELEMENTS(ports));
        return false;
    }
    s->iobase = s->iobase ?: ports[s->index];
    s->irq = s->irq ?: irqs[s->index];
    if (s->iobase > UINT16_MAX - REG_COUNT || s->irq > 15) {
        error_setg(errp, "isa-serial: port 0x%x or interrupt %u does not exist", s->iobase, s->irq);
        return false;
    }
    return true;
}

static bool connect_chardev(Serial *s, Error **errp)
{
    Chardev *chr;

    if (!s->chardev) {
        return true;
    }
    chr = chardev_find(s->chardev);
    if (!chr) {
        error_setg(errp, "Property 'isa-serial.chardev' can't find value '%s'", s->chardev);
        return false;
    }
    return chr_fe_init(&s->chr, chr, errp);
}

static bool serial_realize(DeviceState *dev, Error **errp)
{
    Serial *s = DEVICE_CAST(Serial, dev);

    if (!place(s, errp) || !connect_chardev(s, errp)) {
        return false;
    }
    if (memory_map_ports("serial", (uint16_t)s->iobase, REG_COUNT, &serial_ops, s, errp) < 0) {
        chr_fe_deinit(&s->chr, false);
        return false;
    }
    s->machine_runs = runstate_is_running();
    runstate_add_notifier(serial_run_state_changed, s);
    chr_fe_set_handlers(&s->chr, serial_can_receive, serial_receive, serial_event, s);
    return true;
}

static void serial_unrealize(DeviceState *dev)
{
    Serial *s = DEVICE_CAST(Serial, dev);

    runstate_remove_notifier(serial_run_state_changed, s);
    stop_watch(s);
    memory_unmap_opaque(s);
    chr_fe_deinit(&s->chr, false);
}

/* ---- migration ---- */

static bool recv_needed(void *opaque)
{
    Serial *s = opaque;

    return s->recv.num > 0;
}

static bool xmit_needed(void *opaque)
{
    Serial *s = opaque;

    return s->xmit.num > 0;
}

static bool thr_ipending_needed(void *opaque)
{
    Serial *s = opaque;

    return s->thr_ipending;
}

static bool timeout_ipending_needed(void *opaque)
{
    Serial *s = opaque;

    return s->timeout_ipending;
}

static const VMStateDescription vmstate_queue = {
    .name = "serial queue",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(num, SerialQueue),
        VMSTATE_BUFFER(data, SerialQueue),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_recv_fifo = {
    .name = "serial/recv_fifo",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = recv_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(recv, Serial, 1, vmstate_queue, SerialQueue),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_xmit_fifo = {
    .name = "serial/xmit_fifo",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = xmit_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(xmit, Serial, 1, vmstate_queue, SerialQueue),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_thr_ipending = {
    .name = "serial/thr_ipending",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = thr_ipending_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(thr_ipending, Serial),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_timeout_ipending = {
    .name = "serial/timeout_ipending",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = timeout_ipending_needed,
    .fields = (const VMStateField[]) {
        VMSTATE_BOOL(timeout_ipending, Serial),
        VMSTATE_END_OF_LIST() },
};

/* What a stream says only where it is needed starts as what it is otherwise. */
static int serial_pre_load(void *opaque, Error **errp)
{
    Serial *s = opaque;

    stop_watch(s);
    s->recv.num = s->xmit.num = 0;
    s->thr_ipending = s->timeout_ipending = false;
    return 0;
}

static int serial_post_load(void *opaque, int version_id, Error **errp)
{
    Serial *s = opaque;

    s->fcr &= FCR_KEPT;
    if (s->recv.num > capacity(s) || s->xmit.num > capacity(s)) {
        error_setg(errp, "serial: a FIFO of %u bytes cannot hold %u", capacity(s),
                   MAX(s->recv.num, s->xmit.num));
        s->recv.num = s->xmit.num = 0;
        return -1;
    }
    derive(s);
    /* The interrupt controller was saved with the line as it is, and is not told again. */
    s->irq_level = (s->iir & IIR_ID) != IIR_NONE;
    return 0;
}

static const VMStateDescription vmstate_serial = {
    .name = "serial",
    .version_id = 3,
    .minimum_version_id = 3,
    .pre_load = serial_pre_load,
    .post_load = serial_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(divider, Serial),
        VMSTATE_UINT8(rbr, Serial),
        VMSTATE_UINT8(ier, Serial),
        VMSTATE_UINT8(iir, Serial),
        VMSTATE_UINT8(lcr, Serial),
        VMSTATE_UINT8(mcr, Serial),
        VMSTATE_UINT8(lsr, Serial),
        VMSTATE_UINT8(msr, Serial),
        VMSTATE_UINT8(scr, Serial),
        VMSTATE_UINT8(fcr, Serial),
        VMSTATE_END_OF_LIST() },
    .subsections = (const VMStateDescription *const[]) {
        &vmstate_thr_ipending,
        &vmstate_recv_fifo,
        &vmstate_xmit_fifo,
        &vmstate_timeout_ipending,
        NULL },
};

static const Property serial_properties[] = {
    DEFINE_PROP_UINT32("index", Serial, index, INDEX_AUTO, 0,
                       "number of the port, which says where it is; the next free one by itself"),
    DEFINE_PROP_UINT32("iobase", Serial, iobase, 0, 0, "first of its eight ports; 0: by index"),
    DEFINE_PROP_UINT32("irq", Serial, irq, 0, 0, "interrupt line; 0: by index"),
    DEFINE_PROP_CHARDEV("chardev", Serial, chardev, 0, "ID of a chardev to use as a backend"),
    DEFINE_PROP_END(),
};

const DeviceClass device_serial = {
    .name = "isa-serial",
    .desc = "serial port, a 16550A",
    .instance_size = sizeof(Serial),
    .properties = serial_properties,
    .user_creatable = true,
    .realize = serial_realize,
    .unrealize = serial_unrealize,
    .reset = serial_reset,
    .vmsd = &vmstate_serial,
};
