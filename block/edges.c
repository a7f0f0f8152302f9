/*
 * Edges: who stands on which node. An edge comes, goes or moves only together with the permissions
 * that it brings, with the home context of the nodes that it connects, and with the drains that are
 * under way.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/block-backend.h"
#include "block/graph-internal.h"

/* ---- nodes above nodes ---- */

static char *node_describe(const BdrvChild *child)
{
    return g_strdup_printf("node '%s'", child->parent->node_name);
}

static void node_drained_begin(BdrvChild *child)
{
    bdrv_quiesce(child->parent);
}

static void node_drained_end(BdrvChild *child)
{
    bdrv_unquiesce(child->parent);
}

static bool node_drained_poll(const BdrvChild *child)
{
    return bdrv_drain_pending(child->parent);
}

static void node_resized(BdrvChild *child)
{
    BlockDriverState *bs = child->parent;
    int64_t length;

    /* A format has its length in its metadata; filters are as long as what is below. */
    if (bs->drv->is_filter && (child->role & BDRV_CHILD_FILTERED)) {
        length = bdrv_getlength(child->bs);
    } else if (bs->drv->length_by_child) {
        length = bs->drv->length_by_child(bs, child);
    } else {
        return;
    }
    if (__atomic_exchange_n(&bs->total_bytes, length, __ATOMIC_SEQ_CST) != length) {
        bdrv_parents_resized(bs);
    }
}

const BdrvChildClass bdrv_child_of_node = {
    .describe_parent = node_describe,
    .drained_begin = node_drained_begin,
    .drained_end = node_drained_end,
    .drained_poll = node_drained_poll,
    .resized = node_resized,
};

bool bdrv_reaches(BlockDriverState *bs, BlockDriverState *target)
{
    BdrvChild *c;

    if (bs == target) {
        return true;
    }
    BDRV_FOREACH_CHILD(bs, c) {
        if (bdrv_reaches(c->bs, target)) {
            return true;
        }
    }
    return false;
}

/* ---- links ---- */

static void link_to_child(BdrvChild *child, BlockDriverState *bs)
{
    child->bs = bs;
    bdrv_ref(bs);
    g_queue_push_tail_link(&bs->parents, &child->in_child);
    bdrv_edge_quiesce(child, (int)bs->quiesce_counter);
}

static void unlink_from_child(BdrvChild *child)
{
    BlockDriverState *bs = child->bs;

    bdrv_edge_quiesce(child, -(int)bs->quiesce_counter);
    g_queue_unlink(&bs->parents, &child->in_child);
    child->bs = NULL;
    bdrv_unref(bs);
}

static BdrvChild *edge_new(const char *name, const BdrvChildClass *klass, BdrvChildRole role,
                           BlockDriverState *parent, void *opaque)
{
    BdrvChild *child = g_new0(BdrvChild, 1);

    child->name = g_strdup(name);
    child->klass = klass;
    child->role = role;
    child->parent = parent;
    child->opaque = opaque;
    child->shared_perm = BLK_PERM_ALL;
    child->in_parent.data = child;
    child->in_child.data = child;
    return child;
}

static void edge_free(BdrvChild *child)
{
    BlockDriverState *parent = child->parent;

    if (parent) {
        g_queue_unlink(&parent->children, &child->in_parent);
        if (parent->file == child) {
            parent->file = NULL;
        }
        if (parent->backing == child) {
            parent->backing = NULL;
        }
    }
    g_free(child->name);
    g_free(child);
}

BdrvChild *bdrv_attach_child(BlockDriverState *parent, BlockDriverState *bs, const char *name,
                             BdrvChildRole role, Error **errp)
{
    BdrvChild *child;

    if (bdrv_reaches(bs, parent)) {
        error_setg(errp, "Making '%s' a %s child of '%s' would create a cycle", bs->node_name, name,
                   parent->node_name);
        return NULL;
    }
    if (bdrv_unify_contexts(parent, bs, errp) < 0) {
        return NULL;
    }
    child = edge_new(name, &bdrv_child_of_node, role, parent, parent);
    g_queue_push_tail_link(&parent->children, &child->in_parent);
    link_to_child(child, bs);
    bdrv_refresh_thread_safe(parent);
    if (bdrv_update_perms(parent, errp) < 0) {
        unlink_from_child(child);
        edge_free(child);
        bdrv_refresh_thread_safe(parent);
        return NULL;
    }
    return child;
}

/*
 * What an edge leaves behind can only want less; that never fails but for a lock that cannot be
 * given up.
 */
static void update_perms_after_loss(BlockDriverState *bs)
{
    Error *err = NULL;

    if (bdrv_update_perms(bs, &err) < 0) {
        warn_report("permissions of node '%s' stay as they were: %s", bs->node_name,
                    error_get_pretty(err));
        error_free(err);
    }
}

void bdrv_detach_child(BdrvChild *child)
{
    BlockDriverState *parent, *bs;

    if (!child) {
        return;
    }
    parent = child->parent;
    bs = child->bs;
    bdrv_ref(bs);
    unlink_from_child(child);
    edge_free(child);
    bdrv_refresh_thread_safe(parent);
    update_perms_after_loss(bs);
    bdrv_unref(bs);
}

BdrvChild *bdrv_root_attach_child(BlockDriverState *bs, const char *name,
                                  const BdrvChildClass *klass, uint64_t perm, uint64_t shared_perm,
                                  void *opaque, Error **errp)
{
    BdrvChild *child = edge_new(name, klass, 0, NULL, opaque);

    child->perm = perm;
    child->shared_perm = shared_perm;
    link_to_child(child, bs);
    if (bdrv_update_perms(bs, errp) < 0) {
        unlink_from_child(child);
        edge_free(child);
        return NULL;
    }
    return child;
}

void bdrv_root_detach_child(BdrvChild *child)
{
    BlockDriverState *bs = child->bs;

    bdrv_ref(bs);
    unlink_from_child(child);
    edge_free(child);
    update_perms_after_loss(bs);
    bdrv_unref(bs);
}

int bdrv_child_try_set_perm(BdrvChild *child, uint64_t perm, uint64_t shared, Error **errp)
{
    uint64_t old_perm = child->perm, old_shared = child->shared_perm;

    child->perm = perm;
    child->shared_perm = shared;
    if (bdrv_update_perms(child->bs, errp) < 0) {
        child->perm = old_perm;
        child->shared_perm = old_shared;
        return -1;
    }
    return 0;
}

/* ---- changes ---- */

static bool edge_may_change(const BdrvChild *child, Error **errp)
{
    if (child->frozen) {
        g_autofree char *parent = child->klass->describe_parent(child);

        error_setg(errp, "Cannot change the link '%s' from %s to node '%s': a job depends on it",
                   child->name, parent, child->bs->node_name);
        return false;
    }
    return true;
}

/*
 * Let the edge point elsewhere without asking about permissions. The old node is not unreferenced
 * yet.
 */
static void redirect(BdrvChild *child, BlockDriverState *to)
{
    bdrv_ref(child->bs);
    unlink_from_child(child);
    link_to_child(child, to);
    if (child->parent) {
        bdrv_refresh_thread_safe(child->parent);
    }
}

int bdrv_replace_child(BdrvChild *child, BlockDriverState *new_bs, Error **errp)
{
    BlockDriverState *old = child->bs, *nodes[] = { new_bs, old, child->parent };
    int ret;

    if (old == new_bs) {
        return 0;
    }
    if (!edge_may_change(child, errp)) {
        return -1;
    }
    if (child->parent && bdrv_reaches(new_bs, child->parent)) {
        error_setg(errp, "Putting '%s' below '%s' would create a cycle", new_bs->node_name,
                   child->parent->node_name);
        return -1;
    }
    if (bdrv_unify_contexts(old, new_bs, errp) < 0) {
        return -1;
    }
    bdrv_drained_begin(old);
    bdrv_drained_begin(new_bs);
    redirect(child, new_bs);
    ret = bdrv_update_perms_of(nodes, child->parent ? 3 : 2, errp);
    if (ret < 0) {
        redirect(child, old);
        bdrv_unref(new_bs);
    }
    if (child->parent) {
        bdrv_refresh_limits(child->parent);
    }
    bdrv_drained_end(new_bs);
    bdrv_drained_end(old);
    if (ret == 0 && child->klass->resized && bdrv_getlength(new_bs) != bdrv_getlength(old)) {
        child->klass->resized(child);
    }
    bdrv_unref(old);
    return ret;
}

int bdrv_set_backing_hd(BlockDriverState *overlay, BlockDriverState *bs, Error **errp)
{
    int ret = 0;

    if (!overlay->drv->supports_backing) {
        error_setg(errp, "Driver '%s' of node '%s' does not support backing files",
                   overlay->drv->format_name, overlay->node_name);
        return -1;
    }
    if (overlay->backing && bs) {
        return bdrv_replace_child(overlay->backing, bs, errp);
    }
    if (!overlay->backing && !bs) {
        return 0;
    }
    if (overlay->backing && !edge_may_change(overlay->backing, errp)) {
        return -1;
    }
    bdrv_ref(overlay);
    bdrv_drained_begin(overlay);
    if (bs) {
        overlay->backing = bdrv_attach_child(overlay, bs, "backing", BDRV_CHILD_COW, errp);
        ret = overlay->backing ? 0 : -1;
    } else {
        bdrv_detach_child(overlay->backing);
    }
    bdrv_refresh_limits(overlay);
    bdrv_drained_end(overlay);
    bdrv_unref(overlay);
    return ret;
}

/* The edges of @from that bdrv_replace_node() moves, all but those inside the tree of @to. */
static GPtrArray *edges_to_move(BlockDriverState *from, BlockDriverState *to, Error **errp)
{
    g_autoptr(GPtrArray) edges = g_ptr_array_new();
    BdrvChild *c;

    BDRV_FOREACH_PARENT(from, c) {
        if (c->parent && bdrv_reaches(to, c->parent)) {
            continue;
        }
        if (!edge_may_change(c, errp)) {
            return NULL;
        }
        g_ptr_array_add(edges, c);
    }
    return g_steal_pointer(&edges);
}

static void redirect_all(GPtrArray *edges, BlockDriverState *from, BlockDriverState *to)
{
    for (guint i = 0; i < edges->len; i++) {
        redirect(edges->pdata[i], to);
        bdrv_unref(from);
    }
}

/* Everything drained, contexts the same. */
static int replace_drained(BlockDriverState *from, BlockDriverState *to, Error **errp)
{
    g_autoptr(GPtrArray) edges = edges_to_move(from, to, errp);
    g_autofree BlockDriverState **nodes = NULL;
    size_t n = 0;

    if (!edges) {
        return -1;
    }
    redirect_all(edges, from, to);
    nodes = g_new(BlockDriverState *, edges->len + 2);
    for (guint i = 0; i < edges->len; i++) {
        BdrvChild *c = edges->pdata[i];

        if (c->parent) {
            nodes[n++] = c->parent;
        }
    }
    nodes[n++] = to;
    nodes[n++] = from;
    if (bdrv_update_perms_of(nodes, n, errp) < 0) {
        redirect_all(edges, to, from);
        return -1;
    }
    for (guint i = 0; i < edges->len; i++) {
        BdrvChild *c = edges->pdata[i];

        if (c->parent) {
            bdrv_refresh_limits(c->parent);
        }
        if (c->klass->resized && bdrv_getlength(to) != bdrv_getlength(from)) {
            c->klass->resized(c);
        }
    }
    return 0;
}

int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp)
{
    int ret;

    if (from == to) {
        return 0;
    }
    if (bdrv_unify_contexts(from, to, errp) < 0) {
        return -1;
    }
    bdrv_ref(from);
    bdrv_ref(to);
    bdrv_drained_begin(from);
    bdrv_drained_begin(to);
    ret = replace_drained(from, to, errp);
    bdrv_drained_end(to);
    bdrv_drained_end(from);
    bdrv_unref(to);
    bdrv_unref(from);
    return ret;
}

int bdrv_append(BlockDriverState *bs_new, BlockDriverState *bs_top, Error **errp)
{
    const BdrvChildRole filter_role = BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY;
    BdrvChild *below;
    int ret = -1;

    g_assert(!bs_new->backing);
    if (bdrv_unify_contexts(bs_new, bs_top, errp) < 0) {
        return -1;
    }
    bdrv_ref(bs_top);
    bdrv_drained_begin(bs_top);
    bdrv_drained_begin(bs_new);
    if (bs_new->drv->is_filter) {
        below = bdrv_attach_child(bs_new, bs_top, "file", filter_role, errp);
        bs_new->file = below;
    } else {
        below = bdrv_attach_child(bs_new, bs_top, "backing", BDRV_CHILD_COW, errp);
        bs_new->backing = below;
    }
    if (below) {
        bdrv_refresh_limits(bs_new);
        ret = replace_drained(bs_top, bs_new, errp);
        if (ret < 0) {
            bdrv_detach_child(below);
        }
    }
    bdrv_drained_end(bs_new);
    bdrv_drained_end(bs_top);
    bdrv_unref(bs_top);
    return ret;
}
