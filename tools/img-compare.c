/*
 * ferry-img compare: whether two images have the same content.
 *
 * Several coroutines compare pieces; the answer is the first difference, as if one had compared all
 * in order. What both images know to be zero is not read. Exit status: 0 the same, 1 different,
 * more than 1 an error.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img-common.h"
#include "util/zero.h"

#define CHUNK_BYTES (INT64_C(1) << 20)
#define SKIP_BYTES (INT64_C(1) << 30)
#define UNIT_BYTES BDRV_SECTOR_BYTES
#define COROUTINES 8

enum {
    STATUS_SAME = 0,
    STATUS_DIFFERENT = 1,
    STATUS_ERROR = 2,
    STATUS_NO_LENGTH = 3,
    STATUS_READ_ERROR = 4
};

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the first image (default: look into it)" },
    { 'F', NULL, "FORMAT", "format of the second image (default: look into it)" },
    { 's', NULL, NULL, "strict: lengths, and what is allocated, must be the same too" },
    { 'T', NULL, "CACHE", "cache mode (default: writeback)" },
    { 'U', "force-share", NULL, "open the images although others write to them" },
    { 'p', NULL, NULL, "show the progress" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "the images are descriptions, KEY=VALUE,..." },
    { 0 },
};

typedef enum FindingKind { FOUND_NOTHING, FOUND_CONTENT, FOUND_STATUS, FOUND_ERROR } FindingKind;

typedef struct Compare {
    BlockBackend *blk[2];
    const char *names[2];
    int64_t length[2];
    int64_t total;              /* the longer one */
    bool strict, quiet, progress;
    size_t mem_align;

    CoMutex lock;               /* of what follows */
    int64_t pos;

    Mutex found_lock;           /* of what follows: the finding with the lowest offset */
    FindingKind found;
    int64_t found_at;           /* atomic to read */
    Error *err;
} Compare;

typedef struct Piece {
    int64_t offset, bytes;
    bool zero[2];
} Piece;

static void note(Compare *c, FindingKind kind, int64_t offset, Error *err)
{
    mutex_lock(&c->found_lock);
    if (c->found == FOUND_NOTHING || offset < c->found_at) {
        error_free(c->err);
        c->found = kind;
        c->err = err;
        __atomic_store_n(&c->found_at, offset, __ATOMIC_SEQ_CST);
    } else {
        error_free(err);
    }
    mutex_unlock(&c->found_lock);
}

static bool stopped(Compare *c)
{
    return c->pos >= __atomic_load_n(&c->found_at, __ATOMIC_SEQ_CST) || img_interrupted();
}

/* ---- taking pieces ---- */

/* Status flags at @offset of one image; beyond its end are zeroes. *@n is cut. */
static int coroutine_fn look(Compare *c, int which, int64_t offset, int64_t *n)
{
    int64_t length = c->length[which], pnum = 0;
    int ret;

    if (offset >= length) {
        return BDRV_BLOCK_ZERO;
    }
    ret = blk_co_block_status_above(c->blk[which], NULL, offset, MIN(*n, length - offset), &pnum,
                                    NULL, NULL, NULL);
    if (ret >= 0 && pnum <= 0) {
        ret = -EIO;
    }
    if (ret < 0) {
        Error *err = NULL;

        error_setg_errno(&err, -ret, "Sector allocation test failed for '%s' at offset %" PRId64,
                         c->names[which], offset);
        note(c, FOUND_ERROR, offset, err);
        return ret;
    }
    *n = MIN(*n, pnum);
    return ret;
}

static bool strictly_differs(const Compare *c, int64_t offset, const int status[2])
{
    int mask = BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED;

    return c->strict && offset < MIN(c->length[0], c->length[1]) &&
           (status[0] & mask) != (status[1] & mask);
}

static bool coroutine_fn take_piece(Compare *c, Piece *p)
{
    bool taken = false;

    co_mutex_lock(&c->lock);
    while (!taken && c->pos < c->total && !stopped(c)) {
        int64_t n = MIN(c->total - c->pos, SKIP_BYTES);
        int status[2];

        status[0] = look(c, 0, c->pos, &n);
        status[1] = status[0] < 0 ? -1 : look(c, 1, c->pos, &n);
        if (status[0] < 0 || status[1] < 0) {
            break;
        }
        if (strictly_differs(c, c->pos, status)) {
            note(c, FOUND_STATUS, c->pos, NULL);
            break;
        }
        p->zero[0] = status[0] & BDRV_BLOCK_ZERO;
        p->zero[1] = status[1] & BDRV_BLOCK_ZERO;
        taken = !(p->zero[0] && p->zero[1]);
        p->offset = c->pos;
        p->bytes = taken ? MIN(n, CHUNK_BYTES) : n;
        c->pos += p->bytes;
        if (!taken) {
            img_progress_add(p->bytes);
        }
    }
    co_mutex_unlock(&c->lock);
    return taken;
}

/* ---- comparing them ---- */

/* Where they differ first, in whole units; -1: nowhere. */
static int64_t first_difference(const Piece *p, uint8_t *const buf[2])
{
    const uint8_t *data = p->zero[0] ? buf[1] : buf[0];
    bool with_zeroes = p->zero[0] || p->zero[1];

    if (with_zeroes ? buffer_is_zero(data, p->bytes) : !memcmp(buf[0], buf[1], p->bytes)) {
        return -1;
    }
    for (int64_t at = 0; at < p->bytes; at += UNIT_BYTES) {
        int64_t n = MIN(UNIT_BYTES, p->bytes - at);

        if (with_zeroes ? !buffer_is_zero(data + at, n) : memcmp(buf[0] + at, buf[1] + at, n)) {
            return p->offset + at;
        }
    }
    g_assert_not_reached();
}

static bool coroutine_fn read_piece(Compare *c, const Piece *p, uint8_t *const buf[2])
{
    for (int i = 0; i < 2; i++) {
        int ret = p->zero[i] ? 0 : blk_co_pread(c->blk[i], p->offset, p->bytes, buf[i], 0);

        if (ret < 0) {
            Error *err = NULL;

            error_setg_errno(&err, -ret, "Error while reading offset %" PRId64 " of %s", p->offset,
                             c->names[i]);
            note(c, FOUND_ERROR, p->offset, err);
            return false;
        }
    }
    return true;
}

static void coroutine_fn worker(void *opaque)
{
    Compare *c = opaque;
    void *memory = NULL;
    uint8_t *buf[2];
    Piece p;

    if (posix_memalign(&memory, c->mem_align, 2 * CHUNK_BYTES) != 0) {
        Error *err = NULL;

        error_setg_errno(&err, ENOMEM, "no buffers");
        note(c, FOUND_ERROR, 0, err);
        return;
    }
    buf[0] = memory;
    buf[1] = buf[0] + CHUNK_BYTES;
    while (take_piece(c, &p)) {
        int64_t at;

        if (!read_piece(c, &p, buf)) {
            break;
        }
        at = first_difference(&p, buf);
        if (at >= 0) {
            note(c, FOUND_CONTENT, at, NULL);
        }
        img_progress_add(p.bytes);
    }
    free(memory);
}

/* ---- the whole ---- */

static void say(const Compare *c, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static void say(const Compare *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (!c->quiet) {
        vprintf(fmt, ap);
    }
    va_end(ap);
}

static int conclude(Compare *c)
{
    /* What is beyond the end of the shorter one was looked at all the same. */
    bool warn = c->length[0] != c->length[1] && c->found_at >= MIN(c->length[0], c->length[1]);

    if (warn && c->found != FOUND_ERROR && !img_interrupted()) {
        say(c, "Warning: Image size mismatch!\n");
    }
    switch (c->found) {
    case FOUND_ERROR:
        error_report_err(g_steal_pointer(&c->err));
        return STATUS_READ_ERROR;
    case FOUND_STATUS:
        say(c, "Strict mode: Offset %" PRId64 " block status mismatch!\n", c->found_at);
        return STATUS_DIFFERENT;
    case FOUND_CONTENT:
        say(c, "Content mismatch at offset %" PRId64 "!\n", c->found_at);
        return STATUS_DIFFERENT;
    default:
        break;
    }
    if (img_interrupted()) {
        error_report("interrupted");
        return STATUS_ERROR;
    }
    say(c, "Images are identical.\n");
    return STATUS_SAME;
}

static int compare(Compare *c)
{
    int status;

    for (int i = 0; i < 2; i++) {
        c->length[i] = blk_getlength(c->blk[i]);
        if (c->length[i] < 0) {
            error_report("Can't get size of %s: %s", c->names[i], g_strerror(-c->length[i]));
            return STATUS_NO_LENGTH;
        }
        c->mem_align = MAX(c->mem_align, bdrv_min_mem_align(blk_bs(c->blk[i])));
    }
    if (c->strict && c->length[0] != c->length[1]) {
        say(c, "Strict mode: Image size mismatch!\n");
        return STATUS_DIFFERENT;
    }
    c->total = MAX(c->length[0], c->length[1]);
    c->found_at = INT64_MAX;
    c->mem_align = MAX(c->mem_align, 4096);
    co_mutex_init(&c->lock);
    mutex_init(&c->found_lock);
    img_progress_begin(c->progress && !c->quiet, c->total);
    img_run_workers(COROUTINES, worker, c,
                    blk_bs(c->blk[0])->thread_safe || blk_bs(c->blk[1])->thread_safe);
    img_progress_end(c->found == FOUND_NOTHING && !img_interrupted());
    status = conclude(c);
    mutex_destroy(&c->found_lock);
    return status;
}

static int open_and_compare(Compare *c, ImgOpen how[2])
{
    int status = STATUS_ERROR;
    Error *err = NULL;

    c->blk[0] = img_open(c->names[0], &how[0], &err);
    c->blk[1] = c->blk[0] ? img_open(c->names[1], &how[1], &err) : NULL;
    if (c->blk[1]) {
        status = compare(c);
    } else {
        error_report_err(err);
    }
    blk_unref(c->blk[0]);
    blk_unref(c->blk[1]);
    return status;
}

static int run(ImgArgs *args)
{
    ImgOpen how[2] = { { 0 }, { 0 } };
    Compare c = { 0 };
    int opt;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'f': how[0].format = args->arg; break;
        case 'F': how[1].format = args->arg; break;
        case 's': c.strict = true; break;
        case 'U': how[0].force_share = how[1].force_share = true; break;
        case 'p': c.progress = true; break;
        case 'q': c.quiet = true; break;
        case IMG_OPT_IMAGE_OPTS: how[0].image_opts = how[1].image_opts = true; break;
        case 'T':
            if (!img_cache_mode_ok(args->arg)) {
                img_usage_error(args, "Invalid source cache option: %s", args->arg);
            }
            how[0].cache = how[1].cache = args->arg;
            break;
        }
    }
    if (args->stop) {
        return args->status;
    }
    if (args->n_operands != 2) {
        return img_usage_error(args, "Expecting two image file names");
    }
    img_catch_signals();
    c.names[0] = args->operands[0];
    c.names[1] = args->operands[1];
    return open_and_compare(&c, how);
}

const ImgCommand img_cmd_compare = {
    "compare", "Compare the content of two images", "FIRST SECOND", options, STATUS_ERROR, run,
};
