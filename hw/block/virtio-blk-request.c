/*
 * What chains ask for, as coroutines on the BlockBackend.
 *
 * Everything in a chain is checked before anything is done. Where the guest reads past the end or
 * asks for what it was not offered it gets an error in the status; where there is no place for a
 * status the rules are broken and the device with them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/block/virtio-blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qapi/qapi-events-block-core.h"
#include "system/runstate.h"
#include "util/bswap.h"
#include "util/iov.h"

static bool data_is_written(uint32_t type)
{
    return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

bool virtio_blk_parse(VirtIOBlkRequest *req, Error **errp)
{
    VirtQueueElement *elem = &req->elem;
    uint8_t header[VIRTIO_BLK_HEADER_BYTES];
    struct iovec *last;

    if (elem->out_bytes < sizeof(header) || !elem->in_bytes) {
        error_setg(errp, "a request has no room for header and status");
        return false;
    }
    iov_to_buf(elem->out, elem->out_num, 0, header, sizeof(header));
    req->type = ldl_le_p(header);
    req->sector = ldq_le_p(header + 8);
    last = &elem->in[elem->in_num - 1];
    last->iov_len--;
    if (data_is_written(req->type)) {
        req->data = elem->in;
        req->data_num = elem->in_num - !last->iov_len;
        req->data_bytes = elem->in_bytes - 1;
    } else {
        req->data = elem->out;
        req->data_num = elem->out_num;
        req->data_bytes = elem->out_bytes - sizeof(header);
        iov_discard_front(&req->data, &req->data_num, sizeof(header));
    }
    return true;
}

/* ---- errors ---- */

static void report_error(VirtIOBlk *s, BlockErrorAction action, bool is_read, int error)
{
    BlockDriverState *bs = blk_bs(s->blk);

    qapi_event_send_block_io_error(
        s->vdev.parent.path, blk_name(s->blk), bs ? bdrv_get_node_name(bs) : NULL,
        is_read ? IO_OPERATION_TYPE_READ : IO_OPERATION_TYPE_WRITE, action,
        action == BLOCK_ERROR_ACTION_STOP, error == ENOSPC, g_strerror(error));
}

/* The end of a request that has failed with @error, by the policy for such errors. */
static void end_failed(VirtIOBlkRequest *req, bool is_read, int error)
{
    VirtIOBlk *s = req->s;
    BlockErrorAction action = blk_get_error_action(s->blk, is_read, error);

    if (action == BLOCK_ERROR_ACTION_STOP) {
        blk_iostatus_set_err(s->blk, error);
        report_error(s, action, is_read, error);
        system_vmstop_request(RUN_STATE_IO_ERROR);
        virtio_blk_hold(req);
        return;
    }
    report_error(s, action, is_read, error);
    block_acct_failed(blk_get_stats(s->blk), &req->acct);
    virtio_blk_complete(req, action == BLOCK_ERROR_ACTION_IGNORE ? VIRTIO_BLK_S_OK
                                                                 : VIRTIO_BLK_S_IOERR);
}

static void end_request(VirtIOBlkRequest *req, bool is_read, int ret)
{
    if (ret < 0) {
        end_failed(req, is_read, -ret);
        return;
    }
    block_acct_done(blk_get_stats(req->s->blk), &req->acct);
    virtio_blk_complete(req, VIRTIO_BLK_S_OK);
}

/* One that is not even begun. */
static void refuse(VirtIOBlkRequest *req, BlockAcctType type, uint8_t status)
{
    block_acct_invalid(blk_get_stats(req->s->blk), type);
    virtio_blk_complete(req, status);
}

/* Whether [@sector, + @bytes) is made of whole blocks and inside the disk. */
static bool range_is_good(const VirtIOBlk *s, uint64_t sector, uint64_t bytes)
{
    uint64_t disk = __atomic_load_n(&s->bytes, __ATOMIC_RELAXED);
    uint64_t offset;

    return !__builtin_mul_overflow(sector, (uint64_t)VIRTIO_BLK_SECTOR_BYTES, &offset) &&
           offset % s->logical_block == 0 && bytes % s->logical_block == 0 && offset <= disk &&
           bytes <= disk - offset;
}

/* ---- reads and writes ---- */

static int coroutine_fn do_rw(VirtIOBlk *s, bool is_write, uint64_t sector, IOVector *qiov)
{
    int64_t offset = sector * VIRTIO_BLK_SECTOR_BYTES;

    return is_write ? blk_co_pwritev(s->blk, offset, qiov->size, qiov, 0)
                    : blk_co_preadv(s->blk, offset, qiov->size, qiov, 0);
}

static void coroutine_fn rw_entry(void *opaque)
{
    VirtIOBlkRequest *req = opaque;
    bool is_write = req->type == VIRTIO_BLK_T_OUT;
    IOVector qiov;

    iovector_init_external(&qiov, req->data, req->data_num);
    end_request(req, !is_write, do_rw(req->s, is_write, req->sector, &qiov));
}

/* Requests that follow each other on the disk, as one; where that fails each is tried by itself. */
static void coroutine_fn merged_entry(void *opaque)
{
    VirtIOBlkRequest *first = opaque, *next;
    bool is_write = first->type == VIRTIO_BLK_T_OUT;
    IOVector qiov;
    int ret;

    iovector_init(&qiov, first->merged * 2);
    for (VirtIOBlkRequest *req = first; req; req = req->next) {
        for (unsigned i = 0; i < req->data_num; i++) {
            iovector_add(&qiov, req->data[i].iov_base, req->data[i].iov_len);
        }
    }
    ret = do_rw(first->s, is_write, first->sector, &qiov);
    iovector_destroy(&qiov);
    for (VirtIOBlkRequest *req = first; req; req = next) {
        next = req->next;
        req->next = NULL;
        if (ret < 0) {
            rw_entry(req);
        } else {
            end_request(req, !is_write, ret);
        }
    }
}

static int by_sector(const void *a, const void *b)
{
    const VirtIOBlkRequest *x = *(VirtIOBlkRequest *const *)a, *y = *(VirtIOBlkRequest *const *)b;

    return x->sector < y->sector ? -1 : x->sector > y->sector;
}

/* How many of @n requests, by sector, can be one. */
static unsigned mergeable(VirtIOBlkRequest *const *reqs, unsigned n)
{
    VirtIOBlk *s = reqs[0]->s;
    uint64_t bytes = reqs[0]->data_bytes, max_bytes = blk_get_max_transfer(s->blk);
    unsigned niov = reqs[0]->data_num, max_iov = blk_get_max_iov(s->blk), count = 1;

    while (s->merging && count < n) {
        const VirtIOBlkRequest *req = reqs[count];

        if (req->sector != reqs[0]->sector + bytes / VIRTIO_BLK_SECTOR_BYTES ||
            req->data_bytes > max_bytes - MIN(bytes, max_bytes) ||
            req->data_num > max_iov - MIN(niov, max_iov)) {
            break;
        }
        bytes += req->data_bytes;
        niov += req->data_num;
        count++;
    }
    return count;
}

static void start_entry(VirtIOBlkRequest *req, CoroutineEntry *entry)
{
    aio_co_enter(req->s->ctx, coroutine_create(entry, req));
}

void virtio_blk_submit_batch(VirtIOBlkBatch *batch)
{
    VirtIOBlkRequest **reqs = batch->reqs;
    unsigned n = batch->n, count;

    batch->n = 0;
    if (n > 1) {
        qsort(reqs, n, sizeof(reqs[0]), by_sector);
    }
    for (unsigned i = 0; i < n; i += count) {
        count = mergeable(reqs + i, n - i);
        for (unsigned j = i; j + 1 < i + count; j++) {
            reqs[j]->next = reqs[j + 1];
        }
        reqs[i]->merged = count;
        if (count > 1) {
            block_acct_merge_done(blk_get_stats(reqs[i]->s->blk), batch->is_write ? BLOCK_ACCT_WRITE
                                                                                 : BLOCK_ACCT_READ,
                                  count - 1);
        }
        start_entry(reqs[i], count > 1 ? merged_entry : rw_entry);
    }
}

static void submit_rw(VirtIOBlkRequest *req, VirtIOBlkBatch *batch)
{
    VirtIOBlk *s = req->s;
    bool is_write = req->type == VIRTIO_BLK_T_OUT;
    BlockAcctType acct = is_write ? BLOCK_ACCT_WRITE : BLOCK_ACCT_READ;

    if ((is_write && s->read_only) || req->data_bytes > BDRV_REQUEST_MAX_BYTES ||
        !range_is_good(s, req->sector, req->data_bytes)) {
        refuse(req, acct, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (batch->n == VIRTIO_BLK_BATCH_MAX || (batch->n && batch->is_write != is_write)) {
        virtio_blk_submit_batch(batch);
    }
    block_acct_start(blk_get_stats(s->blk), &req->acct, req->data_bytes, acct);
    batch->is_write = is_write;
    batch->reqs[batch->n++] = req;
}

/* ---- the others ---- */

static void coroutine_fn flush_entry(void *opaque)
{
    VirtIOBlkRequest *req = opaque;

    end_request(req, false, blk_co_flush(req->s->blk));
}

static void submit_flush(VirtIOBlkRequest *req)
{
    block_acct_start(blk_get_stats(req->s->blk), &req->acct, 0, BLOCK_ACCT_FLUSH);
    start_entry(req, flush_entry);
}

static void do_get_id(VirtIOBlkRequest *req)
{
    const char *serial = req->s->serial ?: "";
    char id[VIRTIO_BLK_ID_BYTES] = { 0 };

    memcpy(id, serial, MIN(strlen(serial), sizeof(id)));
    req->data_bytes = iov_from_buf(req->data, req->data_num, 0, id, sizeof(id));
    virtio_blk_complete(req, VIRTIO_BLK_S_OK);
}

typedef struct Range {
    int64_t offset, bytes;
    bool unmap;
} Range;

/* Returns a status. */
static uint8_t check_range(const VirtIOBlkRequest *req, const uint8_t *p, Range *range)
{
    const VirtIOBlk *s = req->s;
    bool is_discard = req->type == VIRTIO_BLK_T_DISCARD;
    uint64_t sector = ldq_le_p(p);
    uint32_t sectors = ldl_le_p(p + 8), flags = ldl_le_p(p + 12);

    /* To unmap is what a discard does anyway; there the bit must not be set. */
    if (flags & ~(is_discard ? 0 : VIRTIO_BLK_RANGE_UNMAP)) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (sectors > (is_discard ? s->max_discard_sectors : s->max_write_zeroes_sectors) ||
        !range_is_good(s, sector, (uint64_t)sectors * VIRTIO_BLK_SECTOR_BYTES)) {
        return VIRTIO_BLK_S_IOERR;
    }
    range->offset = sector * VIRTIO_BLK_SECTOR_BYTES;
    range->bytes = (int64_t)sectors * VIRTIO_BLK_SECTOR_BYTES;
    range->unmap = flags & VIRTIO_BLK_RANGE_UNMAP;
    return VIRTIO_BLK_S_OK;
}

/* Copies the ranges out of guest memory and checks them all. */
static uint8_t read_ranges(const VirtIOBlkRequest *req, Range *ranges, unsigned *n)
{
    uint8_t status = VIRTIO_BLK_S_OK;

    if (!req->data_bytes || req->data_bytes % VIRTIO_BLK_RANGE_BYTES ||
        req->data_bytes > VIRTIO_BLK_RANGES_MAX * VIRTIO_BLK_RANGE_BYTES) {
        return VIRTIO_BLK_S_IOERR;
    }
    *n = req->data_bytes / VIRTIO_BLK_RANGE_BYTES;
    for (unsigned i = 0; i < *n && status == VIRTIO_BLK_S_OK; i++) {
        uint8_t bytes[VIRTIO_BLK_RANGE_BYTES];

        iov_to_buf(req->data, req->data_num, i * sizeof(bytes), bytes, sizeof(bytes));
        status = check_range(req, bytes, &ranges[i]);
    }
    return status;
}

static void coroutine_fn ranges_entry(void *opaque)
{
    VirtIOBlkRequest *req = opaque;
    VirtIOBlk *s = req->s;
    bool is_discard = req->type == VIRTIO_BLK_T_DISCARD;
    Range ranges[VIRTIO_BLK_RANGES_MAX];
    unsigned n = 0;
    int ret = 0;
    uint8_t status = read_ranges(req, ranges, &n);

    if (status != VIRTIO_BLK_S_OK) {
        refuse(req, is_discard ? BLOCK_ACCT_UNMAP : BLOCK_ACCT_WRITE, status);
        return;
    }
    block_acct_start(blk_get_stats(s->blk), &req->acct, 0, is_discard ? BLOCK_ACCT_UNMAP
                                                                      : BLOCK_ACCT_WRITE);
    for (unsigned i = 0; i < n && ret >= 0; i++) {
        req->acct.bytes += ranges[i].bytes;
        ret = is_discard ? blk_co_pdiscard(s->blk, ranges[i].offset, ranges[i].bytes)
                         : blk_co_pwrite_zeroes(s->blk, ranges[i].offset, ranges[i].bytes,
                                                ranges[i].unmap ? BDRV_REQ_MAY_UNMAP : 0);
    }
    end_request(req, false, ret);
}

static void submit_ranges(VirtIOBlkRequest *req, uint64_t feature)
{
    if (!virtio_has_feature(&req->s->vdev, feature)) {
        virtio_blk_complete(req, VIRTIO_BLK_S_UNSUPP);
    } else if (req->s->read_only) {
        refuse(req, BLOCK_ACCT_WRITE, VIRTIO_BLK_S_IOERR);
    } else {
        start_entry(req, ranges_entry);
    }
}

void virtio_blk_submit(VirtIOBlkRequest *req, VirtIOBlkBatch *batch)
{
    switch (req->type) {
    case VIRTIO_BLK_T_IN:
    case VIRTIO_BLK_T_OUT:
        submit_rw(req, batch);
        break;
    case VIRTIO_BLK_T_FLUSH:
        /* It stands after what was taken before it. */
        virtio_blk_submit_batch(batch);
        submit_flush(req);
        break;
    case VIRTIO_BLK_T_GET_ID:
        do_get_id(req);
        break;
    case VIRTIO_BLK_T_DISCARD:
        submit_ranges(req, VIRTIO_BLK_F_DISCARD);
        break;
    case VIRTIO_BLK_T_WRITE_ZEROES:
        submit_ranges(req, VIRTIO_BLK_F_WRITE_ZEROES);
        break;
    default:
        virtio_blk_complete(req, VIRTIO_BLK_S_UNSUPP);
    }
}
