/*
 * The sections of the processor and of the VM's devices: everything that is in them comes back,
 * what is missing is absent, and what cannot be is refused. Over the qtest accelerator, which keeps
 * what it is given.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <json-c/json.h>
#include <linux/kvm.h>
#include <string.h>
#include "hw/x86/vmstate.h"
#include "io/channel-buffer.h"
#include "migration/migration-file.h"
#include "migration/vmstate.h"
#include "system/accel.h"
#include "system/bql.h"
#include "system/main-loop.h"

/* Tables that x86_vmstate_register() registered, in order. */
typedef struct Registered {
    const char *idstr;
    uint32_t instance;
    const VMStateDescription *vmsd;
    void *opaque;
} Registered;

static Registered registered[32];
static unsigned n_registered;

/* In place of migration/savevm.c: the test drives the tables itself. */
int vmstate_register(const char *idstr, uint32_t instance_id, const VMStateDescription *vmsd,
                     void *opaque, Error **errp)
{
    g_assert_cmpuint(n_registered, <, G_N_ELEMENTS(registered));
    registered[n_registered++] = (Registered) { idstr, instance_id, vmsd, opaque };
    return 0;
}

void vmstate_unregister(const VMStateDescription *vmsd, void *opaque)
{
    n_registered--;
}

static const Registered *find(const char *idstr, uint32_t instance)
{
    for (unsigned i = 0; i < n_registered; i++) {
        if (!strcmp(registered[i].idstr, idstr) && registered[i].instance == instance) {
            return &registered[i];
        }
    }
    g_assert_not_reached();
}

static QIOChannel *save(const Registered *section, struct json_object *desc)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_buffer_new(0));
    g_autoptr(MigrationFile) f = mfile_new_output(ioc);

    vmstate_save_state(f, section->vmsd, section->opaque, desc, &error_abort);
    mfile_put_u8(f, 0x7e);
    mfile_flush(f, &error_abort);
    return ioc;
}

/* Loads and checks that nothing is left over; frees @ioc. */
static int load(const Registered *section, QIOChannel *ioc, Error **errp)
{
    qio_channel_io_seek(ioc, 0, SEEK_SET, &error_abort);
    g_autoptr(MigrationFile) f = mfile_new_input(ioc);
    int ret =
        vmstate_load_state(f, section->vmsd, section->opaque, section->vmsd->version_id, errp);

    if (ret == 0) {
        g_assert_cmphex(mfile_get_u8(f), ==, 0x7e);
    }
    qio_channel_unref(ioc);
    return ret;
}

/* Different bytes everywhere; counts and flags that must make sense do. */
static void fill(X86CPUState *env)
{
    uint8_t *bytes = (uint8_t *)env;

    for (size_t i = 0; i < sizeof(*env); i++) {
        bytes[i] = g_test_rand_int_range(1, 256);
    }
    env->xsave_len = 2696;
    memset(env->xsave + env->xsave_len, 0, sizeof(env->xsave) - env->xsave_len);
    env->n_msrs = 77;
    memset(env->msrs + env->n_msrs, 0, (CPU_MSRS_MAX - env->n_msrs) * sizeof(env->msrs[0]));
}

static void compare(const X86CPUState *a, const X86CPUState *b)
{
    g_assert_cmpmem(a->regs, sizeof(a->regs), b->regs, sizeof(b->regs));
    g_assert_cmphex(a->rip, ==, b->rip);
    g_assert_cmphex(a->rflags, ==, b->rflags);
    for (int i = 0; i < SEG_COUNT; i++) {
        g_assert_cmphex(a->seg[i].base, ==, b->seg[i].base);
        g_assert_cmphex(a->seg[i].limit, ==, b->seg[i].limit);
        g_assert_cmphex(a->seg[i].selector, ==, b->seg[i].selector);
        g_assert_cmpmem(&a->seg[i].type, 9, &b->seg[i].type, 9);
    }
    g_assert_cmphex(a->gdt.base, ==, b->gdt.base);
    g_assert_cmphex(a->idt.limit, ==, b->idt.limit);
    /* From cr0 to dr7 there is nothing but uint64_t. */
    g_assert_cmpmem(&a->cr0, offsetof(X86CPUState, mp_state) - offsetof(X86CPUState, cr0),
                    &b->cr0, offsetof(X86CPUState, mp_state) - offsetof(X86CPUState, cr0));
    g_assert_cmpuint(a->mp_state, ==, b->mp_state);
    g_assert_cmphex(a->tsc, ==, b->tsc);
    g_assert_cmpuint(a->tsc_khz, ==, b->tsc_khz);
    g_assert_cmphex(a->exception_payload, ==, b->exception_payload);
    g_assert_cmphex(a->exception_error_code, ==, b->exception_error_code);
    g_assert_cmpmem(&a->exception_injected, 4, &b->exception_injected, 4);
    g_assert_cmpmem(&a->exception_has_payload, 8, &b->exception_has_payload, 8);
    g_assert_cmphex(a->sipi_vector, ==, b->sipi_vector);
    g_assert_cmpmem(&a->smi_smm, 5, &b->smi_smm, 5);
    g_assert_cmphex(a->events_flags, ==, b->events_flags);
    g_assert_cmpmem(a->xsave, a->xsave_len, b->xsave, b->xsave_len);
    g_assert_cmpuint(a->n_msrs, ==, b->n_msrs);
    for (unsigned i = 0; i < a->n_msrs; i++) {
        g_assert_cmphex(a->msrs[i].index, ==, b->msrs[i].index);
        g_assert_cmphex(a->msrs[i].value, ==, b->msrs[i].value);
    }
    g_assert_cmpuint(a->has_lapic, ==, b->has_lapic);
    g_assert_cmpmem(a->lapic, sizeof(a->lapic), b->lapic, sizeof(b->lapic));
}

static void test_cpu_round_trip(void)
{
    g_autofree X86CPUState *want = g_new0(X86CPUState, 1);
    CPUState *cpu = cpu_get(1);

    fill(&cpu->env);
    cpu->env_valid = true;
    memcpy(want, &cpu->env, sizeof(*want));
    QIOChannel *ioc = save(find("cpu", 1), NULL);
    memset(&cpu->env, 0x55, sizeof(cpu->env));
    cpu->env_valid = false;
    g_assert_cmpint(load(find("cpu", 1), ioc, &error_abort), ==, 0);
    g_assert_true(cpu->env_valid);
    compare(&cpu->env, want);
}

/* What one accelerator does not have must not stay from before when its state is loaded. */
static void test_cpu_without_parts(void)
{
    CPUState *cpu = cpu_get(0);

    x86_cpu_state_reset(&cpu->env, true);
    cpu->env.xsave_len = 0;
    cpu->env_valid = true;
    struct json_object *desc = json_object_new_object(), *subsections;
    QIOChannel *ioc = save(find("cpu", 0), desc);
    g_assert_false(json_object_object_get_ex(desc, "subsections", &subsections) &&
                   json_object_array_length(subsections));
    json_object_put(desc);

    fill(&cpu->env);
    g_assert_cmpint(load(find("cpu", 0), ioc, &error_abort), ==, 0);
    g_assert_cmpuint(cpu->env.xsave_len, ==, 0);
    g_assert_cmpuint(cpu->env.n_msrs, ==, 0);
    g_assert_cmpuint(cpu->env.has_lapic, ==, 0);
    g_assert_cmpuint(cpu->env.nmi_pending, ==, 0);
    g_assert_cmphex(cpu->env.rip, ==, 0xfff0);
}

static void test_cpu_counts(void)
{
    CPUState *cpu = cpu_get(0);
    Error *err = NULL;

    fill(&cpu->env);
    cpu->env_valid = true;
    QIOChannel *ioc = save(find("cpu", 0), NULL);
    size_t size;
    uint8_t *data = (uint8_t *)qio_channel_buffer_data((QIOChannelBuffer *)ioc, &size);
    /* The count of MSRs is where 77 stands as 32 bits, followed by the first MSR. */
    uint8_t needle[8] = { 0, 0, 0, 77, cpu->env.msrs[0].index >> 24, cpu->env.msrs[0].index >> 16,
                          cpu->env.msrs[0].index >> 8, cpu->env.msrs[0].index };
    uint8_t *at = memmem(data, size, needle, sizeof(needle));

    g_assert_nonnull(at);
    at[2] = 0x80;
    g_assert_cmpint(load(find("cpu", 0), ioc, &err), <, 0);
    g_assert_nonnull(strstr(error_get_pretty(err), "msrs"));
    error_free(err);
}

static void test_names(void)
{
    static const struct {
        const char *idstr;
        uint32_t instance;
    } order[] = { { "cpu", 0 }, { "cpu", 1 }, { "i8259", 0 }, { "i8259", 1 }, { "ioapic", 0 },
                  { "i8254", 0 }, { "kvmclock", 0 } };

    g_assert_cmpuint(n_registered, ==, G_N_ELEMENTS(order));
    for (unsigned i = 0; i < n_registered; i++) {
        g_assert_cmpstr(registered[i].idstr, ==, order[i].idstr);
        g_assert_cmpuint(registered[i].instance, ==, order[i].instance);
    }
}

static void test_vm(void)
{
    static const struct {
        const char *idstr;
        uint32_t instance, bytes;
    } parts[VM_PARTS] = {
        [VM_PIC_MASTER] = { "i8259", 0, sizeof(struct kvm_pic_state) },
        [VM_PIC_SLAVE] = { "i8259", 1, sizeof(struct kvm_pic_state) },
        [VM_IOAPIC] = { "ioapic", 0, sizeof(struct kvm_ioapic_state) },
        [VM_PIT] = { "i8254", 0, sizeof(struct kvm_pit_state2) },
        [VM_CLOCK] = { "kvmclock", 0, 8 },
    };
    g_autofree AccelVMPart *want = g_new0(AccelVMPart, VM_PARTS);
    g_autofree AccelVMPart *got = g_new0(AccelVMPart, VM_PARTS);
    QIOChannel *saved[VM_PARTS];

    accel_qtest.put_vm_state(want, &error_abort);
    for (int i = 0; i < VM_PARTS; i++) {
        const Registered *section = find(parts[i].idstr, parts[i].instance);

        g_assert_false(section->vmsd->needed(section->opaque));
        want[i].name = "x";
        want[i].len = parts[i].bytes;
        for (uint32_t b = 0; b < want[i].len; b++) {
            want[i].data[b] = g_test_rand_int_range(0, 256);
        }
    }
    /* Bytes that mean nothing are not carried. */
    memset(want[VM_IOAPIC].data + offsetof(struct kvm_ioapic_state, pad), 0, 4);
    memset(want[VM_PIT].data + offsetof(struct kvm_pit_state2, reserved), 0, 36);
    accel_qtest.put_vm_state(want, &error_abort);
    for (int i = 0; i < VM_PARTS; i++) {
        const Registered *section = find(parts[i].idstr, parts[i].instance);

        g_assert_true(section->vmsd->needed(section->opaque));
        saved[i] = save(section, NULL);
    }
    accel_qtest.put_vm_state(got, &error_abort);
    for (int i = 0; i < VM_PARTS; i++) {
        load(find(parts[i].idstr, parts[i].instance), saved[i], &error_abort);
    }
    accel_qtest.get_vm_state(got, &error_abort);
    for (int i = 0; i < VM_PARTS; i++) {
        g_assert_cmpmem(got[i].data, got[i].len, want[i].data, want[i].len);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    accel_init(&accel_qtest, NULL, NULL, 2, &error_abort);
    cpus_create(2, &error_abort);
    x86_vmstate_register(&error_abort);
    g_test_add_func("/x86-vmstate/names", test_names);
    g_test_add_func("/x86-vmstate/cpu/round-trip", test_cpu_round_trip);
    g_test_add_func("/x86-vmstate/cpu/without-parts", test_cpu_without_parts);
    g_test_add_func("/x86-vmstate/cpu/counts", test_cpu_counts);
    g_test_add_func("/x86-vmstate/vm", test_vm);
    int ret = g_test_run();
    x86_vmstate_unregister();
    cpus_destroy();
    bql_unlock();
    return ret;
}
