/*
 * The machine's memory from the outside: sizes, where it lies, what is behind it, and saving parts
 * of it to files.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/qtest/libqtest.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define HOLE_START (3 * GIB)
#define HIGH_START (4 * GIB)

static char *tmp_path(const char *name)
{
    return g_build_filename(qtest_tmpdir(), name, NULL);
}

static void assert_memory_size(QTestState *s, uint64_t bytes)
{
    struct json_object *summary =
        qtest_qmp_assert_success_ref(s, "{'execute': 'query-memory-size-summary'}");

    g_assert_cmpint(qtest_get_int(summary, "base-memory"), ==, bytes);
    json_object_put(summary);
}

/* Physical address of byte @offset of RAM. */
static uint64_t gpa_of(uint64_t offset)
{
    return offset < HOLE_START ? offset : offset - HOLE_START + HIGH_START;
}

static uint64_t resident_bytes(QTestState *s)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/statm", (int)qtest_pid(s));
    g_autofree char *text = NULL;
    unsigned long long total, resident;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpint(sscanf(text, "%llu %llu", &total, &resident), ==, 2);
    return resident * sysconf(_SC_PAGESIZE);
}

/* ---- sizes ---- */

static const struct {
    const char *option;
    uint64_t bytes;
} sizes[] = {
    { "", 128 * MIB },
    { "-m 64", 64 * MIB },
    { "-m 3M", 3 * MIB },
    { "-m size=1G", GIB },
    { "-m 3G", 3 * GIB },
    { "-m 3073M", 3073 * MIB },
    { "-m 5G", 5 * GIB },
    { "-m 64G", 64 * GIB },
};

/* The last bytes of RAM, of the part below 4 GiB and of the part above are there, and no more. */
static void test_size(const void *data)
{
    unsigned i = GPOINTER_TO_UINT(data);
    uint64_t bytes = sizes[i].bytes, low = MIN(bytes, HOLE_START);
    QTestState *s = qtest_init(sizes[i].option);

    assert_memory_size(s, bytes);
    qtest_writel(s, low - 4, 0x01020304);
    g_assert_cmphex(qtest_readl(s, low - 4), ==, 0x01020304);
    g_assert_cmphex(qtest_readl(s, low), ==, 0xffffffff);
    if (bytes > low) {
        qtest_writel(s, HIGH_START, 0x05060708);
        qtest_writel(s, gpa_of(bytes - 4), 0x090a0b0c);
        g_assert_cmphex(qtest_readl(s, HIGH_START), ==,
                        bytes - low == 4 ? 0x090a0b0c : 0x05060708);
        g_assert_cmphex(qtest_readl(s, gpa_of(bytes - 4)), ==, 0x090a0b0c);
    }
    g_assert_cmphex(qtest_readl(s, gpa_of(bytes - 1) + 1), ==, 0xffffffff);
    qtest_quit(s);
}

/* 64 GiB of which little is used cost little. */
static void test_sparse(void)
{
    QTestState *s = qtest_init("-m 64G");

    for (unsigned i = 0; i < 64; i++) {
        qtest_writeq(s, gpa_of(i * GIB + 8), i + 1);
    }
    for (unsigned i = 0; i < 64; i++) {
        g_assert_cmpuint(qtest_readq(s, gpa_of(i * GIB + 8)), ==, i + 1);
        g_assert_cmpuint(qtest_readq(s, gpa_of(i * GIB + GIB / 2)), ==, 0);
    }
    /* At most a huge page for each access. */
    g_assert_cmpuint(resident_bytes(s), <, 512 * MIB);
    qtest_quit(s);
}

static void assert_refused(const char *args, const char *text)
{
    g_autofree char *line = g_strdup_printf("-accel qtest -nodefaults -display none %s", args);
    g_autofree char *err = NULL;
    int code = qtest_run(line, NULL, &err);

    if (code != 1 || !strstr(err, text)) {
        qtest_fail(NULL, "'%s' should end with 1 and '%s', not with %d and: %s", args, text, code,
                   err);
    }
}

static void test_bad_sizes(void)
{
    assert_refused("-m 12x", "12x");
    assert_refused("-m -5", "-5");
    assert_refused("-m 1M", "Machine type microvm needs at least 2 MiB of RAM, not 1048576 bytes");
    assert_refused("-m 128T",
                   "ram size too large: 140737488355328 bytes, at most 70368744177664 are "
                   "possible");
    assert_refused("-m 64M,slots=2", "Property 'slots' is not known to -m");
}

/* ---- memory backends ---- */

static void assert_mtree_has(QTestState *s, const char *text)
{
    g_autofree char *mtree = qtest_hmp(s, "info mtree");

    if (!strstr(mtree, text)) {
        qtest_fail(s, "there is no '%s' in: %s", text, mtree);
    }
}

static void test_default_block(void)
{
    QTestState *s = qtest_init("-m 64M");

    assert_mtree_has(s, "address-space: memory\n"
                     "  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n"
                     "    0000000000000000-0000000003ffffff (prio 0, ram): alias ram-below-4g "
                     "@microvm.ram 0000000000000000-0000000003ffffff\n");
    assert_mtree_has(s, "memory-region: microvm.ram\n"
                     "  0000000000000000-0000000003ffffff (prio 0, ram): microvm.ram\n");
    qtest_quit(s);
}

static void write_pattern(QTestState *s, uint64_t gpa)
{
    qtest_memwrite(s, gpa, "the quick brown fox", 19);
}

static void test_backend_ram(void)
{
    QTestState *s = qtest_init("-m 16M -object memory-backend-ram,id=mem0,size=16M,prealloc=on "
                               "-machine memory-backend=mem0");
    struct json_object *devs;

    assert_memory_size(s, 16 * MIB);
    assert_mtree_has(s, "@/objects/mem0 0000000000000000-0000000000ffffff");
    write_pattern(s, 15 * MIB);
    g_assert_cmpuint(resident_bytes(s), >, 16 * MIB);
    devs = qtest_qmp_assert_success_ref(s, "{'execute': 'query-memdev'}");
    g_assert_cmpstr(qtest_get_str(devs, "0.id"), ==, "mem0");
    g_assert_cmpint(qtest_get_int(devs, "0.size"), ==, 16 * MIB);
    g_assert_true(qtest_get_bool(devs, "0.prealloc"));
    g_assert_false(qtest_get_bool(devs, "0.share"));
    g_assert_cmpstr(qtest_get_str(devs, "0.policy"), ==, "default");
    g_assert_false(qtest_has(devs, "1"));
    json_object_put(devs);
    qtest_quit(s);
}

/* The size need not be said twice. */
static void test_backend_size(void)
{
    QTestState *s = qtest_init("-object memory-backend-memfd,id=mem0,size=24M "
                               "-machine microvm,memory-backend=mem0");

    assert_memory_size(s, 24 * MIB);
    qtest_writel(s, 24 * MIB - 4, 1);
    g_assert_cmphex(qtest_readl(s, 24 * MIB), ==, 0xffffffff);
    qtest_quit(s);
}

static void test_backend_file(const void *data)
{
    bool share = GPOINTER_TO_INT(data);
    g_autofree char *path = tmp_path("ram");
    g_autofree char *file = NULL;
    QTestState *s =
        qtest_initf("-m 8M -object memory-backend-file,id=m,size=8M,mem-path=%s,share=%s "
                    "-machine memory-backend=m",
                    path, share ? "on" : "off");
    gsize len;

    write_pattern(s, 5 * MIB + 100);
    qtest_quit(s);
    g_assert_true(g_file_get_contents(path, &file, &len, NULL));
    g_assert_cmpuint(len, ==, 8 * MIB);
    if (share) {
        g_assert_cmpmem(file + 5 * MIB + 100, 19, "the quick brown fox", 19);
        /* What was left there is the next machine's memory. */
        s = qtest_initf("-m 8M -object memory-backend-file,id=m,size=8M,mem-path=%s "
                        "-machine memory-backend=m", path);
        g_assert_cmphex(qtest_readl(s, 5 * MIB + 100), ==, 0x20656874);
        qtest_quit(s);
    } else {
        for (gsize i = 0; i < len; i++) {
            g_assert_cmphex(file[i], ==, 0);
        }
    }
    g_unlink(path);
}

static void test_backend_refused(void)
{
    assert_refused("-object memory-backend-tape,id=a,size=16M", "memory-backend-tape");
    assert_refused("-object memory-backend-ram,id=a,size=16M,colour=red",
                   "Parameter 'colour' is unexpected");
    assert_refused("-object memory-backend-file,id=a,size=16M,mem-path=/tmp,pmem=on",
                   "Parameter 'pmem' is unexpected");
    assert_refused("-object memory-backend-ram,size=16M", "Parameter 'id' is missing");
    assert_refused(
        "-object memory-backend-ram,id=a,size=2M -object memory-backend-ram,id=a,size=2M",
        "There is an object 'a' already");
    assert_refused("-object memory-backend-file,id=a,size=16M,mem-path=/nonexistent/x",
                   "Cannot open '/nonexistent/x' for RAM block '/objects/a': No such file or "
                   "directory");
    assert_refused("-machine memory-backend=ghost", "Memory backend 'ghost' not found");
    assert_refused(
        "-m 32M -object memory-backend-ram,id=a,size=16M -machine memory-backend=a",
        "Size of RAM, 33554432 bytes, and of memory backend 'a', 16777216 bytes, differ");
}

static void test_objects_over_qmp(void)
{
    QTestState *s = qtest_init("-m 16M -object memory-backend-ram,id=mem0,size=16M "
                               "-machine memory-backend=mem0");
    struct json_object *devs;

    qtest_qmp_assert_success(s, "{'execute': 'object-add', 'arguments': {'qom-type': "
                             "'memory-backend-memfd', 'id': 'mem1', 'size': 1048576}}");
    qtest_qmp_assert_error(s, "There is an object 'mem1' already",
                           "{'execute': 'object-add', 'arguments': {'qom-type': "
                           "'memory-backend-ram', 'id': 'mem1', 'size': 1048576}}");
    qtest_qmp_assert_error(s, "Parameter 'size' is missing",
                           "{'execute': 'object-add', 'arguments': {'qom-type': "
                           "'memory-backend-ram', 'id': 'mem2'}}");
    qtest_qmp_assert_error(s, "object 'mem0' is in use, can not be deleted",
                           "{'execute': 'object-del', 'arguments': {'id': 'mem0'}}");
    qtest_qmp_assert_success(s, "{'execute': 'object-del', 'arguments': {'id': 'mem1'}}");
    qtest_qmp_assert_error(s, "object 'mem1' not found",
                           "{'execute': 'object-del', 'arguments': {'id': 'mem1'}}");
    devs = qtest_qmp_assert_success_ref(s, "{'execute': 'query-memdev'}");
    g_assert_cmpstr(qtest_get_str(devs, "0.id"), ==, "mem0");
    g_assert_false(qtest_has(devs, "1"));
    json_object_put(devs);
    qtest_quit(s);
}

/* ---- pmemsave ---- */

static void test_pmemsave(void)
{
    QTestState *s = qtest_init("-m 5G");
    g_autofree char *path = tmp_path("saved");
    g_autofree uint8_t *data = g_malloc(3 * MIB);
    g_autofree char *saved = NULL;
    gsize len;

    for (size_t i = 0; i < 3 * MIB; i++) {
        data[i] = (i * 31) ^ (i >> 12);
    }
    qtest_bufwrite(s, HIGH_START + 12345, data, 3 * MIB);
    qtest_qmp_assert_success(s,
                             "{'execute': 'pmemsave', 'arguments': {'val': %" PRIu64
                             ", 'size': %" PRIu64 ", 'filename': %s}}",
                             HIGH_START + 12345, 3 * MIB, path);
    g_assert_true(g_file_get_contents(path, &saved, &len, NULL));
    g_assert_cmpmem(saved, len, data, 3 * MIB);
    g_unlink(path);

    /* Over the end of RAM: no file is left that could be taken for the memory. */
    {
        struct json_object *error =
            qtest_qmp_assert_failure_ref(s,
                                         "{'execute': 'pmemsave', 'arguments': {'val': %" PRIu64
                                         ", 'size': 8192, 'filename': %s}}",
                                         HOLE_START - 4096, path);

        g_assert_cmpstr(qtest_get_str(error, "class"), ==, "GenericError");
        json_object_put(error);
        g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    }
    qtest_quit(s);
}

static void test_pmemsave_hmp(void)
{
    QTestState *s = qtest_init("-m 16M");
    g_autofree char *path = tmp_path("hmp");
    g_autofree char *saved = NULL, *out = NULL;
    gsize len;

    write_pattern(s, 0x100000);
    out = qtest_hmp(s, "pmemsave 0x100004 5 \"%s\"", path);
    g_assert_cmpstr(out, ==, "");
    g_assert_true(g_file_get_contents(path, &saved, &len, NULL));
    g_assert_cmpmem(saved, len, "quick", 5);
    g_unlink(path);
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree char *path = g_strdup_printf("/memory/size/%s", *sizes[i].option
                                                ? strrchr(sizes[i].option, ' ') + 1 : "default");

        qtest_add_data_func(path, GUINT_TO_POINTER(i), test_size);
    }
    qtest_add_func("/memory/sparse", test_sparse);
    qtest_add_func("/memory/bad-sizes", test_bad_sizes);
    qtest_add_func("/memory/default-block", test_default_block);
    qtest_add_func("/memory/backend/ram", test_backend_ram);
    qtest_add_func("/memory/backend/size", test_backend_size);
    qtest_add_data_func("/memory/backend/file/shared", GINT_TO_POINTER(1), test_backend_file);
    qtest_add_data_func("/memory/backend/file/private", GINT_TO_POINTER(0), test_backend_file);
    qtest_add_func("/memory/backend/refused", test_backend_refused);
    qtest_add_func("/memory/objects-over-qmp", test_objects_over_qmp);
    qtest_add_func("/memory/pmemsave", test_pmemsave);
    qtest_add_func("/memory/pmemsave-hmp", test_pmemsave_hmp);
    return g_test_run();
}
