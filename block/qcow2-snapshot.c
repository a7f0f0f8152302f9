/*
 * qcow2: internal snapshots. Ferry lists them, reads them and keeps them: every cluster of a snapshot
 * has its own count, so writing to the disk never changes it.
 *
 * An entry of the snapshot table:
 *      0   8  where the snapshot's L1 table is
 *      8   4  its entries
 *     12   2  length of the id
 *     14   2  length of the name
 *     16   4  when it was made: seconds since 1970
 *     20   4  and nanoseconds
 *     24   8  time of the machine in nanoseconds
 *     32   4  bytes of machine state (0 when it does not fit)
 *     36   4  length of the extra data
 *     40      extra data: 8 bytes of machine state, 8 length of the disk then, 8 instructions executed (all ones:
 *             not counted); each may be missing
 *             id, name; zeroes up to a multiple of 8
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "qapi/util.h"
#include "util/bswap.h"

#define ENTRY_BYTES 40
#define MAX_EXTRA_BYTES 1024

static void parse_extra(const uint8_t *extra, uint32_t len, Qcow2Snapshot *snap)
{
    if (len >= 8) {
        snap->vm_state_size = ldq_be_p(extra);
    }
    if (len >= 16) {
        snap->has_disk_size = true;
        snap->disk_size = ldq_be_p(extra + 8);
    }
    if (len >= 24) {
        snap->icount = ldq_be_p(extra + 16);
        snap->has_icount = snap->icount != UINT64_MAX;
    }
}

size_t qcow2_snapshot_parse(const uint8_t *buf, size_t len, Qcow2Snapshot *snap, Error **errp)
{
    uint32_t extra_len;
    uint16_t id_len, name_len;
    size_t end;

    *snap = (Qcow2Snapshot) { 0 };
    if (len < ENTRY_BYTES) {
        error_setg(errp, "the snapshot table is incomplete");
        return 0;
    }
    snap->l1_offset = ldq_be_p(buf);
    snap->l1_size = ldl_be_p(buf + 8);
    id_len = lduw_be_p(buf + 12);
    name_len = lduw_be_p(buf + 14);
    snap->date_sec = ldl_be_p(buf + 16);
    snap->date_nsec = ldl_be_p(buf + 20);
    snap->vm_clock_nsec = ldq_be_p(buf + 24);
    snap->vm_state_size = ldl_be_p(buf + 32);
    extra_len = ldl_be_p(buf + 36);
    if (extra_len > MAX_EXTRA_BYTES) {
        error_setg(errp, "a snapshot has too much extra data (%u bytes, at most %u)", extra_len,
                   MAX_EXTRA_BYTES);
        return 0;
    }
    end = ENTRY_BYTES + extra_len + id_len + name_len;
    if (end > len) {
        error_setg(errp, "the snapshot table is incomplete");
        return 0;
    }
    parse_extra(buf + ENTRY_BYTES, extra_len, snap);
    snap->id = g_strndup((const char *)buf + ENTRY_BYTES + extra_len, id_len);
    snap->name = g_strndup((const char *)buf + ENTRY_BYTES + extra_len + id_len, name_len);
    return MIN(round_up_u64(end, 8), len);
}

void qcow2_snapshot_free(Qcow2Snapshot *snap)
{
    if (snap) {
        g_free(snap->id);
        g_free(snap->name);
        g_free(snap);
    }
}

static bool check_l1(const Qcow2State *s, const Qcow2Snapshot *snap, Error **errp)
{
    uint64_t bytes = (uint64_t)snap->l1_size * 8;

    if (bytes > QCOW2_MAX_L1_BYTES || qcow2_in_cluster(s, snap->l1_offset) ||
        snap->l1_offset > QCOW2_MAX_HOST_OFFSET - bytes) {
        error_setg(errp,
                   "the L1 table of snapshot '%s' (%u entries at offset 0x%" PRIx64 ") is invalid",
                   snap->name, snap->l1_size, snap->l1_offset);
        return false;
    }
    return true;
}

static int parse_table(BlockDriverState *bs, const uint8_t *buf, size_t len, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    size_t at = 0;

    for (uint32_t i = 0; i < s->hdr.nb_snapshots; i++) {
        Qcow2Snapshot *snap = g_new0(Qcow2Snapshot, 1);
        size_t n = qcow2_snapshot_parse(buf + at, len - at, snap, errp);

        if (!n || !check_l1(s, snap, errp)) {
            qcow2_snapshot_free(snap);
            return -EINVAL;
        }
        g_ptr_array_add(s->snapshots, snap);
        at += n;
    }
    s->snapshots_bytes = at;
    return 0;
}

/* The table does not say how long it is: read on until all entries are complete. */
int coroutine_fn qcow2_load_snapshots(BlockDriverState *bs, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    size_t len = 64 * 1024;
    int ret;

    g_clear_pointer(&s->snapshots, g_ptr_array_unref);
    s->snapshots = g_ptr_array_new_with_free_func((GDestroyNotify)qcow2_snapshot_free);
    s->snapshots_bytes = 0;
    if (!s->hdr.nb_snapshots) {
        return 0;
    }
    for (;; len *= 4) {
        uint64_t there =
            s->hdr.snapshots_offset < s->file_len ? s->file_len - s->hdr.snapshots_offset : 0;
        size_t n = MIN(MIN(len, there), QCOW2_MAX_SNAPSHOT_TABLE_BYTES);
        g_autofree uint8_t *buf = g_try_malloc(MAX(n, 1));
        bool last = n < len;
        Error *err = NULL;

        ret = !buf ? -ENOMEM : qcow2_read_table(bs, s->hdr.snapshots_offset, n, buf);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not read the snapshot table");
            return ret;
        }
        g_ptr_array_set_size(s->snapshots, 0);
        ret = parse_table(bs, buf, n, &err);
        if (ret == 0 || last) {
            error_propagate(errp, err);
            if (ret < 0) {
                error_prepend(errp, "Could not read the snapshots of the qcow2 image: ");
            }
            return ret;
        }
        error_free(err);
    }
}

int coroutine_fn qcow2_co_list_snapshots(BlockDriverState *bs, SnapshotInfoList **list,
                                         Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    SnapshotInfoList **tail = list;

    *list = NULL;
    for (guint i = 0; i < s->snapshots->len; i++) {
        const Qcow2Snapshot *snap = s->snapshots->pdata[i];
        SnapshotInfo *info = g_new0(SnapshotInfo, 1);

        info->id = g_strdup(snap->id);
        info->name = g_strdup(snap->name);
        info->vm_state_size = snap->vm_state_size;
        info->date_sec = snap->date_sec;
        info->date_nsec = snap->date_nsec;
        info->vm_clock_sec = snap->vm_clock_nsec / 1000000000;
        info->vm_clock_nsec = snap->vm_clock_nsec % 1000000000;
        info->has_icount = snap->has_icount;
        info->icount = snap->icount;
        QAPI_LIST_APPEND(tail, info);
    }
    return 0;
}

static const Qcow2Snapshot *find_id(const Qcow2State *s, const char *id)
{
    for (guint i = 0; i < s->snapshots->len; i++) {
        const Qcow2Snapshot *snap = s->snapshots->pdata[i];

        if (strcmp(snap->id, id) == 0) {
            return snap;
        }
    }
    return NULL;
}

int coroutine_fn qcow2_co_load_snapshot(BlockDriverState *bs, const char *id, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);
    const Qcow2Snapshot *snap = find_id(s, id);
    uint64_t size = snap && snap->has_disk_size ? snap->disk_size : s->hdr.size;
    Qcow2Table l1;
    int ret;

    g_assert(bs->read_only);
    if (!snap) {
        error_setg(errp, "there is no snapshot with id %s", id);
        return -ENOENT;
    }
    if (size > BDRV_MAX_LENGTH || snap->l1_size < qcow2_l1_needed(&s->hdr, size)) {
        error_setg(errp, "its L1 table of %u entries is too small for a disk of %" PRIu64 " bytes",
                   snap->l1_size, size);
        return -EINVAL;
    }
    if (!qcow2_table_init(&l1, snap->l1_size, snap->l1_offset)) {
        error_setg(errp, "not enough memory for its L1 table");
        return -ENOMEM;
    }
    ret = qcow2_table_read(bs, &l1);
    if (ret < 0) {
        qcow2_table_clear(&l1);
        error_setg_errno(errp, -ret, "its L1 table at offset 0x%" PRIx64 " cannot be read",
                         snap->l1_offset);
        return ret;
    }
    qcow2_release_bitmaps(bs);
    qcow2_table_clear(&s->l1);
    s->l1 = l1;
    s->hdr.size = size;
    bdrv_co_set_length(bs, size);
    return 0;
}
