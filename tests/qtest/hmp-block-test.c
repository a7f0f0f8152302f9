/*
 * The human monitor's commands about disks: their layout, and every qemu-io command with and
 * without sense.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/qtest/libqtest.h"

static char *new_file(const char *name, int64_t bytes)
{
    char *path = g_build_filename(qtest_tmpdir(), name, NULL);
    FILE *f = g_fopen(path, "w");

    g_assert_nonnull(f);
    g_assert_cmpint(ftruncate(fileno(f), bytes), ==, 0);
    fclose(f);
    return path;
}

static void G_GNUC_PRINTF(3, 4) expect(QTestState *s, const char *line, const char *fmt, ...)
{
    g_autofree char *text = qtest_hmp(s, "%s", line), *wanted = NULL;
    va_list ap;

    va_start(ap, fmt);
    wanted = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (strcmp(text, wanted)) {
        qtest_fail(s, "'%s' should print\n%s\nnot\n%s", line, wanted, text);
    }
}

/* Numbers that depend on time are left out: text up to the first of them. */
static void expect_begins(QTestState *s, const char *line, const char *begin)
{
    g_autofree char *text = qtest_hmp(s, "%s", line);

    if (!g_str_has_prefix(text, begin)) {
        qtest_fail(s, "'%s' should print\n%s...\nnot\n%s", line, begin, text);
    }
}

static void test_info_block(void)
{
    g_autofree char *path = new_file("i.img", 1 << 20);
    QTestState *s =
        qtest_initf("-drive id=d,if=none,file=%s,format=raw,cache=directsync,node-name=nd,"
                    "detect-zeroes=on -drive id=e,if=none,file=null-co://,format=raw,"
                    "read-only=on,cache=unsafe -blockdev null-co,node-name=n,size=4k "
                    "-device virtio-blk-device,drive=n,id=v -device virtio-blk-device,drive=d,id=w",
                    path);

    expect(s, "info block d",
           "d (nd): %s (raw)\n"
           "    Attached to:      w\n"
           "    Cache mode:       writethrough, direct\n"
           "    Detect zeroes:    on\n", path);
    expect(s, "info block e",
           "e (#block001): null-co:// (raw, read-only)\n"
           "    Removable device: not locked, tray closed\n"
           "    Cache mode:       writeback, ignore flushes\n");
    expect(s, "info block n",
           "n: null-co:// (null-co)\n"
           "    Cache mode:       writeback\n");
    expect(s, "info block x", "%s", "");
    expect(s, "info block -v nd",
           "nd: %s (raw)\n"
           "    Cache mode:       writeback, direct\n"
           "    Detect zeroes:    on\n"
           "\n"
           "Images:\n"
           "image: %s\n"
           "file format: raw\n"
           "virtual size: 1 MiB (1048576 bytes)\n"
           "disk size: 0 B\n", path, path);
    {
        g_autofree char *all = qtest_hmp(s, "info block"), *nodes = qtest_hmp(s, "info block -n");

        g_assert_nonnull(strstr(all, "Detect zeroes:    on\n\ne (#block001)"));
        g_assert_nonnull(strstr(all, "\n\nn: null-co:// (null-co)\n    Attached to:      v"));
        g_assert_true(g_str_has_prefix(
            nodes, "n: null-co:// (null-co)\n    Cache mode:       writeback\n\nnd: "));
        g_assert_nonnull(strstr(nodes, "\n\n#block002: null-co:// (null-co, read-only)\n"));
    }
    qtest_quit(s);
}

static void test_stats(void)
{
    QTestState *s = qtest_init("-drive id=d,if=none,file=null-co://,format=raw");

    expect(s, "info blockstats",
           "d: rd_bytes=0 wr_bytes=0 rd_operations=0 wr_operations=0 flush_operations=0 "
           "wr_total_time_ns=0 "
           "rd_total_time_ns=0 flush_total_time_ns=0 rd_merged=0 wr_merged=0 idle_time_ns=0\n");
    expect(s, "info block-jobs", "No active jobs\n");
    qtest_quit(s);
}

static void test_resize(void)
{
    g_autofree char *path = new_file("r.img", 1 << 20);
    QTestState *s = qtest_initf("-drive id=d,if=none,file=%s,format=raw,node-name=n", path);

    expect(s, "block_resize d 2M", "%s", "");
    expect(s, "qemu-io d length", "2 MiB\n");
    expect(s, "block_resize n 3", "%s", "");
    expect(s, "qemu-io n length", "3 MiB\n");
    expect(s, "block_resize x 3", "Error: Failed to find node with node-name='x'\n");
    expect(s, "block_resize d",
           "block_resize: size expected\nTry \"help block_resize\" for more information\n");
    qtest_quit(s);
}

static void test_io(void)
{
    g_autofree char *path = new_file("io.img", 1 << 20), *source = new_file("source", 0);
    g_autofree char *from_file = g_strdup_printf("qemu-io d \"write -q -s %s 4k 5\"", source);
    QTestState *s = qtest_initf("-drive id=d,if=none,file=%s,format=raw,discard=unmap "
                                "-blockdev null-co,node-name=n,read-zeroes=on,size=1M", path);

    expect_begins(s, "qemu-io d \"write -P 0x41 512 1k\"",
                  "wrote 1024/1024 bytes at offset 512\n1 KiB, 1 ops; 00.");
    expect_begins(s, "qemu-io d \"read -v -P 0x41 512 17\"",
                  "00000200:  41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41  AAAAAAAAAAAAAAAA\n"
                  "00000210:  41  A\n"
                  "read 17/17 bytes at offset 512\n17 bytes, 1 ops; 00.");
    expect_begins(s, "qemu-io d \"read -P 0x42 512 1k\"",
                  "Pattern verification failed at offset 512, 1024 bytes\nread 1024/1024 bytes at "
                  "offset 512\n");
    expect(s, "qemu-io d \"read -q -P 0x41 -s 512 -l 1k 0 2k\"", "%s", "");
    expect(s, "qemu-io d \"read -q -P 0x41 -s 512 0 2k\"",
           "Pattern verification failed at offset 512, 1536 bytes\n");
    expect(s, "qemu-io d \"read -P 1 -s 4k 0 2k\"",
           "pattern verification range exceeds end of read data\n");
    expect(s, "qemu-io d \"read -s 1 0 2k\"", "-s and -l require -P to be specified\n");
    expect_begins(s, "qemu-io d \"read -C 0 1k\"", "1024,1,0:00:00.");
    g_assert_true(g_file_set_contents(source, "ab", 2, NULL));
    expect(s, from_file, "%s", "");
    expect_begins(s, "qemu-io d \"read -v 4k 5\"", "00001000:  61 62 61 62 61  ababa\n");
    expect(s, "qemu-io d \"write -q -f -P 3 0 64k\"", "%s", "");
    expect(s, "qemu-io d \"write -q -z -u 0 4k\"", "%s", "");
    expect(s, "qemu-io d \"read -q -P 0 0 4k\"", "%s", "");
    expect(s, "qemu-io d \"read -q -P 3 4k 60k\"", "%s", "");
    expect(s, "qemu-io d \"discard -q 0 64k\"", "%s", "");
    expect(s, "qemu-io d \"read -q -P 0 0 64k\"", "%s", "");
    expect(s, "qemu-io d flush", "%s", "");
    expect(s, "qemu-io d \"aio_write -q -P 9 64k 64k\"", "%s", "");
    expect(s, "qemu-io d aio_flush", "%s", "");
    expect(s, "qemu-io d \"aio_read -q -P 9 64k 64k\"", "%s", "");
    expect(s, "qemu-io d \"aio_write -q -z 64k 64k\"", "%s", "");
    expect(s, "qemu-io d aio_flush", "%s", "");
    expect(s, "qemu-io d \"read -q -P 0 64k 64k\"", "%s", "");
    expect(s, "qemu-io d \"truncate 2M\"", "%s", "");
    expect(s, "qemu-io d length", "2 MiB\n");
    expect(s, "qemu-io d \"truncate -m off 1M\"", "%s", "");
    expect(s, "qemu-io d map", "1 MiB (0x100000) bytes     allocated at offset 0 bytes (0x0)\n");
    expect(s, "qemu-io d \"alloc 4k 64k\"", "65536/65536 bytes allocated at offset 4 KiB\n");
    expect(s, "qemu-io d \"alloc 1M\"", "0/512 bytes allocated at offset 1 MiB\n");
    expect(s, "qemu-io d info", "format name: raw\n");
    expect(s, "qemu-io n \"read -q -P 0 0 64k\"", "%s", "");
    qtest_quit(s);
}

static void test_io_errors(void)
{
    static const struct {
        const char *command, *output;
    } cases[] = {
        { "qemu-io d foo", "command \"foo\" not found\n" },
        { "qemu-io d \"help foo\"", "command \"foo\" not found\n" },
        { "qemu-io d \"read 0\"", "bad argument count 1 to read, expected 2 arguments\n" },
        { "qemu-io d \"alloc\"",
          "bad argument count 0 to alloc, expected between 1 and 2 arguments\n" },
        { "qemu-io d \"read x 1\"",
          "Parsing error: 'x' is not a size: a number with an optional suffix k, M, G, T, P "
          "or E is expected\n" },
        { "qemu-io d \"read 0 -1\"",
          "Parsing error: '-1' is not a size: a number with an optional suffix k, M, G, "
          "T, P or E is expected\n" },
        { "qemu-io d \"read 1M 1\"", "read failed: Input/output error\n" },
        { "qemu-io d \"read 0 2G\"", "length cannot exceed 1073741824, given 2147483648\n" },
        { "qemu-io d \"write 1M 1\"", "write failed: Input/output error\n" },
        { "qemu-io d \"write 15E 1\"", "Parsing error: argument too large -- 15E\n" },
        { "qemu-io d \"write -P 256 0 1\"", "256 is not a valid pattern byte\n" },
        { "qemu-io d \"write -P\"",
          "write: option requires an argument -- 'P'\n"
          "write [-cCfnquz] [-P pattern | -s source_file] off len -- writes a range\n" },
        { "qemu-io d \"flush -x\"",
          "flush: invalid option -- 'x'\nflush -- brings all that was written to stable "
          "storage\n" },
        { "qemu-io d \"write -u 0 1\"", "-u requires -z to be specified\n" },
        { "qemu-io d \"write -n 0 1\"", "-n requires -z to be specified\n" },
        { "qemu-io d \"write -z -P 1 0 1\"", "-z and -P cannot be specified at the same time\n" },
        { "qemu-io d \"write -z -c 0 1\"", "-c and -z cannot be specified at the same time\n" },
        { "qemu-io d \"write -f -c 0 1\"", "-c and -f cannot be specified at the same time\n" },
        { "qemu-io d \"write -s /x -z 0 1\"",
          "Only one of -z, -P, and -s can be specified at the same time\n" },
        { "qemu-io d \"write -c 0 64k\"", "write failed: Operation not supported\n" },
        { "qemu-io d \"aio_read 1M 1\"", "aio_read failed: Input/output error\n" },
        { "qemu-io d \"truncate -m some 1M\"", "truncate: invalid parameter value: some\n" },
        { "qemu-io ro \"write 0 1\"",
          "write: Block node 'ro' is read-only (write wanted by a block device as 'root')\n" },
        { "qemu-io ro \"truncate 0\"",
          "truncate: Block node 'ro' is read-only (write, resize wanted by a block device as 'root')\n" },
        { "qemu-io ro \"discard 0 1\"",
          "discard: Block node 'ro' is read-only (write wanted by a block device as 'root')\n" },
        { "qemu-io x flush", "Error: Cannot find device='' nor node-name='x'\n" },
        { "qemu-io -d x flush", "Error: Device 'x' has no disk, or does not exist\n" },
        { "qemu-io d", "qemu-io: string expected\nTry \"help qemu-io\" for more information\n" },
        { "qemu-io d \"\"", "" },
    };
    QTestState *s = qtest_init("-drive id=d,if=none,file=null-co://,format=raw,file.size=1M "
                               "-blockdev null-co,node-name=ro,read-only=on");

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        expect(s, cases[i].command, "%s", cases[i].output);
    }
    expect_begins(s, "qemu-io d help", "aio_flush -- waits until");
    expect_begins(s, "qemu-io d \"help read\"",
                  "read [-Cqv] [-P pattern [-s off] [-l len]] off len -- reads a range\n"
                  "\n -C  report for programs\n");
    qtest_quit(s);
}

/* A machine whose requests take long: the monitor answers while they are under way. */
static void test_io_async(void)
{
    QTestState *s = qtest_init("-blockdev null-co,node-name=slow,latency-ns=300000000,size=1M");
    gint64 start = g_get_monotonic_time();

    for (int i = 0; i < 10; i++) {
        expect(s, "qemu-io slow \"aio_read -q 0 4k\"", "%s", "");
    }
    expect(s, "info status", "VM status: running\n");
    g_assert_cmpint(g_get_monotonic_time() - start, <, 300 * 1000);
    expect(s, "qemu-io slow aio_flush", "%s", "");
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 300 * 1000);
    /* The end of the program waits for them, too. */
    expect(s, "qemu-io slow \"aio_write -q 0 4k\"", "%s", "");
    qtest_quit(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/hmp-block/info-block", test_info_block);
    qtest_add_func("/hmp-block/stats", test_stats);
    qtest_add_func("/hmp-block/resize", test_resize);
    qtest_add_func("/hmp-block/io", test_io);
    qtest_add_func("/hmp-block/io-errors", test_io_errors);
    qtest_add_func("/hmp-block/io-async", test_io_async);
    return g_test_run();
}
