/*
 * The qtest protocol: one line out, one line back. Lines about interrupts may come in between; they
 * are noted.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/qtest/libqtest-int.h"

/* Bytes a line of memread, memwrite and their kin carries at most here. */
#define CHUNK_BYTES 65536u

static void note_irq(QTestState *s, const char *line)
{
    unsigned num;
    char verb[8];

    if (sscanf(line, "IRQ %7s %u", verb, &num) != 2 || num >= QTEST_IRQS ||
        (strcmp(verb, "raise") && strcmp(verb, "lower"))) {
        qtest_fail(s, "a strange line about interrupts: %s", line);
    }
    s->irq_level[num] = !strcmp(verb, "raise");
}

static char *receive_answer(QTestState *s)
{
    for (;;) {
        char *line = line_socket_read(s, &s->qtest);

        if (!line) {
            qtest_fail(s, "the machine closed the qtest connection");
        }
        if (!g_str_has_prefix(line, "IRQ ")) {
            return line;
        }
        note_irq(s, line);
        g_free(line);
    }
}

/* @line gets its newline here; takes it over. Returns the answer as it is. */
static char *exchange(QTestState *s, GString *line)
{
    g_string_append_c(line, '\n');
    line_socket_write(s, &s->qtest, line->str, line->len, NULL, 0);
    g_string_free(line, TRUE);
    return receive_answer(s);
}

char *qtest_raw_command(QTestState *s, const char *fmt, ...)
{
    GString *line = g_string_new(NULL);
    va_list ap;

    va_start(ap, fmt);
    g_string_append_vprintf(line, fmt, ap);
    va_end(ap);
    return exchange(s, line);
}

/* The answer must be OK; what follows it, moved to the front. */
static char *expect_ok(QTestState *s, char *answer)
{
    if (strcmp(answer, "OK") && !g_str_has_prefix(answer, "OK ")) {
        qtest_fail(s, "a qtest command was answered by: %s", answer);
    }
    memmove(answer, answer + 2 + (answer[2] == ' '), strlen(answer) - 1 - (answer[2] == ' '));
    return answer;
}

static G_GNUC_PRINTF(2, 3) char *command(QTestState *s, const char *fmt, ...)
{
    GString *line = g_string_new(NULL);
    va_list ap;

    va_start(ap, fmt);
    g_string_append_vprintf(line, fmt, ap);
    va_end(ap);
    return expect_ok(s, exchange(s, line));
}

static uint64_t number_of(QTestState *s, char *text, int base)
{
    char *end;
    uint64_t value = g_ascii_strtoull(text, &end, base);

    if (end == text || *end) {
        qtest_fail(s, "a number was expected, not '%s'", text);
    }
    g_free(text);
    return value;
}

#define DEFINE_READ(name, type) \
    type qtest_##name(QTestState *s, uint64_t addr) \
    { \
        return number_of(s, command(s, #name " 0x%" PRIx64, addr), 0); \
    }
#define DEFINE_WRITE(name, type) \
    void qtest_##name(QTestState *s, uint64_t addr, type value) \
    { \
        g_free(command(s, #name " 0x%" PRIx64 " 0x%" PRIx64, addr, (uint64_t)value)); \
    }
DEFINE_READ(readb, uint8_t)
DEFINE_READ(readw, uint16_t)
DEFINE_READ(readl, uint32_t)
DEFINE_READ(readq, uint64_t)
DEFINE_WRITE(writeb, uint8_t)
DEFINE_WRITE(writew, uint16_t)
DEFINE_WRITE(writel, uint32_t)
DEFINE_WRITE(writeq, uint64_t)

#define DEFINE_IN(name, type) \
    type qtest_##name(QTestState *s, uint16_t port) \
    { \
        return number_of(s, command(s, #name " 0x%x", port), 0); \
    }
#define DEFINE_OUT(name, type) \
    void qtest_##name(QTestState *s, uint16_t port, type value) \
    { \
        g_free(command(s, #name " 0x%x 0x%x", port, (uint32_t)value)); \
    }
DEFINE_IN(inb, uint8_t)
DEFINE_IN(inw, uint16_t)
DEFINE_IN(inl, uint32_t)
DEFINE_OUT(outb, uint8_t)
DEFINE_OUT(outw, uint16_t)
DEFINE_OUT(outl, uint32_t)

static void parse_hex(QTestState *s, const char *text, uint8_t *data, size_t size)
{
    if (!g_str_has_prefix(text, "0x") || strlen(text) != 2 + size * 2) {
        qtest_fail(s, "memread of %zu bytes was answered by %zu characters", size, strlen(text));
    }
    for (size_t i = 0; i < size; i++) {
        int high = g_ascii_xdigit_value(text[2 + i * 2]);
        int low = g_ascii_xdigit_value(text[3 + i * 2]);

        if (high < 0 || low < 0) {
            qtest_fail(s, "memread was answered by something else than hexadecimal digits");
        }
        data[i] = high << 4 | low;
    }
}

void qtest_memread(QTestState *s, uint64_t addr, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t n = MIN(size - done, CHUNK_BYTES);
        g_autofree char *text = command(s, "read 0x%" PRIx64 " 0x%zx", addr + done, n);

        parse_hex(s, text, (uint8_t *)data + done, n);
        done += n;
    }
}

void qtest_memwrite(QTestState *s, uint64_t addr, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    for (size_t done = 0; done < size;) {
        size_t n = MIN(size - done, CHUNK_BYTES);
        GString *line = g_string_new(NULL);

        g_string_append_printf(line, "write 0x%" PRIx64 " 0x%zx 0x", addr + done, n);
        for (size_t i = 0; i < n; i++) {
            g_string_append_printf(line, "%02x", bytes[done + i]);
        }
        g_free(expect_ok(s, exchange(s, line)));
        done += n;
    }
}

void qtest_bufread(QTestState *s, uint64_t addr, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t n = MIN(size - done, CHUNK_BYTES), got;
        g_autofree char *text = command(s, "b64read 0x%" PRIx64 " 0x%zx", addr + done, n);
        g_autofree guchar *bytes = g_base64_decode(text, &got);

        if (got != n) {
            qtest_fail(s, "b64read of %zu bytes gave %zu", n, got);
        }
        memcpy((uint8_t *)data + done, bytes, n);
        done += n;
    }
}

void qtest_bufwrite(QTestState *s, uint64_t addr, const void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t n = MIN(size - done, CHUNK_BYTES);
        g_autofree char *text = g_base64_encode((const guchar *)data + done, n);

        g_free(command(s, "b64write 0x%" PRIx64 " 0x%zx %s", addr + done, n, text));
        done += n;
    }
}

void qtest_memset(QTestState *s, uint64_t addr, uint8_t pattern, size_t size)
{
    g_free(command(s, "memset 0x%" PRIx64 " 0x%zx 0x%02x", addr, size, pattern));
}

int64_t qtest_clock_step(QTestState *s, int64_t step)
{
    return number_of(s, command(s, "clock_step %" PRIi64, step), 10);
}

int64_t qtest_clock_step_next(QTestState *s)
{
    return number_of(s, command(s, "clock_step"), 10);
}

int64_t qtest_clock_set(QTestState *s, int64_t value)
{
    return number_of(s, command(s, "clock_set %" PRIi64, value), 10);
}

void qtest_irq_intercept_in(QTestState *s, const char *path)
{
    g_free(command(s, "irq_intercept_in %s", path));
}

bool qtest_get_irq(QTestState *s, int num)
{
    g_assert_cmpint(num, >=, 0);
    g_assert_cmpint(num, <, QTEST_IRQS);
    /* Whatever the machine said before it answers this has been read then. */
    qtest_inb(s, 0);
    return s->irq_level[num];
}
