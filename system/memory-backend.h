/*
 * Memory backends: RAMBlocks that a person creates as objects, for the machine to use as its
 * memory.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_MEMORY_BACKEND_H
#define SYSTEM_MEMORY_BACKEND_H

#include "system/object.h"
#include "system/ramblock.h"

/* The bytes of a backend by its id, or 0 when there is no such memory backend. */
uint64_t memory_backend_size(const char *id);

/*
 * memory_backend_claim:
 * @id: an object that must be a memory backend
 *
 * Take its memory for oneself: nobody else can, and the object cannot be deleted until
 * memory_backend_release(). Under the big lock.
 *
 * Returns: the block, owned by the backend; NULL with @errp set when there is no such backend or it
 * is claimed already.
 */
RAMBlock *memory_backend_claim(const char *id, Error **errp);
void memory_backend_release(const char *id);

extern const UserObjectClass memory_backend_ram_class, memory_backend_file_class,
    memory_backend_memfd_class;

#endif
