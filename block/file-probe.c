/*
 * Alignment, length and limits of an open file.
 *
 * O_DIRECT has alignments that depend on the file system and the device below it. Newer kernels
 * tell them (statx, since 6.1); a device tells its logical sector. Otherwise they are tried out: a
 * read that is not aligned enough fails with EINVAL.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/file-probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SAFE_ALIGNMENT 4096
#define MAX_ALIGNMENT 65536

static bool is_alignment(uint64_t n)
{
    return n > 0 && n <= MAX_ALIGNMENT && (n & (n - 1)) == 0;
}

static bool ask_statx(int fd, FileAlignment *align)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && stx.stx_mask & STATX_DIOALIGN &&
        is_alignment(stx.stx_dio_offset_align) && is_alignment(stx.stx_dio_mem_align)) {
        align->request = stx.stx_dio_offset_align;
        align->memory = stx.stx_dio_mem_align;
        return true;
    }
#endif
    return false;
}

/*
 * Whether a read of @len bytes at 0 into @buf is aligned enough. Other errors say nothing against
 * it.
 */
static bool try_read(int fd, void *buf, size_t len)
{
    ssize_t ret;

    do {
        ret = pread(fd, buf, len, 0);
    } while (ret < 0 && errno == EINTR);
    return ret >= 0 || errno != EINVAL;
}

static void try_out(int fd, FileAlignment *align)
{
    char *buf;

    if (posix_memalign((void **)&buf, SAFE_ALIGNMENT, 2 * SAFE_ALIGNMENT) != 0) {
        return;
    }
    /*
     * Where a single byte can be read, reads prove nothing: the file is empty, or its length is
     * odd.
     */
    if (!try_read(fd, buf, 1)) {
        for (uint32_t n = 512; n <= SAFE_ALIGNMENT; n *= 2) {
            if (try_read(fd, buf, n)) {
                align->request = n;
                break;
            }
        }
        for (uint32_t n = 512; n <= SAFE_ALIGNMENT; n *= 2) {
            if (try_read(fd, buf + n, SAFE_ALIGNMENT)) {
                align->memory = n;
                break;
            }
        }
    }
    free(buf);
}

void file_probe_alignment(int fd, bool direct, bool device, FileAlignment *align)
{
    int sector;

    *align = (FileAlignment){ .request = 1, .memory = 1, .sector = 1 };
    if (device) {
        align->sector =
            ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0 && is_alignment(sector) ? sector : 512;
    }
    if (!direct) {
        return;
    }
    align->request = align->memory = SAFE_ALIGNMENT;
    if (!ask_statx(fd, align)) {
        try_out(fd, align);
    }
    if (align->request < align->sector) {
        align->request = align->sector;
    }
}

bool file_probe_in_memory(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

int64_t file_probe_length(int fd)
{
    struct stat st;
    uint64_t bytes;

    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISBLK(st.st_mode)) {
        return st.st_size;
    }
    if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
        return -errno;
    }
    return bytes > INT64_MAX ? -EFBIG : bytes;
}

uint64_t file_probe_extent_size_hint(int fd)
{
    struct fsxattr attr;

    if (ioctl(fd, FS_IOC_FSGETXATTR, &attr) < 0 || !(attr.fsx_xflags & FS_XFLAG_EXTSIZE)) {
        return 0;
    }
    return attr.fsx_extsize;
}
