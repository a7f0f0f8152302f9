/*
 * Capabilities and parameters.
 *
 * Two tables say everything: one line for each capability (its default, the canonical one when it
 * is an alias), one for each numeric parameter (where it is, its range, whether it may change while
 * a migration runs). Setting works on a copy, checks it whole and then replaces, so a refused
 * command changes nothing.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/options.h"

#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "qapi/qapi-commands-migration.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-migration.h"
#include "util/cutils.h"
#include "util/mutex.h"

#define MAX_DOWNTIME_MS 2000000

/* Capabilities that are another spelling of a canonical one, and those that are on at first. */
static const struct {
    MigrationCapability alias, canonical;
} cap_aliases[] = {
    { MIGRATION_CAPABILITY_MAPPED_RAM, MIGRATION_CAPABILITY_DIRECT_MAPPED },
};

static MigrationCapability canonical_cap(MigrationCapability cap)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cap_aliases); i++) {
        if (cap_aliases[i].alias == cap) {
            return cap_aliases[i].canonical;
        }
    }
    return cap;
}

/* The parameter that is another spelling of a capability. */
#define PARAM_ALIAS_NAME "direct-io"
#define PARAM_ALIAS_CAP MIGRATION_CAPABILITY_BYPASS_CACHE

typedef enum ParamWidth { PARAM_U8, PARAM_U64 } ParamWidth;

static const struct NumericParam {
    const char *name;
    size_t has, value;
    ParamWidth width;
    uint64_t min, max, initial;
    bool live;                          /* may change while a migration runs */
} numeric_params[] = {
#define PARAM(name_, member_, width_, min_, max_, initial_, live_) \
    { name_, offsetof(MigrationParameters, has_##member_), \
      offsetof(MigrationParameters, member_), width_, min_, max_, initial_, live_ }
    PARAM("throttle-trigger-threshold", throttle_trigger_threshold, PARAM_U8, 1, 100, 50, true),
    PARAM("cpu-throttle-initial", cpu_throttle_initial, PARAM_U8, 1, 99, 20, true),
    PARAM("cpu-throttle-increment", cpu_throttle_increment, PARAM_U8, 1, 99, 10, true),
    PARAM("max-cpu-throttle", max_cpu_throttle, PARAM_U8, 1, 99, 99, true),
    PARAM("max-bandwidth", max_bandwidth, PARAM_U64, 0, INT64_MAX, 128 * MiB, true),
    PARAM("avail-switchover-bandwidth", avail_switchover_bandwidth, PARAM_U64, 0, INT64_MAX, 0,
          true),
    PARAM("downtime-limit", downtime_limit, PARAM_U64, 0, MAX_DOWNTIME_MS, 300, true),
    PARAM("multifd-channels", multifd_channels, PARAM_U8, 1, 255, 2, false),
    PARAM("multifd-zlib-level", multifd_zlib_level, PARAM_U8, 0, 9, 1, false),
    PARAM("multifd-zstd-level", multifd_zstd_level, PARAM_U8, 0, 20, 1, false),
#undef PARAM
};

static bool *param_has(MigrationParameters *p, const struct NumericParam *np)
{
    return (bool *)((uint8_t *)p + np->has);
}

static uint64_t param_get(const MigrationParameters *p, const struct NumericParam *np)
{
    const uint8_t *at = (const uint8_t *)p + np->value;

    return np->width == PARAM_U8 ? *at : *(const uint64_t *)at;
}

static void param_set(MigrationParameters *p, const struct NumericParam *np, uint64_t value)
{
    uint8_t *at = (uint8_t *)p + np->value;

    if (np->width == PARAM_U8) {
        *at = value;
    } else {
        *(uint64_t *)at = value;
    }
    *param_has(p, np) = true;
}

/* What commands set, and a copy with config applied while a migration runs. */
static MigrationOptions global_options;
static MigrationOptions active_options;
static bool migration_active;
static Mutex live_lock;                /* guards active_options.params */

static void options_init_once(void)
{
    static bool done;

    if (done) {
        return;
    }
    done = true;
    MigrationParameters *p = &global_options.params;
    for (unsigned i = 0; i < G_N_ELEMENTS(numeric_params); i++) {
        param_set(p, &numeric_params[i], numeric_params[i].initial);
    }
    p->has_cpu_throttle_tailslow = true;
    p->has_multifd_compression = true;
    p->has_zero_page_detection = true;
    p->zero_page_detection = ZERO_PAGE_DETECTION_MULTIFD;
    p->has_direct_io = true;
    global_options.caps[MIGRATION_CAPABILITY_RETURN_PATH] = true;
}

const MigrationOptions *migration_options_global(void)
{
    options_init_once();
    return &global_options;
}

/* What can never be together, whoever runs it. */
static int check_conflicts(const MigrationOptions *opts, Error **errp)
{
    bool mapped = migration_cap(opts, MIGRATION_CAPABILITY_DIRECT_MAPPED);

    if (mapped && opts->params.multifd_compression != MULTI_FD_COMPRESSION_NONE) {
        error_setg(errp, "Capability 'direct-mapped' cannot be used together with parameter "
                   "'multifd-compression' set to '%s'",
                   MultiFDCompression_str(opts->params.multifd_compression));
        return -1;
    }
    if (mapped && migration_cap(opts, MIGRATION_CAPABILITY_X_IGNORE_SHARED)) {
        error_setg(errp, "Capability 'direct-mapped' cannot be used together with capability "
                         "'x-ignore-shared'");
        return -1;
    }
    return 0;
}

/* What a migration needs that may be set in any order before it. */
static int check_companions(const MigrationOptions *opts, Error **errp)
{
    if (migration_cap(opts, MIGRATION_CAPABILITY_BYPASS_CACHE) &&
        !migration_cap(opts, MIGRATION_CAPABILITY_DIRECT_MAPPED)) {
        error_setg(errp, "Capability 'bypass-cache' requires capability 'direct-mapped'");
        return -1;
    }
    return 0;
}

static int check_numeric(MigrationParameters *p, Error **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(numeric_params); i++) {
        const struct NumericParam *np = &numeric_params[i];
        uint64_t value = param_get(p, np);
        if (*param_has(p, np) && (value < np->min || value > np->max)) {
            error_setg(errp, "Parameter '%s' expects a value between %" PRIu64 " and %" PRIu64,
                       np->name, np->min, np->max);
            return -1;
        }
    }
    return 0;
}

/* While a migration runs only the live parameters may be in @p. */
static int check_only_live(MigrationParameters *p, Error **errp)
{
    const char *fixed = p->has_multifd_compression    ? "multifd-compression"
                        : p->has_zero_page_detection ? "zero-page-detection"
                        : p->has_direct_io           ? PARAM_ALIAS_NAME
                                                     : NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(numeric_params) && !fixed; i++) {
        if (*param_has(p, &numeric_params[i]) && !numeric_params[i].live) {
            fixed = numeric_params[i].name;
        }
    }
    if (fixed) {
        error_setg(errp, "Parameter '%s' cannot be changed while a migration is running", fixed);
        return -1;
    }
    return 0;
}

/* Apply what is present in @p to @opts; the values have been checked. */
static void apply_params(MigrationOptions *opts, MigrationParameters *p)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(numeric_params); i++) {
        if (*param_has(p, &numeric_params[i])) {
            param_set(&opts->params, &numeric_params[i], param_get(p, &numeric_params[i]));
        }
    }
    if (p->has_max_bandwidth) {
        opts->max_bandwidth_set = true;
    }
    if (p->has_cpu_throttle_tailslow) {
        opts->params.cpu_throttle_tailslow = p->cpu_throttle_tailslow;
    }
    if (p->has_multifd_compression) {
        opts->params.multifd_compression = p->multifd_compression;
    }
    if (p->has_zero_page_detection) {
        opts->params.zero_page_detection = p->zero_page_detection;
    }
    if (p->has_direct_io) {
        opts->caps[PARAM_ALIAS_CAP] = p->direct_io;
    }
    opts->params.direct_io = opts->caps[PARAM_ALIAS_CAP];
}

static int check_throttle_range(const MigrationOptions *opts, Error **errp)
{
    if (opts->params.max_cpu_throttle < opts->params.cpu_throttle_initial) {
        error_setg(errp, "Parameter 'max-cpu-throttle' expects a value between "
                   "cpu-throttle-initial (%u) and 99", opts->params.cpu_throttle_initial);
        return -1;
    }
    return 0;
}

/* The capabilities of a config: name, and where they are in it. */
static const struct {
    MigrationCapability cap;
    size_t has, value;
} config_caps[] = {
#define CAP(cap_, member_) \
    { MIGRATION_CAPABILITY_##cap_, offsetof(MigrationConfig, has_##member_), \
      offsetof(MigrationConfig, member_) }
    CAP(AUTO_CONVERGE, auto_converge),
    CAP(EVENTS, events),
    CAP(PAUSE_BEFORE_SWITCHOVER, pause_before_switchover),
    CAP(RETURN_PATH, return_path),
    CAP(MULTIFD, multifd),
    CAP(X_IGNORE_SHARED, x_ignore_shared),
    CAP(VALIDATE_UUID, validate_uuid),
    CAP(DIRECT_MAPPED, direct_mapped),
    CAP(MAPPED_RAM, mapped_ram),
    CAP(BYPASS_CACHE, bypass_cache),
#undef CAP
};
G_STATIC_ASSERT(G_N_ELEMENTS(config_caps) == MIGRATION_CAPABILITY__MAX);

/* A capability as given under one of its spellings; both given must agree. */
typedef struct CapSettings {
    bool given[MIGRATION_CAPABILITY__MAX];
    bool state[MIGRATION_CAPABILITY__MAX];
} CapSettings;

static int cap_settings_add(CapSettings *s, MigrationCapability cap, bool state, Error **errp)
{
    MigrationCapability canonical = canonical_cap(cap);

    if (s->given[canonical] && s->state[canonical] != state) {
        error_setg(errp, "Capability '%s' is asked to be both on and off%s%s%s",
                   MigrationCapability_str(canonical), cap == canonical ? "" : " ('",
                   cap == canonical ? "" : MigrationCapability_str(cap),
                   cap == canonical ? "" : "' is another spelling of it)");
        return -1;
    }
    s->given[canonical] = true;
    s->state[canonical] = state;
    return 0;
}

static void apply_caps(MigrationOptions *opts, const CapSettings *s)
{
    for (unsigned i = 0; i < MIGRATION_CAPABILITY__MAX; i++) {
        if (s->given[i]) {
            opts->caps[i] = s->state[i];
        }
    }
    opts->params.direct_io = opts->caps[PARAM_ALIAS_CAP];
}

/* The parameters of a config, which has all their members at its beginning. */
static MigrationParameters *config_params(MigrationConfig *config)
{
    return qapi_MigrationConfig_base(config);
}

static int config_cap_settings(MigrationConfig *config, CapSettings *s, Error **errp)
{
    memset(s, 0, sizeof(*s));
    for (unsigned i = 0; i < G_N_ELEMENTS(config_caps); i++) {
        if (*(bool *)((uint8_t *)config + config_caps[i].has) &&
            cap_settings_add(s, config_caps[i].cap,
                             *(bool *)((uint8_t *)config + config_caps[i].value), errp) < 0) {
            return -1;
        }
    }
    if (config->has_direct_io) {
        return cap_settings_add(s, PARAM_ALIAS_CAP, config->direct_io, errp);
    }
    return 0;
}

int migration_options_resolve(MigrationConfig *config, bool incoming, MigrationOptions *opts,
                              Error **errp)
{
    *opts = *migration_options_global();
    if (config) {
        CapSettings caps;
        if (check_numeric(config_params(config), errp) < 0 ||
            config_cap_settings(config, &caps, errp) < 0) {
            error_prepend(errp, "config: ");
            return -1;
        }
        apply_params(opts, config_params(config));
        apply_caps(opts, &caps);
    }
    if (check_throttle_range(opts, errp) < 0 || check_conflicts(opts, errp) < 0) {
        return -1;
    }
    return check_companions(opts, errp);
}

void migration_options_begin(const MigrationOptions *opts)
{
    mutex_lock(&live_lock);
    active_options = *opts;
    mutex_unlock(&live_lock);
    migration_active = true;
}

void migration_options_end(void)
{
    migration_active = false;
}

static uint64_t live_param(size_t value_offset, ParamWidth width)
{
    struct NumericParam np = { .value = value_offset, .width = width };

    mutex_lock(&live_lock);
    uint64_t value = param_get(&active_options.params, &np);
    mutex_unlock(&live_lock);
    return value;
}
#define LIVE(member_, width_) live_param(offsetof(MigrationParameters, member_), width_)

uint64_t migration_live_max_bandwidth(void)
{
    return LIVE(max_bandwidth, PARAM_U64);
}

uint64_t migration_live_downtime_limit_ms(void)
{
    return LIVE(downtime_limit, PARAM_U64);
}

uint64_t migration_live_switchover_bandwidth(void)
{
    return LIVE(avail_switchover_bandwidth, PARAM_U64);
}

unsigned migration_live_throttle_trigger(void)
{
    return LIVE(throttle_trigger_threshold, PARAM_U8);
}

unsigned migration_live_throttle_initial(void)
{
    return LIVE(cpu_throttle_initial, PARAM_U8);
}

unsigned migration_live_throttle_increment(void)
{
    return LIVE(cpu_throttle_increment, PARAM_U8);
}

unsigned migration_live_throttle_max(void)
{
    return LIVE(max_cpu_throttle, PARAM_U8);
}

bool migration_live_throttle_tailslow(void)
{
    mutex_lock(&live_lock);
    bool tailslow = active_options.params.cpu_throttle_tailslow;
    mutex_unlock(&live_lock);
    return tailslow;
}

bool migration_live_max_bandwidth_set(void)
{
    mutex_lock(&live_lock);
    bool set = active_options.max_bandwidth_set;
    mutex_unlock(&live_lock);
    return set;
}

void qmp_migrate_set_capabilities(MigrationCapabilityStatusList *list, Error **errp)
{
    MigrationOptions wanted = *migration_options_global();
    CapSettings caps = { 0 };

    if (migration_active) {
        error_setg(errp, "Capabilities cannot be changed while a migration is running");
        return;
    }
    for (; list; list = list->next) {
        if (cap_settings_add(&caps, list->value->capability, list->value->state, errp) < 0) {
            return;
        }
    }
    apply_caps(&wanted, &caps);
    if (check_conflicts(&wanted, errp) == 0) {
        global_options = wanted;
    }
}

MigrationCapabilityStatusList *qmp_query_migrate_capabilities(Error **errp)
{
    const MigrationOptions *opts = migration_options_global();
    MigrationCapabilityStatusList *head = NULL, **tail = &head;

    for (unsigned i = 0; i < MIGRATION_CAPABILITY__MAX; i++) {
        *tail = g_new0(MigrationCapabilityStatusList, 1);
        (*tail)->value = g_new0(MigrationCapabilityStatus, 1);
        (*tail)->value->capability = i;
        (*tail)->value->state = migration_cap(opts, canonical_cap(i));
        tail = &(*tail)->next;
    }
    return head;
}

void qmp_migrate_set_parameters(MigrationParameters *p, Error **errp)
{
    MigrationOptions wanted = *migration_options_global();

    if (check_numeric(p, errp) < 0 || (migration_active && check_only_live(p, errp) < 0)) {
        return;
    }
    apply_params(&wanted, p);
    if (check_throttle_range(&wanted, errp) < 0 || check_conflicts(&wanted, errp) < 0) {
        return;
    }
    global_options = wanted;
    if (migration_active) {
        mutex_lock(&live_lock);
        apply_params(&active_options, p);
        mutex_unlock(&live_lock);
    }
}

MigrationParameters *qmp_query_migrate_parameters(Error **errp)
{
    MigrationParameters params = migration_options_global()->params;

    return QAPI_CLONE(MigrationParameters, &params);
}
