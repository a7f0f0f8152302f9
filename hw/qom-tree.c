/*
 * The tree of objects: a list of every path there is, in which parents and children are found by
 * looking at the text. There are few objects and nobody walks them often.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/qom-tree.h"

#include <string.h>

#include "qapi/qapi-commands-qom.h"
#include "system/object.h"

static const struct {
    const char *path, *type;
} fixed[] = {
    { "/", "container" },
    { "/machine", "machine" },
    { "/machine/peripheral", "container" },
    { "/machine/peripheral-anon", "container" },
    { "/machine/unattached", "container" },
    { "/objects", "container" },
};

const char *qom_node_name(const QomNode *node)
{
    return strrchr(node->path, '/') + 1;
}

static const char *memdev_type(const char *id)
{
    for (int type = 0; type < OBJECT_TYPE__MAX; type++) {
        if (object_by_id(id, type)) {
            return ObjectType_str(type);
        }
    }
    g_assert_not_reached();
}

/* Memory backend number @index. */
static bool memdev_at(unsigned index, QomNode *node)
{
    g_autoptr(MemdevList) list = qmp_query_memdev(NULL);

    for (MemdevList *at = list; at; at = at->next) {
        if (!index--) {
            node->is_memdev = true;
            node->type = memdev_type(at->value->id);
            g_snprintf(node->path, sizeof(node->path), "/objects/%s", at->value->id);
            return true;
        }
    }
    return false;
}

/* Object number @index of all; false when there are fewer. */
static bool object_at(unsigned index, QomNode *node)
{
    DeviceState *dev = NULL;

    memset(node, 0, sizeof(*node));
    if (index < G_N_ELEMENTS(fixed)) {
        g_strlcpy(node->path, fixed[index].path, sizeof(node->path));
        node->type = fixed[index].type;
        return true;
    }
    index -= G_N_ELEMENTS(fixed);
    if (index < cpus_count()) {
        node->cpu = cpu_get(index);
        node->type = "x86_64-cpu";
        g_snprintf(node->path, sizeof(node->path), "/machine/cpu[%u]", index);
        return true;
    }
    index -= cpus_count();
    while ((dev = device_next(dev)) && index) {
        index--;
    }
    if (!dev) {
        return memdev_at(index, node);
    }
    node->dev = dev;
    node->type = dev->klass->name;
    g_strlcpy(node->path, dev->path, sizeof(node->path));
    return true;
}

bool qom_tree_find(const char *path, QomNode *node, Error **errp)
{
    size_t len = strlen(path);

    /* "/machine/" is "/machine". */
    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    for (unsigned i = 0; object_at(i, node); i++) {
        const char *id = node->dev ? node->dev->id : node->is_memdev ? qom_node_name(node) : NULL;

        if ((strlen(node->path) == len && !strncmp(node->path, path, len)) ||
            (id && !strcmp(id, path))) {
            return true;
        }
    }
    error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "Device '%s' not found", path);
    return false;
}

static bool is_child(const char *parent, const char *path)
{
    size_t len = strcmp(parent, "/") ? strlen(parent) : 0;

    return !strncmp(path, parent, len) && path[len] == '/' && path[len + 1] &&
           !strchr(path + len + 1, '/');
}

bool qom_tree_child(const QomNode *node, unsigned *position, QomNode *child)
{
    while (object_at((*position)++, child)) {
        if (is_child(node->path, child->path)) {
            return true;
        }
    }
    return false;
}
