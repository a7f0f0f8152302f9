/*
 * virtio-blk by its registers and rings: every request, every way to lay it out, and every way in
 * which a driver can be wrong. Each test runs with requests served by the main loop and by an
 * iothread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/bswap.h"
#include "virtio-driver.h"

#define MIB (1u << 20)
#define DISK_BYTES (4 * MIB)
#define SECTORS (DISK_BYTES / 512)

static const char *context = "";        /* ",iothread=io0" or nothing */

typedef struct Disk {
    QTestState *qts;
    char *path;
    VirtioDriver d;
    VdQueue *q;                 /* the first */
} Disk;

static uint8_t pattern(uint64_t offset, unsigned seed)
{
    return (offset >> 9) * 7 + offset * 3 + seed;
}

static void fill(uint8_t *data, uint64_t offset, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++) {
        data[i] = pattern(offset + i, seed);
    }
}

static char *make_image(void)
{
    static unsigned n;
    g_autofree char *name = g_strdup_printf("disk%u", n++);
    char *path = g_build_filename(qtest_tmpdir(), name, NULL);
    g_autofree uint8_t *data = g_malloc(DISK_BYTES);

    fill(data, 0, DISK_BYTES, 1);
    g_assert_true(g_file_set_contents(path, (char *)data, DISK_BYTES, NULL));
    return path;
}

static void read_image(const Disk *disk, uint64_t offset, void *data, size_t bytes)
{
    int fd = open(disk->path, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(pread(fd, data, bytes, offset), ==, bytes);
    close(fd);
}

/* A machine whose node n0 is @node, JSON with %s for the file. */
static Disk *open_disk_on(const char *node, const char *device_args)
{
    Disk *disk = g_new0(Disk, 1);
    g_autofree char *blockdev = NULL;

    disk->path = make_image();
    blockdev = g_strdup_printf(node, disk->path);
    disk->qts = qtest_initf("-m 64 %s -blockdev '%s' -device virtio-blk-device,id=vd,drive=n0%s%s",
                            *context ? "-object iothread,id=io0" : "", blockdev, context, device_args);
    vd_init(&disk->d, disk->qts, 0);
    disk->q = &disk->d.queues[0];
    return disk;
}

#define FILE_NODE "{\"driver\": \"file\", \"node-name\": \"n0\", \"filename\": \"%s\", " \
                  "\"discard\": \"unmap\"}"

static Disk *open_disk(const char *device_args)
{
    return open_disk_on(FILE_NODE, device_args);
}

static void close_disk(Disk *disk)
{
    qtest_quit(disk->qts);
    g_free(disk->path);
    g_free(disk);
}

static void check_works(Disk *disk)
{
    uint8_t out[1024], in[1024];

    fill(out, 0x4000, sizeof(out), 99);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, 32, out, NULL, sizeof(out)), ==, VD_OK);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_IN, 32, NULL, in, sizeof(in)), ==, VD_OK);
    g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
}

/* ---- what the device says of itself ---- */

static void test_identity(void)
{
    Disk *disk = open_disk(",num-queues=3,queue-size=64,logical_block_size=1024,"
                           "physical_block_size=4096,min_io_size=4096,opt_io_size=65536");
    VirtioDriver *d = &disk->d;
    uint64_t features = vd_read_features(d);

    g_assert_cmphex(vd_read(d, VD_MAGIC), ==, 0x74726976);
    g_assert_cmpuint(vd_read(d, VD_VERSION), ==, 2);
    g_assert_cmpuint(vd_read(d, VD_DEVICE_ID), ==, 2);
    g_assert_cmphex(features, ==,
                    VD_F_VERSION_1 | VD_F_EVENT_IDX | VD_F_INDIRECT | VD_F_MQ | VD_F_DISCARD |
                        VD_F_WRITE_ZEROES | VD_F_FLUSH | VD_F_CONFIG_WCE | 1 << 2 | 1 << 4 |
                        1 << 6 | 1 << 10);
    vd_write(d, VD_DEVICE_FEATURES_SEL, 2);
    g_assert_cmphex(vd_read(d, VD_DEVICE_FEATURES), ==, 0);
    g_assert_cmpuint(vd_capacity(d), ==, SECTORS);
    g_assert_cmpuint(vd_read(d, VD_CONFIG + 12), ==, 62);
    g_assert_cmpuint(vd_read(d, VD_CONFIG + 20), ==, 1024);
    g_assert_cmpuint(qtest_readb(disk->qts, d->base + VD_CONFIG + 24), ==, 2);
    g_assert_cmpuint(qtest_readw(disk->qts, d->base + VD_CONFIG + 26), ==, 4);
    g_assert_cmpuint(vd_read(d, VD_CONFIG + 28), ==, 64);
    g_assert_cmpuint(qtest_readb(disk->qts, d->base + VD_CONFIG + 32), ==, 1);
    g_assert_cmpuint(qtest_readw(disk->qts, d->base + VD_CONFIG + 34), ==, 3);
    g_assert_cmpuint(vd_read(d, VD_CONFIG + 40), ==, 32);
    g_assert_cmpuint(vd_read(d, VD_CONFIG + 44), ==, 2);
    g_assert_cmpuint(qtest_readb(disk->qts, d->base + VD_CONFIG + 56), ==, 1);
    /* Behind its end, and across it: nothing. */
    g_assert_cmphex(vd_read(d, VD_CONFIG + 60), ==, 0);
    g_assert_cmphex(vd_read(d, 0x1fc), ==, 0);
    for (unsigned i = 0; i < 5; i++) {
        vd_write(d, VD_QUEUE_SEL, i);
        g_assert_cmpuint(vd_read(d, VD_QUEUE_NUM_MAX), ==, i < 3 ? 64 : 0);
    }
    /* Not as bytes. */
    g_assert_cmphex(qtest_readb(disk->qts, d->base), ==, 0);
    close_disk(disk);
}

static void test_empty_slots(void)
{
    Disk *disk = open_disk(",bus=virtio-mmio-bus.23");
    VirtioDriver last;

    g_assert_cmphex(vd_read(&disk->d, VD_MAGIC), ==, 0x74726976);
    g_assert_cmpuint(vd_read(&disk->d, VD_DEVICE_ID), ==, 0);
    vd_write(&disk->d, VD_STATUS, 1);
    g_assert_cmpuint(vd_read(&disk->d, VD_STATUS), ==, 0);
    vd_init(&last, disk->qts, 23);
    g_assert_cmpuint(vd_read(&last, VD_DEVICE_ID), ==, 2);
    g_assert_cmphex(qtest_readl(disk->qts, 0xfeb03000), ==, 0xffffffff);
    close_disk(disk);
}

/* FEATURES_OK is given for what was offered, and only together with VERSION_1. */
static void test_negotiation(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    uint64_t features = vd_read_features(d);
    static const struct {
        uint64_t add, remove;
        bool ok;
    } cases[] = {
        { 0, 0, true },
        { 0, VD_F_VERSION_1, false },
        { 1ull << 40, 0, false },
        { VD_F_RO, 0, false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint64_t wanted = (features | cases[i].add) & ~cases[i].remove;

        vd_write(d, VD_STATUS, 0);
        vd_write(d, VD_STATUS, 3);
        vd_write(d, VD_DRIVER_FEATURES_SEL, 0);
        vd_write(d, VD_DRIVER_FEATURES, wanted);
        vd_write(d, VD_DRIVER_FEATURES_SEL, 1);
        vd_write(d, VD_DRIVER_FEATURES, wanted >> 32);
        vd_write(d, VD_STATUS, 11);
        g_assert_cmphex(vd_read(d, VD_STATUS), ==, cases[i].ok ? 11 : 3);
        vd_write(d, VD_STATUS, 15);
        g_assert_cmphex(vd_read(d, VD_STATUS), ==, cases[i].ok ? 15 : 3);
    }
    vd_start(d, VD_F_PLAIN, 1, 0);
    check_works(disk);
    close_disk(disk);
}

/* ---- requests ---- */

static void test_read_write(void)
{
    Disk *disk = open_disk("");
    uint8_t *data = g_malloc(MIB), *expected = g_malloc(MIB);

    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_IN, 3, NULL, data, MIB), ==, VD_OK);
    fill(expected, 3 * 512, MIB, 1);
    g_assert_cmpmem(data, MIB, expected, MIB);

    fill(expected, SECTORS / 2 * 512, MIB, 2);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, SECTORS / 2, expected, NULL, MIB), ==,
                     VD_OK);
    read_image(disk, SECTORS / 2 * 512, data, MIB);
    g_assert_cmpmem(data, MIB, expected, MIB);
    /* The last sector, and nothing at all. */
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, SECTORS - 1, expected, NULL, 512), ==,
                     VD_OK);
    read_image(disk, DISK_BYTES - 512, data, 512);
    g_assert_cmpmem(data, 512, expected, 512);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, SECTORS, NULL, NULL, 0), ==, VD_OK);
    g_free(data);
    g_free(expected);
    close_disk(disk);
}

/* The parts of a request may be in any number of buffers, cut anywhere. */
static void test_layout(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    uint64_t m;
    uint8_t header[16] = { VD_IN }, data[1024], expected[1024];

    vd_start(d, VD_F_PLAIN, 1, 0);
    m = vd_alloc(d, 0x4000);
    stq_le_p(header + 8, 100);
    qtest_memwrite(d->qts, m, header, 7);
    qtest_memwrite(d->qts, m + 0x101, header + 7, 9);
    VdBuffer in[] = {
        { m, 7, false },           { m + 0x101, 9, false },   { m + 0x1001, 1, true },
        { m + 0x2000, 510, true }, { m + 0x3003, 514, true }, /* the last byte is the status */
    };
    vd_offer(d, disk->q, vd_chain(d, disk->q, in, G_N_ELEMENTS(in)));
    vd_kick(d, disk->q);
    vd_wait_used(d, disk->q, NULL);
    g_assert_cmpuint(qtest_readb(d->qts, m + 0x3003 + 513), ==, VD_OK);
    qtest_memread(d->qts, m + 0x1001, data, 1);
    qtest_memread(d->qts, m + 0x2000, data + 1, 510);
    qtest_memread(d->qts, m + 0x3003, data + 511, 513);
    fill(expected, 100 * 512, 1024, 1);
    g_assert_cmpmem(data, 1024, expected, 1024);

    /* A write whose header and data are in one buffer. */
    header[0] = VD_OUT;
    fill(expected, 200 * 512, 1024, 5);
    stq_le_p(header + 8, 200);
    qtest_memwrite(d->qts, m, header, 16);
    qtest_memwrite(d->qts, m + 16, expected, 1024);
    VdBuffer out[] = { { m, 16 + 1024, false }, { m + 0x3000, 1, true } };
    vd_offer(d, disk->q, vd_chain(d, disk->q, out, 2));
    vd_kick(d, disk->q);
    vd_wait_used(d, disk->q, NULL);
    g_assert_cmpuint(qtest_readb(d->qts, m + 0x3000), ==, VD_OK);
    read_image(disk, 200 * 512, data, 1024);
    g_assert_cmpmem(data, 1024, expected, 1024);
    close_disk(disk);
}

static void test_others(void)
{
    Disk *disk = open_disk(",serial=ferry-01");
    char id[32];

    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    memset(id, 'x', sizeof(id));
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_GET_ID, 0, NULL, id, 20), ==, VD_OK);
    g_assert_cmpmem(id, 20, "ferry-01\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_GET_ID, 0, NULL, id, 5), ==, VD_OK);
    g_assert_cmpmem(id, 5, "ferry", 5);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, 2, 0, NULL, NULL, 0), ==, VD_UNSUPP);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, 0x80000000, 0, NULL, NULL, 0), ==, VD_UNSUPP);
    check_works(disk);
    close_disk(disk);
}

static void test_bad_ranges(void)
{
    Disk *disk = open_disk(",logical_block_size=1024,physical_block_size=1024");
    static const struct {
        uint64_t sector;
        uint32_t bytes;
    } cases[] = {
        { SECTORS, 1024 }, { SECTORS - 2, 2048 }, { 1, 1024 }, { 0, 512 }, { 0, 1000 },
        { UINT64_MAX / 512 + 1, 1024 }, { UINT64_MAX - 1, 1024 }, { 1ull << 54, 1024 },
    };
    uint8_t data[2048] = { 0 }, before[2048], after[2048];

    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    read_image(disk, 0, before, sizeof(before));
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_IN, cases[i].sector, NULL, NULL,
                                    cases[i].bytes), ==, VD_IOERR);
        g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, cases[i].sector, data, NULL,
                                    cases[i].bytes), ==, VD_IOERR);
    }
    read_image(disk, 0, after, sizeof(after));
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
    close_disk(disk);
}

static void put_range(uint8_t *p, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    stq_le_p(p, sector);
    stl_le_p(p + 8, sectors);
    stl_le_p(p + 12, flags);
}

static void test_zeroes(uint32_t type)
{
    Disk *disk = open_disk(",max-discard-sectors=4096,max-write-zeroes-sectors=4096");
    uint8_t ranges[33 * 16], *data = g_malloc(DISK_BYTES), *expected = g_malloc(DISK_BYTES);
    uint32_t unmap_ok = type == VD_DISCARD ? VD_UNSUPP : VD_OK;

    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    fill(expected, 0, DISK_BYTES, 1);
    put_range(ranges, 8, 64, 0);
    put_range(ranges + 16, 1024, 4096, 0);
    memset(expected + 8 * 512, 0, 64 * 512);
    memset(expected + 1024 * 512, 0, 4096 * 512);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 32), ==, VD_OK);
    put_range(ranges, 6000, 16, 1);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 16), ==, unmap_ok);
    if (unmap_ok == VD_OK) {
        memset(expected + 6000 * 512, 0, 16 * 512);
    }
    /*
     * Wrong: a flag nobody knows, too long, past the end, not whole, too many, none; and nothing is
     * done.
     */
    put_range(ranges, 0, 8, 2);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 16), ==, VD_UNSUPP);
    put_range(ranges, 0, 4097, 0);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 16), ==, VD_IOERR);
    put_range(ranges, 0, 8, 0);
    put_range(ranges + 16, SECTORS - 1, 2, 0);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 32), ==, VD_IOERR);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 15), ==, VD_IOERR);
    for (unsigned i = 0; i < 33; i++) {
        put_range(ranges + i * 16, i * 8, 8, 0);
    }
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 33 * 16), ==, VD_IOERR);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, NULL, NULL, 0), ==, VD_IOERR);
    read_image(disk, 0, data, DISK_BYTES);
    g_assert_cmpmem(data, DISK_BYTES, expected, DISK_BYTES);
    /* What was not negotiated is not there. */
    vd_start(&disk->d, VD_F_PLAIN & ~(VD_F_DISCARD | VD_F_WRITE_ZEROES), 1, 0);
    put_range(ranges, 0, 8, 0);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, type, 0, ranges, NULL, 16), ==, VD_UNSUPP);
    g_free(data);
    g_free(expected);
    close_disk(disk);
}

static void test_discard(void)
{
    test_zeroes(VD_DISCARD);
}

static void test_write_zeroes(void)
{
    test_zeroes(VD_WRITE_ZEROES);
}

static void test_read_only(void)
{
    Disk *disk = open_disk_on("{\"driver\": \"file\", \"node-name\": \"n0\", \"filename\": \"%s\", "
                              "\"read-only\": true}", "");
    uint8_t data[512] = { 0 }, expected[512];

    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    g_assert_true(disk->d.features & VD_F_RO);
    g_assert_false(disk->d.features & (VD_F_DISCARD | VD_F_WRITE_ZEROES));
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, 0, data, NULL, 512), ==, VD_IOERR);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_IN, 0, NULL, data, 512), ==, VD_OK);
    fill(expected, 0, 512, 1);
    g_assert_cmpmem(data, 512, expected, 512);
    close_disk(disk);
}

/* Both ways to say that there is a write cache. */
static void test_write_cache(void)
{
    Disk *disk = open_disk("");
    uint64_t wce = disk->d.base + VD_CONFIG + 32;

    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    g_assert_cmpuint(qtest_readb(disk->qts, wce), ==, 1);
    qtest_writeb(disk->qts, wce, 0);
    g_assert_cmpuint(qtest_readb(disk->qts, wce), ==, 0);
    check_works(disk);
    vd_start(&disk->d, VD_F_PLAIN & ~VD_F_CONFIG_WCE, 1, 0);
    g_assert_cmpuint(qtest_readb(disk->qts, wce), ==, 1);
    qtest_writeb(disk->qts, wce, 0);
    g_assert_cmpuint(qtest_readb(disk->qts, wce), ==, 1);
    vd_start(&disk->d, VD_F_PLAIN & ~(VD_F_CONFIG_WCE | VD_F_FLUSH), 1, 0);
    g_assert_cmpuint(qtest_readb(disk->qts, wce), ==, 0);
    check_works(disk);
    close_disk(disk);
    disk = open_disk(",write-cache=off,config-wce=off");
    vd_start(&disk->d, VD_F_PLAIN, 1, 0);
    g_assert_false(disk->d.features & (VD_F_CONFIG_WCE | VD_F_FLUSH));
    g_assert_cmpuint(qtest_readb(disk->qts, disk->d.base + VD_CONFIG + 32), ==, 0);
    close_disk(disk);
}

/* ---- rings ---- */

static void test_indirect(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    uint64_t m;
    uint8_t header[16] = { VD_IN }, data[300 * 512], expected[300 * 512];
    VdBuffer buffers[302];

    vd_start(d, VD_F_PLAIN | VD_F_INDIRECT, 1, 8);
    m = vd_alloc(d, 302 * 4096);
    qtest_memwrite(d->qts, m, header, 16);
    buffers[0] = (VdBuffer){ m, 16, false };
    for (unsigned i = 0; i < 300; i++) {
        buffers[1 + i] = (VdBuffer){ m + 4096 + i * 4096, 512, true };
    }
    buffers[301] = (VdBuffer){ m + 301 * 4096, 1, true };
    /* Longer than the queue. */
    vd_offer(d, disk->q, vd_chain_indirect(d, disk->q, buffers, 302));
    vd_kick(d, disk->q);
    vd_wait_used(d, disk->q, NULL);
    g_assert_cmpuint(qtest_readb(d->qts, m + 301 * 4096), ==, VD_OK);
    for (unsigned i = 0; i < 300; i++) {
        qtest_memread(d->qts, m + 4096 + i * 4096, data + i * 512, 512);
    }
    fill(expected, 0, sizeof(expected), 1);
    g_assert_cmpmem(data, sizeof(data), expected, sizeof(expected));
    close_disk(disk);
}

static void test_interrupts(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;

    vd_start(d, VD_F_PLAIN, 1, 0);
    g_assert_false(qtest_get_irq(d->qts, d->gsi));
    check_works(disk);
    g_assert_cmpuint(vd_wait_irq(d), ==, 1);
    g_assert_false(qtest_get_irq(d->qts, d->gsi));
    g_assert_cmpuint(vd_read(d, VD_ISR), ==, 0);
    /* Not wanted: none. */
    qtest_writew(d->qts, disk->q->avail, 1);
    check_works(disk);
    qtest_writew(d->qts, disk->q->avail, 0);
    g_assert_cmpuint(vd_request(d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    g_assert_cmpuint(vd_wait_irq(d), ==, 1);
    /* A reset takes the line back. */
    check_works(disk);
    vd_wait_register(d, VD_ISR, 1);
    vd_write(d, VD_STATUS, 0);
    g_assert_cmpuint(vd_read(d, VD_ISR), ==, 0);
    g_assert_false(qtest_get_irq(d->qts, d->gsi));
    close_disk(disk);
}

static void test_event_idx(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    uint64_t used_event, avail_event;

    vd_start(d, VD_F_PLAIN | VD_F_EVENT_IDX, 1, 16);
    used_event = disk->q->avail + 4 + 16 * 2;
    avail_event = disk->q->used + 4 + 16 * 8;
    g_assert_cmpuint(vd_request(d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    g_assert_cmpuint(vd_wait_irq(d), ==, 1);
    /* Only the third from here is of interest. */
    qtest_writew(d->qts, used_event, 3);
    for (unsigned i = 1; i < 4; i++) {
        g_assert_cmpuint(vd_request(d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
        if (i < 3) {
            g_assert_cmpuint(vd_read(d, VD_ISR), ==, 0);
        }
    }
    g_assert_cmpuint(vd_wait_irq(d), ==, 1);
    /* The device says from where on it wants to be told: after all that it has taken. */
    {
        gint64 deadline = qtest_deadline();

        while (qtest_readw(d->qts, avail_event) != disk->q->avail_idx) {
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        }
    }
    close_disk(disk);
}

/* Many at once, neighbours among them, in several queues, all told of by one notification each. */
static void test_many(void)
{
    Disk *disk = open_disk(",num-queues=4,queue-size=128");
    VirtioDriver *d = &disk->d;
    VdRequest r[4][40];
    uint8_t *data = g_malloc(DISK_BYTES), *expected = g_malloc(DISK_BYTES);

    fill(expected, 0, DISK_BYTES, 1);
    vd_start(d, VD_F_PLAIN, 4, 0);
    for (unsigned q = 0; q < 4; q++) {
        for (unsigned i = 0; i < 40; i++) {
            /* Queue 0 and 2 write in ascending order, 1 and 3 in descending. */
            uint64_t sector = q * 1024 + (q & 1 ? 40 - i : i) * 8;
            bool is_write = i % 10 != 9;

            fill(data, sector * 512, 4096, 10 + q);
            r[q][i] = vd_prepare(d, &d->queues[q], is_write ? VD_OUT : VD_IN, sector,
                                 is_write ? data : NULL, 4096);
            if (is_write) {
                memcpy(expected + sector * 512, data, 4096);
            }
        }
    }
    for (unsigned q = 0; q < 4; q++) {
        vd_kick(d, &d->queues[q]);
    }
    for (unsigned q = 0; q < 4; q++) {
        for (unsigned i = 0; i < 40; i++) {
            vd_wait_used(d, &d->queues[q], NULL);
        }
        for (unsigned i = 0; i < 40; i++) {
            g_assert_cmpuint(vd_status(d, &r[q][i]), ==, VD_OK);
        }
        qtest_bufread(d->qts, r[q][9].data, data, 4096);
        g_assert_cmpmem(data, 4096, expected + (q * 1024 + (q & 1 ? 31 : 9) * 8) * 512, 4096);
    }
    read_image(disk, 0, data, DISK_BYTES);
    g_assert_cmpmem(data, DISK_BYTES, expected, DISK_BYTES);
    g_free(data);
    g_free(expected);
    close_disk(disk);
}

/* Over and over: indices and rings wrap. */
static void test_wrap(void)
{
    Disk *disk = open_disk("");

    vd_start(&disk->d, VD_F_PLAIN | VD_F_EVENT_IDX, 1, 4);
    for (unsigned i = 0; i < 300; i++) {
        g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    }
    check_works(disk);
    close_disk(disk);
}

/* ---- drivers that break the rules ---- */

static void expect_broken(Disk *disk)
{
    VirtioDriver *d = &disk->d;

    vd_wait_register(d, VD_STATUS, VD_S_NEEDS_RESET);
    vd_wait_register(d, VD_ISR, 2);
    g_assert_cmpuint(vd_wait_irq(d) & 2, ==, 2);
    /* Nothing works any more, and nothing was given back... */
    g_assert_false(vd_has_used(d, disk->q));
    vd_prepare(d, disk->q, VD_FLUSH, 0, NULL, 0);
    vd_kick(d, disk->q);
    vd_read(d, VD_STATUS);
    g_assert_false(vd_has_used(d, disk->q));
    /* ... until a reset. */
    vd_start(d, VD_F_PLAIN | VD_F_INDIRECT, 1, 16);
    check_works(disk);
    if (qtest_get_irq(d->qts, d->gsi)) {
        vd_wait_irq(d);
    }
    vd_start(d, VD_F_PLAIN | VD_F_INDIRECT, 1, 16);
}

static void offer_and_kick(Disk *disk, uint16_t head)
{
    vd_offer(&disk->d, disk->q, head);
    vd_kick(&disk->d, disk->q);
}

static void test_hostile(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    VdQueue *q = disk->q;
    uint64_t m;

    vd_start(d, VD_F_PLAIN | VD_F_INDIRECT, 1, 16);
    m = vd_alloc(d, 4096);

    vd_write_desc(d, q->desc, 0, m, 16, VD_NEXT, 0);    /* a loop */
    offer_and_kick(disk, 0);
    expect_broken(disk);
    offer_and_kick(disk, 16);                           /* a head outside */
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 16, VD_NEXT, 16);   /* a next outside */
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, 0x80000000, 16, 0, 0); /* no RAM */
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, UINT64_MAX - 4, 16, 0, 0);
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, d->base, 16, 0, 0);    /* itself */
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 16, VD_NEXT, 1);    /* more than there is */
    vd_write_desc(d, q->desc, 1, m, UINT32_MAX, VD_WRITE, 0);
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 15, VD_NEXT, 1);    /* no whole header */
    vd_write_desc(d, q->desc, 1, m, 16, VD_WRITE, 0);
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 16, 0, 0);          /* no status */
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 16, VD_NEXT | VD_WRITE, 1); /* written before read */
    vd_write_desc(d, q->desc, 1, m, 16, 0, 0);
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 8, VD_INDIRECT, 0); /* half a descriptor */
    offer_and_kick(disk, 0);
    expect_broken(disk);
    vd_write_desc(d, q->desc, 0, m, 16, VD_INDIRECT, 0);        /* nested */
    vd_write_desc(d, m, 0, m, 16, VD_INDIRECT, 0);
    offer_and_kick(disk, 0);
    expect_broken(disk);
    qtest_writew(d->qts, q->avail + 2, 1000);           /* more than the queue holds */
    vd_kick(d, q);
    expect_broken(disk);
    close_disk(disk);
}

/*
 * Queues that cannot be are found when the driver says that it is ready, or when it makes them
 * ready.
 */
static void test_hostile_queues(void)
{
    Disk *disk = open_disk(",queue-size=256");
    VirtioDriver *d = &disk->d;
    static const struct {
        uint32_t num;
        uint64_t desc;
    } cases[] = {
        { 0, VD_MEMORY }, { 3, VD_MEMORY }, { 512, VD_MEMORY }, { 16, VD_MEMORY + 8 },
        { 16, 0x80000000 }, { 16, UINT64_MAX & ~15ull }, { 16, 64 * MIB - 16 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        vd_start(d, VD_F_PLAIN, 1, 16);
        vd_write(d, VD_QUEUE_SEL, 0);
        vd_write(d, VD_QUEUE_READY, 0);
        vd_write(d, VD_QUEUE_NUM, cases[i].num);
        vd_write(d, VD_QUEUE_DESC, cases[i].desc);
        vd_write(d, VD_QUEUE_DESC + 4, cases[i].desc >> 32);
        vd_write(d, VD_QUEUE_READY, 1);
        g_assert_cmphex(vd_read(d, VD_STATUS), ==, VD_S_ALL | VD_S_NEEDS_RESET);
        vd_kick(d, disk->q);
    }
    vd_start(d, VD_F_PLAIN, 1, 16);
    check_works(disk);
    /* Notifications of what there is not. */
    vd_write(d, VD_QUEUE_NOTIFY, 1);
    vd_write(d, VD_QUEUE_NOTIFY, 0xffffffff);
    vd_write(d, VD_QUEUE_SEL, 0xffffffff);
    vd_write(d, VD_QUEUE_READY, 1);
    vd_write(d, VD_QUEUE_NUM, 4);
    check_works(disk);
    /* A queue that was taken away and given back begins anew. */
    vd_write(d, VD_QUEUE_SEL, 0);
    vd_write(d, VD_QUEUE_READY, 0);
    vd_kick(d, disk->q);
    qtest_memset(d->qts, disk->q->avail, 0, 36);
    qtest_memset(d->qts, disk->q->used, 0, 134);
    disk->q->avail_idx = disk->q->used_seen = 0;
    vd_write(d, VD_QUEUE_READY, 1);
    check_works(disk);
    close_disk(disk);
}

/* Only so much is said of a driver that keeps breaking them. */
static void test_hostile_log(void)
{
    Disk *disk = open_disk("");
    g_autofree char *text = NULL;
    unsigned lines = 0;

    for (unsigned i = 0; i < 20; i++) {
        vd_start(&disk->d, VD_F_PLAIN, 1, 16);
        offer_and_kick(disk, 77);
        vd_wait_register(&disk->d, VD_STATUS, VD_S_NEEDS_RESET);
    }
    text = qtest_stderr(disk->qts);
    for (const char *p = text; (p = strstr(p, "vd: the guest's driver broke the rules: queue 0: "
                                           "descriptor 77 is outside of a table of 16")); p++) {
        lines++;
    }
    g_assert_cmpuint(lines, ==, 10);
    close_disk(disk);
}

/* ---- requests that fail ---- */

#define BLKDEBUG_NODE                                                                            \
    "{\"driver\": \"blkdebug\", \"node-name\": \"n0\", \"image\": {\"driver\": \"file\", "       \
    "\"filename\": \"%%s\", \"discard\": \"unmap\"}, \"discard\": \"unmap\", \"inject-error\": " \
    "[%s]}"

/* A disk whose requests fail as @errors, JSON objects, say. */
static Disk *open_failing(const char *errors, const char *device_args)
{
    g_autofree char *node = g_strdup_printf(BLKDEBUG_NODE, errors);

    return open_disk_on(node, device_args);
}

static void expect_io_error(Disk *disk, const char *operation, const char *action,
                            const char *reason)
{
    struct json_object *event = qtest_qmp_eventwait_ref(disk->qts, "BLOCK_IO_ERROR");
    bool is_stop = !strcmp(action, "stop");

    g_assert_cmpstr(qtest_get_str(event, "data.qom-path"), ==, "/machine/peripheral/vd");
    g_assert_cmpstr(qtest_get_str(event, "data.device"), ==, "");
    g_assert_cmpstr(qtest_get_str(event, "data.node-name"), ==, "n0");
    g_assert_cmpstr(qtest_get_str(event, "data.operation"), ==, operation);
    g_assert_cmpstr(qtest_get_str(event, "data.action"), ==, action);
    g_assert_cmpstr(qtest_get_str(event, "data.reason"), ==, reason);
    g_assert_cmpint(qtest_has(event, "data.nospace"), ==, is_stop);
    if (is_stop) {
        g_assert_cmpint(qtest_get_bool(event, "data.nospace"), ==, strstr(reason, "space") != NULL);
    }
    json_object_put(event);
}

static void expect_run_state(Disk *disk, const char *state)
{
    struct json_object *status =
        qtest_qmp_assert_success_ref(disk->qts, "{'execute': 'query-status'}");

    g_assert_cmpstr(qtest_get_str(status, "status"), ==, state);
    json_object_put(status);
}

static void go_on(Disk *disk)
{
    qtest_qmp_assert_success(disk->qts, "{'execute': 'cont'}");
    qtest_qmp_eventwait(disk->qts, "RESUME");
    expect_run_state(disk, "running");
}

typedef struct ErrorCase {
    const char *args;
    const char *iotype;
    int error;
    uint32_t type;
    const char *action;
} ErrorCase;

static void one_error(const ErrorCase *c)
{
    g_autofree char *rule = g_strdup_printf("{\"iotype\": \"%s\", \"errno\": %d, \"once\": true}",
                                            c->iotype, c->error);
    Disk *disk = open_failing(rule, c->args);
    VirtioDriver *d = &disk->d;
    uint8_t data[4096] = { 0 };
    bool has_range = c->type == VD_DISCARD || c->type == VD_WRITE_ZEROES,
         is_read = c->type == VD_IN;
    uint32_t bytes = c->type == VD_FLUSH ? 0 : has_range ? 16 : sizeof(data);
    VdRequest r;

    put_range(data, 64, 8, 0);
    vd_start(d, VD_F_PLAIN, 1, 16);
    if (c->type == VD_FLUSH) {
        /* Something to flush. */
        g_assert_cmpuint(vd_request(d, disk->q, VD_OUT, 0, data, NULL, sizeof(data)), ==, VD_OK);
    }
    r = vd_prepare(d, disk->q, c->type, 64, is_read ? NULL : data, bytes);
    vd_kick(d, disk->q);
    expect_io_error(disk, is_read ? "read" : "write", c->action, g_strerror(c->error));
    if (!strcmp(c->action, "stop")) {
        qtest_qmp_eventwait(disk->qts, "STOP");
        expect_run_state(disk, "io-error");
        g_assert_false(vd_has_used(d, disk->q));
        g_assert_cmpuint(vd_status(d, &r), ==, VD_NOTHING);
        go_on(disk);
    }
    g_assert_cmpuint(vd_wait_used(d, disk->q, NULL), ==, r.head);
    g_assert_cmpuint(vd_status(d, &r), ==, !strcmp(c->action, "report") ? VD_IOERR : VD_OK);
    expect_run_state(disk, "running");
    g_assert_null(qtest_qmp_event_ref(disk->qts, "BLOCK_IO_ERROR"));
    check_works(disk);
    close_disk(disk);
}

static void test_errors(void)
{
    static const ErrorCase cases[] = {
        { "", "read", 5, VD_IN, "report" },
        { "", "write", 5, VD_OUT, "report" },
        { "", "write", 28, VD_OUT, "stop" },
        { ",rerror=stop", "read", 5, VD_IN, "stop" },
        { ",rerror=ignore", "read", 5, VD_IN, "ignore" },
        { ",werror=stop", "write", 5, VD_OUT, "stop" },
        { ",werror=report", "write", 28, VD_OUT, "report" },
        { ",werror=ignore", "write", 5, VD_OUT, "ignore" },
        { ",werror=enospc", "write", 5, VD_OUT, "report" },
        { ",werror=stop", "flush", 5, VD_FLUSH, "stop" },
        { ",werror=report", "flush", 5, VD_FLUSH, "report" },
        { ",werror=stop", "discard", 5, VD_DISCARD, "stop" },
        { ",werror=stop", "write-zeroes", 28, VD_WRITE_ZEROES, "stop" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        one_error(&cases[i]);
    }
}

/* Again and again: the request is held each time, and in the end it is done. */
static void test_error_again(void)
{
    Disk *disk = open_failing("{\"iotype\": \"write\", \"errno\": 28, \"nth\": 1}, "
                              "{\"iotype\": \"write\", \"errno\": 28, \"nth\": 2}, "
                              "{\"iotype\": \"write\", \"errno\": 28, \"nth\": 3}", "");
    VirtioDriver *d = &disk->d;
    uint8_t data[4096], found[4096];
    VdRequest r;

    fill(data, 0, sizeof(data), 55);
    vd_start(d, VD_F_PLAIN, 1, 16);
    r = vd_prepare(d, disk->q, VD_OUT, 64, data, sizeof(data));
    vd_kick(d, disk->q);
    for (unsigned i = 0; i < 3; i++) {
        expect_io_error(disk, "write", "stop", g_strerror(28));
        qtest_qmp_eventwait(disk->qts, "STOP");
        g_assert_false(vd_has_used(d, disk->q));
        qtest_qmp_assert_success(disk->qts, "{'execute': 'cont'}");
    }
    vd_wait_used(d, disk->q, NULL);
    g_assert_cmpuint(vd_status(d, &r), ==, VD_OK);
    read_image(disk, 64 * 512, found, sizeof(found));
    g_assert_cmpmem(found, sizeof(found), data, sizeof(data));
    close_disk(disk);
}

/* A reset of the machine or of the device forgets what was held. */
static void test_error_reset(void)
{
    Disk *disk = open_failing("{\"iotype\": \"write\", \"errno\": 28, \"once\": true}", "");
    VirtioDriver *d = &disk->d;
    uint8_t data[4096] = { 1 }, before[4096], after[4096];

    read_image(disk, 64 * 512, before, sizeof(before));
    vd_start(d, VD_F_PLAIN, 1, 16);
    vd_prepare(d, disk->q, VD_OUT, 64, data, sizeof(data));
    vd_kick(d, disk->q);
    qtest_qmp_eventwait(disk->qts, "STOP");
    qtest_qmp_assert_success(disk->qts, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(disk->qts, "RESET");
    g_assert_cmphex(vd_read(d, VD_STATUS), ==, 0);
    go_on(disk);
    vd_start(d, VD_F_PLAIN, 1, 16);
    g_assert_cmpuint(vd_request(d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    read_image(disk, 64 * 512, after, sizeof(after));
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
    check_works(disk);
    close_disk(disk);
}

/* Neighbours that were one request: only the one that is bad fails. */
static void test_error_merged(void)
{
    Disk *disk =
        open_failing("{\"iotype\": \"write\", \"errno\": 5, \"sector\": 24}", ",werror=report");
    VirtioDriver *d = &disk->d;
    VdRequest r[6];
    uint8_t data[4096], found[4096];

    fill(data, 0, sizeof(data), 21);
    vd_start(d, VD_F_PLAIN, 1, 64);
    for (unsigned i = 0; i < 6; i++) {
        r[i] = vd_prepare(d, disk->q, VD_OUT, i * 8, data, sizeof(data));
    }
    vd_kick(d, disk->q);
    for (unsigned i = 0; i < 6; i++) {
        vd_wait_used(d, disk->q, NULL);
    }
    for (unsigned i = 0; i < 6; i++) {
        g_assert_cmpuint(vd_status(d, &r[i]), ==, i == 3 ? VD_IOERR : VD_OK);
        read_image(disk, i * 4096, found, 4096);
        g_assert_cmpint(!memcmp(found, data, 4096), ==, i != 3);
    }
    close_disk(disk);
}

/* ---- requests under way ---- */

/* Two requests a second. */
#define SLOW_NODE                                                                              \
    "{\"driver\": \"throttle\", \"node-name\": \"n0\", \"throttle-group\": \"tg\", \"file\": " \
    "{\"driver\": \"file\", \"filename\": \"%s\"}}' -object 'throttle-group,id=tg,x-iops-total=2"

static void put_under_way(Disk *disk, VdRequest *r, unsigned n)
{
    uint8_t data[4096];

    vd_start(&disk->d, VD_F_PLAIN, 1, 64);
    for (unsigned i = 0; i < n; i++) {
        fill(data, i * 100 * 512, sizeof(data), 40);
        r[i] = vd_prepare(&disk->d, disk->q, VD_OUT, i * 100, data, sizeof(data));
    }
    vd_kick(&disk->d, disk->q);
}

/* After a reset nothing writes into memory that was the driver's. */
static void test_reset_under_way(void)
{
    Disk *disk = open_disk_on(SLOW_NODE, "");
    VirtioDriver *d = &disk->d;
    VdRequest r[10];

    put_under_way(disk, r, G_N_ELEMENTS(r));
    vd_write(d, VD_STATUS, 0);
    g_assert_cmphex(vd_read(d, VD_STATUS), ==, 0);
    g_assert_cmpuint(vd_read(d, VD_ISR), ==, 0);
    g_assert_false(qtest_get_irq(d->qts, d->gsi));
    qtest_memset(d->qts, r[0].header, 0x5a, 4096);
    vd_start(d, VD_F_PLAIN, 1, 64);
    /* The new rings are where the old ones were, everything else is elsewhere. */
    vd_alloc(d, MIB);
    g_assert_cmpuint(vd_request(d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    g_assert_false(vd_has_used(d, disk->q));
    for (unsigned i = 0; i < 4096; i++) {
        g_assert_cmphex(qtest_readb(d->qts, r[0].header + i), ==, 0x5a);
    }
    close_disk(disk);
}

static void test_machine_reset_under_way(void)
{
    Disk *disk = open_disk_on(SLOW_NODE, "");
    VdRequest r[10];

    put_under_way(disk, r, G_N_ELEMENTS(r));
    qtest_qmp_assert_success(disk->qts, "{'execute': 'system_reset'}");
    qtest_qmp_eventwait(disk->qts, "RESET");
    g_assert_cmphex(vd_read(&disk->d, VD_STATUS), ==, 0);
    vd_start(&disk->d, VD_F_PLAIN, 1, 16);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_FLUSH, 0, NULL, NULL, 0), ==, VD_OK);
    close_disk(disk);
}

/* When a machine has stopped everything is done; while it stands nothing is begun. */
static void test_stop_under_way(void)
{
    Disk *disk = open_disk_on(SLOW_NODE, "");
    VirtioDriver *d = &disk->d;
    VdRequest r[10], later;
    uint8_t data[4096], expected[4096];

    put_under_way(disk, r, G_N_ELEMENTS(r));
    qtest_qmp_assert_success(disk->qts, "{'execute': 'stop'}");
    for (unsigned i = 0; i < G_N_ELEMENTS(r); i++) {
        fill(expected, i * 100 * 512, sizeof(expected), 40);
        read_image(disk, i * 100 * 512, data, sizeof(data));
        if (vd_status(d, &r[i]) != VD_NOTHING) {
            g_assert_cmpmem(data, sizeof(data), expected, sizeof(expected));
        }
    }
    later = vd_prepare(d, disk->q, VD_FLUSH, 0, NULL, 0);
    vd_kick(d, disk->q);
    for (unsigned i = 0; i < 20; i++) {
        g_assert_cmpuint(vd_status(d, &later), ==, VD_NOTHING);
    }
    go_on(disk);
    for (unsigned i = 0; i < G_N_ELEMENTS(r) + 1; i++) {
        vd_wait_used(d, disk->q, NULL);
    }
    g_assert_cmpuint(vd_status(d, &later), ==, VD_OK);
    close_disk(disk);
}

/* The end of the process with requests under way. */
static void test_quit_under_way(void)
{
    Disk *disk = open_disk_on(SLOW_NODE, "");
    VdRequest r[10];

    put_under_way(disk, r, G_N_ELEMENTS(r));
    close_disk(disk);
}

/* ---- the disk changes ---- */

static void resize(Disk *disk, uint64_t bytes)
{
    qtest_qmp_assert_success(disk->qts,
                             "{'execute': 'block_resize', 'arguments': {'node-name': 'n0', "
                             "'size': %" PRIu64 "}}",
                             bytes);
}

/* The guest is told of a new length, and can use it. */
static void test_resize(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    uint8_t data[512], in[512];
    uint32_t generation;

    vd_start(d, VD_F_PLAIN, 1, 16);
    generation = vd_read(d, VD_GENERATION);
    fill(data, 0, sizeof(data), 9);
    g_assert_cmpuint(vd_request(d, disk->q, VD_OUT, SECTORS + 5, data, NULL, 512), ==, VD_IOERR);
    g_assert_cmpuint(vd_wait_irq(d), ==, 1);
    resize(disk, 2 * DISK_BYTES);
    g_assert_cmpuint(vd_wait_irq(d), ==, 2);
    g_assert_cmpuint(vd_capacity(d), ==, 2 * SECTORS);
    g_assert_cmpuint(vd_read(d, VD_GENERATION), !=, generation);
    g_assert_cmpuint(vd_request(d, disk->q, VD_OUT, SECTORS + 5, data, NULL, 512), ==, VD_OK);
    g_assert_cmpuint(vd_request(d, disk->q, VD_IN, SECTORS + 5, NULL, in, 512), ==, VD_OK);
    g_assert_cmpmem(in, 512, data, 512);
    vd_wait_irq(d);
    resize(disk, DISK_BYTES / 2);
    g_assert_cmpuint(vd_wait_irq(d) & 2, ==, 2);
    g_assert_cmpuint(vd_capacity(d), ==, SECTORS / 2);
    g_assert_cmpuint(vd_request(d, disk->q, VD_IN, SECTORS / 2, NULL, in, 512), ==, VD_IOERR);
    close_disk(disk);
}

/* Neighbours are one request below. */
static void test_merging(void)
{
    Disk *disk = open_disk("");
    VirtioDriver *d = &disk->d;
    uint8_t data[4096] = { 0 };
    struct json_object *stats;

    vd_start(d, VD_F_PLAIN, 1, 64);
    for (unsigned i = 0; i < 10; i++) {
        /* From the last to the first, and one that does not belong to them. */
        vd_prepare(d, disk->q, VD_OUT, i == 5 ? 1000 : 800 - i * 8, data, sizeof(data));
    }
    vd_kick(d, disk->q);
    for (unsigned i = 0; i < 10; i++) {
        vd_wait_used(d, disk->q, NULL);
    }
    stats = qtest_qmp_assert_success_ref(disk->qts, "{'execute': 'query-blockstats'}");
    g_assert_cmpint(qtest_get_int(stats, "0.stats.wr_operations"), ==, 10);
    /* 800 to 768, and 752 to 728. */
    g_assert_cmpint(qtest_get_int(stats, "0.stats.wr_merged"), ==, 7);
    g_assert_cmpint(qtest_get_int(stats, "0.stats.wr_bytes"), ==, 10 * 4096);
    json_object_put(stats);
    close_disk(disk);
}

/* A -drive has its own policy and name; if=virtio needs no -device. */
static void test_drive(void)
{
    Disk disk = { .path = make_image() };
    uint8_t data[512] = { 0 };

    disk.qts =
        qtest_initf("-m 64 -drive if=virtio,id=d0,file=%s,format=raw,werror=ignore", disk.path);
    vd_init(&disk.d, disk.qts, 0);
    disk.q = &disk.d.queues[0];
    vd_start(&disk.d, VD_F_PLAIN, 1, 0);
    check_works(&disk);
    qtest_quit(disk.qts);

    disk.qts = qtest_initf(
        "-m 64 -drive if=none,id=d0,driver=raw,file.driver=blkdebug,file.image.driver=file,"
        "file.image.filename=%s,file.inject-error.0.iotype=write,werror=ignore "
        "-device virtio-blk-device,id=vd,drive=d0",
        disk.path);
    vd_init(&disk.d, disk.qts, 0);
    vd_start(&disk.d, VD_F_PLAIN, 1, 0);
    g_assert_cmpuint(vd_request(&disk.d, disk.q, VD_OUT, 0, data, NULL, 512), ==, VD_OK);
    struct json_object *event = qtest_qmp_eventwait_ref(disk.qts, "BLOCK_IO_ERROR");
    g_assert_cmpstr(qtest_get_str(event, "data.device"), ==, "d0");
    g_assert_cmpstr(qtest_get_str(event, "data.action"), ==, "ignore");
    json_object_put(event);
    qtest_quit(disk.qts);
    g_free(disk.path);
}

/* ---- properties ---- */

static void refuse(const char *device_args, const char *message)
{
    g_autofree char *path = make_image(), *args = NULL, *err = NULL;

    args = g_strdup_printf(
        "-display none -S -accel qtest -object iothread,id=io0 -blockdev '{\"driver\": "
        "\"file\", \"node-name\": \"n0\", \"filename\": \"%s\"}' %s",
        path, device_args);
    g_assert_cmpint(qtest_run(args, NULL, &err), ==, 1);
    if (!strstr(err, message)) {
        g_test_message("%s: %s", device_args, err);
    }
    g_assert_nonnull(strstr(err, message));
}

static void test_refused(void)
{
    refuse("-device virtio-blk-device", "drive property not set");
    refuse("-device virtio-blk,drive=n1",
           "Property 'virtio-blk-device.drive' can't find value 'n1'");
    refuse("-device virtio-blk,drive=n0,iothread=io1",
           "Property 'virtio-blk-device.iothread' can't find value 'io1'");
    refuse("-device virtio-blk,drive=n0,num-queues=0", "num-queues must be 1 to 64, not 0");
    refuse("-device virtio-blk,drive=n0,num-queues=65", "num-queues must be 1 to 64, not 65");
    refuse("-device virtio-blk,drive=n0,queue-size=3",
           "queue-size must be a power of two from 4 to 1024, not 3");
    refuse("-device virtio-blk,drive=n0,queue-size=2048",
           "queue-size must be a power of two from 4 to 1024, not 2048");
    refuse("-device virtio-blk,drive=n0,logical_block_size=513", "must be powers of two from 512");
    refuse("-device virtio-blk,drive=n0,logical_block_size=4096",
           "logical_block_size must not be larger than physical_block_size");
    refuse("-device virtio-blk,drive=n0,opt_io_size=100",
           "must be multiples of logical_block_size");
    refuse("-device virtio-blk,drive=n0,serial=123456789012345678901",
           "serial is longer than 20 characters");
    refuse("-device virtio-blk,drive=n0,werror=never", "werror cannot be 'never'");
    refuse("-device virtio-blk,drive=n0,rerror=enospc", "rerror cannot be 'enospc'");
    refuse("-device virtio-blk,drive=n0,write-cache=maybe",
           "write-cache must be 'on', 'off' or 'auto'");
    refuse("-device virtio-blk,drive=n0,bus=virtio-mmio-bus.24",
           "Bus 'virtio-mmio-bus.24' not found");
    refuse("-device virtio-blk,drive=n0,bus=virtio-mmio-bus.1 "
           "-blockdev '{\"driver\": \"null-co\", \"node-name\": \"n2\"}' "
           "-device virtio-blk,drive=n2,bus=virtio-mmio-bus.1", "Bus 'virtio-mmio-bus.1' is full");
    refuse("-global virtio-mmio.force-legacy=on", "virtio-mmio: force-legacy=on is not supported");
    refuse("-device virtio-blk,id=a,drive=n0 -device virtio-blk,drive=n0", "'a'");
}

/* Two devices may share a node when both say so. */
static void test_share_rw(void)
{
    Disk *disk =
        open_disk(",share-rw=on -device virtio-blk,drive=n0,share-rw=on,bus=virtio-mmio-bus.8");
    VirtioDriver second;
    uint8_t data[512], in[512];

    vd_init(&second, disk->qts, 8);
    vd_start(&disk->d, VD_F_PLAIN, 1, 16);
    fill(data, 0, 512, 77);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_OUT, 0, data, NULL, 512), ==, VD_OK);
    g_assert_cmpuint(vd_wait_irq(&disk->d), ==, 1);
    vd_start(&second, VD_F_PLAIN, 1, 16);
    g_assert_cmpuint(vd_request(&second, &second.queues[0], VD_IN, 0, NULL, in, 512), ==, VD_OK);
    g_assert_cmpmem(in, 512, data, 512);
    /* Slots 0 and 8 share a line: it stays up while either wants it. */
    g_assert_cmpint(second.gsi, ==, disk->d.gsi);
    g_assert_cmpuint(vd_request(&disk->d, disk->q, VD_IN, 0, NULL, NULL, 512), ==, VD_OK);
    vd_wait_register(&second, VD_ISR, 1);
    close_disk(disk);
}

/* The kernel's command line and the ACPI tables tell of the disk. */
static void test_found(void)
{
    g_autofree char *args = g_strdup_printf(" -global virtio-mmio.force-legacy=off "
                                            "-machine microvm,acpi=off -kernel %s -append 'a=b'",
                                            qtest_guest("disker"));
    Disk *disk = open_disk(args);
    g_autofree char *firmware = g_malloc(0x20000);

    qtest_memread(disk->qts, 0x20000, firmware, 64);
    g_assert_cmpstr(firmware, ==, "a=b virtio_mmio.device=512@0xfeb00000:5");
    qtest_memread(disk->qts, 0xe0000, firmware, 0x20000);
    g_assert_null(memmem(firmware, 0x20000, "LNRO0005", 8));
    close_disk(disk);
    disk = open_disk("");
    qtest_memread(disk->qts, 0xe0000, firmware, 0x20000);
    g_assert_nonnull(memmem(firmware, 0x20000, "LNRO0005", 8));
    close_disk(disk);
}

static void add(const char *name, void (*fn)(void))
{
    g_autofree char *path = g_strdup_printf("virtio-blk/%s", name);

    qtest_add_func(path, fn);
}

static void run_in_iothread(const void *fn)
{
    context = ",iothread=io0";
    ((void (*)(void))(uintptr_t)fn)();
    context = "";
}

/* Once in each kind of context. */
static void add_both(const char *name, void (*fn)(void))
{
    g_autofree char *path = g_strdup_printf("virtio-blk/iothread/%s", name);

    add(name, fn);
    qtest_add_data_func(path, (const void *)(uintptr_t)fn, run_in_iothread);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("identity", test_identity);
    add("empty-slots", test_empty_slots);
    add("negotiation", test_negotiation);
    add_both("read-write", test_read_write);
    add_both("layout", test_layout);
    add_both("others", test_others);
    add_both("bad-ranges", test_bad_ranges);
    add_both("discard", test_discard);
    add_both("write-zeroes", test_write_zeroes);
    add("read-only", test_read_only);
    add("write-cache", test_write_cache);
    add_both("indirect", test_indirect);
    add_both("interrupts", test_interrupts);
    add_both("event-idx", test_event_idx);
    add_both("many", test_many);
    add_both("wrap", test_wrap);
    add_both("hostile", test_hostile);
    add_both("hostile-queues", test_hostile_queues);
    add_both("hostile-log", test_hostile_log);
    add_both("errors", test_errors);
    add_both("error-again", test_error_again);
    add_both("error-reset", test_error_reset);
    add_both("error-merged", test_error_merged);
    add_both("reset-under-way", test_reset_under_way);
    add_both("machine-reset-under-way", test_machine_reset_under_way);
    add_both("stop-under-way", test_stop_under_way);
    add_both("quit-under-way", test_quit_under_way);
    add_both("resize", test_resize);
    add_both("merging", test_merging);
    add("drive", test_drive);
    add("refused", test_refused);
    add_both("share-rw", test_share_rw);
    add("found", test_found);
    return g_test_run();
}
