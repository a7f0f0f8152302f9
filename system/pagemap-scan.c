/*
 * PAGEMAP_SCAN on /proc/self/pagemap, opened once and kept.
 *
 * The file stands for the address space of the process that opened it, so a descriptor that
 * crossed a fork() would describe the parent: it is opened close-on-exec and anew in a child.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/pagemap-scan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

static pthread_mutex_t pagemap_lock = PTHREAD_MUTEX_INITIALIZER;
static int pagemap_fd = -1;
static pid_t pagemap_pid;

static int pagemap_open(void)
{
    int fd;

    pthread_mutex_lock(&pagemap_lock);
    if (pagemap_fd >= 0 && pagemap_pid != getpid()) {
        close(pagemap_fd);
        pagemap_fd = -1;
    }
    if (pagemap_fd < 0) {
        pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        pagemap_pid = getpid();
    }
    fd = pagemap_fd >= 0 ? pagemap_fd : -errno;
    pthread_mutex_unlock(&pagemap_lock);
    return fd;
}

int pagemap_scan(const PagemapQuery *query, uint64_t *start, uint64_t end, PagemapRegion *regions,
                 unsigned n_regions)
{
    int fd = pagemap_open();
    PagemapScanArg arg = {
        .size = sizeof(arg),
        .flags = query->flags,
        .start = *start,
        .end = end,
        .vec = (uintptr_t)regions,
        .vec_len = n_regions,
        .category_inverted = query->none_of,
        .category_mask = query->all_of | query->none_of,
        .category_anyof_mask = query->any_of,
        .return_mask = query->return_mask,
    };
    int ret;

    if (fd < 0) {
        return fd;
    }
    do {
        ret = ioctl(fd, PAGEMAP_SCAN_REQUEST, &arg);
    } while (ret < 0 && errno == EINTR && arg.walk_end <= *start);
    if (ret < 0) {
        return -errno;
    }
    *start = arg.walk_end;
    return ret;
}
