/*
 * The processor as it comes out of reset, by the tables of the architecture manual, and the
 * register listing that people know from QEMU's monitor: 32-bit names and widths until the code
 * segment is a 64-bit one.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "system/cpu-state.h"
#include "util/bswap.h"

/* Offsets in the XSAVE area: the legacy region and the header behind it. */
enum {
    XSAVE_FCW = 0, XSAVE_FSW = 2, XSAVE_FTW = 4, XSAVE_MXCSR = 24, XSAVE_ST0 = 32, XSAVE_XMM0 = 160,
    XSAVE_XSTATE_BV = 512, XSAVE_LEGACY_BYTES = 576,
};
#define XSTATE_X87_SSE 3

#define EFER_LMA (1u << 10)
#define CR0_PE 1u

#define APIC_BASE_DEFAULT 0xfee00000u
#define APIC_BASE_BSP 0x100u
#define APIC_BASE_ENABLE 0x800u

static X86Segment reset_segment(uint8_t type, uint8_t s)
{
    return (X86Segment){ .limit = 0xffff, .type = type, .s = s, .present = 1 };
}

static void reset_fpu(X86CPUState *env)
{
    stw_le_p(env->xsave + XSAVE_FCW, 0x37f);
    stl_le_p(env->xsave + XSAVE_MXCSR, 0x1f80);
    stq_le_p(env->xsave + XSAVE_XSTATE_BV, XSTATE_X87_SSE);
    env->xsave_len = XSAVE_LEGACY_BYTES;
}

void x86_cpu_state_reset(X86CPUState *env, bool bsp)
{
    memset(env, 0, sizeof(*env));

    env->regs[R_RDX] = 0x600;
    env->rip = 0xfff0;
    env->rflags = 2;
    for (int i = 0; i < SEG_LDT; i++) {
        env->seg[i] = reset_segment(3, 1);
    }
    env->seg[SEG_CS] = reset_segment(11, 1);
    env->seg[SEG_CS].selector = 0xf000;
    env->seg[SEG_CS].base = 0xffff0000;
    env->seg[SEG_LDT] = reset_segment(2, 0);
    env->seg[SEG_TR] = reset_segment(11, 0);
    env->gdt.limit = 0xffff;
    env->idt.limit = 0xffff;
    env->cr0 = 0x60000010;
    env->xcr0 = 1;
    env->dr6 = 0xffff0ff0;
    env->dr7 = 0x400;
    env->apic_base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (bsp ? APIC_BASE_BSP : 0);
    env->mp_state = bsp ? 0 : 1;
    reset_fpu(env);
}

static bool in_64bit_code(const X86CPUState *env)
{
    return (env->efer & EFER_LMA) && env->seg[SEG_CS].l;
}

static void describe_general(GString *out, const X86CPUState *env)
{
    static const char *const wide[R_COUNT] = { "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP",
        "RSP", "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15" };
    static const uint8_t order[R_COUNT] = { R_RAX, R_RBX, R_RCX, R_RDX, R_RSI, R_RDI, R_RBP, R_RSP,
        R_R8, R_R9, R_R10, R_R11, R_R12, R_R13, R_R14, R_R15 };
    bool is_64 = in_64bit_code(env);

    for (int i = 0; i < (is_64 ? R_COUNT : 8); i++) {
        uint64_t value = env->regs[order[i]];
        const char *end = i % 4 == 3 ? "\n" : " ";

        if (is_64) {
            g_string_append_printf(out, "%s=%016" PRIx64 "%s", wide[i], value, end);
        } else {
            g_string_append_printf(out, "E%s=%08x%s", wide[i] + 1, (uint32_t)value, end);
        }
    }
}

static void describe_flags(GString *out, const X86CPUState *env)
{
    static const struct { uint16_t bit; char letter; } flags[] = {
        { 0x400, 'D' }, { 0x800, 'O' }, { 0x80, 'S' }, { 0x40, 'Z' }, { 0x10, 'A' }, { 4, 'P' },
        { 1, 'C' },
    };

    if (in_64bit_code(env)) {
        g_string_append_printf(out, "RIP=%016" PRIx64 " RFL=%08x [", env->rip,
                               (uint32_t)env->rflags);
    } else {
        g_string_append_printf(out, "EIP=%08x EFL=%08x [", (uint32_t)env->rip,
                               (uint32_t)env->rflags);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        g_string_append_c(out, env->rflags & flags[i].bit ? flags[i].letter : '-');
    }
    g_string_append_printf(out, "] CPL=%d II=%d A20=1 SMM=%d HLT=%d\n", env->seg[SEG_SS].dpl,
                           env->interrupt_shadow != 0, env->smi_smm, env->mp_state == 3);
}

/* What a descriptor is: code, data, or one of the system types. */
static void describe_segment_type(GString *out, const X86Segment *seg, bool long_mode)
{
    static const char *const system_16_32[16] = { "Reserved", "TSS16-avl", "LDT", "TSS16-busy",
        "CallGate16", "TaskGate", "IntGate16", "TrapGate16", "Reserved", "TSS32-avl", "Reserved",
        "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32" };
    static const char *const system_64[16] = { "<hiword>", "Reserved", "LDT", "Reserved",
        "Reserved", "Reserved", "Reserved", "Reserved", "Reserved", "TSS64-avl", "Reserved",
        "TSS64-busy", "CallGate64", "Reserved", "IntGate64", "TrapGate64" };
    char accessed = seg->type & 1 ? 'A' : '-';

    g_string_append_printf(out, " DPL=%d ", seg->dpl);
    if (!seg->s) {
        g_string_append(out, (long_mode ? system_64 : system_16_32)[seg->type & 15]);
    } else if (seg->type & 8) {
        g_string_append_printf(out, "%s [%c%c%c]", seg->l ? "CS64" : seg->db ? "CS32" : "CS16",
                               seg->type & 4 ? 'C' : '-', seg->type & 2 ? 'R' : '-', accessed);
    } else {
        g_string_append_printf(out, "%s [%c%c%c]", seg->db || long_mode ? "DS  " : "DS16",
                               seg->type & 4 ? 'E' : '-', seg->type & 2 ? 'W' : '-', accessed);
    }
}

static void describe_segments(GString *out, const X86CPUState *env)
{
    static const char *const names[SEG_COUNT] = { "ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR" };
    bool long_mode = env->efer & EFER_LMA;

    for (int i = 0; i < SEG_COUNT; i++) {
        const X86Segment *seg = &env->seg[i];
        bool wide = i < SEG_LDT ? in_64bit_code(env) : long_mode;
        uint32_t flags = seg->type << 8 | seg->s << 12 | seg->dpl << 13 | seg->present << 15 |
                         seg->avl << 20 | seg->l << 21 | seg->db << 22 | (uint32_t)seg->g << 23;

        g_string_append_printf(out, "%-3s=%04x %0*" PRIx64 " %08x %08x", names[i], seg->selector,
                               wide ? 16 : 8, seg->base, seg->limit, flags);
        if ((env->cr0 & CR0_PE) && seg->present && !seg->unusable) {
            describe_segment_type(out, seg, long_mode);
        }
        g_string_append_c(out, '\n');
    }
    g_string_append_printf(out, "GDT=     %0*" PRIx64 " %08x\n", long_mode ? 16 : 8, env->gdt.base,
                           env->gdt.limit);
    g_string_append_printf(out, "IDT=     %0*" PRIx64 " %08x\n", long_mode ? 16 : 8, env->idt.base,
                           env->idt.limit);
}

static void describe_control(GString *out, const X86CPUState *env)
{
    int width = env->efer & EFER_LMA ? 16 : 8;

    g_string_append_printf(out, "CR0=%08x CR2=%0*" PRIx64 " CR3=%0*" PRIx64 " CR4=%08x\n",
                           (uint32_t)env->cr0, width, env->cr2, width, env->cr3,
                           (uint32_t)env->cr4);
    for (int i = 0; i < 4; i++) {
        g_string_append_printf(out, "DR%d=%016" PRIx64 " ", i, env->dr[i]);
    }
    g_string_append_printf(out, "\nDR6=%016" PRIx64 " DR7=%016" PRIx64 "\n", env->dr6, env->dr7);
    g_string_append_printf(out, "EFER=%016" PRIx64 "\n", env->efer);
}

static void describe_fpu(GString *out, const X86CPUState *env)
{
    unsigned status = lduw_le_p(env->xsave + XSAVE_FSW);

    g_string_append_printf(out, "FCW=%04x FSW=%04x [ST=%u] FTW=%02x MXCSR=%08x\n",
                           lduw_le_p(env->xsave + XSAVE_FCW), status, status >> 11 & 7,
                           env->xsave[XSAVE_FTW], ldl_le_p(env->xsave + XSAVE_MXCSR));
    for (int i = 0; i < 8; i++) {
        const uint8_t *st = env->xsave + XSAVE_ST0 + i * 16;

        g_string_append_printf(out, "FPR%d=%016" PRIx64 " %04x%s", i, ldq_le_p(st),
                               lduw_le_p(st + 8), i % 2 ? "\n" : " ");
    }
    for (int i = 0; i < (in_64bit_code(env) ? 16 : 8); i++) {
        const uint8_t *xmm = env->xsave + XSAVE_XMM0 + i * 16;

        g_string_append_printf(out, "XMM%02d=%016" PRIx64 " %016" PRIx64 "%s", i,
                               ldq_le_p(xmm + 8), ldq_le_p(xmm), i % 2 ? "\n" : " ");
    }
}

char *x86_cpu_state_describe(const X86CPUState *env)
{
    GString *out = g_string_new(NULL);

    describe_general(out, env);
    describe_flags(out, env);
    describe_segments(out, env);
    describe_control(out, env);
    describe_fpu(out, env);
    return g_string_free(out, FALSE);
}
