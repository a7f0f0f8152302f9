/*
 * iothread, the object.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_IOTHREAD_OBJECT_H
#define SYSTEM_IOTHREAD_OBJECT_H

#include "system/object.h"

/* Who wants an iothread by its name asks iothread_by_id() (util/iothread.h). */
extern const UserObjectClass iothread_class;

#endif
