/*
 * How fast the processor's counter counts, measured against whatever clock the machine has: channel
 * 2 of the PIT where it answers, else a second of the RTC. Where neither is there 2 GHz is assumed,
 * which only makes rates inexact.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest.h"

#define PIT_HZ 1193182u
#define PIT_COUNT 23864u                /* 20 ms */
#define ASSUMED_HZ 2000000000ull
#define GIVE_UP_TICKS 12000000000ull    /* longer than a second on any processor */

enum { PIT_CHANNEL2 = 0x42, PIT_MODE = 0x43, PORT_B = 0x61 };
enum { PORT_B_OUT = 0x20 };

static uint64_t hz;

static uint64_t measure_by_pit(void)
{
    uint64_t start;

    out8(PORT_B, (in8(PORT_B) & 0x0c) | 0x01);      /* gate on, speaker off */
    out8(PIT_MODE, 0xb0);                           /* channel 2, both bytes, mode 0 */
    out8(PIT_CHANNEL2, PIT_COUNT & 0xff);
    out8(PIT_CHANNEL2, PIT_COUNT >> 8);
    start = time_now();
    if (in8(PORT_B) & PORT_B_OUT) {
        return 0;                       /* no PIT: a counter that just began cannot be at its end */
    }
    while (!(in8(PORT_B) & PORT_B_OUT)) {
        if (time_now() - start > GIVE_UP_TICKS) {
            return 0;
        }
    }
    return (time_now() - start) * (PIT_HZ / 100) / (PIT_COUNT / 100);
}

/* Wait until the seconds of the RTC change. */
static bool rtc_next_second(void)
{
    uint64_t start = time_now();
    uint8_t second = cmos_read(0);

    while (cmos_read(0) == second) {
        if (time_now() - start > GIVE_UP_TICKS) {
            return false;
        }
    }
    return true;
}

static uint64_t measure_by_rtc(void)
{
    uint64_t start;

    if (cmos_read(0) == 0xff || !rtc_next_second()) {
        return 0;
    }
    start = time_now();
    return rtc_next_second() ? time_now() - start : 0;
}

void time_init(void)
{
    hz = measure_by_pit();
    if (!hz) {
        hz = measure_by_rtc();
    }
    if (!hz) {
        hz = ASSUMED_HZ;
    }
}

uint64_t time_hz(void)
{
    return hz;
}

void time_wait(uint64_t ticks)
{
    uint64_t start = time_now();

    while (time_now() - start < ticks) {
        pause_cpu();
    }
}
