/*
 * Anonymous memory of its own mapping. madvise() drops our reference to the pages, not that of
 * others.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/fresh-pages.h"

#include <errno.h>
#include <glib.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t whole_pages(size_t size)
{
    size_t page = getpagesize();

    return (size + page - 1) / page * page;
}

void *fresh_pages_new(size_t size)
{
    void *pages = mmap(NULL, whole_pages(size), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED) {
        g_error("%zu bytes of memory: %s", size, g_strerror(errno));
    }
    /* A huge page that is lent in part would be kept whole. */
    madvise(pages, whole_pages(size), MADV_NOHUGEPAGE);
    return pages;
}

void fresh_pages_renew(void *pages, size_t size)
{
    if (size && madvise(pages, whole_pages(size), MADV_DONTNEED) < 0) {
        g_error("giving up %zu bytes of memory: %s", size, g_strerror(errno));
    }
}

void fresh_pages_free(void *pages, size_t size)
{
    if (pages) {
        munmap(pages, whole_pages(size));
    }
}
