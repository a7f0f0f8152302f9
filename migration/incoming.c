/*
 * The destination of a migration: listening or opening on the main thread, loading on a thread of
 * its own, and the end on the main thread again.
 *
 *     none -> setup -> active -> completed
 *                \________\____-> failed, cancelled
 *
 * The order at the end is what keeps a machine from running twice or not at all: everything is
 * loaded and checked; the source is told (return path); only if that could be sent we take its
 * disks and the machine starts.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/incoming.h"

#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include "migration/address.h"
#include "migration/block-switchover.h"
#include "migration/return-path.h"
#include "migration/savevm-internal.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-events-migration.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-migration.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/ramblock.h"
#include "system/runstate.h"
#include "util/keyval.h"
#include "util/mutex.h"
#include "util/thread.h"

typedef struct IncomingState {
    /* Main thread only. */
    bool expected;                      /* -incoming was given */
    bool started;                       /* migrate-incoming was, or need not be */
    bool exit_on_error;
    GThread *thread;
    SocketAddressList *addresses;

    /* Under lock. */
    Mutex lock;
    MigrationStatus status;
    Error *error;
    int64_t start_us, end_us;           /* of loading, from the moment the source is there */
    uint64_t final_transferred;         /* once the thread has ended */

    /* The loading thread's while it runs. */
    MigrationContext ctx;
    bool return_path_open;
} IncomingState;

static IncomingState incoming = { .status = MIGRATION_STATUS_NONE };

static void set_status(IncomingState *s, MigrationStatus status)
{
    mutex_lock(&s->lock);
    s->status = status;
    mutex_unlock(&s->lock);
    if (migration_cap(&s->ctx.opts, MIGRATION_CAPABILITY_EVENTS)) {
        qapi_event_send_migration(status);
    }
}

bool incoming_in_progress(void)
{
    mutex_lock(&incoming.lock);
    MigrationStatus status = incoming.status;
    mutex_unlock(&incoming.lock);
    return status == MIGRATION_STATUS_SETUP || status == MIGRATION_STATUS_ACTIVE;
}

/* ---- the return path ---- */

int incoming_open_return_path(MigrationContext *ctx, Error **errp)
{
    if (!migration_channels_bidirectional(ctx->channels)) {
        error_setg(errp, "the source wants to be answered, which is not possible on a %s",
                   migration_channels_describe(ctx->channels));
        return -1;
    }
    incoming.return_path_open = true;
    return 0;
}

int incoming_send_pong(uint32_t value, Error **errp)
{
    uint8_t data[4] = { value >> 24, value >> 16, value >> 8, value };

    if (!incoming.return_path_open) {
        return 0;
    }
    return return_path_send(mfile_channel(incoming.ctx.main_file), MIG_RP_PONG, data, sizeof(data),
                            errp);
}

/*
 * A source that waits for the verdict keeps its side open. One that was cancelled has closed it; on
 * a network our verdict could be sent all the same, but nobody would read it.
 */
static bool source_gave_up(QIOChannel *ioc)
{
    struct pollfd pfd = { .fd = qio_channel_get_fd(ioc), .events = POLLRDHUP };

    return poll(&pfd, 1, 0) == 1;
}

/* Tell the source how it went. @err: NULL when it went well. */
static int send_verdict(IncomingState *s, const Error *err, Error **errp)
{
    QIOChannel *ioc = mfile_channel(s->ctx.main_file);
    uint8_t data[4] = { 0, 0, 0, err ? 1 : 0 };

    /* A refusal may come before the source could ask for answers; it looks for one all the same. */
    if (err ? !migration_channels_bidirectional(s->ctx.channels) : !s->return_path_open) {
        return 0;
    }
    if (err) {
        const char *text = error_get_pretty(err);
        if (return_path_send(ioc, MIG_RP_ERROR_TEXT, text, MIN(strlen(text), MIG_RP_TEXT_MAX),
                             errp) < 0) {
            return -1;
        }
    }
    if (!err && source_gave_up(ioc)) {
        error_setg(errp, "the machine is loaded but the source did not wait: it has closed the "
                   "connection");
        return -1;
    }
    if (return_path_send(ioc, MIG_RP_SHUT, data, sizeof(data), errp) < 0) {
        error_prepend(errp, "the machine is loaded but the source could not be told: ");
        return -1;
    }
    return 0;
}

/* ---- the end, on the main thread ---- */

/* States that only mean something in the process that they come from are not among them. */
static bool may_be_loaded(int state)
{
    switch (state) {
    case RUN_STATE_PRELAUNCH:
    case RUN_STATE_INTERNAL_ERROR:
    case RUN_STATE_IO_ERROR:
    case RUN_STATE_SHUTDOWN:
    case RUN_STATE_SUSPENDED:
    case RUN_STATE_WATCHDOG:
    case RUN_STATE_GUEST_PANICKED:
        return true;
    default:
        return false;
    }
}

static void start_machine(void)
{
    int state = loadvm_global_state();
    Error *err = NULL;

    if (block_take(&err) < 0) {
        error_prepend(&err, "the machine is loaded, but stays paused without its disks: ");
        error_report_err(err);
        runstate_set(RUN_STATE_PAUSED);
    } else if (state != RUN_STATE__MAX && state != RUN_STATE_RUNNING) {
        /* It did not run: it stays what it was, or `cont` would start what cannot be started. */
        runstate_set(may_be_loaded(state) ? state : RUN_STATE_PAUSED);
    } else if (runstate_autostart()) {
        vm_start();
    } else {
        runstate_set(RUN_STATE_PAUSED);
    }
}

static void incoming_finish(void *opaque)
{
    IncomingState *s = opaque;

    if (!s->thread) {
        return;                         /* joined already, at exit */
    }
    bql_unlock();
    g_thread_join(g_steal_pointer(&s->thread));
    bql_lock();

    mutex_lock(&s->lock);
    s->end_us = g_get_monotonic_time();
    s->final_transferred = migration_context_transferred(&s->ctx);
    Error *err = error_copy(s->error);
    MigrationFile *file = g_steal_pointer(&s->ctx.main_file);
    mutex_unlock(&s->lock);

    mfile_free(file);
    g_clear_pointer(&s->ctx.channels, migration_channels_free);
    migration_options_end();
    if (!err) {
        start_machine();
        set_status(s, MIGRATION_STATUS_COMPLETED);
        return;
    }
    set_status(s, migration_context_cancelled(&s->ctx) ? MIGRATION_STATUS_CANCELLED
                                                       : MIGRATION_STATUS_FAILED);
    error_prepend(&err, "load of migration failed: ");
    error_report_err(err);
    if (s->exit_on_error) {
        system_shutdown_request_with_code(SHUTDOWN_CAUSE_HOST_ERROR, 1);
    }
}

static gpointer incoming_thread(gpointer opaque)
{
    IncomingState *s = opaque;
    Error *err = NULL;
    QIOChannel *ioc = migration_channels_accept(s->ctx.channels, &err);

    if (ioc) {
        mutex_lock(&s->lock);
        s->ctx.main_file = mfile_new_input(ioc);
        s->start_us = g_get_monotonic_time();
        mutex_unlock(&s->lock);
        set_status(s, MIGRATION_STATUS_ACTIVE);
        if (loadvm(&s->ctx, &err) == 0) {
            send_verdict(s, NULL, &err);
        } else {
            if (migration_context_cancelled(&s->ctx)) {
                error_free(g_steal_pointer(&err));
                error_setg(&err, "the migration was cancelled");
            }
            send_verdict(s, err, NULL);
        }
    }
    /* What is read to its end is not needed any more; a command gets a moment to end by itself. */
    if (err || !migration_channels_bidirectional(s->ctx.channels)) {
        migration_channels_shutdown(s->ctx.channels);
        migration_channels_close(s->ctx.channels);
    }
    mutex_lock(&s->lock);
    s->error = err;
    mutex_unlock(&s->lock);
    ram_blocks_release();
    main_loop_post(incoming_finish, s);
    return NULL;
}

/* ---- the beginning ---- */

static int incoming_start(const MigrationAddress *addr, MigrationConfig *config, Error **errp)
{
    IncomingState *s = &incoming;
    MigrationOptions opts;

    if (migration_options_resolve(config, true, &opts, errp) < 0) {
        return -1;
    }
    MigrationChannels *mc = migration_channels_new_incoming(addr, &opts, errp);
    if (!mc) {
        return -1;
    }
    memset(&s->ctx, 0, sizeof(s->ctx));
    s->ctx.incoming = true;
    s->ctx.opts = opts;
    s->ctx.channels = mc;
    s->ctx.counters.total_bytes = ram_blocks_total();
    s->addresses = migration_channels_addresses(mc);
    s->started = true;
    s->start_us = g_get_monotonic_time();
    migration_options_begin(&opts);
    set_status(s, MIGRATION_STATUS_SETUP);
    ram_blocks_hold();
    s->thread = thread_try_new("mig/load", incoming_thread, s, errp);
    if (!s->thread) {
        ram_blocks_release();
        migration_options_end();
        g_clear_pointer(&s->addresses, qapi_free_SocketAddressList);
        g_clear_pointer(&s->ctx.channels, migration_channels_free);
        s->started = false;
        set_status(s, MIGRATION_STATUS_NONE);
        return -1;
    }
    return 0;
}

void qmp_migrate_incoming(const char *uri, bool has_channels, MigrationChannelList *channels,
                          bool has_exit_on_error, bool exit_on_error, MigrationConfig *config,
                          Error **errp)
{
    IncomingState *s = &incoming;

    if (!s->expected) {
        error_setg(errp, "'-incoming' was not specified on the command line");
        return;
    }
    if (s->started) {
        error_setg(errp, "The incoming migration has already been started");
        return;
    }
    g_autoptr(MigrationAddress) addr =
        migration_address_from_args(uri, has_channels, channels, errp);
    if (addr && incoming_start(addr, config, errp) == 0) {
        s->exit_on_error = !has_exit_on_error || exit_on_error;
    }
}

/* A channel, or a list with one, in JSON. */
static MigrationAddress *address_from_json(const char *text, Error **errp)
{
    struct json_object *json;
    MigrationChannelList *channels = NULL;
    MigrationAddress *addr = NULL;

    if (json_parse_text(text, &json, errp) < 0) {
        return NULL;
    }
    if (json_object_is_type(json, json_type_object)) {
        struct json_object *list = json_object_new_array();
        json_object_array_add(list, json);
        json = list;
    }
    Visitor *v = json_input_visitor_new(json);
    if (visit_type_MigrationChannelList(v, "channels", &channels, errp)) {
        addr = migration_address_from_args(NULL, true, channels, errp);
    }
    visit_free(v);
    qapi_free_MigrationChannelList(channels);
    json_object_put(json);
    return addr;
}

int incoming_start_from_cmdline(const char *arg, Error **errp)
{
    IncomingState *s = &incoming;

    s->expected = true;
    s->exit_on_error = true;
    if (strcmp(arg, "defer") == 0) {
        return 0;
    }

    const char *p = arg + strspn(arg, " \t\n");
    g_autoptr(MigrationAddress) addr = *p == '{' || *p == '['
                                           ? address_from_json(arg, errp)
                                           : migration_address_parse(arg, errp);
    if (!addr || incoming_start(addr, NULL, errp) < 0) {
        error_prepend(errp, "-incoming %s: ", arg);
        return -1;
    }
    return 0;
}

void incoming_cancel(void)
{
    IncomingState *s = &incoming;

    __atomic_store_n(&s->ctx.cancelled, 1, __ATOMIC_RELAXED);
    if (s->ctx.channels) {
        migration_channels_shutdown(s->ctx.channels);
    }
}

void incoming_shutdown(void)
{
    IncomingState *s = &incoming;

    if (s->thread) {
        incoming_cancel();
        bql_unlock();
        g_thread_join(g_steal_pointer(&s->thread));
        bql_lock();
        g_clear_pointer(&s->ctx.main_file, mfile_free);
        g_clear_pointer(&s->ctx.channels, migration_channels_free);
    }
    g_clear_pointer(&s->addresses, qapi_free_SocketAddressList);
    mutex_lock(&s->lock);
    g_clear_pointer(&s->error, error_free);
    mutex_unlock(&s->lock);
}

/* Of pages that were not named yet; of a live source's some come again after that. */
static uint64_t remaining_bytes(const IncomingState *s, const MigrationStats *ram)
{
    uint64_t named = (ram->normal + ram->duplicate) * TARGET_PAGE_SIZE;

    return s->status == MIGRATION_STATUS_COMPLETED || named > ram->total ? 0 : ram->total - named;
}

/* Figures of a load: what has come in so far, and how fast. Under the lock. */
static void fill_progress(IncomingState *s, MigrationInfo *info)
{
    int64_t us = MAX((s->end_us ?: g_get_monotonic_time()) - s->start_us, 1);

    info->has_total_time = true;
    info->total_time = us / 1000;
    info->ram = migration_context_stats(&s->ctx);
    if (s->end_us) {
        info->ram->transferred = s->final_transferred;
    }
    info->ram->remaining = remaining_bytes(s, info->ram);
    info->ram->mbps = (double)info->ram->transferred * 8 / us;
    info->ram->pages_per_second = (double)info->ram->transferred / TARGET_PAGE_SIZE * 1e6 / us;
    if (counter_get(s->ctx.counters.channels)) {
        info->has_channels = true;
        info->channels = counter_get(s->ctx.counters.channels);
    }
}

void incoming_fill_info(MigrationInfo *info)
{
    IncomingState *s = &incoming;

    mutex_lock(&s->lock);
    bool told = s->status != MIGRATION_STATUS_NONE;
    if (told) {
        info->has_status = true;
        info->status = s->status;
        if (s->status != MIGRATION_STATUS_SETUP) {
            fill_progress(s, info);
        }
        if (s->error && s->status == MIGRATION_STATUS_FAILED) {
            info->error_desc = g_strdup(error_get_pretty(s->error));
        }
    }
    mutex_unlock(&s->lock);
    if (told && s->addresses) {
        info->has_socket_address = true;
        info->socket_address = QAPI_CLONE(SocketAddressList, s->addresses);
    }
}
