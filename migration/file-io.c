/*
 * Positioned file I/O with several requests in flight.
 *
 * What is queued first grows in `next`, the request not begun yet, as long as it continues where
 * that ends. A request that is begun holds one of FILE_IO_DEPTH slots until all its bytes are done:
 * the kernel may do less than asked, then the rest is submitted again from the same slot. The first
 * error is kept, stops new requests, and is what every later call returns.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/file-io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>

#include "system/ramblock.h"

/* Small requests are submitted this many at a time. */
#define SUBMIT_BATCH 8
#define SUBMIT_NOW_BYTES (256 * 1024)

typedef struct Request {
    uint8_t *buf;
    size_t len;                 /* bytes not done yet */
    uint64_t offset;
} Request;

struct FileIO {
    QIOChannel *ioc;
    char *name;
    int fd;
    bool write;
    bool uring;
    struct io_uring ring;
    Request slots[FILE_IO_DEPTH];
    unsigned free_slots[FILE_IO_DEPTH];
    unsigned nfree;
    unsigned unsubmitted;
    Request next;               /* not begun; len 0: none */
    Error *err;
};

static bool ring_init(FileIO *io)
{
    /* Completions are only wanted when we wait for them; old kernels do not know how to do that. */
    return io_uring_queue_init(FILE_IO_DEPTH * 2, &io->ring,
                               IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN) == 0 ||
           io_uring_queue_init(FILE_IO_DEPTH * 2, &io->ring, 0) == 0;
}

FileIO *file_io_new(QIOChannel *ioc, bool write, bool use_uring, Error **errp)
{
    FileIO *io;
    int fd = qio_channel_get_fd(ioc);

    if (fd < 0 || !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE)) {
        g_autofree char *name = qio_channel_describe(ioc);
        error_setg(errp, "%s has no offsets to write to or read from", name);
        return NULL;
    }
    io = g_new0(FileIO, 1);
    io->ioc = qio_channel_ref(ioc);
    io->name = qio_channel_describe(ioc);
    io->fd = fd;
    io->write = write;
    io->uring = use_uring && ring_init(io);
    for (unsigned i = 0; i < FILE_IO_DEPTH; i++) {
        io->free_slots[io->nfree++] = i;
    }
    return io;
}

bool file_io_uses_uring(const FileIO *io)
{
    return io->uring;
}

static void set_error(FileIO *io, const Request *req, int err)
{
    if (io->err) {
        return;
    }
    error_setg_errno(&io->err, err, "%s %zu bytes at offset %" PRIu64 " of %s failed",
                     io->write ? "writing" : "reading", req->len, req->offset, io->name);
    if (err == EINVAL) {
        error_append_hint(&io->err, "The file may demand another alignment than %u bytes.\n",
                          TARGET_PAGE_SIZE);
    }
}

static void set_end_of_file(FileIO *io, const Request *req)
{
    if (!io->err) {
        error_setg(&io->err,
                   "%s ends at or before offset %" PRIu64 ", where %zu bytes are expected",
                   io->name, req->offset, req->len);
    }
}

static int check(FileIO *io, Error **errp)
{
    if (!io->err) {
        return 0;
    }
    error_propagate(errp, error_copy(io->err));
    return -1;
}

/* Account for the result of a transfer. Returns whether the rest of it must be tried again. */
static bool transfer_done(FileIO *io, Request *req, ssize_t result)
{
    if (result == -EINTR || result == -EAGAIN) {
        return true;
    }
    if (result < 0) {
        set_error(io, req, -result);
        return false;
    }
    if (result == 0 && !io->write) {
        set_end_of_file(io, req);
        return false;
    }
    if (result == 0) {
        set_error(io, req, ENOSPC);
        return false;
    }
    result = MIN((size_t)result, req->len);
    req->buf += result;
    req->len -= result;
    req->offset += result;
    return req->len > 0;
}

/* Without io_uring ----------------------------------------------------------------------------- */

static void transfer_now(FileIO *io, Request req)
{
    ssize_t n;

    do {
        struct iovec iov = { req.buf, req.len };

        n = io->write ? pwritev(io->fd, &iov, 1, req.offset) : preadv(io->fd, &iov, 1, req.offset);
    } while (transfer_done(io, &req, n < 0 ? -errno : n));
}

/* With io_uring -------------------------------------------------------------------------------- */

static void prepare(FileIO *io, unsigned slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    Request *req = &io->slots[slot];

    /* There are twice as many entries as slots. */
    g_assert(sqe);
    if (io->write) {
        io_uring_prep_write(sqe, io->fd, req->buf, req->len, req->offset);
    } else {
        io_uring_prep_read(sqe, io->fd, req->buf, req->len, req->offset);
    }
    io_uring_sqe_set_data64(sqe, slot);
    io->unsubmitted++;
}

/* Submit what is prepared and wait for at least @wait completions. */
static void submit(FileIO *io, unsigned wait)
{
    int ret;

    for (;;) {
        ret = io_uring_submit_and_wait(&io->ring, wait);
        if (ret >= 0) {
            break;
        }
        if (ret == -EAGAIN || ret == -EBUSY || ret == -ENOMEM) {
            /* The kernel is short of something that completions bring back. */
            g_usleep(1000);
        } else if (ret != -EINTR) {
            /* Only a ring that is used wrongly gives these. */
            g_error("io_uring: %s", g_strerror(-ret));
        }
    }
    io->unsubmitted = 0;
}

/* Look at what has completed. */
static void reap(FileIO *io)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&io->ring, &cqe) == 0) {
        unsigned slot = io_uring_cqe_get_data64(cqe);
        ssize_t result = cqe->res;

        io_uring_cqe_seen(&io->ring, cqe);
        if (transfer_done(io, &io->slots[slot], result)) {
            prepare(io, slot);
        } else {
            io->free_slots[io->nfree++] = slot;
        }
    }
}

static void wait_for_slot(FileIO *io, unsigned free_wanted)
{
    while (io->nfree < free_wanted) {
        submit(io, 1);
        reap(io);
    }
}

/* Both ----------------------------------------------------------------------------------------- */

static void begin(FileIO *io, const Request *req)
{
    unsigned slot;

    if (!io->uring) {
        transfer_now(io, *req);
        return;
    }
    wait_for_slot(io, 1);
    if (io->err) {
        return;
    }
    slot = io->free_slots[--io->nfree];
    io->slots[slot] = *req;
    prepare(io, slot);
    if (io->unsubmitted >= SUBMIT_BATCH || req->len >= SUBMIT_NOW_BYTES) {
        submit(io, 0);
    }
}

static void begin_next(FileIO *io)
{
    if (io->next.len && !io->err) {
        begin(io, &io->next);
    }
    io->next.len = 0;
}

int file_io_queue(FileIO *io, void *buf, size_t len, uint64_t offset, Error **errp)
{
    uint8_t *p = buf;

    while (len && !io->err) {
        size_t room = FILE_IO_REQUEST_BYTES - offset % FILE_IO_REQUEST_BYTES;
        size_t part = MIN(len, room);
        Request *next = &io->next;

        if (next->len && next->buf + next->len == p && next->offset + next->len == offset) {
            next->len += part;
        } else {
            begin_next(io);
            *next = (Request) { p, part, offset };
        }
        if (part == room) {
            begin_next(io);
        }
        p += part;
        len -= part;
        offset += part;
    }
    return check(io, errp);
}

int file_io_drain(FileIO *io, Error **errp)
{
    begin_next(io);
    if (io->uring) {
        wait_for_slot(io, FILE_IO_DEPTH);
    }
    return check(io, errp);
}

void file_io_free(FileIO *io)
{
    if (!io) {
        return;
    }
    io->next.len = 0;
    if (io->uring) {
        wait_for_slot(io, FILE_IO_DEPTH);
        io_uring_queue_exit(&io->ring);
    }
    error_free(io->err);
    g_free(io->name);
    qio_channel_unref(io->ioc);
    g_free(io);
}

/* O_DIRECT ------------------------------------------------------------------------------------- */

/* Whether the first page of the file @fd lies in the page cache. */
static bool is_cached(int fd)
{
    unsigned char there = 0;
    void *page = mmap(NULL, TARGET_PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED) {
        return false;
    }
    if (mincore(page, TARGET_PAGE_SIZE, &there) < 0) {
        there = 0;
    }
    munmap(page, TARGET_PAGE_SIZE);
    return there & 1;
}

/*
 * An overlay says nothing of what lies below it, which may be memory: see where a page goes that is
 * written to a nameless file beside this one. True where that cannot be seen.
 */
static bool overlay_has_direct(int fd)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *path = g_file_read_link(link, NULL);
    g_autofree char *dir = path ? g_path_get_dirname(path) : NULL;
    int probe = dir ? open(dir, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600) : -1;
    void *page = NULL;
    bool direct = true;

    if (probe < 0) {
        return true;
    }
    if (posix_memalign(&page, TARGET_PAGE_SIZE, TARGET_PAGE_SIZE) == 0) {
        memset(page, 1, TARGET_PAGE_SIZE);
        direct = pwrite(probe, page, TARGET_PAGE_SIZE, 0) != TARGET_PAGE_SIZE || !is_cached(probe);
    }
    free(page);
    close(probe);
    return direct;
}

/* Whether what is written with O_DIRECT to the regular file @fd only goes to the page cache. */
static bool lives_in_cache(int fd)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return false;
    }
    return fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
           (fs.f_type == OVERLAYFS_SUPER_MAGIC && !overlay_has_direct(fd));
}

int file_io_check_direct(QIOChannel *ioc, const char *what, Error **errp)
{
    int fd = qio_channel_get_fd(ioc);
    struct stat file;

    /*
     * These accept the flag, but the page cache is where their files live. The node of a block
     * device may lie there, too; its data do not.
     */
    if (fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && lives_in_cache(fd)) {
        error_setg(errp, "capability 'bypass-cache' cannot be used: %s is on a file system in "
                   "memory, which has no O_DIRECT", what);
        return -1;
    }
#ifdef STATX_DIOALIGN
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 && (st.stx_mask & STATX_DIOALIGN)) {
        uint32_t align = MAX(st.stx_dio_mem_align, st.stx_dio_offset_align);

        if (!align) {
            error_setg(errp, "capability 'bypass-cache' cannot be used: the file system of %s does "
                       "not support O_DIRECT on it", what);
            return -1;
        }
        if (align > TARGET_PAGE_SIZE) {
            error_setg(errp, "capability 'bypass-cache' cannot be used: %s wants transfers aligned "
                       "to %u bytes, guest pages have %u", what, align, TARGET_PAGE_SIZE);
            return -1;
        }
    }
#endif
    return 0;
}
