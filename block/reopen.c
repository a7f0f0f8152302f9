/*
 * Changing the options of nodes that are in use.
 *
 * Everything is drained. Each node's driver prepares (opens files anew, allocates); then flags and
 * children change, and permissions are computed anew for all nodes at once; when that holds,
 * drivers commit, else all is put back. Nodes below that were opened by the definition of one that
 * changes come along, for they inherit from it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-c/json.h>
#include <string.h>

#include "block/graph-internal.h"
#include "qapi/clone-visitor.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-visit-block-core.h"

/* The generic members of a node, to be put back. */
typedef struct Flags {
    bool read_only, auto_read_only, force_share, cache_direct, cache_no_flush, discard_unmap;
    BlockdevDetectZeroesOptions detect_zeroes;
} Flags;

typedef struct Entry {
    BdrvReopenState state;
    BlockdevOptions *explicit_options, *options;    /* without and with what is inherited */
    bool by_user;               /* named in the list, so children are looked at */
    bool prepared;
    Flags old;
    BlockDriverState *old_file, *old_backing;       /* to be put back; references */
    bool file_changed, backing_changed;
} Entry;

typedef GPtrArray Queue;        /* of Entry, parents before what inherits from them */

static void entry_free(void *opaque)
{
    Entry *e = opaque;

    qapi_free_BlockdevOptions(e->explicit_options);
    qapi_free_BlockdevOptions(e->options);
    bdrv_unref(e->old_file);
    bdrv_unref(e->old_backing);
    bdrv_unref(e->state.bs);
    g_free(e);
}

static Entry *find_entry(const Queue *queue, const BlockDriverState *bs)
{
    for (guint i = 0; i < queue->len; i++) {
        Entry *e = queue->pdata[i];

        if (e->state.bs == bs) {
            return e;
        }
    }
    return NULL;
}

/* ---- what is to change ---- */

static BdrvChild *edge_to_parent(const BlockDriverState *bs)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (c->parent && c->parent == bs->inherits_from) {
            return c;
        }
    }
    return NULL;
}

static Entry *add_entry(Queue *queue, BlockDriverState *bs, const BlockdevOptions *opts,
                        bool by_user)
{
    Entry *e = g_new0(Entry, 1);

    bdrv_ref(bs);
    e->state.bs = bs;
    e->by_user = by_user;
    e->explicit_options = QAPI_CLONE(BlockdevOptions, opts);
    g_ptr_array_add(queue, e);
    return e;
}

/* What the definitions inside of @bs made follows it. */
static void add_heirs(Queue *queue, BlockDriverState *bs)
{
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        if (c->bs->inherits_from == bs && !find_entry(queue, c->bs)) {
            add_entry(queue, c->bs, c->bs->explicit_options, false);
            add_heirs(queue, c->bs);
        }
    }
}

static Entry *add_named(Queue *queue, const BlockdevOptions *opts, Error **errp)
{
    BlockDriverState *bs;

    if (!opts->node_name) {
        error_setg(errp, "node-name not specified");
        return NULL;
    }
    bs = bdrv_find_node(opts->node_name);
    if (!bs) {
        error_setg(errp, "Failed to find node with node-name='%s'", opts->node_name);
        return NULL;
    }
    if (find_entry(queue, bs)) {
        error_setg(errp, "Node '%s' is named twice", opts->node_name);
        return NULL;
    }
    if (opts->driver != bs->drv->driver) {
        error_setg(errp, "Cannot change the option 'driver' of node '%s'", opts->node_name);
        return NULL;
    }
    return add_entry(queue, bs, opts, true);
}

/* Parents come first in the queue, so that theirs are final when a child asks. */
static void sort_queue(Queue *queue)
{
    for (guint i = 0; i < queue->len; i++) {
        for (guint j = i + 1; j < queue->len; j++) {
            Entry *a = queue->pdata[i], *b = queue->pdata[j];

            if (bdrv_reaches(b->state.bs, a->state.bs)) {
                queue->pdata[i] = b;
                queue->pdata[j] = a;
            }
        }
    }
}

/* ---- options ---- */

static bool set_options(Queue *queue, Entry *e, Error **errp)
{
    BdrvReopenState *s = &e->state;
    BdrvChild *edge = edge_to_parent(s->bs);
    BlockdevOptions *opts;

    opts = e->options = QAPI_CLONE(BlockdevOptions, e->explicit_options);
    if (edge) {
        Entry *parent = find_entry(queue, edge->parent);
        BdrvInherited from = bdrv_inherited_from(edge->parent);

        if (parent) {
            from = (BdrvInherited){
                .read_only = parent->state.read_only,
                .force_share = parent->state.force_share,
                .cache_direct = parent->state.cache_direct,
                .cache_no_flush = parent->state.cache_no_flush,
            };
        }
        bdrv_inherit_options(opts, &from, edge->role);
    }
    s->options = opts;
    s->read_only = opts->has_read_only && opts->read_only;
    s->auto_read_only = opts->has_auto_read_only && opts->auto_read_only;
    s->force_share = opts->has_force_share && opts->force_share;
    s->cache_direct = opts->cache && opts->cache->has_direct && opts->cache->direct;
    s->cache_no_flush = opts->cache && opts->cache->has_no_flush && opts->cache->no_flush;
    s->discard_unmap = opts->has_discard && opts->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    s->detect_zeroes =
        opts->has_detect_zeroes ? opts->detect_zeroes : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
    return bdrv_check_options(opts, errp);
}

/* The members that are the driver's own, without its children, as JSON. */
static struct json_object *driver_members(const BlockdevOptions *opts)
{
    static const char *const others[] = {
        "driver", "node-name", "discard", "cache", "read-only", "auto-read-only", "force-share",
        "detect-zeroes", "file", "backing", "image",
    };
    BlockdevOptions *walked = (BlockdevOptions *)opts;
    struct json_object *obj = NULL;
    Visitor *v = json_output_visitor_new(&obj);

    visit_type_BlockdevOptions(v, NULL, &walked, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        json_object_object_del(obj, others[i]);
    }
    return obj;
}

/* Of a driver that cannot change its own options: they must be as they were. */
static bool check_same(const BlockDriverState *bs, const BlockdevOptions *opts, Error **errp)
{
    struct json_object *now = driver_members(bs->options), *wanted = driver_members(opts);
    const char *changed = NULL;
    g_autofree char *name = NULL;

    json_object_object_foreach(wanted, key, value) {
        struct json_object *old;

        if (!json_object_object_get_ex(now, key, &old) || !json_object_equal(old, value)) {
            changed = key;
        }
    }
    json_object_object_foreach(now, key2, value2) {
        (void)value2;
        if (!json_object_object_get_ex(wanted, key2, NULL)) {
            changed = key2;
        }
    }
    name = g_strdup(changed);
    json_object_put(now);
    json_object_put(wanted);
    if (name) {
        error_setg(errp, "Cannot change the option '%s' of node '%s'", name, bs->node_name);
    }
    return !name;
}

static bool prepare(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs;
    Error *err = NULL;

    if (!bs->drv->reopen_prepare) {
        return check_same(bs, e->options, errp);
    }
    if (bs->drv->reopen_prepare(&e->state, &err) < 0) {
        error_propagate(errp, err);
        return false;
    }
    e->prepared = true;
    return true;
}

/* ---- flags ---- */

static Flags get_flags(const BlockDriverState *bs)
{
    return (Flags){ bs->read_only,      bs->auto_read_only, bs->force_share,  bs->cache_direct,
                    bs->cache_no_flush, bs->discard_unmap,  bs->detect_zeroes };
}

static void set_flags(BlockDriverState *bs, const Flags *f)
{
    bs->read_only = f->read_only;
    bs->auto_read_only = f->auto_read_only;
    bs->force_share = f->force_share;
    bs->cache_direct = f->cache_direct;
    bs->cache_no_flush = f->cache_no_flush;
    bs->discard_unmap = f->discard_unmap;
    bs->detect_zeroes = f->detect_zeroes;
}

static void apply_flags(Entry *e)
{
    const BdrvReopenState *s = &e->state;
    Flags f = { s->read_only, s->auto_read_only, s->force_share, s->cache_direct, s->cache_no_flush,
                s->discard_unmap, s->detect_zeroes };

    e->old = get_flags(s->bs);
    set_flags(s->bs, &f);
}

/* ---- children ---- */

/* The option for the child that holds the data. */
static const BlockdevRef *data_child_option(const BlockdevOptions *opts, const char **name)
{
    *name = "file";
    switch (opts->driver) {
    case BLOCKDEV_DRIVER_BLKDEBUG:
        *name = "image";
        return opts->u.blkdebug.image;
    case BLOCKDEV_DRIVER_COPY_ON_READ:
        return opts->u.copy_on_read.file;
    case BLOCKDEV_DRIVER_QCOW2:
        return opts->u.qcow2.file;
    case BLOCKDEV_DRIVER_RAW:
        return opts->u.raw.file;
    case BLOCKDEV_DRIVER_THROTTLE:
        return opts->u.throttle.file;
    default:
        return NULL;
    }
}

static BdrvChild *child_named(const BlockDriverState *bs, const char *name)
{
    BdrvChild *c;

    BDRV_FOREACH_CHILD(bs, c) {
        if (!strcmp(c->name, name)) {
            return c;
        }
    }
    return NULL;
}

/* The node that a child is to be from now on. NULL with @errp set. */
static BlockDriverState *wanted_node(const Entry *e, const char *name, QType type,
                                     const char *reference, Error **errp)
{
    if (type != QTYPE_QSTRING) {
        error_setg(errp, "Option '%s' of node '%s' has to be the name of a node, not a definition",
                   name, e->state.bs->node_name);
        return NULL;
    }
    return bdrv_lookup(reference, errp);
}

static bool change_data_child(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs, *wanted;
    const char *name;
    const BlockdevRef *ref = data_child_option(e->options, &name);
    BdrvChild *child = child_named(bs, name);

    if (!ref || !child) {
        return true;
    }
    wanted = wanted_node(e, name, ref->type, ref->u.reference, errp);
    if (!wanted) {
        return false;
    }
    if (wanted == child->bs) {
        return true;
    }
    /* A format's metadata lie in this one; another is another image. */
    if (!bs->drv->is_filter && bs->drv->driver != BLOCKDEV_DRIVER_RAW) {
        error_setg(errp, "Cannot change the option '%s' of node '%s'", name, bs->node_name);
        return false;
    }
    e->old_file = child->bs;
    bdrv_ref(e->old_file);
    e->file_changed = bdrv_replace_child(child, wanted, errp) == 0;
    return e->file_changed;
}

static bool change_backing(Entry *e, Error **errp)
{
    BlockDriverState *bs = e->state.bs, *wanted = NULL;
    const BlockdevRefOrNull *ref =
        bs->drv->backing_option ? bs->drv->backing_option(e->options) : NULL;

    if (!ref) {
        if (bs->backing || bs->backing_file) {
            error_setg(errp, "backing is missing for '%s'", bs->node_name);
            return false;
        }
        return true;
    }
    if (ref->type != QTYPE_QNULL && !(ref->type == QTYPE_QSTRING && !*ref->u.reference)) {
        wanted = wanted_node(e, "backing", ref->type, ref->u.reference, errp);
        if (!wanted) {
            return false;
        }
    }
    if (wanted == (bs->backing ? bs->backing->bs : NULL)) {
        return true;
    }
    e->old_backing = bs->backing ? bs->backing->bs : NULL;
    if (e->old_backing) {
        bdrv_ref(e->old_backing);
    }
    e->backing_changed = bdrv_set_backing_hd(bs, wanted, errp) == 0;
    return e->backing_changed;
}

/* The way back cannot fail but for locks that somebody else took meanwhile. */
static void put_children_back(Entry *e)
{
    BlockDriverState *bs = e->state.bs;
    const char *name;
    Error *err = NULL;

    if (e->backing_changed) {
        bdrv_set_backing_hd(bs, e->old_backing, &err);
    }
    if (e->file_changed) {
        data_child_option(e->options, &name);
        bdrv_replace_child(child_named(bs, name), e->old_file, err ? NULL : &err);
    }
    if (err) {
        error_prepend(&err, "node '%s' could not be put back: ", bs->node_name);
        error_report_err(err);
    }
}

/* ---- all or nothing ---- */

static int update_perms(const Queue *queue, Error **errp)
{
    g_autofree BlockDriverState **nodes = g_new(BlockDriverState *, queue->len);

    for (guint i = 0; i < queue->len; i++) {
        nodes[i] = ((Entry *)queue->pdata[i])->state.bs;
    }
    return bdrv_update_perms_of(nodes, queue->len, errp);
}

static bool prepare_all(Queue *queue, Error **errp)
{
    for (guint i = 0; i < queue->len; i++) {
        if (!set_options(queue, queue->pdata[i], errp) || !prepare(queue->pdata[i], errp)) {
            return false;
        }
    }
    return true;
}

/* Flags of all nodes first: what one allows depends on the others. */
static bool change_all(Queue *queue, Error **errp)
{
    for (guint i = 0; i < queue->len; i++) {
        apply_flags(queue->pdata[i]);
    }
    for (guint i = 0; i < queue->len; i++) {
        Entry *e = queue->pdata[i];

        if (e->by_user && (!change_data_child(e, errp) || !change_backing(e, errp))) {
            return false;
        }
    }
    return update_perms(queue, errp) == 0;
}

static void undo_changes(Queue *queue)
{
    for (guint i = queue->len; i-- > 0;) {
        Entry *e = queue->pdata[i];

        set_flags(e->state.bs, &e->old);
    }
    for (guint i = queue->len; i-- > 0;) {
        put_children_back(queue->pdata[i]);
    }
    update_perms(queue, NULL);
}

static void abort_all(Queue *queue)
{
    for (guint i = queue->len; i-- > 0;) {
        Entry *e = queue->pdata[i];

        if (e->prepared && e->state.bs->drv->reopen_abort) {
            e->state.bs->drv->reopen_abort(&e->state);
        }
    }
}

static void commit(Entry *e)
{
    BlockDriverState *bs = e->state.bs;

    if (e->prepared && bs->drv->reopen_commit) {
        bs->drv->reopen_commit(&e->state);
    }
    qapi_free_BlockdevOptions(bs->options);
    qapi_free_BlockdevOptions(bs->explicit_options);
    bs->options = g_steal_pointer(&e->options);
    bs->explicit_options = g_steal_pointer(&e->explicit_options);
    if (e->backing_changed) {
        bs->backing_is_default = false;
    }
    bdrv_refresh_limits(bs);
}

static int reopen_queue(Queue *queue, Error **errp)
{
    int ret;

    sort_queue(queue);
    if (!prepare_all(queue, errp)) {
        abort_all(queue);
        return -1;
    }
    if (!change_all(queue, errp)) {
        undo_changes(queue);
        abort_all(queue);
        return -1;
    }
    /* What is below is ready before what is above begins to use it. */
    for (guint i = queue->len; i-- > 0;) {
        commit(queue->pdata[i]);
    }
    for (guint i = queue->len; i-- > 0;) {
        BlockDriverState *bs = ((Entry *)queue->pdata[i])->state.bs;

        ret = bdrv_refresh_length(bs);
        if (ret < 0) {
            warn_report("the length of node '%s' cannot be read: %s", bs->node_name,
                        g_strerror(-ret));
        }
    }
    return 0;
}

static int reopen_drained(Queue *queue, Error **errp)
{
    int ret;

    bdrv_drain_all_begin();
    ret = reopen_queue(queue, errp);
    bdrv_drain_all_end();
    return ret;
}

int bdrv_reopen_multiple(const BlockdevOptionsList *list, Error **errp)
{
    g_autoptr(GPtrArray) queue = g_ptr_array_new_with_free_func(entry_free);

    for (const BlockdevOptionsList *l = list; l; l = l->next) {
        if (!add_named(queue, l->value, errp)) {
            return -1;
        }
    }
    for (guint i = 0, n = queue->len; i < n; i++) {
        add_heirs(queue, ((Entry *)queue->pdata[i])->state.bs);
    }
    return reopen_drained(queue, errp);
}

int bdrv_reopen_set_read_only(BlockDriverState *bs, bool read_only, Error **errp)
{
    g_autoptr(GPtrArray) queue = NULL;
    BlockdevOptions *opts;

    if (bs->read_only == read_only) {
        return 0;
    }
    queue = g_ptr_array_new_with_free_func(entry_free);
    opts = add_entry(queue, bs, bs->explicit_options, false)->explicit_options;
    opts->has_read_only = true;
    opts->read_only = read_only;
    add_heirs(queue, bs);
    return reopen_drained(queue, errp);
}
