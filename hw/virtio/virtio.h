/*
 * What all virtio devices have: feature negotiation, status, queues, configuration, interrupts.
 *
 * A kind of device is a VirtIOClass and a struct that begins with a VirtIODevice; the transport
 * (hw/virtio/virtio-mmio.h) calls the functions for the guest. The device serves its queues between
 * start() and stop(): while the driver says DRIVER_OK, the device is not broken, and the machine
 * runs.
 *
 * Threads. Everything is called under the big lock, but for what says "any thread": a device may
 * serve its queues in another thread between start() and stop(), and what the guest sees of that
 * (interrupts, a status) is brought under the big lock here.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_VIRTIO_VIRTIO_H
#define HW_VIRTIO_VIRTIO_H

#include "hw/device.h"
#include "hw/virtio/virtqueue.h"

/* Queues of one device. */
#define VIRTIO_QUEUES_MAX 64u

#define VIRTIO_ID_BLOCK 2u

enum {
    VIRTIO_STATUS_ACKNOWLEDGE = 1, VIRTIO_STATUS_DRIVER = 2, VIRTIO_STATUS_DRIVER_OK = 4,
    VIRTIO_STATUS_FEATURES_OK = 8, VIRTIO_STATUS_NEEDS_RESET = 64, VIRTIO_STATUS_FAILED = 128,
};
enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };

#define VIRTIO_F_INDIRECT_DESC (UINT64_C(1) << 28)
#define VIRTIO_F_EVENT_IDX (UINT64_C(1) << 29)
#define VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

typedef struct VirtIODevice VirtIODevice;
typedef struct VirtIORelay VirtIORelay;

typedef struct VirtIOClass {
    uint16_t id;                /* VIRTIO_ID_ */
    unsigned config_bytes;      /* of the configuration structure, at most VIRTIO_CONFIG_MAX */
    /* Features of the kind of device that are offered; those of all devices are added. */
    uint64_t (*features)(VirtIODevice *vdev);
    /* Write the configuration structure, little-endian; @config is all zero. */
    void (*get_config)(VirtIODevice *vdev, uint8_t *config);
    /* The guest wrote @bytes bytes at @offset. NULL: nothing can be written. */
    void (*set_config)(VirtIODevice *vdev, unsigned offset, const uint8_t *data, unsigned bytes);
    /* virtio_config_event() was called: find out what the configuration is now. */
    void (*config_event)(VirtIODevice *vdev);
    /* Features were accepted and the driver is ready: settings follow what it can do. */
    void (*driver_ok)(VirtIODevice *vdev);
    /*
     * Serve the queues, which are started: from now on, beginning with what is in them already.
     * stop(): when it returns nothing of the device runs, in no thread.
     */
    void (*start)(VirtIODevice *vdev);
    void (*stop)(VirtIODevice *vdev);
    /* The guest says that queue @index has something new. Between start() and stop(). */
    void (*notify)(VirtIODevice *vdev, unsigned index);
    /* Power-on state; stopped. */
    void (*reset)(VirtIODevice *vdev);
} VirtIOClass;

#define VIRTIO_CONFIG_MAX 64u

/* The transport, for what the device tells the guest. */
typedef struct VirtIOTransport {
    /* Let the interrupt line follow vdev->isr. */
    void (*update_irq)(VirtIODevice *vdev);
} VirtIOTransport;

struct VirtIODevice {
    DeviceState parent;
    const VirtIOClass *vclass;
    const VirtIOTransport *transport;
    char *bus;                  /* property: "virtio-mmio-bus.N", NULL: the first free one */
    uint32_t slot;
    bool event_idx, indirect;   /* properties: whether these are offered */

    uint8_t status;
    uint32_t isr;               /* atomic */
    uint32_t queue_sel;
    uint32_t device_features_sel, driver_features_sel;
    uint64_t driver_features;
    uint32_t config_generation;
    bool broken;                /* atomic; the guest broke the rules, reset mends it */
    bool running;               /* between start() and stop() */
    uint32_t num_queues;
    VirtQueue queues[VIRTIO_QUEUES_MAX];

    VirtIORelay *relay;
    uint32_t breakages;         /* that were reported */
};

#define VIRTIO_CAST(type_, vdev_) ((type_ *)(vdev_))

/*
 * Connect to a transport and to the machine. @queue_size: a power of two, at most
 * VIRTQUEUE_SIZE_MAX. For realize(); virtio_exit() undoes it. Returns false with @errp set.
 */
bool virtio_init(VirtIODevice *vdev, const VirtIOClass *vclass, unsigned num_queues,
                 unsigned queue_size, Error **errp);
void virtio_exit(VirtIODevice *vdev);
/* Properties of all virtio devices, for the property table. */
#define VIRTIO_PROPERTIES(state_, field_)                                                        \
    DEFINE_PROP_STR("bus", state_, field_.bus, 0,                                                \
                    "where to plug it in: virtio-mmio-bus.0 to .23"),                            \
        DEFINE_PROP_BOOL("event_idx", state_, field_.event_idx, true, 0, "offer event indices"), \
        DEFINE_PROP_BOOL("indirect_desc", state_, field_.indirect, true, 0,                      \
                         "offer indirect descriptors")
/*
 * The state, for the device's own table: VMSTATE_STRUCT(vdev, Foo, 1, vmstate_virtio,
 * VirtIODevice).
 */
extern const VMStateDescription vmstate_virtio;

/* ---- for transports ---- */

uint64_t virtio_offered_features(VirtIODevice *vdev);
/* 0 resets. Others are taken as far as they make sense. */
void virtio_set_status(VirtIODevice *vdev, uint8_t status);
void virtio_reset(VirtIODevice *vdev);
/* Writes outside of the structure do nothing; reads there give zero. */
void virtio_config_read(VirtIODevice *vdev, unsigned offset, uint8_t *data, unsigned bytes);
void virtio_config_write(VirtIODevice *vdev, unsigned offset, const uint8_t *data, unsigned bytes);
void virtio_set_queue_ready(VirtIODevice *vdev, unsigned index, bool ready);
void virtio_notify_queue(VirtIODevice *vdev, unsigned index);
void virtio_ack_isr(VirtIODevice *vdev, uint32_t bits);

/* ---- for devices ---- */

static inline bool virtio_has_feature(const VirtIODevice *vdev, uint64_t feature)
{
    return vdev->driver_features & feature;
}
static inline bool virtio_is_broken(const VirtIODevice *vdev)
{
    return __atomic_load_n(&vdev->broken, __ATOMIC_ACQUIRE);
}
/* Interrupt the guest for its queues. Any thread. */
void virtio_interrupt(VirtIODevice *vdev);
/* The configuration has changed or may have: config_event(), then an interrupt. Any thread. */
void virtio_config_event(VirtIODevice *vdev);
/*
 * The guest broke the rules: the device is broken until it is reset. @err is taken; some are
 * reported on standard error. Any thread.
 */
void virtio_error(VirtIODevice *vdev, Error *err);

#endif
