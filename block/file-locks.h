/*
 * Locks on image files: permissions that other processes see.
 *
 * A permission in use is a lock on byte 100 + its bit, a permission that is not shared one on byte
 * 200 + its bit. All are open file description locks for reading, so that any number of users can
 * state what they do; who wants a permission looks whether somebody else's lock on the other byte
 * forbids it. QEMU's programs use the same bytes, hence they and Ferry's exclude each other.
 *
 * Main thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_FILE_LOCKS_H
#define BLOCK_FILE_LOCKS_H

#include "block/common.h"

/* What is locked on a file. Zeroed: nothing. */
typedef struct FileLocks {
    uint64_t perm, unshared;            /* committed: in use, not shared */
    uint64_t held_perm, held_unshared;  /* bytes that are locked: these and those being prepared */
} FileLocks;

/* Whether the file can be locked; a negative errno when not. */
int file_locks_supported(int fd);

/*
 * file_locks_prepare:
 * @fd: the file; @filename: its name, for messages
 * @perm, @shared: BlockPermission from now on
 *
 * Lock what is needed besides what is held, and see whether everybody else goes along.
 * Returns: 0; then file_locks_commit() or file_locks_abort() must follow. Or -1 with @errp set to
 * who refuses what, the locks being as before.
 */
int file_locks_prepare(FileLocks *locks, int fd, const char *filename, uint64_t perm,
                       uint64_t shared, Error **errp);
/* Give up what is not needed any more. */
void file_locks_commit(FileLocks *locks, int fd, uint64_t perm, uint64_t shared);
/* Give up what was prepared. */
void file_locks_abort(FileLocks *locks, int fd);
/* Take what is held on another description of the same file, too. 0 or a negative errno. */
int file_locks_copy(const FileLocks *locks, int to_fd);

#endif
