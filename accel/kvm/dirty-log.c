/*
 * The "kvm" dirty tracker: KVM's dirty log of what vCPUs wrote.
 *
 * Why no write is lost. With manual protection a sync reads a slot's log (which changes nothing),
 * and then clears exactly the pages it read, which write-protects them again. A vCPU's write before
 * the clear lands on a page that this sync reports, and the page is read after the sync: the write
 * is in. A write after the clear faults and is in the next log. Pages that became dirty between the
 * two calls are not among those cleared, so they stay for the next sync. Without manual protection
 * the kernel does both under its lock, which comes to the same.
 *
 * What the process wrote by itself is not in KVM's log; system/dirty-tracker.c adds it from the
 * marks.
 *
 * The functions are called without the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include "accel/kvm/kvm-int.h"

#define LONG_BITS (sizeof(unsigned long) * CHAR_BIT)
#define WORDS(bits) (((bits) + LONG_BITS - 1) / LONG_BITS)
/*
 * Pages cleared by one call at most: 1 GiB, so that a vCPU's fault never waits long for the lock.
 */
#define CLEAR_PAGES_MAX (1u << 18)

typedef struct KVMDirtyTracker {
    DirtyTracker parent;
    unsigned long *log;         /* what KVM says of one slot; as long as the largest needs */
} KVMDirtyTracker;

static void tracker_free(KVMDirtyTracker *tracker)
{
    g_free(tracker->log);
    g_free(tracker);
}

static DirtyTracker *kvm_tracker_start(Error **errp)
{
    KVMDirtyTracker *tracker = g_new0(KVMDirtyTracker, 1);
    uint64_t most_pages = 1;

    RAMBLOCK_FOREACH(block) {
        most_pages = MAX(most_pages, block->pages);
    }
    tracker->log = g_try_new0(unsigned long, WORDS(most_pages));
    if (!tracker->log) {
        error_setg(errp, "no memory for the dirty log of %" PRIu64 " pages", most_pages);
        tracker_free(tracker);
        return NULL;
    }
    if (kvm_slots_set_logging(true, errp) < 0) {
        tracker_free(tracker);
        return NULL;
    }
    tracker->parent.klass = &dirty_tracker_kvm;
    return &tracker->parent;
}

static void kvm_tracker_stop(DirtyTracker *tracker)
{
    Error *err = NULL;

    if (kvm_slots_set_logging(false, &err) < 0) {
        error_report_err(err);
    }
    tracker_free((KVMDirtyTracker *)tracker);
}

/* Clear the pages of @log that are set, span by span; @pages is the slot's. */
static int clear_log(const KVMSlot *slot, unsigned long *log, uint64_t pages)
{
    uint64_t words = WORDS(pages);

    for (uint64_t i = 0; i < words; ) {
        if (!log[i]) {
            i++;
            continue;
        }
        uint64_t first = i;
        while (i < words && log[i] && (i - first) * LONG_BITS < CLEAR_PAGES_MAX) {
            i++;
        }
        struct kvm_clear_dirty_log clear = {
            .slot = slot->id,
            .first_page = first * LONG_BITS,
            .num_pages = MIN(i * LONG_BITS, pages) - first * LONG_BITS,
            .dirty_bitmap = &log[first],
        };
        int r = kvm_vm_ioctl(KVM_CLEAR_DIRTY_LOG, &clear);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* Set @bits in a word. Returns how many of them were not set. */
static int64_t set_bits(unsigned long *word, unsigned long bits)
{
    int64_t fresh = __builtin_popcountl(bits & ~*word);

    *word |= bits;
    return fresh;
}

/* Set in @bitmap, from bit @at, the @pages bits of @log. Returns how many were not set. */
static int64_t merge_log(unsigned long *bitmap, uint64_t at, const unsigned long *log,
                         uint64_t pages)
{
    unsigned shift = at % LONG_BITS;
    unsigned long *out = bitmap + at / LONG_BITS;
    int64_t set = 0;

    for (uint64_t i = 0; i < WORDS(pages); i++) {
        unsigned long word = log[i];

        if (!word) {
            continue;
        }
        set += set_bits(&out[i], word << shift);
        if (shift && word >> (LONG_BITS - shift)) {
            set += set_bits(&out[i + 1], word >> (LONG_BITS - shift));
        }
    }
    return set;
}

static int64_t sync_slot(KVMDirtyTracker *tracker, const KVMSlot *slot, unsigned long *bitmap,
                         Error **errp)
{
    uint64_t pages = slot->size / TARGET_PAGE_SIZE;
    struct kvm_dirty_log get = { .slot = slot->id, .dirty_bitmap = tracker->log };

    memset(tracker->log, 0, WORDS(pages) * sizeof(unsigned long));
    int r = kvm_vm_ioctl(KVM_GET_DIRTY_LOG, &get);
    if (r == 0 && kvm.manual_protect) {
        r = clear_log(slot, tracker->log, pages);
    }
    if (r < 0) {
        error_setg_errno(errp, -r, "KVM does not give the dirty log of RAM block '%s'",
                         slot->block->idstr);
        return -1;
    }
    return merge_log(bitmap, slot->offset / TARGET_PAGE_SIZE, tracker->log, pages);
}

static int64_t kvm_tracker_sync(DirtyTracker *parent, RAMBlock *block, unsigned long *bitmap,
                                Error **errp)
{
    KVMDirtyTracker *tracker = (KVMDirtyTracker *)parent;
    int64_t reported = 0;

    pthread_mutex_lock(&kvm.slots_lock);
    for (unsigned i = 0; i < kvm.slots->len && reported >= 0; i++) {
        const KVMSlot *slot = &g_array_index(kvm.slots, KVMSlot, i);

        if (slot->block == block && slot->logged) {
            int64_t found = sync_slot(tracker, slot, bitmap, errp);

            reported = found < 0 ? -1 : reported + found;
        }
    }
    pthread_mutex_unlock(&kvm.slots_lock);
    return reported;
}

const DirtyTrackerClass dirty_tracker_kvm = {
    .name = "kvm",
    .start = kvm_tracker_start,
    .sync = kvm_tracker_sync,
    .stop = kvm_tracker_stop,
};
