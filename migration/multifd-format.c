/*
 * Encoding, and decoding with suspicion.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/multifd-format.h"

#include <inttypes.h>
#include <string.h>

#include "system/identity.h"
#include "system/ramblock.h"
#include "util/bswap.h"

/* Where the fields are. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    INIT_AT_UUID = 8,
    INIT_AT_ID = 24,
    AT_FLAGS = 8,
    AT_PAGES_ALLOCATED = 12,
    AT_NORMAL_PAGES = 16,
    AT_DATA_BYTES = 20,
    AT_NUMBER = 24,
    AT_ZERO_PAGES = 32,
    AT_BLOCK = 64,
    AT_OFFSETS = AT_BLOCK + MULTIFD_BLOCK_BYTES,
};

static int check_magic(const uint8_t *bytes, Error **errp)
{
    if (ldl_be_p(bytes + AT_MAGIC) != MULTIFD_MAGIC) {
        error_setg(errp, "magic number is 0x%08x, expected 0x%08x", ldl_be_p(bytes + AT_MAGIC),
                   MULTIFD_MAGIC);
        return -1;
    }
    if (ldl_be_p(bytes + AT_VERSION) != MULTIFD_VERSION) {
        error_setg(errp, "version %u is not supported, only %u", ldl_be_p(bytes + AT_VERSION),
                   MULTIFD_VERSION);
        return -1;
    }
    return 0;
}

void multifd_init_encode(uint8_t bytes[MULTIFD_INIT_BYTES], const uint8_t uuid[16], uint8_t id)
{
    memset(bytes, 0, MULTIFD_INIT_BYTES);
    stl_be_p(bytes + AT_MAGIC, MULTIFD_MAGIC);
    stl_be_p(bytes + AT_VERSION, MULTIFD_VERSION);
    memcpy(bytes + INIT_AT_UUID, uuid, 16);
    bytes[INIT_AT_ID] = id;
}

int multifd_init_decode(const uint8_t bytes[MULTIFD_INIT_BYTES], const uint8_t uuid[16],
                        Error **errp)
{
    char theirs[37], ours[37];

    if (check_magic(bytes, errp) < 0) {
        return -1;
    }
    if (memcmp(bytes + INIT_AT_UUID, uuid, 16)) {
        identity_uuid_text(bytes + INIT_AT_UUID, theirs);
        identity_uuid_text(uuid, ours);
        error_setg(errp, "it comes from the machine with UUID '%s', this one has '%s'", theirs,
                   ours);
        return -1;
    }
    return bytes[INIT_AT_ID];
}

void multifd_packet_encode(uint8_t bytes[MULTIFD_PACKET_BYTES], const MultifdPacket *packet)
{
    uint32_t pages = packet->normal_pages + packet->zero_pages;

    memset(bytes, 0, MULTIFD_PACKET_BYTES);
    stl_be_p(bytes + AT_MAGIC, MULTIFD_MAGIC);
    stl_be_p(bytes + AT_VERSION, MULTIFD_VERSION);
    stl_be_p(bytes + AT_FLAGS, packet->flags);
    stl_be_p(bytes + AT_PAGES_ALLOCATED, MULTIFD_PACKET_PAGES);
    stl_be_p(bytes + AT_NORMAL_PAGES, packet->normal_pages);
    stl_be_p(bytes + AT_DATA_BYTES, packet->data_bytes);
    stq_be_p(bytes + AT_NUMBER, packet->number);
    stl_be_p(bytes + AT_ZERO_PAGES, packet->zero_pages);
    memcpy(bytes + AT_BLOCK, packet->block, strnlen(packet->block, MULTIFD_BLOCK_BYTES - 1));
    for (uint32_t i = 0; i < pages; i++) {
        stq_be_p(bytes + AT_OFFSETS + i * 8, packet->offsets[i]);
    }
}

static int check_counts(const MultifdPacket *packet, uint32_t allocated, Error **errp)
{
    uint32_t unknown = packet->flags & ~(MULTIFD_FLAG_SYNC | MULTIFD_FLAG_COMPRESSION);

    if (unknown) {
        error_setg(errp, "unknown flags 0x%x", unknown);
    } else if (allocated > MULTIFD_PACKET_PAGES) {
        error_setg(errp, "room for %u pages, at most %u are supported", allocated,
                   MULTIFD_PACKET_PAGES);
    } else if (packet->normal_pages > allocated ||
               packet->zero_pages > allocated - packet->normal_pages) {
        error_setg(errp, "%u pages and %u zero pages are more than the %u that it has room for",
                   packet->normal_pages, packet->zero_pages, allocated);
    } else if (!packet->normal_pages && packet->data_bytes) {
        error_setg(errp, "%u bytes of data for no pages", packet->data_bytes);
    } else if ((packet->flags & MULTIFD_FLAG_SYNC) && packet->normal_pages + packet->zero_pages) {
        error_setg(errp, "a sync packet with %u pages",
                   packet->normal_pages + packet->zero_pages);
    } else {
        return 0;
    }
    return -1;
}

int multifd_packet_decode(MultifdPacket *packet, const uint8_t bytes[MULTIFD_PACKET_BYTES],
                          Error **errp)
{
    if (check_magic(bytes, errp) < 0) {
        return -1;
    }
    packet->flags = ldl_be_p(bytes + AT_FLAGS);
    packet->normal_pages = ldl_be_p(bytes + AT_NORMAL_PAGES);
    packet->data_bytes = ldl_be_p(bytes + AT_DATA_BYTES);
    packet->number = ldq_be_p(bytes + AT_NUMBER);
    packet->zero_pages = ldl_be_p(bytes + AT_ZERO_PAGES);
    if (check_counts(packet, ldl_be_p(bytes + AT_PAGES_ALLOCATED), errp) < 0) {
        return -1;
    }
    memcpy(packet->block, bytes + AT_BLOCK, MULTIFD_BLOCK_BYTES);
    if (!memchr(packet->block, '\0', MULTIFD_BLOCK_BYTES)) {
        error_setg(errp, "the name of the RAM block has no end");
        return -1;
    }
    for (uint32_t i = 0; i < packet->normal_pages + packet->zero_pages; i++) {
        packet->offsets[i] = ldq_be_p(bytes + AT_OFFSETS + i * 8);
        if (packet->offsets[i] % TARGET_PAGE_SIZE) {
            error_setg(errp, "RAM block '%s': offset 0x%" PRIx64 " is not that of a page",
                       packet->block, packet->offsets[i]);
            return -1;
        }
    }
    return 0;
}
