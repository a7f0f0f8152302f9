/*
 * Vectors of buffers (struct iovec): measuring, copying in and out, cutting.
 *
 * No function here allocates the memory that a vector points to or owns it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_IOV_H
#define UTIL_IOV_H

#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Bytes in all @niov elements. */
size_t iov_size(const struct iovec *iov, unsigned niov);

/*
 * Copy up to @bytes bytes between the vector, beginning @offset bytes into it, and @buf.
 * Returns the number of bytes copied: less than @bytes when the vector ends before.
 */
size_t iov_from_buf(const struct iovec *iov, unsigned niov, size_t offset, const void *buf,
                    size_t bytes);
size_t iov_to_buf(const struct iovec *iov, unsigned niov, size_t offset, void *buf, size_t bytes);

/* Set up to @bytes bytes, beginning @offset bytes into the vector; returns how many were set. */
size_t iov_memset(const struct iovec *iov, unsigned niov, size_t offset, int fill, size_t bytes);

/*
 * Take @bytes bytes off the front: elements that are used up are skipped (*@iov moves on, *@niov
 * shrinks), the first that remains is shortened in place. Returns the bytes taken, less than @bytes
 * only when the vector has no more.
 */
size_t iov_discard_front(struct iovec **iov, unsigned *niov, size_t bytes);

/* Take @bytes bytes off the end, in the same way; *@niov shrinks. */
size_t iov_discard_back(struct iovec *iov, unsigned *niov, size_t bytes);

/*
 * Describe @bytes bytes of @src, beginning @offset bytes into it, in @dst, which has room for
 * @dst_max elements. Returns the number of elements used; the description ends early when @src or
 * @dst does.
 */
unsigned iov_copy(struct iovec *dst, unsigned dst_max, const struct iovec *src, unsigned src_n,
                  size_t offset, size_t bytes);

#endif
