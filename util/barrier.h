/*
 * What threads that share memory without a lock need.
 *
 * memory_barrier() is a full one. It is needed where a thread writes data, then looks at a flag
 * that another thread sets before it reads the data: neither acquire nor release orders a store
 * with a later load.
 *
 * GUEST_WRITER goes before a function that writes guest memory as a guest does, while others read
 * it: a page that was written while it was read is marked, and read again. ThreadSanitizer is not
 * to look at such a function; what it calls is looked at all the same.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_BARRIER_H
#define UTIL_BARRIER_H

#ifdef __SANITIZE_THREAD__
#define GUEST_WRITER __attribute__((no_sanitize("thread")))

/*
 * ThreadSanitizer knows no fences; a read-modify-write of one word by all barriers orders as much.
 */
__attribute__((weak)) int memory_barrier_word;

static inline void memory_barrier(void)
{
    __atomic_fetch_add(&memory_barrier_word, 1, __ATOMIC_SEQ_CST);
}
#else
#define GUEST_WRITER

static inline void memory_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif

#endif
