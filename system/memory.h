/*
 * The guest's physical address space and its I/O ports.
 *
 * A flat map: ranges of RAM (a part of a RAMBlock), ranges of MMIO, and ports, none overlapping.
 * The map is changed under the big lock (machine creation, device realize, device_add).
 * Reads and writes through address_space_rw() may come from any thread; MMIO and port handlers run
 * under the big lock (the dispatcher takes it where the caller does not hold it).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_MEMORY_H
#define SYSTEM_MEMORY_H

#include "system/ramblock.h"

typedef struct IOOps {
    /* @offset from the start of the region; @size 1, 2, 4 or 8 bytes (ports: 1, 2, 4). */
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
    /*
     * Access sizes the device accepts: a larger access is split, a smaller one refused (reads give
     * all ones, writes do nothing). A NULL function refuses likewise.
     */
    unsigned min_size, max_size;        /* 0: 1 and 8 */
} IOOps;

/*
 * Map @size bytes of @block from @offset at @gpa. All page aligned. Tells the accelerator. Writes
 * to a @readonly range do nothing.
 */
int memory_map_ram(const char *name, uint64_t gpa, RAMBlock *block, uint64_t offset, uint64_t size,
                   bool readonly, Error **errp);
int memory_map_mmio(const char *name, uint64_t gpa, uint64_t size, const IOOps *ops, void *opaque,
                    Error **errp);
int memory_map_ports(const char *name, uint16_t port, uint16_t count, const IOOps *ops,
                     void *opaque, Error **errp);
/* Take out every MMIO and port range that was mapped with @opaque. */
void memory_unmap_opaque(void *opaque);
/* Take out every range of @block, before it is freed; the accelerator must be gone by then. */
void memory_unmap_block(RAMBlock *block);

/* What accelerators need: every RAM range, in ascending order of address. */
typedef struct RAMRange {
    uint64_t gpa;
    uint64_t size;
    RAMBlock *block;
    uint64_t offset;            /* in the block */
    bool readonly;
} RAMRange;
unsigned memory_ram_ranges(const RAMRange **ranges);
/*
 * Called for each range mapped so far, and later for each as it is mapped. One listener, the
 * accelerator.
 */
typedef int (*RAMRangeListener)(const RAMRange *range, void *opaque, Error **errp);
int memory_set_listener(RAMRangeListener listener, void *opaque, Error **errp);

/*
 * Copy between @buf and guest physical memory; RAM written is marked dirty. Stops at the first
 * address where nothing is.
 * Returns: 0, or -1 when part of the range is not mapped (reads there give all ones).
 */
int address_space_rw(uint64_t gpa, void *buf, uint64_t len, bool is_write);
static inline int address_space_read(uint64_t gpa, void *buf, uint64_t len)
{
    return address_space_rw(gpa, buf, len, false);
}
static inline int address_space_write(uint64_t gpa, const void *buf, uint64_t len)
{
    return address_space_rw(gpa, (void *)buf, len, true);
}
/* Fill with a byte; for loaders and the qtest server. */
int address_space_set(uint64_t gpa, uint8_t byte, uint64_t len);
/*
 * Host pointer to RAM at @gpa, and how many of @len bytes are contiguous from there; NULL when it
 * is not (writable) RAM. After writing call ram_block_mark_dirty() or address_space_unmap_write().
 */
void *address_space_map(uint64_t gpa, uint64_t *len, bool is_write);
void address_space_unmap_write(void *host, uint64_t len);

/* Ports, as a vCPU's in and out instructions or the qtest server reach them. */
uint32_t port_read(uint16_t port, unsigned size);
void port_write(uint16_t port, uint32_t value, unsigned size);

/* A listing in the layout of HMP's "info mtree". Caller frees. */
char *memory_describe(void);

#endif
