/*
 * Throttle groups.
 *
 * In each direction one waiting request of the group has the turn. It sleeps until the buckets let
 * it go (all others just wait), goes, and gives the turn to the next: the first one of the next
 * member that has any. So there is at most one timer a direction, in the context of the request
 * that has the turn, and no thread that would run the group.
 *
 * A waiter is woken by its own timer, by who gives it the turn, or by a change of limits; whoever
 * does that first, under the lock, wakes its coroutine, and nobody else does.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/throttle-groups.h"

#include <string.h>

#include "util/aio.h"
#include "util/mutex.h"

/* A request that waits; on its coroutine's stack. All under the group's lock. */
typedef struct Waiter {
    ThrottleMember *member;
    Coroutine *co;
    bool asleep;                /* nobody has woken it since it went to sleep */
    GList link;                 /* in the member's queue, while it does not have the turn */
} Waiter;

struct ThrottleMember {
    ThrottleGroup *group;
    unsigned unlimited;
    GQueue waiting[THROTTLE_DIRECTIONS];
    GList in_group;
};

struct ThrottleGroup {
    char *name;
    unsigned refs;              /* members, and whoever made it; main thread */
    Mutex lock;
    ThrottleState ts;
    GQueue members;             /* of ThrottleMember */
    Waiter *turn[THROTTLE_DIRECTIONS];
    ThrottleMember *last[THROTTLE_DIRECTIONS];  /* who had the turn before, or has it */
};

/* Main thread. */
static GHashTable *groups;

/*
 * Groups and members
 * ------------------------------------------------------------------------------------
 */

ThrottleGroup *throttle_group_new(const char *name, const ThrottleConfig *cfg, Error **errp)
{
    ThrottleGroup *group;

    if (!groups) {
        groups = g_hash_table_new(g_str_hash, g_str_equal);
    }
    if (g_hash_table_contains(groups, name)) {
        error_setg(errp, "A throttle group with name '%s' exists already", name);
        return NULL;
    }
    group = g_new0(ThrottleGroup, 1);
    group->name = g_strdup(name);
    group->refs = 1;
    mutex_init(&group->lock);
    throttle_configure(&group->ts, cfg, aio_clock_ns());
    g_hash_table_insert(groups, group->name, group);
    return group;
}

static void group_unref(ThrottleGroup *group)
{
    if (--group->refs > 0) {
        return;
    }
    mutex_destroy(&group->lock);
    g_free(group->name);
    g_free(group);
}

void throttle_group_delete(ThrottleGroup *group)
{
    g_hash_table_remove(groups, group->name);
    group_unref(group);
}

ThrottleGroup *throttle_group_by_name(const char *name)
{
    return groups ? g_hash_table_lookup(groups, name) : NULL;
}

const char *throttle_group_name(const ThrottleGroup *group)
{
    return group->name;
}

unsigned throttle_group_members(const ThrottleGroup *group)
{
    return group->members.length;
}

ThrottleMember *throttle_group_join(ThrottleGroup *group)
{
    ThrottleMember *member = g_new0(ThrottleMember, 1);

    member->group = group;
    group->refs++;
    member->in_group.data = member;
    mutex_lock(&group->lock);
    g_queue_push_tail_link(&group->members, &member->in_group);
    mutex_unlock(&group->lock);
    return member;
}

void throttle_group_leave(ThrottleMember *member)
{
    ThrottleGroup *group = member->group;

    mutex_lock(&group->lock);
    for (int dir = 0; dir < THROTTLE_DIRECTIONS; dir++) {
        g_assert(member->waiting[dir].length == 0);
        g_assert(!group->turn[dir] || group->turn[dir]->member != member);
        if (group->last[dir] == member) {
            group->last[dir] = NULL;
        }
    }
    g_queue_unlink(&group->members, &member->in_group);
    mutex_unlock(&group->lock);
    group_unref(group);
    g_free(member);
}

ThrottleMember *throttle_member_move(ThrottleMember *member, ThrottleGroup *group)
{
    ThrottleMember *moved = throttle_group_join(group);

    moved->unlimited = member->unlimited;
    throttle_group_leave(member);
    return moved;
}

ThrottleGroup *throttle_member_group(const ThrottleMember *member)
{
    return member->group;
}

/*
 * Sleeping and waking, under the lock
 * ------------------------------------------------------------------
 */

/* Its coroutine goes on from its loop, not from here, where the lock is held. */
static void wake(Waiter *w)
{
    if (w->asleep) {
        w->asleep = false;
        aio_co_schedule(aio_co_context(w->co), w->co);
    }
}

static void timer_expired(void *opaque)
{
    Waiter *w = opaque;
    Mutex *lock = &w->member->group->lock;

    mutex_lock(lock);
    wake(w);
    mutex_unlock(lock);
}

/* Until woken, or for @ns (0: without an end). Releases the lock meanwhile. */
static void coroutine_fn co_sleep(Waiter *w, int64_t ns)
{
    ThrottleGroup *group = w->member->group;
    AioTimer *timer = NULL;

    w->asleep = true;
    if (ns > 0) {
        timer = aio_timer_new(aio_current(), timer_expired, w);
        aio_timer_mod(timer, aio_clock_ns() + ns);
    }
    mutex_unlock(&group->lock);
    coroutine_yield();
    /* No timer function runs now: it would run in this thread. */
    aio_timer_free(timer);
    mutex_lock(&group->lock);
}

/* The first waiter of the next member that has one; it leaves its queue. */
static Waiter *next_waiter(ThrottleGroup *group, ThrottleDirection dir)
{
    GList *start = group->last[dir] ? &group->last[dir]->in_group : group->members.tail, *l = start;

    do {
        ThrottleMember *member;

        l = l->next ? l->next : group->members.head;
        member = l->data;
        if (member->waiting[dir].head) {
            Waiter *w = member->waiting[dir].head->data;

            g_queue_unlink(&member->waiting[dir], &w->link);
            group->last[dir] = member;
            return w;
        }
    } while (l != start);
    return NULL;
}

static void pass_turn(ThrottleGroup *group, ThrottleDirection dir)
{
    group->turn[dir] = next_waiter(group, dir);
    if (group->turn[dir]) {
        wake(group->turn[dir]);
    }
}

void throttle_member_unlimit(ThrottleMember *member)
{
    ThrottleGroup *group = member->group;

    mutex_lock(&group->lock);
    member->unlimited++;
    for (int dir = 0; dir < THROTTLE_DIRECTIONS; dir++) {
        if (group->turn[dir] && group->turn[dir]->member == member) {
            wake(group->turn[dir]);
        }
        for (GList *l = member->waiting[dir].head; l; l = l->next) {
            wake(l->data);
        }
    }
    mutex_unlock(&group->lock);
}

void throttle_member_limit(ThrottleMember *member)
{
    mutex_lock(&member->group->lock);
    g_assert(member->unlimited > 0);
    member->unlimited--;
    mutex_unlock(&member->group->lock);
}

void throttle_group_set_config(ThrottleGroup *group, const ThrottleConfig *cfg)
{
    mutex_lock(&group->lock);
    throttle_configure(&group->ts, cfg, aio_clock_ns());
    for (int dir = 0; dir < THROTTLE_DIRECTIONS; dir++) {
        if (group->turn[dir]) {
            wake(group->turn[dir]);
        }
    }
    mutex_unlock(&group->lock);
}

void throttle_group_get_config(ThrottleGroup *group, ThrottleConfig *cfg)
{
    mutex_lock(&group->lock);
    *cfg = group->ts.cfg;
    mutex_unlock(&group->lock);
}

/*
 * Requests
 * ------------------------------------------------------------------------------------------------
 */

/* Take the turn when nobody has it, else queue for it. */
static void line_up(ThrottleGroup *group, Waiter *w, ThrottleDirection dir)
{
    if (!group->turn[dir]) {
        group->turn[dir] = w;
        group->last[dir] = w->member;
    } else {
        g_queue_push_tail_link(&w->member->waiting[dir], &w->link);
    }
}

void coroutine_fn throttle_member_co_wait(ThrottleMember *member, ThrottleDirection dir,
                                          uint64_t bytes)
{
    ThrottleGroup *group = member->group;
    Waiter w = { .member = member, .co = coroutine_self() };

    w.link.data = &w;
    mutex_lock(&group->lock);
    line_up(group, &w, dir);
    while (member->unlimited == 0) {
        int64_t ns = 0;

        if (group->turn[dir] == &w) {
            ns = throttle_wait_ns(&group->ts, dir, aio_clock_ns());
            if (ns == 0) {
                break;
            }
        }
        co_sleep(&w, ns);
    }
    throttle_account(&group->ts, dir, bytes);
    if (group->turn[dir] == &w) {
        pass_turn(group, dir);
    } else {
        g_queue_unlink(&member->waiting[dir], &w.link);
    }
    mutex_unlock(&group->lock);
}
