/*
 * The bytes of multifd on sockets, as they are on the wire; docs/interop/multifd.md draws them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MULTIFD_FORMAT_H
#define MIGRATION_MULTIFD_FORMAT_H

/* The first four bytes of every multifd channel and packet, big-endian. */
#define MULTIFD_MAGIC 0x11223344u
#define MULTIFD_VERSION 1u

#endif
