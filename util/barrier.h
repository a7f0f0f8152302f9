/*
 * A full memory barrier.
 *
 * Needed where a thread writes data, then looks at a flag that another thread sets before it reads
 * the data: neither acquire nor release orders a store with a later load.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_BARRIER_H
#define UTIL_BARRIER_H

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer knows no fences; a read-modify-write of one word by all barriers orders as much. */
__attribute__((weak)) int memory_barrier_word;

static inline void memory_barrier(void)
{
    __atomic_fetch_add(&memory_barrier_word, 1, __ATOMIC_SEQ_CST);
}
#else
static inline void memory_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

#endif
