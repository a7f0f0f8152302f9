/*
 * One loop serves all paging modes: a mode is the number of levels, the size of an entry, how many
 * address bits each level takes, and at which levels an entry may map a large page.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include "system/memory.h"
#include "system/page-walk.h"
#include "util/bswap.h"

#define CR0_PG (1u << 31)
#define CR4_PSE (1u << 4)
#define CR4_PAE (1u << 5)
#define CR4_LA57 (1u << 12)
#define EFER_LMA (1u << 10)

#define PTE_PRESENT 1u
#define PTE_LARGE 0x80u
#define PTE_ADDRESS 0x000ffffffffff000ull

typedef struct PagingMode {
    int levels;
    unsigned entry_bytes;
    unsigned bits;              /* address bits that one level consumes */
    int large_levels;           /* entries up to this level (1 is the lowest) may be large */
    unsigned address_bits;
} PagingMode;

static PagingMode paging_mode(const X86CPUState *env)
{
    if (env->efer & EFER_LMA) {
        bool five = env->cr4 & CR4_LA57;

        return (PagingMode){ .levels = five ? 5 : 4, .entry_bytes = 8, .bits = 9,
                             .large_levels = 3, .address_bits = five ? 57 : 48 };
    }
    if (env->cr4 & CR4_PAE) {
        return (PagingMode){ .levels = 3, .entry_bytes = 8, .bits = 9, .large_levels = 2,
                             .address_bits = 32 };
    }
    return (PagingMode){ .levels = 2, .entry_bytes = 4, .bits = 10,
                         .large_levels = env->cr4 & CR4_PSE ? 2 : 1, .address_bits = 32 };
}

/* In long mode the bits above the address are copies of its highest one; else they are absent. */
static bool address_is_valid(const X86CPUState *env, const PagingMode *mode, uint64_t vaddr)
{
    if (env->efer & EFER_LMA) {
        int unused = 64 - mode->address_bits;

        return (uint64_t)((int64_t)(vaddr << unused) >> unused) == vaddr;
    }
    return vaddr <= UINT32_MAX;
}

static int read_entry(const PagingMode *mode, uint64_t gpa, uint64_t *entry)
{
    uint8_t bytes[8] = {};

    if (address_space_read(gpa, bytes, mode->entry_bytes) < 0) {
        return -1;
    }
    *entry = ldq_le_p(bytes);
    return *entry & PTE_PRESENT ? 0 : -1;
}

/* A 4 MiB page of 32-bit paging keeps address bits 32 to 39 in its bits 13 to 20. */
static uint64_t large_page_base(const PagingMode *mode, uint64_t entry, uint64_t page_bytes)
{
    if (mode->entry_bytes == 4) {
        return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
    }
    return entry & PTE_ADDRESS & ~(page_bytes - 1);
}

static uint64_t table_base(const X86CPUState *env, const PagingMode *mode)
{
    /* The four top entries of PAE paging are aligned to 32 bytes only. */
    return mode->levels == 3 ? env->cr3 & 0xffffffe0 : env->cr3 & PTE_ADDRESS;
}

int page_walk(const X86CPUState *env, uint64_t vaddr, uint64_t *gpa, uint64_t *contiguous)
{
    PagingMode mode = paging_mode(env);
    uint64_t base = table_base(env, &mode), page_bytes = 0, entry;

    if (!(env->cr0 & CR0_PG)) {
        *gpa = vaddr;
        if (contiguous) {
            *contiguous = TARGET_PAGE_SIZE - (vaddr & (TARGET_PAGE_SIZE - 1));
        }
        return 0;
    }
    if (!address_is_valid(env, &mode, vaddr)) {
        return -1;
    }
    for (int level = mode.levels; level >= 1; level--) {
        unsigned shift = TARGET_PAGE_BITS + (level - 1) * mode.bits;
        uint64_t index = vaddr >> shift & ((1u << mode.bits) - 1);

        if (read_entry(&mode, base + index * mode.entry_bytes, &entry) < 0) {
            return -1;
        }
        page_bytes = 1ull << shift;
        if (level > 1 && level <= mode.large_levels && (entry & PTE_LARGE)) {
            base = large_page_base(&mode, entry, page_bytes);
            break;
        }
        base = entry & PTE_ADDRESS;
    }
    *gpa = base + (vaddr & (page_bytes - 1));
    if (contiguous) {
        *contiguous = page_bytes - (vaddr & (page_bytes - 1));
    }
    return 0;
}

int page_walk_read(const X86CPUState *env, uint64_t vaddr, void *buf, uint64_t len)
{
    uint8_t *out = buf;

    while (len) {
        uint64_t gpa, n;

        if (page_walk(env, vaddr, &gpa, &n) < 0) {
            return -1;
        }
        n = MIN(n, len);
        if (address_space_read(gpa, out, n) < 0) {
            return -1;
        }
        out += n;
        vaddr += n;
        len -= n;
    }
    return 0;
}
