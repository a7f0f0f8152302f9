/*
 * The qtest protocol: every command, every refusal, and input that no test would send.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/qtest/libqtest.h"

#define RAM_BYTES (16u << 20)

static QTestState *start(void)
{
    return qtest_init("-m 16M");
}

static void test_values(void)
{
    QTestState *s = start();

    qtest_writeq(s, 0x1000, 0x8877665544332211);
    g_assert_cmphex(qtest_readq(s, 0x1000), ==, 0x8877665544332211);
    g_assert_cmphex(qtest_readl(s, 0x1000), ==, 0x44332211);
    g_assert_cmphex(qtest_readw(s, 0x1002), ==, 0x4433);
    g_assert_cmphex(qtest_readb(s, 0x1007), ==, 0x88);
    qtest_writeb(s, 0x1001, 0xaa);
    qtest_writew(s, 0x1004, 0xbbcc);
    g_assert_cmphex(qtest_readq(s, 0x1000), ==, 0x8877bbcc4433aa11);
    qtest_writel(s, 0x0ffe, 0xdeadbeef);        /* across a page */
    g_assert_cmphex(qtest_readl(s, 0x0ffe), ==, 0xdeadbeef);
    g_assert_cmphex(qtest_readw(s, 0x1000), ==, 0xdead);
    /* The last bytes of RAM, and where nothing is. */
    qtest_writel(s, RAM_BYTES - 4, 0x12345678);
    g_assert_cmphex(qtest_readl(s, RAM_BYTES - 4), ==, 0x12345678);
    g_assert_cmphex(qtest_readl(s, RAM_BYTES), ==, 0xffffffff);
    g_assert_cmphex(qtest_readl(s, RAM_BYTES - 2), ==, 0xffff1234);
    g_assert_cmphex(qtest_readq(s, UINT64_MAX - 3), ==, UINT64_MAX);
    qtest_quit(s);
}

static void test_blocks(void)
{
    static const size_t sizes[] = { 1, 2, 3, 5, 511, 4096, 4097, 200000 };
    QTestState *s = start();
    g_autofree uint8_t *data = g_malloc(200000), *back = g_malloc(200000);

    for (size_t i = 0; i < 200000; i++) {
        data[i] = i * 7 + (i >> 8);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        uint64_t addr = 0x10000 + i * 0x40001;

        qtest_memwrite(s, addr, data, sizes[i]);
        memset(back, 0, sizes[i]);
        qtest_bufread(s, addr, back, sizes[i]);
        g_assert_cmpmem(back, sizes[i], data, sizes[i]);
        qtest_bufwrite(s, addr + 1, data, sizes[i]);
        memset(back, 0, sizes[i]);
        qtest_memread(s, addr + 1, back, sizes[i]);
        g_assert_cmpmem(back, sizes[i], data, sizes[i]);
    }
    qtest_quit(s);
}

static void test_memset(void)
{
    QTestState *s = start();
    uint8_t back[8];

    qtest_memset(s, 0x3ffe, 0x5a, 0x2003);
    qtest_memread(s, 0x3ffc, back, 8);
    g_assert_cmpmem(back, 8, "\0\0ZZZZZZ", 8);
    qtest_memread(s, 0x5ffd, back, 8);
    g_assert_cmpmem(back, 8, "ZZZZ\0\0\0\0", 8);
    qtest_quit(s);
}

static void test_ports(void)
{
    QTestState *s = qtest_init("-m 16M -serial none");

    g_assert_cmphex(qtest_inb(s, 0x1234), ==, 0xff);
    g_assert_cmphex(qtest_inw(s, 0x1234), ==, 0xffff);
    g_assert_cmphex(qtest_inl(s, 0x1234), ==, 0xffffffff);
    qtest_outl(s, 0x1234, 1);
    /* CMOS: memory above 16 MiB in units of 64 KiB is none, an unused byte remembers. */
    qtest_outb(s, 0x70, 0x34);
    g_assert_cmphex(qtest_inb(s, 0x71), ==, 0);
    qtest_quit(s);
}

static void test_irqs(void)
{
    QTestState *s = start();
    g_autofree char *answer = NULL;

    qtest_irq_intercept_in(s, "ioapic");
    g_assert_false(qtest_get_irq(s, 5));
    answer = qtest_raw_command(s, "set_irq_in ioapic unnamed-gpio-in 5 1");
    g_assert_cmpstr(answer, ==, "OK");
    g_assert_true(qtest_get_irq(s, 5));
    g_assert_false(qtest_get_irq(s, 6));
    g_free(answer);
    answer = qtest_raw_command(s, "set_irq_in ioapic unnamed-gpio-in 5 0");
    g_assert_false(qtest_get_irq(s, 5));
    qtest_quit(s);
}

static void test_clock(void)
{
    QTestState *s = start();
    g_autofree char *answer = NULL;

    g_assert_cmpint(qtest_clock_step(s, 1000), ==, 1000);
    g_assert_cmpint(qtest_clock_step(s, 500), ==, 1500);
    g_assert_cmpint(qtest_clock_set(s, 1000000), ==, 1000000);
    answer = qtest_raw_command(s, "clock_set 5");
    g_assert_true(g_str_has_prefix(answer, "FAIL"));
    qtest_quit(s);
}

static const char *const refused[] = {
    "frobnicate", "readb", "readb x", "readb 1 2", "readb -1", "readb 0x10000000000000000",
    "writeb 1", "writeb 1 x", "read 0", "read 0 1 2", "read 0 0xffffffffffffffff",
    "write 0 1 12", "write 0 1 0xzz", "write 0 0x10000000000 0x00", "b64write 0 5 QQ==",
    "b64read 0 0x10000000000", "memset 0 1", "memset 0x1000000 1 0",
    "memset 0 0xffffffffffffffff 1",
    "inb", "outb 1", "outb 1 2 3", "clock_set", "clock_step -5", "set_irq_in a b 99 1",
    "irq_intercept_in", "endianness 1",
};

/* Every one is refused, and the machine lives on with its memory as it was. */
static void test_refused(void)
{
    QTestState *s = start();
    g_autofree char *answer = NULL;

    qtest_writel(s, 0, 0x11223344);
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_free(answer);
        answer = qtest_raw_command(s, "%s", refused[i]);
        if (!g_str_has_prefix(answer, "FAIL")) {
            qtest_fail(s, "'%s' is answered by %s", refused[i], answer);
        }
        if (strcmp(refused[i], "memset 0 0xffffffffffffffff 1")) {
            g_assert_cmphex(qtest_readl(s, 0), ==, 0x11223344);
        } else {
            qtest_writel(s, 0, 0x11223344);
        }
    }
    g_free(answer);
    answer = qtest_raw_command(s, "endianness");
    g_assert_cmpstr(answer, ==, "OK little");
    qtest_quit(s);
}

/* A client that sends garbage without end, or leaves, takes only itself out. */
static void test_hostile(void)
{
    QTestState *s = start();
    g_autofree char *garbage = g_malloc(1 << 20);
    struct json_object *status;

    memset(garbage, 'x', 1 << 20);
    for (unsigned i = 0; i < 80; i++) {
        if (send(qtest_socket_fd(s), garbage, 1 << 20, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    shutdown(qtest_socket_fd(s), SHUT_RDWR);
    status = qtest_qmp_assert_success_ref(s, "{'execute': 'query-status'}");
    g_assert_cmpstr(qtest_get_str(status, "status"), ==, "running");
    json_object_put(status);
    qtest_quit(s);
}

/* A line ends at its newline and is answered once; one with a NUL byte is no command. */
static void test_nul_bytes(void)
{
    QTestState *s = start();
    g_autofree char *first = NULL, *second = NULL;

    g_assert_cmpint(send(qtest_socket_fd(s), "readb\0 0\n", 9, MSG_NOSIGNAL), ==, 9);
    first = qtest_raw_command(s, "endianness");
    g_assert_cmpstr(first, ==, "FAIL a line holds a NUL byte");
    second = qtest_raw_command(s, "endianness");
    g_assert_cmpstr(second, ==, "OK little");
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/qtest-protocol/values", test_values);
    qtest_add_func("/qtest-protocol/blocks", test_blocks);
    qtest_add_func("/qtest-protocol/memset", test_memset);
    qtest_add_func("/qtest-protocol/ports", test_ports);
    qtest_add_func("/qtest-protocol/irqs", test_irqs);
    qtest_add_func("/qtest-protocol/clock", test_clock);
    qtest_add_func("/qtest-protocol/refused", test_refused);
    qtest_add_func("/qtest-protocol/hostile", test_hostile);
    qtest_add_func("/qtest-protocol/nul-bytes", test_nul_bytes);
    return g_test_run();
}
