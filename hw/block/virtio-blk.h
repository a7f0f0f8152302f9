/*
 * virtio-blk (virtio 1.2, 5.2): what its files share.
 *
 *    virtio-blk.c           the device: properties, configuration, life, migration
 *    virtio-blk-queue.c     taking chains off the queues and giving them back; starting and stopping
 *    virtio-blk-request.c   what a chain asks for, and doing it
 *
 * Threads. The device's context (ctx) is an iothread's or the main one. Between start and stop its
 * thread owns queues and requests; before and after that the big lock does. `in_flight` counts
 * everything that is under way there (calls that were scheduled, requests), so the device stands
 * when it is 0 while `stopped` or `drained` is set: both are looked at only after the count was
 * raised.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_BLOCK_VIRTIO_BLK_H
#define HW_BLOCK_VIRTIO_BLK_H

#include "block/block-backend.h"
#include "hw/virtio/virtio.h"
#include "util/iothread.h"

#define VIRTIO_BLK_F_SEG_MAX (UINT64_C(1) << 2)
#define VIRTIO_BLK_F_GEOMETRY (UINT64_C(1) << 4)
#define VIRTIO_BLK_F_RO (UINT64_C(1) << 5)
#define VIRTIO_BLK_F_BLK_SIZE (UINT64_C(1) << 6)
#define VIRTIO_BLK_F_FLUSH (UINT64_C(1) << 9)
#define VIRTIO_BLK_F_TOPOLOGY (UINT64_C(1) << 10)
#define VIRTIO_BLK_F_CONFIG_WCE (UINT64_C(1) << 11)
#define VIRTIO_BLK_F_MQ (UINT64_C(1) << 12)
#define VIRTIO_BLK_F_DISCARD (UINT64_C(1) << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

/* A chain: this header to read, data, one byte of status to write. */
#define VIRTIO_BLK_HEADER_BYTES 16u     /* u32 type, u32 reserved, u64 sector */
enum {
    VIRTIO_BLK_T_IN = 0, VIRTIO_BLK_T_OUT = 1, VIRTIO_BLK_T_FLUSH = 4, VIRTIO_BLK_T_GET_ID = 8,
    VIRTIO_BLK_T_DISCARD = 11, VIRTIO_BLK_T_WRITE_ZEROES = 13,
};
enum { VIRTIO_BLK_S_OK = 0, VIRTIO_BLK_S_IOERR = 1, VIRTIO_BLK_S_UNSUPP = 2 };
#define VIRTIO_BLK_SECTOR_BYTES 512u
#define VIRTIO_BLK_ID_BYTES 20u

/* Of discard and write zeroes: u64 sector, u32 sectors, u32 flags. */
#define VIRTIO_BLK_RANGE_BYTES 16u
#define VIRTIO_BLK_RANGES_MAX 32u
#define VIRTIO_BLK_RANGE_UNMAP 1u
#define VIRTIO_BLK_RANGE_SECTORS_MAX ((uint32_t)(BDRV_REQUEST_MAX_BYTES / VIRTIO_BLK_SECTOR_BYTES))

/*
 * Chains of one device that were taken and not given back: bounds memory, whatever the guest does.
 */
#define VIRTIO_BLK_TAKEN_MAX 2048u

typedef struct VirtIOBlk VirtIOBlk;

typedef struct VirtIOBlkRequest {
    VirtQueueElement elem;
    VirtIOBlk *s;
    uint16_t queue;
    uint32_t type;
    uint64_t sector;
    struct iovec *data;         /* the part of elem.out or elem.in between header and status */
    unsigned data_num;
    uint64_t data_bytes;
    struct VirtIOBlkRequest *next;      /* merged with this one; or the next one held */
    unsigned merged;            /* of the first: how many there are with it */
    BlockAcctCookie acct;
} VirtIOBlkRequest;

typedef struct VirtIOBlkQueue {
    VirtIOBlk *s;
    unsigned index;
    bool kicked;                /* atomic: a call that looks at the queue is scheduled */
    bool notify;                /* something was given back since the guest was told */
} VirtIOBlkQueue;

/* A request that waits for the machine to go on, as it is in a stream. */
typedef struct VirtIOBlkHeld {
    uint16_t queue, head;
} VirtIOBlkHeld;

struct VirtIOBlk {
    VirtIODevice vdev;

    /* Properties. */
    char *drive, *iothread_id, *serial, *write_cache, *werror, *rerror;
    uint16_t num_queues, queue_size;
    uint32_t logical_block, physical_block, discard_granularity, opt_io;
    uint16_t min_io;
    uint32_t max_discard_sectors, max_write_zeroes_sectors;
    bool discard, write_zeroes, config_wce, share_rw, merging;

    BlockBackend *blk;
    bool blk_is_ours;           /* made for a node, not the -drive's */
    bool read_only;
    bool original_wce;          /* the write cache after a reset */
    IOThread *iothread;         /* NULL: the main context */
    AioContext *ctx;
    int64_t bytes;              /* atomic: length that the guest is told */
    VirtIOBlkQueue queues[VIRTIO_QUEUES_MAX];

    uint32_t in_flight;         /* atomic */
    bool stopped, drained;      /* atomic: no new requests */

    /* The serving thread's. */
    unsigned taken;             /* chains */
    bool starved;               /* as many as there may be: queues are looked at again later */
    bool notify_scheduled;
    VirtIOBlkRequest *held, **held_tail; /* failed, to be done again when the machine goes on */
    bool resubmit;              /* it has gone on */

    /* For the stream. */
    bool wce;
    uint32_t num_held;
    VirtIOBlkHeld held_heads[VIRTIO_BLK_TAKEN_MAX];
};

/* ---- virtio-blk-queue.c ---- */

void virtio_blk_queues_init(VirtIOBlk *s);
/* VirtIOClass. */
void virtio_blk_start(VirtIODevice *vdev);
void virtio_blk_stop(VirtIODevice *vdev);
void virtio_blk_notify(VirtIODevice *vdev, unsigned index);
/* BlockDevOps. */
void virtio_blk_drained_begin(void *opaque);
void virtio_blk_drained_end(void *opaque);
bool virtio_blk_drained_poll(void *opaque);
/* Write the status, give the chain back, free it. The serving thread. */
void virtio_blk_complete(VirtIOBlkRequest *req, uint8_t status);
/* Keep it until the machine goes on. The serving thread. */
void virtio_blk_hold(VirtIOBlkRequest *req);
/* Forget what is held; stopped. */
void virtio_blk_forget_held(VirtIOBlk *s);

/* ---- virtio-blk-request.c ---- */

#define VIRTIO_BLK_BATCH_MAX 32u

/* Reads or writes that were taken together, before they are started: neighbours become one. */
typedef struct VirtIOBlkBatch {
    VirtIOBlkRequest *reqs[VIRTIO_BLK_BATCH_MAX];
    unsigned n;
    bool is_write;
} VirtIOBlkBatch;

/*
 * Find header, data and status in the chain. False with @errp set when it does not have them: the
 * guest broke the rules.
 */
bool virtio_blk_parse(VirtIOBlkRequest *req, Error **errp);
/* Start the request or put it into @batch. It ends by complete() or hold(). The serving thread. */
void virtio_blk_submit(VirtIOBlkRequest *req, VirtIOBlkBatch *batch);
/* Start what is in the batch. */
void virtio_blk_submit_batch(VirtIOBlkBatch *batch);

#endif
