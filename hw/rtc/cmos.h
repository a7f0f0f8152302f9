/*
 * mc146818rtc: clock and CMOS memory at ports 0x70 and 0x71, as much of it as firmware, boot code
 * and polling guests use. It has no interrupt: the flags of register C are set for whoever polls
 * them.
 *
 * The board tells it the machine's size through the properties "ram-below-4g", "ram-above-4g" and
 * "cpus"; it appears in the registers where PC firmware keeps it. Time is the host's UTC plus what
 * the guest set it off by; that difference is what a migration carries.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_RTC_CMOS_H
#define HW_RTC_CMOS_H

#include <stdint.h>

/* Where time comes from, microseconds since 1970; NULL: the host's real time. For tests. */
void cmos_set_clock(int64_t (*now_us)(void));

#endif
