/*
 * The tree of objects as QMP's qom-* commands show it: the root, the machine, its containers, its
 * vCPUs, its devices and the memory backends. Nothing is stored; the tree is what the lists of
 * these say.
 *
 * Under the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_QOM_TREE_H
#define HW_QOM_TREE_H

#include "hw/device.h"
#include "system/cpus.h"

/* What a path leads to. */
typedef struct QomNode {
    char path[512];             /* without a slash at its end, but for the root */
    const char *type;           /* the name of the object's type */
    DeviceState *dev;           /* a device, or NULL */
    CPUState *cpu;              /* a vCPU, or NULL */
    bool is_memdev;             /* a memory backend, whose id is the last part of the path */
} QomNode;

/* The last part of its path. */
const char *qom_node_name(const QomNode *node);

/*
 * Find @path, absolute, or the id of a device or memory backend. Returns: true with @node filled
 * in, false with @errp set (class DeviceNotFound).
 */
bool qom_tree_find(const char *path, QomNode *node, Error **errp);

/*
 * The children of @node, one after the other: call with @position 0 first; it is moved along.
 * Returns: false after the last. @child is filled in; its name is what follows the last slash.
 */
bool qom_tree_child(const QomNode *node, unsigned *position, QomNode *child);

#endif
