/*
 * The object throttle-group: limits that block nodes share.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_THROTTLE_GROUP_OBJECT_H
#define SYSTEM_THROTTLE_GROUP_OBJECT_H

#include "system/object.h"

extern const UserObjectClass throttle_group_class;

#endif
