/*
 * qcow2: the options of a node, checked and with their defaults.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/qcow2.h"

#define DEFAULT_CACHE_BYTES (UINT64_C(32) << 20)
#define MIN_CACHE_BYTES (UINT64_C(64) << 10)
#define MAX_CACHE_BYTES (UINT64_C(1) << 40)

/* A cache for all of the image is as large as makes sense. */
static uint64_t useful_l2_bytes(const Qcow2State *s)
{
    return qcow2_clusters_up(s, s->hdr.size) * s->entry_bytes + s->cluster_size;
}

/* The file is about as long as the disk when all of it is written; it may become twice as long. */
static uint64_t useful_ref_bytes(const Qcow2State *s)
{
    uint64_t clusters = qcow2_clusters_up(s, MAX(s->hdr.size, s->file_len)) * 2;

    return ((clusters << s->hdr.refcount_order) / 8) + s->cluster_size;
}

static bool cache_sizes(const Qcow2State *s, const BlockdevOptionsQcow2 *o, Qcow2Options *result,
                        Error **errp)
{
    uint64_t total = o->has_cache_size ? o->cache_size : DEFAULT_CACHE_BYTES;
    uint64_t l2 = o->l2_cache_size, ref = o->refcount_cache_size, sum;

    if (o->has_cache_size && o->has_l2_cache_size && o->has_refcount_cache_size) {
        error_setg(
            errp,
            "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
        return false;
    }
    if (__builtin_add_overflow(o->has_l2_cache_size ? l2 : 0, o->has_refcount_cache_size ? ref : 0,
                               &sum) ||
        sum > MAX_CACHE_BYTES || total > MAX_CACHE_BYTES) {
        error_setg(errp, "The caches of a qcow2 image may not be larger than %" PRIu64 " bytes",
                   MAX_CACHE_BYTES);
        return false;
    }
    if (o->has_cache_size && sum > total) {
        error_setg(errp, "%s may not exceed cache-size",
                   o->has_l2_cache_size ? "l2-cache-size" : "refcount-cache-size");
        return false;
    }
    if (!o->has_refcount_cache_size) {
        ref = o->has_l2_cache_size && o->has_cache_size ? total - l2 : total / 8;
    }
    if (!o->has_l2_cache_size) {
        l2 = total > ref ? total - ref : MIN_CACHE_BYTES;
    }
    result->l2_cache_bytes = MAX(MIN(l2, useful_l2_bytes(s)), MIN_CACHE_BYTES);
    result->ref_cache_bytes = MAX(MIN(ref, useful_ref_bytes(s)), MIN_CACHE_BYTES);
    return true;
}

bool qcow2_parse_options(BlockDriverState *bs, const BlockdevOptionsQcow2 *o, bool discard_unmap,
                         Qcow2Options *result, Error **errp)
{
    Qcow2State *s = qcow2_state(bs);

    *result = (Qcow2Options) {
        .lazy_refcounts = o->has_lazy_refcounts ? o->lazy_refcounts
                                                : s->hdr.compatible & QCOW2_COMPAT_LAZY_REFCOUNTS,
    };
    if (result->lazy_refcounts && s->hdr.version < 3) {
        error_setg(errp, "Lazy refcounts need a qcow2 image of version 3 (compat=1.1)");
        return false;
    }
    result->pass_discard[QCOW2_DISCARD_REQUEST] =
        o->has_pass_discard_request ? o->pass_discard_request : discard_unmap;
    result->pass_discard[QCOW2_DISCARD_SNAPSHOT] =
        o->has_pass_discard_snapshot ? o->pass_discard_snapshot : true;
    result->pass_discard[QCOW2_DISCARD_OTHER] = o->has_pass_discard_other && o->pass_discard_other;
    return cache_sizes(s, o, result, errp);
}
