/*
 * Buffers in a row. A vector of one element keeps it inside; more go into an array that doubles.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/iovector.h"

#include <glib.h>
#include <string.h>

#include "util/iov.h"
#include "util/zero.h"

void iovector_init(IOVector *v, unsigned hint)
{
    *v = (IOVector) { .iov = &v->local };
    if (hint > 1) {
        v->iov = g_new(struct iovec, hint);
        v->allocated = hint;
    }
}

void iovector_init_buf(IOVector *v, void *buf, size_t len)
{
    *v = (IOVector) {
        .iov = &v->local, .niov = 1, .size = len, .local = { .iov_base = buf, .iov_len = len },
    };
}

void iovector_init_external(IOVector *v, struct iovec *iov, unsigned niov)
{
    *v = (IOVector) { .iov = iov, .niov = niov, .size = iov_size(iov, niov) };
}

/* Find the element in which byte @offset lies; *@skip receives its position in there. */
static unsigned element_at(const IOVector *v, size_t offset, size_t *skip)
{
    unsigned i = 0;

    while (i < v->niov && offset >= v->iov[i].iov_len) {
        offset -= v->iov[i].iov_len;
        i++;
    }
    *skip = offset;
    return i;
}

static void check_range(const IOVector *v, size_t offset, size_t len)
{
    g_assert(offset <= v->size && len <= v->size - offset);
}

void iovector_init_slice(IOVector *v, const IOVector *src, size_t offset, size_t len)
{
    unsigned first, end;
    size_t skip, covered;

    check_range(src, offset, len);
    first = end = element_at(src, offset, &skip);
    for (covered = 0; covered < len + skip; end++) {
        covered += src->iov[end].iov_len;
    }
    iovector_init(v, end - first);
    iovector_concat(v, src, offset, len);
}

void iovector_destroy(IOVector *v)
{
    if (v->allocated) {
        g_free(v->iov);
    }
    *v = (IOVector) { .iov = &v->local };
}

void iovector_reset(IOVector *v)
{
    g_assert(v->allocated || v->iov == &v->local);
    v->niov = 0;
    v->size = 0;
}

static void grow(IOVector *v)
{
    unsigned room = v->allocated ? v->allocated * 2 : 8;

    g_assert(room > v->allocated);
    if (v->allocated) {
        v->iov = g_renew(struct iovec, v->iov, room);
    } else {
        v->iov = g_new(struct iovec, room);
        v->iov[0] = v->local;
    }
    v->allocated = room;
}

void iovector_add(IOVector *v, void *base, size_t len)
{
    g_assert(v->allocated || v->iov == &v->local);
    if (v->niov == (v->allocated ? v->allocated : 1)) {
        grow(v);
    }
    v->iov[v->niov++] = (struct iovec) { .iov_base = base, .iov_len = len };
    g_assert(!__builtin_add_overflow(v->size, len, &v->size));
}

void iovector_concat(IOVector *v, const IOVector *src, size_t offset, size_t len)
{
    size_t skip;
    unsigned i;

    g_assert(v != src);
    check_range(src, offset, len);
    for (i = element_at(src, offset, &skip); len > 0; i++) {
        size_t n = MIN(src->iov[i].iov_len - skip, len);

        if (n > 0) {
            iovector_add(v, (char *)src->iov[i].iov_base + skip, n);
        }
        len -= n;
        skip = 0;
    }
}

void iovector_from_buf(const IOVector *v, size_t offset, const void *buf, size_t len)
{
    check_range(v, offset, len);
    iov_from_buf(v->iov, v->niov, offset, buf, len);
}

void iovector_to_buf(const IOVector *v, size_t offset, void *buf, size_t len)
{
    check_range(v, offset, len);
    iov_to_buf(v->iov, v->niov, offset, buf, len);
}

void iovector_memset(const IOVector *v, size_t offset, int fill, size_t len)
{
    check_range(v, offset, len);
    iov_memset(v->iov, v->niov, offset, fill, len);
}

bool iovector_is_zero(const IOVector *v, size_t offset, size_t len)
{
    size_t skip;

    check_range(v, offset, len);
    for (unsigned i = element_at(v, offset, &skip); len > 0; i++) {
        size_t n = MIN(v->iov[i].iov_len - skip, len);

        if (!buffer_is_zero((const char *)v->iov[i].iov_base + skip, n)) {
            return false;
        }
        len -= n;
        skip = 0;
    }
    return true;
}

bool iovector_is_aligned(const IOVector *v, size_t align)
{
    for (unsigned i = 0; i < v->niov; i++) {
        if ((uintptr_t)v->iov[i].iov_base % align || v->iov[i].iov_len % align) {
            return false;
        }
    }
    return true;
}
