/*
 * Memory slots: guest RAM as KVM knows it.
 *
 * A RAM range becomes one slot, or several when it is larger than KVM takes in one. Slots are only
 * ever added, before the machine runs; what changes later is whether writes to them are logged,
 * which the migration thread switches while vCPUs run (KVM allows that).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include "accel/kvm/kvm-int.h"

/* KVM's limit is 2^31 - 1 pages; a round number below it keeps every slot's bitmap whole words. */
uint64_t kvm_slot_max_bytes = 4ull << 40;

void kvm_slots_init(void)
{
    pthread_mutex_init(&kvm.slots_lock, NULL);
    kvm.slots = g_array_new(FALSE, TRUE, sizeof(KVMSlot));
    kvm.logging = false;
}

void kvm_slots_cleanup(void)
{
    if (kvm.slots) {
        g_array_unref(kvm.slots);
        kvm.slots = NULL;
        pthread_mutex_destroy(&kvm.slots_lock);
    }
}

static int slot_commit(const KVMSlot *slot)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot->id,
        .flags = (slot->logged ? KVM_MEM_LOG_DIRTY_PAGES : 0) |
                 (slot->readonly && kvm.can_readonly ? KVM_MEM_READONLY : 0),
        .guest_phys_addr = slot->gpa,
        .memory_size = slot->size,
        .userspace_addr = (uintptr_t)slot->block->host + slot->offset,
    };

    return kvm_vm_ioctl(KVM_SET_USER_MEMORY_REGION, &region);
}

static int slot_add(const RAMRange *range, uint64_t skip, uint64_t size, Error **errp)
{
    KVMSlot slot = {
        .id = kvm.slots->len,
        .gpa = range->gpa + skip,
        .size = size,
        .block = range->block,
        .offset = range->offset + skip,
        .readonly = range->readonly,
        .logged = kvm.logging && !range->readonly,
    };

    if (slot.id >= (unsigned)kvm.max_slots) {
        error_setg(errp, "cannot map RAM block '%s' at 0x%" PRIx64 ": KVM has no more than %d "
                   "memory slots", range->block->idstr, slot.gpa, kvm.max_slots);
        return -1;
    }
    int r = slot_commit(&slot);
    if (r < 0) {
        error_setg_errno(errp, -r, "KVM does not take RAM block '%s' at 0x%" PRIx64 ", %" PRIu64
                         " bytes", range->block->idstr, slot.gpa, slot.size);
        return -1;
    }
    g_array_append_val(kvm.slots, slot);
    return 0;
}

int kvm_ram_mapped(const RAMRange *range, Error **errp)
{
    int r = 0;

    pthread_mutex_lock(&kvm.slots_lock);
    for (uint64_t done = 0; done < range->size && r == 0; ) {
        uint64_t size = MIN(range->size - done, kvm_slot_max_bytes);

        r = slot_add(range, done, size, errp);
        done += size;
    }
    pthread_mutex_unlock(&kvm.slots_lock);
    return r;
}

static int set_logging_locked(bool enable, Error **errp)
{
    for (unsigned i = 0; i < kvm.slots->len; i++) {
        KVMSlot *slot = &g_array_index(kvm.slots, KVMSlot, i);

        if (slot->readonly || slot->logged == enable) {
            continue;
        }
        slot->logged = enable;
        int r = slot_commit(slot);
        if (r < 0) {
            slot->logged = !enable;
            error_setg_errno(errp, -r, "KVM cannot %s logging writes to RAM block '%s'",
                             enable ? "start" : "stop", slot->block->idstr);
            return -1;
        }
    }
    kvm.logging = enable;
    return 0;
}

int kvm_slots_set_logging(bool enable, Error **errp)
{
    pthread_mutex_lock(&kvm.slots_lock);
    int r = set_logging_locked(enable, errp);
    if (r < 0 && enable) {
        set_logging_locked(false, NULL);
    }
    pthread_mutex_unlock(&kvm.slots_lock);
    return r;
}
