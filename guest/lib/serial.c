/*
 * The guest's console: COM1, polled, 8 bits at 115200, FIFOs on, no interrupts. A line of print()
 * is written under a lock, so lines of several processors do not mix.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest.h"

enum { COM1 = 0x3f8, DATA = 0, IER = 1, FCR = 2, LCR = 3, MCR = 4, LSR = 5 };
enum { LSR_DATA_READY = 0x01, LSR_THR_EMPTY = 0x20 };

static Lock print_lock;

void serial_init(void)
{
    out8(COM1 + IER, 0);
    out8(COM1 + LCR, 0x80);
    out8(COM1 + DATA, 1);
    out8(COM1 + IER, 0);
    out8(COM1 + LCR, 0x03);
    out8(COM1 + FCR, 0x01);
    out8(COM1 + MCR, 0x03);
}

void serial_write(char c)
{
    while (!(in8(COM1 + LSR) & LSR_THR_EMPTY)) {
        pause_cpu();
    }
    out8(COM1 + DATA, (uint8_t)c);
}

int serial_read(void)
{
    return in8(COM1 + LSR) & LSR_DATA_READY ? in8(COM1 + DATA) : -1;
}

static void print_string(const char *s, unsigned width)
{
    size_t len = strlen(s);

    for (; len < width; len++) {
        serial_write(' ');
    }
    while (*s) {
        serial_write(*s++);
    }
}

static void print_number(uint64_t value, unsigned base, unsigned width, char fill)
{
    char digits[20];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    for (; width > n; width--) {
        serial_write(fill);
    }
    while (n) {
        serial_write(digits[--n]);
    }
}

/* One conversion, @fmt after its '%'; returns what follows it. */
static const char *print_conversion(const char *fmt, va_list *args)
{
    char fill = ' ';
    unsigned width = 0, longs = 0;

    if (*fmt == '0') {
        fill = *fmt++;
    }
    for (; *fmt >= '0' && *fmt <= '9'; fmt++) {
        width = width * 10 + (unsigned)(*fmt - '0');
    }
    for (; *fmt == 'l'; fmt++) {
        longs++;
    }
    switch (*fmt) {
    case 's':
        print_string(va_arg(*args, const char *), width);
        break;
    case 'c':
        serial_write((char)va_arg(*args, int));
        break;
    case 'd': {
        int64_t value = longs ? va_arg(*args, int64_t) : va_arg(*args, int);

        if (value < 0) {
            serial_write('-');
            value = -value;
        }
        print_number((uint64_t)value, 10, width, fill);
        break;
    }
    case 'u':
    case 'x': {
        uint64_t value = longs ? va_arg(*args, uint64_t) : va_arg(*args, unsigned);

        print_number(value, *fmt == 'x' ? 16 : 10, width, fill);
        break;
    }
    default:
        serial_write('%');
        return fmt;
    }
    return fmt + 1;
}

void print(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    lock_take(&print_lock);
    while (*fmt) {
        if (*fmt == '%') {
            fmt = print_conversion(fmt + 1, &args);
        } else {
            serial_write(*fmt++);
        }
    }
    lock_drop(&print_lock);
    va_end(args);
}
