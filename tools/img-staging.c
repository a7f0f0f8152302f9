/*
 * New images get their names when they are whole.
 *
 * The file is made beside its final place as NAME.part-XXXXXX and renamed at the end, which
 * replaces what had the name in one step. What an end of the process in between leaves is the part,
 * never half an image under the name. Devices, descriptors and whatever a server keeps are written
 * in place.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/img-common.h"

#define PART_SUFFIX ".part-XXXXXX"

/* Nobody may be using what is to be replaced: its locks say so. */
static int check_unused(const char *path, Error **errp)
{
    ImgOpen how = { .format = "raw", .writable = true, .quiet = true };
    g_autofree char *name = g_strdup_printf("file:%s", path);
    BlockBackend *blk = img_open(name, &how, errp);

    if (!blk) {
        return -1;
    }
    blk_unref(blk);
    return 0;
}

/* The new file is to have the rights of the one that it replaces. */
static int look_at_old(ImgStaging *s, Error **errp)
{
    struct stat st;

    if (stat(s->final, &st) < 0) {
        if (errno != ENOENT) {
            error_setg_errno(errp, errno, "Could not look at '%s'", s->final);
            return -1;
        }
        return 0;
    }
    s->replaces = true;
    s->mode = st.st_mode & 07777;
    s->changed = st.st_mtim;
    s->uid = st.st_uid;
    s->gid = st.st_gid;
    return check_unused(s->final, errp);
}

/*
 * A directory of the file system that makes regular files: not /dev/stdout, /proc/self/fd/3,
 * /dev/fdset/1.
 */
static bool is_special(const char *path)
{
    return g_str_has_prefix(path, "/dev/fd") || g_str_has_prefix(path, "/dev/std") ||
           g_str_has_prefix(path, "/proc/");
}

static char *part_name(const char *final)
{
    g_autofree char *dir = g_path_get_dirname(final), *base = g_path_get_basename(final);
    g_autofree char *part = NULL;

    if (strlen(base) + strlen(PART_SUFFIX) > NAME_MAX) {
        base[NAME_MAX - strlen(PART_SUFFIX)] = '\0';
    }
    part = g_strconcat(base, PART_SUFFIX, NULL);
    return strchr(final, '/') ? g_build_filename(dir, part, NULL) : g_steal_pointer(&part);
}

static mode_t usual_mode(void)
{
    mode_t mask = umask(0);

    umask(mask);
    return 0644 & ~mask;
}

/* A name for the block layer: a colon in it is no protocol. */
static char *block_name(const char *path)
{
    return strchr(path, ':') ? g_strdup_printf("file:%s", path) : g_strdup(path);
}

/* Where only the file itself may be written it has to be. */
static int write_in_place(ImgStaging *s, const char *filename)
{
    s->in_place = g_steal_pointer(&s->final);
    s->name = g_strdup(filename);
    return 0;
}

/* In a directory like /tmp only the owner of a name, or of the directory, may give it away. */
static bool may_not_rename(const ImgStaging *s)
{
    g_autofree char *dir = g_path_get_dirname(s->final);
    uid_t us = geteuid();
    struct stat st;

    return s->replaces && us != 0 && us != s->uid && stat(dir, &st) == 0 &&
           st.st_mode & S_ISVTX && us != st.st_uid;
}

static int make_part(ImgStaging *s, const char *filename, Error **errp)
{
    g_autofree char *part = part_name(s->final);
    int fd, err;

    if (may_not_rename(s)) {
        return write_in_place(s, filename);
    }
    fd = mkostemp(part, O_CLOEXEC);
    err = errno;
    if (fd < 0 && s->replaces && (err == EACCES || err == EPERM || err == EROFS)) {
        return write_in_place(s, filename);
    }
    if (fd < 0) {
        error_setg_errno(errp, err, "Could not create '%s'", s->final);
        return -1;
    }
    if (fchmod(fd, usual_mode()) < 0) {
        error_setg_errno(errp, errno, "Could not set the mode of '%s'", part);
        close(fd);
        unlink(part);
        return -1;
    }
    close(fd);
    img_signal_unlink(part);
    s->name = block_name(part);
    s->path = g_steal_pointer(&part);
    return 0;
}

int img_staging_begin(ImgStaging *s, const char *filename, Error **errp)
{
    g_autofree char *path = img_path_of(filename);
    char *real = NULL;
    struct stat st;

    *s = (ImgStaging) { 0 };
    if (!path || is_special(path) || (stat(path, &st) == 0 && !S_ISREG(st.st_mode))) {
        s->name = g_strdup(filename);
        return 0;
    }
    /* A symbolic link stays one. */
    if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) {
        real = realpath(path, NULL);
    }
    s->final = g_strdup(real ? real : path);
    free(real);
    return look_at_old(s, errp) < 0 ? -1 : make_part(s, filename, errp);
}

/* Who is not root may not give a file away: then its mode is all that can be kept. */
static int take_over_rights(ImgStaging *s, Error **errp)
{
    if (chown(s->path, s->uid, s->gid) < 0 && errno != EPERM) {
        error_setg_errno(errp, errno, "Could not set the owner of '%s'", s->path);
        return -1;
    }
    if (chmod(s->path, s->mode) < 0) {
        error_setg_errno(errp, errno, "Could not set the mode of '%s'", s->path);
        return -1;
    }
    return 0;
}

int img_staging_commit(ImgStaging *s, Error **errp)
{
    g_clear_pointer(&s->in_place, g_free);
    if (!s->path) {
        return 0;
    }
    if (s->replaces && take_over_rights(s, errp) < 0) {
        return -1;
    }
    if (rename(s->path, s->final) < 0) {
        error_setg_errno(errp, errno, "Could not give '%s' its name '%s'", s->path, s->final);
        return -1;
    }
    img_signal_unlink(NULL);
    g_clear_pointer(&s->path, g_free);
    return 0;
}

/* Whether a file that is written in place is still what it was. */
static bool is_untouched(const ImgStaging *s)
{
    struct stat st;

    return stat(s->in_place, &st) == 0 && st.st_mtim.tv_sec == s->changed.tv_sec &&
           st.st_mtim.tv_nsec == s->changed.tv_nsec;
}

void img_staging_end(ImgStaging *s)
{
    if (s->path) {
        unlink(s->path);
        img_signal_unlink(NULL);
    }
    if (s->in_place && !is_untouched(s) && truncate(s->in_place, 0) < 0) {
        error_report("'%s' holds a part of an image: it could not be emptied: %s", s->in_place,
                     g_strerror(errno));
    }
    g_clear_pointer(&s->path, g_free);
    g_clear_pointer(&s->name, g_free);
    g_clear_pointer(&s->final, g_free);
    g_clear_pointer(&s->in_place, g_free);
}
