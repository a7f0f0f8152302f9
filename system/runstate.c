/*
 * One variable, a table of the changes that make sense, and the two functions that go with a change
 * between running and standing. A change that the table does not have is a bug of the program, not
 * of the user: the front ends check what a user may ask for.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/accel.h"
#include "system/bql.h"
#include "system/runstate.h"
#include "qapi/qapi-events-run-state.h"

static RunState current_state = RUN_STATE_PRELAUNCH;
static bool autostart = true;
static bool stop_held;                  /* vm_take_held_stop() */
static RunState held_state;

typedef struct Notifier {
    RunStateNotify *notify;
    void *opaque;
} Notifier;

static GArray *notifiers;       /* of Notifier */

#define TO(name) (1u << RUN_STATE_##name)
#define ANY_FAULT (TO(INTERNAL_ERROR) | TO(IO_ERROR) | TO(SHUTDOWN) | TO(SUSPENDED) | \
                   TO(WATCHDOG) | TO(GUEST_PANICKED))

/* For each state the states that may follow it. */
static const uint32_t transitions[RUN_STATE__MAX] = {
    [RUN_STATE_DEBUG] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH),
    [RUN_STATE_INMIGRATE] = ANY_FAULT | TO(PAUSED) | TO(RUNNING) | TO(FINISH_MIGRATE) |
                            TO(PRELAUNCH) | TO(POSTMIGRATE) | TO(COLO),
    [RUN_STATE_INTERNAL_ERROR] = TO(PAUSED) | TO(FINISH_MIGRATE) | TO(PRELAUNCH),
    [RUN_STATE_IO_ERROR] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH),
    [RUN_STATE_PAUSED] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(POSTMIGRATE) | TO(PRELAUNCH) |
                         TO(COLO),
    [RUN_STATE_POSTMIGRATE] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH),
    [RUN_STATE_PRELAUNCH] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(INMIGRATE) | TO(SUSPENDED),
    [RUN_STATE_FINISH_MIGRATE] = ANY_FAULT | TO(RUNNING) | TO(PAUSED) | TO(POSTMIGRATE) |
                                 TO(PRELAUNCH) | TO(COLO),
    [RUN_STATE_RESTORE_VM] = TO(RUNNING) | TO(PRELAUNCH) | TO(SUSPENDED),
    [RUN_STATE_RUNNING] = ANY_FAULT | TO(DEBUG) | TO(PAUSED) | TO(FINISH_MIGRATE) |
                          TO(RESTORE_VM) | TO(SAVE_VM) | TO(COLO),
    [RUN_STATE_SAVE_VM] = TO(RUNNING) | TO(SUSPENDED),
    [RUN_STATE_SHUTDOWN] = TO(PAUSED) | TO(FINISH_MIGRATE) | TO(PRELAUNCH) | TO(COLO),
    [RUN_STATE_SUSPENDED] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH) | TO(COLO) |
                            TO(PAUSED) | TO(SAVE_VM) | TO(RESTORE_VM) | TO(SHUTDOWN),
    [RUN_STATE_WATCHDOG] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH) | TO(COLO),
    [RUN_STATE_GUEST_PANICKED] = TO(RUNNING) | TO(FINISH_MIGRATE) | TO(PRELAUNCH),
    [RUN_STATE_COLO] = TO(RUNNING) | TO(PRELAUNCH) | TO(SHUTDOWN),
};

RunState runstate_get(void)
{
    return current_state;
}

bool runstate_check(RunState state)
{
    return current_state == state;
}

bool runstate_is_running(void)
{
    return current_state == RUN_STATE_RUNNING;
}

void runstate_set(RunState state)
{
    if (state == current_state) {
        return;
    }
    if (!(transitions[current_state] & 1u << state)) {
        g_error("invalid run state transition: '%s' -> '%s'", runstate_name(current_state),
                runstate_name(state));
    }
    if (state == RUN_STATE_FINISH_MIGRATE) {
        stop_held = false;
    }
    current_state = state;
}

const char *runstate_name(RunState state)
{
    return RunState_str(state);
}

int runstate_from_name(const char *name)
{
    for (int state = 0; state < RUN_STATE__MAX; state++) {
        if (!strcmp(name, runstate_name(state))) {
            return state;
        }
    }
    return -1;
}

bool runstate_autostart(void)
{
    return autostart;
}

void runstate_set_autostart(bool value)
{
    autostart = value;
}

static int (*start_check)(Error **errp);

void runstate_set_start_check(int (*check)(Error **errp))
{
    start_check = check;
}

int runstate_check_start(Error **errp)
{
    return start_check ? start_check(errp) : 0;
}

/* ---- notifiers ---- */

void runstate_add_notifier(RunStateNotify *notify, void *opaque)
{
    Notifier notifier = { notify, opaque };

    if (!notifiers) {
        notifiers = g_array_new(FALSE, FALSE, sizeof(Notifier));
    }
    g_array_append_val(notifiers, notifier);
}

static int find_notifier(RunStateNotify *notify, void *opaque)
{
    for (guint i = 0; notifiers && i < notifiers->len; i++) {
        Notifier *notifier = &g_array_index(notifiers, Notifier, i);

        if (notifier->notify == notify && notifier->opaque == opaque) {
            return i;
        }
    }
    return -1;
}

void runstate_remove_notifier(RunStateNotify *notify, void *opaque)
{
    int i = find_notifier(notify, opaque);

    if (i >= 0) {
        g_array_remove_index(notifiers, i);
    }
}

/* One that is taken out by another, or by itself, meanwhile is not called any more. */
static void notify_all(bool running)
{
    g_autoptr(GArray) all = notifiers ? g_array_copy(notifiers) : NULL;

    for (guint i = 0; all && i < all->len; i++) {
        /* Backwards on a stop, so that who started last stops first. */
        guint n = running ? i : all->len - 1 - i;
        Notifier notifier = g_array_index(all, Notifier, n);

        if (find_notifier(notifier.notify, notifier.opaque) >= 0) {
            notifier.notify(notifier.opaque, running, current_state);
        }
    }
}

/* ---- starting and stopping ---- */

static void tell_accel(bool running)
{
    const AccelClass *klass = accel_current();

    if (klass && klass->run_state_changed) {
        klass->run_state_changed(running);
    }
}

void vm_start(void)
{
    bool stop_was_asked = system_take_vmstop_request();

    g_assert(bql_locked() && !cpu_current());
    if (runstate_is_running()) {
        if (stop_was_asked) {
            /* It would have stopped in a moment, and been started again. */
            qapi_event_send_stop();
            qapi_event_send_resume();
            cpus_resume_all();
        }
        return;
    }
    runstate_set(RUN_STATE_RUNNING);
    tell_accel(true);
    notify_all(true);
    qapi_event_send_resume();
    cpus_resume_all();
}

/* Returns whether it ran until now. */
static bool stop_quietly(RunState state)
{
    if (!runstate_is_running()) {
        return false;
    }
    runstate_set(state);
    cpus_pause_all();
    tell_accel(false);
    notify_all(false);
    return true;
}

void vm_stop(RunState state)
{
    g_assert(bql_locked());
    if (cpu_current()) {
        system_vmstop_request(state);
    } else if (stop_quietly(state)) {
        qapi_event_send_stop();
    } else if (runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        stop_held = true;
        held_state = state;
    }
}

bool vm_take_held_stop(RunState *state)
{
    bool held = stop_held;

    *state = held_state;
    stop_held = false;
    return held;
}

void vm_shutdown(void)
{
    g_assert(bql_locked());
    stop_quietly(RUN_STATE_SHUTDOWN);
}

void vm_stop_force_state(RunState state)
{
    if (runstate_is_running()) {
        vm_stop(state);
    } else {
        runstate_set(state);
    }
}
