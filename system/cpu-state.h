/*
 * Architectural state of an x86 vCPU and of the interrupt hardware beside it, independent of the
 * accelerator that runs it: what an accelerator fills in, the registers command prints, a boot
 * protocol sets up and the vmstate tables of hw/x86/ carry.
 *
 * Layouts of the opaque parts: xsave is the architecture's XSAVE area in standard format; lapic the
 * local APIC's register page (1024 bytes, register N at N * 16).
 *
 * Parts that are absent (xsave_len, n_msrs or has_lapic is 0, an MSR that msrs does not name) mean
 * the state after power-on when they are given to an accelerator.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_CPU_STATE_H
#define SYSTEM_CPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

enum { R_RAX, R_RCX, R_RDX, R_RBX, R_RSP, R_RBP, R_RSI, R_RDI, R_R8, R_R9, R_R10, R_R11, R_R12,
       R_R13, R_R14, R_R15, R_COUNT };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDT, SEG_TR, SEG_COUNT };

#define CPU_XSAVE_BYTES 16384
#define CPU_MSRS_MAX 512
#define CPU_LAPIC_BYTES 1024

typedef struct X86Segment {
    uint64_t base;
    uint32_t limit;             /* in bytes - 1, granularity applied */
    uint16_t selector;
    uint8_t type, s, dpl, present, avl, l, db, g, unusable;
} X86Segment;

typedef struct X86Table {
    uint64_t base;
    uint16_t limit;
} X86Table;

typedef struct X86MSR {
    uint32_t index;
    uint64_t value;
} X86MSR;

typedef struct X86CPUState {
    uint64_t regs[R_COUNT];
    uint64_t rip, rflags;
    X86Segment seg[SEG_COUNT];
    X86Table gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base, xcr0;
    uint64_t interrupt_bitmap[4];       /* a pending external interrupt vector, one bit */
    uint64_t dr[4], dr6, dr7;
    uint32_t mp_state;                  /* KVM's numbers: 0 runnable, 1 uninitialized, 3 halted */
    uint64_t tsc;
    uint32_t tsc_khz;                   /* its frequency; 0 when not known */

    /* Pending events, as KVM_GET_VCPU_EVENTS names them. */
    uint8_t exception_injected, exception_nr, exception_has_error_code, exception_pending;
    uint32_t exception_error_code;
    uint64_t exception_payload;
    uint8_t exception_has_payload;
    uint8_t interrupt_injected, interrupt_nr, interrupt_soft, interrupt_shadow;
    uint8_t nmi_injected, nmi_pending, nmi_masked;
    uint32_t sipi_vector;
    uint8_t smi_smm, smi_pending, smi_inside_nmi, smi_latched_init, triple_fault_pending;
    uint32_t events_flags;

    uint32_t xsave_len;                 /* bytes used of xsave, 0 when not known */
    uint8_t xsave[CPU_XSAVE_BYTES];
    uint32_t n_msrs;
    X86MSR msrs[CPU_MSRS_MAX];
    uint8_t has_lapic;
    uint8_t lapic[CPU_LAPIC_BYTES];
} X86CPUState;

/*
 * State at power-on or INIT: real mode at F000:FFF0; @bsp: runnable, else waiting for SIPI. The
 * local APIC and the MSRs are left absent: the accelerator knows how they look.
 */
void x86_cpu_state_reset(X86CPUState *env, bool bsp);

/*
 * The lines of HMP's "info registers" for one vCPU, without the heading that names it. Caller
 * frees.
 */
char *x86_cpu_state_describe(const X86CPUState *env);

#endif
