/*
 * Facts of images, gathered from node and driver.
 *
 * What an image's own driver says is printed by walking its JSON form, so that a new member of the
 * schema needs no line here.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/image-info.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <string.h>
#include <time.h>

#include "block/driver.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "qapi/util.h"
#include "util/cutils.h"

/* ---- facts ---- */

typedef struct Facts {
    BlockDriverState *bs;
    int64_t allocated;
    BlockDriverInfo info;
    bool has_info;
    SnapshotInfoList *snapshots;
    int snapshots_ret;
    Error **errp;
} Facts;

static void coroutine_fn gather(void *opaque)
{
    Facts *f = opaque;
    const BlockDriver *drv = f->bs->drv;

    f->allocated = bdrv_co_get_allocated_file_size(f->bs);
    f->has_info = drv->co_get_info && drv->co_get_info(f->bs, &f->info) >= 0;
    if (drv->co_list_snapshots) {
        f->snapshots_ret = drv->co_list_snapshots(f->bs, &f->snapshots, f->errp);
    }
}

static void fill_backing(BlockDriverState *bs, BlockNodeInfo *info)
{
    if (!bs->backing_file) {
        return;
    }
    info->backing_filename = g_strdup(bs->backing_file);
    info->full_backing_filename = bdrv_full_backing_filename(bs, NULL);
    info->backing_filename_format = g_strdup(bs->backing_format);
}

static int fill_node_info(BlockDriverState *bs, BlockNodeInfo *info, Error **errp)
{
    Facts f = { .bs = bs, .errp = errp };
    int64_t length = bdrv_getlength(bs);
    Error *err = NULL;

    if (length < 0) {
        error_setg_errno(errp, -length, "Can't get image size '%s'", bdrv_get_filename(bs));
        return -1;
    }
    aio_co_run(bdrv_get_aio_context(bs), gather, &f);
    if (f.snapshots_ret < 0) {
        error_prepend(errp, "Can't list the snapshots of '%s': ", bdrv_get_filename(bs));
        return -1;
    }
    info->filename = g_strdup(bdrv_get_filename(bs));
    info->format = g_strdup(bdrv_get_format_name(bs));
    info->virtual_size = length;
    info->has_actual_size = f.allocated >= 0;
    info->actual_size = f.allocated;
    if (f.has_info) {
        info->has_cluster_size = f.info.cluster_size > 0;
        info->cluster_size = f.info.cluster_size;
        info->has_dirty_flag = true;
        info->dirty_flag = f.info.is_dirty;
    }
    info->has_snapshots = f.snapshots != NULL;
    info->snapshots = f.snapshots;
    fill_backing(bs, info);
    if (bs->drv->get_specific_info) {
        info->format_specific = bs->drv->get_specific_info(bs, &err);
    }
    error_propagate(errp, err);
    return err ? -1 : 0;
}

ImageInfo *bdrv_query_image_info(BlockDriverState *bs, bool flat, Error **errp)
{
    g_autoptr(ImageInfo) info = g_new0(ImageInfo, 1);
    BlockDriverState *below = flat ? NULL : bdrv_filter_or_cow_bs(bs);

    if (fill_node_info(bs, qapi_ImageInfo_base(info), errp) < 0) {
        return NULL;
    }
    if (below) {
        info->backing_image = bdrv_query_image_info(below, flat, errp);
        if (!info->backing_image) {
            return NULL;
        }
    }
    return g_steal_pointer(&info);
}

BlockGraphInfo *bdrv_query_block_graph_info(BlockDriverState *bs, Error **errp)
{
    g_autoptr(BlockGraphInfo) info = g_new0(BlockGraphInfo, 1);
    BlockChildInfoList **tail = &info->children;

    if (fill_node_info(bs, qapi_BlockGraphInfo_base(info), errp) < 0) {
        return NULL;
    }
    for (GList *l = bs->children.head; l; l = l->next) {
        const BdrvChild *c = l->data;
        BlockChildInfo *child = g_new0(BlockChildInfo, 1);

        child->name = g_strdup(c->name);
        QAPI_LIST_APPEND(tail, child);
        child->info = bdrv_query_block_graph_info(c->bs, errp);
        if (!child->info) {
            return NULL;
        }
    }
    return g_steal_pointer(&info);
}

/* ---- text ---- */

static void print_clock(GString *out, const SnapshotInfo *sn)
{
    int64_t sec = sn->vm_clock_sec;

    g_string_append_printf(out, " %04" PRId64 ":%02d:%02d.%03d", sec / 3600, (int)(sec / 60 % 60),
                           (int)(sec % 60), (int)(sn->vm_clock_nsec / 1000000));
}

static void print_snapshot(GString *out, const SnapshotInfo *sn)
{
    g_autofree char *size = size_to_str(sn->vm_state_size);
    time_t when = sn->date_sec;
    char date[64] = "";
    struct tm tm;

    if (localtime_r(&when, &tm)) {
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    }
    g_string_append_printf(out, "%-7s %-16s %8s %19s", sn->id, sn->name, size, date);
    print_clock(out, sn);
    if (sn->has_icount) {
        g_string_append_printf(out, " %10" PRId64, sn->icount);
    } else {
        g_string_append_printf(out, " %10s", "--");
    }
}

void bdrv_snapshots_print(GString *out, const SnapshotInfoList *list, int indent)
{
    if (!list) {
        return;
    }
    g_string_append_printf(out, "%*s%-7s %-16s %8s %19s %15s %10s\n", indent, "", "ID", "TAG",
                           "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for (; list; list = list->next) {
        g_string_append_printf(out, "%*s", indent, "");
        print_snapshot(out, list->value);
        g_string_append_c(out, '\n');
    }
}

static void print_json(GString *out, struct json_object *value, int indent);

/* "name: value", or "name:" and what is inside on lines of its own. */
static void print_member(GString *out, const char *name, struct json_object *value, int indent)
{
    bool is_container = json_object_is_type(value, json_type_object) ||
                        json_object_is_type(value, json_type_array);

    g_string_append_printf(out, "%*s", indent, "");
    for (; *name; name++) {
        g_string_append_c(out, *name == '-' || *name == '_' ? ' ' : *name);
    }
    g_string_append(out, is_container ? ":\n" : ": ");
    print_json(out, value, is_container ? indent + 4 : 0);
    if (!is_container) {
        g_string_append_c(out, '\n');
    }
}

static void print_json(GString *out, struct json_object *value, int indent)
{
    if (json_object_is_type(value, json_type_object)) {
        json_object_object_foreach(value, name, member) {
            print_member(out, name, member, indent);
        }
    } else if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value); i++) {
            g_autofree char *index = g_strdup_printf("[%zu]", i);

            print_member(out, index, json_object_array_get_idx(value, i), indent);
        }
    } else if (json_object_is_type(value, json_type_null)) {
        g_string_append(out, "null");
    } else {
        g_string_append(out, json_object_get_string(value));
    }
}

void bdrv_image_specific_print(GString *out, const ImageInfoSpecific *info, int indent)
{
    ImageInfoSpecific *walked = (ImageInfoSpecific *)info;
    struct json_object *obj = NULL, *data;
    Visitor *v = json_output_visitor_new(&obj);

    visit_type_ImageInfoSpecific(v, NULL, &walked, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    if (json_object_object_get_ex(obj, "data", &data)) {
        print_json(out, data, indent);
    }
    json_object_put(obj);
}

/* Whether there is anything below the driver's own name. */
static bool has_members(const ImageInfoSpecific *info)
{
    g_autoptr(GString) text = g_string_new(NULL);

    bdrv_image_specific_print(text, info, 0);
    return text->len > 0;
}

static void print_backing(GString *out, const BlockNodeInfo *info, int indent)
{
    g_string_append_printf(out, "%*sbacking file: %s", indent, "", info->backing_filename);
    if (!info->full_backing_filename) {
        g_string_append(out, " (cannot determine actual path)");
    } else if (strcmp(info->backing_filename, info->full_backing_filename)) {
        g_string_append_printf(out, " (actual path: %s)", info->full_backing_filename);
    }
    g_string_append_c(out, '\n');
    if (info->backing_filename_format) {
        g_string_append_printf(out, "%*sbacking file format: %s\n", indent, "",
                               info->backing_filename_format);
    }
}

void bdrv_node_info_print(GString *out, const BlockNodeInfo *info, int indent, bool protocol)
{
    g_autofree char *length = size_to_str(info->virtual_size);
    g_autofree char *on_disk = info->has_actual_size ? size_to_str(info->actual_size)
                                                     : g_strdup("unavailable");

    g_string_append_printf(out, "%*s%s: %s\n", indent, "", protocol ? "filename" : "image",
                           info->filename);
    g_string_append_printf(out, "%*s%s: %s\n", indent, "",
                           protocol ? "protocol type" : "file format", info->format);
    g_string_append_printf(out, "%*s%s: %s (%" PRId64 " bytes)\n", indent, "",
                           protocol ? "file length" : "virtual size", length, info->virtual_size);
    g_string_append_printf(out, "%*sdisk size: %s\n", indent, "", on_disk);
    if (info->has_cluster_size) {
        g_string_append_printf(out, "%*scluster_size: %" PRId64 "\n", indent, "",
                               info->cluster_size);
    }
    if (info->has_dirty_flag && info->dirty_flag) {
        g_string_append_printf(out, "%*scleanly shut down: no\n", indent, "");
    }
    if (info->backing_filename) {
        print_backing(out, info, indent);
    }
    if (info->has_snapshots && info->snapshots) {
        g_string_append_printf(out, "%*sSnapshot list:\n", indent, "");
        bdrv_snapshots_print(out, info->snapshots, indent);
    }
    if (info->format_specific && has_members(info->format_specific)) {
        g_string_append_printf(out, "%*sFormat specific information:\n", indent, "");
        bdrv_image_specific_print(out, info->format_specific, indent + 4);
    }
}
