/*
 * Giving segments, mode and privilege level to a fresh Unicorn engine, whose interface can set
 * neither what a selector stands for nor the ring nor the way out of long mode.
 *
 * A fresh engine is in a state that no processor knows: 64-bit code in ring 0 without paging, so
 * virtual addresses are physical. That is used to let the processor set itself up: in a scratch
 * region, which is mapped before anything else and for the moment only, lie descriptor tables and a
 * few instructions.
 *
 * Into long mode they load the segments wanted and IRET to the code segment, as an operating system
 * does when it enters user space. Into 32-bit and real mode they first leave long mode, as a
 * processor is told to: paging off, from 32-bit code. (Paging is on for that moment, by page tables
 * that map the region to itself.) Then segments are loaded the way that the new mode has for it.
 *
 *     0x00000  descriptor table with the wanted segments at their own selectors, 64 KiB
 *     0x10000  the code
 *     0x10800  where it ends: nothing is executed there
 *     0x11000  the frames for returns
 *     0x12000  page tables, three levels of one page each
 *     0x15000  descriptor table of the code itself: flat 32-bit code and data, 16-bit code and data
 *
 * The two places of the region are addresses at which no guest runs code, since the engine keeps
 * what it has translated. Limits are not what the engine looks at when it runs, so a code segment
 * is loaded with none, and the jump to the end reaches beyond it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>
#include "accel/tcg/tcg-int.h"
#include "util/bswap.h"

#define SCRATCH_LONG TCG_PHYS_END
#define SCRATCH_LEGACY 0xffe00000ull
#define SCRATCH_BYTES 0x16000u
#define CODE 0x10000u
#define CODE_END 0x10800u
#define FRAME 0x11000u
#define FRAME_OUT (FRAME + 16)     /* where the stack is after the first */
#define TABLES 0x12000u
#define OWN_GDT 0x15000u
#define OWN_CODE 0x08
#define OWN_DATA 0x10
#define OWN_CODE16 0x18
#define OWN_DATA16 0x20

#define PTE_PRESENT_WRITE 3u
#define PTE_LARGE 0x80u

/* Flags that are not for the code here. */
#define RFLAGS_RF (1ull << 16)
#define RFLAGS_TF (1ull << 8)

static bool is_null(const X86Segment *seg)
{
    return seg->unusable || (seg->selector & ~3) == 0;
}

/* A code or data descriptor. In long mode FS and GS have bases of their own, set later. */
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
        X86Segment seg = env->seg[i];
        uint8_t *entry = scratch + (seg.selector & ~7);

        if (is_null(&seg)) {
            continue;
        }
        if (seg.selector & 4) {
            error_setg(errp, "a segment comes from a local descriptor table (selector 0x%x), "
                       "which the tcg accelerator cannot set", seg.selector);
            return -1;
        }
        if (i == SEG_CS) {
            seg.limit = UINT32_MAX;     /* see above */
            seg.g = 1;
        }
        uint64_t now = ldq_le_p(entry), want = descriptor_of(&seg);
        /* The same selector twice, but for the base: FS and GS beside DS. */
        if (now && (now ^ want) & 0x00f0ff0000000000ull & ~(1ull << 40)) {
            error_setg(errp, "two segments with selector 0x%x differ, which the tcg accelerator "
                       "cannot set", seg.selector);
            return -1;
        }
        stq_le_p(entry, want);
    }
    return 0;
}

static void put_frame(uint8_t *frame, const uint64_t *values, unsigned n, unsigned bytes)
{
    for (unsigned i = 0; i < n; i++) {
        if (bytes == 8) {
            stq_le_p(frame + 8 * i, values[i]);
        } else {
            stl_le_p(frame + 4 * i, values[i]);
        }
    }
}

/* What to load into a data segment: in protected mode an unusable one is null. */
static uint64_t selector_of(const X86CPUState *env, int which)
{
    const X86Segment *seg = &env->seg[which];

    return (env->cr0 & CR0_PE) && is_null(seg) ? 0 : seg->selector;
}

static uint64_t entry_flags(const X86CPUState *env)
{
    return env->rflags & ~RFLAGS_RF & ~RFLAGS_TF;
}

/* ---- long mode ---- */

static void fill_long(const X86CPUState *env, uint8_t *scratch)
{
    /* mov ds, eax; mov es, ebx; mov fs, ecx; mov gs, edx; iretq */
    static const uint8_t code[] = { 0x8e, 0xd8, 0x8e, 0xc3, 0x8e, 0xe1, 0x8e, 0xea, 0x48, 0xcf };
    const uint64_t frame[] = {
        SCRATCH_LONG + CODE_END, env->seg[SEG_CS].selector, entry_flags(env), 0,
        is_null(&env->seg[SEG_SS]) ? env->seg[SEG_CS].selector & 3 : env->seg[SEG_SS].selector,
    };

    memcpy(scratch + CODE, code, sizeof(code));
    put_frame(scratch + FRAME, frame, G_N_ELEMENTS(frame), 8);
}

/* ---- 32-bit and real mode ---- */

/* Map the 2 MiB that the region lies in to themselves. */
static void fill_page_tables(uint8_t *scratch)
{
    uint64_t tables = SCRATCH_LEGACY + TABLES;

    stq_le_p(scratch + TABLES, (tables + 0x1000) | PTE_PRESENT_WRITE);
    stq_le_p(scratch + TABLES + 0x1000 + (SCRATCH_LEGACY >> 30) * 8,
             (tables + 0x2000) | PTE_PRESENT_WRITE);
    stq_le_p(scratch + TABLES + 0x2000 + (SCRATCH_LEGACY >> 21 & 511) * 8,
             SCRATCH_LEGACY | PTE_LARGE | PTE_PRESENT_WRITE);
}

/* Code as it grows. */
typedef struct Code {
    uint8_t *bytes;
    size_t len;
} Code;

static void emit(Code *code, const void *bytes, size_t n)
{
    memcpy(code->bytes + code->len, bytes, n);
    code->len += n;
}
#define EMIT(code, ...) emit(code, (const uint8_t[]) { __VA_ARGS__ }, \
                             sizeof((const uint8_t[]) { __VA_ARGS__ }))

static void emit_u32(Code *code, uint32_t value)
{
    stl_le_p(code->bytes + code->len, value);
    code->len += 4;
}

/* jmp far, with an offset of 32 bits. */
static void emit_far_jump(Code *code, uint16_t selector, uint32_t offset)
{
    EMIT(code, 0xea);
    emit_u32(code, offset);
    EMIT(code, selector & 0xff, selector >> 8);
}

/* mov eax, DS; mov ds, eax; mov es, ebx; mov fs, ecx; mov gs, edx */
static void emit_data_segments(Code *code, const X86CPUState *env, bool code16)
{
    if (code16) {
        EMIT(code, 0x66);
    }
    EMIT(code, 0xb8);
    emit_u32(code, selector_of(env, SEG_DS));
    EMIT(code, 0x8e, 0xd8, 0x8e, 0xc3, 0x8e, 0xe1, 0x8e, 0xea);
}

/*
 * From here to the region's end in the code segment wanted, whose offset there depends on the base.
 */
static uint32_t offset_of_end(const X86CPUState *env)
{
    return SCRATCH_LEGACY + CODE_END - env->seg[SEG_CS].base;
}

/* Into an outer ring only a return leads. */
static void emit_protected(Code *code, const X86CPUState *env, uint8_t *scratch)
{
    const X86Segment *cs = &env->seg[SEG_CS];
    uint8_t *table = scratch + OWN_GDT + 0x100;

    stw_le_p(table, 0xffff);
    stl_le_p(table + 2, SCRATCH_LEGACY);
    EMIT(code, 0x0f, 0x01, 0x15);                       /* lgdt [...] */
    emit_u32(code, SCRATCH_LEGACY + OWN_GDT + 0x100);
    EMIT(code, 0x0f, 0x22, 0xc7);                       /* mov cr0, edi */
    emit_data_segments(code, env, false);
    if (cs->selector & 3) {
        const uint64_t frame[] = { offset_of_end(env), cs->selector, entry_flags(env), 0,
                                   env->seg[SEG_SS].selector };

        EMIT(code, 0xcf);                               /* iret */
        put_frame(scratch + FRAME_OUT, frame, G_N_ELEMENTS(frame), 4);
    } else {
        EMIT(code, 0x8e, 0xd5);                         /* mov ss, ebp */
        emit_far_jump(code, cs->selector, offset_of_end(env));
    }
}

/*
 * What real mode loads is base and selector; the size of code and stack stays what it was, so there
 * are 16-bit segments first.
 */
static void emit_real(Code *code, const X86CPUState *env)
{
    emit_far_jump(code, OWN_CODE16, code->len + 7);
    EMIT(code, 0x66, 0xb8, OWN_DATA16, 0, 0, 0, 0x8e, 0xd0);    /* mov eax, ...; mov ss, ax */
    EMIT(code, 0x0f, 0x22, 0xc7);                               /* mov cr0, edi */
    emit_data_segments(code, env, true);
    EMIT(code, 0x8e, 0xd5, 0x66);                               /* mov ss, bp; 32-bit jmp */
    emit_far_jump(code, env->seg[SEG_CS].selector, offset_of_end(env));
}

static void fill_legacy(const X86CPUState *env, uint8_t *scratch)
{
    const uint64_t frame[] = { SCRATCH_LEGACY + CODE + 2, OWN_CODE };
    uint8_t *gdt = scratch + OWN_GDT;
    Code code = { scratch + CODE, 0 };

    EMIT(&code, 0x48, 0xcb);                            /* retfq: to 32-bit code, next */
    EMIT(&code, 0x0f, 0x22, 0xc6);                      /* mov cr0, esi: paging and long mode off */
    EMIT(&code, 0xb8, OWN_DATA, 0, 0, 0, 0x8e, 0xd0);   /* mov eax, OWN_DATA; mov ss, eax */
    if (env->cr0 & CR0_PE) {
        emit_protected(&code, env, scratch);
    } else {
        emit_real(&code, env);
    }
    stq_le_p(gdt + OWN_CODE, 0x00cf9b000000ffff);
    stq_le_p(gdt + OWN_DATA, 0x00cf93000000ffff);
    /* Its base is where the code begins. */
    stq_le_p(gdt + OWN_CODE16, 0x00009b000000ffff | (SCRATCH_LEGACY + CODE) >> 24 << 56 |
                               ((SCRATCH_LEGACY + CODE) & 0xffffff) << 16);
    stq_le_p(gdt + OWN_DATA16, 0x000093000000ffff);
    put_frame(scratch + FRAME, frame, G_N_ELEMENTS(frame), 8);
    fill_page_tables(scratch);
}

/* ---- both ---- */

static int fill_scratch(const X86CPUState *env, uint8_t *scratch, Error **errp)
{
    if (!(env->cr0 & CR0_PE)) {
        fill_legacy(env, scratch);
        return 0;
    }
    if (is_null(&env->seg[SEG_CS])) {
        error_setg(errp, "the code segment is not usable");
        return -1;
    }
    if (put_descriptors(env, scratch, errp) < 0) {
        return -1;
    }
    if (env->efer & EFER_LMA) {
        fill_long(env, scratch);
    } else {
        fill_legacy(env, scratch);
    }
    return 0;
}

typedef struct RegisterValue {
    int regid;
    uint64_t value;
} RegisterValue;

static uc_err write_registers(const RegisterValue *values, unsigned n)
{
    uc_err err = UC_ERR_OK;

    for (unsigned i = 0; i < n && err == UC_ERR_OK; i++) {
        err = uc_reg_write(tcg.uc, values[i].regid, &values[i].value);
    }
    return err;
}

static uc_err run_long(const X86CPUState *env)
{
    uc_x86_mmr gdtr = { .base = SCRATCH_LONG, .limit = 0xffff };
    const RegisterValue values[] = {
        { UC_X86_REG_RSP, SCRATCH_LONG + FRAME },
        { UC_X86_REG_RAX, selector_of(env, SEG_DS) },
        { UC_X86_REG_RBX, selector_of(env, SEG_ES) },
        { UC_X86_REG_RCX, selector_of(env, SEG_FS) },
        { UC_X86_REG_RDX, selector_of(env, SEG_GS) },
    };
    uc_err err = uc_reg_write(tcg.uc, UC_X86_REG_GDTR, &gdtr);

    if (err == UC_ERR_OK) {
        err = write_registers(values, G_N_ELEMENTS(values));
    }
    return err != UC_ERR_OK ? err : uc_emu_start(tcg.uc, SCRATCH_LONG + CODE,
                                                 SCRATCH_LONG + CODE_END, 0, 0);
}

static uc_err run_legacy(const X86CPUState *env)
{
    uc_x86_mmr gdtr = { .base = SCRATCH_LEGACY + OWN_GDT, .limit = OWN_DATA16 + 7 };
    const RegisterValue values[] = {
        { UC_X86_REG_RSP, SCRATCH_LEGACY + FRAME },
        { UC_X86_REG_RSI, CR0_PE },
        { UC_X86_REG_RDI, env->cr0 & ~(uint64_t)CR0_PG },
        { UC_X86_REG_RBX, selector_of(env, SEG_ES) },
        { UC_X86_REG_RCX, selector_of(env, SEG_FS) },
        { UC_X86_REG_RDX, selector_of(env, SEG_GS) },
        { UC_X86_REG_RBP, selector_of(env, SEG_SS) },
        { UC_X86_REG_CR3, SCRATCH_LEGACY + TABLES },
        { UC_X86_REG_CR4, CR4_PAE },
        { UC_X86_REG_CR0, CR0_PG | CR0_PE },
    };
    uc_err err = uc_reg_write(tcg.uc, UC_X86_REG_GDTR, &gdtr);

    if (err == UC_ERR_OK) {
        err = write_registers(values, G_N_ELEMENTS(values));
    }
    return err != UC_ERR_OK ? err : uc_emu_start(tcg.uc, SCRATCH_LEGACY + CODE,
                                                 SCRATCH_LEGACY + CODE_END, 0, 0);
}

/* Whether the code came to its end; in a segment with a base the instruction pointer is less. */
static bool has_arrived(const X86CPUState *env)
{
    uint64_t rip = tcg_reg(UC_X86_REG_RIP);

    return env->efer & EFER_LMA ? rip == SCRATCH_LONG + CODE_END
                                : (uint32_t)(rip + env->seg[SEG_CS].base) ==
                                  SCRATCH_LEGACY + CODE_END;
}

int tcg_enter(const X86CPUState *env, Error **errp)
{
    g_autofree uint8_t *memory = g_malloc0(SCRATCH_BYTES + TARGET_PAGE_SIZE);
    uint8_t *scratch = (uint8_t *)(((uintptr_t)memory + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK);
    bool long_mode = env->efer & EFER_LMA;
    uint64_t where = long_mode ? SCRATCH_LONG : SCRATCH_LEGACY;
    uc_err err;

    if (fill_scratch(env, scratch, errp) < 0) {
        return -1;
    }
    err = uc_mem_map_ptr(tcg.uc, where, SCRATCH_BYTES, UC_PROT_ALL, scratch);
    if (err == UC_ERR_OK) {
        err = long_mode ? run_long(env) : run_legacy(env);
        bool there = has_arrived(env);
        uc_err unmapped = uc_mem_unmap(tcg.uc, where, SCRATCH_BYTES);

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
    tcg.seg_protected = env->cr0 & CR0_PE;
    return 0;
}
