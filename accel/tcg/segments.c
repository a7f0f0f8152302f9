/*
 * Segments and privilege level of a Unicorn engine, which its interface hides: a selector can be
 * written, but neither what it stands for nor the ring.
 *
 * A fresh engine is in a state that no processor knows: 64-bit code in ring 0 without paging, so
 * virtual addresses are physical. That is used to let the processor set itself up: in a scratch region,
 * mapped for the moment over an address that RAM does not use, lie a descriptor table with the
 * segments wanted at their own selectors, and a few instructions that load them and IRET to
 * the code segment. The same is done by an operating system when it enters user space.
 *
 *     0x00000  descriptor table, 64 KiB
 *     0x10000  the code
 *     0x10800  where it ends: nothing is executed there
 *     0x11000  the frame for IRET
 *
 * On the way back a selector that has not changed stands for what it stood for; else its descriptor is
 * looked up in the guest's own table.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "accel/tcg/tcg-int.h"
#include "system/page-walk.h"
#include "util/bswap.h"

#define SCRATCH (TCG_PHYS_END)
#define SCRATCH_BYTES 0x12000u
#define CODE 0x10000u
#define CODE_END 0x10800u
#define FRAME 0x11000u

static const int regid_of[SEG_LDT] = {
    [SEG_ES] = UC_X86_REG_ES, [SEG_CS] = UC_X86_REG_CS, [SEG_SS] = UC_X86_REG_SS,
    [SEG_DS] = UC_X86_REG_DS, [SEG_FS] = UC_X86_REG_FS, [SEG_GS] = UC_X86_REG_GS,
};

uint32_t tcg_segment_flags(const X86Segment *seg)
{
    return (uint32_t)(seg->type & 15) << 8 | (seg->s & 1u) << 12 | (seg->dpl & 3u) << 13 |
           (seg->present & 1u) << 15 | (seg->avl & 1u) << 20 | (seg->l & 1u) << 21 |
           (seg->db & 1u) << 22 | (seg->g & 1u) << 23;
}

void tcg_segment_from_flags(X86Segment *seg, uint32_t flags)
{
    seg->type = flags >> 8 & 15;
    seg->s = flags >> 12 & 1;
    seg->dpl = flags >> 13 & 3;
    seg->present = flags >> 15 & 1;
    seg->avl = flags >> 20 & 1;
    seg->l = flags >> 21 & 1;
    seg->db = flags >> 22 & 1;
    seg->g = flags >> 23 & 1;
    seg->unusable = !seg->present;
}

static bool is_null(const X86Segment *seg)
{
    return seg->unusable || (seg->selector & ~3) == 0;
}

/* A code or data descriptor. FS and GS have bases of their own, set later. */
static uint64_t descriptor_of(const X86Segment *seg)
{
    uint32_t limit = seg->g ? seg->limit >> 12 : seg->limit;
    uint32_t base = seg->base > UINT32_MAX ? 0 : seg->base;
    uint32_t low = (limit & 0xffff) | base << 16;
    uint32_t high = (base >> 16 & 0xff) | (base & 0xff000000) | (limit & 0xf0000) |
                    tcg_segment_flags(seg);

    return (uint64_t)high << 32 | low;
}

static int put_descriptors(const X86CPUState *env, uint8_t *scratch, Error **errp)
{
    for (int i = 0; i < SEG_LDT; i++) {
        const X86Segment *seg = &env->seg[i];
        uint8_t *entry = scratch + (seg->selector & ~7);

        if (is_null(seg)) {
            continue;
        }
        if (seg->selector & 4) {
            error_setg(errp, "a segment comes from a local descriptor table (selector 0x%x), "
                       "which the tcg accelerator cannot set", seg->selector);
            return -1;
        }
        uint64_t now = ldq_le_p(entry), want = descriptor_of(seg);
        /* The same selector twice, but for the base: FS and GS beside DS. */
        if (now && (now ^ want) & 0x00f0ff0000000000ull & ~(1ull << 40)) {
            error_setg(errp, "two segments with selector 0x%x differ, which the tcg accelerator "
                       "cannot set", seg->selector);
            return -1;
        }
        stq_le_p(entry, want);
    }
    return 0;
}

static int fill_scratch(const X86CPUState *env, uint8_t *scratch, Error **errp)
{
    /* mov ds, eax; mov es, ebx; mov fs, ecx; mov gs, edx; iretq */
    static const uint8_t code[] = { 0x8e, 0xd8, 0x8e, 0xc3, 0x8e, 0xe1, 0x8e, 0xea, 0x48, 0xcf };
    const uint64_t frame[] = {
        SCRATCH + CODE_END, env->seg[SEG_CS].selector, env->rflags & ~0x10000ull & ~0x100ull, 0,
        is_null(&env->seg[SEG_SS]) ? env->seg[SEG_CS].selector & 3 : env->seg[SEG_SS].selector,
    };

    if (is_null(&env->seg[SEG_CS])) {
        error_setg(errp, "the code segment is not usable");
        return -1;
    }
    if (put_descriptors(env, scratch, errp) < 0) {
        return -1;
    }
    memcpy(scratch + CODE, code, sizeof(code));
    for (unsigned i = 0; i < G_N_ELEMENTS(frame); i++) {
        stq_le_p(scratch + FRAME + 8 * i, frame[i]);
    }
    return 0;
}

static uc_err write_selector(int regid, const X86Segment *seg)
{
    uint64_t value = is_null(seg) ? 0 : seg->selector;

    return uc_reg_write(tcg.uc, regid, &value);
}

static uc_err run_scratch(const X86CPUState *env)
{
    uc_x86_mmr gdtr = { .base = SCRATCH, .limit = 0xffff };
    uint64_t stack = SCRATCH + FRAME;
    uc_err err = uc_reg_write(tcg.uc, UC_X86_REG_GDTR, &gdtr);

    if (err == UC_ERR_OK) {
        err = uc_reg_write(tcg.uc, UC_X86_REG_RSP, &stack);
    }
    if (err == UC_ERR_OK) {
        err = write_selector(UC_X86_REG_RAX, &env->seg[SEG_DS]);
    }
    if (err == UC_ERR_OK) {
        err = write_selector(UC_X86_REG_RBX, &env->seg[SEG_ES]);
    }
    if (err == UC_ERR_OK) {
        err = write_selector(UC_X86_REG_RCX, &env->seg[SEG_FS]);
    }
    if (err == UC_ERR_OK) {
        err = write_selector(UC_X86_REG_RDX, &env->seg[SEG_GS]);
    }
    if (err == UC_ERR_OK) {
        err = uc_emu_start(tcg.uc, SCRATCH + CODE, SCRATCH + CODE_END, 0, 0);
    }
    return err;
}

int tcg_enter_segments(const X86CPUState *env, Error **errp)
{
    g_autofree uint8_t *memory = g_malloc0(SCRATCH_BYTES + TARGET_PAGE_SIZE);
    uint8_t *scratch = (uint8_t *)(((uintptr_t)memory + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK);
    uc_err err;

    if (fill_scratch(env, scratch, errp) < 0) {
        return -1;
    }
    err = uc_mem_map_ptr(tcg.uc, SCRATCH, SCRATCH_BYTES, UC_PROT_ALL, scratch);
    if (err == UC_ERR_OK) {
        err = run_scratch(env);
        bool there = tcg_reg(UC_X86_REG_RIP) == SCRATCH + CODE_END;
        uc_err unmapped = uc_mem_unmap(tcg.uc, SCRATCH, SCRATCH_BYTES);

        if (err == UC_ERR_OK) {
            err = !there || tcg.exception >= 0 ? UC_ERR_EXCEPTION : unmapped;
        }
    }
    if (err != UC_ERR_OK) {
        error_setg(errp, "the emulator does not take the segments (CS 0x%x, SS 0x%x): %s",
                   env->seg[SEG_CS].selector, env->seg[SEG_SS].selector, uc_strerror(err));
        return -1;
    }
    memcpy(tcg.seg, env->seg, sizeof(tcg.seg));
    return 0;
}

/* The descriptor of @selector in the guest's table. Returns false when it cannot be read. */
static bool look_up(const X86CPUState *env, uint16_t selector, X86Segment *seg)
{
    uint8_t entry[8];
    unsigned offset = selector & ~7;

    if ((selector & 4) || offset + 7 > env->gdt.limit ||
        page_walk_read(env, env->gdt.base + offset, entry, sizeof(entry)) < 0) {
        return false;
    }
    uint32_t low = ldl_le_p(entry), high = ldl_le_p(entry + 4);

    seg->base = low >> 16 | (high & 0xff) << 16 | (high & 0xff000000);
    seg->limit = (low & 0xffff) | (high & 0xf0000);
    tcg_segment_from_flags(seg, high);
    if (seg->g) {
        seg->limit = seg->limit << 12 | 0xfff;
    }
    seg->type |= 1;
    return true;
}

void tcg_read_segments(X86CPUState *env)
{
    unsigned ring = tcg_reg(UC_X86_REG_CS) & 3;

    for (int i = 0; i < SEG_LDT; i++) {
        X86Segment *seg = &tcg.seg[i];
        uint16_t selector = tcg_reg(regid_of[i]);

        if (selector != seg->selector && (selector & ~3) == 0) {
            *seg = (X86Segment) { .selector = selector, .type = 1, .s = 1, .unusable = 1 };
        } else if (selector != seg->selector && !look_up(env, selector, seg)) {
            *seg = (X86Segment) {
                .limit = UINT32_MAX, .type = i == SEG_CS ? 11 : 3, .s = 1, .dpl = selector & 3,
                .present = 1, .l = i == SEG_CS, .db = i != SEG_CS, .g = 1,
            };
        }
        seg->selector = selector;
    }
    tcg.seg[SEG_SS].dpl = ring;
    tcg.seg[SEG_FS].base = tcg_reg(UC_X86_REG_FS_BASE);
    tcg.seg[SEG_GS].base = tcg_reg(UC_X86_REG_GS_BASE);
    memcpy(env->seg, tcg.seg, SEG_LDT * sizeof(tcg.seg[0]));
}
