/*
 * Between the table of options (cmdline.c) and the functions that read the arguments
 * (cmdline-options.c).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_CMDLINE_INTERNAL_H
#define SYSTEM_CMDLINE_INTERNAL_H

#include "system/accel.h"
#include "system/cmdline.h"

/* Read @arg into @cl. Returns 0, or -1 with @errp set, without the option's name. */
typedef int OptionParser(CommandLine *cl, const char *arg, Error **errp);

OptionParser cmdline_accel, cmdline_action, cmdline_add_fd, cmdline_machine,
    cmdline_memory, cmdline_msg, cmdline_name, cmdline_nothing_but_none, cmdline_smp,
    cmdline_uuid, cmdline_cpu, cmdline_audiodev;

/* The accelerators told by cmdline_set_accels(): NULL after the last. */
const AccelClass *cmdline_accel_class(unsigned i);

#endif
