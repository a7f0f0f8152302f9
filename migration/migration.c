/*
 * The source of a migration: a state machine on a thread of its own.
 *
 *     setup -> active -> [pre-switchover ->] device -> completed
 *        \________\______________\_____________\____-> failed, cancelled
 *
 * The migration thread does everything that may take long: it connects, sends memory in turns while
 * the machine runs, stops the machine when what is left fits into the downtime limit, sends the
 * rest and the devices, and waits for the destination's word. Whatever goes wrong before that word,
 * the thread puts the machine back as it was before it reports the failure.
 *
 * A file is made durable before the machine is stopped and once more at the end, so that the
 * machine does not stand while the disk takes in what was written all the while.
 *
 * The point of no return is the confirmation (sockets) or the durable file. A cancel that comes
 * while we wait for the confirmation first closes the channel and then looks whether the
 * confirmation was in it: either the destination has it sent and we are completed, or its send
 * fails and it does not start the machine.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/migration.h"

#include <inttypes.h>
#include <string.h>
#include "migration/address.h"
#include "migration/block-switchover.h"
#include "migration/context.h"
#include "migration/incoming.h"
#include "migration/ram.h"
#include "migration/return-path.h"
#include "migration/savevm-internal.h"
#include "qapi/qapi-commands-migration.h"
#include "qapi/qapi-events-migration.h"
#include "system/bql.h"
#include "system/cpus.h"
#include "system/runstate.h"
#include "util/cutils.h"
#include "util/mutex.h"
#include "util/thread.h"

/* Rates are enforced and measured in windows of this length. */
#define WINDOW_US 100000
/* What was sent beyond a window's limit is made good in at most so many. */
#define RATE_WINDOWS_MAX 10
/* A round that ran out of things to send and sent less says nothing about the bandwidth. */
#define WINDOW_COUNTS_BYTES MiB
/* Without a limit a turn ends after this much, to look at time, cancel and convergence. */
#define UNLIMITED_TURN_BYTES (64 * MiB)
/* A file is made durable at most so many times before the switchover. */
#define FLUSHES_MAX 4

typedef struct MigrationState {
    /* Main thread only. */
    bool running;                       /* a thread was started and not yet joined */
    bool ending;                        /* so is the process; set before the big lock is dropped */
    GThread *thread;

    /* Under lock: shared between the thread and the monitors. */
    Mutex lock;
    Cond cond;                         /* woken by cancel and continue */
    MigrationStatus status;
    Error *error;
    bool continue_switchover;
    int64_t start_us, end_us, setup_us, downtime_start_us, downtime_us;
    int64_t expected_downtime_ms;
    double mbps;
    uint64_t pages_per_second;
    uint64_t final_transferred;         /* once the thread has ended */

    /* The thread's own while it runs. */
    MigrationContext ctx;
    bool was_running;                   /* the machine, before we stopped it */
    RunState old_state;
    bool stopped_by_us;
    bool disks_given_up;
    bool return_path;
    double bandwidth;                   /* bytes per microsecond: the least of the last two */
    double last_bandwidth;              /* of the last window that counts */
    double mean_bandwidth, mean_sent;   /* for people: what left the buffers, what went into them */
    unsigned windows;                   /* that counted */
    int64_t window_start_us;            /* of measurement: one round of sending */
    uint64_t window_start_bytes;
    uint64_t queued_bytes;              /* written before the window, and not sent yet */
    unsigned flushes;                   /* of a file, while the machine ran */
    uint64_t flushed_bytes;             /* written before the last of them */
    double flush_bandwidth;             /* of the last one, bytes per microsecond */
    int64_t rate_start_us;              /* of enforcement: WINDOW_US long */
    uint64_t rate_start_bytes;
} MigrationState;

static MigrationState current = { .status = MIGRATION_STATUS_NONE };

static bool status_is_running(MigrationStatus status)
{
    switch (status) {
    case MIGRATION_STATUS_SETUP:
    case MIGRATION_STATUS_CANCELLING:
    case MIGRATION_STATUS_ACTIVE:
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
        return true;
    default:
        return false;
    }
}

static void send_event(MigrationState *s, MigrationStatus status)
{
    if (migration_cap(&s->ctx.opts, MIGRATION_CAPABILITY_EVENTS)) {
        qapi_event_send_migration(status);
    }
}

/* Change the state unless a cancel came first; the event follows. */
static void set_status(MigrationState *s, MigrationStatus status)
{
    mutex_lock(&s->lock);
    bool changed = s->status != MIGRATION_STATUS_CANCELLING;
    if (changed) {
        s->status = status;
    }
    mutex_unlock(&s->lock);
    if (changed) {
        send_event(s, status);
    }
}

static MigrationStatus get_status(MigrationState *s)
{
    mutex_lock(&s->lock);
    MigrationStatus status = s->status;
    mutex_unlock(&s->lock);
    return status;
}

/* The thread's pause: until @deadline_us, a cancel or a continue. */
static void wait_until(MigrationState *s, int64_t deadline_us)
{
    mutex_lock(&s->lock);
    while (s->status != MIGRATION_STATUS_CANCELLING) {
        if (!cond_wait_until(&s->cond, &s->lock, deadline_us)) {
            break;
        }
    }
    mutex_unlock(&s->lock);
}

static int check_cancelled(MigrationState *s, Error **errp)
{
    if (migration_context_cancelled(&s->ctx)) {
        error_setg(errp, "the migration was cancelled");
        return -1;
    }
    return 0;
}

static uint64_t max_bandwidth(MigrationState *s)
{
    if (!migration_live_max_bandwidth_set() && migration_channels_seekable(s->ctx.channels)) {
        return 0;
    }
    return migration_live_max_bandwidth();
}

/* ---- setting up ---- */

static int open_return_path(MigrationState *s, Error **errp)
{
    uint8_t ping[4] = { 0, 0, 0, 1 };

    if (s->return_path) {
        savevm_command(s->ctx.main_file, MIG_CMD_OPEN_RETURN_PATH, NULL, 0);
        savevm_command(s->ctx.main_file, MIG_CMD_PING, ping, sizeof(ping));
    }
    return mfile_flush(s->ctx.main_file, errp);
}

static int migration_setup(MigrationState *s, Error **errp)
{
    QIOChannel *ioc = migration_channels_connect(s->ctx.channels, errp);

    if (!ioc || check_cancelled(s, errp) < 0) {
        return -1;
    }
    MigrationFile *f = mfile_new_output(ioc);
    s->return_path = migration_cap(&s->ctx.opts, MIGRATION_CAPABILITY_RETURN_PATH) &&
                     migration_channels_bidirectional(s->ctx.channels);
    s->ctx.lend = s->return_path;
    if (s->ctx.lend) {
        mfile_lend(f);
    }
    mutex_lock(&s->lock);
    s->ctx.main_file = f;
    mutex_unlock(&s->lock);
    if (savevm_prepare(&s->ctx, errp) < 0 || savevm_header(&s->ctx, errp) < 0 ||
        open_return_path(s, errp) < 0 || savevm_setup(&s->ctx, errp) < 0) {
        return -1;
    }
    mutex_lock(&s->lock);
    s->setup_us = g_get_monotonic_time() - s->start_us;
    mutex_unlock(&s->lock);
    return 0;
}

/* ---- sending memory while the machine runs ---- */

static void window_begin(MigrationState *s, int64_t now)
{
    s->window_start_us = now;
    s->window_start_bytes = migration_context_transferred(&s->ctx);
}

/*
 * What people are told: a mean of the last second or so. A reader takes in bursts, and one window
 * by itself may be all or nothing.
 */
static double averaged(double mean, double now)
{
    return mean > 0 ? mean + (now - mean) / 8 : now;
}

/* What there is to send still, and what follows from it. */
static void publish_pending(MigrationState *s, uint64_t pending)
{
    counter_set(s->ctx.counters.remaining_bytes, pending);
    mutex_lock(&s->lock);
    s->mbps = s->mean_sent * 8;
    s->pages_per_second = s->mean_sent / TARGET_PAGE_SIZE * 1e6;
    if (s->mean_bandwidth > 0) {
        s->expected_downtime_ms = (pending + s->queued_bytes) / s->mean_bandwidth / 1000;
    }
    mutex_unlock(&s->lock);
}

/*
 * Close a window of measurement: bandwidth, and what follows from it. @busy: there was something to
 * send all the time, so that what was sent is what could be sent, however little.
 */
static void window_end(MigrationState *s, int64_t now, bool busy, uint64_t pending)
{
    uint64_t written = migration_context_transferred(&s->ctx) - s->window_start_bytes;
    uint64_t queued = migration_channels_queued(s->ctx.channels);
    /* A socket's buffer takes in much at first that says nothing about the way behind it. */
    uint64_t bytes = s->queued_bytes + written - MIN(queued, s->queued_bytes + written);
    int64_t us = MAX(now - s->window_start_us, 1);
    uint64_t promised = migration_live_switchover_bandwidth();

    if (promised) {
        s->bandwidth = promised / 1e6;
    } else if (busy || bytes >= WINDOW_COUNTS_BYTES || s->bandwidth == 0) {
        /* Buffers on the way, which no socket tells of, take in much at first and then no more. */
        double measured = (double)bytes / us;
        s->bandwidth = s->windows ? MIN(measured, s->last_bandwidth) : measured;
        s->last_bandwidth = measured;
        s->windows++;
    }
    s->mean_sent = averaged(s->mean_sent, (double)written / us);
    s->mean_bandwidth = averaged(s->mean_bandwidth, promised ? s->bandwidth : (double)bytes / us);
    s->queued_bytes = queued;
    publish_pending(s, pending);
    window_begin(s, now);
}

/* Whether @pending bytes can be sent within the downtime limit at the measured bandwidth. */
static bool fits_downtime(MigrationState *s, uint64_t pending)
{
    return pending + s->queued_bytes <= s->bandwidth * migration_live_downtime_limit_ms() * 1000;
}

/*
 * What counts as sent: what threads were handed as well, else they would be handed more and more
 * until they have sent the first of it. A part of that may turn out to be zero pages and not count.
 */
static uint64_t rate_sent(MigrationState *s)
{
    return migration_context_transferred(&s->ctx) +
           counter_get(s->ctx.counters.outstanding_bytes);
}

static void rate_begin(MigrationState *s)
{
    s->rate_start_us = g_get_monotonic_time();
    s->rate_start_bytes = rate_sent(s);
}

/*
 * Go on to the window of enforcement that @now lies in, each with room for @budget bytes. What was
 * sent beyond that (channels send on by themselves what they were handed) counts in the new one,
 * but not without end: a limit that was just lowered must not stop everything.
 */
static void rate_next_window(MigrationState *s, int64_t now, uint64_t sent, uint64_t budget)
{
    int64_t windows = MIN((now - s->rate_start_us) / WINDOW_US, RATE_WINDOWS_MAX);
    uint64_t done = sent - s->rate_start_bytes, debt = 0;

    if (done / budget >= (uint64_t)windows) {
        debt = done - budget * windows;
    }
    s->rate_start_us = now - (now - s->rate_start_us) % WINDOW_US;
    s->rate_start_bytes = sent - (debt / RATE_WINDOWS_MAX >= budget ? budget * RATE_WINDOWS_MAX
                                                                    : debt);
}

/* How many bytes may be sent now; waits until there are any, or a cancel. */
static int64_t rate_budget(MigrationState *s)
{
    for (;;) {
        uint64_t limit = max_bandwidth(s);
        uint64_t budget = MAX(limit / (G_USEC_PER_SEC / WINDOW_US), 1);
        uint64_t sent = rate_sent(s);
        int64_t now = g_get_monotonic_time();

        s->rate_start_bytes = MIN(s->rate_start_bytes, sent);
        if (!limit || migration_context_cancelled(&s->ctx)) {
            rate_begin(s);
            return UNLIMITED_TURN_BYTES;
        }
        if (now - s->rate_start_us >= WINDOW_US) {
            rate_next_window(s, now, sent, budget);
        }
        if (sent - s->rate_start_bytes < budget) {
            return MIN(budget - (sent - s->rate_start_bytes), UNLIMITED_TURN_BYTES);
        }
        wait_until(s, s->rate_start_us + WINDOW_US);
    }
}

/* Send in turns for a window's time or until everything is sent. Returns as iterate. */
static int send_window(MigrationState *s, Error **errp)
{
    int64_t end_us = g_get_monotonic_time() + WINDOW_US;
    int done = 0;

    while (done == 0 && g_get_monotonic_time() < end_us) {
        s->ctx.turn_budget = rate_budget(s);
        if (check_cancelled(s, errp) < 0) {
            return -1;
        }
        done = savevm_iterate(&s->ctx, errp);
    }
    return done;
}

/* How long the disk will need for what was written since the last flush. */
static bool flush_fits_downtime(MigrationState *s)
{
    uint64_t bytes = migration_context_transferred(&s->ctx) - s->flushed_bytes;

    return s->flushes &&
           bytes <= s->flush_bandwidth * migration_live_downtime_limit_ms() * 1000 / 2;
}

/*
 * Flush a file whose flush at the end would keep the machine standing for long. Returns 1 when that
 * was done, and took time in which the machine ran; 0 when there is no need; -1 on error.
 */
static int flush_early(MigrationState *s, Error **errp)
{
    int64_t then = g_get_monotonic_time();
    uint64_t before = s->flushed_bytes;

    bql_lock();
    bool running = runstate_is_running();
    bql_unlock();
    if (!running || !migration_channels_seekable(s->ctx.channels) || s->flushes == FLUSHES_MAX ||
        flush_fits_downtime(s)) {
        return 0;
    }
    s->flushed_bytes = migration_context_transferred(&s->ctx);
    if (migration_channels_flush(s->ctx.channels, errp) < 0) {
        return -1;
    }
    s->flushes++;
    s->flush_bandwidth = (double)(s->flushed_bytes - before) /
                         MAX(g_get_monotonic_time() - then, 1);
    return 1;
}

static int migration_iterate(MigrationState *s, Error **errp)
{
    window_begin(s, g_get_monotonic_time());
    rate_begin(s);
    s->queued_bytes = 0;
    s->flushes = 0;
    s->flushed_bytes = 0;
    for (;;) {
        uint64_t pending;
        int done = send_window(s, errp);

        if (done < 0 || savevm_pending(&s->ctx, false, &pending, errp) < 0) {
            return -1;
        }
        window_end(s, g_get_monotonic_time(), !done, pending);
        if (!done && (s->windows < 2 || !fits_downtime(s, pending))) {
            continue;
        }
        if (savevm_pending(&s->ctx, true, &pending, errp) < 0) {
            return -1;
        }
        publish_pending(s, pending);
        if (pending == 0 || fits_downtime(s, pending)) {
            int flushed = flush_early(s, errp);

            if (flushed <= 0) {
                return flushed;
            }
            window_begin(s, g_get_monotonic_time());
        }
    }
}

/* ---- the switchover ---- */

static void stop_machine(MigrationState *s)
{
    bql_lock();
    mutex_lock(&s->lock);
    s->downtime_start_us = g_get_monotonic_time();
    mutex_unlock(&s->lock);
    s->was_running = runstate_is_running();
    s->old_state = runstate_get();
    savevm_store_global_state();
    vm_stop_force_state(RUN_STATE_FINISH_MIGRATE);
    /* Later it would change memory that was sent already. */
    system_reset_if_requested();
    s->stopped_by_us = true;
    bql_unlock();
    __atomic_store_n(&s->ctx.stopped, true, __ATOMIC_RELEASE);
    counter_set(s->ctx.counters.precopy_bytes, migration_context_transferred(&s->ctx));
}

/* Whether the machine may run again as far as its disks go. */
static bool take_disks_back(MigrationState *s)
{
    Error *err = NULL;

    if (!s->disks_given_up) {
        return true;
    }
    s->disks_given_up = false;
    if (block_take(&err) < 0) {
        error_prepend(&err,
                      "the migration failed, and the machine stays paused without its disks: ");
        error_report_err(err);
        return false;
    }
    return true;
}

/* Put the machine back as it was; a migration that ended in any way but well. Big lock held. */
static void resume_machine(MigrationState *s)
{
    RunState held;

    if (!s->stopped_by_us || s->ending || !runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        return;
    }
    if (!take_disks_back(s)) {
        runstate_set(RUN_STATE_PAUSED);
        return;
    }
    if (vm_take_held_stop(&held)) {
        runstate_set(held);
    } else if (s->was_running) {
        vm_start();
    } else {
        runstate_set(s->old_state);
    }
}

static int wait_for_continue(MigrationState *s, Error **errp)
{
    if (!migration_cap(&s->ctx.opts, MIGRATION_CAPABILITY_PAUSE_BEFORE_SWITCHOVER)) {
        return 0;
    }
    set_status(s, MIGRATION_STATUS_PRE_SWITCHOVER);
    mutex_lock(&s->lock);
    while (!s->continue_switchover && s->status != MIGRATION_STATUS_CANCELLING) {
        cond_wait(&s->cond, &s->lock);
    }
    mutex_unlock(&s->lock);
    return check_cancelled(s, errp);
}

static int give_disks_up(MigrationState *s, Error **errp)
{
    bql_lock();
    s->disks_given_up = block_give_up(errp) == 0;
    bql_unlock();
    return s->disks_given_up ? 0 : -1;
}

static int migration_complete(MigrationState *s, Error **errp)
{
    stop_machine(s);
    if (wait_for_continue(s, errp) < 0) {
        return -1;
    }
    set_status(s, MIGRATION_STATUS_DEVICE);
    if (give_disks_up(s, errp) < 0 || savevm_complete_live(&s->ctx, errp) < 0 ||
        check_cancelled(s, errp) < 0 || savevm_complete_devices(&s->ctx, errp) < 0 ||
        savevm_finish(&s->ctx, errp) < 0) {
        return -1;
    }
    if (s->return_path) {
        return return_path_wait_shut(mfile_channel(s->ctx.main_file), errp);
    }
    /* All of it is out of our hands: a cancel comes too late, somebody may run the machine. */
    return 0;
}

/* ---- the end ---- */

/* A destination that refused the machine says why; that is the reason, not the broken channel. */
static void prefer_destination_reason(MigrationState *s, Error **err)
{
    if (s->return_path && !migration_context_cancelled(&s->ctx)) {
        Error *reason = return_path_reason(mfile_channel(s->ctx.main_file));
        if (reason) {
            error_free(*err);
            *err = reason;
        }
    }
}

/* Takes @err; NULL when it went well. */
static void migration_finish(MigrationState *s, Error *err)
{
    bool ok = !err;

    if (err) {
        prefer_destination_reason(s, &err);
        migration_channels_shutdown(s->ctx.channels);
    }
    savevm_cleanup(&s->ctx);
    cpus_throttle_set(0);
    bql_lock();
    if (ok) {
        runstate_set(RUN_STATE_POSTMIGRATE);
    } else {
        resume_machine(s);
    }
    migration_options_end();
    bql_unlock();

    int64_t now = g_get_monotonic_time();
    uint64_t transferred = migration_context_transferred(&s->ctx);
    /* This may wait for a command to end, so it comes before anybody joins this thread. */
    migration_channels_close(s->ctx.channels);
    counter_set(s->ctx.counters.downtime_bytes,
                transferred - (s->stopped_by_us ? counter_get(s->ctx.counters.precopy_bytes)
                                                : transferred));
    /* Locks on files go with the channels: who sees that it is over may open them. */
    mutex_lock(&s->lock);
    MigrationFile *file = g_steal_pointer(&s->ctx.main_file);
    MigrationChannels *channels = g_steal_pointer(&s->ctx.channels);
    mutex_unlock(&s->lock);
    mfile_free(file);
    migration_channels_free(channels);

    mutex_lock(&s->lock);
    s->end_us = now;
    s->downtime_us = s->downtime_start_us ? now - s->downtime_start_us : 0;
    s->final_transferred = transferred;
    if (ok) {
        double us = MAX(now - s->start_us, 1);
        counter_set(s->ctx.counters.remaining_bytes, 0);
        s->mbps = transferred * 8 / us;
        s->pages_per_second = (double)transferred / TARGET_PAGE_SIZE * 1e6 / us;
    }
    s->error = err;
    MigrationStatus status = s->status = ok ? MIGRATION_STATUS_COMPLETED
                                         : migration_context_cancelled(&s->ctx)
                                             ? MIGRATION_STATUS_CANCELLED
                                             : MIGRATION_STATUS_FAILED;
    mutex_unlock(&s->lock);

    send_event(s, status);
}

static gpointer migration_thread(gpointer opaque)
{
    MigrationState *s = opaque;
    Error *err = NULL;

    if (migration_setup(s, &err) == 0) {
        set_status(s, MIGRATION_STATUS_ACTIVE);
        if (migration_iterate(s, &err) == 0) {
            migration_complete(s, &err);
        }
    }
    migration_finish(s, err);
    ram_blocks_release();
    return NULL;
}

/* ---- commands ---- */

/* Join a thread that has ended. Main thread. */
static void reap(MigrationState *s)
{
    if (s->thread && !status_is_running(get_status(s))) {
        g_thread_join(g_steal_pointer(&s->thread));
        s->running = false;
    }
}

bool migration_is_running(void)
{
    reap(&current);
    return current.running;
}

static int check_can_migrate(Error **errp)
{
    if (migration_is_running()) {
        error_setg(errp, "There's a migration process in progress");
        return -1;
    }
    if (runstate_check(RUN_STATE_INMIGRATE) || incoming_in_progress()) {
        error_setg(errp, "Guest is waiting for an incoming migration");
        return -1;
    }
    if (runstate_check(RUN_STATE_POSTMIGRATE)) {
        error_setg(errp, "Can't migrate the vm that was paused due to previous migration");
        return -1;
    }
    if (runstate_check(RUN_STATE_INTERNAL_ERROR)) {
        error_setg(errp, "The machine stopped on an internal error and cannot be migrated");
        return -1;
    }
    return 0;
}

static void migration_reset(MigrationState *s)
{
    mutex_lock(&s->lock);
    g_clear_pointer(&s->error, error_free);
    s->continue_switchover = false;
    s->setup_us = s->end_us = s->downtime_start_us = s->downtime_us = 0;
    s->expected_downtime_ms = 0;
    s->mbps = 0;
    s->pages_per_second = 0;
    s->final_transferred = 0;
    s->start_us = g_get_monotonic_time();
    mutex_unlock(&s->lock);
    memset(&s->ctx, 0, sizeof(s->ctx));
    s->was_running = s->stopped_by_us = s->disks_given_up = s->return_path = false;
    s->bandwidth = s->last_bandwidth = s->mean_bandwidth = s->mean_sent = 0;
    s->windows = 0;
}

/* A host that has no more threads fails the migration, as anything does that goes wrong in it. */
static void start_thread(MigrationState *s)
{
    Error *err = NULL;

    s->thread = thread_try_new("migration", migration_thread, s, &err);
    if (!s->thread) {
        bql_unlock();
        migration_finish(s, err);
        bql_lock();
        ram_blocks_release();
        s->running = false;
    }
}

void qmp_migrate(const char *uri, bool has_channels, MigrationChannelList *channels,
                 bool has_detach, bool detach, bool has_resume, bool resume,
                 MigrationConfig *config, Error **errp)
{
    MigrationState *s = &current;

    if (has_detach && !detach) {
        error_setg(errp, "Parameter 'detach' must be true: the command always returns at once");
        return;
    }
    if (has_resume && resume) {
        error_setg(errp, "Parameter 'resume' must be false: there is no paused postcopy migration");
        return;
    }
    if (check_can_migrate(errp) < 0) {
        return;
    }

    g_autoptr(MigrationAddress) addr =
        migration_address_from_args(uri, has_channels, channels, errp);
    MigrationOptions opts;
    if (!addr || migration_options_resolve(config, false, &opts, errp) < 0) {
        return;
    }
    MigrationChannels *mc = migration_channels_new_outgoing(addr, &opts, errp);
    if (!mc) {
        return;
    }

    migration_reset(s);
    s->ctx.opts = opts;
    s->ctx.channels = mc;
    s->ctx.counters.total_bytes = ram_blocks_total();
    s->ctx.counters.remaining_bytes = s->ctx.counters.total_bytes;
    migration_options_begin(&opts);
    s->running = true;
    set_status(s, MIGRATION_STATUS_SETUP);
    ram_blocks_hold();
    start_thread(s);
}

/* Ask the thread to end. Main thread. */
static void cancel_outgoing(MigrationState *s)
{
    MigrationStatus status;

    mutex_lock(&s->lock);
    status = s->status;
    if (status_is_running(status)) {
        s->status = MIGRATION_STATUS_CANCELLING;
        __atomic_store_n(&s->ctx.cancelled, 1, __ATOMIC_RELAXED);
        if (s->ctx.channels) {
            migration_channels_shutdown(s->ctx.channels);
        }
        cond_broadcast(&s->cond);
    }
    mutex_unlock(&s->lock);
    if (status_is_running(status) && status != MIGRATION_STATUS_CANCELLING) {
        send_event(s, MIGRATION_STATUS_CANCELLING);
    }
}

void qmp_migrate_cancel(Error **errp)
{
    if (incoming_in_progress()) {
        incoming_cancel();
    } else {
        cancel_outgoing(&current);
    }
}

void qmp_migrate_continue(MigrationStatus state, Error **errp)
{
    MigrationState *s = &current;

    mutex_lock(&s->lock);
    if (s->status != state || state != MIGRATION_STATUS_PRE_SWITCHOVER) {
        error_setg(errp, "Migration is in state '%s', only in state 'pre-switchover' it can be "
                   "continued; the state given was '%s'",
                   MigrationStatus_str(s->status), MigrationStatus_str(state));
    } else {
        s->continue_switchover = true;
        cond_broadcast(&s->cond);
    }
    mutex_unlock(&s->lock);
}

void qmp_migrate_pause(Error **errp)
{
    error_setg(errp, "migrate-pause is currently only supported during postcopy-active state");
}

static MigrationStats *make_stats(MigrationState *s)
{
    MigrationStats *ram = migration_context_stats(&s->ctx);

    if (!status_is_running(s->status)) {
        ram->transferred = s->final_transferred;
    }
    ram->mbps = s->mbps;
    ram->pages_per_second = s->pages_per_second;
    return ram;
}

static void fill_times(MigrationState *s, MigrationInfo *info)
{
    bool ended = !status_is_running(s->status);
    int64_t end = ended && s->end_us ? s->end_us : g_get_monotonic_time();

    info->has_total_time = true;
    info->total_time = (end - s->start_us) / 1000;
    info->has_setup_time = true;
    info->setup_time = s->setup_us / 1000;
    if (s->status == MIGRATION_STATUS_COMPLETED) {
        info->has_downtime = true;
        info->downtime = s->downtime_us / 1000;
    } else if (!ended) {
        info->has_expected_downtime = true;
        info->expected_downtime = s->expected_downtime_ms;
    }
}

/* Under the lock. */
static void fill_outgoing(MigrationState *s, MigrationInfo *info)
{
    unsigned channels = counter_get(s->ctx.counters.channels);
    int throttle = cpus_throttle_get();

    info->has_status = true;
    info->status = s->status;
    info->ram = make_stats(s);
    fill_times(s, info);
    if (s->error && s->status == MIGRATION_STATUS_FAILED) {
        info->error_desc = g_strdup(error_get_pretty(s->error));
    }
    info->has_cpu_throttle_percentage = throttle > 0;
    info->cpu_throttle_percentage = throttle;
    info->has_channels = channels > 0;
    info->channels = channels;
}

MigrationInfo *qmp_query_migrate(Error **errp)
{
    MigrationState *s = &current;
    MigrationInfo *info = g_new0(MigrationInfo, 1);

    reap(s);
    mutex_lock(&s->lock);
    bool outgoing = s->status != MIGRATION_STATUS_NONE;
    if (outgoing) {
        fill_outgoing(s, info);
    }
    mutex_unlock(&s->lock);
    if (!outgoing) {
        incoming_fill_info(info);
    }
    return info;
}

void migration_init(void)
{
    ram_migration_register();
    global_state_register();
}

void migration_shutdown(void)
{
    current.ending = true;
    cancel_outgoing(&current);
    if (current.thread) {
        bql_unlock();
        g_thread_join(g_steal_pointer(&current.thread));
        bql_lock();
        current.running = false;
    }
    incoming_shutdown();
    mutex_lock(&current.lock);
    g_clear_pointer(&current.error, error_free);
    mutex_unlock(&current.lock);
}
