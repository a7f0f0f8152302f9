/*
 * The KVM accelerator: the common cases, and what is KVM's own: options and CPU models, state of
 * the VM's devices, reset, several slots for one block.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>
#include "accel/kvm/kvm-int.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "tests/unit/accel-harness.h"

/* Odd in pages, so that a slot's log does not begin at a whole word of the block's bitmap. */
#define SLOT_BYTES (1027u * TARGET_PAGE_SIZE)

typedef struct Refusal {
    const char *key, *value;    /* an option of -accel, or NULL */
    const char *cpu_model;
    const char *message;
} Refusal;

static const Refusal refusals[] = {
    { "kernel-irqchip", "split", NULL,
      "kernel-irqchip=split is not supported, only 'on'" },
    { "dirty-tracker", "magic", NULL,
      "dirty-tracker must be 'kvm' or 'pagemap', not 'magic'" },
    { "speed", "11", NULL, "Property 'speed' not found" },
    { NULL, NULL, "z80", "unable to find CPU model 'z80' (there are: host, max, qemu64, kvm64)" },
    { NULL, NULL, "max,+flux", "-cpu: Property 'flux' not found" },
    { NULL, NULL, "max,flux=on", "-cpu: Property 'flux' not found" },
    { NULL, NULL, "max,sse=maybe", "-cpu: 'sse=maybe' must be 'on' or 'off'" },
    { NULL, NULL, "max,+vmx", "-cpu: nested virtualization ('vmx') is not supported" },
    { NULL, NULL, "qemu64,3dnow=on", "-cpu: this host's KVM does not support the feature '3dnow'" },
};

/* Before the machine exists. */
static void test_refusals(void)
{
    HARNESS_SKIP_IF_ABSENT();
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        const Refusal *r = &refusals[i];
        struct json_object *opts = json_object_new_object();
        Error *err = NULL;
        KVM saved = kvm;

        if (r->key) {
            json_object_object_add(opts, r->key, json_object_new_string(r->value));
        }
        kvm = (KVM) { .fd = -1, .vm_fd = -1 };
        g_assert_cmpint(accel_kvm.init(opts, r->cpu_model, 1, &err), <, 0);
        kvm = saved;
        g_assert_cmpstr(error_get_pretty(err), ==, r->message);
        error_free(err);
        json_object_put(opts);
    }
}

/* Models and features that must work are accepted by KVM itself. */
static void test_models(void)
{
    static const char *const models[] = { "host", "max", "qemu64", "kvm64", "max,-sse3",
                                          "qemu64,x2apic=off", "host,-avx,-xsave" };

    HARNESS_SKIP_IF_ABSENT();
    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++) {
        struct kvm_cpuid2 *saved = kvm.cpuid;
        CPUState cpu = { .apic_id = 1, .index = 1 };
        KVMVcpu vcpu = { .fd = -1 };

        kvm.cpuid = NULL;
        kvm_cpuid_init(models[i], &error_abort);
        int vm = ioctl(kvm.fd, KVM_CREATE_VM, 0);
        g_assert_cmpint(vm, >=, 0);
        g_assert_cmpint(ioctl(vm, KVM_CREATE_IRQCHIP), ==, 0);
        vcpu.fd = ioctl(vm, KVM_CREATE_VCPU, 1);
        g_assert_cmpint(vcpu.fd, >=, 0);
        cpu.accel = &vcpu;
        kvm_cpuid_set_vcpu(&cpu, &error_abort);
        close(vcpu.fd);
        close(vm);
        g_free(kvm.cpuid);
        kvm.cpuid = saved;
    }
}

static void test_vm_state(void)
{
    g_autofree AccelVMPart *parts = g_new0(AccelVMPart, VM_PARTS);
    g_autofree AccelVMPart *again = g_new0(AccelVMPart, VM_PARTS);
    struct kvm_pic_state pic;
    struct kvm_ioapic_state ioapic;
    uint64_t clock;

    HARNESS_SKIP_IF_ABSENT();
    kvm_run_state_changed(false);
    kvm_get_vm_state(parts, &error_abort);
    memcpy(&pic, parts[VM_PIC_MASTER].data, sizeof(pic));
    pic.irq_base = 0x20;
    pic.imr = 0xfb;
    memcpy(parts[VM_PIC_MASTER].data, &pic, sizeof(pic));
    memcpy(&ioapic, parts[VM_IOAPIC].data, sizeof(ioapic));
    ioapic.redirtbl[4].bits = 0x10034;
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    clock = 123456789012;
    memcpy(parts[VM_CLOCK].data, &clock, sizeof(clock));
    kvm_put_vm_state(parts, &error_abort);

    kvm_get_vm_state(again, &error_abort);
    for (int i = 0; i < VM_PARTS; i++) {
        g_assert_cmpstr(again[i].name, ==, parts[i].name);
        g_assert_cmpmem(again[i].data, again[i].len, parts[i].data, parts[i].len);
    }
    kvm_run_state_changed(true);
    kvm_run_state_changed(false);
    kvm_get_vm_state(again, &error_abort);
    memcpy(&clock, again[VM_CLOCK].data, sizeof(clock));
    g_assert_cmpuint(clock, >=, 123456789012);
    g_assert_cmpuint(clock, <, 123456789012 + 60000000000);

    parts[VM_IOAPIC].len = 3;
    Error *err = NULL;
    g_assert_cmpint(kvm_put_vm_state(parts, &err), <, 0);
    g_assert_nonnull(strstr(error_get_pretty(err), "state of 'ioapic' has 3 bytes"));
    error_free(err);

    kvm_reset();
    kvm_get_vm_state(again, &error_abort);
    memcpy(&pic, again[VM_PIC_MASTER].data, sizeof(pic));
    g_assert_cmpuint(pic.irq_base, ==, 0);
}

static void test_reset_state(void)
{
    CPUState *cpu = cpu_get(0);
    X86CPUState *env;

    HARNESS_SKIP_IF_ABSENT();
    env = &cpu->env;
    x86_cpu_state_reset(env, true);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmphex(env->rip, ==, 0xfff0);
    g_assert_cmphex(env->seg[SEG_CS].base, ==, 0xffff0000);
    g_assert_cmphex(env->cr0, ==, 0x60000010);
    for (unsigned i = 0; i < env->n_msrs; i++) {
        if (env->msrs[i].index == 0xc0000082) {
            g_assert_cmphex(env->msrs[i].value, ==, 0);
        }
    }
    if (cpus_count() > 1) {
        cpu = cpu_get(1);
        x86_cpu_state_reset(&cpu->env, false);
        harness_push(cpu);
        harness_sync(cpu);
        g_assert_cmpint(cpu->env.mp_state, ==, 1);
    }
}

/* A value that KVM cannot hold is an error that names it. */
static void test_refused_msr(void)
{
    static const uint8_t nothing[] = { 0xeb, 0xfe };
    CPUState *cpu = cpu_get(0);
    Error *err = NULL;

    HARNESS_SKIP_IF_ABSENT();
    harness_load_code(cpu, 0x100000, nothing, sizeof(nothing));
    cpu->env.n_msrs = 1;
    cpu->env.msrs[0] = (X86MSR) { 0x12345678, 0x99 };
    if (cpu_push_state(cpu, &err) == 0) {
        g_test_skip("this KVM ignores MSRs that it does not know");
        return;
    }
    g_assert_nonnull(strstr(error_get_pretty(err),
                            "KVM does not have MSR 0x12345678, which is 0x99 in vCPU 0"));
    error_free(err);
    /* Nothing is lost with one that holds nothing, and a description is not state. */
    cpu->env.msrs[0].value = 0;
    harness_push(cpu);
    cpu->env.msrs[0] = (X86MSR) { 0x48f, 0x1234 };
    harness_push(cpu);
    cpu->env.n_msrs = 0;
    harness_push(cpu);
}

/* A stop right after a port was read: the instruction is complete in what is saved. */
static void test_io_is_completed(void)
{
    /* l: in eax, dx; mov rbx, rax; jmp l */
    static const uint8_t code[] = { 0xed, 0x48, 0x89, 0xc3, 0xeb, 0xfa };
    CPUState *cpu = cpu_get(0);

    HARNESS_SKIP_IF_ABSENT();
    for (int i = 0; i < 50; i++) {
        harness_load_code(cpu, 0x100000, code, sizeof(code));
        cpu->env.regs[R_RDX] = 0x9999;
        harness_push(cpu);
        cpus_resume_all();
        cpus_pause_all();
        harness_sync(cpu);
        bool at_in = cpu->env.rip == 0x100000;
        g_assert_true(at_in || cpu->env.rip == 0x100001 || cpu->env.rip == 0x100004);
        if (!at_in) {
            g_assert_cmphex(cpu->env.regs[R_RAX], ==, 0xffffffff);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    kvm_slot_max_bytes = SLOT_BYTES;
    harness_add_cases(&accel_kvm, 2);
    g_test_add_func("/kvm/refusals", test_refusals);
    g_test_add_func("/kvm/models", test_models);
    g_test_add_func("/kvm/vm-state", test_vm_state);
    g_test_add_func("/kvm/reset", test_reset_state);
    g_test_add_func("/kvm/refused-msr", test_refused_msr);
    g_test_add_func("/kvm/io-is-completed", test_io_is_completed);
    int ret = g_test_run();
    harness_destroy();
    bql_unlock();
    return ret;
}
