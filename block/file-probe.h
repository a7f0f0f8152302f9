/*
 * What an open file is, and what its requests must keep to.
 *
 * Any thread; the functions make system calls that can read the file.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_FILE_PROBE_H
#define BLOCK_FILE_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Powers of two, in bytes. */
typedef struct FileAlignment {
    uint32_t request; /* of offsets and lengths of reads and writes; 1 when the cache takes any */
    uint32_t memory;            /* of buffers and of the elements of vectors */
    uint32_t sector; /* of a device: its logical sector, which zeroing and discarding keep to */
} FileAlignment;

/*
 * Find out. @direct: whether the descriptor was opened with O_DIRECT; @device: whether it is a
 * block device. What cannot be found out becomes 4096, which everything takes.
 */
void file_probe_alignment(int fd, bool direct, bool device, FileAlignment *align);

/* The length in bytes of a regular file or block device; a negative errno. */
int64_t file_probe_length(int fd);

/* Whether it lies in memory only: tmpfs and its like. */
bool file_probe_in_memory(int fd);

/* The file system's hint for the size of extents in bytes; 0: none, or nobody knows. */
uint64_t file_probe_extent_size_hint(int fd);

#endif
