/*
 * The object throttle-group: from QAPI's properties to a ThrottleConfig.
 *
 * The properties come twice, as members of `limits` and, with an x- before the name, on their own;
 * what the schema made of both is read by one table of where each is.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/throttle-group-object.h"

#include <inttypes.h>
#include <stddef.h>

#include "block/throttle-groups.h"

/* Where a property is in the struct that the generator made, and which number it is. */
typedef struct Property {
    const char *name;
    size_t has, value;
    int bucket;                 /* ThrottleBucketType, or THROTTLE_BUCKETS: iops-size */
    size_t field;               /* in ThrottleLimit */
} Property;

#define PROPERTY(type, prefix, c_name, name_, bucket_, field_) { \
    .name = name_, .has = offsetof(type, has_##prefix##c_name), \
    .value = offsetof(type, prefix##c_name), .bucket = bucket_, .field = field_, \
}
#define BUCKET(type, prefix, c_name, name_, bucket_) \
    PROPERTY(type, prefix, c_name, name_, bucket_, offsetof(ThrottleLimit, avg)), \
    PROPERTY(type, prefix, c_name##_max, name_ "-max", bucket_, offsetof(ThrottleLimit, max)), \
    PROPERTY(type, prefix, c_name##_max_length, name_ "-max-length", bucket_, \
             offsetof(ThrottleLimit, burst_length))
#define PROPERTIES(type, prefix, text) \
    BUCKET(type, prefix, bps_total, text "bps-total", THROTTLE_BPS_TOTAL), \
    BUCKET(type, prefix, bps_read, text "bps-read", THROTTLE_BPS_READ), \
    BUCKET(type, prefix, bps_write, text "bps-write", THROTTLE_BPS_WRITE), \
    BUCKET(type, prefix, iops_total, text "iops-total", THROTTLE_OPS_TOTAL), \
    BUCKET(type, prefix, iops_read, text "iops-read", THROTTLE_OPS_READ), \
    BUCKET(type, prefix, iops_write, text "iops-write", THROTTLE_OPS_WRITE), \
    PROPERTY(type, prefix, iops_size, text "iops-size", THROTTLE_BUCKETS, 0)

static const Property own_properties[] = { PROPERTIES(ThrottleGroupProperties, x_, "x-") };
static const Property limits_properties[] = { PROPERTIES(ThrottleLimits, , "") };

static bool read_properties(ThrottleConfig *cfg, const void *from, const Property *props, size_t n,
                            Error **errp)
{
    for (size_t i = 0; i < n; i++) {
        const Property *p = &props[i];
        int64_t value = *(const int64_t *)((const char *)from + p->value);
        void *limit;

        if (!*(const bool *)((const char *)from + p->has)) {
            continue;
        }
        if (value < 0) {
            error_setg(errp, "%s (%" PRId64 ") cannot be negative", p->name, value);
            return false;
        }
        limit =
            p->bucket < THROTTLE_BUCKETS ? (void *)&cfg->limits[p->bucket] : (void *)&cfg->op_size;
        *(uint64_t *)((char *)limit + p->field) = value;
    }
    return true;
}

static void *throttle_group_create(const ObjectOptions *opts, Error **errp)
{
    const ThrottleGroupProperties *props = &opts->u.throttle_group;
    ThrottleConfig cfg;

    throttle_config_init(&cfg);
    if (!read_properties(&cfg, props, own_properties, G_N_ELEMENTS(own_properties), errp) ||
        (props->limits && !read_properties(&cfg, props->limits, limits_properties,
                                           G_N_ELEMENTS(limits_properties), errp)) ||
        !throttle_config_check(&cfg, errp)) {
        return NULL;
    }
    return throttle_group_new(opts->id, &cfg, errp);
}

static bool throttle_group_in_use(void *object)
{
    return throttle_group_members(object) > 0;
}

static void throttle_group_destroy(void *object)
{
    throttle_group_delete(object);
}

const UserObjectClass throttle_group_class = {
    .type = OBJECT_TYPE_THROTTLE_GROUP,
    .desc = "limits on the rate of requests, shared by block nodes",
    .create = throttle_group_create,
    .in_use = throttle_group_in_use,
    .destroy = throttle_group_destroy,
};
