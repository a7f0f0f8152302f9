/*
 * A fuzz target without a fuzzer: it gets the files that are named, once each. So built, the
 * targets are part of every build, and `make check` feeds them their seeds and what was found
 * before.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"

static void replay(const char *path)
{
    g_autofree char *contents = NULL;
    g_autofree uint8_t *exact = NULL;
    g_autoptr(GError) err = NULL;
    size_t size;

    if (!g_file_get_contents(path, &contents, &size, &err)) {
        fprintf(stderr, "%s\n", err->message);
        exit(1);
    }
    /* Without the NUL that GLib adds: a byte read beyond the input is a byte too many. */
    exact = g_memdup2(contents, size);
    fprintf(stderr, "Running: %s\n", path);
    LLVMFuzzerTestOneInput(exact, size);
}

/* Options are the fuzzer's and mean nothing here. */
int main(int argc, char **argv)
{
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            replay(argv[i]);
        }
    }
    return 0;
}
