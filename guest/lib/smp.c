/*
 * Start-up of the other processors: INIT and SIPI to all of them at once through the local APIC;
 * each counts itself in start.S and comes out in ring3_main() with its number. How many to wait for
 * is what the caller wants or the CMOS says (register 0x5f, as PC firmware leaves it), and never
 * longer than a deadline.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest.h"
#include "internal.h"

#define TRAMPOLINE 0x8000u
#define LAPIC 0xfee00000u

enum { LAPIC_SPURIOUS = 0xf0, LAPIC_ICR_LOW = 0x300 };
enum { ICR_INIT_ALL_BUT_SELF = 0xc4500, ICR_SIPI_ALL_BUT_SELF = 0xc4600, ICR_PENDING = 0x1000 };

extern const char ap_trampoline[], ap_trampoline_end[];

static void (*volatile ap_fn)(unsigned cpu);
static volatile uint32_t ap_allowed;

static volatile uint32_t *lapic(unsigned reg)
{
    return (volatile uint32_t *)(uintptr_t)(LAPIC + reg);
}

static void send_to_others(uint32_t command)
{
    *lapic(LAPIC_ICR_LOW) = command;
    for (unsigned i = 0; i < 1000 && (*lapic(LAPIC_ICR_LOW) & ICR_PENDING); i++) {
        pause_cpu();
    }
}

static unsigned started(void)
{
    return __atomic_load_n(&processors_started, __ATOMIC_ACQUIRE);
}

unsigned smp_start(unsigned wanted, void (*fn)(unsigned cpu))
{
    unsigned last = cmos_read(0x5f);
    unsigned expected = wanted ? wanted : last == 0xff ? 1 : last + 1;

    if (expected > GUEST_CPUS_MAX) {
        expected = GUEST_CPUS_MAX;
    }
    if (expected < 2) {
        return 1;
    }
    memcpy((void *)(uintptr_t)TRAMPOLINE, ap_trampoline,
           (size_t)(ap_trampoline_end - ap_trampoline));
    *lapic(LAPIC_SPURIOUS) = 0x1ff;
    send_to_others(ICR_INIT_ALL_BUT_SELF);
    time_wait(time_hz() / 100);
    for (unsigned attempt = 0; attempt < 2 && started() < expected; attempt++) {
        uint64_t begin = time_now();

        send_to_others(ICR_SIPI_ALL_BUT_SELF | TRAMPOLINE / GUEST_PAGE_SIZE);
        while (started() < expected && time_now() - begin < 2 * time_hz()) {
            pause_cpu();
        }
    }
    expected = started() < expected ? started() : expected;
    ap_fn = fn;
    __atomic_store_n(&ap_allowed, expected, __ATOMIC_RELEASE);
    return expected;
}

void ap_main(unsigned cpu)
{
    while (cpu >= __atomic_load_n(&ap_allowed, __ATOMIC_ACQUIRE)) {
        pause_cpu();
    }
    ap_fn(cpu);
    for (;;) {
        pause_cpu();
    }
}

void lock_take(Lock *lock)
{
    while (__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE)) {
        pause_cpu();
    }
}

void lock_drop(Lock *lock)
{
    __atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}
