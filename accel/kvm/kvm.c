/*
 * The KVM accelerator: opening the device, asking what it can do, creating the VM.
 *
 * The interrupt controllers and the timer are always KVM's own (kernel-irqchip=on), so a halted
 * vCPU sleeps in the kernel and an interrupt never passes through here. What cannot be done without
 * is checked at once, so that a later surprise is never a missing capability.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>
#include "accel/kvm/kvm-int.h"

KVM kvm = { .fd = -1, .vm_fd = -1 };

/* Where KVM keeps three pages and one page of its own, below the firmware and above any RAM. */
#define TSS_ADDR 0xfffbd000ul
#define IDENTITY_MAP_ADDR 0xfffbc000ull

int kvm_vm_ioctl(unsigned long request, void *arg)
{
    return ioctl(kvm.vm_fd, request, arg) < 0 ? -errno : 0;
}

int kvm_check_extension(int capability)
{
    int r = ioctl(kvm.vm_fd, KVM_CHECK_EXTENSION, capability);

    return r < 0 ? 0 : r;
}

typedef struct Options {
    bool pagemap;               /* track writes by pagemap instead of KVM's dirty log */
} Options;

static int parse_options(struct json_object *opts, Options *parsed, Error **errp)
{
    if (!opts) {
        return 0;
    }
    json_object_object_foreach(opts, key, val) {
        const char *value = json_object_get_string(val);

        if (!value) {
            value = "";
        }
        if (!strcmp(key, "kernel-irqchip")) {
            if (strcmp(value, "on")) {
                error_setg(errp, "kernel-irqchip=%s is not supported, only 'on'", value);
                return -1;
            }
        } else if (!strcmp(key, "dirty-tracker")) {
            if (strcmp(value, "kvm") && strcmp(value, "pagemap")) {
                error_setg(errp, "dirty-tracker must be 'kvm' or 'pagemap', not '%s'",
                           value);
                return -1;
            }
            parsed->pagemap = !strcmp(value, "pagemap");
        } else {
            error_setg(errp, "Property '%s' not found", key);
            return -1;
        }
    }
    return 0;
}

static const struct {
    int capability;
    const char *name;
} required[] = {
    { KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
    { KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
    { KVM_CAP_PIT2, "KVM_CAP_PIT2" },
    { KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2" },
    { KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
    { KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
    { KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS" },
    { KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS" },
    { KVM_CAP_XSAVE, "KVM_CAP_XSAVE" },
    { KVM_CAP_XCRS, "KVM_CAP_XCRS" },
    { KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK" },
    { KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
    { KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
    { KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR" },
};

static int ask_capabilities(unsigned cpus, Error **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(required); i++) {
        if (!kvm_check_extension(required[i].capability)) {
            error_setg(errp, "this host's KVM lacks %s", required[i].name);
            return -1;
        }
    }
    int max_cpus = kvm_check_extension(KVM_CAP_MAX_VCPUS);
    if (max_cpus > 0 && cpus > (unsigned)max_cpus) {
        error_setg(errp, "this host's KVM runs at most %d vCPUs, not %u", max_cpus, cpus);
        return -1;
    }
    kvm.max_slots = kvm_check_extension(KVM_CAP_NR_MEMSLOTS);
    if (kvm.max_slots <= 0) {
        kvm.max_slots = 32;
    }
    kvm.can_readonly = kvm_check_extension(KVM_CAP_READONLY_MEM) > 0;
    kvm.can_smm = kvm_check_extension(KVM_CAP_X86_SMM) > 0;
    kvm.can_tsc_control = kvm_check_extension(KVM_CAP_TSC_CONTROL) > 0;

    int xsave = kvm_check_extension(KVM_CAP_XSAVE2);
    kvm.xsave_bytes = xsave > (int)sizeof(struct kvm_xsave) ? xsave : sizeof(struct kvm_xsave);
    if (kvm.xsave_bytes > CPU_XSAVE_BYTES) {
        error_setg(errp, "this host's vCPUs have %u bytes of XSAVE state, more than %u",
                   kvm.xsave_bytes, CPU_XSAVE_BYTES);
        return -1;
    }
    int run_bytes = ioctl(kvm.fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run)) {
        error_setg_errno(errp, errno, "cannot ask KVM for the size of a vCPU's shared page");
        return -1;
    }
    kvm.run_bytes = run_bytes;
    return 0;
}

static bool enable_capability(int capability, uint64_t arg)
{
    struct kvm_enable_cap cap = { .cap = capability, .args = { arg } };

    return kvm_vm_ioctl(KVM_ENABLE_CAP, &cap) == 0;
}

static void enable_capabilities(void)
{
    /*
     * KVM_DIRTY_LOG_INITIALLY_SET is left off on purpose: a tracker starts with nothing dirty, so
     * every bit would have to be cleared at once, which costs more than not setting it.
     */
    int manual = kvm_check_extension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    kvm.manual_protect = (manual & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) &&
        enable_capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);

    kvm.can_payload = kvm_check_extension(KVM_CAP_EXCEPTION_PAYLOAD) > 0 &&
        enable_capability(KVM_CAP_EXCEPTION_PAYLOAD, 1);
    kvm.can_triple_fault = kvm_check_extension(KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0 &&
        enable_capability(KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1);
}

static int create_vm(Error **errp)
{
    kvm.fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm.fd < 0) {
        error_setg_errno(errp, errno, "cannot open /dev/kvm");
        return -1;
    }
    int version = ioctl(kvm.fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        error_setg(errp, "/dev/kvm speaks version %d of its interface, not %d", version,
                   KVM_API_VERSION);
        return -1;
    }
    do {
        kvm.vm_fd = ioctl(kvm.fd, KVM_CREATE_VM, 0);
    } while (kvm.vm_fd < 0 && errno == EINTR);
    if (kvm.vm_fd < 0) {
        error_setg_errno(errp, errno, "cannot create a KVM virtual machine");
        return -1;
    }
    return 0;
}

static int place_private_pages(Error **errp)
{
    uint64_t identity = IDENTITY_MAP_ADDR;
    int r = kvm_vm_ioctl(KVM_SET_IDENTITY_MAP_ADDR, &identity);

    if (r == 0) {
        r = kvm_vm_ioctl(KVM_SET_TSS_ADDR, (void *)TSS_ADDR);
    }
    if (r < 0) {
        error_setg_errno(errp, -r, "cannot tell KVM where its private pages go");
        return -1;
    }
    return 0;
}

static void kvm_cleanup(void)
{
    kvm_slots_cleanup();
    g_clear_pointer(&kvm.cpuid, g_free);
    g_clear_pointer(&kvm.msrs, g_array_unref);
    if (kvm.vm_fd >= 0) {
        close(kvm.vm_fd);
        kvm.vm_fd = -1;
    }
    if (kvm.fd >= 0) {
        close(kvm.fd);
        kvm.fd = -1;
    }
    kvm.stopped_valid = false;
}

static int kvm_init(struct json_object *opts, const char *cpu_model, unsigned cpus, Error **errp)
{
    Options parsed = { 0 };

    if (parse_options(opts, &parsed, errp) < 0) {
        return -1;
    }
    kvm.cpus = cpus;
    kvm_slots_init();
    if (create_vm(errp) < 0 || ask_capabilities(cpus, errp) < 0 ||
        place_private_pages(errp) < 0 || kvm_vm_devices_create(errp) < 0 ||
        kvm_cpuid_init(cpu_model, errp) < 0) {
        kvm_cleanup();
        return -1;
    }
    enable_capabilities();

    /* Ours is the default once accel_init() has registered it. */
    if (parsed.pagemap && dirty_tracker_select("pagemap", errp) < 0) {
        kvm_cleanup();
        return -1;
    }
    return 0;
}

const AccelClass accel_kvm = {
    .name = "kvm",
    .desc = "Linux's KVM",
    .runs_cpus = true,
    .max_cpus = CPUS_MAX,
    .init = kvm_init,
    .cleanup = kvm_cleanup,
    .cpu_model = kvm_cpu_model,
    .vcpu_init = kvm_vcpu_init,
    .vcpu_destroy = kvm_vcpu_destroy,
    .vcpu_exec = kvm_vcpu_exec,
    .vcpu_kick = kvm_vcpu_kick,
    .get_state = kvm_get_state,
    .put_state = kvm_put_state,
    .get_vm_state = kvm_get_vm_state,
    .put_vm_state = kvm_put_vm_state,
    .run_state_changed = kvm_run_state_changed,
    .ram_mapped = kvm_ram_mapped,
    .set_irq = kvm_set_irq,
    .reset = kvm_reset,
    .dirty_tracker = &dirty_tracker_kvm,
};
