/*
 * RAMBlocks: every kind of backing goes through one table of cases for what is populated, and what
 * is discarded; then the errors, by their exact words.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/ramblock.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "tests/unit/zero-page.h"
#include "util/bitmap.h"

#define PAGE TARGET_PAGE_SIZE
#define PAGES 256u              /* less than a huge page: what is touched is one page */

static char *tmpdir;

typedef struct Kind {
    const char *name;
    RAMBackingKind kind;
    bool share;
    bool on_disk;               /* the file lies in tmpdir, else in /dev/shm */
} Kind;

static const Kind kinds[] = {
    { "anon", RAM_BACKING_ANON, false, false },
    { "anon-shared", RAM_BACKING_ANON, true, false },
    { "memfd", RAM_BACKING_MEMFD, true, false },
    { "memfd-private", RAM_BACKING_MEMFD, false, false },
    { "file-shared", RAM_BACKING_FILE, true, true },
    { "file-private", RAM_BACKING_FILE, false, true },
    { "shm-shared", RAM_BACKING_FILE, true, false },
    { "shm-private", RAM_BACKING_FILE, false, false },
};

static RAMBlock *new_block_of(const Kind *kind, uint64_t pages)
{
    RAMBacking backing = {
        .kind = kind->kind, .share = kind->share, .merge = true, .dump = true,
        .path = kind->on_disk ? tmpdir : "/dev/shm",
    };

    return ram_block_new(kind->name, pages * PAGE, &backing, &error_abort);
}

/* "3 8-10": the populated pages, by runs; the bitmap must say the same. */
static char *populated(RAMBlock *block)
{
    GString *out = g_string_new(NULL);
    g_autofree unsigned long *map = bitmap_new(block->pages);
    uint64_t run, first, total = 0;

    for (first = 0; (first = ram_block_populated_run(block, first, block->pages, &run))
                    < block->pages; first += run) {
        g_assert_cmpuint(run, >, 0);
        g_assert_cmpuint(first + run, <=, block->pages);
        g_string_append_printf(out, out->len ? " %u" : "%u", (unsigned)first);
        if (run > 1) {
            g_string_append_printf(out, "-%u", (unsigned)(first + run - 1));
        }
        g_assert_true(find_next_bit(map, block->pages, 0) == block->pages || first > 0);
        bitmap_set(map, first, run);
        total += run;
    }
    g_assert_cmpuint(run, ==, 0);
    g_autofree unsigned long *at_once = bitmap_new(block->pages);
    g_assert_cmpuint(ram_block_populated_bitmap(block, 0, block->pages, at_once), ==, total);
    g_assert_true(bitmap_equal(map, at_once, block->pages));
    return g_string_free(out, FALSE);
}

#define assert_populated(block, want) \
    do { \
        g_autofree char *got_ = populated(block); \
        g_assert_cmpstr(got_, ==, want); \
    } while (0)

static void test_populated(gconstpointer data)
{
    RAMBlock *block = new_block_of(data, PAGES);
    uint64_t run;

    assert_populated(block, "");
    g_assert_cmpuint(ram_block_populated_run(block, 0, PAGES, &run), ==, PAGES);
    block->host[3 * PAGE + 17] = 1;
    memset(block->host + 8 * PAGE, 2, 3 * PAGE);
    block->host[PAGES * PAGE - 1] = 3;
    assert_populated(block, "3 8-10 255");

    g_assert_cmpuint(ram_block_populated_run(block, 4, PAGES, &run), ==, 8);
    g_assert_cmpuint(run, ==, 3);
    g_assert_cmpuint(ram_block_populated_run(block, 9, 10, &run), ==, 9);
    g_assert_cmpuint(run, ==, 1);
    g_assert_cmpuint(ram_block_populated_run(block, 11, 255, &run), ==, 255);
    g_assert_cmpuint(run, ==, 0);
    ram_block_free(block);
}

/* Reading a page that nobody wrote does not populate private memory. */
static void test_read_is_not_population(void)
{
    RAMBlock *block;

    if (!kernel_maps_zero_page()) {
        g_test_skip("this kernel gives out a page for a read");
        return;
    }
    block = new_block_of(&kinds[0], PAGES);
    g_assert_cmpint(((volatile uint8_t *)block->host)[5 * PAGE], ==, 0);
    block->host[7 * PAGE] = 1;
    assert_populated(block, "7");
    ram_block_free(block);
}

/* Alternating pages: more runs than one batch holds. */
static void test_many_runs(gconstpointer data)
{
    RAMBlock *block = new_block_of(data, 5000);
    g_autofree unsigned long *map = bitmap_new(5000);

    madvise(block->host, block->used_length, MADV_NOHUGEPAGE);
    for (unsigned i = 0; i < 5000; i += 2) {
        block->host[i * PAGE] = 1;
    }
    g_assert_cmpuint(ram_block_populated_bitmap(block, 1, 5000, map), ==, 2499);
    for (unsigned i = 0; i < 5000; i++) {
        g_assert_cmpint(test_bit(i, map), ==, i >= 2 && i % 2 == 0);
    }
    ram_block_free(block);
}

static void test_discard(gconstpointer data)
{
    RAMBlock *block = new_block_of(data, PAGES);
    g_autofree unsigned long *marks = bitmap_new(PAGES);

    memset(block->host + 10 * PAGE, 0xaa, 20 * PAGE);
    block->process_dirty = marks;
    g_assert_cmpint(ram_block_discard_pages(block, 12, 5, &error_abort), ==, 0);
    block->process_dirty = NULL;
    assert_populated(block, "10-11 17-29");
    for (unsigned i = 0; i < PAGES * PAGE; i += 512) {
        unsigned page = i / PAGE;
        bool data_page = (page >= 10 && page < 12) || (page >= 17 && page < 30);

        g_assert_cmphex(block->host[i], ==, data_page ? 0xaa : 0);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        g_assert_cmpint(test_bit(i, marks), ==, i >= 12 && i < 17);
    }
    ram_block_free(block);
}

/* Contents that the file had before: private and shared alike. */
static void test_file_contents(gconstpointer data)
{
    bool share = GPOINTER_TO_INT(data);
    g_autofree char *path = g_build_filename(tmpdir, "contents", NULL);
    g_autofree uint8_t *page = g_malloc(PAGE);
    RAMBacking backing = {
        .kind = RAM_BACKING_FILE, .path = path, .share = share, .offset = 4 * PAGE
    };
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    uint8_t byte;
    RAMBlock *block;

    memset(page, 0x55, PAGE);
    g_assert_cmpint(ftruncate(fd, (4 + PAGES) * PAGE), ==, 0);
    g_assert_cmpint(pwrite(fd, page, PAGE, (4 + 6) * PAGE), ==, PAGE);
    g_assert_cmpint(pwrite(fd, page, PAGE, (4 + 7) * PAGE), ==, PAGE);
    g_assert_cmpint(pwrite(fd, page, PAGE, 2 * PAGE), ==, PAGE);    /* before the block */

    block = ram_block_new("f", PAGES * PAGE, &backing, &error_abort);
    g_assert_cmpuint(block->fd_offset, ==, 4 * PAGE);
    assert_populated(block, "6-7");
    g_assert_cmphex(block->host[6 * PAGE], ==, 0x55);
    block->host[8 * PAGE] = 0x66;
    block->host[100 * PAGE] = 0x77;
    assert_populated(block, "6-8 100");
    g_assert_cmpint(pread(fd, &byte, 1, (4 + 8) * PAGE), ==, 1);
    g_assert_cmphex(byte, ==, share ? 0x66 : 0);

    ram_block_discard_pages(block, 7, 2, &error_abort);
    g_assert_cmphex(block->host[7 * PAGE], ==, 0);
    g_assert_cmphex(block->host[8 * PAGE], ==, 0);
    g_assert_cmpint(pread(fd, &byte, 1, (4 + 7) * PAGE), ==, 1);
    g_assert_cmphex(byte, ==, share ? 0 : 0x55);
    ram_block_free(block);
    close(fd);
    g_unlink(path);
}

/* userfaultfd markers stand in the page table where no page is. */
static void test_markers(void)
{
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                                                           (1 << 13) | (1 << 15) };
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    RAMBlock *block;
    struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
    struct uffdio_writeprotect protect = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
    struct sysinfo info;

    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) {
        g_test_skip("this kernel has no asynchronous userfaultfd write protection");
        return;
    }
    if (sysinfo(&info) || info.totalswap) {
        g_test_skip("with swap space a marker cannot be told from a page");
        close(uffd);
        return;
    }
    block = new_block_of(&kinds[0], PAGES);
    block->host[3 * PAGE] = 1;
    block->host[200 * PAGE] = 1;
    reg.range.start = protect.range.start = (uintptr_t)block->host;
    reg.range.len = protect.range.len = block->used_length;
    g_assert_cmpint(ioctl(uffd, UFFDIO_REGISTER, &reg), ==, 0);
    g_assert_cmpint(ioctl(uffd, UFFDIO_WRITEPROTECT, &protect), ==, 0);
    assert_populated(block, "3 200");
    block->host[4 * PAGE] = 1;
    assert_populated(block, "3-4 200");
    close(uffd);
    assert_populated(block, "3-4 200");
    ram_block_free(block);
}

/* 256 GiB with three pages in it: only those are reported, and the process stays small. */
static void test_sparse(gconstpointer data)
{
    const uint64_t pages = UINT64_C(256) << (30 - TARGET_PAGE_BITS);
    RAMBlock *block = new_block_of(data, pages);

    madvise(block->host, block->used_length, MADV_NOHUGEPAGE);
    block->host[0] = 1;
    block->host[(pages / 2) * PAGE] = 1;
    block->host[pages * PAGE - 1] = 1;
    assert_populated(block, "0 33554432 67108863");
    ram_block_free(block);
}

static void test_list(void)
{
    RAMBlock *a = ram_block_new("a", 1, NULL, &error_abort);
    RAMBlock *b = ram_block_new("b", 3 * PAGE + 1, NULL, &error_abort);
    RAMBlock *c = ram_block_new("c", PAGE, NULL, &error_abort);
    uint64_t offset = 0;

    g_assert_cmpuint(a->used_length, ==, PAGE);
    g_assert_cmpuint(b->used_length, ==, 4 * PAGE);
    g_assert_cmpuint(b->pages, ==, 4);
    g_assert_cmpuint(b->guest_addr, ==, UINT64_MAX);
    g_assert_cmpuint(ram_blocks_total(), ==, 6 * PAGE);
    g_assert_true(ram_block_next(NULL) == a && ram_block_next(a) == b && ram_block_next(b) == c);
    g_assert_null(ram_block_next(c));
    g_assert_true(ram_block_by_name("b") == b);
    g_assert_null(ram_block_by_name("x"));
    g_assert_true(ram_block_from_host(b->host + 4 * PAGE - 1, &offset) == b);
    g_assert_cmpuint(offset, ==, 4 * PAGE - 1);
    g_assert_null(ram_block_from_host(b->host + 4 * PAGE, &offset));
    g_assert_null(ram_block_from_host(&offset, &offset));
    ram_block_free(b);
    g_assert_true(ram_block_next(a) == c);
    g_assert_null(ram_block_by_name("b"));
    ram_block_free(a);
    ram_block_free(c);
    g_assert_null(ram_block_next(NULL));
    g_assert_cmpuint(ram_blocks_total(), ==, 0);
}

static void test_alignment(void)
{
    RAMBlock *block = ram_block_new("big", 4 << 20, NULL, &error_abort);
    RAMBacking backing = { .kind = RAM_BACKING_ANON, .align = 16 << 20 };
    RAMBlock *aligned = ram_block_new("aligned", PAGE, &backing, &error_abort);

    g_assert_cmpuint((uintptr_t)block->host % (2 << 20), ==, 0);
    g_assert_cmpuint((uintptr_t)aligned->host % (16 << 20), ==, 0);
    ram_block_free(block);
    ram_block_free(aligned);
}

static void test_prealloc(void)
{
    RAMBacking backing = { .kind = RAM_BACKING_MEMFD, .share = true, .prealloc = true };
    RAMBlock *block = ram_block_new("pre", 1 << 20, &backing, &error_abort);

    assert_populated(block, "0-255");
    ram_block_free(block);
    backing.kind = RAM_BACKING_ANON;
    backing.share = false;
    block = ram_block_new("pre", 1 << 20, &backing, &error_abort);
    assert_populated(block, "0-255");
    ram_block_free(block);
}

static void test_hugetlb(void)
{
    RAMBacking backing = { .kind = RAM_BACKING_MEMFD, .share = true, .hugetlb = true,
                           .hugetlbsize = 2 << 20 };
    g_autoptr(Error) err = NULL;
    RAMBlock *block = ram_block_new("huge", 6 << 20, &backing, &err);

    if (!block) {
        g_assert_true(g_str_has_prefix(error_get_pretty(err), "Cannot "));
        g_assert_nonnull(strstr(error_get_pretty(err), "RAM block 'huge'"));
        g_test_skip("the host has no free huge pages");
        return;
    }
    g_assert_cmpuint(block->page_size, ==, 2 << 20);
    assert_populated(block, "");
    block->host[(2 << 20) + 5] = 1;
    assert_populated(block, "512-1023");
    /* Half a huge page stays, zeroed by hand; a whole one goes. */
    block->host[4 << 20] = 1;
    ram_block_discard_pages(block, 256, 512, &error_abort);
    g_assert_cmphex(block->host[(2 << 20) + 5], ==, 0);
    assert_populated(block, "512-1535");
    ram_block_discard_pages(block, 512, 512, &error_abort);
    assert_populated(block, "1024-1535");
    ram_block_free(block);
}

static void test_readonly(void)
{
    g_autofree char *path = g_build_filename(tmpdir, "ro", NULL);
    RAMBacking backing = {
        .kind = RAM_BACKING_FILE, .path = path, .share = true, .readonly = true
    };
    g_autofree char *content = g_strnfill(2 * PAGE, 'r');
    Error *err = NULL;
    RAMBlock *block;

    g_assert_true(g_file_set_contents(path, content, 2 * PAGE, NULL));
    block = ram_block_new("ro", 2 * PAGE, &backing, &error_abort);
    g_assert_true(block->readonly);
    g_assert_cmpint(block->host[PAGE], ==, 'r');
    assert_populated(block, "0-1");
    g_assert_cmpint(ram_block_discard_pages(block, 0, 1, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Cannot discard pages of RAM block 'ro': it is read-only");
    error_free(err);
    ram_block_free(block);
    g_unlink(path);
}

static void expect_error(const char *id, uint64_t size, const RAMBacking *backing, const char *want)
{
    Error *err = NULL;

    g_assert_null(ram_block_new(id, size, backing, &err));
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    error_free(err);
    g_assert_null(ram_block_next(NULL));
}

static void test_errors(void)
{
    g_autofree char *small = g_build_filename(tmpdir, "small", NULL);
    g_autofree char *fresh = g_build_filename(tmpdir, "fresh", NULL);
    g_autofree char *gone = g_build_filename(tmpdir, "no/such", NULL);
    g_autofree char *name = g_strnfill(256, 'n');
    g_autofree char *text = NULL;
    RAMBacking file = { .kind = RAM_BACKING_FILE, .path = small };
    RAMBacking odd = { .kind = RAM_BACKING_ANON, .align = 3 };

    g_assert_true(g_file_set_contents(small, "12345", 5, NULL));
    expect_error("", PAGE, NULL, "The name of a RAM block must have 1 to 255 bytes, not 0");
    expect_error(name, PAGE, NULL, "The name of a RAM block must have 1 to 255 bytes, not 256");
    expect_error("z", 0, NULL, "The size of RAM block 'z' must not be 0");
    expect_error("z", UINT64_MAX, NULL, "The size of RAM block 'z', 18446744073709551615 bytes, is "
                 "more than the host can map");
    expect_error("z", PAGE, &odd, "The alignment 3 of RAM block 'z' must be a power of two and a "
                 "multiple of the page size 4096");

    text =
        g_strdup_printf("The file '%s' has 5 bytes, RAM block 'z' needs 4096 from offset 0", small);
    expect_error("z", PAGE, &file, text);
    g_free(text);
    file.offset = 100;
    text = g_strdup_printf("The offset 100 in '%s' for RAM block 'z' is not a multiple of the page "
                           "size 4096", small);
    expect_error("z", PAGE, &file, text);
    g_free(text);
    file.offset = UINT64_MAX & TARGET_PAGE_MASK;
    text = g_strdup_printf("The offset 18446744073709547520 in '%s' for RAM block 'z' is too large",
                           small);
    expect_error("z", PAGE, &file, text);
    g_free(text);
    file = (RAMBacking){ .kind = RAM_BACKING_FILE, .path = gone };
    text = g_strdup_printf("Cannot open '%s' for RAM block 'z': No such file or directory", gone);
    expect_error("z", PAGE, &file, text);
    g_free(text);
    file.path = "/dev/null";
    expect_error("z", PAGE, &file,
                 "'/dev/null' cannot be behind RAM block 'z': it is not a regular "
                 "file");
    /* A file made for a block that could not be made goes again. */
    file = (RAMBacking){ .kind = RAM_BACKING_FILE, .path = fresh, .align = 3 };
    text = g_strdup("The alignment 3 of RAM block 'z' must be a power of two and a multiple of the "
                    "page size 4096");
    expect_error("z", PAGE, &file, text);
    g_assert_false(g_file_test(fresh, G_FILE_TEST_EXISTS));
    g_unlink(small);
}

static void test_duplicate(void)
{
    RAMBlock *block = ram_block_new("twin", PAGE, NULL, &error_abort);
    Error *err = NULL;

    g_assert_null(ram_block_new("twin", PAGE, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "There is a RAM block 'twin' already");
    error_free(err);
    ram_block_free(block);
}

static void test_mark_dirty(void)
{
    RAMBlock *block = ram_block_new("m", 8 * PAGE, NULL, &error_abort);
    unsigned long marks = 0;

    ram_block_mark_dirty(block, 0, 8 * PAGE);       /* nobody listens */
    block->process_dirty = &marks;
    ram_block_mark_dirty(block, PAGE, 0);
    g_assert_cmphex(marks, ==, 0);
    ram_block_mark_dirty(block, PAGE + 5, 1);
    g_assert_cmphex(marks, ==, 1 << 1);
    ram_block_mark_dirty(block, 3 * PAGE - 1, PAGE + 2);
    g_assert_cmphex(marks, ==, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4);
    ram_block_mark_dirty(block, 7 * PAGE, PAGE);
    g_assert_cmphex(marks, ==, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 7);
    block->process_dirty = NULL;
    ram_block_free(block);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    tmpdir = g_dir_make_tmp("ferry-test-ramblock-XXXXXX", NULL);
    g_assert_nonnull(tmpdir);
    g_test_add_func("/ramblock/list", test_list);
    g_test_add_func("/ramblock/alignment", test_alignment);
    g_test_add_func("/ramblock/prealloc", test_prealloc);
    g_test_add_func("/ramblock/hugetlb", test_hugetlb);
    g_test_add_func("/ramblock/readonly", test_readonly);
    g_test_add_func("/ramblock/errors", test_errors);
    g_test_add_func("/ramblock/duplicate", test_duplicate);
    g_test_add_func("/ramblock/mark-dirty", test_mark_dirty);
    g_test_add_func("/ramblock/markers", test_markers);
    g_test_add_func("/ramblock/read-is-not-population", test_read_is_not_population);
    g_test_add_data_func("/ramblock/sparse/anon", &kinds[0], test_sparse);
    g_test_add_data_func("/ramblock/sparse/memfd", &kinds[2], test_sparse);
    g_test_add_data_func("/ramblock/many-runs/anon", &kinds[0], test_many_runs);
    g_test_add_data_func("/ramblock/contents/shared", GINT_TO_POINTER(1), test_file_contents);
    g_test_add_data_func("/ramblock/contents/private", GINT_TO_POINTER(0), test_file_contents);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *pop = g_strdup_printf("/ramblock/populated/%s", kinds[i].name);
        g_autofree char *discard = g_strdup_printf("/ramblock/discard/%s", kinds[i].name);

        g_test_add_data_func(pop, &kinds[i], test_populated);
        g_test_add_data_func(discard, &kinds[i], test_discard);
    }
    ret = g_test_run();
    g_rmdir(tmpdir);
    g_free(tmpdir);
    return ret;
}
