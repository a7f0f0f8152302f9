/*
 * Guest virtual addresses: the page walk of an x86 vCPU, done by reading its tables in guest
 * memory.
 *
 * For monitors (x, memsave), not for running guests: access rights and the accessed and dirty bits
 * are not looked at, nothing is cached. Callers synchronise the vCPU's state first
 * (cpu_synchronize_state()) and hold the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_PAGE_WALK_H
#define SYSTEM_PAGE_WALK_H

#include "system/cpu-state.h"

/*
 * page_walk:
 * @env: control registers and paging mode: none, 32-bit, PAE, 4 or 5 levels
 * @vaddr: linear address; canonical in long mode, below 4 GiB otherwise
 * @gpa: set to the guest physical address
 * @contiguous: set to the number of bytes from @vaddr to the end of the page found; may be NULL
 *
 * Returns: 0, or -1 when the address is not mapped (or a table is outside RAM).
 */
int page_walk(const X86CPUState *env, uint64_t vaddr, uint64_t *gpa, uint64_t *contiguous);

/* Copy @len bytes from virtual address @vaddr. Returns 0, or -1 when not all of it is mapped. */
int page_walk_read(const X86CPUState *env, uint64_t vaddr, void *buf, uint64_t len);

#endif
