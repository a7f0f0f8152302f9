/*
 * qcow2: a disk image that grows with what is written, with snapshots, backing files and
 * compression.
 *
 * The file is a row of clusters of the same size (512 bytes to 2 MiB). Integers are big-endian,
 * except inside dirty bitmaps. Everything is found from the header; docs/interop/qcow2.md says
 * which features are honoured. The bytes:
 *
 * HEADER, at 0; with its extensions and the name of the backing file it stays inside the first
 * cluster
 *      0   4  magic 51 46 49 fb ("QFI\xfb")
 *      4   4  version: 2 or 3
 *      8   8  where the name of the backing file is, 0: none
 *     16   4  its length, at most 1023
 *     20   4  cluster bits: log2 of the cluster size, 9 to 21
 *     24   8  length of the disk
 *     32   4  encryption: 0 none, 1 AES, 2 LUKS
 *     36   4  entries of the active L1 table
 *     40   8  where that is
 *     48   8  where the refcount table is
 *     56   4  its length in clusters
 *     60   4  number of snapshots
 *     64   8  where the snapshot table is
 *    ---- version 3 only; a version 2 header ends here: no features, refcounts of 16 bits
 *     72   8  incompatible features: who does not know one must not open the image
 *     80   8  compatible features: may be ignored
 *     88   8  autoclear features: who writes the image without knowing one clears it
 *     96   4  refcount order: log2 of the bits of a refcount, 0 to 6
 *    100   4  length of the header, 104 at least
 *    104   1  compression: 0 zlib, 1 zstd (then an incompatible feature says so)
 *    105   7  zero
 * EXTENSIONS, from the end of the header on, each padded to a multiple of 8
 *      0   4  type, 0: no more
 *      4   4  length n
 *      8   n  content
 *
 * L1 TABLE -> L2 TABLES -> DATA. A table of level 2 is one cluster of 8-byte entries; an entry of
 * the L1 table stands for one of them, entry 0 for the disk's first.
 *     L1 entry: bit 63 "copied": the refcount of the table is exactly 1; bits 9 to 55: its offset,
 *     0: none
 *     L2 entry: bit 63 copied, the same of the data; bit 62: compressed
 *         standard: bits 9 to 55: offset of the cluster, 0: none; bit 0 (version 3): reads as
 *         zeroes
 *         compressed, with x = 62 - (cluster bits - 8): bits 0 to x - 1: offset of the first
 *         byte;
 *             bits x to 61: how many sectors of 512 bytes it touches after the first one
 *     With the feature "extended L2 entries" an entry has 16 bytes, a table half as many, and bit 0
 *     of the first 8 is 0. The others are a bitmap of the 32 subclusters of the cluster: bit n: the
 *     n-th is there, bit 32 + n: it reads as zeroes, neither: it is the backing file's. 0 when
 *     compressed.
 *
 * REFCOUNT TABLE -> REFCOUNT BLOCKS. Every cluster of the file has a count of what refers to it. A
 * block is one cluster of counts of 1 to 64 bits; those narrower than a byte begin at its lowest
 * bits. Entry n of the table is the offset of the block for the n-th such stretch of the file, 0:
 * all counts there are 0.
 *
 * SNAPSHOT TABLE: entries of variable length, each padded to a multiple of 8 (qcow2-snapshot.c).
 * BITMAP DIRECTORY: the same for dirty bitmaps (qcow2-bitmap.c).
 *
 * The order in which things reach the file, so that it is sound whenever the process dies: counts
 * before what they count, a table before what points to it, data before the entry that shows it
 * where older data would disappear, and a count goes down only when nothing in the file refers to
 * its cluster any more. A crash leaves clusters with a count too high at worst, which is lost
 * space. qcow2-flush.c keeps that order.
 *
 * Threads: everything runs in the node's home context, coroutines or (open, close) drained. Between
 * two yields nothing changes, so looking up what is cached needs no lock. Qcow2State.lock is held
 * by whoever changes the mapping or allocates, also while it waits for tables; never while guest
 * data is transferred.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "block/driver.h"
#include "util/round.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MIN_EXTENDED_CLUSTER_BITS 14      /* a subcluster has a sector at least */
#define QCOW2_HEADER_V2_BYTES 72
#define QCOW2_HEADER_V3_MIN_BYTES 104
#define QCOW2_HEADER_V3_BYTES 112       /* what is written */
#define QCOW2_BACKING_NAME_MAX 1023

/* What is refused as absurd: no tool makes tables of that size. */
#define QCOW2_MAX_L1_BYTES (32u << 20)
#define QCOW2_MAX_REFTABLE_BYTES (8u << 20)
#define QCOW2_MAX_SNAPSHOTS 65536u
#define QCOW2_MAX_SNAPSHOT_TABLE_BYTES (64u << 20)
#define QCOW2_MAX_BITMAPS 65535u
#define QCOW2_MAX_BITMAP_DIR_BYTES (64u << 20)
#define QCOW2_MAX_BITMAP_TABLE_ENTRIES (128u << 20)
#define QCOW2_MAX_BITMAP_BYTES (512u << 20)
#define QCOW2_MAX_BITMAPS_BYTES (1u << 30)      /* of all that an open image has */

/* Offsets of header fields. */
enum {
    QCOW2_AT_MAGIC = 0, QCOW2_AT_VERSION = 4, QCOW2_AT_BACKING_OFFSET = 8,
    QCOW2_AT_BACKING_LEN = 16,
    QCOW2_AT_CLUSTER_BITS = 20, QCOW2_AT_SIZE = 24, QCOW2_AT_CRYPT = 32, QCOW2_AT_L1_SIZE = 36,
    QCOW2_AT_L1_OFFSET = 40, QCOW2_AT_REFTABLE_OFFSET = 48, QCOW2_AT_REFTABLE_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOTS = 60, QCOW2_AT_SNAPSHOTS_OFFSET = 64, QCOW2_AT_INCOMPATIBLE = 72,
    QCOW2_AT_COMPATIBLE = 80, QCOW2_AT_AUTOCLEAR = 88, QCOW2_AT_REFCOUNT_ORDER = 96,
    QCOW2_AT_HEADER_LENGTH = 100, QCOW2_AT_COMPRESSION = 104,
};

#define QCOW2_INCOMPAT_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_KNOWN \
    (QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_COMPRESSION | \
     QCOW2_INCOMPAT_EXTENDED_L2)
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)

#define QCOW2_EXT_END 0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES 0x6803f857u
#define QCOW2_EXT_BITMAPS 0x23852875u
#define QCOW2_EXT_CRYPT 0x0537be77u
#define QCOW2_EXT_DATA_FILE 0x44415441u
#define QCOW2_FEATURE_NAME_BYTES 48     /* u8 kind, u8 bit, 46 bytes of name */
#define QCOW2_EXT_BITMAPS_BYTES 24

#define QCOW2_COPIED (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED (UINT64_C(1) << 62)
#define QCOW2_ZERO (UINT64_C(1) << 0)
#define QCOW2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW2_REFTABLE_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED UINT64_C(0x3f000000000001fe)
#define QCOW2_MAX_HOST_OFFSET (QCOW2_OFFSET_MASK + 512)

typedef struct Qcow2State Qcow2State;

/*
 * qcow2-header.c
 * --------------------------------------------------------------------------------------
 */

typedef struct Qcow2Extension {
    uint32_t type, len;
    uint8_t data[];
} Qcow2Extension;

/* The header in the CPU's byte order. */
typedef struct Qcow2Header {
    uint32_t version, cluster_bits, crypt_method;
    uint64_t size;
    uint32_t l1_size;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order, header_length;
    uint8_t compression;
    char *backing_file, *backing_format;        /* NULL: none */
    bool has_bitmaps;                           /* the extension is there and to be trusted */
    uint32_t nb_bitmaps;
    uint64_t bitmap_dir_bytes, bitmap_dir_offset;
    GByteArray *more_fields; /* of the header, behind what is known; NULL: none */
    GPtrArray *extensions;   /* of Qcow2Extension: unknown ones, kept as they are */
} Qcow2Header;

/*
 * qcow2_header_parse:
 * @buf: the image's beginning, its first cluster at least, zeroes behind the end of the file
 * @len: bytes there
 *
 * Take the header and its extensions apart and check all that can be checked without looking
 * elsewhere.
 * Features that Ferry lacks are refused by name.
 * Returns: true and @hdr filled (qcow2_header_clear() it); false with @errp set and nothing to
 * clear.
 */
bool qcow2_header_parse(const uint8_t *buf, size_t len, Qcow2Header *hdr, Error **errp);
void qcow2_header_clear(Qcow2Header *hdr);
/* How many entries the L1 table needs for a disk of @size bytes. */
uint64_t qcow2_l1_needed(const Qcow2Header *hdr, uint64_t size);
/* Write it to @buf, one cluster of zeroes. False with @errp set: it does not fit. */
bool qcow2_header_serialize(const Qcow2Header *hdr, uint8_t *buf, Error **errp);
/*
 * How much of the beginning must be read for parsing, from its first 24 bytes: 0: not a qcow2
 * image.
 */
size_t qcow2_header_needs(const uint8_t *buf, size_t len);

/* To the file. Returns 0 or a negative errno. */
int coroutine_fn qcow2_header_write(BlockDriverState *bs);
/* Only the feature bits; followed by a flush of the file. */
int coroutine_fn qcow2_header_write_features(BlockDriverState *bs);

/*
 * qcow2-cache.c
 * ---------------------------------------------------------------------------------------
 */

/* A piece of a table, as in the file (big-endian). */
typedef struct Qcow2Slice Qcow2Slice;
struct Qcow2Slice {
    uint64_t offset;                    /* in the file */
    uint8_t *data;
    unsigned pins; /* who uses it across a yield; it stays while there are any */
    bool valid, dirty, forgotten;
    int error;                          /* of the read that failed */
    Qcow2Slice *hash_next, *prev, *next;
    CoQueue loaded;
};

typedef struct Qcow2SliceList {
    Qcow2Slice *first, *last;
} Qcow2SliceList;

typedef struct Qcow2Cache {
    Qcow2State *s;
    uint32_t slice_bytes;
    unsigned max, count, dirty;
    unsigned hash_mask;
    Qcow2Slice **hash;
    Qcow2SliceList clean_list;          /* least recently used last */
    Qcow2SliceList dirty_list;
} Qcow2Cache;

/* @bytes: how much memory it may use. False: no memory. */
bool qcow2_cache_init(Qcow2Cache *cache, Qcow2State *s, uint32_t slice_bytes, uint64_t bytes);
/* Nothing is pinned. What is dirty is lost. */
void qcow2_cache_destroy(Qcow2Cache *cache);
/* Forget everything; nothing is pinned. */
void qcow2_cache_drop(Qcow2Cache *cache);
/*
 * The slice at @offset, a multiple of the slice size, pinned; it is read when it is not there. 0 or
 * an errno.
 */
int coroutine_fn qcow2_cache_get(Qcow2Cache *cache, uint64_t offset, Qcow2Slice **slice);
/* The same without waiting; NULL when it is not there. Not pinned: good until the next yield. */
Qcow2Slice *qcow2_cache_peek(Qcow2Cache *cache, uint64_t offset);
void qcow2_cache_put(Qcow2Cache *cache, Qcow2Slice *slice);
void qcow2_cache_mark_dirty(Qcow2Cache *cache, Qcow2Slice *slice);
/* The tables in that range are free: what is cached of them is worth nothing. */
void qcow2_cache_forget(Qcow2Cache *cache, uint64_t offset, uint64_t bytes);

/* A copy of what is to be written: pieces of @piece bytes, ascending offsets. */
typedef struct Qcow2Batch {
    size_t piece, n;
    uint64_t *offsets;
    uint8_t *data;
    Qcow2Slice **slices;                /* NULL: pieces of a table in memory */
} Qcow2Batch;

/* Take all dirty slices; they count as clean from now on and stay pinned. 0 or -ENOMEM. */
int qcow2_cache_collect(Qcow2Cache *cache, Qcow2Batch *batch);
/* Unpin them; @failed: they are dirty again. */
void qcow2_cache_collected(Qcow2Cache *cache, Qcow2Batch *batch, bool failed);
int coroutine_fn qcow2_batch_write(BlockDriverState *bs, const Qcow2Batch *batch);
void qcow2_batch_clear(Qcow2Batch *batch);

/* A table that is kept in memory as a whole, written back in pieces of 512 bytes. */
typedef struct Qcow2Table {
    uint64_t *entry;                    /* in the CPU's order */
    uint32_t n;
    uint64_t offset;                    /* in the file */
    unsigned long *dirty;               /* a bit a piece */
    bool any_dirty;
} Qcow2Table;

/* Room for @n entries, all 0. False: no memory. */
bool qcow2_table_init(Qcow2Table *table, uint32_t n, uint64_t offset);
void qcow2_table_clear(Qcow2Table *table);
int coroutine_fn qcow2_table_read(BlockDriverState *bs, Qcow2Table *table);
/* All of it, now. */
int coroutine_fn qcow2_table_write(BlockDriverState *bs, const Qcow2Table *table);
void qcow2_table_set(Qcow2Table *table, uint32_t index, uint64_t value);
int qcow2_table_collect(Qcow2Table *table, Qcow2Batch *batch);
void qcow2_table_collected(Qcow2Table *table, const Qcow2Batch *batch, bool failed);

/*
 * qcow2-overlap.c
 * -------------------------------------------------------------------------------------
 */

typedef enum Qcow2MetaKind { QCOW2_META_NONE, QCOW2_META_L2, QCOW2_META_REFBLOCK } Qcow2MetaKind;

/* Which clusters are L2 tables and refcount blocks: a hash table. */
typedef struct Qcow2MetaSet {
    uint64_t *slot;                     /* cluster index << 2 | kind; 0: empty */
    uint64_t mask, used;
} Qcow2MetaSet;

/*
 * Note all tables; afterwards writes are checked. -EIO: they overlap, the image is marked as
 * corrupt.
 */
int coroutine_fn qcow2_overlap_init(BlockDriverState *bs);
void qcow2_overlap_destroy(Qcow2State *s);
int qcow2_overlap_add(Qcow2State *s, uint64_t offset, Qcow2MetaKind kind);
void qcow2_overlap_remove(Qcow2State *s, uint64_t offset);
/*
 * Guest data or new metadata is about to be written there. 0; or -EIO when that is the place of
 * something that the image's structure depends on: the image is marked as corrupt then.
 */
int coroutine_fn qcow2_overlap_check(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
/* The image is broken: say so, mark it, refuse writes from now on. Returns -EIO. */
int coroutine_fn qcow2_signal_corruption(BlockDriverState *bs, const char *fmt, ...)
    G_GNUC_PRINTF(2, 3);

/*
 * qcow2-refcount.c
 * ------------------------------------------------------------------------------------
 */

uint64_t qcow2_refcount_load(const void *block, unsigned order, uint64_t index);
void qcow2_refcount_store(void *block, unsigned order, uint64_t index, uint64_t value);

/* With Qcow2State.lock, unless it says otherwise. Negative errno on failure. */
/* Of one cluster; no lock needed. */
int coroutine_fn qcow2_refcount_get(BlockDriverState *bs, uint64_t cluster, uint64_t *refcount);
/*
 * Exactly @n clusters in a row: the offset of the first. *@zeroed: they are known to be all zeroes.
 */
int64_t coroutine_fn qcow2_alloc_clusters(BlockDriverState *bs, uint64_t n, bool *zeroed);
/* As many in a row as there are, *@n at most; *@n becomes their number. */
int64_t coroutine_fn qcow2_alloc_run(BlockDriverState *bs, uint64_t *n, bool *zeroed);
/* Room for @bytes of compressed data, packed behind the last. */
int64_t coroutine_fn qcow2_alloc_bytes(BlockDriverState *bs, uint32_t bytes);
/* Count down at once: for clusters that nothing in the file ever referred to. No lock needed. */
void coroutine_fn qcow2_unalloc(BlockDriverState *bs, uint64_t offset, uint64_t bytes);
/*
 * Count down, discarding in the file what becomes free when @discard. No lock needed; one at a
 * time.
 */
int coroutine_fn qcow2_refcount_drop(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     bool discard);
/* Set a count without looking at it: for repairs. Its block exists. */
int coroutine_fn qcow2_refcount_set(BlockDriverState *bs, uint64_t cluster, uint64_t refcount);

/*
 * qcow2-grow.c: the file itself
 * ---------------------------------------------------------------------
 */

/* Let the file reach to @end at least. */
int coroutine_fn qcow2_extend_file(BlockDriverState *bs, uint64_t end);
/* Give back what the file was extended too far. */
void coroutine_fn qcow2_trim_file(BlockDriverState *bs);
/* A refcount table that covers cluster @cluster. */
int coroutine_fn qcow2_grow_reftable(BlockDriverState *bs, uint64_t cluster);

/*
 * qcow2-flush.c
 * ---------------------------------------------------------------------------------------
 */

typedef enum Qcow2DiscardKind {
    QCOW2_DISCARD_REQUEST, QCOW2_DISCARD_SNAPSHOT, QCOW2_DISCARD_OTHER, QCOW2_DISCARD_NEVER,
} Qcow2DiscardKind;

/* What was referred to until now and is free as soon as that is known to the file. */
typedef struct Qcow2Freed {
    uint64_t offset, bytes;
    Qcow2DiscardKind kind;
} Qcow2Freed;

/*
 * The mapping, as changed in the caches, does not refer to that range any more (once): count it
 * down when the file knows. Call it after the change, with no yield in between.
 */
void qcow2_free_later(Qcow2State *s, uint64_t offset, uint64_t bytes, Qcow2DiscardKind kind);
/* All metadata to the file, in order. It is flushed where the order needs it, not at the end. */
int coroutine_fn qcow2_write_back(BlockDriverState *bs);
/* Also refcounts that are lazy. */
int coroutine_fn qcow2_write_back_all(BlockDriverState *bs);
/* Until nothing waits to be freed; flushed. */
int coroutine_fn qcow2_settle(BlockDriverState *bs);
/* Whether so much waits to be freed that somebody should call qcow2_settle(). */
bool qcow2_wants_settling(const Qcow2State *s);

/*
 * From begin to end a transfer uses clusters that it has looked up: they are not given to others
 * although they are freed meanwhile. No yield between looking up and begin.
 */
static inline unsigned qcow2_io_begin(Qcow2State *s);
static inline void qcow2_io_end(Qcow2State *s, unsigned epoch);

/*
 * qcow2-entry.c
 * -------------------------------------------------------------------------------------
 */

typedef enum Qcow2ClusterType {
    QCOW2_UNALLOCATED,                  /* the backing file's */
    QCOW2_UNALLOCATED_ALLOC,            /* the same, and it has a place in the file */
    QCOW2_ZERO_PLAIN,                   /* zeroes */
    QCOW2_ZERO_ALLOC,                   /* the same, and it has a place in the file */
    QCOW2_NORMAL, QCOW2_COMPRESSED_DATA,
} Qcow2ClusterType;

/* An L2 entry; the bitmap of one that is not extended is 0. */
typedef struct Qcow2Entry {
    uint64_t desc, bitmap;
} Qcow2Entry;

#define QCOW2_SUBCLUSTER_BITS 5         /* log2 of how many a cluster with an extended entry has */
#define QCOW2_BITMAP_ALLOC_ALL UINT64_C(0x00000000ffffffff)
#define QCOW2_BITMAP_ZERO_ALL UINT64_C(0xffffffff00000000)

static inline bool qcow2_is_zero(Qcow2ClusterType type)
{
    return type == QCOW2_ZERO_PLAIN || type == QCOW2_ZERO_ALLOC;
}

static inline bool qcow2_is_backing(Qcow2ClusterType type)
{
    return type == QCOW2_UNALLOCATED || type == QCOW2_UNALLOCATED_ALLOC;
}

Qcow2Entry qcow2_entry_load(const Qcow2State *s, const void *table, unsigned index);
void qcow2_entry_store(const Qcow2State *s, void *table, unsigned index, Qcow2Entry entry);
/* Of the cluster as a whole: an extended entry has a place or not, or is compressed. */
Qcow2ClusterType qcow2_entry_type(const Qcow2State *s, Qcow2Entry entry);
Qcow2ClusterType qcow2_subcluster_type(const Qcow2State *s, Qcow2Entry entry, unsigned sub);
/* All of the cluster is at @host, which is nobody else's. */
Qcow2Entry qcow2_data_entry(const Qcow2State *s, uint64_t host);
/* All of it reads as zeroes; @desc: the place that it has, with its flag, or 0. */
Qcow2Entry qcow2_zero_entry(const Qcow2State *s, uint64_t desc);
/* The range in the file that a compressed entry stands for. */
void qcow2_compressed_range(const Qcow2State *s, uint64_t desc, uint64_t *host, uint32_t *bytes);
uint64_t qcow2_compressed_desc(const Qcow2State *s, uint64_t host, uint32_t bytes);

/*
 * qcow2-cluster.c, qcow2-discard.c
 * -------------------------------------------------------------------------------------
 */

/* Where a range of the disk is. */
typedef struct Qcow2Mapping {
    Qcow2ClusterType type;
    uint64_t bytes;                     /* for so many bytes, in a row in the file */
    uint64_t host;                      /* of the first byte: NORMAL, ZERO_ALLOC */
    bool copied;                        /* of all of them */
    uint64_t desc;                      /* COMPRESSED_DATA: of the L2 entry */
} Qcow2Mapping;

int coroutine_fn qcow2_map(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                           Qcow2Mapping *map);

/* Clusters that become visible when they have been written; others who want to change them wait. */
typedef struct Qcow2Alloc Qcow2Alloc;
struct Qcow2Alloc {
    uint64_t guest;                     /* first cluster's offset on the disk */
    uint64_t clusters;
    uint64_t host;                      /* theirs in the file, in a row */
    bool reused;                        /* they were theirs before, hidden by the zero flag */
    bool host_zeroed;                   /* the file has zeroes there */
    bool reads_zero;                    /* the disk had zeroes there */
    bool partly;                        /* only what is filled becomes visible, in whole subclusters */
    uint64_t fill_from, fill_to;        /* so much of the disk must be filled */
    CoQueue waiters;
    Qcow2Alloc *prev, *next;
};

typedef struct Qcow2WriteMapping {
    uint64_t host, bytes;
    unsigned epoch;                     /* qcow2_io_begin() was called, unless @alloc */
    Qcow2Alloc *alloc;                  /* not NULL: end it by qcow2_alloc_link() or _abort() */
} Qcow2WriteMapping;

/* Where to write what belongs to the first *@map->bytes of the range. No lock held. */
int coroutine_fn qcow2_map_for_write(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     Qcow2WriteMapping *map);
/* Show the clusters to readers; frees @alloc in any case. */
int coroutine_fn qcow2_alloc_link(BlockDriverState *bs, Qcow2Alloc *alloc);
void coroutine_fn qcow2_alloc_abort(BlockDriverState *bs, Qcow2Alloc *alloc);
/* List it; take it off the list, wake who waits for it and free it. With the lock. */
void qcow2_allocs_add(Qcow2State *s, Qcow2Alloc *alloc);
void qcow2_allocs_remove(Qcow2State *s, Qcow2Alloc *alloc);
/*
 * Wait until nobody has clusters of the range under way. With the lock, which is released
 * meanwhile.
 */
void coroutine_fn qcow2_wait_for_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes);
/* The end of the range before the first cluster that is under way. */
uint64_t qcow2_clear_of_allocs(Qcow2State *s, uint64_t offset, uint64_t bytes);
/*
 * The slice with the L2 entry of @offset, in a table that may be changed; pinned; *@index: the
 * entry in it.
 */
int coroutine_fn qcow2_slice_for_change(BlockDriverState *bs, uint64_t offset, Qcow2Slice **slice,
                                        unsigned *index);
/* Put an entry into a slice and free later what the old one referred to. */
void qcow2_replace_entry(Qcow2State *s, Qcow2Slice *slice, unsigned index, Qcow2Entry entry,
                         Qcow2DiscardKind kind);
/* Bytes of the disk that a slice of an L2 table stands for. */
uint64_t qcow2_slice_span(const Qcow2State *s);

/* Whole clusters; waits for those under way. */
int coroutine_fn qcow2_zero_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                     BdrvRequestFlags flags);
/* @forget: leave nothing, the range is beyond the end; else it reads as zeroes afterwards. */
int coroutine_fn qcow2_discard_clusters(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                        bool forget, Qcow2DiscardKind kind);

/*
 * qcow2-io.c
 * ------------------------------------------------------------------------------------------
 */

int coroutine_fn qcow2_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                 IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                  IOVector *qiov, size_t qiov_offset, BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                        BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, bool want_zero, int64_t offset,
                                       int64_t bytes, int64_t *pnum, int64_t *map,
                                       BlockDriverState **file);
/*
 * Before anything changes: 0, or why writing is refused. Marks bitmaps and features the first time.
 */
int coroutine_fn qcow2_begin_change(BlockDriverState *bs);
/* From the file, with zeroes behind its end. */
int coroutine_fn qcow2_read_file(BlockDriverState *bs, uint64_t offset, uint64_t bytes,
                                 IOVector *qiov, size_t qiov_offset);
int coroutine_fn qcow2_read_table(BlockDriverState *bs, uint64_t offset, uint64_t bytes, void *buf);

/* Coroutines that do parts of a request beside each other. */
typedef struct Qcow2Tasks {
    unsigned running;
    int ret;
    Coroutine *waiter;
} Qcow2Tasks;
typedef int coroutine_fn Qcow2TaskFn(void *opaque);
/* Wait while @max or more are running. */
void coroutine_fn qcow2_tasks_make_room(Qcow2Tasks *tasks, unsigned max);
/* Run @fn(@opaque), which frees it. */
void coroutine_fn qcow2_tasks_start(Qcow2Tasks *tasks, Qcow2TaskFn *fn, void *opaque);
/* Wait for all; the first error. */
int coroutine_fn qcow2_tasks_wait(Qcow2Tasks *tasks);

/*
 * qcow2-compress.c
 * ------------------------------------------------------------------------------------
 */

/* Clusters that were decompressed, for the next reader. */
#define QCOW2_DECOMPRESSED_SLOTS 4
typedef struct Qcow2Decompressed {
    uint64_t entry;                     /* 0: empty */
    uint8_t *data;
    unsigned pins, used;
    bool ready;
    int error;
    CoQueue done;
} Qcow2Decompressed;

int coroutine_fn qcow2_read_compressed(BlockDriverState *bs, uint64_t entry, uint64_t in_cluster,
                                       uint64_t bytes, IOVector *qiov, size_t qiov_offset);
int coroutine_fn qcow2_co_pwritev_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             IOVector *qiov, size_t qiov_offset);
/* The range of the file is free: what was decompressed from it is not valid any more. */
void qcow2_decompressed_forget(Qcow2State *s, uint64_t offset, uint64_t bytes);
void qcow2_decompressed_destroy(Qcow2State *s);
/*
 * One cluster; returns the length, or -ENOSPC when that is not less than @dst_bytes, or another
 * errno.
 */
ssize_t qcow2_compress(int type, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);
/* Exactly @dst_bytes come out of @src, which may have more behind its end. 0 or -EIO. */
int qcow2_decompress(int type, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);

/*
 * qcow2-snapshot.c
 * ------------------------------------------------------------------------------------
 */

typedef struct Qcow2Snapshot {
    uint64_t l1_offset, disk_size, vm_state_size, vm_clock_nsec, icount;
    uint32_t l1_size, date_sec, date_nsec;
    bool has_icount, has_disk_size;
    char *id, *name;
} Qcow2Snapshot;

/* Parses one entry at @buf of @len bytes: its padded length; 0 with @errp set. */
size_t qcow2_snapshot_parse(const uint8_t *buf, size_t len, Qcow2Snapshot *snap, Error **errp);
void qcow2_snapshot_free(Qcow2Snapshot *snap);
int coroutine_fn qcow2_load_snapshots(BlockDriverState *bs, Error **errp);
int coroutine_fn qcow2_co_list_snapshots(BlockDriverState *bs, SnapshotInfoList **list,
                                         Error **errp);
/* The L1 table and the length become those of the snapshot; the bitmaps are not about it: they go. */
int coroutine_fn qcow2_co_load_snapshot(BlockDriverState *bs, const char *id, Error **errp);

/*
 * qcow2-bitmap.c
 * --------------------------------------------------------------------------------------
 */

#define QCOW2_BITMAP_IN_USE (1u << 0)
#define QCOW2_BITMAP_AUTO (1u << 1)
#define QCOW2_BITMAP_EXTRA_COMPATIBLE (1u << 2)

typedef struct Qcow2BitmapEntry {
    uint64_t table_offset;
    uint32_t table_size;                /* entries */
    uint32_t flags;
    uint8_t granularity_bits;
    char *name;
    GByteArray *extra;                  /* unknown extra data, kept as it is; NULL: none */
} Qcow2BitmapEntry;

/* Parses one entry of the directory: its padded length; 0 with @errp set. */
size_t qcow2_bitmap_parse(const uint8_t *buf, size_t len, Qcow2BitmapEntry *entry, Error **errp);
void qcow2_bitmap_free(Qcow2BitmapEntry *entry);
/* Read the directory into Qcow2State.bitmaps. */
int coroutine_fn qcow2_load_bitmap_dir(BlockDriverState *bs, Error **errp);
/* Make the node's bitmaps of it. */
int coroutine_fn qcow2_load_bitmaps(BlockDriverState *bs, Error **errp);
/* Say in the file that the bitmaps there are not up to date. */
int coroutine_fn qcow2_mark_bitmaps_in_use(BlockDriverState *bs);
/* Write the persistent ones of the node. */
int coroutine_fn qcow2_store_bitmaps(BlockDriverState *bs, Error **errp);
/* Take what qcow2_load_bitmaps() made, and other persistent ones, off the node. */
void coroutine_fn qcow2_release_bitmaps(BlockDriverState *bs);
bool coroutine_fn qcow2_co_can_store_bitmap(BlockDriverState *bs, const char *name,
                                            uint32_t granularity, Error **errp);
/* Whether the node's persistent bitmaps could be stored if the disk were so long. */
bool qcow2_bitmaps_fit(BlockDriverState *bs, uint64_t size);
int coroutine_fn qcow2_co_remove_bitmap(BlockDriverState *bs, const char *name, Error **errp);
Qcow2BitmapInfoList *qcow2_bitmap_infos(BlockDriverState *bs);
/* A bitmap's table in the CPU's order, g_free() it; NULL with *@ret set. */
uint64_t *coroutine_fn qcow2_read_bitmap_table(BlockDriverState *bs, const Qcow2BitmapEntry *entry,
                                               int *ret);

/*
 * qcow2-counts.c
 * ------------------------------------------------------------------------------------
 */

/* Counts of a piece: the smallest refcount block has as many. */
#define QCOW2_COUNTS_PIECE 64

/* How often each cluster is referred to, also behind the end of the file. */
typedef struct Qcow2Counts {
    uint64_t n;                         /* clusters of the file */
    bool failed;                        /* no memory: some are missing */
    GHashTable *pieces;                 /* index -> uint32_t[QCOW2_COUNTS_PIECE] */
    uint64_t last_piece;                /* the one that was counted in last, and its counts */
    uint32_t *last;
} Qcow2Counts;

/* All are 0. qcow2_counts_clear() it. */
void qcow2_counts_init(Qcow2Counts *counts, uint64_t n);
void qcow2_counts_clear(Qcow2Counts *counts);
/* One more; it stays at UINT32_MAX. */
void qcow2_counts_add(Qcow2Counts *counts, uint64_t cluster);
uint64_t qcow2_counts_get(const Qcow2Counts *counts, uint64_t cluster);
/* Whether something in the range is counted; both are multiples of QCOW2_COUNTS_PIECE. */
bool qcow2_counts_any(const Qcow2Counts *counts, uint64_t cluster, uint64_t n);
/* The first cluster of each piece in which something is counted, ascending; g_free() it. */
uint64_t *qcow2_counts_pieces(const Qcow2Counts *counts, guint *n);

/*
 * qcow2-check.c, qcow2-repair.c
 * ------------------------------------------------------------------------
 */

int coroutine_fn qcow2_co_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckMode fix);
/* With the lock held: opening repairs an image that was not closed. */
int coroutine_fn qcow2_check_locked(BlockDriverState *bs, BdrvCheckResult *result,
                                    BdrvCheckMode fix);
/* Write new refcount blocks and a new table for @counts, which does not contain the old ones. */
int coroutine_fn qcow2_rebuild_refcounts(BlockDriverState *bs, Qcow2Counts *counts);

/*
 * qcow2-create.c, qcow2-format.c
 * -----------------------------------------------------------------------
 */

typedef struct Qcow2FormatOptions {
    uint64_t size;
    unsigned version, cluster_bits, refcount_order;
    int compression;
    bool lazy_refcounts, extended_l2;
    PreallocMode preallocation;
    const char *backing_file, *backing_format;
} Qcow2FormatOptions;

/* Whether there can be such an image; false with @errp set. */
bool qcow2_format_possible(const Qcow2FormatOptions *opts, Error **errp);
/* Write an empty image to @file, whose content is gone then. 0 or -1 with @errp set. */
int coroutine_fn qcow2_format(BdrvChild *file, const Qcow2FormatOptions *opts, Error **errp);
/*
 * Bytes that an image of that kind occupies with @data_bytes of the disk allocated, as `measure`
 * says.
 */
uint64_t qcow2_format_bytes(const Qcow2FormatOptions *opts, uint64_t data_bytes);
int coroutine_fn qcow2_co_create(BlockdevCreateOptions *opts, Error **errp);
int coroutine_fn qcow2_co_create_opts(const char *filename, uint64_t size, struct json_object *opts,
                                      Error **errp);
extern const BdrvCreateOption qcow2_create_options[];

/*
 * qcow2-truncate.c
 * -------------------------------------------------------------------------------------
 */

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                   PreallocMode prealloc, BdrvRequestFlags flags, Error **errp);

/*
 * qcow2-options.c
 * --------------------------------------------------------------------------------------
 */

/* What the node's options ask for. */
typedef struct Qcow2Options {
    bool lazy_refcounts, pass_discard[4];       /* by Qcow2DiscardKind */
    uint64_t l2_cache_bytes, ref_cache_bytes;
} Qcow2Options;

/* False with @errp set. The header is known. */
bool qcow2_parse_options(BlockDriverState *bs, const BlockdevOptionsQcow2 *o, bool discard_unmap,
                         Qcow2Options *result, Error **errp);

/*
 * qcow2.c
 * ----------------------------------------------------------------------------------------------
 */

extern const BlockDriver bdrv_qcow2;

struct Qcow2State {
    BlockDriverState *bs;
    Qcow2Header hdr;
    uint32_t cluster_size;
    unsigned cluster_bits, l2_bits;     /* log2 of the entries of an L2 table */
    bool extended;                      /* L2 entries are */
    unsigned entry_bytes;               /* of an L2 entry: 8 or 16 */
    unsigned sub_bits;                  /* log2 of what a subcluster has; without them a cluster */
    unsigned slice_entries;             /* L2 entries of a slice, a power of two */
    unsigned refblock_bits;             /* log2 of the counts of a refcount block */
    uint64_t refcount_max;

    Qcow2Options options;
    bool loaded;                        /* tables are in memory */
    bool changing;                      /* qcow2_begin_change() did its work */
    bool corrupt;                       /* writing is refused */
    bool told;                          /* somebody was told that it is corrupt */
    int sparse;                         /* the file has holes: 1, 0; -1: not yet known */

    CoMutex lock;                       /* of allocation and of changes of the mapping */
    Qcow2Table l1, reftable;
    Qcow2Cache l2_cache, ref_cache;
    Qcow2MetaSet meta;
    bool meta_known;
    GPtrArray *snapshots;               /* of Qcow2Snapshot */
    uint64_t snapshots_bytes;           /* length of their table */
    GPtrArray *bitmaps;                 /* of Qcow2BitmapEntry: what the file has */

    /* Allocation. */
    uint64_t free_hint;                 /* no cluster before it is free */
    uint64_t packed_at; /* where the next compressed cluster may begin; 0: nowhere */
    uint64_t drop_first, drop_end;      /* clusters that are being counted down and discarded */
    uint64_t file_len, file_len_opened;
    uint64_t zero_from; /* from there to the end the file is unused and all zeroes */
    uint64_t used_end;                  /* behind the last cluster that was ever allocated here */
    Qcow2Alloc *allocs;                 /* under way */

    /* Write-back. */
    CoMutex flush_lock;
    Coroutine *flusher;                 /* its holder while it frees */
    GArray *freed;                      /* of Qcow2Freed: mapping changed in the caches */
    GArray *settled;                    /* the same: changed in the file, perhaps not on the disk */
    uint64_t freed_bytes;
    bool data_before_l2; /* L2 entries were changed that need the data to be there first */
    bool counts_unflushed, l2_unflushed; /* such tables were written and may not be on the disk */

    /* Transfers under way, by the parity of the epoch in which they began. */
    unsigned io_epoch, io_count[2];
    CoQueue io_drained;

    Qcow2Decompressed decompressed[QCOW2_DECOMPRESSED_SLOTS];
    unsigned decompressed_clock;
};

static inline Qcow2State *qcow2_state(const BlockDriverState *bs)
{
    return bs->opaque;
}

static inline unsigned qcow2_io_begin(Qcow2State *s)
{
    s->io_count[s->io_epoch]++;
    return s->io_epoch;
}

static inline void qcow2_io_end(Qcow2State *s, unsigned epoch)
{
    if (--s->io_count[epoch] == 0 && epoch != s->io_epoch) {
        co_queue_restart_all(&s->io_drained);
    }
}

static inline uint64_t qcow2_start_of_cluster(const Qcow2State *s, uint64_t offset)
{
    return offset & ~(uint64_t)(s->cluster_size - 1);
}

static inline uint64_t qcow2_in_cluster(const Qcow2State *s, uint64_t offset)
{
    return offset & (s->cluster_size - 1);
}

/* Offsets are below BDRV_MAX_LENGTH: no overflow. */
static inline uint64_t qcow2_clusters_up(const Qcow2State *s, uint64_t bytes)
{
    return (bytes + s->cluster_size - 1) >> s->cluster_bits;
}

/* How much of the disk the backing file has content for. */
static inline uint64_t qcow2_backing_len(const BlockDriverState *bs)
{
    int64_t len =
        bs->backing ? __atomic_load_n(&bs->backing->bs->total_bytes, __ATOMIC_RELAXED) : 0;

    return MAX(len, 0);
}

static inline bool qcow2_refcounts_are_lazy(const Qcow2State *s)
{
    return s->hdr.incompatible & QCOW2_INCOMPAT_DIRTY;
}

#endif
