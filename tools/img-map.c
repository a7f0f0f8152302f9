/*
 * ferry-img map: where the content of an image comes from.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-common.h"

/* How much is asked for at once: a signal is seen in between. */
#define STEP_BYTES (INT64_C(1) << 30)

static const ImgOption options[] = {
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 's', "start-offset", "OFFSET", "begin there (default: 0)" },
    { 'l', "max-length", "SIZE", "look at so many bytes (default: to the end)" },
    { IMG_OPT_OUTPUT, "output", "FORM", "human (default) or json" },
    { 'U', "force-share", NULL, "open the image although others write to it" },
    { 0 },
};

typedef struct Entry {
    int64_t start, length;
    bool data, zero, present, compressed, has_offset;
    int depth;
    int64_t offset;
    BlockDriverState *file;     /* NULL: unknown */
} Entry;

typedef struct Map {
    BlockBackend *blk;
    int64_t start, end;
    bool json;
    Entry last;                 /* not printed yet; length 0: none */
    bool printed;
    int ret;
    int64_t failed_at;
    bool no_offset;
} Map;

/* One entry: the layer that decides about what lies at @offset. Negative errno on failure. */
static int coroutine_fn ask(BlockDriverState *bs, int64_t offset, int64_t bytes, Entry *e)
{
    int depth = 0, ret;
    int64_t pnum, map = 0;
    BlockDriverState *file = NULL;

    for (;;) {
        bs = bdrv_skip_filters(bs);
        ret = bdrv_co_block_status(bs, offset, bytes, &pnum, &map, &file);
        if (ret < 0) {
            return ret;
        }
        if (pnum == 0) {
            /* Beyond the end of a shorter backing file. */
            ret = BDRV_BLOCK_ZERO;
            pnum = bytes;
        }
        bytes = pnum;
        if (ret & (BDRV_BLOCK_ZERO | BDRV_BLOCK_DATA)) {
            break;
        }
        bs = bdrv_backing_chain_next(bs);
        if (!bs) {
            ret = 0;
            break;
        }
        depth++;
    }
    *e = (Entry) {
        .start = offset, .length = bytes, .depth = depth, .data = ret & BDRV_BLOCK_DATA,
        .zero = ret & BDRV_BLOCK_ZERO, .present = ret & BDRV_BLOCK_ALLOCATED,
        .compressed = ret & BDRV_BLOCK_COMPRESSED, .has_offset = ret & BDRV_BLOCK_OFFSET_VALID,
        .offset = map, .file = ret & BDRV_BLOCK_OFFSET_VALID ? file : NULL,
    };
    return 0;
}

static bool continues(const Entry *a, const Entry *b)
{
    return a->length > 0 && a->data == b->data && a->zero == b->zero && a->present == b->present &&
           a->compressed == b->compressed && a->depth == b->depth &&
           a->has_offset == b->has_offset && a->file == b->file &&
           (!a->has_offset || a->offset + a->length == b->offset);
}

static const char *yes_no(bool value)
{
    return value ? "true" : "false";
}

static void print_json(Map *m, const Entry *e)
{
    printf("%s{ \"start\": %" PRId64 ", \"length\": %" PRId64
           ", \"depth\": %d, \"present\": %s, \"zero\": %s, "
           "\"data\": %s, \"compressed\": %s",
           m->printed ? ",\n" : "", e->start, e->length, e->depth, yes_no(e->present),
           yes_no(e->zero), yes_no(e->data), yes_no(e->compressed));
    if (e->has_offset) {
        printf(", \"offset\": %" PRId64, e->offset);
    }
    putchar('}');
}

static void print_entry(Map *m)
{
    const Entry *e = &m->last;

    if (e->length == 0) {
        return;
    }
    if (m->json) {
        print_json(m, e);
    } else if (e->data && !e->zero) {
        if (!e->has_offset) {
            m->no_offset = true;
            return;
        }
        printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->length, e->offset,
               e->file ? bdrv_get_filename(e->file) : "");
    }
    m->printed = true;
}

static void coroutine_fn map_entry(void *opaque)
{
    Map *m = opaque;
    int64_t offset = m->start;

    while (offset < m->end && !m->no_offset) {
        Entry e;

        m->ret = ask(blk_bs(m->blk), offset, MIN(m->end - offset, STEP_BYTES), &e);
        if (m->ret < 0) {
            m->failed_at = offset;
            return;
        }
        offset += e.length;
        if (continues(&m->last, &e)) {
            m->last.length += e.length;
        } else {
            print_entry(m);
            m->last = e;
        }
    }
    print_entry(m);
}

static int print_map(Map *m, int64_t max_length)
{
    int64_t length = blk_getlength(m->blk);

    if (length < 0) {
        error_report("Failed to get size: %s", g_strerror(-length));
        return 1;
    }
    m->end = max_length >= 0 && max_length < length - m->start ? m->start + max_length : length;
    if (m->json) {
        putchar('[');
    } else {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    img_run(map_entry, m);
    if (m->json && m->ret >= 0) {
        puts("]");
    }
    if (m->ret < 0) {
        error_report("Failed to read image metadata at offset %" PRId64 ": %s", m->failed_at,
                     g_strerror(-m->ret));
        return 1;
    }
    if (m->no_offset) {
        error_report("File contains external, encrypted or compressed clusters.");
        return 1;
    }
    return 0;
}

static int run(ImgArgs *args)
{
    ImgOpen how = { 0 };
    Map m = { 0 };
    int64_t max_length = -1;
    Error *err = NULL;
    int opt, status;

    while ((opt = img_next_option(args)) != -1) {
        switch (opt) {
        case 'f': how.format = args->arg; break;
        case 'U': how.force_share = true; break;
        case IMG_OPT_IMAGE_OPTS: how.image_opts = true; break;
        case IMG_OPT_OUTPUT: img_arg_output(args, &m.json); break;
        case 's':
            img_arg_size(args, "start offset", 0, BDRV_MAX_LENGTH, &m.start);
            break;
        case 'l':
            img_arg_size(args, "max length", 0, BDRV_MAX_LENGTH, &max_length);
            break;
        }
    }
    if (args->stop) {
        return args->status;
    }
    if (args->n_operands != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    m.blk = img_open(args->operands[0], &how, &err);
    if (!m.blk) {
        error_report_err(err);
        return 1;
    }
    status = print_map(&m, max_length);
    blk_unref(m.blk);
    return status;
}

const ImgCommand img_cmd_map = {
    "map", "Tell where the content of an image comes from", "FILENAME", options, 1, run,
};
