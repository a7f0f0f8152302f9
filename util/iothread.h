/*
 * IOThread: a thread that runs an AioContext.
 *
 * Made by the main thread under a name; nodes, exports and devices that name it have their requests
 * served there. The program stops it only when nobody uses it any more.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef UTIL_IOTHREAD_H
#define UTIL_IOTHREAD_H

#include "util/aio.h"

typedef struct IOThread IOThread;

/*
 * Start a thread called @id (copied). @poll_max_ns: see aio_context_set_poll_max_ns().
 * Returns: the iothread, in use by nobody, or NULL with @errp set.
 */
IOThread *iothread_new(const char *id, int64_t poll_max_ns, Error **errp);
/* Stop the thread and free it. Nobody uses it: iothread_users() is 0. */
void iothread_free(IOThread *iothread);
/* The iothread of that name, NULL when there is none. Main thread. */
IOThread *iothread_by_id(const char *id);
AioContext *iothread_context(IOThread *iothread);
const char *iothread_id(const IOThread *iothread);
/* The kernel's number of the thread. */
int64_t iothread_thread_id(const IOThread *iothread);
/* Count those who depend on it. Main thread. */
void iothread_get(IOThread *iothread);
void iothread_put(IOThread *iothread);
unsigned iothread_users(const IOThread *iothread);
/* Call @fn for each, in the order in which they were made. Main thread. */
void iothread_foreach(void (*fn)(IOThread *iothread, void *opaque), void *opaque);

#endif
