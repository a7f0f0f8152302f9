/*
 * qcow2-tool: a disk image driven by a script, through the block layer and nothing else.
 *
 *     qcow2-tool [-r] [-c] [-n] [-d] [-u] [-O KEY=VALUE]... [FILE] < script
 *
 * -r opens it read-only, -c without refusing what needs repair, -n without its backing file, -d
 * with discard=unmap, -u with cache.no-flush (a process may be killed, the host may not), -O sets
 * an option of the qcow2 node. A line of the script is a command; the first one that fails ends the
 * program with status 1 and says why. Numbers take the suffixes of sizes.
 *
 *     create FILE SIZE [KEY=VALUE,...]           make a qcow2 image (no FILE needs to be open)
 *     write OFFSET LENGTH BYTE                   one request
 *     compress OFFSET LENGTH BYTE                the same, compressed
 *     read OFFSET LENGTH [BYTE]                  with BYTE: compare
 *     zero OFFSET LENGTH [unmap]    discard OFFSET LENGTH    flush    truncate SIZE [PREALLOCATION]
 *     map                                        lines "START LENGTH data|zero|none [compressed]"
 *     check [leaks|all]                          one line of numbers
 *     info                                       JSON
 *     snapshots                                  lines "ID NAME"
 *     bitmaps                                    lines "NAME GRANULARITY COUNT [disabled] [inconsistent]"
 *     bitmap-add NAME GRANULARITY    bitmap-remove NAME
 *     backing FILE FORMAT                        change the name in the image
 *     inactivate    activate    reopen-flags
 *     random SEED OPS DEPTH OUT                  random requests, all verified; the expected content to OUT
 *     crash SEED DEPTH                           rounds of tagged writes and flushes until killed, with a journal
 *     bench-write SIZE DEPTH TOTAL    bench-read SIZE DEPTH COUNT    bench-compress TOTAL
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/dirty-bitmap.h"
#include "block/driver.h"
#include "block/qcow2.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/bswap.h"
#include "util/cutils.h"
#include "util/zero.h"

#define MAX_WORDS 8
#define SECTOR 512

static BlockBackend *blk;

static void G_GNUC_NORETURN G_GNUC_PRINTF(1, 2) die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void check_ret(const char *what, int ret)
{
    if (ret < 0) {
        die("%s: %s", what, g_strerror(-ret));
    }
}

static uint64_t number(const char *word)
{
    Error *err = NULL;
    uint64_t n;

    if (!word || !parse_size(word, &n, &err)) {
        die("bad number: %s", word ? word : "(missing)");
    }
    return n;
}

/* ---- coroutines ---- */

typedef struct Job {
    int coroutine_fn (*fn)(struct Job *job);
    char **word;
    Error *err;
    int ret;
} Job;

static void coroutine_fn job_entry(void *opaque)
{
    Job *job = opaque;

    job->ret = job->fn(job);
}

/* Run it in the node's context, or the main one, to its end. */
static void run(int coroutine_fn (*fn)(Job *job), char **word)
{
    Job job = { .fn = fn, .word = word };

    aio_co_run(blk ? blk_get_aio_context(blk) : aio_context_main(), job_entry, &job);
    if (job.ret < 0) {
        die("%s: %s", word[0], job.err ? error_get_pretty(job.err) : g_strerror(-job.ret));
    }
}

/* ---- simple requests ---- */

static void cmd_write(char **w)
{
    uint64_t len = number(w[2]);
    uint8_t *buf = blk_try_blockalign(blk, len);

    memset(buf, number(w[3]), len);
    check_ret("write", blk_pwrite(blk, number(w[1]), len, buf, 0));
    free(buf);
}

static int coroutine_fn co_compress(Job *job)
{
    uint64_t len = number(job->word[2]);
    g_autofree uint8_t *buf = g_malloc(len);

    memset(buf, number(job->word[3]), len);
    return blk_co_pwrite_compressed(blk, number(job->word[1]), len, buf);
}

static void cmd_read(char **w)
{
    uint64_t off = number(w[1]), len = number(w[2]);
    uint8_t *buf = blk_try_blockalign(blk, len);

    check_ret("read", blk_pread(blk, off, len, buf, 0));
    for (uint64_t i = 0; w[3] && i < len; i++) {
        if (buf[i] != (uint8_t)number(w[3])) {
            die("read: byte 0x%02x at offset %" PRIu64 ", expected 0x%02x", buf[i], off + i,
                (uint8_t)number(w[3]));
        }
    }
    free(buf);
}

static int coroutine_fn co_truncate(Job *job)
{
    int mode = qapi_enum_parse(&PreallocMode_lookup, job->word[2], PREALLOC_MODE_OFF, &job->err);

    if (job->err) {
        return -EINVAL;
    }
    return blk_co_truncate(blk, number(job->word[1]), true, mode, 0, &job->err);
}

static void cmd_map(char **w)
{
    int64_t len = blk_getlength(blk), n;

    for (int64_t at = 0; at < len; at += n) {
        int ret = blk_block_status_above(blk, bdrv_filter_or_cow_bs(blk_bs(blk)), at, len - at, &n,
                                         NULL, NULL, NULL);

        check_ret("map", ret);
        printf("%" PRId64 " %" PRId64 " %s%s\n", at, n,
               !(ret & BDRV_BLOCK_ALLOCATED) ? "none" : ret & BDRV_BLOCK_ZERO ? "zero" : "data",
               ret & BDRV_BLOCK_COMPRESSED ? " compressed" : "");
    }
}

static int coroutine_fn co_create(Job *job)
{
    struct json_object *opts = json_object_new_object();
    g_auto(GStrv) pairs = job->word[3] ? g_strsplit(job->word[3], ",", -1) : NULL;
    int ret;

    for (int i = 0; pairs && pairs[i]; i++) {
        g_auto(GStrv) pair = g_strsplit(pairs[i], "=", 2);

        json_object_object_add(opts, pair[0], json_object_new_string(pair[1] ? pair[1] : ""));
    }
    ret = bdrv_qcow2.co_create_opts(job->word[1], number(job->word[2]), opts, &job->err);
    json_object_put(opts);
    return ret;
}

static int coroutine_fn co_check(Job *job)
{
    BdrvCheckResult r = { 0 };
    const char *what = job->word[1];
    int ret = bdrv_qcow2.co_check(blk_bs(blk), &r,
                                  !what                    ? 0
                                  : !strcmp(what, "leaks") ? BDRV_FIX_LEAKS
                                                           : BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);

    printf("corruptions=%" PRIu64 " leaks=%" PRIu64 " check-errors=%" PRIu64
           " corruptions-fixed=%" PRIu64 " leaks-fixed=%" PRIu64 " allocated=%" PRIu64
           " total=%" PRIu64 " compressed=%" PRIu64 " end=%" PRId64 "\n",
           r.corruptions, r.leaks, r.check_errors, r.corruptions_fixed, r.leaks_fixed,
           r.allocated_clusters, r.total_clusters, r.compressed_clusters, r.image_end_offset);
    return ret;
}

static void cmd_info(char **w)
{
    ImageInfoSpecific *info = bdrv_qcow2.get_specific_info(blk_bs(blk), NULL);
    Visitor *v;
    struct json_object *json;

    v = json_output_visitor_new(&json);
    visit_type_ImageInfoSpecific(v, NULL, &info, NULL);
    visit_complete(v, &json);
    printf("%s\n", json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));
    json_object_put(json);
    visit_free(v);
    qapi_free_ImageInfoSpecific(info);
}

static int coroutine_fn co_snapshots(Job *job)
{
    SnapshotInfoList *list;
    int ret = bdrv_qcow2.co_list_snapshots(blk_bs(blk), &list, &job->err);

    for (SnapshotInfoList *s = ret < 0 ? NULL : list; s; s = s->next) {
        printf("%s %s\n", s->value->id, s->value->name);
    }
    if (ret == 0) {
        qapi_free_SnapshotInfoList(list);
    }
    return ret;
}

static void cmd_bitmaps(char **w)
{
    for (BdrvDirtyBitmap *b = bdrv_dirty_bitmap_next(blk_bs(blk), NULL); b;
         b = bdrv_dirty_bitmap_next(blk_bs(blk), b)) {
        printf("%s %u %" PRId64 "%s%s\n", bdrv_dirty_bitmap_name(b),
               bdrv_dirty_bitmap_granularity(b), bdrv_get_dirty_count(b),
               bdrv_dirty_bitmap_enabled(b) ? "" : " disabled",
               bdrv_dirty_bitmap_inconsistent(b) ? " inconsistent" : "");
    }
}

static int coroutine_fn co_can_store(Job *job)
{
    return bdrv_qcow2.co_can_store_bitmap(blk_bs(blk), job->word[1], number(job->word[2]),
                                          &job->err)
               ? 0
               : -EINVAL;
}

static void cmd_bitmap_add(char **w)
{
    Error *err = NULL;
    BdrvDirtyBitmap *b;

    run(co_can_store, w);
    b = bdrv_create_dirty_bitmap(blk_bs(blk), number(w[2]), w[1], &err);
    if (!b) {
        die("bitmap-add: %s", error_get_pretty(err));
    }
    bdrv_dirty_bitmap_set_persistence(b, true);
}

static int coroutine_fn co_bitmap_remove(Job *job)
{
    int ret = bdrv_qcow2.co_remove_bitmap(blk_bs(blk), job->word[1], &job->err);
    BdrvDirtyBitmap *b = bdrv_find_dirty_bitmap(blk_bs(blk), job->word[1]);

    if (ret == 0 && b) {
        bdrv_release_dirty_bitmap(b);
    }
    return ret;
}

static int coroutine_fn co_backing(Job *job)
{
    return bdrv_qcow2.co_change_backing_file(blk_bs(blk), job->word[1], job->word[2]);
}

/* ---- random requests ---- */

typedef struct Random {
    GRand *rand;
    uint8_t *expect;
    uint64_t size, cluster;
    uint64_t ops_left, serial;
    unsigned running;
    struct Busy {
        uint64_t off, len;
    } *busy;
    unsigned depth;
    Coroutine *main;
    bool discards_zero;
} Random;

static uint64_t rand_below(Random *r, uint64_t n)
{
    return (((uint64_t)g_rand_int(r->rand) << 32) | g_rand_int(r->rand)) % n;
}

static void pick_range(Random *r, uint64_t *off, uint64_t *len)
{
    uint64_t align = rand_below(r, 4) == 0 ? r->cluster : rand_below(r, 3) == 0 ? 1 : SECTOR;
    uint64_t max = rand_below(r, 8) == 0 ? 20 * r->cluster : 2 * r->cluster;

    *off = rand_below(r, r->size) / align * align;
    *len = MAX(rand_below(r, max) / align * align, align);
    *len = MIN(*len, r->size - *off);
}

static bool range_is_busy(Random *r, uint64_t off, uint64_t len)
{
    for (unsigned i = 0; i < r->depth; i++) {
        if (off < r->busy[i].off + r->busy[i].len && r->busy[i].off < off + len) {
            return true;
        }
    }
    return false;
}

static void compare(Random *r, uint64_t off, uint64_t len, const uint8_t *buf, const char *what)
{
    for (uint64_t i = 0; i < len; i++) {
        if (buf[i] != r->expect[off + i]) {
            die("random: %s: byte 0x%02x at offset %" PRIu64 " of request %" PRIu64 "+%" PRIu64
                ", expected 0x%02x (%" PRIu64 " requests left)", what, buf[i], off + i, off, len,
                r->expect[off + i], r->ops_left);
        }
    }
}

static void coroutine_fn random_write(Random *r, uint64_t off, uint64_t len, bool compressed)
{
    uint8_t *buf = blk_try_blockalign(blk, len);
    uint64_t serial = ++r->serial;
    struct iovec iov[3];
    IOVector qiov;
    int ret;

    for (uint64_t i = 0; i < len; i++) {
        buf[i] = compressed ? serial + i / 64 : serial * 31 + i * (serial % 7 + 1);
    }
    if (compressed) {
        ret = blk_co_pwrite_compressed(blk, off, len, buf);
    } else {
        /* In pieces of odd sizes. */
        iov[0] = (struct iovec) { buf, len / 3 };
        iov[1] = (struct iovec) { buf + len / 3, len / 5 };
        iov[2] = (struct iovec) { buf + len / 3 + len / 5, len - len / 3 - len / 5 };
        iovector_init_external(&qiov, iov, 3);
        ret = blk_co_pwritev(blk, off, len, &qiov, rand_below(r, 30) == 0 ? BDRV_REQ_FUA : 0);
    }
    check_ret("random write", ret);
    memcpy(r->expect + off, buf, len);
    free(buf);
}

static void coroutine_fn random_read(Random *r, uint64_t off, uint64_t len)
{
    uint8_t *buf = blk_try_blockalign(blk, len);

    check_ret("random read", blk_co_pread(blk, off, len, buf, 0));
    compare(r, off, len, buf, "read");
    free(buf);
}

/* Each cluster may be what it was or zero; then that is what is expected. */
static void coroutine_fn random_discard(Random *r, uint64_t off, uint64_t len)
{
    uint8_t *buf = blk_try_blockalign(blk, len);

    check_ret("random discard", blk_co_pdiscard(blk, off, len));
    check_ret("random read", blk_co_pread(blk, off, len, buf, 0));
    for (uint64_t i = 0; i < len && r->discards_zero; i++) {
        if (buf[i]) {
            compare(r, off + i, 1, buf + i, "after a discard");
        }
    }
    memcpy(r->expect + off, buf, len);
    free(buf);
}

static void coroutine_fn random_op(Random *r, struct Busy *busy)
{
    unsigned kind = rand_below(r, 100);

    if (kind < 40) {
        random_write(r, busy->off, busy->len, false);
    } else if (kind < 70) {
        random_read(r, busy->off, busy->len);
    } else if (kind < 80) {
        check_ret("random zero", blk_co_pwrite_zeroes(blk, busy->off, busy->len,
                                                      kind & 1 ? BDRV_REQ_MAY_UNMAP : 0));
        memset(r->expect + busy->off, 0, busy->len);
    } else if (kind < 88) {
        random_discard(r, busy->off, busy->len);
    } else if (kind < 90) {
        check_ret("random flush", blk_co_flush(blk));
    } else if (busy->off % r->cluster == 0 && busy->len % r->cluster == 0) {
        random_write(r, busy->off, busy->len, true);
    }
}

static void coroutine_fn random_worker(void *opaque)
{
    Random *r = opaque;
    struct Busy *busy = r->busy;

    while (busy->len != UINT64_MAX) {
        busy++;
    }
    *busy = (struct Busy) { 0 };
    while (r->ops_left) {
        uint64_t off, len;

        pick_range(r, &off, &len);
        if (range_is_busy(r, off, len)) {
            /* Somebody is under way, so the others go on. */
            aio_co_schedule(aio_current(), coroutine_self());
            coroutine_yield();
            continue;
        }
        r->ops_left--;
        *busy = (struct Busy) { off, len };
        random_op(r, busy);
        *busy = (struct Busy) { 0 };
    }
    if (--r->running == 0) {
        aio_co_wake(r->main);
    }
}

static int coroutine_fn co_random(Job *job)
{
    char **w = job->word;
    Random r = {
        .rand = g_rand_new_with_seed(number(w[1])),
        .ops_left = number(w[2]),
        .depth = number(w[3]),
        .size = blk_getlength(blk),
        .cluster = qcow2_state(blk_bs(blk))->cluster_size,
        .main = coroutine_self(),
    };
    uint8_t *buf = blk_try_blockalign(blk, r.size);

    r.discards_zero = true;
    r.expect = g_malloc(r.size);
    r.busy = g_new(struct Busy, r.depth);
    check_ret("random", blk_co_pread(blk, 0, r.size, r.expect, 0));
    r.running = r.depth;
    for (unsigned i = 0; i < r.depth; i++) {
        r.busy[i] = (struct Busy) { 0, UINT64_MAX };
    }
    for (unsigned i = 0; i < r.depth; i++) {
        coroutine_enter(coroutine_create(random_worker, &r));
    }
    while (r.running) {
        coroutine_yield();
    }
    check_ret("random", blk_co_pread(blk, 0, r.size, buf, 0));
    compare(&r, 0, r.size, buf, "at the end");
    if (w[4] && !g_file_set_contents(w[4], (char *)r.expect, r.size, NULL)) {
        die("random: cannot write %s", w[4]);
    }
    free(buf);
    g_free(r.expect);
    g_free(r.busy);
    g_rand_free(r.rand);
    return 0;
}

/* ---- tagged writes until killed ---- */

typedef struct Crash {
    GRand *rand;
    uint64_t size, cluster, version;
    unsigned running;
    Coroutine *main;
} Crash;

typedef struct CrashOp {
    Crash *c;
    uint64_t off, len, version;
    char kind;
} CrashOp;

static void journal(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static void journal(const char *fmt, ...)
{
    char line[128];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (write(1, line, n) != n) {
        die("journal: %s", g_strerror(errno));
    }
}

/* Every 16 bytes: the sector's number and the version. */
static void tag(uint8_t *buf, uint64_t off, uint64_t len, uint64_t version)
{
    for (uint64_t i = 0; i < len; i += 16) {
        stq_le_p(buf + i, (off + i) / SECTOR);
        stq_le_p(buf + i + 8, version);
    }
}

static void coroutine_fn crash_op(void *opaque)
{
    CrashOp op = *(CrashOp *)opaque;
    Crash *c = op.c;
    uint8_t *buf = blk_try_blockalign(blk, op.len);

    g_free(opaque);
    if (op.kind == 'Z') {
        check_ret("crash", blk_co_pwrite_zeroes(blk, op.off, op.len, BDRV_REQ_MAY_UNMAP));
    } else {
        tag(buf, op.off, op.len, op.version);
        check_ret("crash", blk_co_pwrite(blk, op.off, op.len, buf, 0));
    }
    free(buf);
    if (--c->running == 0) {
        aio_co_wake(c->main);
    }
}

/* Requests of one round do not overlap: each takes a part of the disk. */
static void coroutine_fn crash_round(Crash *c, unsigned depth)
{
    uint64_t part = c->size / depth / SECTOR * SECTOR;

    c->running = depth + 1;
    for (unsigned i = 0; i < depth; i++) {
        CrashOp *op = g_new(CrashOp, 1);
        uint64_t off = g_rand_int(c->rand) % part / SECTOR * SECTOR;
        uint64_t len = MAX(g_rand_int(c->rand) % (3 * c->cluster) / SECTOR, 1) * SECTOR;

        *op = (CrashOp) {
            .c = c, .off = i * part + off, .len = MIN(len, part - off), .version = ++c->version,
            .kind = g_rand_int(c->rand) % 6 ? 'W' : 'Z',
        };
        journal("%c %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", op->kind, op->off, op->len,
                op->version);
        coroutine_enter(coroutine_create(crash_op, op));
    }
    c->running--;
    while (c->running) {
        coroutine_yield();
    }
}

static int coroutine_fn co_crash(Job *job)
{
    Crash c = {
        .rand = g_rand_new_with_seed(number(job->word[1])), .size = blk_getlength(blk),
        .cluster = qcow2_state(blk_bs(blk))->cluster_size, .main = coroutine_self(),
    };

    for (;;) {
        crash_round(&c, number(job->word[2]));
        if (g_rand_int(c.rand) % 3 == 0) {
            check_ret("flush", blk_co_flush(blk));
            journal("F\n");
        }
    }
    return 0;
}

/* ---- measuring ---- */

typedef struct Bench {
    uint64_t size, next, total, span;
    unsigned running;
    bool write, random, compress;
    uint64_t seed;
    Coroutine *main;
} Bench;

static void coroutine_fn bench_worker(void *opaque)
{
    Bench *b = opaque;
    uint8_t *buf = blk_try_blockalign(blk, b->size);

    for (uint64_t i = 0; i < b->size; i++) {
        buf[i] = b->compress ? i * i >> 7 : 0x5a;
    }
    while (b->next < b->total) {
        uint64_t off = b->next;

        b->next += b->size;
        if (b->random) {
            b->seed = b->seed * 6364136223846793005u + 1442695040888963407u;
            off = (b->seed >> 20) % (b->span / b->size) * b->size;
        }
        check_ret("bench", b->compress ? blk_co_pwrite_compressed(blk, off, b->size, buf)
                           : b->write ? blk_co_pwrite(blk, off, b->size, buf, 0)
                                      : blk_co_pread(blk, off, b->size, buf, 0));
    }
    free(buf);
    if (--b->running == 0) {
        aio_co_wake(b->main);
    }
}

static int coroutine_fn co_bench(Job *job)
{
    char **w = job->word;
    Bench b = { .main = coroutine_self(), .span = blk_getlength(blk), .seed = 1 };
    int64_t start = g_get_monotonic_time();
    unsigned depth;

    b.compress = !strcmp(w[0], "bench-compress");
    b.size = b.compress ? qcow2_state(blk_bs(blk))->cluster_size : number(w[1]);
    depth = b.compress ? 8 : number(w[2]);
    b.write = !strcmp(w[0], "bench-write");
    b.random = !strcmp(w[0], "bench-read");
    b.total = b.compress ? number(w[1]) : b.random ? number(w[3]) * b.size : number(w[3]);
    b.running = depth;
    for (unsigned i = 0; i < depth; i++) {
        coroutine_enter(coroutine_create(bench_worker, &b));
    }
    while (b.running) {
        coroutine_yield();
    }
    printf("%s: %.3f s\n", w[0], (g_get_monotonic_time() - start) / 1e6);
    return 0;
}

/* ---- the script ---- */

static void cmd_zero(char **w)
{
    check_ret("zero",
              blk_pwrite_zeroes(blk, number(w[1]), number(w[2]), w[3] ? BDRV_REQ_MAY_UNMAP : 0));
}

static void cmd_discard(char **w)
{
    check_ret("discard", blk_pdiscard(blk, number(w[1]), number(w[2])));
}

static void cmd_flush(char **w)
{
    check_ret("flush", blk_flush(blk));
}

static void cmd_inactivate(char **w)
{
    Error *err = NULL;

    if (bdrv_inactivate_all(&err) < 0) {
        die("inactivate: %s", error_get_pretty(err));
    }
}

static void cmd_activate(char **w)
{
    Error *err = NULL;

    if (bdrv_activate_all(&err) < 0) {
        die("activate: %s", error_get_pretty(err));
    }
}

static const struct Command {
    const char *name;
    void (*fn)(char **word);
    int coroutine_fn (*co)(Job *job);
} commands[] = {
    { "create", NULL, co_create }, { "write", cmd_write }, { "compress", NULL, co_compress },
    { "read", cmd_read }, { "zero", cmd_zero }, { "discard", cmd_discard }, { "flush", cmd_flush },
    { "truncate", NULL, co_truncate }, { "map", cmd_map }, { "check", NULL, co_check },
    { "info", cmd_info },
    { "snapshots", NULL, co_snapshots }, { "bitmaps", cmd_bitmaps },
    { "bitmap-add", cmd_bitmap_add },
    { "bitmap-remove", NULL, co_bitmap_remove }, { "backing", NULL, co_backing },
    { "inactivate", cmd_inactivate }, { "activate", cmd_activate }, { "random", NULL, co_random },
    { "crash", NULL, co_crash }, { "bench-write", NULL, co_bench },
    { "bench-read", NULL, co_bench },
    { "bench-compress", NULL, co_bench },
};

static void run_line(char *line)
{
    char *word[MAX_WORDS + 1] = { NULL }, *save = NULL;
    int n = 0;

    for (char *p = strtok_r(line, " \n", &save); p && n < MAX_WORDS;
         p = strtok_r(NULL, " \n", &save)) {
        word[n++] = p;
    }
    if (!n || word[0][0] == '#') {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(commands[i].name, word[0])) {
            if (commands[i].co) {
                run(commands[i].co, word);
            } else {
                commands[i].fn(word);
            }
            fflush(stdout);
            return;
        }
    }
    die("unknown command '%s'", word[0]);
}

static void set_option(BlockdevOptionsQcow2 *q, const char *text)
{
    g_auto(GStrv) pair = g_strsplit(text, "=", 2);

    if (!strcmp(pair[0], "lazy-refcounts")) {
        q->has_lazy_refcounts = true;
        q->lazy_refcounts = !strcmp(pair[1], "on");
    } else if (!strcmp(pair[0], "cache-size")) {
        q->has_cache_size = true;
        q->cache_size = number(pair[1]);
    } else if (!strcmp(pair[0], "l2-cache-size")) {
        q->has_l2_cache_size = true;
        q->l2_cache_size = number(pair[1]);
    } else if (!strcmp(pair[0], "refcount-cache-size")) {
        q->has_refcount_cache_size = true;
        q->refcount_cache_size = number(pair[1]);
    } else if (!strcmp(pair[0], "pass-discard-other")) {
        q->has_pass_discard_other = true;
        q->pass_discard_other = !strcmp(pair[1], "on");
    } else {
        die("unknown option '%s'", pair[0]);
    }
}

static void open_image(const char *name, int argc, char **argv)
{
    Error *err = NULL;
    BlockdevOptions *opts = bdrv_options_for_file(name, "qcow2", &err);
    int c;

    if (!opts) {
        die("%s", error_get_pretty(err));
    }
    optind = 1;
    while ((c = getopt(argc, argv, "rcnduO:")) != -1) {
        switch (c) {
        case 'r':
            opts->has_read_only = opts->read_only = true;
            break;
        case 'c':
            bdrv_set_open_for_check(true);
            break;
        case 'n':
            opts->u.qcow2.backing = g_new0(BlockdevRefOrNull, 1);
            opts->u.qcow2.backing->type = QTYPE_QNULL;
            opts->u.qcow2.backing->u.null = qnull();
            break;
        case 'd':
            opts->has_discard = true;
            opts->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
            break;
        case 'u':
            opts->cache = g_new0(BlockdevCacheOptions, 1);
            opts->cache->has_no_flush = opts->cache->no_flush = true;
            break;
        case 'O':
            set_option(&opts->u.qcow2, optarg);
            break;
        default:
            exit(2);
        }
    }
    blk = blk_new_open(opts, &err);
    if (!blk) {
        die("%s", error_get_pretty(err));
    }
    qapi_free_BlockdevOptions(opts);
}

int main(int argc, char **argv)
{
    g_autofree char *line = NULL;
    size_t room = 0;

    g_set_prgname("qcow2-tool");
    aio_set_current(aio_context_main());
    while (getopt(argc, argv, "rcnduO:") != -1) {
    }
    if (argv[optind]) {
        g_autofree char *name = g_strdup(argv[optind]);

        open_image(name, argc, argv);
    }
    while (getline(&line, &room, stdin) > 0) {
        run_line(line);
    }
    if (blk) {
        blk_unref(blk);
    }
    return 0;
}
