/*
 * qcow2: entries of L2 tables, in both forms.
 *
 * An extended entry (16 bytes) says of each of the 32 subclusters of its cluster whether it is
 * there, reads as zeroes or is the backing file's; an ordinary one (8 bytes) says that of the
 * cluster as a whole, as if it had one subcluster. All else is written for any number of them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/qcow2.h"
#include "util/bswap.h"

Qcow2Entry qcow2_entry_load(const Qcow2State *s, const void *table, unsigned index)
{
    const uint8_t *at = (const uint8_t *)table + (size_t)index * s->entry_bytes;

    return (Qcow2Entry) { .desc = ldq_be_p(at), .bitmap = s->extended ? ldq_be_p(at + 8) : 0 };
}

void qcow2_entry_store(const Qcow2State *s, void *table, unsigned index, Qcow2Entry entry)
{
    uint8_t *at = (uint8_t *)table + (size_t)index * s->entry_bytes;

    stq_be_p(at, entry.desc);
    if (s->extended) {
        stq_be_p(at + 8, entry.bitmap);
    }
}

Qcow2ClusterType qcow2_entry_type(const Qcow2State *s, Qcow2Entry entry)
{
    bool host = entry.desc & QCOW2_OFFSET_MASK;

    if (entry.desc & QCOW2_COMPRESSED) {
        return QCOW2_COMPRESSED_DATA;
    }
    if ((entry.desc & QCOW2_ZERO) && s->hdr.version >= 3 && !s->extended) {
        return host ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return host ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

Qcow2ClusterType qcow2_subcluster_type(const Qcow2State *s, Qcow2Entry entry, unsigned sub)
{
    Qcow2ClusterType type = qcow2_entry_type(s, entry);

    if (!s->extended || type == QCOW2_COMPRESSED_DATA) {
        return type;
    }
    if (entry.bitmap >> (32 + sub) & 1) {
        return type == QCOW2_NORMAL ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    if (entry.bitmap >> sub & 1) {
        return type;
    }
    return type == QCOW2_NORMAL ? QCOW2_UNALLOCATED_ALLOC : QCOW2_UNALLOCATED;
}

Qcow2Entry qcow2_data_entry(const Qcow2State *s, uint64_t host)
{
    return (Qcow2Entry) { .desc = host | QCOW2_COPIED,
                          .bitmap = s->extended ? QCOW2_BITMAP_ALLOC_ALL : 0 };
}

Qcow2Entry qcow2_zero_entry(const Qcow2State *s, uint64_t desc)
{
    return s->extended ? (Qcow2Entry) { .desc = desc, .bitmap = QCOW2_BITMAP_ZERO_ALL }
                       : (Qcow2Entry) { .desc = desc | QCOW2_ZERO };
}

/* ---- compressed entries ---- */

static unsigned sectors_shift(const Qcow2State *s)
{
    return 62 - (s->cluster_bits - 8);
}

void qcow2_compressed_range(const Qcow2State *s, uint64_t desc, uint64_t *host, uint32_t *bytes)
{
    unsigned shift = sectors_shift(s);
    uint64_t sectors = (desc >> shift) & ((1u << (s->cluster_bits - 8)) - 1);

    *host = desc & ((UINT64_C(1) << shift) - 1);
    *bytes = (sectors + 1) * 512 - *host % 512;
}

uint64_t qcow2_compressed_desc(const Qcow2State *s, uint64_t host, uint32_t bytes)
{
    uint64_t sectors = (host + bytes - 1) / 512 - host / 512;

    return QCOW2_COMPRESSED | sectors << sectors_shift(s) | host;
}
