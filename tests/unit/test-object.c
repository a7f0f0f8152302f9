/*
 * Objects by option text and by JSON, memory backends, and what both refuse.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/object.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/throttle-groups.h"
#include "qapi/qapi-commands-qom.h"
#include "system/memory-backend.h"
#include "util/keyval.h"

static void expect_error(Error *err, const char *want)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, want);
    error_free(err);
}

static void test_ram(void)
{
    RAMBlock *block;
    Error *err = NULL;

    g_assert_nonnull(object_new_from_str("memory-backend-ram,id=m0,size=1M", &error_abort));
    g_assert_true(object_exists("m0"));
    g_assert_cmpuint(memory_backend_size("m0"), ==, 1 << 20);
    g_assert_cmpuint(memory_backend_size("nope"), ==, 0);
    block = memory_backend_claim("m0", &error_abort);
    g_assert_true(block == ram_block_by_name("/objects/m0"));
    g_assert_false(block->shared);
    g_assert_cmpint(block->fd, ==, -1);

    g_assert_null(memory_backend_claim("m0", &err));
    expect_error(g_steal_pointer(&err), "Memory backend 'm0' is in use already");
    g_assert_false(object_delete("m0", &err));
    expect_error(g_steal_pointer(&err), "object 'm0' is in use, can not be deleted");
    memory_backend_release("m0");
    g_assert_true(object_delete("m0", &error_abort));
    g_assert_null(ram_block_by_name("/objects/m0"));
    g_assert_false(object_delete("m0", &err));
    expect_error(g_steal_pointer(&err), "object 'm0' not found");
    g_assert_null(memory_backend_claim("m0", &err));
    expect_error(g_steal_pointer(&err), "Memory backend 'm0' not found");
}

/* Nothing comes or goes while a migration walks over the blocks. */
static void test_hold(void)
{
    Error *err = NULL;

    object_new_from_str("memory-backend-ram,id=m0,size=1M", &error_abort);
    ram_blocks_hold();
    g_assert_null(object_new_from_str("memory-backend-ram,id=m1,size=1M", &err));
    expect_error(g_steal_pointer(&err),
                 "RAM block '/objects/m1' cannot be made while a migration is under way");
    g_assert_false(object_delete("m0", &err));
    expect_error(g_steal_pointer(&err), "object 'm0' is in use, can not be deleted");
    ram_blocks_release();
    g_assert_true(object_delete("m0", &error_abort));
}

static void test_names(void)
{
    object_new_from_str(
        "memory-backend-ram,id=bare,size=4k,x-use-canonical-path-for-ramblock-id=off",
        &error_abort);
    g_assert_nonnull(ram_block_by_name("bare"));
    object_new_from_str(
        "memory-backend-ram,id=path,size=4k,x-use-canonical-path-for-ramblock-id=on", &error_abort);
    g_assert_nonnull(ram_block_by_name("/objects/path"));
    objects_delete_all();
    g_assert_null(ram_block_next(NULL));
}

static void test_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("ferry-test-object-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "mem,1", NULL);
    g_autofree char *option =
        g_strdup_printf("memory-backend-file,id=f,size=64k,share=on,offset=4k,"
                        "align=1M,mem-path=%s/mem,,1",
                        dir);
    struct stat st;
    RAMBlock *block;
    uint8_t byte;
    int fd;

    g_assert_nonnull(object_new_from_str(option, &error_abort));
    block = memory_backend_claim("f", &error_abort);
    g_assert_true(block->shared);
    g_assert_cmpuint((uintptr_t)block->host % (1 << 20), ==, 0);
    block->host[5] = 0x42;
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 68 * 1024);
    fd = open(path, O_RDONLY);
    g_assert_cmpint(pread(fd, &byte, 1, 4096 + 5), ==, 1);
    g_assert_cmphex(byte, ==, 0x42);
    close(fd);
    objects_delete_all();

    g_free(option);
    option =
        g_strdup_printf("memory-backend-file,id=f,size=64k,readonly=on,mem-path=%s/mem,,1", dir);
    object_new_from_str(option, &error_abort);
    block = memory_backend_claim("f", &error_abort);
    g_assert_true(block->readonly && !block->shared);
    g_assert_cmphex(block->host[4096 + 5], ==, 0x42);
    objects_delete_all();
    g_unlink(path);
    g_rmdir(dir);
}

static void test_memfd(void)
{
    RAMBlock *block;

    object_new_from_str("memory-backend-memfd,id=m,size=1M", &error_abort);
    block = memory_backend_claim("m", &error_abort);
    g_assert_true(block->shared);
    g_assert_cmpint(block->fd, >=, 0);
    g_assert_cmpint(ftruncate(block->fd, 0), ==, -1);   /* sealed */
    objects_delete_all();
    object_new_from_str("memory-backend-memfd,id=m,size=1M,seal=off,share=off", &error_abort);
    block = memory_backend_claim("m", &error_abort);
    g_assert_false(block->shared);
    g_assert_cmpint(ftruncate(block->fd, 2 << 20), ==, 0);
    objects_delete_all();
}

static void test_json(void)
{
    struct json_object *opts;
    Error *err = NULL;

    g_assert_nonnull(object_new_from_str("{\"qom-type\": \"memory-backend-ram\", \"id\": \"j\", "
                                         "\"size\": 8192, \"merge\": false}", &error_abort));
    g_assert_cmpuint(memory_backend_size("j"), ==, 8192);
    json_parse_text("{\"qom-type\": \"memory-backend-ram\", \"id\": \"k\", \"size\": 4096}", &opts,
                    &error_abort);
    g_assert_nonnull(object_new_from_opts(opts, false, &error_abort));
    json_object_put(opts);
    opts = keyval_parse("memory-backend-ram,id=l,size=8k", "qom-type", NULL, &error_abort);
    g_assert_nonnull(object_new_from_opts(opts, true, &error_abort));
    /* Text where JSON wants a number. */
    g_assert_true(object_delete("l", &error_abort));
    g_assert_null(object_new_from_opts(opts, false, &err));
    g_assert_nonnull(err);
    error_free(err);
    json_object_put(opts);
    objects_delete_all();
}

static const struct {
    const char *option;
    const char *message;
} refused[] = {
    { "memory-backend-ram,id=9,size=1M", "Parameter 'id' expects an identifier, not '9'" },
    { "memory-backend-ram,id=twin,size=1M", "There is an object 'twin' already" },
    { "memory-backend-ram,id=a", "Parameter 'size' is missing" },
    { "memory-backend-ram,size=1M", "Parameter 'id' is missing" },
    { "memory-backend-ram,id=a,size=0", "The size of RAM block '/objects/a' must not be 0" },
    { "memory-backend-ram,id=a,size=1M,mem-path=/tmp", "Parameter 'mem-path' is unexpected" },
    { "memory-backend-file,id=a,size=1M,mem-path=/tmp,pmem=on", "Parameter 'pmem' is unexpected" },
    { "memory-backend-ram,id=a,size=1M,prealloc-threads=0",
      "Parameter 'prealloc-threads' expects a number greater than zero" },
    { "memory-backend-memfd,id=a,size=1M,hugetlbsize=2M",
      "Parameter 'hugetlbsize' needs 'hugetlb' to be on" },
    { "memory-backend-memfd,id=a,size=1M,hugetlb=on,hugetlbsize=3M",
      "hugetlbsize 3145728 of RAM block '/objects/a' is not a power of two of at least a page" },
    { "throttle-group,id=a,limits.bps-read=-1", "bps-read (-1) cannot be negative" },
    { "throttle-group,id=a,x-iops-total=1,limits.iops-write=1",
      "iops-total and iops-read or iops-write cannot be used at the same time" },
    { "memory-backend-file,id=a,size=1M,mem-path=/nonexistent/x",
      "Cannot open '/nonexistent/x' for RAM block '/objects/a': No such file or directory" },
};

static void test_refused(void)
{
    object_new_from_str("memory-backend-ram,id=twin,size=4k", &error_abort);
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        Error *err = NULL;

        g_assert_null(object_new_from_str(refused[i].option, &err));
        expect_error(err, refused[i].message);
        g_assert_false(object_exists("a"));
    }
    objects_delete_all();
}

static void test_unknown_type(void)
{
    Error *err = NULL;

    g_assert_null(object_new_from_str("memory-backend-tape,id=a,size=1M", &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "memory-backend-tape"));
    error_free(err);
}

static void test_help(void)
{
    g_autofree char *types = object_help("help", &error_abort);
    g_autofree char *file = object_help("memory-backend-file,help", &error_abort);
    g_autofree char *none = object_help("memory-backend-file,id=help,size=1", &error_abort);
    Error *err = NULL;

    g_assert_true(g_str_has_prefix(types, "List of user creatable objects:\n"));
    g_assert_nonnull(strstr(types, "\n  memory-backend-file "));
    g_assert_nonnull(strstr(types, "\n  memory-backend-memfd "));
    g_assert_nonnull(strstr(types, "\n  memory-backend-ram "));
    g_assert_true(g_str_has_prefix(file, "memory-backend-file options:\n"));
    g_assert_nonnull(strstr(file, "\n  mem-path=<str> (required)\n"));
    g_assert_nonnull(strstr(file, "\n  size=<int> (required)\n"));
    g_assert_nonnull(strstr(file, "\n  share=<bool>\n"));
    g_assert_null(none);
    g_assert_null(object_help("tape,help", &err));
    expect_error(err, "There is no object type 'tape'");
}

static void test_query_memdev(void)
{
    MemdevList *list;

    g_assert_null(qmp_query_memdev(&error_abort));
    object_new_from_str("memory-backend-ram,id=a,size=1M,merge=off,dump=off", &error_abort);
    object_new_from_str("memory-backend-memfd,id=b,size=2M,prealloc=on", &error_abort);
    list = qmp_query_memdev(&error_abort);
    for (MemdevList *it = list; it; it = it->next) {
        bool is_a = !strcmp(it->value->id, "a");

        g_assert_cmpuint(it->value->size, ==, is_a ? 1 << 20 : 2 << 20);
        g_assert_cmpint(it->value->merge, ==, !is_a);
        g_assert_cmpint(it->value->dump, ==, !is_a);
        g_assert_cmpint(it->value->share, ==, !is_a);
        g_assert_cmpint(it->value->prealloc, ==, !is_a);
        g_assert_null(it->value->host_nodes);
    }
    g_assert_nonnull(list->next);
    g_assert_null(list->next->next);
    qapi_free_MemdevList(list);
    objects_delete_all();
}

static void expect_limit(const char *name, ThrottleBucketType bucket, uint64_t avg, uint64_t max,
                         uint64_t length)
{
    ThrottleConfig cfg;

    throttle_group_get_config(throttle_group_by_name(name), &cfg);
    g_assert_cmpuint(cfg.limits[bucket].avg, ==, avg);
    g_assert_cmpuint(cfg.limits[bucket].max, ==, max);
    g_assert_cmpuint(cfg.limits[bucket].burst_length, ==, length);
}

/* Both spellings of every property; who uses it keeps it. */
static void test_throttle_group(void)
{
    static const char *const names[THROTTLE_BUCKETS] = {
        "bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write",
    };
    ThrottleMember *member;
    ThrottleConfig cfg;
    Error *err = NULL;

    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        g_autofree char *x =
            g_strdup_printf("throttle-group,id=x,x-%s=10,x-%s-max=20,x-%s-max-length=30", names[i],
                            names[i], names[i]);
        g_autofree char *l = g_strdup_printf("throttle-group,id=l,limits.%s=40,limits.%s-max=50,"
                                             "limits.%s-max-length=60",
                                             names[i], names[i], names[i]);

        g_assert_nonnull(object_new_from_str(x, &error_abort));
        g_assert_nonnull(object_new_from_str(l, &error_abort));
        expect_limit("x", i, 10, 20, 30);
        expect_limit("l", i, 40, 50, 60);
        expect_limit("l", (i + 1) % THROTTLE_BUCKETS, 0, 0, 1);
        objects_delete_all();
        g_assert_null(throttle_group_by_name("x"));
    }
    object_new_from_str("throttle-group,id=g,x-iops-size=512,x-iops-total=3,limits.iops-total=4",
                        &error_abort);
    throttle_group_get_config(throttle_group_by_name("g"), &cfg);
    g_assert_cmpuint(cfg.op_size, ==, 512);
    expect_limit("g", THROTTLE_OPS_TOTAL, 4, 0, 1);
    member = throttle_group_join(throttle_group_by_name("g"));
    g_assert_false(object_delete("g", &err));
    expect_error(err, "object 'g' is in use, can not be deleted");
    throttle_group_leave(member);
    g_assert_true(object_delete("g", &error_abort));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/object/ram", test_ram);
    g_test_add_func("/object/hold", test_hold);
    g_test_add_func("/object/names", test_names);
    g_test_add_func("/object/file", test_file);
    g_test_add_func("/object/memfd", test_memfd);
    g_test_add_func("/object/json", test_json);
    g_test_add_func("/object/refused", test_refused);
    g_test_add_func("/object/unknown-type", test_unknown_type);
    g_test_add_func("/object/help", test_help);
    g_test_add_func("/object/query-memdev", test_query_memdev);
    g_test_add_func("/object/throttle-group", test_throttle_group);
    return g_test_run();
}
