/*
 * Throttle groups: nodes that share limits on the rate of their requests.
 *
 * A group has a name and one set of buckets (util/throttle.h). Its members take turns, one request
 * each, so that a member with many requests does not starve another with few; within a member
 * requests go in the order in which they came. Members may be in different AioContexts.
 *
 * Groups, members and configuration: main thread. Requests: any context's coroutine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_THROTTLE_GROUPS_H
#define BLOCK_THROTTLE_GROUPS_H

#include "util/coroutine.h"
#include "util/throttle.h"

typedef struct ThrottleGroup ThrottleGroup;
typedef struct ThrottleMember ThrottleMember;

/* A new group; NULL with @errp set: the name is taken. */
ThrottleGroup *throttle_group_new(const char *name, const ThrottleConfig *cfg, Error **errp);
/* Its name is free; members go on with its limits as long as there are any. */
void throttle_group_delete(ThrottleGroup *group);
ThrottleGroup *throttle_group_by_name(const char *name);
const char *throttle_group_name(const ThrottleGroup *group);
unsigned throttle_group_members(const ThrottleGroup *group);
/* Valid limits; they hold from now on, for those who wait too. */
void throttle_group_set_config(ThrottleGroup *group, const ThrottleConfig *cfg);
void throttle_group_get_config(ThrottleGroup *group, ThrottleConfig *cfg);

ThrottleMember *throttle_group_join(ThrottleGroup *group);
/* None of its requests waits. */
void throttle_group_leave(ThrottleMember *member);
/*
 * Into another group, as unlimited as it is. None of its requests waits. Returns the member there.
 */
ThrottleMember *throttle_member_move(ThrottleMember *member, ThrottleGroup *group);
ThrottleGroup *throttle_member_group(const ThrottleMember *member);
/* While unlimited, its requests go at once, those that wait as well: for drains. Nests. */
void throttle_member_unlimit(ThrottleMember *member);
void throttle_member_limit(ThrottleMember *member);

/* Wait until a request of that many bytes may go, and count it. */
void coroutine_fn throttle_member_co_wait(ThrottleMember *member, ThrottleDirection dir,
                                          uint64_t bytes);

#endif
