/*
 * Fuzzing qcow2 images: the fuzzer's bytes are a file, which is opened, looked at from all sides,
 * read, and, when the first byte says so, written, repaired and resized.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/block-backend.h"
#include "block/driver.h"
#include "tests/fuzz/fuzz.h"

#define BUF_BYTES (256 * 1024)

static int image_fd;
static uint8_t *buf;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_process_init();
    aio_context_main();
    image_fd = memfd_create("image", 0);
    g_assert(image_fd >= 0);
    buf = g_malloc(BUF_BYTES);
    return 0;
}

static BlockBackend *open_image(bool writable)
{
    g_autoptr(BlockdevOptions) opts = g_new0(BlockdevOptions, 1);
    BlockdevRef *file = g_new0(BlockdevRef, 1);
    Error *err = NULL;
    BlockBackend *blk;

    file->type = QTYPE_QDICT;
    file->u.definition.driver = BLOCKDEV_DRIVER_FILE;
    file->u.definition.u.file.filename = g_strdup_printf("/proc/self/fd/%d", image_fd);
    file->u.definition.u.file.has_locking = true;
    file->u.definition.u.file.locking = ON_OFF_AUTO_OFF;
    file->u.definition.u.file.has_aio = true;
    file->u.definition.u.file.aio = BLOCKDEV_AIO_OPTIONS_THREADS;
    opts->driver = BLOCKDEV_DRIVER_QCOW2;
    opts->has_discard = true;
    opts->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    opts->has_read_only = true;
    opts->read_only = !writable;
    opts->u.qcow2.file = file;
    /* What the image names as its backing file is none of ours. */
    opts->u.qcow2.backing = g_new0(BlockdevRefOrNull, 1);
    opts->u.qcow2.backing->type = QTYPE_QNULL;
    blk = blk_new_open(opts, &err);
    error_free(err);
    return blk;
}

typedef struct Look {
    BlockBackend *blk;
    BdrvCheckMode fix;
} Look;

static void coroutine_fn look_entry(void *opaque)
{
    Look *look = opaque;
    BlockDriverState *bs = blk_bs(look->blk);
    BdrvCheckResult result = { 0 };
    BlockDriverInfo info = { 0 };
    SnapshotInfoList *snapshots = NULL;
    Error *err = NULL;

    bs->drv->co_get_info(bs, &info);
    bs->drv->co_check(bs, &result, look->fix);
    if (bs->drv->co_list_snapshots) {
        bs->drv->co_list_snapshots(bs, &snapshots, &err);
        qapi_free_SnapshotInfoList(snapshots);
        error_free(err);
    }
}

static void look(BlockBackend *blk, BdrvCheckMode fix)
{
    Look look = { .blk = blk, .fix = fix };
    ImageInfoSpecific *specific = blk_bs(blk)->drv->get_specific_info(blk_bs(blk), NULL);

    qapi_free_ImageInfoSpecific(specific);
    aio_co_run(blk_get_aio_context(blk), look_entry, &look);
}

static void read_here_and_there(BlockBackend *blk)
{
    int64_t length = blk_getlength(blk), pnum;

    for (int i = 0; i < 16 && length > 0; i++) {
        int64_t at = i == 15 ? MAX(length - 1000, 0) : i < 8 ? i * 65536 : length / 16 * i;
        int64_t n = MIN(length - at, i == 0 ? BUF_BYTES : 5000);

        if (n > 0) {
            blk_pread(blk, at, n, buf, 0);
            blk_block_status_above(blk, NULL, at, length - at, &pnum, NULL, NULL, NULL);
        }
    }
}

static void change(BlockBackend *blk)
{
    int64_t length = blk_getlength(blk);

    memset(buf, 0x5a, BUF_BYTES);
    if (length >= 200000) {
        blk_pwrite(blk, 1000, 3000, buf, 0);
        blk_pwrite(blk, 65536, 65536, buf, BDRV_REQ_FUA);
        blk_pwrite_zeroes(blk, 70000, 100000, BDRV_REQ_MAY_UNMAP);
        blk_pdiscard(blk, 0, 131072);
        blk_pwrite(blk, length - 1, 1, buf, 0);
    }
    blk_flush(blk);
    if (length <= 1 << 30) {
        Error *err = NULL;

        blk_truncate(blk, length + 100000, true, PREALLOC_MODE_OFF, 0, &err);
        error_free(err);
    }
    read_here_and_there(blk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    BlockBackend *blk;
    bool writable;

    if (size < 1) {
        return 0;
    }
    writable = data[0] & 1;
    g_assert(ftruncate(image_fd, 0) == 0);
    g_assert(pwrite(image_fd, data + 1, size - 1, 0) == (ssize_t)(size - 1));
    blk = open_image(writable);
    if (blk) {
        read_here_and_there(blk);
        look(blk, 0);
        if (writable) {
            change(blk);
            look(blk, data[0] & 2 ? BDRV_FIX_LEAKS | BDRV_FIX_ERRORS : 0);
        }
        blk_unref(blk);
    }
    return 0;
}
