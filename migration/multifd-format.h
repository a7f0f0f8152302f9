/*
 * The bytes of multifd on sockets, as they are on the wire; docs/interop/multifd.md draws them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MULTIFD_FORMAT_H
#define MIGRATION_MULTIFD_FORMAT_H

#include <stdint.h>
#include "util/error.h"

/* The first four bytes of every multifd channel and packet, big-endian. */
#define MULTIFD_MAGIC 0x11223344u
#define MULTIFD_VERSION 1u

/* A channel begins with: u32 magic, u32 version, 16 bytes UUID, u8 id, 7 + 32 bytes zero. */
#define MULTIFD_INIT_BYTES 64

/*
 * A packet: u32 magic, u32 version, u32 flags, u32 pages allocated, u32 normal pages, u32 bytes of
 * data that follow, u64 packet number, u32 zero pages, 28 bytes zero, 256 bytes block name, then as
 * many u64 offsets as pages are allocated: of normal pages, of zero pages, unused.
 */
#define MULTIFD_PACKET_PAGES 128
#define MULTIFD_BLOCK_BYTES 256
#define MULTIFD_HEADER_BYTES (64 + MULTIFD_BLOCK_BYTES)
#define MULTIFD_PACKET_BYTES (MULTIFD_HEADER_BYTES + MULTIFD_PACKET_PAGES * 8)

#define MULTIFD_FLAG_SYNC 0x1u
#define MULTIFD_FLAG_COMPRESSION (0x1fu << 1)
#define MULTIFD_FLAG_NOCOMP (0u << 1)
#define MULTIFD_FLAG_ZLIB (1u << 1)
#define MULTIFD_FLAG_ZSTD (2u << 1)

typedef struct MultifdPacket {
    uint32_t flags;
    uint32_t normal_pages;
    uint32_t zero_pages;
    uint32_t data_bytes;
    uint64_t number;
    char block[MULTIFD_BLOCK_BYTES];
    uint64_t offsets[MULTIFD_PACKET_PAGES];     /* normal pages, then zero pages; bytes */
} MultifdPacket;

/* The initial message of channel @id of the machine @uuid. */
void multifd_init_encode(uint8_t bytes[MULTIFD_INIT_BYTES], const uint8_t uuid[16], uint8_t id);
/* Check all but the id against the machine's own UUID. Returns the id, or -1 with @errp set. */
int multifd_init_decode(const uint8_t bytes[MULTIFD_INIT_BYTES], const uint8_t uuid[16],
                        Error **errp);

/* The bytes of @packet, which must be one that multifd_packet_decode() takes. */
void multifd_packet_encode(uint8_t bytes[MULTIFD_PACKET_BYTES], const MultifdPacket *packet);
/*
 * Check everything that needs no knowledge of the machine: magic, version, known flags, counts, the
 * name's end, aligned offsets; a sync packet has neither pages nor data. 0, or -1 with @errp set.
 */
int multifd_packet_decode(MultifdPacket *packet, const uint8_t bytes[MULTIFD_PACKET_BYTES],
                          Error **errp);

#endif
