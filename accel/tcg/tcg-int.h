/*
 * What the files of accel/tcg/ share: the one vCPU and its Unicorn engine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef ACCEL_TCG_INT_H
#define ACCEL_TCG_INT_H

#include <unicorn/unicorn.h>
#include "system/accel.h"

/* Guest physical addresses that the engine knows: 40 bits. */
#define TCG_PHYS_END (1ull << 40)

#define CR0_PE 1u
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LMA (1u << 10)
#define RFLAGS_VM (1u << 17)

typedef struct TCG {
    int model;                  /* UC_CPU_X86_... */
    GArray *ram;                /* of RAMRange */

    uc_engine *uc;              /* NULL until a state was given */
    GArray *gaps;               /* of TCGGap: everything that is not RAM */
    /* Not NULL: the state in env is one that cannot run, for this reason; env is kept as it is. */
    char *cannot_run;
    bool halted;                /* after HLT; nothing but a new state ends that */
    X86Segment seg[SEG_COUNT];  /* as last known: the engine tells only selectors */
    bool seg_protected;         /* they are those of protected mode (or long mode) */
    int exception;              /* vector that the engine met and cannot deliver, or -1 */

    /* Only the vCPU's thread touches these. */
    CPUState *running;          /* the vCPU while it is in uc_emu_start(), else NULL */
    bool stopped;               /* it was left for an exit_request, before the block at RIP */

    AccelVMPart vm_state[VM_PARTS];
} TCG;

typedef struct TCGGap {
    uint64_t start, size;
} TCGGap;

extern TCG tcg;

/*
 * engine.c: a fresh engine with the machine's ports, which sets tcg.uc; then its memory and MMIO.
 * In between there is room for tcg_enter().
 */
int tcg_engine_open(Error **errp);
int tcg_engine_map(Error **errp);
void tcg_engine_close(void);

/*
 * enter.c: bring a fresh engine without memory into the mode, segments and privilege level of @env;
 * EFER.LMA and CR0 but for PG are as there. Everything else must be set after this.
 */
int tcg_enter(const X86CPUState *env, Error **errp);

/* segments.c */
/* Fill env->seg, once env's control registers and descriptor tables are known. */
void tcg_read_segments(X86CPUState *env);
/* Whether real mode could have loaded it. */
bool tcg_segment_is_real(const X86Segment *seg);
/* A segment's attributes as bits 8 to 23 of a descriptor's second word. */
uint32_t tcg_segment_flags(const X86Segment *seg);
void tcg_segment_from_flags(X86Segment *seg, uint32_t flags);

/* state.c */
int tcg_get_state(CPUState *cpu, Error **errp);
int tcg_put_state(CPUState *cpu, Error **errp);
/* Whether the engine stands behind a HLT in ring 0. */
bool tcg_stands_after_hlt(void);
uint64_t tcg_reg(int regid);

/* carry.c: states that came from elsewhere. */
/* Whether a vCPU's state can go on without what the engine lacks: interrupts, AVX, kvmclock. */
int tcg_can_carry(const X86CPUState *env, Error **errp);
int tcg_can_carry_vm(const AccelVMPart parts[VM_PARTS], Error **errp);

#endif
