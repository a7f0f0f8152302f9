/*
 * What KVM keeps beside the vCPUs: two interrupt controllers of the PC, the I/O APIC, the timer
 * chip and the paravirtual clock.
 *
 * They do not know when the machine stands. So when it stops, the timer and the clock are read, and
 * when it goes on they are set to that: for the guest no time has passed, the timer does not make
 * up for the ticks of the pause all at once, and each vCPU is told (KVM_KVMCLOCK_CTRL) that it was
 * paused, so that no watchdog in the guest takes fright.
 *
 * The parts hold the kernel's structures as they are: kvm_pic_state, kvm_ioapic_state,
 * kvm_pit_state2, and the clock as 64 bits of nanoseconds.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include "accel/kvm/kvm-int.h"

static const char *const part_names[VM_PARTS] = {
    [VM_PIC_MASTER] = "pic-master",
    [VM_PIC_SLAVE] = "pic-slave",
    [VM_IOAPIC] = "ioapic",
    [VM_PIT] = "pit",
    [VM_CLOCK] = "clock",
};

static const uint32_t part_len[VM_PARTS] = {
    [VM_PIC_MASTER] = sizeof(struct kvm_pic_state),
    [VM_PIC_SLAVE] = sizeof(struct kvm_pic_state),
    [VM_IOAPIC] = sizeof(struct kvm_ioapic_state),
    [VM_PIT] = sizeof(struct kvm_pit_state2),
    [VM_CLOCK] = sizeof(uint64_t),
};

static const uint32_t chip_ids[] = {
    [VM_PIC_MASTER] = KVM_IRQCHIP_PIC_MASTER,
    [VM_PIC_SLAVE] = KVM_IRQCHIP_PIC_SLAVE,
    [VM_IOAPIC] = KVM_IRQCHIP_IOAPIC,
};

static int get_part(int part, AccelVMPart *to)
{
    struct kvm_irqchip chip = { 0 };
    struct kvm_clock_data clock = { 0 };
    int r;

    to->name = part_names[part];
    to->len = part_len[part];
    switch (part) {
    case VM_PIT:
        return kvm_vm_ioctl(KVM_GET_PIT2, to->data);
    case VM_CLOCK:
        r = kvm_vm_ioctl(KVM_GET_CLOCK, &clock);
        memcpy(to->data, &clock.clock, sizeof(clock.clock));
        return r;
    default:
        chip.chip_id = chip_ids[part];
        r = kvm_vm_ioctl(KVM_GET_IRQCHIP, &chip);
        memcpy(to->data, &chip.chip, to->len);
        return r;
    }
}

static int put_part(int part, const AccelVMPart *from)
{
    struct kvm_irqchip chip = { 0 };
    struct kvm_pit_state2 pit;
    struct kvm_clock_data clock = { 0 };

    switch (part) {
    case VM_PIT:
        memcpy(&pit, from->data, sizeof(pit));
        return kvm_vm_ioctl(KVM_SET_PIT2, &pit);
    case VM_CLOCK:
        memcpy(&clock.clock, from->data, sizeof(clock.clock));
        return kvm_vm_ioctl(KVM_SET_CLOCK, &clock);
    default:
        chip.chip_id = chip_ids[part];
        memcpy(&chip.chip, from->data, from->len);
        return kvm_vm_ioctl(KVM_SET_IRQCHIP, &chip);
    }
}

int kvm_vm_devices_create(Error **errp)
{
    struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
    int r = kvm_vm_ioctl(KVM_CREATE_IRQCHIP, NULL);

    if (r == 0) {
        r = kvm_vm_ioctl(KVM_CREATE_PIT2, &pit);
    }
    for (int i = 0; i < VM_PARTS && r == 0; i++) {
        r = get_part(i, &kvm.power_on[i]);
    }
    if (r < 0) {
        error_setg_errno(errp, -r, "KVM cannot create the interrupt controllers and the timer");
        return -1;
    }
    return 0;
}

/* Parts that go on by themselves when the machine stands. */
static bool runs_by_itself(int part)
{
    return part == VM_PIT || part == VM_CLOCK;
}

int kvm_get_vm_state(AccelVMPart parts[VM_PARTS], Error **errp)
{
    for (int i = 0; i < VM_PARTS; i++) {
        if (kvm.stopped_valid && runs_by_itself(i)) {
            parts[i] = kvm.stopped[i];
            continue;
        }
        int r = get_part(i, &parts[i]);
        if (r < 0) {
            error_setg_errno(errp, -r, "KVM does not give the state of '%s'", part_names[i]);
            return -1;
        }
    }
    return 0;
}

int kvm_put_vm_state(const AccelVMPart parts[VM_PARTS], Error **errp)
{
    for (int i = 0; i < VM_PARTS; i++) {
        const AccelVMPart *part = parts[i].len ? &parts[i] : &kvm.power_on[i];

        if (part->len != part_len[i]) {
            error_setg(errp, "state of '%s' has %u bytes, not %u", part_names[i], part->len,
                       part_len[i]);
            return -1;
        }
        int r = put_part(i, part);
        if (r < 0) {
            error_setg_errno(errp, -r, "KVM refuses the state of '%s'", part_names[i]);
            return -1;
        }
        if (runs_by_itself(i)) {
            kvm.stopped[i] = *part;
        }
    }
    kvm.stopped_valid = true;
    return 0;
}

static void stop_clocks(void)
{
    kvm.stopped_valid = get_part(VM_PIT, &kvm.stopped[VM_PIT]) == 0 &&
        get_part(VM_CLOCK, &kvm.stopped[VM_CLOCK]) == 0;
}

static void start_clocks(void)
{
    if (!kvm.stopped_valid) {
        return;
    }
    int r = put_part(VM_CLOCK, &kvm.stopped[VM_CLOCK]);
    if (r == 0) {
        r = put_part(VM_PIT, &kvm.stopped[VM_PIT]);
    }
    if (r < 0) {
        warn_report("KVM does not set the guest's clocks: %s", strerror(-r));
    }
    kvm.stopped_valid = false;

    CPU_FOREACH(cpu) {
        if (cpu->accel) {
            /* Refused for a vCPU that does not use the clock: there is nobody to tell then. */
            kvm_vcpu_ioctl(cpu, KVM_KVMCLOCK_CTRL, NULL);
        }
    }
}

void kvm_run_state_changed(bool running)
{
    if (running) {
        start_clocks();
    } else {
        stop_clocks();
    }
}

void kvm_set_irq(unsigned gsi, bool level)
{
    struct kvm_irq_level line = { .irq = gsi, .level = level };
    int r = kvm_vm_ioctl(KVM_IRQ_LINE, &line);

    if (r < 0) {
        warn_report("KVM does not set interrupt line %u: %s", gsi, strerror(-r));
    }
}

/* The clock goes on over a reset: it counts from the machine's start. */
void kvm_reset(void)
{
    for (int i = 0; i < VM_PARTS; i++) {
        if (i == VM_CLOCK) {
            continue;
        }
        int r = put_part(i, &kvm.power_on[i]);
        if (r < 0) {
            warn_report("KVM does not reset '%s': %s", part_names[i], strerror(-r));
        }
        if (i == VM_PIT) {
            kvm.stopped[i] = kvm.power_on[i];
        }
    }
}
