/*
 * The memory behind a RAMBlock: private anonymous memory, a file, or a memfd.
 *
 * First address space is reserved without access, larger than needed, then the memory is mapped
 * into it at an aligned place; what remains behind it is a guard page, so that a device that runs
 * off the end of RAM stops there. Anonymous memory that is to be shared is a memfd, because then
 * the kernel can say which pages of it hold data (SEEK_DATA) whoever wrote them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/ram-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define HUGE_ALIGN_BYTES (UINT64_C(2) << 20)
#define PREALLOC_THREADS_MAX 16
#define PREALLOC_THREAD_BYTES (UINT64_C(64) << 20)  /* less is not worth a thread */

static size_t host_page_bytes(void)
{
    return sysconf(_SC_PAGESIZE);
}

static bool is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

static void close_fd(RAMBlock *block)
{
    if (block->fd >= 0) {
        close(block->fd);
        block->fd = -1;
    }
}

/* An unlinked file of the block's own in directory @dir. */
static int open_in_directory(RAMBlockFull *full, const char *dir, Error **errp)
{
    g_autofree char *name = g_strdelimit(g_strdup(full->block.idstr), "/", '_');
    g_autofree char *path = NULL;
    int fd;

    /* A file name has at most 255 bytes. */
    name[MIN(strlen(name), 200)] = '\0';
    path = g_strdup_printf("%s/ferry_mem.%s.XXXXXX", dir, name);
    fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        error_setg_errno(errp, errno, "Cannot create a file for RAM block '%s' in '%s'",
                         full->block.idstr, dir);
        return -1;
    }
    unlink(path);
    full->fd_private = true;
    return fd;
}

/* Sets *@created when the file was not there before. */
static int open_path(RAMBlockFull *full, const RAMBacking *backing, bool *created, Error **errp)
{
    struct stat st;
    int fd;

    *created = false;
    if (!stat(backing->path, &st) && S_ISDIR(st.st_mode)) {
        if (backing->readonly) {
            error_setg(errp, "Cannot open the directory '%s' read-only for RAM block '%s': a file "
                       "is needed", backing->path, full->block.idstr);
            return -1;
        }
        return open_in_directory(full, backing->path, errp);
    }
    if (backing->readonly) {
        fd = open(backing->path, O_RDONLY | O_CLOEXEC);
    } else {
        fd = open(backing->path, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT) {
            fd = open(backing->path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0644);
            *created = fd >= 0;
        }
    }
    if (fd < 0) {
        error_setg_errno(errp, errno, "Cannot open '%s' for RAM block '%s'", backing->path,
                         full->block.idstr);
    }
    return fd;
}

/* The file must be an ordinary one, with room for the block; an empty one is made as large. */
static bool check_file(RAMBlockFull *full, const RAMBacking *backing, Error **errp)
{
    RAMBlock *block = &full->block;
    struct stat st;
    struct statfs fs;
    uint64_t end;

    if (fstat(block->fd, &st) || fstatfs(block->fd, &fs)) {
        error_setg_errno(errp, errno, "Cannot look at '%s' for RAM block '%s'", backing->path,
                         block->idstr);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "'%s' cannot be behind RAM block '%s': it is not a regular file",
                   backing->path, block->idstr);
        return false;
    }
    if (fs.f_type == HUGETLBFS_MAGIC) {
        block->page_size = fs.f_bsize;
    }
    if (backing->offset % block->page_size) {
        error_setg(errp, "The offset %" PRIu64 " in '%s' for RAM block '%s' is not a multiple of "
                   "the page size %zu", backing->offset, backing->path, block->idstr,
                   block->page_size);
        return false;
    }
    if (__builtin_add_overflow(backing->offset, ROUND_UP_TO(block->used_length, block->page_size),
                               &end) || end > INT64_MAX) {
        error_setg(errp, "The offset %" PRIu64 " in '%s' for RAM block '%s' is too large",
                   backing->offset, backing->path, block->idstr);
        return false;
    }
    if (st.st_size > 0 && st.st_size < backing->offset + block->used_length) {
        error_setg(errp, "The file '%s' has %" PRIu64 " bytes, RAM block '%s' needs %" PRIu64
                   " from offset %" PRIu64, backing->path, (uint64_t)st.st_size, block->idstr,
                   block->used_length, backing->offset);
        return false;
    }
    if (st.st_size == 0 && (backing->readonly || ftruncate(block->fd, end))) {
        error_setg_errno(errp, backing->readonly ? ENODATA : errno,
                         "Cannot make '%s' large enough for RAM block '%s'", backing->path,
                         block->idstr);
        return false;
    }
    block->fd_offset = backing->offset;
    return true;
}

static bool open_file(RAMBlockFull *full, const RAMBacking *backing, bool *created, Error **errp)
{
    full->block.fd = open_path(full, backing, created, errp);
    if (full->block.fd < 0) {
        return false;
    }
    if (!check_file(full, backing, errp)) {
        close_fd(&full->block);
        if (*created) {
            unlink(backing->path);
        }
        return false;
    }
    return true;
}

static size_t default_hugetlb_bytes(void)
{
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL)) {
        return HUGE_ALIGN_BYTES;
    }
    line = strstr(text, "Hugepagesize:");
    return line ? g_ascii_strtoull(line + strlen("Hugepagesize:"), NULL, 10) * 1024
                : HUGE_ALIGN_BYTES;
}

static bool open_memfd(RAMBlockFull *full, const RAMBacking *backing, Error **errp)
{
    RAMBlock *block = &full->block;
    unsigned flags = MFD_CLOEXEC | (backing->seal ? MFD_ALLOW_SEALING : 0);
    g_autofree char *name = g_strndup(block->idstr, 200);

    if (backing->kind == RAM_BACKING_MEMFD && backing->hugetlb) {
        uint64_t huge = backing->hugetlbsize ?: default_hugetlb_bytes();

        if (!is_power_of_two(huge) || huge < host_page_bytes()) {
            error_setg(errp, "hugetlbsize %" PRIu64 " of RAM block '%s' is not a power of two "
                       "of at least a page", huge, block->idstr);
            return false;
        }
        flags |= MFD_HUGETLB | (__builtin_ctzll(huge) << MAP_HUGE_SHIFT);
        block->page_size = huge;
    }
    block->fd = memfd_create(name, flags);
    if (block->fd < 0) {
        error_setg_errno(errp, errno, "Cannot create a memfd%s for RAM block '%s'",
                         flags & MFD_HUGETLB ? " of huge pages" : "", block->idstr);
        return false;
    }
    if (ftruncate(block->fd, ROUND_UP_TO(block->used_length, block->page_size))) {
        error_setg_errno(errp, errno, "Cannot make the memfd of RAM block '%s' %" PRIu64 " bytes "
                         "large", block->idstr, block->used_length);
        close_fd(block);
        return false;
    }
    if (backing->seal && fcntl(block->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)) {
        error_setg_errno(errp, errno, "Cannot seal the memfd of RAM block '%s'", block->idstr);
        close_fd(block);
        return false;
    }
    full->fd_private = true;
    return true;
}

static bool check_align(RAMBlockFull *full, const RAMBacking *backing, uint64_t *align,
                        Error **errp)
{
    uint64_t wanted = backing->align;

    *align = full->block.page_size;
    if (full->map_bytes >= HUGE_ALIGN_BYTES) {
        *align = MAX(*align, HUGE_ALIGN_BYTES);
    }
    if (!wanted) {
        return true;
    }
    if (!is_power_of_two(wanted) || wanted % full->block.page_size || wanted > 1ULL << 40) {
        error_setg(errp, "The alignment %" PRIu64 " of RAM block '%s' must be a power of two and a "
                   "multiple of the page size %zu", wanted, full->block.idstr,
                   full->block.page_size);
        return false;
    }
    *align = MAX(*align, wanted);
    return true;
}

static bool map_memory(RAMBlockFull *full, uint64_t align, Error **errp)
{
    RAMBlock *block = &full->block;
    size_t page = host_page_bytes();
    int prot = PROT_READ | (block->readonly ? 0 : PROT_WRITE);
    int flags = (block->shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED;
    uintptr_t place;

    if (block->page_size == page) {
        flags |= MAP_NORESERVE;
    }

    full->reserved_bytes = full->map_bytes + align + page;
    full->reserved = mmap(NULL, full->reserved_bytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (full->reserved == MAP_FAILED) {
        error_setg_errno(errp, errno, "Cannot reserve %" PRIu64 " bytes of address space for RAM "
                         "block '%s'", block->used_length, block->idstr);
        return false;
    }
    place = ROUND_UP_TO((uintptr_t)full->reserved, align);
    if (block->fd < 0) {
        flags |= MAP_ANONYMOUS;
    }
    block->host = mmap((void *)place, full->map_bytes, prot, flags, block->fd, block->fd_offset);
    if (block->host == MAP_FAILED) {
        error_setg_errno(errp, errno, "Cannot map %" PRIu64 " bytes of memory for RAM block '%s'",
                         block->used_length, block->idstr);
        munmap(full->reserved, full->reserved_bytes);
        block->host = NULL;
        return false;
    }
    return true;
}

/* Advice: nothing here must succeed. */
static void advise(RAMBlockFull *full, const RAMBacking *backing)
{
    RAMBlock *block = &full->block;
    bool small_pages = block->page_size == host_page_bytes();

    madvise(block->host, full->map_bytes, MADV_DONTFORK);
    if (small_pages && full->map_bytes >= HUGE_ALIGN_BYTES && backing->kind != RAM_BACKING_FILE) {
        madvise(block->host, full->map_bytes, MADV_HUGEPAGE);
    }
    if (backing->merge && small_pages) {
        madvise(block->host, full->map_bytes, MADV_MERGEABLE);
    }
    if (!backing->dump) {
        madvise(block->host, full->map_bytes, MADV_DONTDUMP);
    }
}

typedef struct PreallocPart {
    pthread_t thread;
    uint8_t *start;
    size_t bytes;
    int err;                    /* errno, 0 when it went well */
} PreallocPart;

static void *prealloc_part(void *opaque)
{
    PreallocPart *part = opaque;

    while (madvise(part->start, part->bytes, MADV_POPULATE_WRITE)) {
        if (errno != EINTR && errno != EAGAIN) {
            part->err = errno;
            break;
        }
    }
    return NULL;
}

static bool preallocate(RAMBlockFull *full, unsigned threads, Error **errp)
{
    PreallocPart parts[PREALLOC_THREADS_MAX] = { 0 };
    unsigned most = MIN(threads ?: g_get_num_processors(), PREALLOC_THREADS_MAX);
    unsigned n = CLAMP(full->map_bytes / PREALLOC_THREAD_BYTES, 1, most);
    size_t share = ROUND_UP_TO(full->map_bytes / n, full->block.page_size);
    int err = 0;

    for (unsigned i = 0; i < n; i++) {
        size_t from = MIN(i * share, full->map_bytes);

        parts[i].start = full->block.host + from;
        parts[i].bytes = i == n - 1 ? full->map_bytes - from : MIN(share, full->map_bytes - from);
        if (i == n - 1 || pthread_create(&parts[i].thread, NULL, prealloc_part, &parts[i])) {
            prealloc_part(&parts[i]);
            parts[i].thread = 0;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (parts[i].thread) {
            pthread_join(parts[i].thread, NULL);
        }
        err = err ?: parts[i].err;
    }
    if (err) {
        error_setg_errno(errp, err, "Cannot preallocate %" PRIu64 " bytes for RAM block '%s'",
                         full->block.used_length, full->block.idstr);
    }
    return !err;
}

static bool map_opened(RAMBlockFull *full, const RAMBacking *backing, Error **errp)
{
    uint64_t align;

    full->map_bytes = ROUND_UP_TO(full->block.used_length, full->block.page_size);
    if (!check_align(full, backing, &align, errp) || !map_memory(full, align, errp)) {
        return false;
    }
    advise(full, backing);
    if (backing->prealloc && !backing->readonly &&
        !preallocate(full, backing->prealloc_threads, errp)) {
        munmap(full->reserved, full->reserved_bytes);
        return false;
    }
    return true;
}

bool ram_backing_map(RAMBlockFull *full, const RAMBacking *backing, Error **errp)
{
    RAMBlock *block = &full->block;
    bool created = false;

    full->kind = backing->kind;
    block->page_size = host_page_bytes();
    block->shared = backing->share;
    block->readonly = backing->readonly;
    if (backing->kind == RAM_BACKING_FILE) {
        if (!open_file(full, backing, &created, errp)) {
            return false;
        }
    } else if (backing->kind == RAM_BACKING_MEMFD || backing->share) {
        if (!open_memfd(full, backing, errp)) {
            return false;
        }
    }
    if (!map_opened(full, backing, errp)) {
        close_fd(block);
        if (created) {
            unlink(backing->path);
        }
        return false;
    }
    return true;
}

void ram_backing_unmap(RAMBlockFull *full)
{
    munmap(full->reserved, full->reserved_bytes);
    close_fd(&full->block);
}
