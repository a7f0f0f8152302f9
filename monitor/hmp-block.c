/*
 * HMP: disks and what goes on with them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "block/block-backend.h"
#include "block/image-info.h"
#include "block/qemu-io-cmds.h"
#include "monitor/hmp.h"
#include "qapi/qapi-commands-block.h"
#include "qapi/qapi-commands-job.h"

/* ---- info block ---- */

/* The device's side: how it holds the disk. */
static void print_holder(Monitor *mon, const BlockInfo *info)
{
    if (info->qdev) {
        monitor_printf(mon, "    Attached to:      %s\n", info->qdev);
    }
    if (info->has_io_status && info->io_status != BLOCK_DEVICE_IO_STATUS_OK) {
        monitor_printf(mon, "    I/O status:       %s\n", BlockDeviceIoStatus_str(info->io_status));
    }
    if (info->removable) {
        monitor_printf(mon, "    Removable device: %slocked, tray closed\n",
                       info->locked ? "" : "not ");
    }
}

static void print_images(Monitor *mon, const ImageInfo *image)
{
    g_autoptr(GString) text = g_string_new("\nImages:\n");

    for (; image; image = image->backing_image) {
        bdrv_node_info_print(text, qapi_ImageInfo_base(image), 0, false);
    }
    monitor_puts(mon, text->str);
}

static void print_node(Monitor *mon, const BlockDeviceInfo *node, bool verbose)
{
    monitor_printf(mon, "    Cache mode:       %s%s%s\n",
                   node->cache->writeback ? "writeback" : "writethrough",
                   node->cache->direct ? ", direct" : "",
                   node->cache->no_flush ? ", ignore flushes" : "");
    if (node->backing_file) {
        monitor_printf(mon, "    Backing file:     %s (chain depth: %" PRId64 ")\n",
                       node->backing_file, node->backing_file_depth);
    }
    if (node->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF) {
        monitor_printf(mon, "    Detect zeroes:    %s\n",
                       BlockdevDetectZeroesOptions_str(node->detect_zeroes));
    }
    if (verbose) {
        print_images(mon, node->image);
    }
}

/* @info: a disk, or NULL for a node alone. */
static void print_block(Monitor *mon, const BlockInfo *info, const BlockDeviceInfo *node,
                        bool verbose)
{
    if (info && *info->device) {
        monitor_puts(mon, info->device);
        if (node) {
            monitor_printf(mon, " (%s)", node->node_name);
        }
    } else {
        monitor_puts(mon, node ? node->node_name : info->qdev);
    }
    if (node) {
        monitor_printf(mon, ": %s (%s%s)\n", node->file, node->drv, node->ro ? ", read-only" : "");
    } else {
        monitor_printf(mon, ": [not inserted]\n");
    }
    if (info) {
        print_holder(mon, info);
    }
    if (node) {
        print_node(mon, node, verbose);
    }
}

static bool print_disks(Monitor *mon, const char *device, bool verbose, bool *any)
{
    Error *err = NULL;
    BlockInfoList *list = qmp_query_block(&err);

    for (BlockInfoList *b = list; b; b = b->next) {
        if (!device || !strcmp(device, b->value->device)) {
            monitor_puts(mon, *any ? "\n" : "");
            print_block(mon, b->value, b->value->inserted, verbose);
            *any = true;
        }
    }
    qapi_free_BlockInfoList(list);
    return !hmp_handle_error(mon, err);
}

static void print_nodes(Monitor *mon, const char *device, bool verbose, bool *any)
{
    Error *err = NULL;
    BlockDeviceInfoList *list = qmp_query_named_block_nodes(false, false, &err);

    for (BlockDeviceInfoList *n = list; n; n = n->next) {
        if (!device || !strcmp(device, n->value->node_name)) {
            monitor_puts(mon, *any ? "\n" : "");
            print_block(mon, NULL, n->value, verbose);
            *any = true;
        }
    }
    qapi_free_BlockDeviceInfoList(list);
    hmp_handle_error(mon, err);
}

void hmp_info_block(Monitor *mon, HMPArgs *args)
{
    const char *device = hmp_str(args, "device");
    bool verbose = hmp_bool(args, "verbose", false), nodes = hmp_bool(args, "nodes", false);
    bool any = false;

    if ((!nodes || device) && !print_disks(mon, device, verbose, &any)) {
        return;
    }
    if (nodes || (device && !any)) {
        print_nodes(mon, device, verbose, &any);
    }
}

void hmp_info_blockstats(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    BlockStatsList *list = qmp_query_blockstats(false, false, &err);

    for (BlockStatsList *s = list; s; s = s->next) {
        const BlockDeviceStats *n = s->value->stats;

        monitor_printf(mon,
                       "%s: rd_bytes=%" PRId64 " wr_bytes=%" PRId64 " rd_operations=%" PRId64
                       " wr_operations=%" PRId64 " flush_operations=%" PRId64
                       " wr_total_time_ns=%" PRId64 " rd_total_time_ns=%" PRId64
                       " flush_total_time_ns=%" PRId64 " rd_merged=%" PRId64 " wr_merged=%" PRId64
                       " idle_time_ns=%" PRId64 "\n",
                       *s->value->device ? s->value->device : s->value->qdev, n->rd_bytes,
                       n->wr_bytes, n->rd_operations, n->wr_operations, n->flush_operations,
                       n->wr_total_time_ns, n->rd_total_time_ns, n->flush_total_time_ns,
                       n->rd_merged, n->wr_merged, n->has_idle_time_ns ? n->idle_time_ns : 0);
    }
    qapi_free_BlockStatsList(list);
    hmp_handle_error(mon, err);
}

void hmp_info_block_jobs(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    BlockJobInfoList *list = qmp_query_block_jobs(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (!list) {
        monitor_printf(mon, "No active jobs\n");
    }
    for (BlockJobInfoList *j = list; j; j = j->next) {
        monitor_printf(mon, "Type %s, device %s: Completed %" PRId64 " of %" PRId64
                       " bytes, speed limit %" PRId64 " bytes/s\n", JobType_str(j->value->type),
                       j->value->device, j->value->offset, j->value->len, j->value->speed);
    }
    qapi_free_BlockJobInfoList(list);
}

/* ---- changing and trying ---- */

void hmp_block_resize(Monitor *mon, HMPArgs *args)
{
    const char *name = hmp_str(args, "device");
    bool is_drive = blk_by_name(name) != NULL;
    Error *err = NULL;

    qmp_block_resize(is_drive ? name : NULL, is_drive ? NULL : name, hmp_int(args, "size", 0),
                     &err);
    hmp_handle_error(mon, err);
}

static BlockBackend *disk_of_device(const char *id)
{
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (blk_get_attached_dev(blk) && !strcmp(blk_get_attached_dev_id(blk), id)) {
            return blk;
        }
    }
    return NULL;
}

/*
 * Who makes the requests: the device's own holder of the disk where there is one, as it does not
 * let others write; else one of this command alone. A reference; NULL with @errp set.
 */
static BlockBackend *holder_for_io(const char *name, bool is_device, Error **errp)
{
    BlockBackend *blk = is_device ? disk_of_device(name) : blk_by_name(name);
    BlockDriverState *bs;

    if (is_device && !blk) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' has no disk, or does not exist",
                  name);
        return NULL;
    }
    if (blk && blk_get_attached_dev(blk)) {
        blk_ref(blk);
        return blk;
    }
    bs = bdrv_lookup(name, errp);
    return bs ? blk_new_with_bs(bs, 0, BLK_PERM_ALL, errp) : NULL;
}

static void print(void *opaque, const char *text)
{
    monitor_puts(opaque, text);
}

void hmp_qemu_io(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    BlockBackend *blk = holder_for_io(hmp_str(args, "device"), hmp_bool(args, "qdev", false), &err);
    QemuIO *io;

    if (hmp_handle_error(mon, err)) {
        return;
    }
    io = qemu_io_new(blk, print, mon);
    qemu_io_command(io, hmp_str(args, "command"));
    qemu_io_free(io);
    blk_unref(blk);
}

/* Drives and nodes by name. */
void hmp_complete_disk(Completions *c, unsigned n)
{
    if (n > 0) {
        return;
    }
    for (BlockBackend *blk = blk_next(NULL); blk; blk = blk_next(blk)) {
        completions_add(c, blk_name(blk));
    }
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        completions_add(c, bdrv_get_node_name(bs));
    }
}
