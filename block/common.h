/*
 * What every user of the block layer needs: its types' names, request flags, permissions, block
 * status.
 *
 * The block layer in one paragraph: a disk is a graph of nodes (BlockDriverState). A node is a
 * driver and its children: `file` and the like reach the bytes, a format (`qcow2`, `raw`) sits on
 * its child "file" and perhaps "backing", a filter (`throttle`) changes what passes. Who uses a
 * disk (a device, an export, a job) holds a BlockBackend, whose root is a node. docs/devel/block.md
 * explains it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_COMMON_H
#define BLOCK_COMMON_H

#include <stdbool.h>
#include <stdint.h>

#include "util/aio.h"
#include "util/error.h"
#include "util/iovector.h"

typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverState BlockDriverState;
typedef struct BdrvChild BdrvChild;
typedef struct BdrvChildClass BdrvChildClass;
typedef struct BlockBackend BlockBackend;
typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;
typedef struct BdrvDirtyBitmapList BdrvDirtyBitmapList;

/* The unit in which some formats count; offsets and lengths here are always bytes. */
#define BDRV_SECTOR_BYTES 512

/* No request is longer; splits happen below (BlockLimits). A multiple of every alignment. */
#define BDRV_REQUEST_MAX_BYTES (INT32_C(1) << 30)
/* No image is longer: offset + length never overflows an int64_t, rounded up to any alignment. */
#define BDRV_MAX_LENGTH \
    (INT64_MAX - (INT64_MAX & (BDRV_REQUEST_MAX_BYTES - 1)) - BDRV_REQUEST_MAX_BYTES)
/* No alignment is larger. */
#define BDRV_MAX_ALIGNMENT (INT32_C(1) << 26)

typedef enum BdrvRequestFlags {
    BDRV_REQ_FUA = 1 << 0,       /* write: on stable storage when it completes */
    BDRV_REQ_MAY_UNMAP = 1 << 1, /* write zeroes: may deallocate */
    BDRV_REQ_NO_FALLBACK =
        1 << 2, /* write zeroes: -ENOTSUP rather than writing buffers of zeroes */
    BDRV_REQ_WRITE_COMPRESSED =
        1 << 3, /* write: compressed, where the format can; whole clusters */
    BDRV_REQ_WRITE_UNCHANGED =
        1 << 4,                     /* write: the visible content stays the same (copy on read) */
    BDRV_REQ_COPY_ON_READ = 1 << 5, /* read: also copy it from the backing file into the node */
    BDRV_REQ_PREFETCH =
        1 << 6, /* read: the buffer is not needed (vector NULL); with COPY_ON_READ */
    BDRV_REQ_SERIALISING = 1 << 7, /* write: no other request to the range runs beside it */
    BDRV_REQ_ZERO_WRITE = 1 << 8,  /* inside the layer: the vector is NULL, the content is zero */
} BdrvRequestFlags;

/*
 * Permissions: what a user of a node may do, and what it lets other users of the same node do. Two
 * users go together when each one's permissions are shared by the other.
 */
typedef enum BlockPermission {
    BLK_PERM_CONSISTENT_READ = 1 << 0,  /* read, and what is read makes sense as a whole */
    BLK_PERM_WRITE = 1 << 1,            /* change the visible content */
    BLK_PERM_WRITE_UNCHANGED = 1 << 2,  /* write without changing the visible content */
    BLK_PERM_RESIZE = 1 << 3,           /* change the length */
} BlockPermission;
#define BLK_PERM_ALL 0x0f

/* What bdrv_co_block_status() says of a range; the flags are QEMU's. */
typedef enum BdrvBlockStatus {
    BDRV_BLOCK_DATA = 0x01,             /* must be read to know it */
    BDRV_BLOCK_ZERO = 0x02,             /* reads as zeroes */
    BDRV_BLOCK_OFFSET_VALID = 0x04,     /* *map: where it lies in *file (raw bytes) */
    BDRV_BLOCK_RAW = 0x08,              /* inside the layer: ask *file at *map for the rest */
    BDRV_BLOCK_ALLOCATED = 0x10,        /* the content comes from this node, not from its backing */
    BDRV_BLOCK_EOF = 0x20,              /* the range ends at the end of the node */
    BDRV_BLOCK_RECURSE = 0x40,          /* inside the layer: *file may know of zeroes */
    BDRV_BLOCK_COMPRESSED = 0x80,
} BdrvBlockStatus;

#endif
