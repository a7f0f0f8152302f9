/*
 * The guest's address space: one sorted array of regions for memory, one for ports.
 *
 * Nothing overlaps, so the region of an address is found by binary search, and the map is all there
 * is: no layers, no priorities. An access is cut at region borders; RAM is copied, a device is
 * asked in pieces that are a power of two in size, naturally aligned, and of a size it accepts.
 *
 * The map changes under the big lock, also while the machine runs (device_add). Threads without
 * that lock look up at the same time: a lookup returns a copy of the region, made under a lock of
 * the map's own.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/memory.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "system/bql.h"
#include "util/bswap.h"

#define PORTS 0x10000u

typedef struct Region {
    char *name;
    uint64_t start, size;
    RAMBlock *block;            /* NULL: MMIO, or ports */
    uint64_t offset;            /* in block */
    bool readonly;
    const IOOps *ops;
    void *opaque;
} Region;

static GArray *memory_regions, *port_regions;
static pthread_rwlock_t map_lock = PTHREAD_RWLOCK_INITIALIZER;
/* The RAM among memory_regions, as accelerators want it. */
static GArray *ram_ranges;
static RAMRangeListener listener;
static void *listener_opaque;

static unsigned n_regions(const GArray *regions)
{
    return regions ? regions->len : 0;
}

static Region *region_at(GArray *regions, unsigned index)
{
    return &g_array_index(regions, Region, index);
}

/* Index of the first region that ends behind @address. */
static unsigned region_lower(GArray *regions, uint64_t address)
{
    unsigned low = 0, high = n_regions(regions);

    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        const Region *region = region_at(regions, middle);

        if (region->start + (region->size - 1) < address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* A copy of the region that holds @address; its name is to be used under the big lock only. */
static bool region_find(GArray *const *regions, uint64_t address, Region *region)
{
    unsigned index;
    bool found;

    pthread_rwlock_rdlock(&map_lock);
    index = region_lower(*regions, address);
    found = index < n_regions(*regions) && region_at(*regions, index)->start <= address;
    if (found) {
        *region = *region_at(*regions, index);
    }
    pthread_rwlock_unlock(&map_lock);
    return found;
}

/* Takes a copy of region->name. */
static bool region_insert(GArray **regions, Region region, uint64_t last_address, Error **errp)
{
    uint64_t last;
    unsigned index;

    if (region.size == 0 || __builtin_add_overflow(region.start, region.size - 1, &last) ||
        last > last_address) {
        error_setg(errp, "Cannot map '%s': %" PRIu64 " bytes at 0x%" PRIx64 " are not in the "
                   "address space", region.name, region.size, region.start);
        return false;
    }
    index = region_lower(*regions, region.start);
    if (index < n_regions(*regions) && region_at(*regions, index)->start <= last) {
        const Region *other = region_at(*regions, index);

        error_setg(errp, "Cannot map '%s' at 0x%" PRIx64 "-0x%" PRIx64 ": '%s' is at 0x%" PRIx64
                   "-0x%" PRIx64, region.name, region.start, last, other->name, other->start,
                   other->start + (other->size - 1));
        return false;
    }
    region.name = g_strdup(region.name);
    pthread_rwlock_wrlock(&map_lock);
    if (!*regions) {
        *regions = g_array_new(FALSE, FALSE, sizeof(Region));
    }
    g_array_insert_val(*regions, index, region);
    pthread_rwlock_unlock(&map_lock);
    return true;
}

static void region_remove(GArray *regions, unsigned index)
{
    g_free(region_at(regions, index)->name);
    pthread_rwlock_wrlock(&map_lock);
    g_array_remove_index(regions, index);
    pthread_rwlock_unlock(&map_lock);
}

static void rebuild_ram_ranges(void)
{
    if (!ram_ranges) {
        ram_ranges = g_array_new(FALSE, FALSE, sizeof(RAMRange));
    }
    g_array_set_size(ram_ranges, 0);
    for (unsigned i = 0; i < n_regions(memory_regions); i++) {
        const Region *region = region_at(memory_regions, i);

        if (region->block) {
            RAMRange range = { region->start, region->size, region->block, region->offset,
                               region->readonly };

            g_array_append_val(ram_ranges, range);
        }
    }
}

int memory_map_ram(const char *name, uint64_t gpa, RAMBlock *block, uint64_t offset, uint64_t size,
                   bool readonly, Error **errp)
{
    Region region = { (char *)name, gpa, size, block, offset, readonly || block->readonly };
    RAMRange range = { gpa, size, block, offset, region.readonly };

    if ((gpa | offset | size) & ~TARGET_PAGE_MASK) {
        error_setg(errp,
                   "Cannot map '%s': 0x%" PRIx64 " bytes from 0x%" PRIx64 " of RAM block '%s' "
                   "at 0x%" PRIx64 " are not whole pages",
                   name, size, offset, block->idstr, gpa);
        return -1;
    }
    if (offset > block->used_length || size > block->used_length - offset) {
        error_setg(errp, "Cannot map '%s': RAM block '%s' ends before 0x%" PRIx64 " bytes from 0x%"
                   PRIx64, name, block->idstr, size, offset);
        return -1;
    }
    if (!region_insert(&memory_regions, region, UINT64_MAX, errp)) {
        return -1;
    }
    if (listener && listener(&range, listener_opaque, errp) < 0) {
        region_remove(memory_regions, region_lower(memory_regions, gpa));
        return -1;
    }
    block->guest_addr = MIN(block->guest_addr, gpa);
    rebuild_ram_ranges();
    return 0;
}

int memory_map_mmio(const char *name, uint64_t gpa, uint64_t size, const IOOps *ops, void *opaque,
                    Error **errp)
{
    Region region = { .name = (char *)name, .start = gpa, .size = size, .ops = ops,
                      .opaque = opaque };

    return region_insert(&memory_regions, region, UINT64_MAX, errp) ? 0 : -1;
}

int memory_map_ports(const char *name, uint16_t port, uint16_t count, const IOOps *ops,
                     void *opaque, Error **errp)
{
    Region region = { .name = (char *)name, .start = port, .size = count, .ops = ops,
                      .opaque = opaque };

    return region_insert(&port_regions, region, PORTS - 1, errp) ? 0 : -1;
}

static void unmap_from(GArray *regions, void *opaque)
{
    for (unsigned i = n_regions(regions); i-- > 0;) {
        const Region *region = region_at(regions, i);

        if (region->ops && region->opaque == opaque) {
            region_remove(regions, i);
        }
    }
}

void memory_unmap_opaque(void *opaque)
{
    unmap_from(memory_regions, opaque);
    unmap_from(port_regions, opaque);
}

void memory_unmap_block(RAMBlock *block)
{
    for (unsigned i = n_regions(memory_regions); i-- > 0;) {
        if (region_at(memory_regions, i)->block == block) {
            region_remove(memory_regions, i);
        }
    }
    block->guest_addr = UINT64_MAX;
    rebuild_ram_ranges();
}

unsigned memory_ram_ranges(const RAMRange **ranges)
{
    *ranges = ram_ranges ? (const RAMRange *)ram_ranges->data : NULL;
    return ram_ranges ? ram_ranges->len : 0;
}

int memory_set_listener(RAMRangeListener new_listener, void *opaque, Error **errp)
{
    const RAMRange *ranges;
    unsigned n = memory_ram_ranges(&ranges);

    for (unsigned i = 0; new_listener && i < n; i++) {
        if (new_listener(&ranges[i], opaque, errp) < 0) {
            return -1;
        }
    }
    listener = new_listener;
    listener_opaque = opaque;
    return 0;
}

/* The largest power of two that is at most @len and that @offset is a multiple of, at most 8. */
static unsigned natural_size(uint64_t offset, uint64_t len)
{
    unsigned size = 8;

    while (size > 1 && (size > len || offset % size)) {
        size /= 2;
    }
    return size;
}

static unsigned ops_min(const IOOps *ops)
{
    return ops->min_size ?: 1;
}

static unsigned ops_max(const IOOps *ops)
{
    return ops->max_size ?: 8;
}

static uint64_t all_ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (size * 8)) - 1;
}

/* One access of the guest's, @size bytes: whole where the device takes it, else in equal parts. */
static uint64_t device_read(const Region *region, uint64_t offset, unsigned size)
{
    unsigned part = MIN(size, ops_max(region->ops));
    uint64_t value = 0;

    if (size < ops_min(region->ops) || !region->ops->read) {
        return all_ones(size);
    }
    for (unsigned done = 0; done < size; done += part) {
        uint64_t bits = region->ops->read(region->opaque, offset + done, part);

        value |= (bits & all_ones(part)) << (done * 8);
    }
    return value;
}

static void device_write(const Region *region, uint64_t offset, uint64_t value, unsigned size)
{
    unsigned part = MIN(size, ops_max(region->ops));

    if (size < ops_min(region->ops) || !region->ops->write) {
        return;
    }
    for (unsigned done = 0; done < size; done += part) {
        region->ops->write(region->opaque, offset + done, (value >> (done * 8)) & all_ones(part),
                           part);
    }
}

/* Whether the caller must give the lock back. */
static bool take_bql(void)
{
    if (bql_locked()) {
        return false;
    }
    bql_lock();
    return true;
}

/* @len bytes within one region. */
static void mmio_rw(uint64_t gpa, uint8_t *buf, uint64_t len, bool is_write)
{
    bool taken = take_bql();
    Region region;
    /* Looked up again: before the lock was ours the device may have gone. */
    bool found = region_find(&memory_regions, gpa, &region) && region.ops;
    uint64_t offset = found ? gpa - region.start : gpa;

    while (len) {
        unsigned size = natural_size(offset, len);
        uint8_t bytes[8] = { 0 };

        if (is_write) {
            memcpy(bytes, buf, size);
            if (found) {
                device_write(&region, offset, ldq_le_p(bytes), size);
            }
        } else {
            stq_le_p(bytes, found ? device_read(&region, offset, size) : all_ones(size));
            memcpy(buf, bytes, size);
        }
        buf += size;
        offset += size;
        len -= size;
    }
    if (taken) {
        bql_unlock();
    }
}

static void ram_rw(const Region *region, uint64_t offset, uint8_t *buf, uint64_t len, bool is_write)
{
    uint8_t *host = region->block->host + region->offset + offset;

    if (!is_write) {
        memcpy(buf, host, len);
    } else if (!region->readonly) {
        memcpy(host, buf, len);
        ram_block_mark_dirty(region->block, region->offset + offset, len);
    }
}

int address_space_rw(uint64_t gpa, void *buf, uint64_t len, bool is_write)
{
    uint8_t *bytes = buf;

    while (len) {
        uint64_t offset, chunk;
        Region region;

        if (!region_find(&memory_regions, gpa, &region)) {
            if (!is_write) {
                memset(bytes, 0xff, len);
            }
            return -1;
        }
        offset = gpa - region.start;
        chunk = MIN(len, region.size - offset);
        if (region.block) {
            ram_rw(&region, offset, bytes, chunk, is_write);
        } else {
            mmio_rw(gpa, bytes, chunk, is_write);
        }
        bytes += chunk;
        len -= chunk;
        if (__builtin_add_overflow(gpa, chunk, &gpa) && len) {
            if (!is_write) {
                memset(bytes, 0xff, len);
            }
            return -1;
        }
    }
    return 0;
}

int address_space_set(uint64_t gpa, uint8_t byte, uint64_t len)
{
    uint8_t pattern[4096];

    memset(pattern, byte, sizeof(pattern));
    while (len) {
        uint64_t chunk = len;
        uint8_t *host = address_space_map(gpa, &chunk, true);

        if (host) {
            memset(host, byte, chunk);
            address_space_unmap_write(host, chunk);
        } else {
            /* To the end of the page: RAM begins and ends at pages. */
            chunk = MIN(len, sizeof(pattern) - gpa % sizeof(pattern));
            if (address_space_write(gpa, pattern, chunk) < 0) {
                return -1;
            }
        }
        len -= chunk;
        if (__builtin_add_overflow(gpa, chunk, &gpa) && len) {
            return -1;
        }
    }
    return 0;
}

void *address_space_map(uint64_t gpa, uint64_t *len, bool is_write)
{
    uint64_t offset;
    Region region;

    if (!region_find(&memory_regions, gpa, &region) || !region.block ||
        (is_write && region.readonly)) {
        return NULL;
    }
    offset = gpa - region.start;
    *len = MIN(*len, region.size - offset);
    return region.block->host + region.offset + offset;
}

void address_space_unmap_write(void *host, uint64_t len)
{
    uint64_t offset;
    RAMBlock *block = ram_block_from_host(host, &offset);

    g_assert(block);
    ram_block_mark_dirty(block, offset, len);
}

/* The ports of one access may belong to several devices, or partly to none: then byte by byte. */
static bool port_is_split(const Region *region, uint16_t port, unsigned size)
{
    return size > 1 && (!region || port - region->start + size > region->size);
}

static uint32_t port_read_locked(uint16_t port, unsigned size)
{
    Region copy, *region = region_find(&port_regions, port, &copy) ? &copy : NULL;
    uint32_t value = 0;

    if (port_is_split(region, port, size)) {
        for (unsigned i = 0; i < size; i++) {
            uint32_t byte = port + i < PORTS ? port_read_locked(port + i, 1) : 0xff;

            value |= byte << (i * 8);
        }
        return value;
    }
    return region ? device_read(region, port - region->start, size) : all_ones(size);
}

static void port_write_locked(uint16_t port, uint32_t value, unsigned size)
{
    Region copy, *region = region_find(&port_regions, port, &copy) ? &copy : NULL;

    if (port_is_split(region, port, size)) {
        for (unsigned i = 0; i < size && port + i < PORTS; i++) {
            port_write_locked(port + i, (value >> (i * 8)) & 0xff, 1);
        }
    } else if (region) {
        device_write(region, port - region->start, value, size);
    }
}

uint32_t port_read(uint16_t port, unsigned size)
{
    bool taken = take_bql();
    uint32_t value = port_read_locked(port, size);

    if (taken) {
        bql_unlock();
    }
    return value;
}

void port_write(uint16_t port, uint32_t value, unsigned size)
{
    bool taken = take_bql();

    port_write_locked(port, value, size);
    if (taken) {
        bql_unlock();
    }
}

static void describe_line(GString *out, const char *indent, uint64_t start, uint64_t size,
                          const char *kind)
{
    g_string_append_printf(out, "%s%016" PRIx64 "-%016" PRIx64 " (prio 0, %s): ", indent, start,
                           start + (size - 1), kind);
}

static void describe_regions(GString *out, GArray *regions)
{
    for (unsigned i = 0; i < n_regions(regions); i++) {
        const Region *region = region_at(regions, i);

        describe_line(out, "    ", region->start, region->size,
                      !region->block ? "i/o" : region->readonly ? "rom" : "ram");
        if (region->block) {
            g_string_append_printf(out, "alias %s @%s %016" PRIx64 "-%016" PRIx64 "\n",
                                   region->name, region->block->idstr, region->offset,
                                   region->offset + (region->size - 1));
        } else {
            g_string_append_printf(out, "%s\n", region->name);
        }
    }
}

char *memory_describe(void)
{
    GString *out = g_string_new("address-space: I/O\n");

    describe_line(out, "  ", 0, PORTS, "i/o");
    g_string_append(out, "io\n");
    describe_regions(out, port_regions);
    g_string_append_printf(out, "\naddress-space: memory\n"
                           "  %016x-%016" PRIx64 " (prio 0, i/o): system\n", 0, UINT64_MAX);
    describe_regions(out, memory_regions);
    RAMBLOCK_FOREACH(block) {
        g_string_append_printf(out, "\nmemory-region: %s\n", block->idstr);
        describe_line(out, "  ", 0, block->used_length, block->readonly ? "rom" : "ram");
        g_string_append_printf(out, "%s\n", block->idstr);
    }
    return g_string_free(out, FALSE);
}
