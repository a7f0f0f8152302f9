/*
 * The life of a virtio device as its driver sees it, and what keeps it in step with the machine's.
 *
 * What happens in other threads and must be seen under the big lock is noted in the relay: bits of
 * what there is to do, and one call posted to the main thread while any is set. The relay outlives
 * the device by the call that is on its way.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/virtio/virtio.h"

#include <inttypes.h>
#include <string.h>

#include "hw/virtio/virtio-mmio.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/runstate.h"

/* Of one device, in its life: a guest can break it as often as it likes. */
#define BREAKAGES_REPORTED 10

enum { RELAY_IRQ = 1, RELAY_CONFIG = 2, RELAY_BROKEN = 4 };

struct VirtIORelay {
    VirtIODevice *vdev;         /* NULL: it is gone; under the big lock */
    uint32_t todo;              /* atomic: RELAY_ */
    uint32_t refs;              /* atomic: the device, and the call that is posted */
};

/* ---- what other threads have to say ---- */

static void relay_unref(VirtIORelay *relay)
{
    if (__atomic_sub_fetch(&relay->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        g_free(relay);
    }
}

static void interrupt_config(VirtIODevice *vdev)
{
    vdev->config_generation++;
    __atomic_fetch_or(&vdev->isr, VIRTIO_ISR_CONFIG, __ATOMIC_SEQ_CST);
    vdev->transport->update_irq(vdev);
}

static void do_relayed(VirtIODevice *vdev, uint32_t todo)
{
    bool driver_ok = vdev->status & VIRTIO_STATUS_DRIVER_OK;

    if (todo & RELAY_BROKEN) {
        vdev->status |= VIRTIO_STATUS_NEEDS_RESET;
    }
    if ((todo & RELAY_CONFIG) && vdev->vclass->config_event) {
        vdev->vclass->config_event(vdev);
    }
    if ((todo & (RELAY_BROKEN | RELAY_CONFIG)) && driver_ok) {
        interrupt_config(vdev);
    } else if (todo & RELAY_CONFIG) {
        vdev->config_generation++;
    }
    if (todo & RELAY_IRQ) {
        vdev->transport->update_irq(vdev);
    }
}

/* Under the big lock. */
static void relay_flush(VirtIORelay *relay)
{
    uint32_t todo = __atomic_exchange_n(&relay->todo, 0, __ATOMIC_ACQ_REL);

    if (todo && relay->vdev) {
        do_relayed(relay->vdev, todo);
    }
}

static void relay_posted(void *opaque)
{
    relay_flush(opaque);
    relay_unref(opaque);
}

static void relay(VirtIODevice *vdev, uint32_t todo)
{
    VirtIORelay *relay = vdev->relay;

    if (bql_locked()) {
        do_relayed(vdev, todo);
    } else if (!__atomic_fetch_or(&relay->todo, todo, __ATOMIC_ACQ_REL)) {
        __atomic_add_fetch(&relay->refs, 1, __ATOMIC_RELAXED);
        main_loop_post(relay_posted, relay);
    }
}

void virtio_interrupt(VirtIODevice *vdev)
{
    __atomic_fetch_or(&vdev->isr, VIRTIO_ISR_QUEUE, __ATOMIC_SEQ_CST);
    relay(vdev, RELAY_IRQ);
}

void virtio_config_event(VirtIODevice *vdev)
{
    relay(vdev, RELAY_CONFIG);
}

void virtio_error(VirtIODevice *vdev, Error *err)
{
    if (__atomic_fetch_add(&vdev->breakages, 1, __ATOMIC_RELAXED) < BREAKAGES_REPORTED) {
        error_prepend(&err, "%s: the guest's driver broke the rules: ",
                      vdev->parent.id ?: vdev->parent.path);
        error_report_err(err);
    } else {
        error_free(err);
    }
    __atomic_store_n(&vdev->broken, true, __ATOMIC_RELEASE);
    relay(vdev, RELAY_BROKEN);
}

/* ---- serving queues, or not ---- */

static bool start_queues(VirtIODevice *vdev, Error **errp)
{
    for (unsigned i = 0; i < vdev->num_queues; i++) {
        VirtQueue *vq = &vdev->queues[i];

        if (vq->ready && virtqueue_start(vq, virtio_has_feature(vdev, VIRTIO_F_EVENT_IDX),
                                         virtio_has_feature(vdev, VIRTIO_F_INDIRECT_DESC),
                                         errp) < 0) {
            error_prepend(errp, "queue %u: ", i);
            return false;
        }
    }
    return true;
}

static void stop_queues(VirtIODevice *vdev)
{
    for (unsigned i = 0; i < vdev->num_queues; i++) {
        virtqueue_stop(&vdev->queues[i]);
    }
}

static void virtio_stop(VirtIODevice *vdev)
{
    if (!vdev->running) {
        return;
    }
    vdev->vclass->stop(vdev);
    vdev->running = false;
    stop_queues(vdev);
    /* What its thread had to say must be said before state is saved or reset. */
    relay_flush(vdev->relay);
}

/* Serve the queues if that is to be. */
static void virtio_start(VirtIODevice *vdev)
{
    Error *err = NULL;

    if (vdev->running || !(vdev->status & VIRTIO_STATUS_DRIVER_OK) || virtio_is_broken(vdev) ||
        !runstate_is_running()) {
        return;
    }
    if (!start_queues(vdev, &err)) {
        stop_queues(vdev);
        virtio_error(vdev, err);
        return;
    }
    vdev->running = true;
    vdev->vclass->start(vdev);
}

static void run_state_changed(void *opaque, bool running, RunState state)
{
    VirtIODevice *vdev = opaque;

    if (running) {
        virtio_start(vdev);
        vdev->transport->update_irq(vdev);
    } else {
        virtio_stop(vdev);
    }
}

/* ---- what the driver does ---- */

uint64_t virtio_offered_features(VirtIODevice *vdev)
{
    return vdev->vclass->features(vdev) | VIRTIO_F_VERSION_1 |
           (vdev->event_idx ? VIRTIO_F_EVENT_IDX : 0) |
           (vdev->indirect ? VIRTIO_F_INDIRECT_DESC : 0);
}

static bool features_make_sense(VirtIODevice *vdev)
{
    return !(vdev->driver_features & ~virtio_offered_features(vdev)) &&
           virtio_has_feature(vdev, VIRTIO_F_VERSION_1);
}

void virtio_reset(VirtIODevice *vdev)
{
    virtio_stop(vdev);
    for (unsigned i = 0; i < vdev->num_queues; i++) {
        virtqueue_reset(&vdev->queues[i]);
    }
    vdev->status = 0;
    vdev->queue_sel = 0;
    vdev->device_features_sel = vdev->driver_features_sel = 0;
    vdev->driver_features = 0;
    __atomic_store_n(&vdev->broken, false, __ATOMIC_RELEASE);
    __atomic_store_n(&vdev->isr, 0, __ATOMIC_SEQ_CST);
    vdev->vclass->reset(vdev);
    vdev->transport->update_irq(vdev);
}

void virtio_set_status(VirtIODevice *vdev, uint8_t status)
{
    uint8_t added = status & ~vdev->status;

    if (!status) {
        virtio_reset(vdev);
        return;
    }
    /* Bits are only added, and NEEDS_RESET is the device's to set. */
    added &= ~VIRTIO_STATUS_NEEDS_RESET;
    if ((added & VIRTIO_STATUS_FEATURES_OK) && !features_make_sense(vdev)) {
        added &= ~VIRTIO_STATUS_FEATURES_OK;
    }
    if ((added & VIRTIO_STATUS_DRIVER_OK) &&
        !((vdev->status | added) & VIRTIO_STATUS_FEATURES_OK)) {
        added &= ~VIRTIO_STATUS_DRIVER_OK;
    }
    vdev->status |= added;
    if (added & VIRTIO_STATUS_DRIVER_OK) {
        if (vdev->vclass->driver_ok) {
            vdev->vclass->driver_ok(vdev);
        }
        virtio_start(vdev);
    }
}

void virtio_config_read(VirtIODevice *vdev, unsigned offset, uint8_t *data, unsigned bytes)
{
    uint8_t config[VIRTIO_CONFIG_MAX] = { 0 };

    memset(data, 0, bytes);
    if (offset < vdev->vclass->config_bytes && bytes <= vdev->vclass->config_bytes - offset) {
        vdev->vclass->get_config(vdev, config);
        memcpy(data, config + offset, bytes);
    }
}

void virtio_config_write(VirtIODevice *vdev, unsigned offset, const uint8_t *data, unsigned bytes)
{
    if (vdev->vclass->set_config && offset < vdev->vclass->config_bytes &&
        bytes <= vdev->vclass->config_bytes - offset) {
        vdev->vclass->set_config(vdev, offset, data, bytes);
    }
}

void virtio_set_queue_ready(VirtIODevice *vdev, unsigned index, bool ready)
{
    VirtQueue *vq = &vdev->queues[index];

    if (vq->ready == ready) {
        return;
    }
    virtio_stop(vdev);
    vq->ready = ready;
    /* The driver begins anew with it. */
    vq->last_avail_idx = vq->used_idx = vq->signalled_used = 0;
    vq->signalled_used_valid = false;
    virtio_start(vdev);
}

void virtio_notify_queue(VirtIODevice *vdev, unsigned index)
{
    if (vdev->running && index < vdev->num_queues && vdev->queues[index].started) {
        vdev->vclass->notify(vdev, index);
    }
}

void virtio_ack_isr(VirtIODevice *vdev, uint32_t bits)
{
    __atomic_fetch_and(&vdev->isr, ~bits, __ATOMIC_SEQ_CST);
    vdev->transport->update_irq(vdev);
}

/* ---- life ---- */

bool virtio_init(VirtIODevice *vdev, const VirtIOClass *vclass, unsigned num_queues,
                 unsigned queue_size, Error **errp)
{
    g_assert(num_queues && num_queues <= VIRTIO_QUEUES_MAX);
    g_assert(vclass->config_bytes <= VIRTIO_CONFIG_MAX);
    vdev->vclass = vclass;
    vdev->num_queues = num_queues;
    for (unsigned i = 0; i < num_queues; i++) {
        vdev->queues[i].num_max = vdev->queues[i].num = queue_size;
    }
    if (!virtio_mmio_plug(vdev, errp)) {
        return false;
    }
    vdev->relay = g_new0(VirtIORelay, 1);
    vdev->relay->vdev = vdev;
    vdev->relay->refs = 1;
    runstate_add_notifier(run_state_changed, vdev);
    return true;
}

void virtio_exit(VirtIODevice *vdev)
{
    runstate_remove_notifier(run_state_changed, vdev);
    virtio_stop(vdev);
    virtio_mmio_unplug(vdev);
    vdev->relay->vdev = NULL;
    relay_unref(g_steal_pointer(&vdev->relay));
}

/* ---- migration ---- */

static int virtio_pre_load(void *opaque, Error **errp)
{
    VirtIODevice *vdev = opaque;

    g_assert(!vdev->running);
    return 0;
}

/* A queue that the destination could not start must not come into being there. */
static int check_queue(VirtIODevice *vdev, unsigned index, Error **errp)
{
    VirtQueue *vq = &vdev->queues[index];

    if (!vq->ready) {
        return 0;
    }
    if (virtqueue_start(vq, true, true, errp) < 0) {
        error_prepend(errp, "%s: queue %u: ", vdev->parent.path, index);
        return -1;
    }
    virtqueue_stop(vq);
    return 0;
}

static int virtio_post_load(void *opaque, int version_id, Error **errp)
{
    VirtIODevice *vdev = opaque;
    uint64_t unknown = vdev->driver_features & ~virtio_offered_features(vdev);

    if (unknown && (vdev->status & VIRTIO_STATUS_FEATURES_OK)) {
        error_setg(errp,
                   "%s: the guest uses features 0x%" PRIx64 ", which this side does not offer",
                   vdev->parent.path, unknown);
        return -1;
    }
    if ((vdev->status & VIRTIO_STATUS_DRIVER_OK) && !(vdev->status & VIRTIO_STATUS_FEATURES_OK)) {
        error_setg(errp, "%s: status 0x%x is not possible", vdev->parent.path, vdev->status);
        return -1;
    }
    for (unsigned i = 0; i < vdev->num_queues; i++) {
        /* A broken one is not looked at: its driver may have set up anything. */
        if (!vdev->broken && (vdev->status & VIRTIO_STATUS_DRIVER_OK) &&
            check_queue(vdev, i, errp) < 0) {
            return -1;
        }
    }
    virtio_mmio_loaded(vdev);
    return 0;
}

static const VMStateDescription vmstate_virtqueue = {
    .name = "virtqueue_state",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(num_max, VirtQueue),
        VMSTATE_UINT32(num, VirtQueue),
        VMSTATE_BOOL(ready, VirtQueue),
        VMSTATE_UINT64(desc, VirtQueue),
        VMSTATE_UINT64(avail, VirtQueue),
        VMSTATE_UINT64(used, VirtQueue),
        VMSTATE_UINT16(last_avail_idx, VirtQueue),
        VMSTATE_UINT16(used_idx, VirtQueue),
        VMSTATE_UINT16(signalled_used, VirtQueue),
        VMSTATE_BOOL(signalled_used_valid, VirtQueue),
        VMSTATE_END_OF_LIST() },
};

const VMStateDescription vmstate_virtio = {
    .name = "virtio",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = virtio_pre_load,
    .post_load = virtio_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(slot, VirtIODevice),
        VMSTATE_UINT8(status, VirtIODevice),
        VMSTATE_UINT32(isr, VirtIODevice),
        VMSTATE_UINT32(queue_sel, VirtIODevice),
        VMSTATE_UINT32(device_features_sel, VirtIODevice),
        VMSTATE_UINT32(driver_features_sel, VirtIODevice),
        VMSTATE_UINT64(driver_features, VirtIODevice),
        VMSTATE_UINT32(config_generation, VirtIODevice),
        VMSTATE_BOOL(broken, VirtIODevice),
        VMSTATE_UINT32_EQUAL(num_queues, VirtIODevice),
        VMSTATE_STRUCT_VARRAY_UINT32(queues, VirtIODevice, num_queues, 1, vmstate_virtqueue,
                                     VirtQueue),
        VMSTATE_END_OF_LIST() },
};
