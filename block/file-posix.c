/*
 * The drivers `file` and `host_device`: files and block devices of the host.
 *
 * Opening, permissions and opening anew are here; the requests are in file-io.c, lengths and new
 * files in file-resize.c.
 *
 * The descriptor has one number for life. Where other flags are needed (write access, O_DIRECT),
 * the same file is opened once more by /proc/self/fd, which cannot reach another file that took its
 * name, and put in the place of the old one by dup3. Locks belong to the old description and are
 * taken on the new one before.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/create.h"
#include "block/drivers.h"
#include "block/file-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/fd-resolver.h"

#define PERM_MODIFY (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)
#define ACCESS_FLAGS (O_ACCMODE | O_DIRECT)

static const BlockdevOptionsFile *file_options(const BlockdevOptions *opts)
{
    return opts->driver == BLOCKDEV_DRIVER_FILE ? &opts->u.file : &opts->u.host_device;
}

static int access_flags(bool read_only, bool direct)
{
    return (read_only ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
}

/*
 * Descriptors
 * -------------------------------------------------------------------------------------------
 */

static bool is_fdset(const char *filename)
{
    return g_str_has_prefix(filename, "/dev/fdset/");
}

/* O_NONBLOCK keeps a FIFO from stopping the process; requests must not have it. */
static int open_file(const char *filename, int flags, Error **errp)
{
    int fd = io_open(filename, flags | O_NONBLOCK, 0, errp);

    if (fd >= 0 && !is_fdset(filename)) {
        fcntl(fd, F_SETFL, flags & ~O_ACCMODE);
    }
    return fd;
}

/* The same file with other flags. */
static int open_again(FileState *s, int flags, Error **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", s->fd);
    int fd;

    if (is_fdset(s->filename)) {
        return io_open(s->filename, flags, 0, errp);
    }
    fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) {
        error_setg_errno(errp, errno, "Could not open '%s' %s", s->filename,
                         (flags & O_ACCMODE) == O_RDONLY ? "for reading" : "for writing");
    }
    return fd;
}

/* Put @fd into the place of the descriptor in use; takes @fd over. No request is under way. */
static void file_replace_fd(FileState *s, int fd)
{
    int ret = s->can_lock ? file_locks_copy(&s->locks, fd) : 0;

    if (ret < 0) {
        warn_report("'%s' was opened anew, but not all of its locks could be taken: %s",
                    s->filename, strerror(-ret));
    }
    do {
        ret = dup3(fd, s->fd, O_CLOEXEC);
    } while (ret < 0 && (errno == EINTR || errno == EBUSY));
    g_assert(ret == s->fd);
    s->open_flags = fcntl(s->fd, F_GETFL) & ACCESS_FLAGS;
    s->direct = s->open_flags & O_DIRECT;
    close(fd);
}

/*
 * Opening
 * ------------------------------------------------------------------------------------------------
 */

static int choose_engine(const BlockdevOptionsFile *o, bool direct, AioEngineKind *engine,
                         Error **errp)
{
    if (!o->has_aio) {
        *engine = aio_engine_available(AIO_ENGINE_IO_URING, NULL) ? AIO_ENGINE_IO_URING
                                                                  : AIO_ENGINE_THREADS;
        return 0;
    }
    switch (o->aio) {
    case BLOCKDEV_AIO_OPTIONS_NATIVE:
        *engine = AIO_ENGINE_NATIVE;
        if (!direct) {
            error_setg(errp,
                       "aio=native needs cache.direct=on for '%s': without it the kernel waits in "
                       "the middle of a request",
                       o->filename);
            return -1;
        }
        break;
    case BLOCKDEV_AIO_OPTIONS_IO_URING:
        *engine = AIO_ENGINE_IO_URING;
        break;
    default:
        *engine = AIO_ENGINE_THREADS;
        break;
    }
    if (!aio_engine_available(*engine, errp)) {
        error_prepend(errp, "aio=%s cannot be used for '%s': ", aio_engine_name(*engine),
                      o->filename);
        return -1;
    }
    return 0;
}

static int check_type(FileState *s, BlockdevDriver driver, Error **errp)
{
    struct stat st;

    if (fstat(s->fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not look at '%s'", s->filename);
        return -1;
    }
    s->device = S_ISBLK(st.st_mode);
    if (driver == BLOCKDEV_DRIVER_FILE && !S_ISREG(st.st_mode)) {
        error_setg(errp, "'file' driver requires '%s' to be a regular file", s->filename);
        return -1;
    }
    if (driver == BLOCKDEV_DRIVER_HOST_DEVICE && !s->device) {
        error_setg(errp, "'host_device' driver requires '%s' to be a block device", s->filename);
        return -1;
    }
    return 0;
}

static int set_up_locking(FileState *s, const BlockdevOptionsFile *o, Error **errp)
{
    int ret;

    s->locking = o->has_locking ? o->locking : ON_OFF_AUTO_AUTO;
    if (s->locking == ON_OFF_AUTO_OFF) {
        return 0;
    }
    ret = file_locks_supported(s->fd);
    s->can_lock = ret == 0;
    if (ret < 0 && s->locking == ON_OFF_AUTO_ON) {
        error_setg_errno(errp, -ret, "locking=on, but '%s' cannot be locked", s->filename);
        return -1;
    }
    return 0;
}

static int open_fd(BlockDriverState *bs, FileState *s, Error **errp)
{
    Error *err = NULL;

    s->fd = open_file(s->filename, access_flags(bs->read_only, bs->cache_direct), &err);
    if (s->fd < 0 && !bs->read_only && bs->auto_read_only) {
        s->fd = open_file(s->filename, access_flags(true, bs->cache_direct), NULL);
        if (s->fd >= 0) {
            bs->read_only = true;
            error_free(err);
            err = NULL;
        }
    }
    if (s->fd < 0) {
        error_propagate(errp, err);
        return -1;
    }
    s->open_flags = access_flags(bs->read_only, bs->cache_direct);
    s->direct = bs->cache_direct;
    return 0;
}

static int look_at_file(BlockDriverState *bs, FileState *s, const BlockdevOptions *opts,
                        Error **errp)
{
    int64_t length;

    if (check_type(s, opts->driver, errp) < 0 || set_up_locking(s, file_options(opts), errp) < 0) {
        return -1;
    }
    length = file_probe_length(s->fd);
    if (length < 0 || length > BDRV_MAX_LENGTH) {
        error_setg_errno(errp, length < 0 ? -length : EFBIG, "Could not use '%s': its length",
                         s->filename);
        return -1;
    }
    bs->total_bytes = length;
    s->in_memory = !s->device && file_probe_in_memory(s->fd);
    file_probe_alignment(s->fd, s->direct, s->device, &s->align);
    return 0;
}

static int file_open(BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    const BlockdevOptionsFile *o = file_options(opts);
    FileState *s = bs->opaque;

    s->fd = s->pending_fd = -1;
    if (choose_engine(o, bs->cache_direct, &s->engine, errp) < 0) {
        return -1;
    }
    s->filename = g_strdup(o->filename);
    if (open_fd(bs, s, errp) < 0 || look_at_file(bs, s, opts, errp) < 0) {
        if (s->fd >= 0) {
            close(s->fd);
        }
        g_free(s->filename);
        return -1;
    }
    mutex_init(&s->status_lock);
    bs->filename = g_strdup(o->filename);
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    bs->supported_truncate_flags = s->device ? 0 : BDRV_REQ_ZERO_WRITE;
    return 0;
}

static void file_close(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    g_assert(s->pending_fd < 0);
    close(s->fd);
    mutex_destroy(&s->status_lock);
    g_free(s->filename);
}

static void file_refresh_limits(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    bs->bl.request_alignment = s->align.request;
    bs->bl.min_mem_alignment = s->align.memory;
    bs->bl.opt_mem_alignment = MAX(s->align.memory, 4096);
    bs->bl.pwrite_zeroes_alignment = bs->bl.pdiscard_alignment =
        MAX(s->align.request, s->align.sector);
}

/*
 * Permissions
 * ---------------------------------------------------------------------------------------------
 */

static int file_check_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared, Error **errp)
{
    FileState *s = bs->opaque;

    if (s->can_lock && file_locks_prepare(&s->locks, s->fd, s->filename, perm, shared, errp) < 0) {
        return -1;
    }
    if (perm & PERM_MODIFY && (s->open_flags & O_ACCMODE) == O_RDONLY && s->pending_fd < 0) {
        s->pending_fd = open_again(s, access_flags(false, s->direct), errp);
        if (s->pending_fd < 0) {
            if (s->can_lock) {
                file_locks_abort(&s->locks, s->fd);
            }
            return -1;
        }
    }
    return 0;
}

static void file_set_perm(BlockDriverState *bs, uint64_t perm, uint64_t shared)
{
    FileState *s = bs->opaque;

    if (s->pending_fd >= 0) {
        file_replace_fd(s, s->pending_fd);
        s->pending_fd = -1;
        bs->read_only = false;
    }
    if (s->can_lock) {
        file_locks_commit(&s->locks, s->fd, perm, shared);
    }
}

static void file_abort_perm_update(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    if (s->pending_fd >= 0) {
        close(s->pending_fd);
        s->pending_fd = -1;
    }
    if (s->can_lock) {
        file_locks_abort(&s->locks, s->fd);
    }
}

/*
 * Opening anew
 * --------------------------------------------------------------------------------------------
 */

typedef struct FileReopen {
    int fd;                     /* -1: as it is */
    AioEngineKind engine;
    FileAlignment align;
} FileReopen;

static int check_unchanged(FileState *s, const BlockdevOptionsFile *o, Error **errp)
{
    OnOffAuto locking = o->has_locking ? o->locking : ON_OFF_AUTO_AUTO;

    if (strcmp(o->filename, s->filename) != 0) {
        error_setg(errp, "Cannot change the option 'filename' of '%s'", s->filename);
        return -1;
    }
    if (locking != s->locking) {
        error_setg(errp, "Cannot change the option 'locking' of '%s'", s->filename);
        return -1;
    }
    return 0;
}

static int file_reopen_prepare(BdrvReopenState *state, Error **errp)
{
    const BlockdevOptionsFile *o = file_options(state->options);
    FileState *s = state->bs->opaque;
    FileReopen r = { .fd = -1, .align = s->align };
    int flags = access_flags(state->read_only, state->cache_direct);
    Error *err = NULL;

    if (check_unchanged(s, o, errp) < 0 ||
        choose_engine(o, state->cache_direct, &r.engine, errp) < 0) {
        return -1;
    }
    if (flags != s->open_flags) {
        r.fd = open_again(s, flags, &err);
        if (r.fd < 0 && !state->read_only && state->auto_read_only) {
            error_free(err);
            err = NULL;
            state->read_only = true;
            flags = access_flags(true, state->cache_direct);
            if (flags != s->open_flags) {
                r.fd = open_again(s, flags, &err);
            }
        }
        if (err) {
            error_propagate(errp, err);
            return -1;
        }
        if (r.fd >= 0) {
            file_probe_alignment(r.fd, state->cache_direct, s->device, &r.align);
        }
    }
    state->opaque = g_memdup2(&r, sizeof(r));
    return 0;
}

static void file_reopen_commit(BdrvReopenState *state)
{
    FileReopen *r = state->opaque;
    FileState *s = state->bs->opaque;

    if (r->fd >= 0) {
        file_replace_fd(s, r->fd);
    }
    s->engine = r->engine;
    s->align = r->align;
    g_free(r);
    state->opaque = NULL;
}

static void file_reopen_abort(BdrvReopenState *state)
{
    FileReopen *r = state->opaque;

    if (r->fd >= 0) {
        close(r->fd);
    }
    g_free(r);
    state->opaque = NULL;
}

/*
 * The drivers
 * ---------------------------------------------------------------------------------------------
 */

static ImageInfoSpecific *file_get_specific_info(BlockDriverState *bs, Error **errp)
{
    FileState *s = bs->opaque;
    ImageInfoSpecific *info = g_new0(ImageInfoSpecific, 1);
    ImageInfoSpecificFile *data = g_new0(ImageInfoSpecificFile, 1);

    data->extent_size_hint = file_probe_extent_size_hint(s->fd);
    data->has_extent_size_hint = data->extent_size_hint > 0;
    info->type = IMAGE_INFO_SPECIFIC_KIND_FILE;
    info->u.file.data = data;
    return info;
}

static int file_page_cache_fd(BlockDriverState *bs, int64_t *offset, int64_t bytes)
{
    FileState *s = bs->opaque;

    return s->direct || bs->inactive ? -1 : s->fd;
}

#define FILE_DRIVER_FUNCTIONS \
    .instance_size = sizeof(FileState), \
    .thread_safe = true, \
    .open = file_open, \
    .close = file_close, \
    .refresh_limits = file_refresh_limits, \
    .check_perm = file_check_perm, \
    .set_perm = file_set_perm, \
    .abort_perm_update = file_abort_perm_update, \
    .reopen_prepare = file_reopen_prepare, \
    .reopen_commit = file_reopen_commit, \
    .reopen_abort = file_reopen_abort, \
    .co_preadv = file_co_preadv, \
    .co_pwritev = file_co_pwritev, \
    .co_pwrite_zeroes = file_co_pwrite_zeroes, \
    .co_pdiscard = file_co_pdiscard, \
    .co_flush_to_disk = file_co_flush, \
    .co_block_status = file_co_block_status, \
    .page_cache_fd = file_page_cache_fd, \
    .co_getlength = file_co_getlength, \
    .co_get_allocated_file_size = file_co_get_allocated_file_size, \
    .co_truncate = file_co_truncate

const BlockDriver bdrv_file = {
    .format_name = "file",
    .driver = BLOCKDEV_DRIVER_FILE,
    FILE_DRIVER_FUNCTIONS,
    .co_create = file_co_create,
    .co_create_opts = file_co_create_opts,
    .create_options = file_create_options,
    .get_specific_info = file_get_specific_info,
};

const BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .driver = BLOCKDEV_DRIVER_HOST_DEVICE,
    FILE_DRIVER_FUNCTIONS,
    .co_create_opts = host_device_co_create_opts,
};
