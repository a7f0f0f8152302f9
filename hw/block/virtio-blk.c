/*
 * The device: what it is told by properties, what it tells the guest, and how it moves.
 *
 * A disk is a BlockBackend: that of a -drive, or one made here for a node. The device holds it with
 * the right to write, shares nothing that others could destroy, and takes its node along into its
 * iothread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/block/virtio-blk.h"

#include <string.h>

#include "hw/devices.h"
#include "util/bswap.h"

#define QUEUE_SIZE_MIN 4u
#define BLOCK_BYTES_MAX (2u * 1024 * 1024)
/* struct virtio_blk_config up to write_zeroes_may_unmap and its padding. */
#define CONFIG_BYTES 60u
#define CONFIG_WRITEBACK 32u
/* The geometry that disks without one have. */
#define GEOMETRY_HEADS 16u
#define GEOMETRY_SECTORS 63u
#define GEOMETRY_CYLINDERS_MAX 16383u

/* ---- what the guest is told ---- */

static uint64_t blk_features(VirtIODevice *vdev)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);
    uint64_t features = VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_GEOMETRY | VIRTIO_BLK_F_BLK_SIZE |
                        VIRTIO_BLK_F_TOPOLOGY;

    features |= s->config_wce || s->original_wce ? VIRTIO_BLK_F_FLUSH : 0;
    features |= s->config_wce ? VIRTIO_BLK_F_CONFIG_WCE : 0;
    features |= s->num_queues > 1 ? VIRTIO_BLK_F_MQ : 0;
    if (s->read_only) {
        return features | VIRTIO_BLK_F_RO;
    }
    features |= s->discard ? VIRTIO_BLK_F_DISCARD : 0;
    features |= s->write_zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : 0;
    return features;
}

static uint8_t physical_exponent(const VirtIOBlk *s)
{
    return g_bit_nth_msf(s->physical_block / s->logical_block, -1);
}

static void put_geometry(uint8_t *config, uint64_t sectors)
{
    uint64_t cylinders = sectors / (GEOMETRY_HEADS * GEOMETRY_SECTORS);

    stw_le_p(config + 16, MIN(MAX(cylinders, 2), GEOMETRY_CYLINDERS_MAX));
    config[18] = GEOMETRY_HEADS;
    config[19] = GEOMETRY_SECTORS;
}

static void blk_get_config(VirtIODevice *vdev, uint8_t *config)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);
    uint64_t sectors = __atomic_load_n(&s->bytes, __ATOMIC_RELAXED) / VIRTIO_BLK_SECTOR_BYTES;
    uint32_t alignment = (s->discard_granularity ?: s->logical_block) / VIRTIO_BLK_SECTOR_BYTES;

    stq_le_p(config, sectors);
    stl_le_p(config + 12, s->queue_size - 2);           /* segments: not header and status */
    put_geometry(config, sectors);
    stl_le_p(config + 20, s->logical_block);
    config[24] = physical_exponent(s);
    stw_le_p(config + 26, s->min_io / s->logical_block);
    stl_le_p(config + 28, s->opt_io / s->logical_block);
    config[CONFIG_WRITEBACK] = blk_enable_write_cache(s->blk);
    stw_le_p(config + 34, s->num_queues);
    if (!s->read_only && s->discard) {
        stl_le_p(config + 36, s->max_discard_sectors);
        stl_le_p(config + 40, VIRTIO_BLK_RANGES_MAX);
        stl_le_p(config + 44, alignment);
    }
    if (!s->read_only && s->write_zeroes) {
        stl_le_p(config + 48, s->max_write_zeroes_sectors);
        stl_le_p(config + 52, VIRTIO_BLK_RANGES_MAX);
        config[56] = 1;                                 /* writing zeroes may unmap */
    }
}

/* One byte of it can be written: whether there is a write cache. */
static void blk_set_config(VirtIODevice *vdev, unsigned offset, const uint8_t *data, unsigned bytes)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);

    if (offset <= CONFIG_WRITEBACK && offset + bytes > CONFIG_WRITEBACK &&
        virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE)) {
        blk_set_enable_write_cache(s->blk, data[CONFIG_WRITEBACK - offset] & 1);
    }
}

static void refresh_length(VirtIOBlk *s)
{
    int64_t bytes = blk_getlength(s->blk);

    __atomic_store_n(&s->bytes, MAX(bytes, 0), __ATOMIC_RELAXED);
}

static void blk_config_event(VirtIODevice *vdev)
{
    refresh_length(VIRTIO_CAST(VirtIOBlk, vdev));
}

/* A driver that cannot flush gets a disk that needs no flushing. */
static void blk_driver_ok(VirtIODevice *vdev)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);

    if (!virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE)) {
        blk_set_enable_write_cache(s->blk, s->original_wce &&
                                   virtio_has_feature(vdev, VIRTIO_BLK_F_FLUSH));
    }
}

static void blk_start(VirtIODevice *vdev)
{
    /* While a migration was awaited it may not have been known. */
    refresh_length(VIRTIO_CAST(VirtIOBlk, vdev));
    virtio_blk_start(vdev);
}

static void blk_reset(VirtIODevice *vdev)
{
    VirtIOBlk *s = VIRTIO_CAST(VirtIOBlk, vdev);

    virtio_blk_forget_held(s);
    blk_set_enable_write_cache(s->blk, s->original_wce);
}

static const VirtIOClass virtio_blk_class = {
    .id = VIRTIO_ID_BLOCK,
    .config_bytes = CONFIG_BYTES,
    .features = blk_features,
    .get_config = blk_get_config,
    .set_config = blk_set_config,
    .config_event = blk_config_event,
    .driver_ok = blk_driver_ok,
    .start = blk_start,
    .stop = virtio_blk_stop,
    .notify = virtio_blk_notify,
    .reset = blk_reset,
};

/* ---- properties that must fit together ---- */

static bool is_block_size(uint32_t bytes)
{
    return bytes >= VIRTIO_BLK_SECTOR_BYTES && bytes <= BLOCK_BYTES_MAX && !(bytes & (bytes - 1));
}

static bool check_sizes(const VirtIOBlk *s, Error **errp)
{
    if (!s->num_queues || s->num_queues > VIRTIO_QUEUES_MAX) {
        error_setg(errp, "num-queues must be 1 to %u, not %u", VIRTIO_QUEUES_MAX, s->num_queues);
    } else if (s->queue_size < QUEUE_SIZE_MIN || s->queue_size > VIRTQUEUE_SIZE_MAX ||
               (s->queue_size & (s->queue_size - 1))) {
        error_setg(errp, "queue-size must be a power of two from %u to %u, not %u", QUEUE_SIZE_MIN,
                   VIRTQUEUE_SIZE_MAX, s->queue_size);
    } else if (!is_block_size(s->logical_block) || !is_block_size(s->physical_block)) {
        error_setg(errp,
                   "logical_block_size and physical_block_size must be powers of two from %u to %u",
                   VIRTIO_BLK_SECTOR_BYTES, BLOCK_BYTES_MAX);
    } else if (s->logical_block > s->physical_block) {
        error_setg(errp, "logical_block_size must not be larger than physical_block_size");
    } else if (s->min_io % s->logical_block || s->opt_io % s->logical_block ||
               s->discard_granularity % s->logical_block) {
        error_setg(errp, "min_io_size, opt_io_size and discard_granularity must be multiples of "
                   "logical_block_size");
    } else if (s->max_discard_sectors > VIRTIO_BLK_RANGE_SECTORS_MAX ||
               s->max_write_zeroes_sectors > VIRTIO_BLK_RANGE_SECTORS_MAX ||
               (s->discard && !s->max_discard_sectors) ||
               (s->write_zeroes && !s->max_write_zeroes_sectors)) {
        error_setg(errp, "max-discard-sectors and max-write-zeroes-sectors must be 1 to %u",
                   VIRTIO_BLK_RANGE_SECTORS_MAX);
    } else if (s->serial && strlen(s->serial) > VIRTIO_BLK_ID_BYTES) {
        error_setg(errp, "serial is longer than %u characters", VIRTIO_BLK_ID_BYTES);
    } else {
        return true;
    }
    error_prepend(errp, "virtio-blk-device: ");
    return false;
}

/* The policy @text, or @current where it is not given or "auto". */
static bool parse_on_error(const char *name, const char *text, bool is_read,
                           BlockdevOnError current, BlockdevOnError *policy, Error **errp)
{
    *policy = current;
    if (!text || !strcmp(text, "auto")) {
        return true;
    }
    for (int i = 0; i < BLOCKDEV_ON_ERROR__MAX; i++) {
        if (!strcmp(text, BlockdevOnError_str(i)) && !(is_read && i == BLOCKDEV_ON_ERROR_ENOSPC)) {
            *policy = i;
            return true;
        }
    }
    error_setg(errp, "virtio-blk-device: %s cannot be '%s'", name, text);
    return false;
}

static bool set_policies(VirtIOBlk *s, Error **errp)
{
    BlockdevOnError on_read, on_write;

    if (!parse_on_error("rerror", s->rerror, true, blk_get_on_error(s->blk, true), &on_read,
                        errp) ||
        !parse_on_error("werror", s->werror, false, blk_get_on_error(s->blk, false), &on_write,
                        errp)) {
        return false;
    }
    blk_set_on_error(s->blk, on_read, on_write);
    return true;
}

static bool set_write_cache(VirtIOBlk *s, Error **errp)
{
    const char *text = s->write_cache ?: "auto";

    if (!strcmp(text, "on") || !strcmp(text, "off")) {
        blk_set_enable_write_cache(s->blk, !strcmp(text, "on"));
    } else if (strcmp(text, "auto")) {
        error_setg(errp, "virtio-blk-device: write-cache must be 'on', 'off' or 'auto', not '%s'",
                   text);
        return false;
    }
    s->original_wce = blk_enable_write_cache(s->blk);
    return true;
}

/* ---- the disk ---- */

static void blk_was_resized(void *opaque)
{
    virtio_config_event(&((VirtIOBlk *)opaque)->vdev);
}

static char *describe(void *opaque)
{
    const DeviceState *dev = opaque;

    return g_strdup_printf("device '%s'", dev->id ?: dev->path);
}

static const BlockDevOps virtio_blk_dev_ops = {
    .resized = blk_was_resized,
    .drained_begin = virtio_blk_drained_begin,
    .drained_end = virtio_blk_drained_end,
    .drained_poll = virtio_blk_drained_poll,
    .describe = describe,
};

static bool find_drive(VirtIOBlk *s, Error **errp)
{
    BlockDriverState *bs;

    if (!s->drive) {
        error_setg(errp, "drive property not set");
        return false;
    }
    s->blk = blk_by_name(s->drive);
    s->blk_is_ours = !s->blk;
    if (s->blk) {
        if (!blk_is_available(s->blk)) {
            error_setg(errp, "Device needs media, but drive is empty");
            return false;
        }
        blk_ref(s->blk);
        return true;
    }
    bs = bdrv_find_node(s->drive);
    if (!bs) {
        error_setg(errp, "Property 'virtio-blk-device.drive' can't find value '%s'", s->drive);
        return false;
    }
    s->blk = blk_new(0, BLK_PERM_ALL);
    if (blk_insert_bs(s->blk, bs, errp) < 0) {
        blk_unref(g_steal_pointer(&s->blk));
        return false;
    }
    return true;
}

static bool attach_drive(VirtIOBlk *s, Error **errp)
{
    DeviceState *dev = &s->vdev.parent;
    uint64_t perm = BLK_PERM_CONSISTENT_READ;
    uint64_t shared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE;

    s->read_only = bdrv_is_read_only(blk_bs(s->blk));
    perm |= s->read_only ? 0 : BLK_PERM_WRITE;
    shared |= s->share_rw ? BLK_PERM_WRITE : 0;
    if (blk_attach_dev(s->blk, dev->id, dev->path, &virtio_blk_dev_ops, s) < 0) {
        error_setg(errp, "Drive '%s' is already in use by another block device", s->drive);
        return false;
    }
    if (blk_set_perm(s->blk, perm, shared, errp) < 0) {
        blk_detach_dev(s->blk);
        return false;
    }
    blk_set_disable_request_queuing(s->blk, true);
    blk_iostatus_enable(s->blk);
    return true;
}

static void detach_drive(VirtIOBlk *s)
{
    blk_set_disable_request_queuing(s->blk, false);
    blk_detach_dev(s->blk);
    /* Rights can always be given back. */
    blk_set_perm(s->blk, 0, BLK_PERM_ALL, &error_abort);
}

/* ---- the context ---- */

static bool find_iothread(VirtIOBlk *s, Error **errp)
{
    s->ctx = aio_context_main();
    if (!s->iothread_id) {
        return true;
    }
    s->iothread = iothread_by_id(s->iothread_id);
    if (!s->iothread) {
        error_setg(errp, "Property 'virtio-blk-device.iothread' can't find value '%s'",
                   s->iothread_id);
        return false;
    }
    iothread_get(s->iothread);
    s->ctx = iothread_context(s->iothread);
    return true;
}

static void release_iothread(VirtIOBlk *s)
{
    if (s->iothread) {
        iothread_put(g_steal_pointer(&s->iothread));
    }
    s->ctx = NULL;
}

/* Requests are carried over where the node cannot follow; it is a matter of speed. */
static void move_node(VirtIOBlk *s, AioContext *ctx)
{
    if (s->iothread) {
        blk_set_aio_context(s->blk, ctx, NULL);
    }
}

/* ---- life ---- */

static void release_drive(VirtIOBlk *s)
{
    blk_unref(g_steal_pointer(&s->blk));
}

static bool virtio_blk_realize(DeviceState *dev, Error **errp)
{
    VirtIOBlk *s = DEVICE_CAST(VirtIOBlk, dev);

    if (!check_sizes(s, errp)) {
        return false;
    }
    virtio_blk_queues_init(s);
    if (!find_iothread(s, errp)) {
        return false;
    }
    if (!find_drive(s, errp)) {
        goto fail_iothread;
    }
    if (!attach_drive(s, errp)) {
        goto fail_drive;
    }
    if (!set_policies(s, errp) || !set_write_cache(s, errp) ||
        !virtio_init(&s->vdev, &virtio_blk_class, s->num_queues, s->queue_size, errp)) {
        goto fail_attached;
    }
    move_node(s, s->ctx);
    refresh_length(s);
    return true;

fail_attached:
    detach_drive(s);
fail_drive:
    release_drive(s);
fail_iothread:
    release_iothread(s);
    return false;
}

static void virtio_blk_unrealize(DeviceState *dev)
{
    VirtIOBlk *s = DEVICE_CAST(VirtIOBlk, dev);

    virtio_exit(&s->vdev);
    virtio_blk_forget_held(s);
    move_node(s, aio_context_main());
    detach_drive(s);
    release_drive(s);
    release_iothread(s);
}

static void virtio_blk_device_reset(DeviceState *dev)
{
    virtio_reset(&DEVICE_CAST(VirtIOBlk, dev)->vdev);
}

/* ---- migration ---- */

static int virtio_blk_pre_save(void *opaque, Error **errp)
{
    VirtIOBlk *s = opaque;

    s->wce = blk_enable_write_cache(s->blk);
    /* A machine that was loaded and never ran has them as they came. */
    if (s->held) {
        s->num_held = 0;
    }
    for (const VirtIOBlkRequest *req = s->held; req; req = req->next) {
        g_assert(s->num_held < VIRTIO_BLK_TAKEN_MAX);
        s->held_heads[s->num_held++] = (VirtIOBlkHeld){ req->queue, req->elem.head };
    }
    return 0;
}

static void virtio_blk_post_save(void *opaque)
{
    VirtIOBlk *s = opaque;

    if (s->held) {
        s->num_held = 0;
    }
}

static int virtio_blk_post_load(void *opaque, int version_id, Error **errp)
{
    VirtIOBlk *s = opaque;

    for (uint32_t i = 0; i < s->num_held; i++) {
        const VirtIOBlkHeld *h = &s->held_heads[i];

        if (h->queue >= s->num_queues || !s->vdev.queues[h->queue].ready ||
            h->head >= s->vdev.queues[h->queue].num) {
            error_setg(errp, "%s: request %u of queue %u, which is to be done again, cannot be",
                       s->vdev.parent.path, h->head, h->queue);
            return -1;
        }
    }
    blk_set_enable_write_cache(s->blk, s->wce);
    return 0;
}

static bool some_are_held(void *opaque)
{
    const VirtIOBlk *s = opaque;

    return s->held || s->num_held;
}

static int virtio_blk_pre_load(void *opaque, Error **errp)
{
    VirtIOBlk *s = opaque;

    virtio_blk_forget_held(s);
    return 0;
}

static const VMStateDescription vmstate_held_request = {
    .name = "virtio-blk/held/request",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(queue, VirtIOBlkHeld),
        VMSTATE_UINT16(head, VirtIOBlkHeld),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_held = {
    .name = "virtio-blk/held",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = some_are_held,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(num_held, VirtIOBlk),
        VMSTATE_STRUCT_VARRAY_UINT32(held_heads, VirtIOBlk, num_held, 1, vmstate_held_request,
                                     VirtIOBlkHeld),
        VMSTATE_END_OF_LIST() },
};

static const VMStateDescription vmstate_virtio_blk = {
    .name = "virtio-blk",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = virtio_blk_pre_save,
    .post_save = virtio_blk_post_save,
    .pre_load = virtio_blk_pre_load,
    .post_load = virtio_blk_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_STRUCT(vdev, VirtIOBlk, 1, vmstate_virtio, VirtIODevice),
        VMSTATE_BOOL(wce, VirtIOBlk),
        VMSTATE_END_OF_LIST() },
    .subsections = (const VMStateDescription *const[]) { &vmstate_held, NULL },
};

static const Property virtio_blk_properties[] = {
    DEFINE_PROP_DRIVE("drive", VirtIOBlk, drive, 0, "id of a -drive, or name of a node"),
    DEFINE_PROP_IOTHREAD("iothread", VirtIOBlk, iothread_id, 0, "where requests are served"),
    DEFINE_PROP_STR("serial", VirtIOBlk, serial, 0, "serial number, up to 20 characters"),
    DEFINE_PROP_UINT16("num-queues", VirtIOBlk, num_queues, 1, 0, "request queues"),
    DEFINE_PROP_UINT16("queue-size", VirtIOBlk, queue_size, 256, 0, "descriptors of a queue"),
    DEFINE_PROP_STR("werror", VirtIOBlk, werror, 0,
                    "when a write fails: report, ignore, enospc, stop; auto: as the drive has it"),
    DEFINE_PROP_STR("rerror", VirtIOBlk, rerror, 0,
                    "when a read fails: report, ignore, stop; auto: as the drive has it"),
    DEFINE_PROP_BOOL("share-rw", VirtIOBlk, share_rw, false, 0, "others may write to the disk"),
    DEFINE_PROP_STR("write-cache", VirtIOBlk, write_cache, 0,
                    "on: the guest must flush, off: it need not, auto: as the drive has it"),
    DEFINE_PROP_BOOL("config-wce", VirtIOBlk, config_wce, true, 0,
                     "the guest may change write-cache"),
    DEFINE_PROP_UINT32("logical_block_size", VirtIOBlk, logical_block, 512, 0,
                       "unit of the guest's requests"),
    DEFINE_PROP_UINT32("physical_block_size", VirtIOBlk, physical_block, 512, 0,
                       "unit that is written without reading"),
    DEFINE_PROP_UINT16("min_io_size", VirtIOBlk, min_io, 0, 0, "smallest good size of a request"),
    DEFINE_PROP_UINT32("opt_io_size", VirtIOBlk, opt_io, 0, 0, "best size of a request"),
    DEFINE_PROP_UINT32("discard_granularity", VirtIOBlk, discard_granularity, 0, 0,
                       "alignment of discards; 0: logical_block_size"),
    DEFINE_PROP_BOOL("discard", VirtIOBlk, discard, true, 0, "offer discards"),
    DEFINE_PROP_BOOL("write-zeroes", VirtIOBlk, write_zeroes, true, 0, "offer writing of zeroes"),
    DEFINE_PROP_UINT32("max-discard-sectors", VirtIOBlk, max_discard_sectors,
                       VIRTIO_BLK_RANGE_SECTORS_MAX, 0, "longest discard, in 512 bytes"),
    DEFINE_PROP_UINT32("max-write-zeroes-sectors", VirtIOBlk, max_write_zeroes_sectors,
                       VIRTIO_BLK_RANGE_SECTORS_MAX, 0, "longest writing of zeroes, in 512 bytes"),
    DEFINE_PROP_BOOL("request-merging", VirtIOBlk, merging, true, 0,
                     "neighbouring requests become one"),
    VIRTIO_PROPERTIES(VirtIOBlk, vdev),
    DEFINE_PROP_END(),
};

const DeviceClass device_virtio_blk = {
    .name = "virtio-blk-device",
    .alias = "virtio-blk",
    .desc = "virtio block device",
    .instance_size = sizeof(VirtIOBlk),
    .properties = virtio_blk_properties,
    .user_creatable = true,
    .realize = virtio_blk_realize,
    .unrealize = virtio_blk_unrealize,
    .reset = virtio_blk_device_reset,
    .vmsd = &vmstate_virtio_blk,
};
