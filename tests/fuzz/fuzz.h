/*
 * What the fuzz targets share. Each is a program of its own, built with -Dfuzz=true by clang
 * (docs/devel/fuzzing.md).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* The entry points that libFuzzer calls. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a program of Ferry sets up for its process; first in LLVMFuzzerInitialize(). */
void fuzz_process_init(void);

#endif
