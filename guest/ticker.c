/*
 * ticker: a guest that counts.
 *
 * Prints "tick N" about once a period and checks at each tick that nothing of it was lost: a few
 * pages of memory hold the pattern of the tick before, vector and floating point registers hold
 * what they were given at start, and the processor's counter never ran backwards. What does not
 * hold is said ("ticker: BAD ...") and counting goes on, so that one look at the serial port tells.
 *
 * Command line: period=MILLISECONDS (1000), pages=N (16), count=N (power off after tick N; 0:
 * never). Serial input: 'p' answers "pong", 'q' powers off.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "lib/guest.h"

#define WORDS (GUEST_PAGE_SIZE / 8)

static uint64_t pages, last_time;

static uint64_t pattern(uint64_t page, uint64_t tick, unsigned word)
{
    return (tick << 40) ^ (page << 16) ^ (word * 0x9e3779b97f4a7c15ull);
}

static void memory_write(uint64_t tick)
{
    for (uint64_t page = 0; page < pages; page++) {
        uint64_t *words = ram_page(page);

        for (unsigned i = 0; i < WORDS; i++) {
            words[i] = pattern(page, tick, i);
        }
    }
}

static void memory_check(uint64_t tick)
{
    for (uint64_t page = 0; page < pages; page++) {
        const volatile uint64_t *words = ram_page(page);

        for (unsigned i = 0; i < WORDS; i++) {
            uint64_t want = pattern(page, tick, i), got = words[i];

            if (want != got) {
                print("ticker: BAD memory page=%lu word=%u want=%lx got=%lx\n", page, i, want, got);
                break;
            }
        }
    }
}

/* Compiled code never touches these registers, so what is put in stays until it is looked at. */
static const uint64_t xmm_values[4] __attribute__((aligned(16))) = {
    0x0123456789abcdef, 0xfedcba9876543210, 0x5555aaaa33336666, 0x00ff00ff0ff00ff0,
};

static void registers_set(void)
{
    __asm__ volatile("fninit; fldpi; fldl2e; movaps 0(%0), %%xmm3; movaps 16(%0), %%xmm15"
                     : : "r"(xmm_values) : "memory");
}

static void registers_check(void)
{
    static uint64_t xmm[4] __attribute__((aligned(16)));
    static uint8_t x87[10], pi[10];
    static const uint8_t log2_e[10] = {
        0xbc, 0xf0, 0x17, 0x5c, 0x29, 0x3b, 0xaa, 0xb8, 0xff, 0x3f
    };

    __asm__ volatile("movaps %%xmm3, 0(%0); movaps %%xmm15, 16(%0)" : : "r"(xmm) : "memory");
    if (memcmp(xmm, xmm_values, sizeof(xmm))) {
        print("ticker: BAD xmm registers\n");
    }
    __asm__ volatile("fstpt (%0); fstpt (%1); fldpi; fldl2e" : : "r"(x87), "r"(pi) : "memory");
    if (memcmp(x87, log2_e, sizeof(x87)) || pi[9] != 0x40 || pi[8] != 0x00) {
        print("ticker: BAD x87 registers\n");
    }
}

static uint64_t time_check(void)
{
    uint64_t now = time_now();

    if (now < last_time) {
        print("ticker: BAD time went from %lx back to %lx\n", last_time, now);
    }
    return last_time = now;
}

static void console(void)
{
    switch (serial_read()) {
    case 'p':
        print("pong\n");
        break;
    case 'q':
        guest_exit(0);
    }
}

void guest_main(void)
{
    uint64_t period = time_hz() / 1000 * boot_option("period", 1000);
    uint64_t count = boot_option("count", 0);
    uint64_t poll_every = time_hz() / 1000, start;

    pages = boot_option("pages", 16);
    if (pages > ram_pages()) {
        pages = ram_pages();
    }
    print("ticker: start pages=%lu ram=%luM\n", pages, ram_pages() >> 8);
    registers_set();
    memory_write(0);
    for (uint64_t tick = 1; !count || tick <= count; tick++) {
        start = time_check();
        do {
            console();
            time_wait(poll_every < period ? poll_every : period);
        } while (time_check() - start < period);
        registers_check();
        memory_check(tick - 1);
        memory_write(tick);
        print("tick %lu\n", tick);
    }
}
