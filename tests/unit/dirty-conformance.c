/*
 * Cases that every dirty tracker passes, over every kind of RAM.
 *
 * The small cases write by one way and demand exactly that page. The stress case is a migration
 * without the network: threads write by every way there is while the test syncs and copies the
 * pages that are reported; now and then the writers hold still, and after one more sync the copy
 * must equal the memory. A write that was not reported shows as a page that differs.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/dirty-conformance.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "system/memory.h"
#include "tests/unit/zero-page.h"
#include "util/bitmap.h"
#include "util/mutex.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define PAGE TARGET_PAGE_SIZE
#define PAGES 192u
#define THP_PAGES 1024u
#define BASE UINT64_C(0x100000000)
#define STRIDE (UINT64_C(1) << 30)
#define BLOCKS_MAX 8

typedef struct Kind {
    const char *name;
    RAMBackingKind kind;
    bool share;
    unsigned pages;
    const char *dir;
} Kind;

static const Kind kinds[] = {
    { "anon", RAM_BACKING_ANON, false, PAGES, NULL },
    { "anon-thp", RAM_BACKING_ANON, false, THP_PAGES, NULL },
    { "memfd", RAM_BACKING_MEMFD, true, PAGES, NULL },
    { "memfd-thp", RAM_BACKING_MEMFD, true, THP_PAGES, NULL },
    { "memfd-private", RAM_BACKING_MEMFD, false, PAGES, NULL },
    { "file-shared", RAM_BACKING_FILE, true, PAGES, "/tmp" },
    { "file-private", RAM_BACKING_FILE, false, PAGES, "/tmp" },
};

typedef struct Case {
    const TrackerUnderTest *tracker;
    const Kind *kind;           /* NULL: a block of each */
    void (*run)(const struct Case *test, RAMBlock *block);
} Case;

static DirtyTracker *tracker;

static RAMBlock *make_block(const Kind *kind, unsigned index)
{
    RAMBacking backing = { .kind = kind->kind, .share = kind->share, .path = kind->dir,
                           .merge = true, .dump = true };
    RAMBlock *block =
        ram_block_new(kind->name, (uint64_t)kind->pages * PAGE, &backing, &error_abort);

    memory_map_ram(kind->name, BASE + index * STRIDE, block, 0, block->used_length, false,
                   &error_abort);
    return block;
}

static void free_blocks(void)
{
    RAMBlock *block;

    while ((block = ram_block_next(NULL))) {
        memory_unmap_block(block);
        ram_block_free(block);
    }
}

static void run_case(gconstpointer data)
{
    const Case *test = data;
    g_autofree char *reason = NULL;
    RAMBlock *block = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (!test->kind || test->kind == &kinds[i]) {
            block = make_block(&kinds[i], i);
        }
    }
    reason = test->tracker->set_up ? test->tracker->set_up() : NULL;
    if (reason) {
        g_test_skip(reason);
        free_blocks();
        return;
    }
    if (test->tracker->klass != &dirty_tracker_pagemap) {
        dirty_tracker_register(test->tracker->klass);
    }
    dirty_tracker_select(test->tracker->klass->name, &error_abort);
    test->run(test, block);
    dirty_tracker_stop(tracker);
    tracker = NULL;
    dirty_tracker_register(NULL);
    dirty_tracker_select(NULL, &error_abort);
    if (test->tracker->tear_down) {
        test->tracker->tear_down();
    }
    free_blocks();
}

/*
 * Writers and the copy race on purpose, as guests and migration do. By instructions that no
 * sanitizer looks at: ThreadSanitizer would keep a record of each such address.
 */
static void fill_racily(void *to, uint8_t byte, size_t n)
{
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
}

static void copy_racily(void *to, const void *from, size_t n)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

/* The ways to write. Each leaves @value in the first 8 bytes of the page. */
typedef void WriteFn(const TrackerUnderTest *under_test, RAMBlock *block, uint64_t page,
                     uint64_t value);

static void write_by_cpu(const TrackerUnderTest *under_test, RAMBlock *block, uint64_t page,
                         uint64_t value)
{
    if (under_test->cpu_write) {
        under_test->cpu_write(block, page * PAGE, value);
    } else {
        __atomic_store_n((uint64_t *)(block->host + page * PAGE), value, __ATOMIC_RELAXED);
    }
}

static void write_by_address_space(const TrackerUnderTest *under_test, RAMBlock *block,
                                   uint64_t page, uint64_t value)
{
    g_assert_cmpint(address_space_write(block->guest_addr + page * PAGE, &value, sizeof(value)), ==,
                    0);
}

static void write_by_dma(const TrackerUnderTest *under_test, RAMBlock *block, uint64_t page,
                         uint64_t value)
{
    copy_racily(block->host + page * PAGE, &value, sizeof(value));
    ram_block_mark_dirty(block, page * PAGE, sizeof(value));
}

static void write_by_mapped_dma(const TrackerUnderTest *under_test, RAMBlock *block, uint64_t page,
                                uint64_t value)
{
    uint64_t len = sizeof(value);
    void *host = address_space_map(block->guest_addr + page * PAGE, &len, true);

    g_assert_cmpuint(len, ==, sizeof(value));
    copy_racily(host, &value, sizeof(value));
    address_space_unmap_write(host, len);
}

/* The kernel copies into RAM for the process. */
static void write_by_kernel(const TrackerUnderTest *under_test, RAMBlock *block, uint64_t page,
                            uint64_t value)
{
    int fds[2];

    if (under_test->cpu_write) {
        write_by_dma(under_test, block, page, value);
        return;
    }
    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(write(fds[1], &value, sizeof(value)), ==, sizeof(value));
    g_assert_cmpint(read(fds[0], block->host + page * PAGE, sizeof(value)), ==, sizeof(value));
    close(fds[0]);
    close(fds[1]);
}

static const struct {
    const char *name;
    WriteFn *write;
} writers[] = {
    { "cpu", write_by_cpu },
    { "address-space", write_by_address_space },
    { "dma", write_by_dma },
    { "mapped-dma", write_by_mapped_dma },
    { "kernel", write_by_kernel },
};

static void start(void)
{
    tracker = dirty_tracker_start(&error_abort);
    g_assert_nonnull(tracker);
}

/* Sync into a fresh bitmap and render it: "3 8-10". */
static char *sync_str(RAMBlock *block)
{
    g_autofree unsigned long *map = bitmap_new(block->pages);
    int64_t n = dirty_tracker_sync(tracker, block, map, &error_abort);
    GString *out = g_string_new(NULL);
    unsigned long run, first = 0;

    g_assert_cmpint(n, ==, bitmap_count_one(map, block->pages));
    for (unsigned long at = 0; (run = bitmap_next_run(map, block->pages, at, &first));
         at = first + run) {
        g_string_append_printf(out, out->len ? " %lu" : "%lu", first);
        if (run > 1) {
            g_string_append_printf(out, "-%lu", first + run - 1);
        }
    }
    return g_string_free(out, FALSE);
}

#define assert_sync(block, want) \
    do { \
        g_autofree char *got_ = sync_str(block); \
        g_assert_cmpstr(got_, ==, want); \
    } while (0)

/* Nothing is dirty at first, whatever was written before. */
static void case_quiet(const Case *test, RAMBlock *block)
{
    memset(block->host, 1, 20 * PAGE);
    start();
    assert_sync(block, "");
    assert_sync(block, "");
}

/* Each way of writing reports its page, once, also after the page was watched anew. */
static void case_writers(const Case *test, RAMBlock *block)
{
    memset(block->host, 1, block->used_length);
    start();
    for (unsigned i = 0; i < G_N_ELEMENTS(writers); i++) {
        g_test_message("writer %s", writers[i].name);
        for (unsigned round = 0; round < 3; round++) {
            writers[i].write(test->tracker, block, 0, round);
            writers[i].write(test->tracker, block, 7 + i, round);
            writers[i].write(test->tracker, block, block->pages - 1, round);
            g_autofree char *want = g_strdup_printf("0 %u %u", 7 + i, (unsigned)block->pages - 1);
            assert_sync(block, want);
            assert_sync(block, "");
        }
    }
}

/* Pages that did not exist when tracking started. */
static void case_first_touch(const Case *test, RAMBlock *block)
{
    g_autofree unsigned long *map = bitmap_new(block->pages);

    madvise(block->host, block->used_length, MADV_NOHUGEPAGE);
    block->host[40 * PAGE] = 1;
    start();
    for (unsigned i = 0; i < G_N_ELEMENTS(writers); i++) {
        writers[i].write(test->tracker, block, 10 + 2 * i, 1);
    }
    writers[0].write(test->tracker, block, 40, 1);
    g_assert_cmpint(dirty_tracker_sync(tracker, block, map, &error_abort), >=,
                    G_N_ELEMENTS(writers) + 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(writers); i++) {
        g_assert_true(test_bit(10 + 2 * i, map));
    }
    g_assert_true(test_bit(40, map));
    assert_sync(block, "");
    /* What was never written is still not there. */
    memset(map, 0, BITS_TO_LONGS(block->pages) * sizeof(*map));
    ram_block_populated_bitmap(block, 0, block->pages, map);
    g_assert_false(test_bit(100, map));
}

/* Reading is not writing: pages that exist, and places in private memory where none does. */
static void case_reads(const Case *test, RAMBlock *block)
{
    volatile uint8_t *host = block->host;
    bool holes = !block->shared && kernel_maps_zero_page();

    madvise(block->host, block->used_length, MADV_NOHUGEPAGE);
    memset(block->host, 1, 8 * PAGE);
    start();
    for (unsigned page = 0; page < (holes ? block->pages : 8); page++) {
        g_assert_cmpint(host[page * PAGE], ==, page < 8);
    }
    assert_sync(block, "");
    writers[0].write(test->tracker, block, 100, 1);
    assert_sync(block, "100");
}

static void case_discard(const Case *test, RAMBlock *block)
{
    memset(block->host, 1, block->used_length);
    start();
    ram_block_discard_pages(block, 5, 3, &error_abort);
    assert_sync(block, "5-7");
    g_assert_cmpint(block->host[5 * PAGE], ==, 0);
    writers[0].write(test->tracker, block, 6, 9);
    g_autofree unsigned long *map = bitmap_new(block->pages);
    dirty_tracker_sync(tracker, block, map, &error_abort);
    g_assert_true(test_bit(6, map));
}

/* Bits that are set already stay, and do not count. */
static void case_accumulate(const Case *test, RAMBlock *block)
{
    g_autofree unsigned long *map = bitmap_new(block->pages);

    memset(block->host, 1, block->used_length);
    start();
    set_bit(3, map);
    set_bit(9, map);
    writers[0].write(test->tracker, block, 9, 1);
    writers[0].write(test->tracker, block, 10, 1);
    writers[2].write(test->tracker, block, 11, 1);
    g_assert_cmpint(dirty_tracker_sync(tracker, block, map, &error_abort), ==, 2);
    g_assert_cmpint(bitmap_count_one(map, block->pages), ==, 4);
    g_assert_true(test_bit(3, map) && test_bit(9, map) && test_bit(10, map) && test_bit(11, map));
}

static void case_restart(const Case *test, RAMBlock *block)
{
    memset(block->host, 1, block->used_length);
    start();
    writers[0].write(test->tracker, block, 1, 1);
    writers[2].write(test->tracker, block, 2, 1);
    dirty_tracker_stop(tracker);
    writers[0].write(test->tracker, block, 3, 1);
    writers[2].write(test->tracker, block, 4, 1);
    start();
    assert_sync(block, "");
    writers[0].write(test->tracker, block, 5, 1);
    assert_sync(block, "5");
}

static void case_one_at_a_time(const Case *test, RAMBlock *block)
{
    Error *err = NULL;
    g_autofree char *want = g_strdup_printf("Dirty pages are tracked already, by '%s'",
                                            test->tracker->klass->name);

    start();
    g_assert_null(dirty_tracker_start(&err));
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    error_free(err);
    writers[2].write(test->tracker, block, 5, 1);
    g_autofree char *got = sync_str(block);
    g_assert_cmpstr(got, !=, "");
}

/* A written page of a file that the kernel takes out of the page table is still a written page. */
static void case_reclaim(const Case *test, RAMBlock *block)
{
    memset(block->host, 1, block->used_length);
    start();
    writers[0].write(test->tracker, block, 50, 77);
    if (madvise(block->host, block->used_length, MADV_PAGEOUT)) {
        g_test_message("the kernel does not page out on demand");
    }
    g_autofree unsigned long *map = bitmap_new(block->pages);
    dirty_tracker_sync(tracker, block, map, &error_abort);
    g_assert_true(test_bit(50, map));
    g_assert_cmpuint(*(uint64_t *)(block->host + 50 * PAGE), ==, 77);
}

/* ---- the stress case ---- */

#define STRESS_US (1500 * 1000)
#define SYNCS_PER_ROUND 20

typedef struct Stress {
    const TrackerUnderTest *under_test;
    RAMBlock *blocks[BLOCKS_MAX];
    uint8_t *copies[BLOCKS_MAX];
    unsigned long *maps[BLOCKS_MAX];
    unsigned n;
    Mutex lock;
    Cond changed;
    unsigned writing;           /* writers that are not held; under lock */
    int hold, quit;             /* atomic: writers stop at the gate; end */
    uint64_t writes;
} Stress;

static void write_range(Stress *stress, RAMBlock *block, uint64_t page, GRand *rand)
{
    uint64_t n = g_rand_int_range(rand, 1, 65);

    n = MIN(n, block->pages - page);
    fill_racily(block->host + page * PAGE, g_rand_int(rand), n * PAGE);
    if (stress->under_test->cpu_write) {
        ram_block_mark_dirty(block, page * PAGE, n * PAGE);
    }
}

static void write_something(Stress *stress, GRand *rand)
{
    RAMBlock *block = stress->blocks[g_rand_int_range(rand, 0, stress->n)];
    uint64_t page = g_rand_int_range(rand, 0, block->pages);
    unsigned way = g_rand_int_range(rand, 0, 64);

    if (way == 0) {
        uint64_t n = g_rand_int_range(rand, 1, 9);

        n = MIN(n, block->pages - page);
        ram_block_discard_pages(block, page, n, &error_abort);
    } else if (way == 1) {
        write_range(stress, block, page, rand);
    } else {
        writers[way % G_N_ELEMENTS(writers)].write(stress->under_test, block, page,
                                                   (uint64_t)g_rand_int(rand) << 32 | way);
    }
}

/* Where writers stand while memory and copy are compared. */
static void gate(Stress *stress)
{
    if (!__atomic_load_n(&stress->hold, __ATOMIC_RELAXED)) {
        return;
    }
    mutex_lock(&stress->lock);
    stress->writing--;
    cond_broadcast(&stress->changed);
    while (stress->hold) {
        cond_wait(&stress->changed, &stress->lock);
    }
    stress->writing++;
    mutex_unlock(&stress->lock);
}

static void hold_writers(Stress *stress)
{
    mutex_lock(&stress->lock);
    __atomic_store_n(&stress->hold, 1, __ATOMIC_RELAXED);
    while (stress->writing) {
        cond_wait(&stress->changed, &stress->lock);
    }
    mutex_unlock(&stress->lock);
}

static void release_writers(Stress *stress)
{
    mutex_lock(&stress->lock);
    __atomic_store_n(&stress->hold, 0, __ATOMIC_RELAXED);
    cond_broadcast(&stress->changed);
    mutex_unlock(&stress->lock);
}

static gpointer writer_thread(gpointer opaque)
{
    Stress *stress = opaque;
    GRand *rand = g_rand_new();

    while (!__atomic_load_n(&stress->quit, __ATOMIC_RELAXED)) {
        gate(stress);
        for (unsigned i = 0; i < 16; i++) {
            write_something(stress, rand);
        }
        __atomic_add_fetch(&stress->writes, 16, __ATOMIC_RELAXED);
    }
    g_rand_free(rand);
    return NULL;
}

static uint64_t sync_and_copy(Stress *stress)
{
    uint64_t copied = 0;

    for (unsigned i = 0; i < stress->n; i++) {
        RAMBlock *block = stress->blocks[i];
        unsigned long run, first = 0;

        dirty_tracker_sync(tracker, block, stress->maps[i], &error_abort);
        for (unsigned long at = 0;
             (run = bitmap_next_run(stress->maps[i], block->pages, at, &first)); at = first + run) {
            copy_racily(stress->copies[i] + first * PAGE, block->host + first * PAGE, run * PAGE);
            copied += run;
        }
        bitmap_zero(stress->maps[i], block->pages);
    }
    return copied;
}

static void compare_all(Stress *stress)
{
    for (unsigned i = 0; i < stress->n; i++) {
        RAMBlock *block = stress->blocks[i];

        for (uint64_t page = 0; page < block->pages; page++) {
            if (memcmp(stress->copies[i] + page * PAGE, block->host + page * PAGE, PAGE)) {
                g_error("%s: page %u of block %s changed and was not reported",
                        stress->under_test->klass->name, (unsigned)page, block->idstr);
            }
        }
    }
}

static void stress_begin(Stress *stress)
{
    RAMBLOCK_FOREACH(block) {
        stress->blocks[stress->n] = block;
        stress->copies[stress->n] = g_malloc(block->used_length);
        stress->maps[stress->n] = bitmap_new(block->pages);
        /* Half of it exists before tracking starts. */
        memset(block->host, 3, block->used_length / 2);
        stress->n++;
    }
    start();
    for (unsigned i = 0; i < stress->n; i++) {
        memcpy(stress->copies[i], stress->blocks[i]->host, stress->blocks[i]->used_length);
    }
}

static void case_stress(const Case *test, RAMBlock *unused)
{
    Stress stress = { .under_test = test->tracker };
    GThread *threads[3];
    gint64 deadline = g_get_monotonic_time() + STRESS_US;
    uint64_t syncs = 0, copied = 0;

    mutex_init(&stress.lock);
    cond_init(&stress.changed);
    stress.writing = G_N_ELEMENTS(threads);
    stress_begin(&stress);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("writer", writer_thread, &stress);
    }
    do {
        for (unsigned i = 0; i < SYNCS_PER_ROUND; i++) {
            copied += sync_and_copy(&stress);
        }
        hold_writers(&stress);
        copied += sync_and_copy(&stress);
        compare_all(&stress);
        release_writers(&stress);
        syncs += SYNCS_PER_ROUND + 1;
    } while (g_get_monotonic_time() < deadline ||
             !__atomic_load_n(&stress.writes, __ATOMIC_RELAXED));
    __atomic_store_n(&stress.quit, 1, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_thread_join(threads[i]);
    }
    g_test_message("%u syncs of %u blocks, %u writes, %u pages copied", (unsigned)syncs, stress.n,
                   (unsigned)stress.writes, (unsigned)copied);
    g_assert_cmpuint(copied, >, 0);
    for (unsigned i = 0; i < stress.n; i++) {
        g_free(stress.copies[i]);
        g_free(stress.maps[i]);
    }
    cond_destroy(&stress.changed);
    mutex_destroy(&stress.lock);
}

static const struct {
    const char *name;
    void (*run)(const Case *test, RAMBlock *block);
} cases[] = {
    { "quiet", case_quiet },
    { "writers", case_writers },
    { "first-touch", case_first_touch },
    { "reads", case_reads },
    { "discard", case_discard },
    { "accumulate", case_accumulate },
    { "restart", case_restart },
    { "one-at-a-time", case_one_at_a_time },
    { "reclaim", case_reclaim },
};

static void add_case(const TrackerUnderTest *under_test, const Kind *kind, const char *name,
                     void (*run)(const Case *test, RAMBlock *block))
{
    Case *test = g_new(Case, 1);
    g_autofree char *path = g_strdup_printf("/dirty-tracker/%s/%s/%s", under_test->klass->name,
                                            name, kind ? kind->name : "all");

    *test = (Case){ under_test, kind, run };
    g_test_add_data_func_full(path, test, run_case, g_free);
}

void dirty_conformance_add(const TrackerUnderTest *under_test)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
            add_case(under_test, &kinds[k], cases[i].name, cases[i].run);
        }
    }
    add_case(under_test, NULL, "stress", case_stress);
}
