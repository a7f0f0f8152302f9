/*
 * The run time of the test guests: everything a guest may call.
 *
 * A guest is a C file with guest_main(), linked with this library. It runs in ring 3 with IOPL 3,
 * so port access, CPUID and RDTSC work and privileged instructions do not; interrupts are off and
 * stay off; memory is mapped one to one. Code is compiled for general registers only. guest_main()
 * runs on processor 0; others run what smp_start() gives them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef GUEST_LIB_GUEST_H
#define GUEST_LIB_GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_CPUS_MAX 16
#define GUEST_PAGE_SIZE 4096u

/* The guest's own; returning from it powers the machine off with status 0. */
void guest_main(void);

/* Ports. */
static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void pause_cpu(void)
{
    __asm__ volatile("pause" : : : "memory");
}

static inline void cpuid(uint32_t leaf, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
    __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}

/* Strings and memory, as the C library has them. */
size_t strlen(const char *s);
int strncmp(const char *a, const char *b, size_t n);
void *memset(void *s, int c, size_t n);
void *memcpy(void *dest, const void *src, size_t n);
void *memmove(void *dest, const void *src, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/*
 * COM1, polled. print() is one line at a time whoever calls: %s %c %d %u %x, with l, ll and widths.
 */
void serial_init(void);
void serial_write(char c);
/* The next byte that came in, or -1. */
int serial_read(void);
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * What the loader said: the command line (copied, at most 4095 bytes) and RAM. Looked for in the
 * PVH start info; without one the command line is empty and RAM sizes come from the CMOS.
 */
void boot_info_init(void);
const char *boot_cmdline(void);
/*
 * "name=VALUE" on the command line: decimal or 0x, with K, M, G; @fallback when absent or
 * malformed.
 */
uint64_t boot_option(const char *name, uint64_t fallback);
/* The CMOS register @index. */
uint8_t cmos_read(uint8_t index);

/*
 * RAM that is free for tests, as one array of pages numbered from 0 although it may have holes: all
 * RAM above the guest's image.
 */
uint64_t ram_pages(void);
/* Address of page @index, which must be below ram_pages(). */
void *ram_page(uint64_t index);

/* Time: the processor's counter, and how many ticks make a second (an estimate good for pacing). */
static inline uint64_t time_now(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return ((uint64_t)high << 32) | low;
}
void time_init(void);
uint64_t time_hz(void);
void time_wait(uint64_t ticks);

/*
 * Start up to @wanted processors in all (0: as many as the CMOS says there are), each of which then
 * runs @fn with its number from 1. Returns how many there are with this one.
 */
unsigned smp_start(unsigned wanted, void (*fn)(unsigned cpu));

/* End the machine through the debug exit device: exit status (code << 1) | 1. */
void guest_exit(uint8_t code) __attribute__((noreturn));

/* Spin lock, zero is free. */
typedef struct Lock {
    uint32_t taken;
} Lock;
void lock_take(Lock *lock);
void lock_drop(Lock *lock);

#endif
