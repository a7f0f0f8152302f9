/*
 * Transport file, and fd when the descriptor is a regular file or block device: places in a file
 * instead of a stream.
 *
 * The main channel holds the stream; RAM channels are further open descriptions of the same file,
 * so that one can have O_DIRECT and the other not. A save holds a lock on the file, and so does who
 * loads it: of two saves into one file at the same time neither would be whole. When saving is done
 * it is checked that the file is still the one under that name, and as long as what was written:
 * then it is made durable.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/channel-file.h"
#include "io/fd-resolver.h"
#include "migration/file-io.h"

typedef struct FileState {
    QIOChannel *main;                   /* opened, not yet handed out */
    int fd;                             /* a duplicate of main's, for all that is no transfer */
    const char *path;                   /* NULL: by descriptor, or from an fdset */
    uint64_t offset;                    /* where the stream begins */
    dev_t dev;
    ino_t ino;
    bool regular;
    bool locked;
    bool dir_synced;
} FileState;

static bool path_is_fdset(const char *path)
{
    return g_str_has_prefix(path, "/dev/fdset/");
}

/* From where the stream begins to the end, wherever that will be; false with errno set. */
static bool file_set_lock(FileState *s, short type)
{
    struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = s->offset };

    return fcntl(s->fd, F_OFD_SETLK, &lock) == 0;
}

static void file_free(MigrationChannels *mc)
{
    FileState *s = mc->state;

    if (s->main) {
        qio_channel_close(s->main, NULL);
        qio_channel_unref(s->main);
    }
    if (s->locked) {
        /* Whoever passed the descriptor may keep it open, and the lock is that of all duplicates. */
        file_set_lock(s, F_UNLCK);
    }
    if (s->fd >= 0) {
        close(s->fd);
    }
    g_free(s);
}

/* A channel over @fd (owned) that errors call by the name that the user gave. */
static QIOChannel *file_channel(MigrationChannels *mc, int fd, Error **errp)
{
    const MigrationAddress *addr = mc->addr;
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_file_new_fd(fd, errp));

    if (ioc) {
        qio_channel_set_target(ioc, addr->transport == MIGRATION_ADDRESS_TYPE_FILE
                                        ? addr->u.file.filename : addr->u.socket.u.fd.str);
    }
    return ioc;
}

/* With O_APPEND a write goes to the end, whatever offset it is meant for. */
static int check_no_append(MigrationChannels *mc, int fd, Error **errp)
{
    if (!mc->incoming && fcntl(fd, F_GETFL) & O_APPEND) {
        error_setg(errp, "%s is open with O_APPEND: nothing can be written to an offset in it",
                   mc->describe);
        return -1;
    }
    return 0;
}

/* Take @fd (owned) as the main channel, standing at @offset. */
static int file_set_main(MigrationChannels *mc, int fd, const char *path, uint64_t offset,
                         Error **errp)
{
    FileState *s = g_new0(FileState, 1);
    struct stat st;

    mc->state = s;
    s->fd = -1;
    s->path = path;
    s->offset = offset;
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at %s", mc->describe);
        close(fd);
        return -1;
    }
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    s->regular = S_ISREG(st.st_mode);
    if (!s->regular && !S_ISBLK(st.st_mode)) {
        error_setg(errp, "%s is neither a regular file nor a block device", mc->describe);
        close(fd);
        return -1;
    }
    if (check_no_append(mc, fd, errp) < 0) {
        close(fd);
        return -1;
    }
    s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (s->fd < 0) {
        error_setg_errno(errp, errno, "cannot duplicate the descriptor of %s", mc->describe);
        close(fd);
        return -1;
    }
    s->main = file_channel(mc, fd, errp);
    if (!s->main) {
        return -1;
    }
    return qio_channel_io_seek(s->main, offset, SEEK_SET, errp) < 0 ? -1 : 0;
}

static char *proc_path(int fd)
{
    return g_strdup_printf("/proc/self/fd/%d", fd);
}

/* An fd: address is opened again through /proc, since O_DIRECT belongs to an open description. */
static int reopen(MigrationChannels *mc, int flags, Error **errp)
{
    FileState *s = mc->state;

    if (s->path) {
        return io_open(s->path, flags, 0, errp);
    }

    g_autofree char *path = proc_path(s->fd);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0 && !(flags & O_DIRECT)) {
        fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
    }
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open %s again", mc->describe);
    }
    return fd;
}

static QIOChannel *file_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    FileState *s = mc->state;
    int flags = (mc->incoming ? O_RDONLY : O_WRONLY) | (direct_io ? O_DIRECT : 0);
    struct stat st;
    int fd = reopen(mc, flags, errp);

    if (fd < 0) {
        if (direct_io) {
            error_prepend(errp, "capability 'bypass-cache' needs O_DIRECT on %s: ", mc->describe);
        }
        return NULL;
    }
    if (fstat(fd, &st) < 0 || st.st_dev != s->dev || st.st_ino != s->ino) {
        error_setg(errp, s->path && path_is_fdset(s->path)
                             ? "the descriptors of %s are of different files"
                             : "%s was replaced while it was being used", mc->describe);
        close(fd);
        return NULL;
    }
    if (check_no_append(mc, fd, errp) < 0) {
        close(fd);
        return NULL;
    }
    return file_channel(mc, fd, errp);
}

/* What will be refused later anyway is refused while an earlier save is still in the file. */
static int check_direct(MigrationChannels *mc, Error **errp)
{
    QIOChannel *ioc;
    int ret;

    if (!mc->want_direct) {
        return 0;
    }
    ioc = file_extra(mc, true, errp);
    if (!ioc) {
        return -1;
    }
    ret = file_io_check_direct(ioc, mc->describe, errp);
    qio_channel_close(ioc, NULL);
    qio_channel_unref(ioc);
    return ret;
}

static int file_lock(MigrationChannels *mc, Error **errp)
{
    FileState *s = mc->state;

    s->locked = file_set_lock(s, mc->incoming ? F_RDLCK : F_WRLCK);
    if (!s->locked && (errno == EAGAIN || errno == EACCES)) {
        error_setg(errp, "%s is in use: %s", mc->describe,
                   mc->incoming ? "a machine is being saved into it"
                                : "another save, a load or a disk has it open");
        return -1;
    }
    return 0;                           /* or there are no locks on this file system */
}

/* Saving: drop what an earlier save left behind the place where the stream begins. */
static int file_truncate(MigrationChannels *mc, Error **errp)
{
    FileState *s = mc->state;

    if (s->regular && ftruncate(s->fd, s->offset) < 0) {
        error_setg_errno(errp, errno, "cannot truncate %s to %" PRIu64 " bytes", mc->describe,
                         s->offset);
        return -1;
    }
    return 0;
}

/* The file is open: see that it will do, and that it is ours. */
static int file_begin(MigrationChannels *mc, Error **errp)
{
    if (check_direct(mc, errp) < 0 || file_lock(mc, errp) < 0) {
        return -1;
    }
    return mc->incoming ? 0 : file_truncate(mc, errp);
}

static int check_offset(MigrationChannels *mc, uint64_t offset, Error **errp)
{
    if (offset > INT64_MAX) {
        error_setg(errp, "offset %" PRIu64 " in %s is beyond what a file can have", offset,
                   mc->describe);
        return -1;
    }
    return 0;
}

/* Opening a pipe by its name waits for its other end, and would keep the main thread. */
static int open_file(const char *path, int flags, Error **errp)
{
    int fd = io_open(path, flags | O_NONBLOCK, 0600, errp);

    /* Descriptors of a set share their flags with others. */
    if (fd >= 0 && !path_is_fdset(path)) {
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    }
    return fd;
}

static int file_outgoing(MigrationChannels *mc, Error **errp)
{
    const FileMigrationArgs *args = &mc->addr->u.file;

    if (check_offset(mc, args->offset, errp) < 0) {
        return -1;
    }
    int fd = open_file(args->filename, O_CREAT | O_WRONLY, errp);
    if (fd < 0 || file_set_main(mc, fd, args->filename, args->offset, errp) < 0) {
        return -1;
    }
    return file_begin(mc, errp);
}

static int file_incoming(MigrationChannels *mc, Error **errp)
{
    const FileMigrationArgs *args = &mc->addr->u.file;

    if (check_offset(mc, args->offset, errp) < 0) {
        return -1;
    }
    int fd = open_file(args->filename, O_RDONLY, errp);
    if (fd < 0 || file_set_main(mc, fd, args->filename, args->offset, errp) < 0) {
        return -1;
    }
    return file_begin(mc, errp);
}

static int seekable_fd_setup(MigrationChannels *mc, Error **errp)
{
    int fd = mc->fd;
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    off_t offset = lseek(fd, 0, SEEK_CUR);

    if (mode != O_RDWR && mode != (mc->incoming ? O_RDONLY : O_WRONLY)) {
        error_setg(errp, "%s is not open for %s", mc->describe,
                   mc->incoming ? "reading" : "writing");
        return -1;
    }
    if (offset < 0) {
        error_setg_errno(errp, errno, "cannot tell where %s stands", mc->describe);
        return -1;
    }
    mc->fd = -1;
    return file_set_main(mc, fd, NULL, offset, errp) < 0 ? -1 : file_begin(mc, errp);
}

static QIOChannel *file_main(MigrationChannels *mc, Error **errp)
{
    FileState *s = mc->state;

    return g_steal_pointer(&s->main);
}

/* The file must still be what its name means; else what was written is lost with the descriptor. */
static int check_still_there(MigrationChannels *mc, Error **errp)
{
    FileState *s = mc->state;
    struct stat st;

    if (!s->path || path_is_fdset(s->path)) {
        return 0;                       /* whoever opened it knows what it is */
    }
    if (stat(s->path, &st) < 0) {
        error_setg_errno(errp, errno, "%s is gone", mc->describe);
        return -1;
    }
    if (st.st_dev != s->dev || st.st_ino != s->ino) {
        error_setg(errp, "%s was replaced while it was being written", mc->describe);
        return -1;
    }
    return 0;
}

static int check_length(MigrationChannels *mc, Error **errp)
{
    FileState *s = mc->state;
    struct stat st;
    off_t end = qio_channel_io_seek(mc->main, 0, SEEK_CUR, errp);

    if (end < 0) {
        return -1;
    }
    if (s->regular && fstat(s->fd, &st) == 0 && st.st_size < end) {
        error_setg(errp, "%s was truncated to %jd bytes while it was being written, %jd are needed",
                   mc->describe, (intmax_t)st.st_size, (intmax_t)end);
        return -1;
    }
    return 0;
}

/* Where the file really is: the name that was given may be a symbolic link. */
static char *directory_of(FileState *s)
{
    g_autofree char *link = proc_path(s->fd);
    g_autofree char *real = g_file_read_link(link, NULL);

    return g_path_get_dirname(real && real[0] == '/' ? real : s->path);
}

/*
 * The directory entry of a new file is data of the directory. A directory that we may not read can
 * only be made durable with everything else on its file system.
 */
static int sync_directory(MigrationChannels *mc, Error **errp)
{
    FileState *s = mc->state;
    g_autofree char *dir = NULL;
    int fd, ret;

    if (!s->path || path_is_fdset(s->path) || s->dir_synced) {
        return 0;
    }
    dir = directory_of(s);
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ret = fd < 0 ? syncfs(s->fd) : fsync(fd);
    /* Some file systems cannot sync a directory, and say so; their entries need no help. */
    if (ret < 0 && errno != EINVAL && errno != EROFS) {
        error_setg_errno(errp, errno, "cannot make directory '%s' durable", dir);
    } else {
        ret = 0;
        s->dir_synced = true;
    }
    if (fd >= 0) {
        close(fd);
    }
    return ret;
}

static int file_flush(MigrationChannels *mc, Error **errp)
{
    if (fsync(((FileState *)mc->state)->fd) < 0) {
        error_setg_errno(errp, errno, "cannot make %s durable", mc->describe);
        return -1;
    }
    return 0;
}

static int file_finish(MigrationChannels *mc, Error **errp)
{
    if (file_flush(mc, errp) < 0) {
        return -1;
    }
    if (check_still_there(mc, errp) < 0 || check_length(mc, errp) < 0) {
        return -1;
    }
    return sync_directory(mc, errp);
}

const MigrationTransport transport_file = {
    .name = "file",
    .seekable = true,
    .several = true,
    .outgoing = file_outgoing,
    .incoming = file_incoming,
    .connect = file_main,
    .open_extra = file_extra,
    .accept = file_main,
    .accept_extra = file_extra,
    .flush = file_flush,
    .finish = file_finish,
    .free = file_free,
};

const MigrationTransport transport_seekable_fd = {
    .name = "fd",
    .seekable = true,
    .several = true,
    .outgoing = seekable_fd_setup,
    .incoming = seekable_fd_setup,
    .connect = file_main,
    .open_extra = file_extra,
    .accept = file_main,
    .accept_extra = file_extra,
    .flush = file_flush,
    .finish = file_finish,
    .free = file_free,
};
