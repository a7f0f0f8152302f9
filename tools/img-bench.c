/*
 * ferry-img bench: many requests of one size to an image, and the time that they took.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qapi/util.h"
#include "tools/img-common.h"
#include "util/cutils.h"

#define DEFAULT_COUNT 75000
#define DEFAULT_DEPTH 64
#define DEFAULT_BYTES 4096
#define MAX_DEPTH 4096

static const ImgOption options[] = {
    { 'c', NULL, "COUNT", "how many requests (default: 75000)" },
    { 'd', NULL, "DEPTH", "how many at the same time (default: 64)" },
    { 's', NULL, "SIZE", "bytes of a request (default: 4k)" },
    { 'S', NULL, "STEP", "bytes from one request to the next (default: their size)" },
    { 'o', NULL, "OFFSET", "where the first one begins (default: 0)" },
    { 'w', NULL, NULL, "write instead of read" },
    { IMG_OPT_PATTERN, "pattern", "BYTE", "what is written (default: 0)" },
    { IMG_OPT_FLUSH_INTERVAL, "flush-interval", "COUNT", "flush after every so many writes" },
    { IMG_OPT_NO_DRAIN, "no-drain", NULL, "flush without waiting for the requests under way" },
    { 'i', NULL, "AIO", "how files are read and written: threads, native, io_uring" },
    { 'n', NULL, NULL, "the same as -i native" },
    { 't', NULL, "CACHE", "cache mode (default: writeback)" },
    { 'f', NULL, "FORMAT", "format of the image (default: look into it)" },
    { IMG_OPT_IMAGE_OPTS, "image-opts", NULL, "FILENAME is a description, KEY=VALUE,..." },
    { 'U', "force-share", NULL, "open the image although others write to it" },
    { 'q', NULL, NULL, "print nothing but errors" },
    { 0 },
};

typedef struct Bench {
    ImgOpen how;
    BlockBackend *blk;
    uint64_t count, depth, flush_interval, pattern;
    int64_t bytes, step, offset, length;
    bool write, no_drain, quiet;

    /* All coroutines are of one thread. */
    uint64_t issued, flushed_at;
    unsigned in_flight;
    bool flushing;
    CoQueue go_on, idle;
    int ret;
} Bench;

static int64_t next_offset(Bench *b)
{
    int64_t offset = b->offset;

    b->offset += b->step;
    b->offset = b->length <= b->bytes ? 0 : b->offset % (b->length - b->bytes);
    return offset;
}

static bool flush_due(const Bench *b)
{
    return b->flush_interval && b->issued && b->issued % b->flush_interval == 0 &&
           b->flushed_at != b->issued;
}

static int coroutine_fn flush(Bench *b)
{
    int ret;

    b->flushed_at = b->issued;
    if (b->no_drain) {
        return blk_co_flush(b->blk);
    }
    b->flushing = true;
    while (b->in_flight > 0) {
        co_queue_wait(&b->idle, NULL);
    }
    ret = blk_co_flush(b->blk);
    b->flushing = false;
    co_queue_restart_all(&b->go_on);
    return ret;
}

static int coroutine_fn request(Bench *b, void *buf)
{
    int64_t offset = next_offset(b);
    int ret;

    b->issued++;
    b->in_flight++;
    ret = b->write ? blk_co_pwrite(b->blk, offset, b->bytes, buf, 0)
                   : blk_co_pread(b->blk, offset, b->bytes, buf, 0);
    if (--b->in_flight == 0) {
        co_queue_restart_all(&b->idle);
    }
    return ret;
}

static void coroutine_fn worker(void *opaque)
{
    Bench *b = opaque;
    void *buf = bdrv_try_blockalign(blk_bs(b->blk), b->bytes);
    int ret = buf ? 0 : -ENOMEM;

    if (buf) {
        memset(buf, b->pattern, b->bytes);
    }
    while (ret >= 0 && b->ret >= 0 && !img_interrupted()) {
        if (b->flushing) {
            co_queue_wait(&b->go_on, NULL);
        } else if (flush_due(b)) {
            ret = flush(b);
        } else if (b->issued < b->count) {
            ret = request(b, buf);
        } else {
            break;
        }
    }
    if (ret < 0 && b->ret >= 0) {
        b->ret = ret;
    }
    free(buf);
}

static void print_plan(const Bench *b)
{
    printf("Sending %" PRIu64 " %s requests, %" PRId64 " bytes each, %" PRIu64
           " in parallel (starting at offset "
           "%" PRId64 ", step size %" PRId64 ")\n",
           b->count, b->write ? "write" : "read", b->bytes, b->depth, b->offset, b->step);
    if (b->flush_interval) {
        printf("Sending %sflush every %" PRIu64 " requests\n", b->no_drain ? "asynchronous " : "",
               b->flush_interval);
    }
    fflush(stdout);
}

static int bench(Bench *b, const char *name)
{
    int64_t start;

    b->length = blk_getlength(b->blk);
    if (b->length < 0) {
        error_report("Could not get size of '%s': %s", name, g_strerror(-b->length));
        return 1;
    }
    if (b->offset > b->length || b->bytes > b->length - b->offset) {
        error_report("Requests of %" PRId64 " bytes at offset %" PRId64
                     " do not fit into '%s' of %" PRId64 " bytes",
                     b->bytes, b->offset, name, b->length);
        return 1;
    }
    if (!b->quiet) {
        print_plan(b);
    }
    start = aio_clock_ns();
    img_run_workers(b->depth, worker, b, false);
    if (b->ret < 0) {
        error_report("Failed request: %s", g_strerror(-b->ret));
        return 1;
    }
    if (!b->quiet) {
        printf("Run completed in %3.3f seconds.\n", (aio_clock_ns() - start) / 1e9);
    }
    return 0;
}

static void take_aio(ImgArgs *args, Bench *b, const char *name)
{
    Error *err = NULL;
    int aio = qapi_enum_parse(&BlockdevAioOptions_lookup, name, -1, &err);

    if (err) {
        error_free(err);
        img_usage_error(args, "Invalid aio option: %s", name);
    }
    b->how.has_aio = true;
    b->how.aio = aio;
}

static void take_option(ImgArgs *args, Bench *b, int opt)
{
    switch (opt) {
    case 'c': img_arg_number(args, "request count", 1, UINT64_MAX, &b->count); break;
    case 'd': img_arg_number(args, "queue depth", 1, MAX_DEPTH, &b->depth); break;
    case 's': img_arg_size(args, "buffer size", 1, BDRV_REQUEST_MAX_BYTES, &b->bytes); break;
    case 'S': img_arg_size(args, "step size", 0, BDRV_MAX_LENGTH, &b->step); break;
    case 'o': img_arg_size(args, "offset", 0, BDRV_MAX_LENGTH, &b->offset); break;
    case 'w': b->write = b->how.writable = true; break;
    case IMG_OPT_PATTERN: img_arg_number(args, "pattern byte", 0, 255, &b->pattern); break;
    case IMG_OPT_FLUSH_INTERVAL:
        img_arg_number(args, "flush interval", 0, UINT64_MAX, &b->flush_interval);
        break;
    case IMG_OPT_NO_DRAIN: b->no_drain = true; break;
    case 'i': take_aio(args, b, args->arg); break;
    case 'n': take_aio(args, b, "native"); break;
    case 'f': b->how.format = args->arg; break;
    case IMG_OPT_IMAGE_OPTS: b->how.image_opts = true; break;
    case 'U': b->how.force_share = true; break;
    case 'q': b->quiet = b->how.quiet = true; break;
    case 't':
        b->how.cache = args->arg;
        if (!img_cache_mode_ok(args->arg)) {
            img_usage_error(args, "Invalid cache mode: %s", args->arg);
        }
        break;
    }
}

static int check_options(ImgArgs *args, const Bench *b)
{
    if (args->n_operands != 1) {
        return img_usage_error(args, "Expecting one image file name");
    }
    if (!b->write && b->flush_interval) {
        return img_usage_error(args, "--flush-interval is only available in write tests");
    }
    if (b->flush_interval && b->flush_interval < b->depth) {
        return img_usage_error(args, "Flush interval can't be smaller than depth");
    }
    if (b->write && b->how.force_share) {
        return img_usage_error(args, "-U is only available in read tests");
    }
    return 0;
}

static int run(ImgArgs *args)
{
    Bench b = {
        .count = DEFAULT_COUNT, .depth = DEFAULT_DEPTH, .bytes = DEFAULT_BYTES, .step = -1
    };
    Error *err = NULL;
    int opt, status;

    while ((opt = img_next_option(args)) != -1) {
        take_option(args, &b, opt);
    }
    if (args->stop || check_options(args, &b)) {
        return args->status;
    }
    b.step = b.step < 0 ? b.bytes : b.step;
    b.blk = img_open(args->operands[0], &b.how, &err);
    if (!b.blk) {
        error_report_err(err);
        return 1;
    }
    co_queue_init(&b.go_on);
    co_queue_init(&b.idle);
    img_catch_signals();
    status = bench(&b, args->operands[0]);
    blk_unref(b.blk);
    return status;
}

const ImgCommand img_cmd_bench = {
    "bench", "Time many requests to an image", "FILENAME", options, 1, run,
};
