/*
 * Memory for bytes that somebody else may read at any time later: pages that are filled once.
 *
 * What was lent to the kernel (qio_channel_writev_lent_all()) may not be written again, because the
 * reader would see it, and nobody says when it has read. So the pages are given up: the kernel
 * keeps those that it still needs, and the same addresses hold new ones.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_FRESH_PAGES_H
#define UTIL_FRESH_PAGES_H

#include <stddef.h>

/*
 * At least @size bytes, zero, page-aligned. Never NULL: the process ends when there is no memory.
 */
void *fresh_pages_new(size_t size);
/* The first @size bytes are wanted anew, as zeroes; what was lent of them keeps its contents. */
void fresh_pages_renew(void *pages, size_t size);
/* @size as given to fresh_pages_new(). NULL is allowed. */
void fresh_pages_free(void *pages, size_t size);

#endif
