/*
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/fuzz/fuzz.h"

#include <signal.h>

void fuzz_process_init(void)
{
    signal(SIGPIPE, SIG_IGN);
}
