/*
 * The vCPU's state, between Unicorn's registers and X86CPUState.
 *
 * What the engine has no register for (the local APIC, MSRs that it does not know, CR8) stays in
 * env and is carried along untouched.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include <x86intrin.h>
#include "accel/tcg/tcg-int.h"
#include "system/page-walk.h"
#include "util/bswap.h"

#define MSR_EFER 0xc0000080

/* The XSAVE area in standard format: the FXSAVE image and the header. */
enum {
    XSAVE_FCW = 0, XSAVE_FSW = 2, XSAVE_FTW = 4, XSAVE_FOP = 6, XSAVE_FIP = 8, XSAVE_FDP = 16,
    XSAVE_MXCSR = 24, XSAVE_ST = 32, XSAVE_XMM = 160, XSAVE_XSTATE_BV = 512, XSAVE_BYTES = 576,
};
enum { XSTATE_X87 = 1, XSTATE_SSE = 2 };

typedef struct Register {
    int regid;
    size_t offset;              /* in X86CPUState, a uint64_t */
} Register;

static const Register registers[] = {
    { UC_X86_REG_RAX, offsetof(X86CPUState, regs[R_RAX]) },
    { UC_X86_REG_RCX, offsetof(X86CPUState, regs[R_RCX]) },
    { UC_X86_REG_RDX, offsetof(X86CPUState, regs[R_RDX]) },
    { UC_X86_REG_RBX, offsetof(X86CPUState, regs[R_RBX]) },
    { UC_X86_REG_RSP, offsetof(X86CPUState, regs[R_RSP]) },
    { UC_X86_REG_RBP, offsetof(X86CPUState, regs[R_RBP]) },
    { UC_X86_REG_RSI, offsetof(X86CPUState, regs[R_RSI]) },
    { UC_X86_REG_RDI, offsetof(X86CPUState, regs[R_RDI]) },
    { UC_X86_REG_R8, offsetof(X86CPUState, regs[R_R8]) },
    { UC_X86_REG_R9, offsetof(X86CPUState, regs[R_R9]) },
    { UC_X86_REG_R10, offsetof(X86CPUState, regs[R_R10]) },
    { UC_X86_REG_R11, offsetof(X86CPUState, regs[R_R11]) },
    { UC_X86_REG_R12, offsetof(X86CPUState, regs[R_R12]) },
    { UC_X86_REG_R13, offsetof(X86CPUState, regs[R_R13]) },
    { UC_X86_REG_R14, offsetof(X86CPUState, regs[R_R14]) },
    { UC_X86_REG_R15, offsetof(X86CPUState, regs[R_R15]) },
    { UC_X86_REG_RIP, offsetof(X86CPUState, rip) },
    { UC_X86_REG_RFLAGS, offsetof(X86CPUState, rflags) },
    { UC_X86_REG_CR2, offsetof(X86CPUState, cr2) },
    { UC_X86_REG_DR0, offsetof(X86CPUState, dr[0]) },
    { UC_X86_REG_DR1, offsetof(X86CPUState, dr[1]) },
    { UC_X86_REG_DR2, offsetof(X86CPUState, dr[2]) },
    { UC_X86_REG_DR3, offsetof(X86CPUState, dr[3]) },
    { UC_X86_REG_DR6, offsetof(X86CPUState, dr6) },
    { UC_X86_REG_DR7, offsetof(X86CPUState, dr7) },
};

/* MSRs that the engine keeps. */
static const uint32_t known_msrs[] = {
    0x174, 0x175, 0x176, 0x277, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102,
    0xc0000103,
};

static void note(uc_err err, uc_err *worst)
{
    if (*worst == UC_ERR_OK) {
        *worst = err;
    }
}

uint64_t tcg_reg(int regid)
{
    uint64_t value = 0;

    uc_reg_read(tcg.uc, regid, &value);
    return value;
}

static void put_reg(int regid, uint64_t value, uc_err *worst)
{
    note(uc_reg_write(tcg.uc, regid, &value), worst);
}

static uint64_t get_msr(uint32_t index)
{
    uc_x86_msr msr = { .rid = index };

    uc_reg_read(tcg.uc, UC_X86_REG_MSR, &msr);
    return msr.value;
}

static void put_msr(uint32_t index, uint64_t value, uc_err *worst)
{
    uc_x86_msr msr = { .rid = index, .value = value };

    note(uc_reg_write(tcg.uc, UC_X86_REG_MSR, &msr), worst);
}

/* ---- x87 and SSE ---- */

static void put_x87(const uint8_t *area, uc_err *worst)
{
    unsigned top = lduw_le_p(area + XSAVE_FSW) >> 11 & 7, tags = 0;

    put_reg(UC_X86_REG_FPCW, lduw_le_p(area + XSAVE_FCW), worst);
    put_reg(UC_X86_REG_FPSW, lduw_le_p(area + XSAVE_FSW), worst);
    put_reg(UC_X86_REG_FOP, lduw_le_p(area + XSAVE_FOP), worst);
    put_reg(UC_X86_REG_FIP, ldq_le_p(area + XSAVE_FIP), worst);
    put_reg(UC_X86_REG_FDP, ldq_le_p(area + XSAVE_FDP), worst);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t value[16] = { 0 };

        memcpy(value, area + XSAVE_ST + 16 * i, 10);
        note(uc_reg_write(tcg.uc, UC_X86_REG_FP0 + ((top + i) & 7), value), worst);
        /* One bit a register, set when it holds something; the engine wants two, 3 for empty. */
        tags |= area[XSAVE_FTW] >> i & 1 ? 0 : 3u << (2 * i);
    }
    put_reg(UC_X86_REG_FPTAG, tags, worst);
}

static void put_fpu(const X86CPUState *env, uc_err *worst)
{
    uint8_t area[XSAVE_BYTES] = { 0 };
    uint64_t present = XSTATE_X87 | XSTATE_SSE;

    if (env->xsave_len >= XSAVE_BYTES) {
        memcpy(area, env->xsave, XSAVE_BYTES);
        present = ldq_le_p(area + XSAVE_XSTATE_BV);
    } else {
        stl_le_p(area + XSAVE_MXCSR, 0x1f80);
        present = 0;
    }
    if (!(present & XSTATE_X87)) {
        memset(area, 0, XSAVE_MXCSR);
        memset(area + XSAVE_ST, 0, XSAVE_XMM - XSAVE_ST);
        stw_le_p(area + XSAVE_FCW, 0x37f);
    }
    if (!(present & XSTATE_SSE)) {
        memset(area + XSAVE_XMM, 0, 256);
    }
    put_x87(area, worst);
    put_reg(UC_X86_REG_MXCSR, ldl_le_p(area + XSAVE_MXCSR) & 0xffff, worst);
    for (unsigned i = 0; i < 16; i++) {
        note(uc_reg_write(tcg.uc, UC_X86_REG_XMM0 + i, area + XSAVE_XMM + 16 * i), worst);
    }
}

static void get_fpu(X86CPUState *env)
{
    uint8_t *area = env->xsave;
    unsigned status = tcg_reg(UC_X86_REG_FPSW) & 0xffff, top = status >> 11 & 7;
    unsigned tags = tcg_reg(UC_X86_REG_FPTAG) & 0xffff;

    if (env->xsave_len < XSAVE_BYTES) {
        memset(area, 0, sizeof(env->xsave));
        env->xsave_len = XSAVE_BYTES;
    }
    stw_le_p(area + XSAVE_FCW, tcg_reg(UC_X86_REG_FPCW));
    stw_le_p(area + XSAVE_FSW, status);
    stw_le_p(area + XSAVE_FTW, 0);
    stw_le_p(area + XSAVE_FOP, tcg_reg(UC_X86_REG_FOP));
    stq_le_p(area + XSAVE_FIP, tcg_reg(UC_X86_REG_FIP));
    stq_le_p(area + XSAVE_FDP, tcg_reg(UC_X86_REG_FDP));
    for (unsigned i = 0; i < 8; i++) {
        uint8_t value[16] = { 0 };

        uc_reg_read(tcg.uc, UC_X86_REG_FP0 + ((top + i) & 7), value);
        memset(area + XSAVE_ST + 16 * i, 0, 16);
        memcpy(area + XSAVE_ST + 16 * i, value, 10);
        area[XSAVE_FTW] |= (tags >> (2 * i) & 3) == 3 ? 0 : 1 << i;
    }
    stl_le_p(area + XSAVE_MXCSR, tcg_reg(UC_X86_REG_MXCSR));
    for (unsigned i = 0; i < 16; i++) {
        uc_reg_read(tcg.uc, UC_X86_REG_XMM0 + i, area + XSAVE_XMM + 16 * i);
    }
    stq_le_p(area + XSAVE_XSTATE_BV,
             ldq_le_p(area + XSAVE_XSTATE_BV) | XSTATE_X87 | XSTATE_SSE);
}

/* ---- tables and control registers ---- */

static void put_table(int regid, const X86Table *table, uc_err *worst)
{
    uc_x86_mmr mmr = { .base = table->base, .limit = table->limit };

    note(uc_reg_write(tcg.uc, regid, &mmr), worst);
}

static void put_system_segment(int regid, const X86Segment *seg, uc_err *worst)
{
    uc_x86_mmr mmr = { .selector = seg->selector, .base = seg->base, .limit = seg->limit,
                       .flags = tcg_segment_flags(seg) };

    note(uc_reg_write(tcg.uc, regid, &mmr), worst);
}

static X86Table get_table(int regid)
{
    uc_x86_mmr mmr = { 0 };

    uc_reg_read(tcg.uc, regid, &mmr);
    return (X86Table) { mmr.base, mmr.limit };
}

static void get_system_segment(int regid, X86Segment *seg)
{
    uc_x86_mmr mmr = { 0 };

    uc_reg_read(tcg.uc, regid, &mmr);
    *seg = (X86Segment) { .base = mmr.base, .limit = mmr.limit, .selector = mmr.selector };
    tcg_segment_from_flags(seg, mmr.flags);
}

static void get_control(X86CPUState *env)
{
    env->cr0 = tcg_reg(UC_X86_REG_CR0);
    env->cr3 = tcg_reg(UC_X86_REG_CR3);
    env->cr4 = tcg_reg(UC_X86_REG_CR4);
    env->efer = get_msr(MSR_EFER);
}

bool tcg_stands_after_hlt(void)
{
    g_autofree X86CPUState *env = g_new0(X86CPUState, 1);
    uint64_t rip = tcg_reg(UC_X86_REG_RIP);
    uint8_t before = 0;

    get_control(env);
    env->gdt = get_table(UC_X86_REG_GDTR);
    tcg_read_segments(env);
    if (!(env->efer & EFER_LMA)) {
        rip = (uint32_t)(rip + env->seg[SEG_CS].base);
    }
    return (!(env->cr0 & CR0_PE) || (env->seg[SEG_CS].selector & 3) == 0) &&
           page_walk_read(env, rip - 1, &before, 1) == 0 && before == 0xf4;
}

/* ---- all of it ---- */

static X86MSR *msr_slot(X86CPUState *env, uint32_t index)
{
    for (unsigned i = 0; i < env->n_msrs; i++) {
        if (env->msrs[i].index == index) {
            return &env->msrs[i];
        }
    }
    if (env->n_msrs == CPU_MSRS_MAX) {
        return NULL;
    }
    env->msrs[env->n_msrs].index = index;
    return &env->msrs[env->n_msrs++];
}

int tcg_get_state(CPUState *cpu, Error **errp)
{
    X86CPUState *env = &cpu->env;

    if (tcg.cannot_run || !tcg.uc) {
        return 0;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(registers); i++) {
        *(uint64_t *)((char *)env + registers[i].offset) = tcg_reg(registers[i].regid);
    }
    get_control(env);
    env->gdt = get_table(UC_X86_REG_GDTR);
    env->idt = get_table(UC_X86_REG_IDTR);
    tcg_read_segments(env);
    get_system_segment(UC_X86_REG_LDTR, &env->seg[SEG_LDT]);
    get_system_segment(UC_X86_REG_TR, &env->seg[SEG_TR]);
    get_fpu(env);
    for (unsigned i = 0; i < G_N_ELEMENTS(known_msrs); i++) {
        X86MSR *msr = msr_slot(env, known_msrs[i]);

        if (msr) {
            msr->value = get_msr(known_msrs[i]);
        }
    }
    env->mp_state = tcg.halted ? 3 : 0;
    env->tsc = __rdtsc();       /* what the guest reads */
    return 0;
}

static uc_err put_all(const X86CPUState *env)
{
    uc_err worst = UC_ERR_OK;

    put_msr(MSR_EFER, env->efer, &worst);
    put_reg(UC_X86_REG_CR4, env->cr4, &worst);
    put_reg(UC_X86_REG_CR3, env->cr3, &worst);
    put_reg(UC_X86_REG_CR0, env->cr0, &worst);
    put_table(UC_X86_REG_GDTR, &env->gdt, &worst);
    put_table(UC_X86_REG_IDTR, &env->idt, &worst);
    put_system_segment(UC_X86_REG_LDTR, &env->seg[SEG_LDT], &worst);
    put_system_segment(UC_X86_REG_TR, &env->seg[SEG_TR], &worst);
    put_reg(UC_X86_REG_FS_BASE, env->seg[SEG_FS].base, &worst);
    put_reg(UC_X86_REG_GS_BASE, env->seg[SEG_GS].base, &worst);
    for (unsigned i = 0; i < env->n_msrs; i++) {
        for (unsigned j = 0; j < G_N_ELEMENTS(known_msrs); j++) {
            if (env->msrs[i].index == known_msrs[j]) {
                put_msr(known_msrs[j], env->msrs[i].value, &worst);
            }
        }
    }
    put_fpu(env, &worst);
    for (unsigned i = 0; i < G_N_ELEMENTS(registers); i++) {
        put_reg(registers[i].regid, *(const uint64_t *)((const char *)env + registers[i].offset),
                &worst);
    }
    return worst;
}

/* Why the engine cannot be brought into the state's mode, or NULL. */
static const char *cannot_enter(const X86CPUState *env)
{
    if (env->efer & EFER_LMA) {
        return (env->cr0 & CR0_PE) && (env->cr0 & CR0_PG) && (env->cr4 & CR4_PAE) ? NULL
               : "in a mode that there is not";
    }
    if (env->rflags & RFLAGS_VM) {
        return "in virtual 8086 mode";
    }
    for (int i = 0; !(env->cr0 & CR0_PE) && i < SEG_LDT; i++) {
        if (!tcg_segment_is_real(&env->seg[i])) {
            /* The state at reset is such. */
            return "in real mode with segments that real mode cannot load";
        }
    }
    return NULL;
}

int tcg_put_state(CPUState *cpu, Error **errp)
{
    const X86CPUState *env = &cpu->env;
    const char *mode = cannot_enter(env);

    g_clear_pointer(&tcg.cannot_run, g_free);
    tcg.halted = false;
    if (mode) {
        /* A machine that has not been given a kernel or a state yet; it need not run. */
        tcg.cannot_run = g_strdup_printf("the vCPU is %s, where the tcg accelerator cannot run it",
                                         mode);
        tcg_engine_close();
        return 0;
    }
    if (tcg_can_carry(env, errp) < 0 || tcg_engine_open(errp) < 0) {
        return -1;
    }
    if (tcg_enter(env, errp) < 0 || tcg_engine_map(errp) < 0) {
        tcg_engine_close();
        return -1;
    }
    uc_err err = put_all(env);
    if (err == UC_ERR_OK) {
        /* From here on no address ends the emulation. */
        err = uc_ctl_exits_enable(tcg.uc);
    }
    if (err != UC_ERR_OK) {
        error_setg(errp, "the emulator does not take the registers: %s", uc_strerror(err));
        tcg_engine_close();
        return -1;
    }
    tcg.halted = env->mp_state == 3;
    return 0;
}
