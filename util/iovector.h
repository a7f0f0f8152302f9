/*
 * IOVector: a list of buffers that is built up, cut and passed along with a request.
 *
 * It owns its array of struct iovec, not the memory that they point to. One buffer needs no
 * allocation.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_IOVECTOR_H
#define UTIL_IOVECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

typedef struct IOVector {
    struct iovec *iov;
    unsigned niov;
    unsigned allocated;         /* elements of @iov that are the vector's own allocation; 0: none */
    size_t size;                /* bytes in all */
    struct iovec local;
} IOVector;

/* An empty vector with room for @hint elements; it grows. */
void iovector_init(IOVector *v, unsigned hint);
/* A vector of one buffer; needs no iovector_destroy(), which is harmless. */
void iovector_init_buf(IOVector *v, void *buf, size_t len);
/* A vector over @niov elements that stay the caller's; it cannot grow; needs no destroy. */
void iovector_init_external(IOVector *v, struct iovec *iov, unsigned niov);
/* A vector over @len bytes of @src from @offset on; destroy it. */
void iovector_init_slice(IOVector *v, const IOVector *src, size_t offset, size_t len);
void iovector_destroy(IOVector *v);
/* Forget all elements, keep the room. */
void iovector_reset(IOVector *v);
/* Append a buffer. */
void iovector_add(IOVector *v, void *base, size_t len);
/* Append @len bytes of @src from @offset on. */
void iovector_concat(IOVector *v, const IOVector *src, size_t offset, size_t len);
/* Copy to and from flat memory; the range must lie in the vector. */
void iovector_from_buf(const IOVector *v, size_t offset, const void *buf, size_t len);
void iovector_to_buf(const IOVector *v, size_t offset, void *buf, size_t len);
void iovector_memset(const IOVector *v, size_t offset, int fill, size_t len);
/* Whether @len bytes from @offset on are all zero. */
bool iovector_is_zero(const IOVector *v, size_t offset, size_t len);
/* Whether every element's address and length is a multiple of @align. */
bool iovector_is_aligned(const IOVector *v, size_t align);

#endif
