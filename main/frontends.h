/*
 * What the command line connects to character devices: the devices themselves, serial ports,
 * monitors and the qtest server.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MAIN_FRONTENDS_H
#define MAIN_FRONTENDS_H

#include "system/cmdline.h"

/* -add-fd and -chardev: first of all, since others name them. */
int frontends_create_chardevs(const CommandLine *cl, Error **errp);
/* -serial, or QEMU's defaults for it and the monitor. Before the devices of the command line. */
int frontends_create_serials(const CommandLine *cl, Error **errp);
/* -qtest, -mon, -monitor, -qmp. The machine stands. */
int frontends_start(const CommandLine *cl, Error **errp);
/* At exit, last of all. */
void frontends_cleanup(void);

#endif
