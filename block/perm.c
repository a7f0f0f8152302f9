/*
 * Permissions. Each edge says what its holder does to the node below and what it lets others do
 * there. A change of an edge changes what the node needs of its own children in turn, so it is
 * carried down, parents before children, and either holds everywhere or nowhere.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/graph-internal.h"

#define PERM_MODIFY (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE)

char *bdrv_perm_names(uint64_t perm)
{
    static const struct {
        uint64_t bit;
        const char *name;
    } names[] = {
        { BLK_PERM_CONSISTENT_READ, "consistent read" },
        { BLK_PERM_WRITE, "write" },
        { BLK_PERM_WRITE_UNCHANGED, "write unchanged" },
        { BLK_PERM_RESIZE, "resize" },
    };
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (perm & names[i].bit) {
            g_string_append_printf(text, "%s%s", text->len ? ", " : "", names[i].name);
        }
    }
    return g_string_free(text, FALSE);
}

void bdrv_cumulative_perms(const BlockDriverState *bs, uint64_t *perm, uint64_t *shared)
{
    BdrvChild *c;

    *perm = 0;
    *shared = BLK_PERM_ALL;
    if (bs->inactive) {
        return;
    }
    BDRV_FOREACH_PARENT(bs, c) {
        *perm |= c->perm;
        *shared &= c->shared_perm;
    }
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *child, BdrvChildRole role,
                        uint64_t parent_perm, uint64_t parent_shared, uint64_t *perm,
                        uint64_t *shared)
{
    if (bs->inactive) {
        *perm = 0;
        *shared = BLK_PERM_ALL;
        return;
    }
    if (role & BDRV_CHILD_FILTERED) {
        *perm = parent_perm;
        *shared = parent_shared;
    } else if (role & BDRV_CHILD_COW) {
        /* Who reads the node reads it through; nobody may change what shines through. */
        *perm = parent_perm & BLK_PERM_CONSISTENT_READ;
        *shared = BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED;
        if (parent_shared & BLK_PERM_WRITE) {
            *shared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
    } else {
        *perm = parent_perm & ~(uint64_t)BLK_PERM_WRITE_UNCHANGED;
        *shared = parent_shared;
        if (parent_perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) {
            *perm |= BLK_PERM_WRITE;
        }
        if (role & BDRV_CHILD_METADATA) {
            /* The format itself reads and, at any time, writes: nobody else may. */
            *perm |= BLK_PERM_CONSISTENT_READ;
            if (!bs->read_only) {
                *perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
            }
            *shared &= ~(uint64_t)(BLK_PERM_WRITE | BLK_PERM_RESIZE);
            *shared |= BLK_PERM_WRITE_UNCHANGED;
        }
    }
    if (bs->force_share) {
        *shared = BLK_PERM_ALL;
    }
}

/* Two holders of a node that do not go together: say which, and about what. */
static int check_conflicts(const BlockDriverState *bs, Error **errp)
{
    BdrvChild *a, *b;

    BDRV_FOREACH_PARENT(bs, a) {
        for (GList *l = a->in_child.next; l; l = l->next) {
            g_autofree char *a_name = NULL, *b_name = NULL, *what = NULL;

            b = l->data;
            if (!(a->perm & ~b->shared_perm) && !(b->perm & ~a->shared_perm)) {
                continue;
            }
            a_name = a->klass->describe_parent(a);
            b_name = b->klass->describe_parent(b);
            if (b->perm & ~a->shared_perm) {
                what = bdrv_perm_names(b->perm & ~a->shared_perm);
                error_setg(errp,
                           "Node '%s' is used by %s as '%s', which does not allow %s (wanted by %s "
                           "as '%s')",
                           bs->node_name, a_name, a->name, what, b_name, b->name);
            } else {
                what = bdrv_perm_names(a->perm & ~b->shared_perm);
                error_setg(errp,
                           "Node '%s' is to be used by %s as '%s', which does not allow %s (in use "
                           "by %s as '%s')",
                           bs->node_name, b_name, b->name, what, a_name, a->name);
            }
            return -1;
        }
    }
    return 0;
}

/* Somebody changes a node that nobody may change: say who, and what about it. */
static void report_read_only(const BlockDriverState *bs, Error **errp)
{
    BdrvChild *c;

    BDRV_FOREACH_PARENT(bs, c) {
        if (c->perm & PERM_MODIFY) {
            g_autofree char *who = c->klass->describe_parent(c);
            g_autofree char *what = bdrv_perm_names(c->perm & PERM_MODIFY);

            error_setg(errp, "Block node '%s' is read-only (%s wanted by %s as '%s')",
                       bs->node_name, what, who, c->name);
            return;
        }
    }
}

static int check_node(BlockDriverState *bs, Error **errp)
{
    uint64_t perm, shared;

    if (!bs->inactive && check_conflicts(bs, errp) < 0) {
        return -1;
    }
    bdrv_cumulative_perms(bs, &perm, &shared);
    if ((perm & PERM_MODIFY) && bs->read_only && !bs->auto_read_only) {
        report_read_only(bs, errp);
        return -1;
    }
    return 0;
}

/* ---- the walk ---- */

typedef struct SavedEdge {
    BdrvChild *child;
    uint64_t perm, shared;
} SavedEdge;

typedef struct PermUpdate {
    GPtrArray *order;           /* nodes, parents before children */
    GArray *saved;              /* of SavedEdge */
    guint checked;              /* how many nodes' drivers were asked */
} PermUpdate;

/* Depth first: a node is put in front of all that it stands on. */
static void visit(BlockDriverState *bs, GHashTable *seen, GPtrArray *post_order)
{
    BdrvChild *c;

    if (!g_hash_table_add(seen, bs)) {
        return;
    }
    BDRV_FOREACH_CHILD(bs, c) {
        visit(c->bs, seen, post_order);
    }
    g_ptr_array_add(post_order, bs);
}

static void update_children(PermUpdate *u, BlockDriverState *bs)
{
    uint64_t perm, shared;
    BdrvChild *c;

    bdrv_cumulative_perms(bs, &perm, &shared);
    BDRV_FOREACH_CHILD(bs, c) {
        SavedEdge saved = { .child = c, .perm = c->perm, .shared = c->shared_perm };

        g_array_append_val(u->saved, saved);
        if (bs->drv->child_perm) {
            bs->drv->child_perm(bs, c, c->role, perm, shared, &c->perm, &c->shared_perm);
        } else {
            bdrv_default_perms(bs, c, c->role, perm, shared, &c->perm, &c->shared_perm);
        }
    }
}

static int update_all(PermUpdate *u, Error **errp)
{
    for (; u->checked < u->order->len; u->checked++) {
        BlockDriverState *bs = u->order->pdata[u->order->len - 1 - u->checked];
        uint64_t perm, shared;

        if (check_node(bs, errp) < 0) {
            return -1;
        }
        bdrv_cumulative_perms(bs, &perm, &shared);
        if (bs->drv->check_perm && bs->drv->check_perm(bs, perm, shared, errp) < 0) {
            return -1;
        }
        update_children(u, bs);
    }
    return 0;
}

static void commit(PermUpdate *u)
{
    for (guint i = 0; i < u->order->len; i++) {
        BlockDriverState *bs = u->order->pdata[i];
        uint64_t perm, shared;

        bdrv_cumulative_perms(bs, &perm, &shared);
        if (bs->drv->set_perm) {
            bs->drv->set_perm(bs, perm, shared);
        }
    }
}

static void roll_back(PermUpdate *u)
{
    for (guint i = u->saved->len; i-- > 0;) {
        SavedEdge *saved = &g_array_index(u->saved, SavedEdge, i);

        saved->child->perm = saved->perm;
        saved->child->shared_perm = saved->shared;
    }
    for (guint i = 0; i < u->checked; i++) {
        BlockDriverState *bs = u->order->pdata[u->order->len - 1 - i];

        if (bs->drv->abort_perm_update) {
            bs->drv->abort_perm_update(bs);
        }
    }
}

int bdrv_update_perms_of(BlockDriverState **nodes, size_t n, Error **errp)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    PermUpdate u = {
        .order = g_ptr_array_new(),
        .saved = g_array_new(FALSE, FALSE, sizeof(SavedEdge)),
    };
    int ret;

    for (size_t i = 0; i < n; i++) {
        visit(nodes[i], seen, u.order);
    }
    ret = update_all(&u, errp);
    if (ret == 0) {
        commit(&u);
    } else {
        roll_back(&u);
    }
    g_ptr_array_free(u.order, TRUE);
    g_array_free(u.saved, TRUE);
    return ret;
}

int bdrv_update_perms(BlockDriverState *bs, Error **errp)
{
    return bdrv_update_perms_of(&bs, 1, errp);
}

int bdrv_refresh_perms(BlockDriverState *bs, Error **errp)
{
    return bdrv_update_perms(bs, errp);
}
