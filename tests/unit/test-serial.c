/*
 * The serial port, driven through its ports with a socket at the other end of the line: registers,
 * interrupts, FIFOs, loopback, flow control in both directions, standing with the machine,
 * migration.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "chardev/char.h"
#include "device-harness.h"
#include "system/bql.h"
#include "system/irq.h"
#include "system/main-loop.h"
#include "system/memory.h"
#include "system/reset.h"
#include "system/runstate.h"

#define COM1 0x3f8
#define DEADLINE_US (20 * G_USEC_PER_SEC)

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };
enum { DR = 0x01, OE = 0x02, THRE = 0x20, TEMT = 0x40 };

/* A port with its other end. */
typedef struct Line {
    DeviceState *dev;
    int peer;
} Line;

static bool irq_level;
static unsigned irq_rises;

static void note_irq(unsigned gsi, bool level)
{
    g_assert_cmpuint(gsi, ==, 4);
    g_assert_cmpint(level, !=, irq_level);
    irq_level = level;
    irq_rises += level;
}

static uint8_t get(unsigned reg)
{
    return (uint8_t)port_read((uint16_t)(COM1 + reg), 1);
}

static void put(unsigned reg, uint8_t value)
{
    port_write((uint16_t)(COM1 + reg), value, 1);
}

/*
 * Let the main loop turn until a byte of the peer's can be read, the port has input, or whatever.
 */
#define WAIT_UNTIL(condition) do { \
    gint64 end_ = g_get_monotonic_time() + DEADLINE_US; \
    while (!(condition)) { \
        g_assert_cmpint(g_get_monotonic_time(), <, end_); \
        main_loop_iterate(false); \
    } \
} while (0)

/* Turn the loop until it has nothing to do. */
static void settle(void)
{
    for (int i = 0; i < 50; i++) {
        main_loop_iterate(false);
    }
}

static void line_open(Line *line, const char *properties)
{
    g_autofree char *options = NULL, *device = NULL;
    static unsigned serial;
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
    fcntl(fds[0], F_SETFD, 0);          /* as one that was inherited */
    options = g_strdup_printf("socket,id=line%u,fd=%d", ++serial, fds[0]);
    g_assert_nonnull(chardev_new_from_opts(options, &error_abort));
    device = g_strdup_printf("isa-serial,chardev=line%u%s", serial, properties);
    line->dev = harness_device(device);
    line->peer = fds[1];
    settle();
}

static void line_close(Line *line)
{
    device_delete(line->dev);
    irq_level = false;
    close(line->peer);
    settle();
}

static void send_to_port(Line *line, const char *text)
{
    g_assert_cmpint(write(line->peer, text, strlen(text)), ==, (ssize_t)strlen(text));
}

static void put_text(const char *text)
{
    for (; *text; text++) {
        g_assert_true(get(LSR) & THRE);
        put(DATA, (uint8_t)*text);
    }
}

static void assert_peer_gets(Line *line, const char *text)
{
    g_autofree char *got = g_malloc0(strlen(text) + 1);
    size_t done = 0;
    ssize_t n;

    while (done < strlen(text)) {
        WAIT_UNTIL((n = read(line->peer, got + done, strlen(text) - done)) > 0);
        done += (size_t)n;
    }
    g_assert_cmpstr(got, ==, text);
}

static void assert_port_gets(const char *text)
{
    for (; *text; text++) {
        WAIT_UNTIL(get(LSR) & DR);
        g_assert_cmpint(get(DATA), ==, *text);
    }
}

static void test_registers(void)
{
    Line line;

    line_open(&line, "");
    g_assert_cmphex(get(IER), ==, 0);
    g_assert_cmphex(get(IIR), ==, 0x01);
    g_assert_cmphex(get(LCR), ==, 0);
    g_assert_cmphex(get(MCR), ==, 0x08);
    g_assert_cmphex(get(LSR), ==, THRE | TEMT);
    g_assert_cmphex(get(MSR), ==, 0xb0);
    put(SCR, 0x5a);
    g_assert_cmphex(get(SCR), ==, 0x5a);
    put(IER, 0xff);
    g_assert_cmphex(get(IER), ==, 0x0f);
    put(IER, 0);
    put(LCR, 0x83);
    g_assert_cmphex(get(DATA) | get(IER) << 8, ==, 12);
    put(DATA, 0x34);
    put(IER, 0x12);
    g_assert_cmphex(get(DATA) | get(IER) << 8, ==, 0x1234);
    put(LCR, 0x03);
    g_assert_cmphex(get(IER), ==, 0);
    put(FCR, 0xc7);
    g_assert_cmphex(get(IIR), ==, 0xc1);
    put(FCR, 0xc0);
    g_assert_cmphex(get(IIR), ==, 0x01);
    put(LSR, 0xff);
    put(MSR, 0xff);
    g_assert_cmphex(get(LSR), ==, THRE | TEMT);
    g_assert_cmphex(get(MSR), ==, 0xb0);
    reset_run();
    g_assert_cmphex(get(SCR), ==, 0);
    g_assert_cmphex(get(LCR), ==, 0);
    line_close(&line);
}

static void test_output(void)
{
    Line line;

    line_open(&line, "");
    put_text("hello, ");
    put(FCR, 0x01);
    put_text("world\n");
    assert_peer_gets(&line, "hello, world\n");
    line_close(&line);
}

static void test_transmit_interrupt(void)
{
    Line line;

    line_open(&line, "");
    put(IER, 0x02);
    g_assert_true(irq_level);
    g_assert_cmphex(get(IIR), ==, 0x02);
    g_assert_false(irq_level);
    g_assert_cmphex(get(IIR), ==, 0x01);
    irq_rises = 0;
    put(DATA, 'x');
    g_assert_true(irq_level);
    put(DATA, 'y');
    /* An interrupt for each, although nobody asked which it was. */
    g_assert_cmpuint(irq_rises, ==, 2);
    g_assert_cmphex(get(IIR), ==, 0x02);
    put(IER, 0);
    g_assert_false(irq_level);
    assert_peer_gets(&line, "xy");
    line_close(&line);
}

static void test_input(void)
{
    GString *text = g_string_new(NULL);
    Line line;

    line_open(&line, "");
    for (unsigned i = 0; i < 500; i++) {
        g_string_append_printf(text, "%u,", i);
    }
    send_to_port(&line, text->str);
    settle();
    /* One byte has come, the others wait for room. */
    g_assert_cmphex(get(LSR), ==, DR | THRE | TEMT);
    assert_port_gets(text->str);
    put(FCR, 0x01);
    send_to_port(&line, text->str);
    assert_port_gets(text->str);
    settle();
    g_assert_cmphex(get(LSR), ==, THRE | TEMT);
    g_assert_cmphex(get(DATA), ==, ',');
    g_string_free(text, true);
    line_close(&line);
}

static void test_receive_interrupt(void)
{
    Line line;

    line_open(&line, "");
    put(IER, 0x01);
    send_to_port(&line, "a");
    WAIT_UNTIL(irq_level);
    g_assert_cmphex(get(IIR), ==, 0x04);
    g_assert_true(irq_level);
    g_assert_cmphex(get(DATA), ==, 'a');
    g_assert_false(irq_level);

    /* With a trigger level of 4: below it the timeout, at it the level, both gone by reading. */
    put(FCR, 0x41);
    send_to_port(&line, "abc");
    WAIT_UNTIL(irq_level);
    assert_port_gets("a");
    WAIT_UNTIL((get(IIR) & 0x0f) == 0x0c);
    send_to_port(&line, "defg");
    WAIT_UNTIL(get(IIR) == 0xc4);
    assert_port_gets("bcdefg");
    g_assert_cmphex(get(IIR), ==, 0xc1);
    g_assert_false(irq_level);

    /* Clearing the FIFO drops what is in it, and nothing else. */
    send_to_port(&line, "0123456789abcdefXY");
    WAIT_UNTIL(get(IIR) == 0xc4);
    settle();
    put(FCR, 0x43);
    g_assert_cmphex(get(LSR), ==, THRE | TEMT);
    assert_port_gets("XY");
    line_close(&line);
}

static void test_loopback(void)
{
    Line line;

    line_open(&line, "");
    put(MCR, 0x1a);
    g_assert_cmphex(get(MSR) & 0xf0, ==, 0x90);
    g_assert_cmphex(get(MSR) & 0x0f, ==, 0);
    put(MCR, 0x15);
    g_assert_cmphex(get(MSR), ==, 0x60 | 0x01 | 0x02 | 0x08);
    put(MCR, 0x10);
    g_assert_cmphex(get(MSR), ==, 0x02 | 0x04);
    put(IER, 0x08);
    g_assert_false(irq_level);
    put(MCR, 0x11);
    g_assert_cmphex(get(IIR), ==, 0x00);
    g_assert_true(irq_level);
    g_assert_cmphex(get(MSR), ==, 0x22);
    g_assert_false(irq_level);

    /* What is sent comes back; the line itself is not heard meanwhile, nor told anything. */
    put(IER, 0x05);
    send_to_port(&line, "outside");
    settle();
    put(DATA, 'x');
    g_assert_cmphex(get(LSR), ==, DR | THRE | TEMT);
    g_assert_cmphex(get(IIR), ==, 0x04);
    put(DATA, 'y');
    g_assert_cmphex(get(IIR), ==, 0x06);
    g_assert_cmphex(get(LSR), ==, DR | OE | THRE | TEMT);
    g_assert_cmphex(get(LSR), ==, DR | THRE | TEMT);
    g_assert_cmphex(get(DATA), ==, 'y');
    put(FCR, 0x01);
    for (unsigned i = 0; i < 17; i++) {
        put(DATA, (uint8_t)('A' + i));
    }
    g_assert_true(get(LSR) & OE);
    assert_port_gets("ABCDEFGHIJKLMNOP");
    g_assert_false(get(LSR) & DR);
    put(MCR, 0x08);
    assert_port_gets("outside");
    put_text("!");
    assert_peer_gets(&line, "!");
    line_close(&line);
}

/* Write until the line takes no more; returns how many bytes were written. */
static unsigned fill_line(void)
{
    unsigned n = 0;

    while (get(LSR) & THRE) {
        put(DATA, (uint8_t)('a' + n++ % 26));
        g_assert_cmpuint(n, <, 10000000);
    }
    return n;
}

static void assert_peer_gets_alphabet(Line *line, unsigned from, unsigned to)
{
    uint8_t byte;

    for (unsigned i = from; i < to; i++) {
        WAIT_UNTIL(read(line->peer, &byte, 1) == 1);
        g_assert_cmpint(byte, ==, 'a' + i % 26);
    }
}

static void test_blocked_output(void)
{
    unsigned n, more = 0;
    Line line;

    line_open(&line, "");
    put(FCR, 0x01);
    n = fill_line();
    g_assert_cmphex(get(LSR), ==, 0);
    /* There is room in the FIFO still, and an interrupt when all of it is out. */
    put(IER, 0x02);
    g_assert_false(irq_level);
    for (; more < 15; more++) {
        put(DATA, (uint8_t)('a' + (n + more) % 26));
    }
    settle();
    g_assert_cmphex(get(LSR), ==, 0);
    assert_peer_gets_alphabet(&line, 0, n + more);
    WAIT_UNTIL(irq_level);
    g_assert_cmphex(get(LSR), ==, THRE | TEMT);
    line_close(&line);
}

static void test_nobody_there(void)
{
    Line line;
    DeviceState *dev;

    /* The peer goes while output is stuck: the guest can go on. */
    line_open(&line, "");
    fill_line();
    close(line.peer);
    WAIT_UNTIL(get(LSR) & THRE);
    for (unsigned i = 0; i < 100; i++) {
        WAIT_UNTIL(get(LSR) & THRE);
        put(DATA, 'x');
    }
    line.peer = dup(0);
    line_close(&line);

    dev = harness_device("isa-serial");
    put_text("into the void");
    g_assert_cmphex(get(LSR), ==, THRE | TEMT);
    device_delete(dev);
}

static void test_stands_with_machine(void)
{
    unsigned n;
    Line line;

    line_open(&line, "");
    n = fill_line();
    vm_stop(RUN_STATE_PAUSED);
    send_to_port(&line, "later");
    /* All but the byte in the transmitter arrives; that one stays. */
    assert_peer_gets_alphabet(&line, 0, n - 1);
    settle();
    g_assert_cmpint(recv(line.peer, &n, 1, MSG_PEEK), <, 0);
    g_assert_cmphex(get(LSR), ==, 0);
    vm_start();
    assert_peer_gets_alphabet(&line, n - 1, n);
    assert_port_gets("later");
    line_close(&line);
}

static void test_migration(void)
{
    g_autoptr(GBytes) state = NULL, again = NULL;
    unsigned n;
    Line line;

    line_open(&line, "");
    put(LCR, 0x83);
    put(DATA, 0x01);
    put(LCR, 0x03);
    put(SCR, 0x77);
    put(FCR, 0x81);
    send_to_port(&line, "input");
    WAIT_UNTIL(get(LSR) & DR);
    settle();
    n = fill_line();
    put(DATA, 'Z');
    put(IER, 0x03);
    g_assert_true(irq_level);
    vm_stop(RUN_STATE_PAUSED);
    state = harness_save(line.dev);
    line_close(&line);

    /* Another port goes on where that one was: the interrupt line is up already. */
    line_open(&line, "");
    irq_level = true;
    g_assert_cmpint(harness_load(line.dev, state, &error_abort), ==, 0);
    again = harness_save(line.dev);
    g_assert_true(g_bytes_equal(state, again));
    g_assert_cmphex(get(IIR), ==, 0xcc);
    g_assert_cmphex(get(SCR), ==, 0x77);
    g_assert_cmphex(get(LSR), ==, DR);
    settle();
    g_assert_cmpint(recv(line.peer, &n, 1, MSG_PEEK), <, 0);
    vm_start();
    g_assert_cmphex(get(LSR), ==, DR | THRE | TEMT);
    assert_port_gets("input");
    g_assert_cmphex(get(IIR), ==, 0xc2);
    g_assert_false(irq_level);
    /* The byte that was stuck, then what came after it. */
    {
        char last[3] = { (char)('a' + (n - 1) % 26), 'Z', 0 };

        assert_peer_gets(&line, last);
    }
    line_close(&line);
}

static void test_bad_state(void)
{
    g_autoptr(GBytes) state = NULL, bad = NULL;
    g_autofree uint8_t *bytes = NULL;
    Error *err = NULL;
    Line line;

    line_open(&line, "");
    send_to_port(&line, "x");
    WAIT_UNTIL(get(LSR) & DR);
    state = harness_save(line.dev);
    /* 11 bytes of registers; byte 10 is FCR. Then the subsection with the length of its queue. */
    bytes = g_memdup2(g_bytes_get_data(state, NULL), g_bytes_get_size(state));
    g_assert_cmphex(bytes[11], ==, 0x05);
    bytes[11 + 2 + strlen("serial/recv_fifo") + 4 + 3] = 2;
    bad = g_bytes_new(bytes, g_bytes_get_size(state));
    g_assert_cmpint(harness_load(line.dev, bad, &err), ==, -1);
    harness_error_is(&err, "serial: a FIFO of 1 bytes cannot hold 2");
    g_clear_pointer(&bad, g_bytes_unref);
    bytes[10] = 0x01;
    bytes[11 + 2 + strlen("serial/recv_fifo") + 4 + 3] = 200;
    bad = g_bytes_new(bytes, g_bytes_get_size(state));
    g_assert_cmpint(harness_load(line.dev, bad, &err), ==, -1);
    harness_error_is(&err, "serial: a FIFO of 16 bytes cannot hold 200");
    line_close(&line);
}

static void test_options(void)
{
    DeviceState *ports[4];
    Line line;

    harness_device_fails("isa-serial,chardev=nothing",
                         "Property 'isa-serial.chardev' can't find value 'nothing'");
    harness_device_fails("isa-serial,index=4", "Max. supported number of ISA serial ports is 4");
    harness_device_fails("isa-serial,iobase=0x10000",
                         "isa-serial: port 0x10000 or interrupt 4 does not exist");
    for (unsigned i = 0; i < 4; i++) {
        static const uint16_t bases[] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };

        ports[i] = harness_device("isa-serial");
        g_assert_cmphex(harness_get_uint(ports[i], "iobase"), ==, bases[i]);
        g_assert_cmpuint(harness_get_uint(ports[i], "irq"), ==, i % 2 ? 3 : 4);
        g_assert_cmpuint(ports[i]->instance_id, ==, i);
    }
    harness_device_fails("isa-serial", "Max. supported number of ISA serial ports is 4");
    for (unsigned i = 0; i < 4; i++) {
        device_delete(ports[i]);
    }
    /* A line has one port. */
    line_open(&line, ",id=one");
    {
        g_autofree char *id = harness_get_str(line.dev, "chardev");
        g_autofree char *text = g_strdup_printf("isa-serial,chardev=%s", id);
        Error *err = NULL;
        char *help = NULL;

        g_assert_false(device_add_text(text, &help, &err));
        g_assert_nonnull(strstr(error_get_pretty(err), id));
        error_free(err);
    }
    line_close(&line);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    irq_set_interceptor(note_irq);
    vm_start();
    g_test_add_func("/serial/registers", test_registers);
    g_test_add_func("/serial/output", test_output);
    g_test_add_func("/serial/transmit-interrupt", test_transmit_interrupt);
    g_test_add_func("/serial/input", test_input);
    g_test_add_func("/serial/receive-interrupt", test_receive_interrupt);
    g_test_add_func("/serial/loopback", test_loopback);
    g_test_add_func("/serial/blocked-output", test_blocked_output);
    g_test_add_func("/serial/nobody-there", test_nobody_there);
    g_test_add_func("/serial/stands-with-machine", test_stands_with_machine);
    g_test_add_func("/serial/migration", test_migration);
    g_test_add_func("/serial/bad-state", test_bad_state);
    g_test_add_func("/serial/options", test_options);
    return g_test_run();
}
