/*
 * Who is told when the machine is reset. Handlers run in order of registration, under the big lock,
 * vCPUs stopped.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_RESET_H
#define SYSTEM_RESET_H

typedef void ResetHandler(void *opaque);
/* @handler is called with @opaque at each reset until the same pair is unregistered. */
void reset_register(ResetHandler *handler, void *opaque);
void reset_unregister(ResetHandler *handler, void *opaque);
/* Run them all. */
void reset_run(void);

#endif
