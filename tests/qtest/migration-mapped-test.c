/*
 * Saving at disk speed: direct-mapped files, with O_DIRECT and several threads, and multifd on
 * sockets; what they refuse, and what becomes of them when the disk, the file or a process fails.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "migration-util.h"

typedef struct Variant {
    const char *name;
    unsigned channels;          /* 0: no multifd */
    bool bypass;
    const char *zero_detection; /* NULL: as it is */
} Variant;

static const Variant variants[] = {
    { "plain", 0, false, NULL },
    { "bypass", 0, true, NULL },
    { "multifd-1", 1, false, NULL },
    { "multifd-4", 4, false, "legacy" },
    { "multifd-3-bypass", 3, true, NULL },
    { "multifd-255-bypass", 255, true, NULL },
    { "no-zero-detection", 2, false, "none" },
};

static void set_variant(MigMachine *m, const Variant *v)
{
    mig_set_cap(m, "direct-mapped", true);
    mig_set_cap(m, "bypass-cache", v->bypass);
    mig_set_cap(m, "multifd", v->channels > 0);
    if (v->channels) {
        mig_set_param_int(m, "multifd-channels", v->channels);
    }
    if (v->zero_detection) {
        mig_set_param_str(m, "zero-page-detection", v->zero_detection);
    }
}

static void load(MigPair *p, const Variant *v, const char *uri)
{
    mig_start_dst(p, "defer");
    set_variant(&p->dst, v);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
}

/* ---- saved while it runs, loaded ---- */

static void save_and_load(const char *accel, const Variant *v, const char *more_uri)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s%s", path, more_uri);
    struct stat st;

    mig_start_src(p);
    set_variant(&p->src, v);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    g_assert_cmpint(stat(path, &st), ==, 0);
    /* Each page has one place: the file does not grow with what the machine writes. */
    g_assert_cmpint(st.st_size, <, ((int64_t)p->memory_mib + 8) << 20);
    load(p, v, uri);
    mig_finish(p);
}

static void test_live_variants(const char *accel)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(variants); i++) {
        g_test_message("%s", variants[i].name);
        save_and_load(accel, &variants[i], "");
    }
}

static void test_offset(const char *accel)
{
    save_and_load(accel, &variants[4], ",offset=0x100200");
}

/* ---- a disk that has its troubles ---- */

#define SLOW_FSYNC_MS 3000

/* The machine runs while a slow disk takes in what was written; it stands only for the last bit. */
static void test_flushed_early(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *ms = g_strdup_printf("%d", SLOW_FSYNC_MS);

    if (!mig_begin_fault(path, "FERRY_TEST_FSYNC_MS", ms)) {
        mig_pair_free(p);
        return;
    }
    mig_start_src(p);
    mig_end_fault("FERRY_TEST_FSYNC_MS");
    set_variant(&p->src, &variants[1]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    struct json_object *info = mig_query(&p->src);
    g_assert_cmpint(qtest_get_int(info, "total-time"), >=, SLOW_FSYNC_MS);
    g_assert_cmpint(qtest_get_int(info, "downtime"), <, SLOW_FSYNC_MS);
    json_object_put(info);
    load(p, &variants[1], uri);
    mig_finish(p);
}

static const Variant stream_variant = { "stream", 0, false, NULL };

/* Where the disk is bad: a byte that is written and read in any case. */
#define FAULT_GPA 0x80000
static const struct FaultCase {
    const Variant *variant;
    const char *offset;
} fault_cases[] = {
    { &stream_variant, "100000" },
    { &variants[0], "1572864" },        /* FAULT_GPA, behind the first MiB of the file */
    { &variants[4], "1572864" },
};

/* Memory begins to exist where it is written. */
static void start_fault_src(MigPair *p)
{
    mig_start_src(p);
    qtest_writeq(p->src.qts, FAULT_GPA, 0x600d);
}

static void set_fault_variant(MigMachine *m, const Variant *v)
{
    set_variant(m, v);
    mig_set_cap(m, "direct-mapped", v != &stream_variant);
}

/* In the stream and in one page among others, written by one thread and by several. */
static void test_write_error(const char *accel)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(fault_cases); i++) {
        const struct FaultCase *c = &fault_cases[i];
        MigPair *p = mig_pair_new(accel);
        g_autofree char *path = mig_path(p, "save");
        g_autofree char *uri = g_strdup_printf("file:%s", path);

        if (!mig_begin_fault(path, "FERRY_TEST_WRITE_ERROR", c->offset)) {
            mig_pair_free(p);
            return;
        }
        start_fault_src(p);
        mig_end_fault("FERRY_TEST_WRITE_ERROR");
        set_fault_variant(&p->src, c->variant);
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "failed");
        mig_assert_error(&p->src, "Input/output error");
        mig_assert_error(&p->src, path);
        mig_finish_after_failure(p);
    }
}

static void test_read_error(const char *accel)
{
    MigPair *p = mig_pair_new(accel);

    for (unsigned i = 0; i < G_N_ELEMENTS(fault_cases); i++) {
        const struct FaultCase *c = &fault_cases[i];
        g_autofree char *path = mig_path(p, c->variant->name);
        g_autofree char *uri = g_strdup_printf("file:%s", path);

        start_fault_src(p);
        set_fault_variant(&p->src, c->variant);
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "completed");
        if (!mig_begin_fault(path, "FERRY_TEST_READ_ERROR", c->offset)) {
            break;
        }
        mig_start_dst(p, "defer");
        mig_end_fault("FERRY_TEST_READ_ERROR");
        set_fault_variant(&p->dst, c->variant);
        qtest_qmp_assert_success(p->dst.qts, "{'execute': 'migrate-incoming', 'arguments': "
                                 "{'uri': %s}}", uri);
        mig_assert_dst_refused(p, "Input/output error");
        mig_quit(&p->dst);
        mig_quit(&p->src);
    }
    mig_pair_free(p);
}

/* What was saved one way is loaded another way: the file is the same. */
static void test_mixed_variants(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    set_variant(&p->src, &variants[3]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    load(p, &variants[1], uri);
    mig_wait_status(&p->dst, "completed");
    mig_compare_memory(p);
    mig_quit(&p->dst);
    load(p, &variants[0], uri);
    mig_finish(p);
}

/* Several blocks, and sizes that are no multiple of 1 MiB. */
static void test_blocks(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    p->extra_args = "-object memory-backend-ram,id=one,size=5132k "
                    "-device memstress,id=ms1,memdev=one,start=0x90000000,rate=1000 "
                    "-object memory-backend-memfd,id=two,size=4k,share=on "
                    "-device memstress,id=ms2,memdev=two,start=0xa0000000,rate=10";
    mig_start_src(p);
    for (unsigned i = 1; i <= 2; i++) {
        g_autofree char *dev = g_strdup_printf("/machine/peripheral/ms%u", i);
        qtest_qmp_assert_success(p->src.qts, "{'execute': 'qom-set', 'arguments': {'path': %s, "
                                 "'property': 'running', 'value': true}}", dev);
    }
    set_variant(&p->src, &variants[4]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    load(p, &variants[4], uri);
    mig_wait_status(&p->dst, "completed");
    for (unsigned i = 1; i <= 2; i++) {
        g_autofree char *dev = g_strdup_printf("/machine/peripheral/ms%u", i);
        qtest_qmp_assert_success(p->dst.qts, "{'execute': 'qom-set', 'arguments': {'path': %s, "
                                 "'property': 'verify', 'value': true}}", dev);
        struct json_object *errors = qtest_qmp_assert_success_ref(
            p->dst.qts, "{'execute': 'qom-get', 'arguments': {'path': %s, 'property': "
            "'verify-errors'}}", dev);
        g_assert_cmpint(json_object_get_int64(errors), ==, 0);
        json_object_put(errors);
    }
    mig_finish(p);
}

/* ---- descriptors ---- */

static void test_fd(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    g_assert_cmpint(lseek(fd, 8192, SEEK_SET), ==, 8192);
    mig_start_src(p);
    set_variant(&p->src, &variants[4]);
    qtest_qmp_fds_assert_success(p->src.qts, &fd, 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    mig_migrate(&p->src, "fd:mig");
    mig_wait_status(&p->src, "completed");
    mig_start_dst(p, "defer");
    set_variant(&p->dst, &variants[4]);
    g_assert_cmpint(lseek(fd, 8192, SEEK_SET), ==, 8192);
    qtest_qmp_fds_assert_success(p->dst.qts, &fd, 1,
                                 "{'execute': 'getfd', 'arguments': {'fdname': 'mig'}}");
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': 'fd:mig'}}");
    close(fd);
    mig_finish(p);
}

/* One more descriptor of @path in set 1 of @m. */
static void add_fd(MigMachine *m, const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    qtest_qmp_fds_assert_success(m->qts, &fd, 1,
                                 "{'execute': 'add-fd', 'arguments': {'fdset-id': 1}}");
    close(fd);
}

static void test_fdset(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    const Variant *v = &variants[4];

    mig_start_src(p);
    set_variant(&p->src, v);
    add_fd(&p->src, path, O_WRONLY | O_CREAT);
    /* Without one that has O_DIRECT: refused, and the error says which is missing. */
    qtest_qmp_assert_error(p->src.qts,
                           "capability 'bypass-cache' needs O_DIRECT on file '/dev/fdset/1': Could "
                           "not open '/dev/fdset/1': fdset 1 has no write-only file descriptor "
                           "with O_DIRECT",
                           "{'execute': 'migrate', 'arguments': {'uri': 'file:/dev/fdset/1'}}");
    add_fd(&p->src, path, O_WRONLY | O_DIRECT);
    mig_migrate(&p->src, "file:/dev/fdset/1");
    mig_wait_status(&p->src, "completed");

    mig_start_dst(p, "defer");
    set_variant(&p->dst, v);
    add_fd(&p->dst, path, O_RDONLY);
    add_fd(&p->dst, path, O_RDONLY | O_DIRECT);
    qtest_qmp_assert_success(p->dst.qts, "{'execute': 'migrate-incoming', 'arguments': "
                             "{'uri': 'file:/dev/fdset/1'}}");
    mig_finish(p);
}

/* ---- page cache ---- */

static size_t cached_bytes(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    size_t cached = 0;

    g_assert_cmpint(fstat(fd, &st), ==, 0);
    size_t pages = (st.st_size + 4095) / 4096;
    g_autofree unsigned char *vec = g_malloc(pages);
    void *map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    g_assert_true(map != MAP_FAILED);
    g_assert_cmpint(mincore(map, st.st_size, vec), ==, 0);
    for (size_t i = 0; i < pages; i++) {
        cached += vec[i] & 1 ? 4096 : 0;
    }
    munmap(map, st.st_size);
    close(fd);
    return cached;
}

/* Whether the file system of @path, which is made, has O_DIRECT, as far as its flag goes. */
static bool has_direct_io(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

/* A save with bypass-cache leaves hardly anything of itself in the page cache. */
static void test_page_cache(void)
{
    unsigned mib = g_test_slow() ? 4096 : 512;
    g_autofree char *here = g_get_current_dir();
    g_autofree char *dir = g_build_filename(here, "page-cache-XXXXXX", NULL);

    g_assert_nonnull(g_mkdtemp(dir));
    g_autofree char *path = g_build_filename(dir, "save", NULL);
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    MigMachine m = { .serial = -1 };
    m.qts = qtest_initf("-accel qtest -m %u -S", mib);
    for (uint64_t at = 16; at < mib; at += 16) {
        /* What does not fit below 3 GiB begins at 4 GiB. */
        uint64_t gpa = at < 3072 ? at : at + 1024;
        qtest_memset(m.qts, gpa << 20, at / 16 % 255 + 1, 16 << 20);
    }
    set_variant(&m, &variants[4]);
    if (!has_direct_io(path)) {
        g_test_skip("the build directory's file system has no O_DIRECT");
    } else {
        mig_migrate(&m, uri);
        mig_wait_status(&m, "completed");
        g_assert_cmpint(cached_bytes(path), <, 64 << 20);
    }
    mig_quit(&m);
    unlink(path);
    rmdir(dir);
}

/* ---- large and empty ---- */

static void test_sparse(void)
{
    MigPair *p = mig_pair_new("qtest");
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    struct stat st;

    p->src.qts = qtest_init("-accel qtest -m 64G -S");
    qtest_writeq(p->src.qts, 0x1000, 0x1111);
    qtest_writeq(p->src.qts, 0x1000000000ull, 0x2222);
    set_variant(&p->src, &variants[2]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, >, 64ll << 30);
    g_assert_cmpint(st.st_blocks * 512ll, <, 16 << 20);

    p->dst.qts = qtest_init("-accel qtest -m 64G -S -incoming defer");
    set_variant(&p->dst, &variants[2]);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_wait_status(&p->dst, "completed");
    g_assert_cmphex(qtest_readq(p->dst.qts, 0x1000), ==, 0x1111);
    g_assert_cmphex(qtest_readq(p->dst.qts, 0x1000000000ull), ==, 0x2222);
    g_assert_cmphex(qtest_readq(p->dst.qts, 0x800000000ull), ==, 0);
    mig_pair_free(p);
}

/* ---- multifd on sockets ---- */

typedef struct SocketVariant {
    const char *name, *transport;
    unsigned channels;
    const char *compression;    /* NULL: none */
    const char *zero_detection;
} SocketVariant;

static const SocketVariant socket_variants[] = {
    { "unix-1", "unix", 1, NULL, NULL },
    { "unix-4", "unix", 4, NULL, "legacy" },
    { "tcp-2", "tcp", 2, NULL, "none" },
    { "unix-2-zlib", "unix", 2, "zlib", NULL },
    { "unix-3-zstd", "unix", 3, "zstd", NULL },
    { "unix-255", "unix", 255, NULL, NULL },
};

static void set_socket_variant(MigMachine *m, const SocketVariant *v)
{
    mig_set_cap(m, "multifd", true);
    mig_set_param_int(m, "multifd-channels", v->channels);
    mig_set_param_int(m, "max-bandwidth", 0);
    if (v->compression) {
        mig_set_param_str(m, "multifd-compression", v->compression);
    }
    if (v->zero_detection) {
        mig_set_param_str(m, "zero-page-detection", v->zero_detection);
    }
}

static char *start_socket_pair(MigPair *p, const SocketVariant *v)
{
    g_autofree char *path = mig_path(p, "sock");
    g_autofree char *listen = strcmp(v->transport, "tcp") == 0 ? g_strdup("tcp:127.0.0.1:0")
                                                               : g_strdup_printf("unix:%s", path);

    mig_start_src(p);
    set_socket_variant(&p->src, v);
    mig_start_dst(p, "defer");
    set_socket_variant(&p->dst, v);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", listen);
    if (strcmp(v->transport, "tcp") != 0) {
        return g_steal_pointer(&listen);
    }
    struct json_object *info = mig_query(&p->dst);
    char *uri = g_strdup_printf("tcp:127.0.0.1:%s", qtest_get_str(info, "socket-address.0.port"));
    json_object_put(info);
    return uri;
}

static void test_socket_variants(const char *accel)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(socket_variants); i++) {
        const SocketVariant *v = &socket_variants[i];
        g_test_message("%s", v->name);
        MigPair *p = mig_pair_new(accel);
        g_autofree char *uri = start_socket_pair(p, v);

        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "completed");
        struct json_object *info = mig_query(&p->src);
        g_assert_cmpint(qtest_get_int(info, "channels"), ==, v->channels);
        g_assert_cmpint(qtest_get_int(info, "ram.multifd-bytes"), >, 0);
        json_object_put(info);
        mig_finish(p);
    }
}

/* The two sides are not set alike. Both say what differs, and the source goes on. */
static const struct Differing {
    const char *name, *reason;
    SocketVariant src, dst;     /* 0 channels: no multifd */
} differing[] = {
    { "fewer",
      "has not opened as many channels as parameter 'multifd-channels' says here",
      { "", "unix", 2, NULL, NULL },
      { "", "unix", 4, NULL, NULL } },
    { "more",
      "the source opened more multifd channels than the 2 of parameter 'multifd-channels' here",
      { "", "unix", 4, NULL, NULL },
      { "", "unix", 2, NULL, NULL } },
    { "none",
      "the source opened multifd channels, but the capability multifd is not set",
      { "", "unix", 2, NULL, NULL },
      { "", "unix", 0, NULL, NULL } },
    { "compression",
      "but parameter 'multifd-compression' is 'none' here",
      { "", "unix", 2, "zstd", NULL },
      { "", "unix", 2, NULL, NULL } },
};

static void set_differing(MigMachine *m, const SocketVariant *v)
{
    if (v->channels) {
        set_socket_variant(m, v);
    }
}

static void test_sides_differ(const char *accel)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(differing); i++) {
        MigPair *p = mig_pair_new(accel);
        g_autofree char *uri = mig_unix_uri(p, "sock");

        g_test_message("%s", differing[i].name);
        mig_start_src(p);
        set_differing(&p->src, &differing[i].src);
        mig_start_dst(p, "defer");
        set_differing(&p->dst, &differing[i].dst);
        qtest_qmp_assert_success(p->dst.qts, "{'execute': 'migrate-incoming', 'arguments': "
                                 "{'uri': %s}}", uri);
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "failed");
        mig_assert_error(&p->src, differing[i].reason);
        mig_assert_dst_refused(p, differing[i].reason);
        mig_set_param_str(&p->src, "multifd-compression", "none");
        mig_finish_after_failure(p);
    }
}

static void test_socket_cancel(const char *accel)
{
    static const unsigned delays_us[] = { 0, 1000, 20000, 100000 };
    const SocketVariant *v = &socket_variants[1];
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = start_socket_pair(p, v);

    mig_set_param_int(&p->src, "max-bandwidth", 16 << 20);
    mig_set_param_int(&p->src, "downtime-limit", 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(delays_us); i++) {
        mig_migrate(&p->src, uri);
        g_usleep(delays_us[i]);
        qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
        mig_wait_status(&p->src, "cancelled");
        mig_kill(&p->dst);
        mig_start_dst(p, "defer");
        set_socket_variant(&p->dst, v);
        qtest_qmp_assert_success(p->dst.qts, "{'execute': 'migrate-incoming', 'arguments': "
                                 "{'uri': %s}}", uri);
    }
    mig_set_param_int(&p->src, "downtime-limit", 300);
    mig_finish_after_failure(p);
}

static void test_socket_destination_killed(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = start_socket_pair(p, &socket_variants[1]);

    mig_set_param_int(&p->src, "max-bandwidth", 8 << 20);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->dst, "active");
    mig_kill(&p->dst);
    mig_wait_status(&p->src, "failed");
    g_autofree char *error = mig_error(&p->src);
    g_assert_nonnull(error);
    mig_finish_after_failure(p);
}

/* ---- faults of the file ---- */

static void limit_file_size(MigMachine *m, rlim_t bytes)
{
    struct rlimit limit = { bytes, RLIM_INFINITY };

    g_assert_cmpint(prlimit(qtest_pid(m->qts), RLIMIT_FSIZE, &limit, NULL), ==, 0);
}

static void test_disk_full(const char *accel)
{
    static const rlim_t limits[] = { 0, 100, 200000, 1 << 20, 3 << 20, 20 << 20 };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    for (unsigned i = 0; i < G_N_ELEMENTS(limits); i++) {
        set_variant(&p->src, &variants[i % 5]);
        limit_file_size(&p->src, limits[i]);
        mig_migrate(&p->src, uri);
        mig_wait_status(&p->src, "failed");
        g_autofree char *error = mig_error(&p->src);
        if (!strstr(error, "File too large") || !strstr(error, path)) {
            qtest_fail(p->src.qts, "limit %ju: %s", (uintmax_t)limits[i], error);
        }
    }
    limit_file_size(&p->src, RLIM_INFINITY);
    load(p, &variants[0], uri);
    mig_assert_dst_refused(p, "incomplete");
    mig_finish_after_failure(p);
}

static void test_file_cancel(const char *accel)
{
    static const unsigned delays_us[] = { 0, 300, 2000, 10000, 40000, 100000 };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    mig_set_param_int(&p->src, "downtime-limit", 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(delays_us); i++) {
        set_variant(&p->src, &variants[i % 5]);
        mig_set_param_int(&p->src, "max-bandwidth", 16 << 20);
        mig_migrate(&p->src, uri);
        g_usleep(delays_us[i]);
        qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate_cancel'}");
        mig_wait_status(&p->src, "cancelled");
    }
    load(p, &variants[0], uri);
    mig_assert_dst_refused(p, "incomplete");
    mig_set_param_int(&p->src, "downtime-limit", 300);
    mig_finish_after_failure(p);
}

static void test_file_removed(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    set_variant(&p->src, &variants[2]);
    mig_set_cap(&p->src, "pause-before-switchover", true);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "pre-switchover");
    unlink(path);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate-continue', 'arguments': "
                             "{'state': 'pre-switchover'}}");
    mig_wait_status(&p->src, "failed");
    g_autofree char *error = mig_error(&p->src);
    g_assert_nonnull(strstr(error, "is gone"));
    mig_set_cap(&p->src, "pause-before-switchover", false);
    mig_finish_after_failure(p);
}

static void test_file_truncated_under_us(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    set_variant(&p->src, &variants[2]);
    mig_set_cap(&p->src, "pause-before-switchover", true);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "pre-switchover");
    g_assert_cmpint(truncate(path, 4096), ==, 0);
    qtest_qmp_assert_success(p->src.qts, "{'execute': 'migrate-continue', 'arguments': "
                             "{'state': 'pre-switchover'}}");
    mig_wait_status(&p->src, "failed");
    mig_assert_error(&p->src, "was truncated");
    mig_set_cap(&p->src, "pause-before-switchover", false);
    mig_finish_after_failure(p);
}

static void test_source_killed(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    set_variant(&p->src, &variants[4]);
    mig_set_param_int(&p->src, "max-bandwidth", 8 << 20);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "active");
    mig_kill(&p->src);
    load(p, &variants[4], uri);
    mig_assert_dst_refused(p, "incomplete");
    mig_pair_free(p);
}

/* A whole file that was cut off later: after the device state, in it, in the pages, before them. */
static void test_file_cut_off(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    set_variant(&p->src, &variants[2]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);
    const struct {
        off_t size;
        const char *reason;
    } cuts[] = {
        { size - 1, "ends unexpectedly" },
        { size - 70000, "beyond the end of the file" },
        { 1 << 20, "beyond the end of the file" },
        { 1000, "beyond the end of the file" },
        { 100, "ends unexpectedly" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cuts); i++) {
        g_test_message("%jd bytes of %jd", (intmax_t)cuts[i].size, (intmax_t)size);
        g_assert_cmpint(ftruncate(fd, cuts[i].size), ==, 0);
        load(p, &variants[i % 5], uri);
        mig_assert_dst_refused(p, cuts[i].reason);
        mig_quit(&p->dst);
    }
    close(fd);
    mig_pair_free(p);
}

/* Where the header of the first RAM block is in @data: before the name comes its length. */
static size_t find_header(const char *data, size_t size, const char *name)
{
    const char *at = memmem(data, size, name, strlen(name));

    g_assert_nonnull(at);
    /* Name and length of the block. */
    return at - data + strlen(name) + 8;
}

/* Fields of a block's header, each changed by itself. */
static void test_header_spoiled(const char *accel)
{
    static const struct {
        unsigned at;
        uint64_t value;
        const char *reason;
    } changes[] = {
        { 0, 2, "version 2 of the direct-mapped layout is not supported" },
        { 4, 8192, "the page size is 8192, only 4096 is supported" },
        { 12, 1, "the bitmap at offset 1 overlaps what comes before" },
        { 20, (1 << 20) + 4096, "do not begin at a multiple of 1048576" },
        { 20, 0, "overlaps the pages at offset 0" },
        { 20, UINT64_MAX << 20, "go beyond the end of the file" },
    };
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autofree char *data = g_malloc(65536);

    mig_start_src(p);
    set_variant(&p->src, &variants[2]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ssize_t n = pread(fd, data, 65536, 0);
    size_t header = find_header(data, n, "microvm.ram");
    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        bool is_version = changes[i].at == 0;
        uint64_t value = is_version ? GUINT32_TO_BE(changes[i].value)
                                    : GUINT64_TO_BE(changes[i].value);
        size_t len = is_version ? 4 : 8, at = header + changes[i].at;

        g_assert_cmpint(pwrite(fd, &value, len, at), ==, len);
        load(p, &variants[0], uri);
        mig_assert_dst_refused(p, changes[i].reason);
        mig_quit(&p->dst);
        g_assert_cmpint(pwrite(fd, data + at, len, at), ==, len);
    }
    close(fd);
    load(p, &variants[0], uri);
    mig_finish(p);
}

static void test_capability_differs(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *path = mig_path(p, "save");
    g_autofree char *uri = g_strdup_printf("file:%s", path);

    mig_start_src(p);
    set_variant(&p->src, &variants[0]);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    /* Deferred: a machine that fails at its start may be gone before its monitor is used. */
    mig_start_dst(p, "defer");
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_assert_dst_refused(p, "capability 'direct-mapped' is on in the stream but off here");
    mig_quit(&p->dst);

    mig_quit(&p->src);
    mig_start_src(p);
    mig_migrate(&p->src, uri);
    mig_wait_status(&p->src, "completed");
    load(p, &variants[0], uri);
    mig_assert_dst_refused(p, "capability 'direct-mapped' is off in the stream but on here");
    mig_pair_free(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    mig_add_accel_tests("/migration/mapped/live", test_live_variants);
    mig_add_accel_tests("/migration/mapped/offset", test_offset);
    mig_add_accel_tests("/migration/mapped/flushed-early", test_flushed_early);
    mig_add_accel_tests("/migration/mapped/write-error", test_write_error);
    mig_add_accel_tests("/migration/mapped/read-error", test_read_error);
    mig_add_accel_tests("/migration/mapped/mixed", test_mixed_variants);
    mig_add_accel_tests("/migration/mapped/blocks", test_blocks);
    mig_add_accel_tests("/migration/mapped/fd", test_fd);
    mig_add_accel_tests("/migration/mapped/fdset", test_fdset);
    qtest_add_func("/migration/mapped/page-cache", test_page_cache);
    qtest_add_func("/migration/mapped/sparse", test_sparse);
    mig_add_accel_tests("/migration/mapped/full", test_disk_full);
    mig_add_accel_tests("/migration/mapped/cancel", test_file_cancel);
    mig_add_accel_tests("/migration/mapped/removed", test_file_removed);
    mig_add_accel_tests("/migration/mapped/truncated", test_file_truncated_under_us);
    mig_add_accel_tests("/migration/mapped/source-killed", test_source_killed);
    mig_add_accel_tests("/migration/mapped/cut-off", test_file_cut_off);
    mig_add_accel_tests("/migration/mapped/header", test_header_spoiled);
    mig_add_accel_tests("/migration/mapped/capability", test_capability_differs);
    mig_add_accel_tests("/migration/multifd/live", test_socket_variants);
    mig_add_accel_tests("/migration/multifd/sides-differ", test_sides_differ);
    mig_add_accel_tests("/migration/multifd/cancel", test_socket_cancel);
    mig_add_accel_tests("/migration/multifd/killed", test_socket_destination_killed);
    return g_test_run();
}
