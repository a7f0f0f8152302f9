/*
 * The command line of ferry-nbd.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_FERRY_NBD_OPTIONS_H
#define TOOLS_FERRY_NBD_OPTIONS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "qapi/qapi-types-block-core.h"
#include "util/error.h"

typedef enum NbdToolMode {
    NBD_TOOL_SERVE,
    NBD_TOOL_LIST,
    NBD_TOOL_HELP,
    NBD_TOOL_VERSION,
} NbdToolMode;

typedef struct NbdToolOptions {
    NbdToolMode mode;
    char *image;                        /* file name, or options with image_opts */
    char *socket, *bind, *port;
    char *export_name, *description;
    char *format;                       /* NULL: look into the image */
    char *snapshot;                     /* an internal one; NULL: the disk as it is */
    char *pid_file;
    GPtrArray *bitmaps;                 /* of char * */
    bool image_opts, read_only, persistent, fork, verbose, allocation_depth;
    bool has_cache, cache_direct, cache_no_flush, writethrough;
    bool has_aio, discard_unmap;
    BlockdevAioOptions aio;
    BlockdevDetectZeroesOptions detect_zeroes;
    uint64_t offset;
    unsigned shared;                    /* connections at the same time, 0: any number */
    unsigned handshake_seconds;         /* 0: no limit */
    unsigned threads;                   /* 0: the server chooses */
} NbdToolOptions;

/*
 * Parse the command line: options may stand before and after the image, "--" ends them. Returns
 * NULL with
 * @errp set when something is wrong.
 */
NbdToolOptions *nbd_tool_parse(int argc, char **argv, Error **errp);
void nbd_tool_options_free(NbdToolOptions *o);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdToolOptions, nbd_tool_options_free)

/* What --help prints; g_free() it. */
char *nbd_tool_help(void);
/* The @i-th option's long name, and its letter or 0; NULL: there are no more. */
const char *nbd_tool_option(unsigned i, char *letter);

#endif
