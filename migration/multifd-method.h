/*
 * How multifd channels on sockets compress pages: a table of methods.
 *
 * A method keeps one continuous compressed stream a channel, flushed at the end of each packet. Its
 * state belongs to one thread. "none" has no functions: pages travel as they are.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MULTIFD_METHOD_H
#define MIGRATION_MULTIFD_METHOD_H

#include <stddef.h>
#include <stdint.h>
#include "migration/options.h"
#include "util/error.h"

/* Most bytes that the pages of one packet can become, for any method. */
#define MULTIFD_COMPRESSED_MAX (1024 * 1024)

typedef struct MultifdMethod {
    const char *name;
    uint32_t flag;                      /* in each packet with pages */
    void *(*compress_new)(const MigrationOptions *opts, Error **errp);
    void (*compress_free)(void *state);
    /*
     * Compress @n pages of TARGET_PAGE_SIZE bytes into @out, which has MULTIFD_COMPRESSED_MAX
     * bytes. The pages may change meanwhile. Returns the bytes used, or -1 with @errp set.
     */
    int64_t (*compress)(void *state, uint8_t *const *pages, unsigned n, uint8_t *out,
                        Error **errp);
    void *(*decompress_new)(Error **errp);
    void (*decompress_free)(void *state);
    /* @in, all of it, must give exactly @n pages. Returns 0, or -1 with @errp set. */
    int (*decompress)(void *state, const uint8_t *in, size_t len, uint8_t *const *pages,
                      unsigned n, Error **errp);
} MultifdMethod;

extern const MultifdMethod multifd_method_zlib, multifd_method_zstd;

/* The method that @opts ask for. */
const MultifdMethod *multifd_method(const MigrationOptions *opts);

#endif
