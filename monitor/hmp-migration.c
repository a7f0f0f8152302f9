/*
 * HMP: moving the machine.
 *
 * "migrate" without -d waits on its terminal until the migration has ended: the prompt is held, a
 * timer asks how far it is, and everything else goes on. Parameters and capabilities are known here
 * only as what the schema says of them, so a new one needs no change.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "monitor/hmp.h"
#include "monitor/monitor-internal.h"
#include "qapi/json-input-visitor.h"
#include "qapi/json-output-visitor.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-visit-migration.h"

#define PROGRESS_MS 250

/* ---- migrate ---- */

/* A terminal that waits for its migration to end. */
typedef struct Waiting {
    Monitor *mon;
    guint timer;
    int percent;                /* shown last; -1: none */
} Waiting;

static GSList *waiting;

static Waiting *find_waiting(Monitor *mon)
{
    for (GSList *l = waiting; l; l = l->next) {
        if (((Waiting *)l->data)->mon == mon) {
            return l->data;
        }
    }
    return NULL;
}

static void stop_waiting(Waiting *w)
{
    Monitor *mon = w->mon;

    waiting = g_slist_remove(waiting, w);
    g_source_remove(w->timer);
    g_free(w);
    monitor_resume(mon);
}

void hmp_migration_forget(Monitor *mon)
{
    Waiting *w = find_waiting(mon);

    if (w) {
        stop_waiting(w);
    }
}

static bool still_moving(const MigrationInfo *info)
{
    return info->has_status && (info->status == MIGRATION_STATUS_SETUP ||
                                info->status == MIGRATION_STATUS_ACTIVE ||
                                info->status == MIGRATION_STATUS_DEVICE ||
                                info->status == MIGRATION_STATUS_CANCELLING);
}

static void show_progress(Waiting *w, const MigrationInfo *info)
{
    int percent = 0;

    if (info->ram && info->ram->total > 0) {
        percent = 100 - (int)(100.0 * info->ram->remaining / info->ram->total);
    }
    if (percent != w->percent) {
        w->percent = percent;
        monitor_printf(w->mon, "Completed %d %%\r", percent);
    }
}

static void show_end(Monitor *mon, const MigrationInfo *info)
{
    monitor_printf(mon, "\n");
    if (info->error_desc) {
        monitor_printf(mon, "Error: %s\n", info->error_desc);
    } else if (info->has_status && info->status != MIGRATION_STATUS_COMPLETED) {
        monitor_printf(mon, "Migration status: %s\n", MigrationStatus_str(info->status));
    }
}

static gboolean look_again(void *opaque)
{
    Waiting *w = opaque;
    MigrationInfo *info = qmp_query_migrate(NULL);
    bool moving = info && still_moving(info);

    if (moving) {
        show_progress(w, info);
    } else {
        if (info) {
            show_end(w->mon, info);
        }
        stop_waiting(w);
    }
    qapi_free_MigrationInfo(info);
    return moving;
}

void hmp_migrate(Monitor *mon, HMPArgs *args)
{
    bool detach = hmp_bool(args, "detach", false);
    bool resume = hmp_bool(args, "resume", false);
    Error *err = NULL;
    Waiting *w;

    qmp_migrate(hmp_str(args, "uri"), false, NULL, false, false, resume, resume, NULL, &err);
    if (hmp_handle_error(mon, err) || detach) {
        return;
    }
    if (!hmp_can_wait(mon)) {
        monitor_printf(mon, "terminal does not allow synchronous migration, continuing detached\n");
        return;
    }
    w = g_new0(Waiting, 1);
    w->mon = mon;
    w->percent = -1;
    w->timer = g_timeout_add(PROGRESS_MS, look_again, w);
    waiting = g_slist_prepend(waiting, w);
    monitor_suspend(mon);
}

void hmp_migrate_cancel(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_migrate_cancel(&err);
    hmp_handle_error(mon, err);
}

void hmp_migrate_incoming(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_migrate_incoming(hmp_str(args, "uri"), false, NULL, false, false, NULL, &err);
    hmp_handle_error(mon, err);
}

void hmp_migrate_continue(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    int state = qapi_enum_parse(&MigrationStatus_lookup, hmp_str(args, "state"), -1, &err);

    if (state >= 0) {
        qmp_migrate_continue(state, &err);
    }
    hmp_handle_error(mon, err);
}

void hmp_migrate_pause(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_migrate_pause(&err);
    hmp_handle_error(mon, err);
}

/* ---- capabilities ---- */

void hmp_migrate_set_capability(Monitor *mon, HMPArgs *args)
{
    MigrationCapabilityStatus status = { .state = hmp_bool(args, "state", false) };
    MigrationCapabilityStatusList list = { .value = &status };
    Error *err = NULL;
    int capability = qapi_enum_parse(&MigrationCapability_lookup, hmp_str(args, "capability"), -1,
                                     &err);

    if (capability >= 0) {
        status.capability = capability;
        qmp_migrate_set_capabilities(&list, &err);
    }
    hmp_handle_error(mon, err);
}

void hmp_info_migrate_capabilities(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    MigrationCapabilityStatusList *list = qmp_query_migrate_capabilities(&err);

    for (MigrationCapabilityStatusList *c = list; c; c = c->next) {
        monitor_printf(mon, "%s: %s\n", MigrationCapability_str(c->value->capability),
                       c->value->state ? "on" : "off");
    }
    hmp_handle_error(mon, err);
    qapi_free_MigrationCapabilityStatusList(list);
}

void hmp_complete_capability(Completions *c, unsigned n)
{
    if (n == 1) {
        completions_add(c, "on");
        completions_add(c, "off");
    }
    for (int i = 0; n == 0 && i < MIGRATION_CAPABILITY__MAX; i++) {
        completions_add(c, MigrationCapability_str(i));
    }
}

void hmp_complete_migration_status(Completions *c, unsigned n)
{
    for (int i = 0; n == 0 && i < MIGRATION_STATUS__MAX; i++) {
        completions_add(c, MigrationStatus_str(i));
    }
}

/* ---- parameters ---- */

static const struct {
    const char *name, *unit;
} units[] = {
    { "max-bandwidth", " bytes/second" },
    { "avail-switchover-bandwidth", " bytes/second" },
    { "downtime-limit", " ms" },
};

static struct json_object *parameters_object(Error **errp)
{
    MigrationParameters *params = qmp_query_migrate_parameters(errp);
    struct json_object *obj = NULL;
    Visitor *v;

    if (!params) {
        return NULL;
    }
    v = json_output_visitor_new(&obj);
    if (visit_type_MigrationParameters(v, NULL, &params, errp)) {
        visit_complete(v, &obj);
    }
    visit_free(v);
    qapi_free_MigrationParameters(params);
    return obj;
}

void hmp_info_migrate_parameters(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    struct json_object *params = parameters_object(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    json_object_object_foreach(params, name, value) {
        const char *unit = "", *text = json_object_get_string(value);

        for (unsigned i = 0; i < G_N_ELEMENTS(units); i++) {
            if (!strcmp(name, units[i].name)) {
                unit = units[i].unit;
            }
        }
        if (json_object_is_type(value, json_type_boolean)) {
            text = json_object_get_boolean(value) ? "on" : "off";
        }
        monitor_printf(mon, "%s: %s%s\n", name, text, unit);
    }
    json_object_put(params);
}

/* Bandwidths are in MiB/s when a person gives no unit. */
static char *with_unit(const char *name, const char *value)
{
    size_t len = strlen(value);

    if (g_str_has_suffix(name, "bandwidth") && len && g_ascii_isdigit(value[len - 1]) &&
        !g_str_has_prefix(value, "0x")) {
        return g_strconcat(value, "M", NULL);
    }
    return g_strdup(value);
}

void hmp_migrate_set_parameter(Monitor *mon, HMPArgs *args)
{
    const char *name = hmp_str(args, "parameter");
    g_autofree char *value = with_unit(name, hmp_str(args, "value"));
    struct json_object *obj = json_object_new_object();
    MigrationParameters *params = NULL;
    Error *err = NULL;
    Visitor *v;

    json_object_object_add(obj, name, json_object_new_string(value));
    v = json_input_visitor_new_keyval(obj);
    if (visit_type_MigrationParameters(v, NULL, &params, &err)) {
        qmp_migrate_set_parameters(params, &err);
    }
    visit_free(v);
    qapi_free_MigrationParameters(params);
    json_object_put(obj);
    hmp_handle_error(mon, err);
}

void hmp_complete_parameter(Completions *c, unsigned n)
{
    struct json_object *params = n == 0 ? parameters_object(NULL) : NULL;

    if (params) {
        json_object_object_foreach(params, name, value) {
            (void)value;
            completions_add(c, name);
        }
        json_object_put(params);
    }
}

/* ---- info migrate ---- */

static void info_ram(Monitor *mon, const MigrationStats *ram)
{
    monitor_printf(mon, "transferred ram: %" PRIu64 " kbytes\n", ram->transferred >> 10);
    monitor_printf(mon, "throughput: %0.2f mbps\n", ram->mbps);
    monitor_printf(mon, "remaining ram: %" PRIu64 " kbytes\n", ram->remaining >> 10);
    monitor_printf(mon, "total ram: %" PRIu64 " kbytes\n", ram->total >> 10);
    monitor_printf(mon, "duplicate: %" PRIu64 " pages\n", ram->duplicate);
    monitor_printf(mon, "normal: %" PRIu64 " pages\n", ram->normal);
    monitor_printf(mon, "normal bytes: %" PRIu64 " kbytes\n", ram->normal_bytes >> 10);
    monitor_printf(mon, "dirty sync count: %" PRIu64 "\n", ram->dirty_sync_count);
    monitor_printf(mon, "page size: %" PRIu64 " kbytes\n", ram->page_size >> 10);
    monitor_printf(mon, "multifd bytes: %" PRIu64 " kbytes\n", ram->multifd_bytes >> 10);
    monitor_printf(mon, "pages-per-second: %" PRIu64 "\n", ram->pages_per_second);
    if (ram->dirty_pages_rate) {
        monitor_printf(mon, "dirty pages rate: %" PRIu64 " pages\n", ram->dirty_pages_rate);
    }
    if (ram->precopy_bytes) {
        monitor_printf(mon, "precopy ram: %" PRIu64 " kbytes\n", ram->precopy_bytes >> 10);
    }
    if (ram->downtime_bytes) {
        monitor_printf(mon, "downtime ram: %" PRIu64 " kbytes\n", ram->downtime_bytes >> 10);
    }
}

static void info_address(Monitor *mon, const SocketAddress *addr)
{
    switch (addr->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        monitor_printf(mon, "\ttcp:%s:%s\n", addr->u.inet.host, addr->u.inet.port);
        break;
    case SOCKET_ADDRESS_TYPE_UNIX:
        monitor_printf(mon, "\tunix:%s\n", addr->u.q_unix.path);
        break;
    case SOCKET_ADDRESS_TYPE_VSOCK:
        monitor_printf(mon, "\tvsock:%s:%s\n", addr->u.vsock.cid, addr->u.vsock.port);
        break;
    default:
        monitor_printf(mon, "\tfd:%s\n", addr->u.fd.str);
        break;
    }
}

static void info_times(Monitor *mon, const MigrationInfo *info)
{
    if (info->has_total_time) {
        monitor_printf(mon, "total time: %" PRIu64 " ms\n", info->total_time);
    }
    if (info->has_expected_downtime) {
        monitor_printf(mon, "expected downtime: %" PRIu64 " ms\n", info->expected_downtime);
    }
    if (info->has_downtime) {
        monitor_printf(mon, "downtime: %" PRIu64 " ms\n", info->downtime);
    }
    if (info->has_setup_time) {
        monitor_printf(mon, "setup: %" PRIu64 " ms\n", info->setup_time);
    }
}

void hmp_info_migrate(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    MigrationInfo *info = qmp_query_migrate(&err);

    if (hmp_handle_error(mon, err)) {
        return;
    }
    if (info->has_status) {
        monitor_printf(mon, "Migration status: %s", MigrationStatus_str(info->status));
        if (info->status == MIGRATION_STATUS_FAILED && info->error_desc) {
            monitor_printf(mon, " (%s)", info->error_desc);
        }
        monitor_printf(mon, "\n");
    }
    info_times(mon, info);
    if (info->ram) {
        info_ram(mon, info->ram);
    }
    if (info->has_channels) {
        monitor_printf(mon, "multifd channels: %u\n", info->channels);
    }
    if (info->has_cpu_throttle_percentage) {
        monitor_printf(mon, "cpu throttle percentage: %" PRIu64 "\n",
                       info->cpu_throttle_percentage);
    }
    if (info->has_socket_address) {
        monitor_printf(mon, "socket address: [\n");
        for (SocketAddressList *a = info->socket_address; a; a = a->next) {
            info_address(mon, a->value);
        }
        monitor_printf(mon, "]\n");
    }
    qapi_free_MigrationInfo(info);
}
