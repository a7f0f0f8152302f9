/*
 * ferry-img measure: how long the file of a new image would be.
 *
 * A qcow2 file of N data clusters has a header, tables of two levels for the whole disk, and counts
 * for all of these clusters and for the counts themselves. "required" is with the data there is,
 * "fully allocated" with every cluster.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-bitmaps.h"
#include "tools/img-common.h"
#include "util/cutils.h"
#include "util/round.h"

#define DEFAULT_CLUSTER_BYTES (64 * KiB)
#define DEFAULT_REFCOUNT_BITS 16
#define L1_ENTRIES_MAX (32 * MiB / 8)
#define TABLE_ENTRY_BYTES 8
#define MIN_EXTENDED_CLUSTER_BYTES (16u << 10)
/*
 * On disk: a table entry a bitmap's cluster; a directory entry of 24 bytes and a name, in units of
 * 8.
 */
#define BITMAP_DIR_ENTRY_BYTES 24

static const ImgOption options[] = {
    { 'O', NULL, "FORMAT", "format of the new image (default: raw)" },
    { 'o', NULL, "OPTIONS", "options of the format, NAME=VALUE,...; 'help' lists them" },
    { IMG_OPT_SIZE, "size", "SIZE", "of an empty disk of that length, instead of FILENAME" },
    { 'f', NULL, "FORMAT", "format of FILENAME (default: look into it)" },
    { 'l', NULL, "SNAPSHOT", "of an internal snapshot: ID, NAME or snapshot.id=ID,snapshot.name=NAME" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { IMG_OPT_OUTPUT, "output", "FORM", "human (default) or json" },
    { 'U', "force-share", NULL, "open the image although others write to it" },
    { 0 },
};

typedef struct Measure {
    const BlockDriver *drv;
    struct json_object *opts;
    BlockBackend *blk;          /* NULL: an empty disk */
    int64_t size;
    uint64_t required, fully, bitmaps;
    bool has_bitmaps;
    /* Of qcow2. */
    uint64_t cluster, refcount_bits;
    unsigned l2_entry_bytes;
    uint64_t data_bytes;        /* in whole clusters */
    int ret;
} Measure;

static const char *get_string(struct json_object *opts, const char *key)
{
    struct json_object *value;

    return json_object_object_get_ex(opts, key, &value) ? json_object_get_string(value) : NULL;
}

/* ---- qcow2 ---- */

static bool is_power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static int read_qcow2_options(Measure *m, Error **errp)
{
    const char *cluster = get_string(m->opts, "cluster_size"),
               *bits = get_string(m->opts, "refcount_bits"),
               *extended = get_string(m->opts, "extended_l2");
    bool on = false;

    m->cluster = DEFAULT_CLUSTER_BYTES;
    m->refcount_bits = DEFAULT_REFCOUNT_BITS;
    if ((cluster && !parse_size(cluster, &m->cluster, errp)) ||
        (bits && !parse_uint64(bits, &m->refcount_bits, errp))) {
        return -1;
    }
    if (!is_power_of_two(m->cluster) || m->cluster < 512 || m->cluster > 2 * MiB) {
        error_setg(errp, "Cluster size must be a power of two between 512 and 2048k");
        return -1;
    }
    if (extended && !parse_bool("extended_l2", extended, &on, errp)) {
        return -1;
    }
    if (on && m->cluster < MIN_EXTENDED_CLUSTER_BYTES) {
        error_setg(errp, "Extended L2 entries are only supported with cluster sizes of at least %u bytes",
                   MIN_EXTENDED_CLUSTER_BYTES);
        return -1;
    }
    m->l2_entry_bytes = on ? 2 * TABLE_ENTRY_BYTES : TABLE_ENTRY_BYTES;
    if (!is_power_of_two(m->refcount_bits) || m->refcount_bits > 64) {
        error_setg(errp, "Refcount width must be a power of two and may not exceed 64 bits");
        return -1;
    }
    return 0;
}

/* The clusters that count @clusters others, and themselves. */
static uint64_t refcount_clusters(const Measure *m, uint64_t clusters)
{
    uint64_t per_block = m->cluster * 8 / m->refcount_bits, table = 0, blocks = 0, before;

    do {
        before = table + blocks;
        blocks = (clusters + table + blocks + per_block - 1) / per_block;
        table = round_up_u64(blocks * TABLE_ENTRY_BYTES, m->cluster) / m->cluster;
    } while (table + blocks != before);
    return before;
}

/* All of a file whose every cluster is allocated. */
static uint64_t full_qcow2_bytes(const Measure *m)
{
    uint64_t data = round_up_u64(m->size, m->cluster) / m->cluster;
    uint64_t l2 = round_up_u64(data * m->l2_entry_bytes, m->cluster) / m->cluster;
    uint64_t l1 = round_up_u64(l2 * TABLE_ENTRY_BYTES, m->cluster) / m->cluster;
    uint64_t clusters = 1 + l1 + l2 + data;

    return (clusters + refcount_clusters(m, clusters)) * m->cluster;
}

/* How many clusters of the source are not known to be zero. */
static void coroutine_fn count_data(void *opaque)
{
    Measure *m = opaque;
    int64_t offset = 0, counted_to = 0;

    while (offset < m->size) {
        int64_t n = 0, end;
        int ret =
            blk_co_block_status_above(m->blk, NULL, offset, m->size - offset, &n, NULL, NULL, NULL);

        if (ret < 0 || n <= 0) {
            m->ret = ret < 0 ? ret : -EIO;
            return;
        }
        end = offset + n;
        if (!(ret & BDRV_BLOCK_ZERO)) {
            int64_t first = MAX(offset / (int64_t)m->cluster * (int64_t)m->cluster, counted_to);

            counted_to = round_up_u64(end, m->cluster);
            m->data_bytes += MAX(counted_to - first, 0);
        }
        offset = end;
    }
}

static uint64_t bitmap_clusters(const Measure *m, const BdrvDirtyBitmap *b)
{
    uint64_t bytes = bdrv_dirty_bitmap_serialization_size(b);
    uint64_t clusters = round_up_u64(bytes, m->cluster) / m->cluster;

    return clusters + round_up_u64(clusters * TABLE_ENTRY_BYTES, m->cluster) / m->cluster;
}

static void measure_bitmaps(Measure *m)
{
    BlockDriverState *bs = blk_bs(m->blk);
    const char *compat = get_string(m->opts, "compat");
    uint64_t directory = 0;

    m->has_bitmaps =
        img_bitmaps_supported(bs) && (!compat || (strcmp(compat, "0.10") && strcmp(compat, "v2")));
    if (!m->has_bitmaps) {
        return;
    }
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(bs, NULL); b;
         b = bdrv_dirty_bitmap_next(bs, b)) {
        if (bdrv_dirty_bitmap_get_persistence(b) && !bdrv_dirty_bitmap_inconsistent(b)) {
            m->bitmaps += bitmap_clusters(m, b) * m->cluster;
            directory += round_up_u64(BITMAP_DIR_ENTRY_BYTES + strlen(bdrv_dirty_bitmap_name(b)), 8);
        }
    }
    m->bitmaps += round_up_u64(directory, m->cluster);
}

static int measure_qcow2(Measure *m, Error **errp)
{
    const char *prealloc = get_string(m->opts, "preallocation");

    if (read_qcow2_options(m, errp) < 0) {
        return -1;
    }
    m->size = round_up_u64(m->size, BDRV_SECTOR_BYTES);
    if ((uint64_t)m->size > L1_ENTRIES_MAX * (m->cluster / m->l2_entry_bytes) * m->cluster) {
        error_setg(errp, "The image size is too large (try using a larger cluster size)");
        return -1;
    }
    if (m->blk) {
        img_run(count_data, m);
        measure_bitmaps(m);
    }
    if (m->ret < 0) {
        error_setg_errno(errp, -m->ret, "Unable to get block status");
        return -1;
    }
    if (prealloc && (!strcmp(prealloc, "full") || !strcmp(prealloc, "falloc"))) {
        m->data_bytes = round_up_u64(m->size, m->cluster);
    }
    m->fully = full_qcow2_bytes(m);
    m->required = m->fully - round_up_u64(m->size, m->cluster) + m->data_bytes;
    return 0;
}

/* ---- the subcommand ---- */

static int measure(Measure *m, Error **errp)
{
    if (m->blk) {
        m->size = blk_getlength(m->blk);
        if (m->size < 0) {
            error_setg_errno(errp, -m->size, "Unable to get the length of the image");
            return -1;
        }
    }
    if (m->drv->driver == BLOCKDEV_DRIVER_QCOW2) {
        return measure_qcow2(m, errp);
    }
    m->required = m->fully = m->size;
    return 0;
}

static void print(const Measure *m, bool json)
{
    if (json) {
        struct json_object *obj = json_object_new_object();

        json_object_object_add(obj, "required", json_object_new_uint64(m->required));
        json_object_object_add(obj, "fully-allocated", json_object_new_uint64(m->fully));
        if (m->has_bitmaps) {
            json_object_object_add(obj, "bitmaps", json_object_new_uint64(m->bitmaps));
        }
        img_print_json(obj);
        return;
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required,
           m->fully);
    if (m->has_bitmaps) {
        printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
    }
}

typedef struct Request {
    const char *format;
    GPtrArray *options;
    ImgOpen how;
    int64_t size;               /* -1: that of the image */
    bool json;
} Request;

static int work(const Request *r, const char *filename, Error **errp)
{
    Measure m = { .size = r->size, .drv = bdrv_find_driver(r->format, NULL) };
    int ret = -1;

    if (!m.drv || !m.drv->co_create_opts ||
        (m.drv->driver != BLOCKDEV_DRIVER_QCOW2 && m.drv->is_format)) {
        error_setg(errp, "Format driver '%s' does not support size measurement", r->format);
        return -1;
    }
    m.opts = img_parse_create_options(m.drv, r->options, errp);
    if (m.opts && filename) {
        m.blk = img_open(filename, &r->how, errp);
    }
    if (m.opts && (m.blk || !filename)) {
        ret = measure(&m, errp);
    }
    if (ret == 0) {
        print(&m, r->json);
    }
    blk_unref(m.blk);
    json_object_put(m.opts);
    return ret;
}

static int run(ImgArgs *args)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    Request r = { .format = "raw", .options = list, .size = -1 };
    Error *err = NULL;
    int opt, ret;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'O': r.format = args->arg; break;
        case 'o': g_ptr_array_add(list, (char *)args->arg); break;
        case 'f': r.how.format = args->arg; break;
        case 'l': r.how.snapshot = args->arg; break;
        case 'U': r.how.force_share = true; break;
        case IMG_OPT_SIZE: img_arg_size(args, "image size", 0, BDRV_MAX_LENGTH, &r.size); break;
        case IMG_OPT_IMAGE_OPTS: r.how.image_opts = true; break;
        case IMG_OPT_OUTPUT: img_arg_output(args, &r.json); break;
        }
    }
    if (args->stop) {
        return args->status;
    }
    if (img_wants_option_help(list)) {
        ret = img_print_create_options(r.format, NULL, &err);
    } else if (args->n_operands > 1) {
        return img_usage_error(args, "At most one filename argument is allowed.");
    } else if (args->n_operands == 1 && r.size >= 0) {
        return img_usage_error(args, "--size N cannot be used together with a filename.");
    } else if (args->n_operands == 0 && r.size < 0) {
        return img_usage_error(args, "Either --size N or one filename must be specified.");
    } else if (args->n_operands == 0 && (r.how.format || r.how.image_opts || r.how.snapshot)) {
        return img_usage_error(args, "--image-opts, -f and -l can only be used with a filename argument.");
    } else {
        ret = work(&r, args->n_operands ? args->operands[0] : NULL, &err);
    }
    if (ret < 0) {
        error_report_err(err);
    }
    return ret < 0 ? 1 : 0;
}

const ImgCommand img_cmd_measure = {
    "measure", "Tell how long the file of a new image would be", "[FILENAME]", options, 1, run,
};
