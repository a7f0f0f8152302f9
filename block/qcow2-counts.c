/*
 * qcow2: how often each cluster of the file is referred to, for checking and repairing. Counts
 * stand in pieces that exist where something was counted, found by a hash table: what they cost
 * follows from what the tables of the image refer to, not from the length of its file, which can be
 * one hole.
 *
 * A piece is never larger than what one refcount block covers, and never lies in two.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>

#include "block/qcow2.h"

static void *key_of(uint64_t piece)
{
    return (void *)(uintptr_t)piece;
}

void qcow2_counts_init(Qcow2Counts *counts, uint64_t n)
{
    *counts = (Qcow2Counts) {
        .n = n, .pieces = g_hash_table_new_full(NULL, NULL, NULL, free), .last_piece = UINT64_MAX,
    };
}

void qcow2_counts_clear(Qcow2Counts *counts)
{
    g_clear_pointer(&counts->pieces, g_hash_table_unref);
    counts->last = NULL;
    counts->last_piece = UINT64_MAX;
}

void qcow2_counts_add(Qcow2Counts *counts, uint64_t cluster)
{
    uint64_t piece = cluster / QCOW2_COUNTS_PIECE;
    uint32_t *count;

    if (piece != counts->last_piece) {
        count = g_hash_table_lookup(counts->pieces, key_of(piece));
        if (!count) {
            count = calloc(QCOW2_COUNTS_PIECE, sizeof(*count));
            if (!count) {
                counts->failed = true;
                return;
            }
            g_hash_table_insert(counts->pieces, key_of(piece), count);
        }
        counts->last = count;
        counts->last_piece = piece;
    }
    count = &counts->last[cluster % QCOW2_COUNTS_PIECE];
    *count += *count != UINT32_MAX;
}

uint64_t qcow2_counts_get(const Qcow2Counts *counts, uint64_t cluster)
{
    uint64_t piece = cluster / QCOW2_COUNTS_PIECE;
    const uint32_t *count = piece == counts->last_piece
                                ? counts->last
                                : g_hash_table_lookup(counts->pieces, key_of(piece));

    return count ? count[cluster % QCOW2_COUNTS_PIECE] : 0;
}

bool qcow2_counts_any(const Qcow2Counts *counts, uint64_t cluster, uint64_t n)
{
    for (uint64_t i = cluster / QCOW2_COUNTS_PIECE; i < (cluster + n) / QCOW2_COUNTS_PIECE; i++) {
        if (g_hash_table_contains(counts->pieces, key_of(i))) {
            return true;
        }
    }
    return false;
}

static int compare_pieces(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)*(void *const *)a, y = (uintptr_t)*(void *const *)b;

    return (x > y) - (x < y);
}

uint64_t *qcow2_counts_pieces(const Qcow2Counts *counts, guint *n)
{
    void **keys = g_hash_table_get_keys_as_array(counts->pieces, n);
    uint64_t *first = g_new(uint64_t, *n);

    qsort(keys, *n, sizeof(*keys), compare_pieces);
    for (guint i = 0; i < *n; i++) {
        first[i] = (uintptr_t)keys[i] * QCOW2_COUNTS_PIECE;
    }
    g_free(keys);
    return first;
}
