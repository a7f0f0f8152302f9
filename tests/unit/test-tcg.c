/*
 * The tcg accelerator: the common cases, and what it refuses.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <json-c/json.h>
#include <linux/kvm.h>
#include <sched.h>
#include <string.h>
#include "accel/tcg/tcg-int.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "tests/unit/accel-harness.h"
#include "util/bswap.h"

static const uint8_t spin[] = { 0xeb, 0xfe };

static void test_refusals(void)
{
    static const struct {
        const char *cpu_model, *message;
    } cases[] = {
        { "host", "CPU model 'host' requires KVM" },
        { "qemu64,+avx",
          "-cpu qemu64,+avx: the tcg accelerator cannot change the features of a model" },
        { "z80", "unable to find CPU model 'z80' (there are: qemu64, kvm64, phenom, core2duo, Conroe, "
                 "Penryn, Nehalem, Westmere, max)" },
    };
    struct json_object *opts = json_object_new_object();
    Error *err = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpint(accel_tcg.init(NULL, cases[i].cpu_model, 1, &err), <, 0);
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].message);
        g_clear_pointer(&err, error_free);
    }
    json_object_object_add(opts, "thread", json_object_new_string("multi"));
    g_assert_cmpint(accel_tcg.init(opts, NULL, 1, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Property 'thread' not found");
    error_free(err);
    json_object_put(opts);
}

static void expect_refused(CPUState *cpu, const char *message)
{
    Error *err = NULL;

    g_assert_cmpint(cpu_push_state(cpu, &err), <, 0);
    if (!strstr(error_get_pretty(err), message)) {
        g_error("'%s' is not in '%s'", message, error_get_pretty(err));
    }
    error_free(err);
}

/* States that came from an accelerator that has more. */
static void test_cannot_carry(void)
{
    CPUState *cpu = cpu_get(0);
    X86CPUState *env = &cpu->env;

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->cr4 |= 1 << 18;
    expect_refused(cpu, "processor features (CR4 0x40000)");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->interrupt_injected = 1;
    expect_refused(cpu, "the guest uses interrupts (one is being delivered)");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->has_lapic = 1;
    stl_le_p(env->lapic + 0xf0, 0x1ff);
    stl_le_p(env->lapic + 0x320, 0x20030);
    expect_refused(cpu, "the local APIC's timer");
    stl_le_p(env->lapic + 0x320, 0x30030);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmpint(env->has_lapic, ==, 1);
    g_assert_cmphex(ldl_le_p(env->lapic + 0xf0), ==, 0x1ff);

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->n_msrs = 1;
    env->msrs[0] = (X86MSR) { 0x4b564d01, 0x5001 };
    expect_refused(cpu, "the guest uses kvmclock");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->mp_state = 1;
    expect_refused(cpu, "more than one processor");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->seg[SEG_DS].selector = 0x2f;
    expect_refused(cpu, "local descriptor table (selector 0x2f)");
    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    harness_push(cpu);
}

static void test_vm_state(void)
{
    g_autofree AccelVMPart *parts = g_new0(AccelVMPart, VM_PARTS);
    g_autofree AccelVMPart *again = g_new0(AccelVMPart, VM_PARTS);
    struct kvm_pic_state pic = { .imr = 0 };
    struct kvm_ioapic_state ioapic = { .id = 3 };
    Error *err = NULL;

    parts[VM_PIC_MASTER].len = sizeof(pic);
    memcpy(parts[VM_PIC_MASTER].data, &pic, sizeof(pic));
    parts[VM_IOAPIC].len = sizeof(ioapic);
    for (int i = 0; i < KVM_IOAPIC_NUM_PINS; i++) {
        ioapic.redirtbl[i].bits = 0x10000;
    }
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    accel_tcg.put_vm_state(parts, &error_abort);
    accel_tcg.get_vm_state(again, &error_abort);
    g_assert_cmpmem(again[VM_IOAPIC].data, again[VM_IOAPIC].len, &ioapic, sizeof(ioapic));

    ioapic.redirtbl[4].bits = 0x34;
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    g_assert_cmpint(accel_tcg.put_vm_state(parts, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "the guest uses interrupts (the I/O APIC is "
                    "programmed), which the tcg accelerator does not have");
    g_clear_pointer(&err, error_free);

    ioapic.redirtbl[4].bits = 0x10000;
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    pic.irq_base = 0x20;
    memcpy(parts[VM_PIC_MASTER].data, &pic, sizeof(pic));
    g_assert_cmpint(accel_tcg.put_vm_state(parts, &err), <, 0);
    g_assert_nonnull(strstr(error_get_pretty(err), "the 8259 is programmed"));
    error_free(err);
}

/* HLT in ring 0 sleeps until a new state comes, and a saved one sleeps on. */
static void test_halt(void)
{
    /* mov [rdi], rdi; l: hlt; jmp l */
    static const uint8_t code[] = { 0x48, 0x89, 0x3f, 0xf4, 0xeb, 0xfd };
    CPUState *cpu = cpu_get(0);

    harness_load_code_ring0(cpu, 0x100000, code, sizeof(code));
    cpu->env.regs[R_RDI] = 0x200000;
    harness_push(cpu);
    cpus_resume_all();
    int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    while (!cpu->halted) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        bql_unlock();
        sched_yield();
        bql_lock();
    }
    cpus_pause_all();
    harness_sync(cpu);
    g_assert_cmpint(cpu->env.mp_state, ==, 3);
    g_assert_cmphex(cpu->env.rip, ==, 0x100004);
    g_assert_cmpint(cpu->env.seg[SEG_CS].dpl, ==, 0);
    g_assert_cmphex(ldq_le_p(harness_low->host + 0x200000), ==, 0x200000);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmpint(cpu->env.mp_state, ==, 3);
}

/* Outside long mode a state is kept, not run. */
static void test_real_mode(void)
{
    CPUState *cpu = cpu_get(0);

    x86_cpu_state_reset(&cpu->env, true);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmphex(cpu->env.rip, ==, 0xfff0);
    g_assert_nonnull(tcg.cannot_run);
    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    harness_push(cpu);
    g_assert_null(tcg.cannot_run);
}

/* A guest that loads segments by itself is understood by its own table. */
static void test_guest_segments(void)
{
    /* mov es, eax; xor ecx, ecx; mov gs, ecx; l: jmp l */
    static const uint8_t code[] = { 0x8e, 0xc0, 0x31, 0xc9, 0x8e, 0xe9, 0xeb, 0xfe };
    CPUState *cpu = cpu_get(0);
    X86CPUState *env = &cpu->env;

    stq_le_p(harness_low->host + 0x300058, 0x00cff3000000ffff);
    harness_load_code(cpu, 0x100000, code, sizeof(code));
    env->gdt = (X86Table) { 0x300000, 0x5f };
    env->regs[R_RAX] = 0x5b;
    harness_push(cpu);
    int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        cpus_resume_all();
        bql_unlock();
        sched_yield();
        bql_lock();
        cpus_pause_all();
        harness_sync(cpu);
    } while (env->rip != 0x100006);
    g_assert_cmphex(env->seg[SEG_ES].selector, ==, 0x5b);
    g_assert_cmphex(env->seg[SEG_ES].limit, ==, 0xffffffff);
    g_assert_cmpint(env->seg[SEG_ES].dpl, ==, 3);
    g_assert_cmpint(env->seg[SEG_ES].unusable, ==, 0);
    g_assert_cmpint(env->seg[SEG_GS].unusable, ==, 1);
    g_assert_cmpint(env->seg[SEG_SS].dpl, ==, 3);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmphex(env->seg[SEG_ES].selector, ==, 0x5b);
    g_assert_cmphex(env->seg[SEG_GS].selector, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    test_refusals();
    harness_add_cases(&accel_tcg, 1);
    g_test_add_func("/tcg/cannot-carry", test_cannot_carry);
    g_test_add_func("/tcg/vm-state", test_vm_state);
    g_test_add_func("/tcg/halt", test_halt);
    g_test_add_func("/tcg/real-mode", test_real_mode);
    g_test_add_func("/tcg/guest-segments", test_guest_segments);
    int ret = g_test_run();
    harness_destroy();
    bql_unlock();
    return ret;
}
