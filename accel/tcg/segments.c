/*
 * What the segment registers of a Unicorn engine stand for, which its interface hides: it tells
 * selectors only. (Setting them is in enter.c.)
 *
 * A selector that has not changed since it was last looked at stands for what it stood for. Any
 * other was loaded by the guest: in real mode it is a sixteenth of the base, else its descriptor is
 * in the guest's own table. Between the instruction that turns protection on and the loads that
 * follow, a selector that the table does not have still stands for what real mode made of it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "accel/tcg/tcg-int.h"
#include "system/page-walk.h"
#include "util/bswap.h"

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

bool tcg_segment_is_real(const X86Segment *seg)
{
    return seg->base == (uint64_t)seg->selector << 4 && seg->limit == 0xffff;
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

static X86Segment real_segment(int which, uint16_t selector)
{
    return (X86Segment) {
        .selector = selector, .base = (uint64_t)selector << 4, .limit = 0xffff,
        .type = which == SEG_CS ? 11 : 3, .s = 1, .present = 1,
    };
}

/* In protected mode the guest loaded @selector by itself. */
static X86Segment protected_segment(const X86CPUState *env, int which, uint16_t selector)
{
    X86Segment seg = { .selector = selector, .type = 1, .s = 1, .unusable = 1 };
    bool long_mode = env->efer & EFER_LMA;

    if ((selector & ~3) && !look_up(env, selector, &seg)) {
        seg = (X86Segment) {
            .limit = UINT32_MAX, .type = which == SEG_CS ? 11 : 3, .s = 1, .dpl = selector & 3,
            .present = 1, .l = long_mode && which == SEG_CS, .db = !long_mode || which != SEG_CS,
            .g = 1,
        };
    }
    seg.selector = selector;
    return seg;
}

static void read_protected(const X86CPUState *env, int which, uint16_t selector)
{
    X86Segment *seg = &tcg.seg[which], found;

    if (selector != seg->selector) {
        *seg = protected_segment(env, which, selector);
    } else if (!tcg.seg_protected && (selector & ~3) && look_up(env, selector, &found)) {
        /* Known from real mode; loaded since, as far as anyone can tell. */
        found.selector = selector;
        *seg = found;
    }
}

void tcg_read_segments(X86CPUState *env)
{
    bool is_protected = env->cr0 & CR0_PE;

    for (int i = 0; i < SEG_LDT; i++) {
        uint16_t selector = tcg_reg(regid_of[i]);

        if (is_protected) {
            read_protected(env, i, selector);
        } else if (selector != tcg.seg[i].selector) {
            tcg.seg[i] = real_segment(i, selector);
        }
    }
    tcg.seg_protected = is_protected;
    tcg.seg[SEG_SS].dpl = is_protected ? tcg.seg[SEG_CS].selector & 3 : 0;
    tcg.seg[SEG_FS].base = tcg_reg(UC_X86_REG_FS_BASE);
    tcg.seg[SEG_GS].base = tcg_reg(UC_X86_REG_GS_BASE);
    memcpy(env->seg, tcg.seg, SEG_LDT * sizeof(tcg.seg[0]));
}
