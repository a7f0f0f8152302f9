/*
 * Internal snapshots: finding the one that is meant, and having the driver show it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/snapshot.h"

#include <errno.h>
#include <string.h>

#include "block/driver.h"
#include "util/keyval.h"

#define OPTION_GROUP "snapshot"

typedef struct Load {
    BlockDriverState *bs;
    const char *which;
    Error **errp;
    int ret;
} Load;

/* Whether @info is it; NULL: any will do. */
static bool matches(const SnapshotInfo *info, const char *id, const char *name)
{
    return (!id || strcmp(info->id, id) == 0) && (!name || strcmp(info->name, name) == 0);
}

/* The only one that matches; NULL with @errp set. */
static const SnapshotInfo *find_one(const SnapshotInfoList *list, const char *id, const char *name,
                                    Error **errp)
{
    const SnapshotInfo *found = NULL;

    for (; list; list = list->next) {
        if (!matches(list->value, id, name)) {
            continue;
        }
        if (found) {
            error_setg(errp, "more than one snapshot has the name '%s': say which by its id", name);
            return NULL;
        }
        found = list->value;
    }
    if (!found) {
        error_setg(errp, "there is no snapshot%s%s%s%s", id ? " with id " : "", id ? id : "",
                   name ? " of the name " : "", name ? name : "");
    }
    return found;
}

/* "snapshot.id=ID,snapshot.name=NAME" as an object of the two; NULL with @errp set. */
static struct json_object *parse_options(const char *which, Error **errp)
{
    struct json_object *opts = keyval_parse(which, NULL, NULL, errp), *snapshot = NULL;

    if (!opts) {
        return NULL;
    }
    json_object_object_foreach(opts, group, value)
    {
        if (strcmp(group, OPTION_GROUP) || !json_object_is_type(value, json_type_object)) {
            goto unknown;
        }
        snapshot = value;
    }
    json_object_object_foreach(snapshot, key, text)
    {
        if ((strcmp(key, "id") && strcmp(key, "name")) ||
            !json_object_is_type(text, json_type_string)) {
            goto unknown;
        }
    }
    snapshot = json_object_get(snapshot);
    json_object_put(opts);
    return snapshot;

unknown:
    error_setg(errp, "only " OPTION_GROUP ".id= and " OPTION_GROUP ".name= can be given");
    json_object_put(opts);
    return NULL;
}

static const SnapshotInfo *find_by_options(const SnapshotInfoList *list, const char *which,
                                           Error **errp)
{
    struct json_object *opts = parse_options(which, errp);
    const SnapshotInfo *found = NULL;

    if (opts) {
        found = find_one(list, json_object_get_string(json_object_object_get(opts, "id")),
                         json_object_get_string(json_object_object_get(opts, "name")), errp);
    }
    json_object_put(opts);
    return found;
}

static const SnapshotInfo *find(const SnapshotInfoList *list, const char *which, Error **errp)
{
    if (g_str_has_prefix(which, OPTION_GROUP ".")) {
        return find_by_options(list, which, errp);
    }
    for (const SnapshotInfoList *l = list; l; l = l->next) {
        if (matches(l->value, which, NULL)) {
            return l->value;
        }
    }
    return find_one(list, NULL, which, errp);
}

static void coroutine_fn load_entry(void *opaque)
{
    Load *load = opaque;
    BlockDriverState *bs = load->bs;
    SnapshotInfoList *list = NULL;
    const SnapshotInfo *info;

    load->ret = bs->drv->co_list_snapshots(bs, &list, load->errp);
    if (load->ret == 0) {
        info = find(list, load->which, load->errp);
        load->ret = info ? bs->drv->co_load_snapshot(bs, info->id, load->errp) : -ENOENT;
    }
    qapi_free_SnapshotInfoList(list);
}

int bdrv_load_snapshot(BlockDriverState *bs, const char *which, Error **errp)
{
    Load load = { .bs = bs, .which = which, .errp = errp };

    if (!bs->drv->co_load_snapshot) {
        error_setg(errp, "images of format '%s' have no internal snapshots", bs->drv->format_name);
        load.ret = -ENOTSUP;
    } else if (!bdrv_is_read_only(bs)) {
        error_setg(errp, "an internal snapshot can only be read");
        load.ret = -EACCES;
    } else {
        aio_co_run(bdrv_get_aio_context(bs), load_entry, &load);
    }
    if (load.ret < 0) {
        error_prepend(errp, "Could not load snapshot '%s' of '%s': ", which, bdrv_get_filename(bs));
        return -1;
    }
    return 0;
}
