/*
 * The sections of what an accelerator keeps beside the vCPUs: interrupt controllers, timer, clock.
 *
 * An accelerator hands them out as bytes in the layout of the kernel's structures
 * (accel/kvm/vm-state.c); here they become fields, so that a stream says what it carries. A section
 * takes its part out of the whole when it is saved, and puts the whole back with its part changed
 * when it is loaded.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <linux/kvm.h>
#include <stddef.h>
#include <string.h>
#include "hw/x86/vmstate.h"
#include "migration/vmstate.h"
#include "system/accel.h"

/* The kernel's structures with the types that vmstate knows. */
typedef struct PICState {
    uint8_t last_irr, irr, imr, isr, priority_add, irq_base, read_reg_select, poll, special_mask;
    uint8_t init_state, auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode, init4;
    uint8_t elcr, elcr_mask;
} PICState;

typedef struct IOAPICState {
    uint64_t base_address;
    uint32_t ioregsel, id, irr, pad;
    uint64_t redirtbl[KVM_IOAPIC_NUM_PINS];
} IOAPICState;

typedef struct PITChannel {
    uint32_t count;
    uint16_t latched_count;
    uint8_t count_latched, status_latched, status, read_state, write_state, write_latch;
    uint8_t rw_mode, mode, bcd, gate;
    int64_t count_load_time;
} PITChannel;

typedef struct PITState {
    PITChannel channels[3];
    uint32_t flags, reserved[9];
} PITState;

typedef struct ClockState {
    uint64_t clock;             /* nanoseconds */
} ClockState;

G_STATIC_ASSERT(sizeof(PICState) == sizeof(struct kvm_pic_state));
G_STATIC_ASSERT(sizeof(IOAPICState) == sizeof(struct kvm_ioapic_state));
G_STATIC_ASSERT(sizeof(PITState) == sizeof(struct kvm_pit_state2));

typedef struct VMSection {
    int part;
    uint32_t len;
    union {
        PICState pic;
        IOAPICState ioapic;
        PITState pit;
        ClockState clock;
    } state;                    /* what the table describes */
} VMSection;

static VMSection sections[VM_PARTS] = {
    [VM_PIC_MASTER] = { VM_PIC_MASTER, sizeof(PICState) },
    [VM_PIC_SLAVE] = { VM_PIC_SLAVE, sizeof(PICState) },
    [VM_IOAPIC] = { VM_IOAPIC, sizeof(IOAPICState) },
    [VM_PIT] = { VM_PIT, sizeof(PITState) },
    [VM_CLOCK] = { VM_CLOCK, sizeof(ClockState) },
};

static VMSection *section_of(void *state)
{
    return (VMSection *)((char *)state - offsetof(VMSection, state));
}

static AccelVMPart *get_parts(Error **errp)
{
    const AccelClass *klass = accel_current();
    AccelVMPart *parts = g_new0(AccelVMPart, VM_PARTS);

    if (klass->get_vm_state && klass->get_vm_state(parts, errp) < 0) {
        g_clear_pointer(&parts, g_free);
    }
    return parts;
}

/* On failure the section is written for pre_save to report. */
static bool section_needed(void *opaque)
{
    VMSection *section = section_of(opaque);
    g_autofree AccelVMPart *parts = get_parts(NULL);

    return !parts || parts[section->part].len;
}

static int section_pre_save(void *opaque, Error **errp)
{
    VMSection *section = section_of(opaque);
    g_autofree AccelVMPart *parts = get_parts(errp);

    if (!parts) {
        return -1;
    }
    if (parts[section->part].len != section->len) {
        error_setg(errp, "the accelerator's state '%s' has %u bytes, not %u",
                   parts[section->part].name, parts[section->part].len, section->len);
        return -1;
    }
    memcpy(&section->state, parts[section->part].data, section->len);
    return 0;
}

static int put_section(const VMSection *section, Error **errp)
{
    static const char *const names[VM_PARTS] = {
        [VM_PIC_MASTER] = "pic-master", [VM_PIC_SLAVE] = "pic-slave", [VM_IOAPIC] = "ioapic",
        [VM_PIT] = "pit", [VM_CLOCK] = "clock",
    };
    const AccelClass *klass = accel_current();
    g_autofree AccelVMPart *parts = get_parts(errp);

    if (!parts) {
        return -1;
    }
    if (!klass->put_vm_state) {
        error_setg(errp, "the accelerator '%s' cannot take the state of '%s'", klass->name,
                   names[section->part]);
        return -1;
    }
    parts[section->part].name = names[section->part];
    parts[section->part].len = section->len;
    memcpy(parts[section->part].data, &section->state, section->len);
    return klass->put_vm_state(parts, errp);
}

static int section_post_load(void *opaque, int version_id, Error **errp)
{
    return put_section(section_of(opaque), errp);
}

#define VM_SECTION(name_) \
    .name = (name_), .version_id = 1, .minimum_version_id = 1, .needed = section_needed, \
    .pre_save = section_pre_save, .post_load = section_post_load

static const VMStateDescription vmstate_i8259 = {
    VM_SECTION("i8259"),
    .fields = (const VMStateField[]) {
        VMSTATE_UINT8(last_irr, PICState),
        VMSTATE_UINT8(irr, PICState),
        VMSTATE_UINT8(imr, PICState),
        VMSTATE_UINT8(isr, PICState),
        VMSTATE_UINT8(priority_add, PICState),
        VMSTATE_UINT8(irq_base, PICState),
        VMSTATE_UINT8(read_reg_select, PICState),
        VMSTATE_UINT8(poll, PICState),
        VMSTATE_UINT8(special_mask, PICState),
        VMSTATE_UINT8(init_state, PICState),
        VMSTATE_UINT8(auto_eoi, PICState),
        VMSTATE_UINT8(rotate_on_auto_eoi, PICState),
        VMSTATE_UINT8(special_fully_nested_mode, PICState),
        VMSTATE_UINT8(init4, PICState),
        VMSTATE_UINT8(elcr, PICState),
        VMSTATE_UINT8(elcr_mask, PICState),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_ioapic = {
    VM_SECTION("ioapic"),
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(base_address, IOAPICState),
        VMSTATE_UINT32(id, IOAPICState),
        VMSTATE_UINT32(ioregsel, IOAPICState),
        VMSTATE_UINT32(irr, IOAPICState),
        VMSTATE_UINT64_ARRAY(redirtbl, IOAPICState, KVM_IOAPIC_NUM_PINS),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_pit_channel = {
    .name = "i8254/channel",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(count, PITChannel),
        VMSTATE_UINT16(latched_count, PITChannel),
        VMSTATE_UINT8(count_latched, PITChannel),
        VMSTATE_UINT8(status_latched, PITChannel),
        VMSTATE_UINT8(status, PITChannel),
        VMSTATE_UINT8(read_state, PITChannel),
        VMSTATE_UINT8(write_state, PITChannel),
        VMSTATE_UINT8(write_latch, PITChannel),
        VMSTATE_UINT8(rw_mode, PITChannel),
        VMSTATE_UINT8(mode, PITChannel),
        VMSTATE_UINT8(bcd, PITChannel),
        VMSTATE_UINT8(gate, PITChannel),
        VMSTATE_INT64(count_load_time, PITChannel),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_i8254 = {
    VM_SECTION("i8254"),
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(flags, PITState),
        VMSTATE_STRUCT_ARRAY(channels, PITState, 3, 0, vmstate_pit_channel, PITChannel),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_kvmclock = {
    VM_SECTION("kvmclock"),
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(clock, ClockState),
        VMSTATE_END_OF_LIST() },
};

/* In this order: a controller hands what is pending in it to the one before it. */
static const struct {
    const VMStateDescription *vmsd;
    uint32_t instance;
    int part;
} registered[] = {
    { &vmstate_i8259, 0, VM_PIC_MASTER },
    { &vmstate_i8259, 1, VM_PIC_SLAVE },
    { &vmstate_ioapic, 0, VM_IOAPIC },
    { &vmstate_i8254, 0, VM_PIT },
    { &vmstate_kvmclock, 0, VM_CLOCK },
};

int x86_vm_vmstate_register(Error **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(registered); i++) {
        const VMStateDescription *vmsd = registered[i].vmsd;

        if (vmstate_register(vmsd->name, registered[i].instance, vmsd,
                             &sections[registered[i].part].state, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

void x86_vm_vmstate_unregister(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(registered); i++) {
        vmstate_unregister(registered[i].vmsd, &sections[registered[i].part].state);
    }
}

int x86_vmstate_register(Error **errp)
{
    return x86_cpu_vmstate_register(errp) < 0 ? -1 : x86_vm_vmstate_register(errp);
}

void x86_vmstate_unregister(void)
{
    x86_vm_vmstate_unregister();
    x86_cpu_vmstate_unregister();
}
