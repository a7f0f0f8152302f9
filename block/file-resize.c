/*
 * The length of files of the host: telling, changing, preallocating; and making files.
 *
 * What is made or changed is locked like an image in use (block/file-locks.h), so that nobody cuts
 * off a disk that a machine runs on. Work that can take long happens in the thread pool.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/create.h"
#include "block/file-int.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/fd-resolver.h"
#include "util/cutils.h"
#include "util/thread-pool.h"

#define FILL_BYTES (1024 * 1024)

int64_t coroutine_fn file_co_getlength(BlockDriverState *bs)
{
    FileState *s = bs->opaque;

    return file_probe_length(s->fd);
}

int64_t coroutine_fn file_co_get_allocated_file_size(BlockDriverState *bs)
{
    FileState *s = bs->opaque;
    struct stat st;

    if (fstat(s->fd, &st) < 0) {
        return -errno;
    }
    return (int64_t)st.st_blocks * 512;
}

/*
 * Setting the length of a file
 * --------------------------------------------------------------------------
 */

typedef struct Resize {
    int fd;
    int64_t length;
    PreallocMode prealloc;
    Error *err;
} Resize;

static int fill_with_zeroes(int fd, int64_t from, int64_t to)
{
    char *zeroes;
    int ret = 0;

    if (posix_memalign((void **)&zeroes, 4096, FILL_BYTES) != 0) {
        return -ENOMEM;
    }
    memset(zeroes, 0, FILL_BYTES);
    while (ret == 0 && from < to) {
        ssize_t n = pwrite(fd, zeroes, MIN(to - from, FILL_BYTES), from);

        if (n < 0 && errno != EINTR) {
            ret = -errno;
        } else if (n > 0) {
            from += n;
        }
    }
    free(zeroes);
    if (ret == 0 && fsync(fd) < 0) {
        ret = -errno;
    }
    return ret;
}

static int allocate_space(int fd, int64_t from, int64_t to)
{
    int ret;

    do {
        ret = fallocate(fd, 0, from, to - from);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

/* O_DIRECT wants lengths that are aligned, which what is to be filled here need not be. */
static int fill_past_cache(int fd, int64_t from, int64_t to)
{
    int flags = fcntl(fd, F_GETFL), ret;

    if (flags < 0 || !(flags & O_DIRECT)) {
        return fill_with_zeroes(fd, from, to);
    }

    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    int cached = open(path, O_RDWR | O_CLOEXEC);
    if (cached < 0) {
        return -errno;
    }
    ret = fill_with_zeroes(cached, from, to);
    close(cached);
    return ret;
}

static int preallocate(Resize *r, int64_t from)
{
    int ret;

    switch (r->prealloc) {
    case PREALLOC_MODE_OFF:
        return 0;
    case PREALLOC_MODE_FALLOC:
        ret = allocate_space(r->fd, from, r->length);
        if (ret < 0) {
            error_setg_errno(&r->err, -ret, "Could not preallocate data for the new file");
        }
        return ret;
    case PREALLOC_MODE_FULL:
        ret = fill_past_cache(r->fd, from, r->length);
        if (ret < 0) {
            error_setg_errno(&r->err, -ret, "Could not write zeroes for preallocation");
        }
        return ret;
    default:
        error_setg(&r->err,
                   "Unsupported preallocation mode '%s': a file has no metadata of its own",
                   PreallocMode_str(r->prealloc));
        return -ENOTSUP;
    }
}

static int set_length(int fd, int64_t length)
{
    int ret;

    do {
        ret = ftruncate(fd, length);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : 0;
}

static int resize_file(void *opaque)
{
    Resize *r = opaque;
    int64_t old = file_probe_length(r->fd);
    int ret;

    if (old < 0) {
        error_setg_errno(&r->err, -old, "Could not tell the length of the file");
        return old;
    }
    if (r->prealloc != PREALLOC_MODE_OFF && r->length < old) {
        error_setg(&r->err, "Preallocation can only be used for growing");
        return -ENOTSUP;
    }
    ret = set_length(r->fd, r->length);
    if (ret < 0) {
        error_setg_errno(&r->err, -ret, "Could not resize the file to %" PRId64 " bytes",
                         r->length);
        return ret;
    }
    if (r->length == old) {
        return 0;
    }
    ret = preallocate(r, old);
    if (ret < 0 && set_length(r->fd, old) < 0) {
        error_append_hint(&r->err, "The file also could not be cut back to its length of %" PRId64
                          " bytes.\n", old);
    }
    return ret;
}

static int coroutine_fn co_resize_fd(int fd, int64_t length, PreallocMode prealloc, Error **errp)
{
    Resize r = { .fd = fd, .length = length, .prealloc = prealloc };
    int ret = thread_pool_submit_co(resize_file, &r);

    error_propagate(errp, r.err);
    return ret;
}

static int resize_device(FileState *s, int64_t length, bool exact, PreallocMode prealloc,
                         Error **errp)
{
    int64_t current = file_probe_length(s->fd);

    if (prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation mode '%s' unsupported for device '%s'",
                   PreallocMode_str(prealloc), s->filename);
        return -ENOTSUP;
    }
    if (current < 0) {
        error_setg_errno(errp, -current, "Could not tell the length of '%s'", s->filename);
        return current;
    }
    if (length > current) {
        error_setg(errp, "Cannot grow device '%s' beyond its %" PRId64 " bytes", s->filename,
                   current);
        return -EINVAL;
    }
    if (exact && length != current) {
        error_setg(errp, "Cannot resize device '%s'", s->filename);
        return -ENOTSUP;
    }
    return 0;
}

int coroutine_fn file_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
                                  PreallocMode prealloc, BdrvRequestFlags flags, Error **errp)
{
    FileState *s = bs->opaque;
    int ret;

    if (s->device) {
        return resize_device(s, offset, exact, prealloc, errp);
    }
    ret = co_resize_fd(s->fd, offset, prealloc, errp);
    file_forget_status(s);
    return ret;
}

/*
 * Making files
 * ------------------------------------------------------------------------------------------
 */

const BdrvCreateOption file_create_options[] = {
    { "extent_size_hint", "Bytes that the file system shall allocate at a time, where it takes that "
      "hint; 0: as it likes", "0" },
    { "nocow", "Ask the file system (btrfs) not to copy on write", "off" },
    { "preallocation", "off: no space is allocated; falloc: the file system is asked for it; full: "
      "zeroes are written", "off" },
    { NULL, NULL, NULL },
};

/* What is asked of a new file. */
typedef struct NewFile {
    const char *filename;
    uint64_t size;
    PreallocMode preallocation;
    uint64_t extent_size_hint;          /* 0: none */
    bool nocow;
} NewFile;

static int check_create(const NewFile *f, Error **errp)
{
    const char *filename = f->filename;

    if (f->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "Could not create '%s': a length of %" PRIu64 " bytes is too large",
                   filename, f->size);
        return -EFBIG;
    }
    if (f->extent_size_hint > UINT32_MAX) {
        error_setg(errp, "Could not create '%s': an extent size hint of %" PRIu64
                   " bytes is too large", filename, f->extent_size_hint);
        return -EINVAL;
    }
    if (f->preallocation == PREALLOC_MODE_METADATA) {
        error_setg(errp,
                   "Could not create '%s': preallocation mode 'metadata' is for formats, not files",
                   filename);
        return -EINVAL;
    }
    return 0;
}

/* Open it, or make it; *@is_new: it was not there. */
static int open_for_create(const char *filename, bool *is_new, Error **errp)
{
    Error *err = NULL;
    int fd = io_open(filename, O_RDWR | O_CREAT | O_EXCL, 0644, &err);

    *is_new = fd >= 0 && !g_str_has_prefix(filename, "/dev/fdset/");
    if (fd < 0 && access(filename, F_OK) == 0) {
        error_free(err);
        err = NULL;
        fd = io_open(filename, O_RDWR | O_NONBLOCK, 0, &err);
    }
    error_propagate(errp, err);
    return fd;
}

/* Hints, to an empty file: a file system that does not know them does as it always does. */
static void give_hints(int fd, const NewFile *f)
{
    struct fsxattr attr;
    int flags;

    if (f->nocow && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    if (f->extent_size_hint && ioctl(fd, FS_IOC_FSGETXATTR, &attr) == 0) {
        attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attr.fsx_extsize = f->extent_size_hint;
        ioctl(fd, FS_IOC_FSSETXATTR, &attr);
    }
}

static int coroutine_fn co_fill_new_file(int fd, const NewFile *f, Error **errp)
{
    int ret = co_resize_fd(fd, 0, PREALLOC_MODE_OFF, errp);

    if (ret == 0) {
        give_hints(fd, f);
        ret = co_resize_fd(fd, f->size, f->preallocation, errp);
    }
    if (ret < 0) {
        error_prepend(errp, "Could not create '%s': ", f->filename);
    }
    return ret;
}

static int coroutine_fn co_create_file(const NewFile *f, Error **errp)
{
    const char *filename = f->filename;
    FileLocks locks = { 0 };
    struct stat st;
    bool is_new;
    int fd, ret;

    ret = check_create(f, errp);
    if (ret < 0) {
        return ret;
    }
    fd = open_for_create(filename, &is_new, errp);
    if (fd < 0) {
        return -EINVAL;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        error_setg(errp, "Could not create '%s': it exists and is not a regular file", filename);
        ret = -EINVAL;
    } else if (file_locks_supported(fd) == 0 &&
               file_locks_prepare(&locks, fd, filename, BLK_PERM_WRITE | BLK_PERM_RESIZE,
                                  BLK_PERM_ALL & ~BLK_PERM_RESIZE, errp) < 0) {
        ret = -EAGAIN;
    } else {
        ret = co_fill_new_file(fd, f, errp);
    }
    if (ret < 0 && is_new) {
        unlink(filename);
    }
    /* The locks go with it. */
    close(fd);
    return ret;
}

int coroutine_fn file_co_create(BlockdevCreateOptions *opts, Error **errp)
{
    const BlockdevCreateOptionsFile *file = &opts->u.file;
    NewFile f = {
        .filename = file->filename, .size = file->size,
        .preallocation = file->has_preallocation ? file->preallocation : PREALLOC_MODE_OFF,
        .extent_size_hint = file->has_extent_size_hint ? file->extent_size_hint : 0,
        .nocow = file->has_nocow && file->nocow,
    };

    return co_create_file(&f, errp);
}

static bool parse_create_opt(NewFile *f, const char *key, const char *value, Error **errp)
{
    int mode;

    if (strcmp(key, "extent_size_hint") == 0) {
        if (!parse_size(value, &f->extent_size_hint, errp)) {
            error_prepend(errp, "extent_size_hint: ");
            return false;
        }
        return true;
    }
    if (strcmp(key, "nocow") == 0) {
        return parse_bool(key, value, &f->nocow, errp);
    }
    if (strcmp(key, "preallocation") == 0) {
        mode = qapi_enum_parse(&PreallocMode_lookup, value, -1, errp);
        if (mode < 0) {
            error_prepend(errp, "preallocation: ");
            return false;
        }
        f->preallocation = mode;
        return true;
    }
    error_setg(errp, "invalid parameter '%s'", key);
    return false;
}

static bool parse_create_opts(NewFile *f, struct json_object *opts, Error **errp)
{
    if (!opts) {
        return true;
    }
    json_object_object_foreach(opts, key, value) {
        if (!parse_create_opt(f, key, json_object_get_string(value), errp)) {
            error_prepend(errp, "Could not create '%s': ", f->filename);
            return false;
        }
    }
    return true;
}

int coroutine_fn file_co_create_opts(const char *filename, uint64_t size, struct json_object *opts,
                                     Error **errp)
{
    NewFile f = { .filename = filename, .size = size, .preallocation = PREALLOC_MODE_OFF };

    return parse_create_opts(&f, opts, errp) ? co_create_file(&f, errp) : -EINVAL;
}

/* A device is there already: what was in it must not be taken for an image of some format. */
int coroutine_fn host_device_co_create_opts(const char *filename, uint64_t size,
                                            struct json_object *opts, Error **errp)
{
    NewFile f = { .filename = filename, .size = size, .preallocation = PREALLOC_MODE_OFF };
    FileLocks locks = { 0 };
    int64_t length;
    int fd, ret;

    if (!parse_create_opts(&f, opts, errp)) {
        return -EINVAL;
    }
    if (f.preallocation != PREALLOC_MODE_OFF) {
        error_setg(errp, "Could not create '%s': a device cannot be preallocated", filename);
        return -ENOTSUP;
    }
    fd = io_open(filename, O_RDWR | O_NONBLOCK, 0, errp);
    if (fd < 0) {
        return -EINVAL;
    }
    length = file_probe_length(fd);
    if (length < 0 || size > (uint64_t)length) {
        error_setg(
            errp, "Could not create '%s': the device has %" PRId64 " bytes, %" PRIu64 " are needed",
            filename, MAX(length, 0), size);
        ret = -ENOSPC;
    } else if (file_locks_supported(fd) == 0 &&
               file_locks_prepare(&locks, fd, filename, BLK_PERM_WRITE,
                                  BLK_PERM_ALL & ~BLK_PERM_RESIZE, errp) < 0) {
        ret = -EAGAIN;
    } else {
        ret = fill_with_zeroes(fd, 0, MIN(length, BDRV_SECTOR_BYTES));
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not create '%s': could not clear its first sector",
                             filename);
        }
    }
    close(fd);
    return ret;
}
