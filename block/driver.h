/*
 * What a block driver is: the vtable, the node it drives, the edges to children.
 *
 * A driver is one file with one BlockDriver and one line in block/drivers.c. It is called with
 * requests that are valid: inside the node, aligned to bs->bl.request_alignment, not larger than
 * bs->bl.max_transfer (max_pwrite_zeroes, max_pdiscard), writes only when the node may be written.
 *
 * Threads: open, close, reopen and everything that is not coroutine_fn: main thread, node drained.
 * Coroutines: the node's home context, many at once; drivers protect what they keep over a yield by
 * a CoMutex. A driver with thread_safe set takes coroutines in any thread at the same time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include <glib.h>

#include "block/graph.h"
#include "block/io.h"
#include "util/coroutine-lock.h"
#include "util/mutex.h"

/* What an edge means to the node above it. */
typedef enum BdrvChildRole {
    BDRV_CHILD_DATA = 1 << 0,           /* guest data */
    BDRV_CHILD_METADATA = 1 << 1,       /* the format's own */
    BDRV_CHILD_FILTERED = 1 << 2,       /* the parent is a filter: same content */
    BDRV_CHILD_COW = 1 << 3,            /* backing: content where the parent has none */
    BDRV_CHILD_PRIMARY = 1 << 4,        /* the child that the parent's file name comes from */
} BdrvChildRole;
/* "file" of a format without a separate data file. */
#define BDRV_CHILD_IMAGE (BDRV_CHILD_DATA | BDRV_CHILD_METADATA | BDRV_CHILD_PRIMARY)

/*
 * What the holder of an edge wants to be told. One table for nodes above nodes, one for
 * BlockBackends.
 */
struct BdrvChildClass {
    /* For messages: "node 'x'", "block device 'y'"; g_free() it. */
    char *(*describe_parent)(const BdrvChild *child);
    /* No new requests until the end (stop them, or wait with them); called once for each begin. */
    void (*drained_begin)(BdrvChild *child);
    void (*drained_end)(BdrvChild *child);
    /* Whether the holder still has requests of its own under way. Any thread. */
    bool (*drained_poll)(const BdrvChild *child);
    /* The child's length changed. Home context. */
    void (*resized)(BdrvChild *child);
    /* Whether the holder can go along with a move to @ctx, and the move. NULL: it can. */
    bool (*may_change_aio_context)(BdrvChild *child, AioContext *ctx, Error **errp);
    void (*aio_context_changed)(BdrvChild *child, AioContext *ctx);
    /* Permissions are taken (false: given up) for a switchover. NULL: nothing to do. */
    bool (*activate)(BdrvChild *child, Error **errp);
    void (*inactivate)(BdrvChild *child);
};

struct BdrvChild {
    BlockDriverState *bs;               /* the node below; never NULL */
    char *name;                         /* "file", "backing", "root" */
    const BdrvChildClass *klass;
    BdrvChildRole role;
    BlockDriverState *parent;           /* the node above; NULL: a BlockBackend */
    void *opaque;                       /* the holder */
    uint64_t perm, shared_perm;
    bool frozen;                        /* a job depends on this edge: it may not be changed */
    GList in_parent, in_child;          /* links of parent->children and bs->parents */
};

/*
 * What requests to a node must keep to. 0 means no limit. Filled by refresh_limits on children's
 * values.
 */
typedef struct BlockLimits {
    uint32_t request_alignment; /* offset and length of reads and writes; 1 or more, power of two */
    uint64_t max_transfer;              /* bytes of a read or write */
    uint32_t opt_transfer;              /* a good size, 0: none is better */
    uint32_t max_iov;                   /* elements of a vector */
    size_t min_mem_alignment;           /* of buffers */
    size_t opt_mem_alignment;
    uint32_t pwrite_zeroes_alignment;   /* 0: request_alignment */
    uint64_t max_pwrite_zeroes;
    uint32_t pdiscard_alignment;
    uint64_t max_pdiscard;
} BlockLimits;

typedef struct BdrvTrackedRequest BdrvTrackedRequest;

struct BlockDriverState {
    const BlockDriver *drv;
    void *opaque; /* the driver's instance, drv->instance_size bytes, zeroed */
    char *node_name;
    char *filename; /* for people; the driver sets it in open, or the layer does */
    int refcnt;
    AioContext *aio_context;

    BdrvChild *file, *backing;          /* two of the children, for convenience */
    GQueue children;                    /* of BdrvChild, by in_parent */
    GQueue parents;                     /* of BdrvChild, by in_child */

    /* As opened; changed by reopen. */
    BlockdevOptions *options;           /* what it was opened with, and what it inherited */
    BlockdevOptions *explicit_options;  /* the first alone */
    /*
     * The node whose definition it was a part of; meaningful while an edge leads from there to
     * here.
     */
    BlockDriverState *inherits_from;
    bool read_only, auto_read_only, force_share;
    bool cache_direct, cache_no_flush;
    bool discard_unmap;                 /* discard=unmap */
    BlockdevDetectZeroesOptions detect_zeroes;

    /* Set by a format's open: what the image says its backing file is. NULL: none. */
    char *backing_file, *backing_format;
    bool backing_is_default;            /* opened because the image said so */

    BlockLimits bl;
    /* Flags that writes and write-zeroes of the driver honour; the rest is emulated or dropped. */
    BdrvRequestFlags supported_write_flags, supported_zero_flags, supported_truncate_flags;
    bool thread_safe;                   /* this node and all below it */

    int64_t total_bytes;                /* length, or a negative errno; atomic */
    unsigned in_flight;                 /* atomic */
    unsigned quiesce_counter;           /* main thread */
    bool inactive, monitor_owned;
    bool opened;                        /* the driver's open() succeeded */
    bool for_check;                     /* bdrv_set_open_for_check() */

    Mutex reqs_lock;                    /* of the members below */
    BdrvTrackedRequest *tracked_requests;
    unsigned serialising_in_flight;     /* atomic to read */
    uint64_t write_gen, flushed_gen;    /* atomic */
    CoMutex flush_lock;

    Mutex dirty_lock;
    BdrvDirtyBitmapList *dirty_bitmaps; /* NULL: none */

    /* query-blockstats of the node. Atomic. */
    uint64_t wr_highest_offset;

    GList in_all_nodes;
};

typedef struct BdrvReopenState {
    BlockDriverState *bs;
    const BlockdevOptions *options;     /* new ones, complete */
    bool read_only, cache_direct, cache_no_flush, discard_unmap, auto_read_only, force_share;
    BlockdevDetectZeroesOptions detect_zeroes;
    void *opaque;                       /* the driver's, between prepare and commit or abort */
} BdrvReopenState;

/* What a check found; the repair counts are of BDRV_FIX_*. */
typedef struct BdrvCheckResult {
    uint64_t corruptions, leaks, check_errors;
    uint64_t corruptions_fixed, leaks_fixed;
    int64_t image_end_offset;
    uint64_t allocated_clusters, total_clusters, compressed_clusters, fragmented_clusters;
} BdrvCheckResult;
typedef enum BdrvCheckMode { BDRV_FIX_LEAKS = 1, BDRV_FIX_ERRORS = 2 } BdrvCheckMode;

typedef struct BlockDriverInfo {
    uint32_t cluster_size;              /* bytes; 0: none */
    uint32_t subcluster_size;
    bool is_dirty;                      /* not closed properly */
    bool needs_compressed_writes;
} BlockDriverInfo;

struct BlockDriver {
    const char *format_name;            /* as people write it: "qcow2" */
    BlockdevDriver driver;              /* the same in the schema */
    size_t instance_size;
    bool is_format;                     /* has a child "file" and knows its length from metadata */
    bool is_filter;                     /* same content as its one child of role FILTERED */
    bool supports_backing;
    bool thread_safe;

    /* How sure the driver is that an image beginning with @buf is its format: 0 to 100. */
    int (*probe)(const uint8_t *buf, size_t len);
    /* What @opts, of this driver, say about the backing file. NULL: the driver has none. */
    BlockdevRefOrNull *(*backing_option)(const BlockdevOptions *opts);

    /*
     * Open children by bdrv_open_child(), check everything, fill supported_*_flags and total_bytes.
     * To run coroutines use aio_co_run(bs->aio_context, ...). On failure undo everything but
     * children. 0 or -1.
     */
    int (*open)(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp);
    void (*close)(BlockDriverState *bs);
    /* bs->bl as it should be; it comes filled from the children. NULL: that is right. */
    void (*refresh_limits)(BlockDriverState *bs);

    /*
     * What the node needs of @child (NULL: of one that will be of @role) and shares with others
     * there, given what the node's own parents need and share. NULL: bdrv_default_perms().
     */
    void (*child_perm)(BlockDriverState *bs, BdrvChild *child, BdrvChildRole role,
                       uint64_t parent_perm, uint64_t parent_shared, uint64_t *perm,
                       uint64_t *shared);
    /*
     * The node's cumulative permissions are about to change (locks on files): may fail, then abort
     * is called for those asked before; else set. NULL: does not care.
     */
    int (*check_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp);
    void (*set_perm)(BlockDriverState *bs, uint64_t perm, uint64_t shared);
    void (*abort_perm_update)(BlockDriverState *bs);

    /* Prepare may fail; then abort undoes it. NULL: only generic options can change. */
    int (*reopen_prepare)(BdrvReopenState *state, Error **errp);
    void (*reopen_commit)(BdrvReopenState *state);
    void (*reopen_abort)(BdrvReopenState *state);

    /* The driver gives up what it holds in the old context; takes it up in the new one. Drained. */
    void (*detach_aio_context)(BlockDriverState *bs);
    void (*attach_aio_context)(BlockDriverState *bs, AioContext *ctx);
    /*
     * Stop, restart activity that is not a request (timers, reconnects). Main thread, between open
     * and close; a node that is drained when it opens begins with a stop, one that closes needs no
     * restart.
     */
    void (*drain_begin)(BlockDriverState *bs);
    void (*drain_end)(BlockDriverState *bs);

    int coroutine_fn (*co_preadv)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                  IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
    int coroutine_fn (*co_pwritev)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                   IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
    /* -ENOTSUP: the layer writes buffers of zeroes instead (not with BDRV_REQ_NO_FALLBACK). */
    int coroutine_fn (*co_pwrite_zeroes)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         BdrvRequestFlags flags);
    /* -ENOTSUP: nothing happens. */
    int coroutine_fn (*co_pdiscard)(BlockDriverState *bs, int64_t offset, int64_t bytes);
    /* A whole cluster, or the rest of the image, compressed. @bytes 0: no more will come. */
    int coroutine_fn (*co_pwritev_compressed)(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                              IOVector *qiov, size_t qiov_offset);
    /* Write what the driver itself holds back to its children; they are flushed by the layer. */
    int coroutine_fn (*co_flush_to_os)(BlockDriverState *bs);
    /* Of drivers without children: to stable storage. */
    int coroutine_fn (*co_flush_to_disk)(BlockDriverState *bs);
    /*
     * @offset and @bytes inside the node. @want_zero: exact zeroes matter more than speed. Sets
     * *pnum (1 to
     * @bytes), *map and *file as bdrv_co_block_status(). NULL: everything is data, or the child's.
     */
    int coroutine_fn (*co_block_status)(BlockDriverState *bs, bool want_zero, int64_t offset,
                                        int64_t bytes, int64_t *pnum, int64_t *map,
                                        BlockDriverState **file);
    /*
     * A descriptor of a file whose page cache holds nothing but the node's content, the range at
     * *offset of it; moves *offset. -1: there is none. Any thread, while a request is counted.
     * NULL: there never is.
     */
    int (*page_cache_fd)(BlockDriverState *bs, int64_t *offset, int64_t bytes);
    int64_t coroutine_fn (*co_getlength)(BlockDriverState *bs);
    /*
     * The node's length now that its child has another one, for drivers that are neither filter nor
     * have their length in metadata (raw). Any thread. NULL: the child's length does not matter.
     */
    int64_t (*length_by_child)(BlockDriverState *bs, BdrvChild *child);
    int64_t coroutine_fn (*co_get_allocated_file_size)(BlockDriverState *bs);
    int coroutine_fn (*co_truncate)(BlockDriverState *bs, int64_t offset, bool exact,
                                    PreallocMode prealloc, BdrvRequestFlags flags, Error **errp);

    /*
     * Make an image by @opts, of this driver; the child "file" of a format exists and is given by
     * reference.
     */
    int coroutine_fn (*co_create)(BlockdevCreateOptions *opts, Error **errp);
    /*
     * The same from what `ferry-img create -o` says: @opts is of strings and owned by the caller.
     * Creates the file below too. NULL: only protocols that can be created have it.
     */
    int coroutine_fn (*co_create_opts)(const char *filename, uint64_t size,
                                       struct json_object *opts, Error **errp);
    /* Of formats: what `-o` takes, for help and checks; ends with a NULL name. */
    const struct BdrvCreateOption *create_options;

    int coroutine_fn (*co_check)(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckMode fix);
    /* Write a new backing file name into the image; NULL: none. */
    int coroutine_fn (*co_change_backing_file)(BlockDriverState *bs, const char *backing_file,
                                               const char *backing_fmt);
    /*
     * Let the image have nothing of its own any more: all of it is the backing file's. NULL: it
     * cannot.
     */
    int coroutine_fn (*co_make_empty)(BlockDriverState *bs);
    int coroutine_fn (*co_get_info)(BlockDriverState *bs, BlockDriverInfo *info);
    /* The caller's; NULL with @errp set, or NULL without: nothing to tell. */
    ImageInfoSpecific *(*get_specific_info)(BlockDriverState *bs, Error **errp);
    /* Internal snapshots, the caller's; NULL function: the format has none. */
    int coroutine_fn (*co_list_snapshots)(BlockDriverState *bs, SnapshotInfoList **list,
                                          Error **errp);
    /* Let a node that is read-only show the snapshot with that id; NULL: it cannot. */
    int coroutine_fn (*co_load_snapshot)(BlockDriverState *bs, const char *id, Error **errp);

    /* Read metadata anew after another process wrote the image; write everything and forget it. */
    int coroutine_fn (*co_invalidate_cache)(BlockDriverState *bs, Error **errp);
    int coroutine_fn (*co_inactivate)(BlockDriverState *bs);

    /*
     * Whether a persistent bitmap may be added; its removal from the image; NULL: not persistent.
     */
    bool coroutine_fn (*co_can_store_bitmap)(BlockDriverState *bs, const char *name,
                                             uint32_t granularity, Error **errp);
    int coroutine_fn (*co_remove_bitmap)(BlockDriverState *bs, const char *name, Error **errp);
};

typedef struct BdrvCreateOption {
    const char *name, *desc, *default_value;
} BdrvCreateOption;

/*
 * block/drivers.c: all drivers, NULL-terminated; by name, NULL with @errp set when there is none.
 */
extern const BlockDriver *const block_drivers[];
const BlockDriver *bdrv_find_driver(const char *format_name, Error **errp);
const BlockDriver *bdrv_driver_of(BlockdevDriver driver);

/*
 * bdrv_open_child:
 * @parent: the node whose open runs
 * @name: of the edge
 * @ref: a definition (opened with what it inherits from @parent: read-only, cache, discard) or a
 * name
 *
 * Returns: the edge, owned by @parent and gone with it; NULL with @errp set.
 */
BdrvChild *bdrv_open_child(BlockDriverState *parent, const char *name, BlockdevRef *ref,
                           BdrvChildRole role, Error **errp);
/* The same for the child "file": sets parent->file. 0, or -1 with @errp set. */
int bdrv_open_file_child(BlockDriverState *parent, BlockdevRef *ref, BdrvChildRole role,
                         Error **errp);
/* Attach an open node; takes a reference. NULL with @errp set. */
BdrvChild *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *bs, const char *name,
                             BdrvChildRole role, Error **errp);
/* Remove an edge of a node and drop its reference. NULL is allowed. */
void bdrv_detach_child(BdrvChild *child);
/* An edge that no node holds (BlockBackend). Takes a reference to @bs. NULL with @errp set. */
BdrvChild *bdrv_root_attach_child(BlockDriverState *bs, const char *name,
                                  const BdrvChildClass *klass, uint64_t perm, uint64_t shared_perm,
                                  void *opaque, Error **errp);
void bdrv_root_detach_child(BdrvChild *child);
/* Change what the holder of a root edge may do. 0, or -1 with @errp set. */
int bdrv_child_try_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared, Error **errp);
/* Ask child_perm() anew, after a driver changed its mind. 0, or -1 with @errp set. */
int bdrv_refresh_perms(BlockDriverState *bs, Error **errp);
void bdrv_default_perms(BlockDriverState *bs, BdrvChild *child, BdrvChildRole role,
                        uint64_t parent_perm, uint64_t parent_shared, uint64_t *perm,
                        uint64_t *shared);
/* "write", "consistent read, resize": for messages; g_free() it. */
char *bdrv_perm_names(uint64_t perm);

/* For drivers: the length is now that; parents are told. Home context. */
void coroutine_fn bdrv_co_set_length(BlockDriverState *bs, int64_t bytes);
/* Recompute bs->bl here and above. Main thread. */
void bdrv_refresh_limits(BlockDriverState *bs);

/*
 * Count what is a request but does not come through io.h (background work of a driver). Any thread.
 */
void bdrv_inc_in_flight(BlockDriverState *bs);
void bdrv_dec_in_flight(BlockDriverState *bs);

/* Iterate over children: BdrvChild *c; BDRV_FOREACH_CHILD(bs, c) ... */
#define BDRV_FOREACH_CHILD(bs, c) \
    for (GList *child_link_ = (bs)->children.head; \
         child_link_ && ((c) = child_link_->data, true); child_link_ = child_link_->next)
#define BDRV_FOREACH_PARENT(bs, c) \
    for (GList *parent_link_ = (bs)->parents.head; \
         parent_link_ && ((c) = parent_link_->data, true); parent_link_ = parent_link_->next)

#endif
