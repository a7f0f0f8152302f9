/*
 * The records of the RAM section, id "ram", instance 0, version 4, as in QEMU's streams.
 *
 * A record starts with a big-endian u64: the offset of a page in its RAMBlock, and flags in the low
 * 12 bits.
 *
 *     MEM_SIZE       the offset part is the sum of all blocks; then per block: u8 idlen, id,
 *                    u64 used length [, u64 guest address: with x-ignore-shared]
 *                    [, direct-mapped header, bitmap and pages]
 *     ZERO           [block] u8 fill byte, always 0
 *     PAGE           [block] TARGET_PAGE_SIZE bytes
 *     EOS            end of this section's data
 *     MULTIFD_FLUSH  wait here until every multifd channel came to its next sync packet
 *
 * [block]: u8 idlen, id; left out with CONTINUE, which says "the same block as the record before".
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_RAM_FORMAT_H
#define MIGRATION_RAM_FORMAT_H

#define RAM_SECTION_ID "ram"
#define RAM_SECTION_VERSION 4

#define RAM_RECORD_ZERO 0x002
#define RAM_RECORD_MEM_SIZE 0x004
#define RAM_RECORD_PAGE 0x008
#define RAM_RECORD_EOS 0x010
#define RAM_RECORD_CONTINUE 0x020
#define RAM_RECORD_XBZRLE 0x040
#define RAM_RECORD_MULTIFD_FLUSH 0x200
#define RAM_RECORD_FLAGS 0xfff

#endif
