/*
 * qcow2: the header and its extensions, between bytes and Qcow2Header (the layout is in qcow2.h).
 *
 * Parsing is a pure function of the first cluster, and nothing that it lets through needs to be
 * checked again: offsets are aligned and below 2^56, tables have a sane size, the L1 table is large
 * enough for the disk, and every feature that changes the meaning of the image is one that Ferry
 * has.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/qcow2.h"
#include "util/bswap.h"

/* What the table of feature names says of those that exist. */
static const struct {
    uint8_t kind, bit;          /* 0: incompatible, 1: compatible, 2: autoclear */
    const char *name;
} feature_names[] = {
    { 0, 0, "dirty bit" },
    { 0, 1, "corrupt bit" },
    { 0, 2, "external data file" },
    { 0, 3, "compression type" },
    { 0, 4, "extended L2 entries" },
    { 1, 0, "lazy refcounts" },
    { 2, 0, "bitmaps" },
    { 2, 1, "raw external data" },
};

/* ---- parsing ---- */

/* "'name', 'name', incompatible feature bit 12" */
static void append_feature(GString *text, const uint8_t *names, size_t names_len, unsigned bit)
{
    if (text->len) {
        g_string_append(text, ", ");
    }
    for (size_t i = 0; i + QCOW2_FEATURE_NAME_BYTES <= names_len; i += QCOW2_FEATURE_NAME_BYTES) {
        if (names[i] == 0 && names[i + 1] == bit && names[i + 2]) {
            g_autofree char *name =
                g_strndup((const char *)names + i + 2, QCOW2_FEATURE_NAME_BYTES - 2);
            g_autofree char *escaped = g_strescape(name, NULL);

            g_string_append_printf(text, "'%s'", escaped);
            return;
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(feature_names); i++) {
        if (feature_names[i].kind == 0 && feature_names[i].bit == bit) {
            g_string_append_printf(text, "'%s'", feature_names[i].name);
            return;
        }
    }
    g_string_append_printf(text, "incompatible feature bit %u", bit);
}

static bool check_features(const Qcow2Header *hdr, const uint8_t *names, size_t names_len,
                           Error **errp)
{
    uint64_t unknown = hdr->incompatible & ~QCOW2_INCOMPAT_KNOWN;
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned bit = 0; bit < 64; bit++) {
        if (unknown & UINT64_C(1) << bit) {
            append_feature(text, names, names_len, bit);
        }
    }
    if (text->len) {
        error_setg(errp, "The qcow2 image uses features that are not supported: %s", text->str);
        return false;
    }
    return true;
}

static bool check_table(const char *what, uint64_t offset, uint64_t bytes, uint32_t cluster_size,
                        Error **errp)
{
    if (offset & (cluster_size - 1)) {
        error_setg(errp,
                   "The qcow2 header is invalid: offset 0x%" PRIx64
                   " of the %s is not a multiple of the "
                   "cluster size",
                   offset, what);
        return false;
    }
    if (bytes &&
        (!offset || offset >= QCOW2_MAX_HOST_OFFSET || bytes > QCOW2_MAX_HOST_OFFSET - offset)) {
        error_setg(errp,
                   "The qcow2 header is invalid: the %s at offset 0x%" PRIx64 " cannot be there",
                   what, offset);
        return false;
    }
    return true;
}

uint64_t qcow2_l1_needed(const Qcow2Header *hdr, uint64_t size)
{
    bool extended = hdr->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
    unsigned shift = 2 * hdr->cluster_bits - (extended ? 4 : 3);

    return (size >> shift) + ((size & ((UINT64_C(1) << shift) - 1)) != 0);
}

static bool check_sizes(const Qcow2Header *hdr, Error **errp)
{
    uint32_t cluster_size = UINT32_C(1) << hdr->cluster_bits;
    uint64_t l1_bytes = (uint64_t)hdr->l1_size * 8;
    uint64_t reftable_bytes = (uint64_t)hdr->reftable_clusters << hdr->cluster_bits;
    uint64_t l1_needed;

    if (hdr->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "The qcow2 header is invalid: a disk of %" PRIu64 " bytes is too large",
                   hdr->size);
        return false;
    }
    if ((hdr->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) &&
        hdr->cluster_bits < QCOW2_MIN_EXTENDED_CLUSTER_BITS) {
        error_setg(errp, "The qcow2 header is invalid: extended L2 entries with clusters of %u bytes, "
                   "at least %u are needed", cluster_size, 1u << QCOW2_MIN_EXTENDED_CLUSTER_BITS);
        return false;
    }
    l1_needed = qcow2_l1_needed(hdr, hdr->size);
    if (l1_bytes > QCOW2_MAX_L1_BYTES) {
        error_setg(errp,
                   "The qcow2 header is invalid: the active L1 table is too large (%" PRIu64
                   " bytes, at "
                   "most %u)",
                   l1_bytes, QCOW2_MAX_L1_BYTES);
        return false;
    }
    if (hdr->l1_size < l1_needed) {
        error_setg(
            errp,
            "The qcow2 header is invalid: the L1 table has %u entries, and the disk needs %" PRIu64,
            hdr->l1_size, l1_needed);
        return false;
    }
    if (!hdr->reftable_clusters || reftable_bytes > QCOW2_MAX_REFTABLE_BYTES) {
        error_setg(errp, "The qcow2 header is invalid: the refcount table has %u clusters",
                   hdr->reftable_clusters);
        return false;
    }
    if (hdr->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        error_setg(errp, "The qcow2 header is invalid: too many snapshots (%u, at most %u)",
                   hdr->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
        return false;
    }
    return check_table("active L1 table", hdr->l1_offset, l1_bytes, cluster_size, errp) &&
           check_table("refcount table", hdr->reftable_offset, reftable_bytes, cluster_size,
                       errp) &&
           check_table("snapshot table", hdr->snapshots_offset, hdr->nb_snapshots, cluster_size,
                       errp);
}

static bool parse_v3_fields(const uint8_t *buf, Qcow2Header *hdr, Error **errp)
{
    hdr->incompatible = ldq_be_p(buf + QCOW2_AT_INCOMPATIBLE);
    hdr->compatible = ldq_be_p(buf + QCOW2_AT_COMPATIBLE);
    hdr->autoclear = ldq_be_p(buf + QCOW2_AT_AUTOCLEAR);
    hdr->refcount_order = ldl_be_p(buf + QCOW2_AT_REFCOUNT_ORDER);
    hdr->header_length = ldl_be_p(buf + QCOW2_AT_HEADER_LENGTH);
    if (hdr->header_length < QCOW2_HEADER_V3_MIN_BYTES ||
        hdr->header_length > 1u << hdr->cluster_bits) {
        error_setg(errp, "The qcow2 header is invalid: its length is given as %u",
                   hdr->header_length);
        return false;
    }
    if (hdr->refcount_order > 6) {
        error_setg(errp, "The qcow2 header is invalid: refcounts of 2^%u bits (at most 2^6)",
                   hdr->refcount_order);
        return false;
    }
    if (hdr->header_length > QCOW2_AT_COMPRESSION) {
        hdr->compression = buf[QCOW2_AT_COMPRESSION];
    }
    if (hdr->header_length > QCOW2_HEADER_V3_BYTES) {
        hdr->more_fields = g_byte_array_new();
        g_byte_array_append(hdr->more_fields, buf + QCOW2_HEADER_V3_BYTES,
                            hdr->header_length - QCOW2_HEADER_V3_BYTES);
    }
    return true;
}

static bool parse_fields(const uint8_t *buf, size_t len, Qcow2Header *hdr, Error **errp)
{
    hdr->version = ldl_be_p(buf + QCOW2_AT_VERSION);
    if (hdr->version != 2 && hdr->version != 3) {
        error_setg(errp, "qcow2 images of version %u are not supported", hdr->version);
        return false;
    }
    hdr->cluster_bits = ldl_be_p(buf + QCOW2_AT_CLUSTER_BITS);
    if (hdr->cluster_bits < QCOW2_MIN_CLUSTER_BITS || hdr->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        error_setg(errp, "The qcow2 header is invalid: clusters of 2^%u bytes (2^%u to 2^%u)",
                   hdr->cluster_bits, QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
        return false;
    }
    if (len < UINT32_C(1) << hdr->cluster_bits) {
        error_setg(errp, "The qcow2 header is incomplete");
        return false;
    }
    hdr->crypt_method = ldl_be_p(buf + QCOW2_AT_CRYPT);
    hdr->size = ldq_be_p(buf + QCOW2_AT_SIZE);
    hdr->l1_size = ldl_be_p(buf + QCOW2_AT_L1_SIZE);
    hdr->l1_offset = ldq_be_p(buf + QCOW2_AT_L1_OFFSET);
    hdr->reftable_offset = ldq_be_p(buf + QCOW2_AT_REFTABLE_OFFSET);
    hdr->reftable_clusters = ldl_be_p(buf + QCOW2_AT_REFTABLE_CLUSTERS);
    hdr->nb_snapshots = ldl_be_p(buf + QCOW2_AT_SNAPSHOTS);
    hdr->snapshots_offset = ldq_be_p(buf + QCOW2_AT_SNAPSHOTS_OFFSET);
    if (hdr->version == 2) {
        hdr->refcount_order = 4;
        hdr->header_length = QCOW2_HEADER_V2_BYTES;
        return true;
    }
    return parse_v3_fields(buf, hdr, errp);
}

static bool parse_bitmaps_extension(const uint8_t *data, uint32_t len, Qcow2Header *hdr,
                                    Error **errp)
{
    if (len != QCOW2_EXT_BITMAPS_BYTES) {
        error_setg(errp, "The bitmaps extension of the qcow2 header has an invalid length (%u)",
                   len);
        return false;
    }
    /*
     * Without the bit somebody who did not know bitmaps has written the image since: they are lost.
     */
    if (!(hdr->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
        return true;
    }
    hdr->has_bitmaps = true;
    hdr->nb_bitmaps = ldl_be_p(data);
    hdr->bitmap_dir_bytes = ldq_be_p(data + 8);
    hdr->bitmap_dir_offset = ldq_be_p(data + 16);
    if (ldl_be_p(data + 4) || !hdr->nb_bitmaps || hdr->nb_bitmaps > QCOW2_MAX_BITMAPS ||
        !hdr->bitmap_dir_bytes || hdr->bitmap_dir_bytes > QCOW2_MAX_BITMAP_DIR_BYTES) {
        error_setg(errp,
                   "The bitmaps extension of the qcow2 header is invalid: %u bitmaps, a directory "
                   "of %" PRIu64 " bytes",
                   hdr->nb_bitmaps, hdr->bitmap_dir_bytes);
        return false;
    }
    return check_table("bitmap directory", hdr->bitmap_dir_offset, hdr->bitmap_dir_bytes,
                       UINT32_C(1) << hdr->cluster_bits, errp);
}

static bool parse_extension(uint32_t type, const uint8_t *data, uint32_t len, Qcow2Header *hdr,
                            Error **errp)
{
    Qcow2Extension *ext;

    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        g_free(hdr->backing_format);
        hdr->backing_format = g_strndup((const char *)data, len);
        return true;
    case QCOW2_EXT_FEATURE_NAMES:
        return true;
    case QCOW2_EXT_BITMAPS:
        return parse_bitmaps_extension(data, len, hdr, errp);
    default:
        ext = g_malloc(sizeof(*ext) + len);
        ext->type = type;
        ext->len = len;
        memcpy(ext->data, data, len);
        g_ptr_array_add(hdr->extensions, ext);
        return true;
    }
}

/*
 * The next extension at *@at; its type, 0 at the end. False with @errp set when it runs over the
 * end.
 */
static bool next_extension(const uint8_t *buf, uint32_t end, uint32_t *at, uint32_t *type,
                           uint32_t *len, const uint8_t **data, Error **errp)
{
    *type = QCOW2_EXT_END;
    if (end - *at < 8) {
        return true;
    }
    *type = ldl_be_p(buf + *at);
    *len = ldl_be_p(buf + *at + 4);
    *data = buf + *at + 8;
    if (*type == QCOW2_EXT_END) {
        return true;
    }
    if (*len > end - *at - 8) {
        error_setg(errp,
                   "The qcow2 header is invalid: its extension 0x%08x of %u bytes is longer than "
                   "the header "
                   "may be",
                   *type, *len);
        return false;
    }
    *at = MIN(end, *at + 8 + (uint32_t)round_up_u64(*len, 8));
    return true;
}

/* Features are judged first, so that their names can be told whatever follows. */
static bool parse_extensions(const uint8_t *buf, uint32_t end, Qcow2Header *hdr, Error **errp)
{
    const uint8_t *data, *names = NULL;
    uint32_t type, len, names_len = 0, at = hdr->header_length;

    do {
        if (!next_extension(buf, end, &at, &type, &len, &data, NULL)) {
            break;
        }
        if (type == QCOW2_EXT_FEATURE_NAMES) {
            names = data;
            names_len = len;
        }
    } while (type != QCOW2_EXT_END);
    if (!check_features(hdr, names, names_len, errp)) {
        return false;
    }
    at = hdr->header_length;
    for (;;) {
        if (!next_extension(buf, end, &at, &type, &len, &data, errp)) {
            return false;
        }
        if (type == QCOW2_EXT_END) {
            return true;
        }
        if (!parse_extension(type, data, len, hdr, errp)) {
            return false;
        }
    }
}

static bool parse_backing(const uint8_t *buf, Qcow2Header *hdr, uint32_t *ext_end, Error **errp)
{
    uint32_t cluster_size = UINT32_C(1) << hdr->cluster_bits;
    uint64_t offset = ldq_be_p(buf + QCOW2_AT_BACKING_OFFSET);
    uint32_t len = ldl_be_p(buf + QCOW2_AT_BACKING_LEN);

    *ext_end = cluster_size;
    if (!offset) {
        return true;
    }
    if (len > QCOW2_BACKING_NAME_MAX || offset > cluster_size || len > cluster_size - offset ||
        offset < hdr->header_length) {
        error_setg(
            errp,
            "The qcow2 header is invalid: the name of the backing file (%u bytes at offset %" PRIu64
            ") is too long or not in the first cluster",
            len, offset);
        return false;
    }
    *ext_end = offset;
    if (len) {
        hdr->backing_file = g_strndup((const char *)buf + offset, len);
    }
    return true;
}

static bool check_compression(const Qcow2Header *hdr, Error **errp)
{
    bool flagged = hdr->incompatible & QCOW2_INCOMPAT_COMPRESSION;

    if (hdr->compression > QCOW2_COMPRESSION_TYPE_ZSTD) {
        error_setg(errp, "The qcow2 image is compressed by an unknown method (%u)",
                   hdr->compression);
        return false;
    }
    if (flagged != (hdr->compression != QCOW2_COMPRESSION_TYPE_ZLIB)) {
        error_setg(
            errp,
            "The qcow2 header is invalid: compression type %u %s its incompatible feature bit",
            hdr->compression, flagged ? "with" : "without");
        return false;
    }
    return true;
}

static bool check_encryption(const Qcow2Header *hdr, Error **errp)
{
    switch (hdr->crypt_method) {
    case 0:
        return true;
    case 1:
        error_setg(errp, "The qcow2 image is encrypted (AES), which is not supported");
        return false;
    case 2:
        error_setg(errp, "The qcow2 image is encrypted (LUKS), which is not supported");
        return false;
    default:
        error_setg(errp, "The qcow2 image is encrypted by an unknown method (%u)",
                   hdr->crypt_method);
        return false;
    }
}

size_t qcow2_header_needs(const uint8_t *buf, size_t len)
{
    uint32_t bits;

    if (len < QCOW2_AT_CLUSTER_BITS + 4 || ldl_be_p(buf) != QCOW2_MAGIC) {
        return 0;
    }
    bits = ldl_be_p(buf + QCOW2_AT_CLUSTER_BITS);
    return (size_t)1 << CLAMP(bits, QCOW2_MIN_CLUSTER_BITS, QCOW2_MAX_CLUSTER_BITS);
}

bool qcow2_header_parse(const uint8_t *buf, size_t len, Qcow2Header *hdr, Error **errp)
{
    uint32_t ext_end;

    *hdr = (Qcow2Header) { 0 };
    if (len < QCOW2_HEADER_V3_BYTES || ldl_be_p(buf) != QCOW2_MAGIC) {
        error_setg(errp, "It is not a qcow2 image");
        return false;
    }
    hdr->extensions = g_ptr_array_new_with_free_func(g_free);
    if (parse_fields(buf, len, hdr, errp) && parse_backing(buf, hdr, &ext_end, errp) &&
        parse_extensions(buf, ext_end, hdr, errp) && check_encryption(hdr, errp) &&
        check_compression(hdr, errp) && check_sizes(hdr, errp)) {
        return true;
    }
    qcow2_header_clear(hdr);
    return false;
}

void qcow2_header_clear(Qcow2Header *hdr)
{
    g_free(hdr->backing_file);
    g_free(hdr->backing_format);
    if (hdr->more_fields) {
        g_byte_array_unref(hdr->more_fields);
    }
    g_clear_pointer(&hdr->extensions, g_ptr_array_unref);
    *hdr = (Qcow2Header) { 0 };
}

/* ---- writing ---- */

typedef struct Writer {
    uint8_t *buf;
    size_t at, end;
} Writer;

static bool put_extension(Writer *w, uint32_t type, const void *data, uint32_t len)
{
    size_t room = 8 + round_up_u64(len, 8);

    if (room > w->end - w->at) {
        return false;
    }
    stl_be_p(w->buf + w->at, type);
    stl_be_p(w->buf + w->at + 4, len);
    if (len) {
        memcpy(w->buf + w->at + 8, data, len);
    }
    w->at += room;
    return true;
}

/*
 * For people whose program lacks a feature; left out where the room may be needed for something
 * else.
 */
static void put_feature_names(Writer *w, const Qcow2Header *hdr)
{
    uint8_t table[G_N_ELEMENTS(feature_names) * QCOW2_FEATURE_NAME_BYTES] = { 0 };

    if (hdr->version < 3 || w->end - w->at < sizeof(table) + 8 + 2 * (QCOW2_BACKING_NAME_MAX + 9)) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(feature_names); i++) {
        uint8_t *entry = table + i * QCOW2_FEATURE_NAME_BYTES;

        entry[0] = feature_names[i].kind;
        entry[1] = feature_names[i].bit;
        memcpy(entry + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    put_extension(w, QCOW2_EXT_FEATURE_NAMES, table, sizeof(table));
}

static bool put_extensions(Writer *w, const Qcow2Header *hdr)
{
    uint8_t bitmaps[QCOW2_EXT_BITMAPS_BYTES] = { 0 };

    if (hdr->backing_format && !put_extension(w, QCOW2_EXT_BACKING_FORMAT, hdr->backing_format,
                                              strlen(hdr->backing_format))) {
        return false;
    }
    put_feature_names(w, hdr);
    if (hdr->has_bitmaps) {
        stl_be_p(bitmaps, hdr->nb_bitmaps);
        stq_be_p(bitmaps + 8, hdr->bitmap_dir_bytes);
        stq_be_p(bitmaps + 16, hdr->bitmap_dir_offset);
        if (!put_extension(w, QCOW2_EXT_BITMAPS, bitmaps, sizeof(bitmaps))) {
            return false;
        }
    }
    for (guint i = 0; hdr->extensions && i < hdr->extensions->len; i++) {
        const Qcow2Extension *ext = hdr->extensions->pdata[i];

        if (!put_extension(w, ext->type, ext->data, ext->len)) {
            return false;
        }
    }
    return put_extension(w, QCOW2_EXT_END, NULL, 0);
}

static void put_fields(uint8_t *buf, const Qcow2Header *hdr, uint32_t header_length)
{
    stl_be_p(buf + QCOW2_AT_MAGIC, QCOW2_MAGIC);
    stl_be_p(buf + QCOW2_AT_VERSION, hdr->version);
    stl_be_p(buf + QCOW2_AT_CLUSTER_BITS, hdr->cluster_bits);
    stq_be_p(buf + QCOW2_AT_SIZE, hdr->size);
    stl_be_p(buf + QCOW2_AT_L1_SIZE, hdr->l1_size);
    stq_be_p(buf + QCOW2_AT_L1_OFFSET, hdr->l1_offset);
    stq_be_p(buf + QCOW2_AT_REFTABLE_OFFSET, hdr->reftable_offset);
    stl_be_p(buf + QCOW2_AT_REFTABLE_CLUSTERS, hdr->reftable_clusters);
    stl_be_p(buf + QCOW2_AT_SNAPSHOTS, hdr->nb_snapshots);
    stq_be_p(buf + QCOW2_AT_SNAPSHOTS_OFFSET, hdr->snapshots_offset);
    if (hdr->version >= 3) {
        stq_be_p(buf + QCOW2_AT_INCOMPATIBLE, hdr->incompatible);
        stq_be_p(buf + QCOW2_AT_COMPATIBLE, hdr->compatible);
        stq_be_p(buf + QCOW2_AT_AUTOCLEAR, hdr->autoclear);
        stl_be_p(buf + QCOW2_AT_REFCOUNT_ORDER, hdr->refcount_order);
        stl_be_p(buf + QCOW2_AT_HEADER_LENGTH, header_length);
        buf[QCOW2_AT_COMPRESSION] = hdr->compression;
    }
}

bool qcow2_header_serialize(const Qcow2Header *hdr, uint8_t *buf, Error **errp)
{
    Writer w = { .buf = buf, .end = (size_t)1 << hdr->cluster_bits };
    size_t name_len = hdr->backing_file ? strlen(hdr->backing_file) : 0;

    w.at = hdr->version < 3 ? QCOW2_HEADER_V2_BYTES : QCOW2_HEADER_V3_BYTES;
    if (hdr->more_fields) {
        if (hdr->more_fields->len > w.end - w.at) {
            goto full;
        }
        memcpy(buf + w.at, hdr->more_fields->data, hdr->more_fields->len);
        w.at += hdr->more_fields->len;
    }
    put_fields(buf, hdr, w.at);
    if (!put_extensions(&w, hdr) || name_len > w.end - w.at) {
        goto full;
    }
    if (name_len) {
        memcpy(buf + w.at, hdr->backing_file, name_len);
        stq_be_p(buf + QCOW2_AT_BACKING_OFFSET, w.at);
        stl_be_p(buf + QCOW2_AT_BACKING_LEN, name_len);
    }
    return true;

full:
    error_setg(errp,
               "The qcow2 header with its extensions and the name of the backing file does not fit "
               "into the "
               "first cluster (%zu bytes)",
               w.end);
    return false;
}

int coroutine_fn qcow2_header_write(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, s->cluster_size);
    int ret = -ENOSPC;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, s->cluster_size);
    if (qcow2_header_serialize(&s->hdr, buf, NULL)) {
        ret = bdrv_co_pwrite(bs->file, 0, s->cluster_size, buf, 0);
    }
    free(buf);
    return ret;
}

int coroutine_fn qcow2_header_write_features(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    uint8_t buf[24];
    int ret;

    if (s->hdr.version < 3) {
        return 0;
    }
    stq_be_p(buf, s->hdr.incompatible);
    stq_be_p(buf + 8, s->hdr.compatible);
    stq_be_p(buf + 16, s->hdr.autoclear);
    ret = bdrv_co_pwrite(bs->file, QCOW2_AT_INCOMPATIBLE, sizeof(buf), buf, 0);
    return ret < 0 ? ret : bdrv_co_flush(bs->file->bs);
}
