/*
 * The run state of the machine, and the requests that change it.
 *
 * RunState is the QAPI enum (qapi/run-state.json). All functions are called under the big lock;
 * the *_request functions also from any thread without it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef SYSTEM_RUNSTATE_H
#define SYSTEM_RUNSTATE_H

#include <stdbool.h>
#include "util/error.h"
#include "qapi/qapi-types-run-state.h"

/* The state now; whether it is @state; whether it is RUN_STATE_RUNNING. */
RunState runstate_get(void);
bool runstate_check(RunState state);
bool runstate_is_running(void);
/* Change the state with vCPUs as they are. A transition that makes no sense aborts. */
void runstate_set(RunState state);
/* "running", "paused", ... and back; unknown names give -1. */
const char *runstate_name(RunState state);
int runstate_from_name(const char *name);

/* Told of every start and stop, after vCPUs stopped and before they start. */
typedef void RunStateNotify(void *opaque, bool running, RunState state);
void runstate_add_notifier(RunStateNotify *notify, void *opaque);
void runstate_remove_notifier(RunStateNotify *notify, void *opaque);

/*
 * Asked before a person's wish to run the machine is followed: what has to be had (disks that a
 * migration gave away) is had then, or the machine does not run. NULL, as at first: nothing is
 * asked.
 */
void runstate_set_start_check(int (*check)(Error **errp));
/* 0, or -1 with @errp set: the machine must not run. */
int runstate_check_start(Error **errp);

/* Start vCPUs: state running, event RESUME. Refused (event not sent) when already running. */
void vm_start(void);
/*
 * Stop all vCPUs and wait until they stand; state @state, event STOP. When the machine was not
 * running the state is left alone. Safe from a vCPU thread (it turns into a request) and from the
 * migration thread holding the big lock.
 */
void vm_stop(RunState state);
/*
 * A stop that came while the machine stood to be migrated (finish-migrate) and so had nothing to
 * stop: true, once, and @state is what it asked for. It holds if the machine comes back.
 */
bool vm_take_held_stop(RunState *state);
/* The same, and @state is taken even when the machine did not run. */
void vm_stop_force_state(RunState state);
/* At the end of the process, when the event SHUTDOWN has told all: stop without event STOP. */
void vm_shutdown(void);

/*
 * What the main loop does next; any thread. Asked on a vCPU's thread, that vCPU runs no further
 * guest code until the request has been acted on.
 */
void system_reset_request(ShutdownCause cause);
void system_powerdown_request(void);
/* Ends the process, or stops with state shutdown under -no-shutdown; event SHUTDOWN. */
void system_shutdown_request(ShutdownCause cause);
/* The same with an exit status (debug exit device). */
void system_shutdown_request_with_code(ShutdownCause cause, int exit_code);
/* vm_stop() asked from a vCPU or other thread. */
void system_vmstop_request(RunState state);

/*
 * Reset everything now: accelerator, vCPUs, then the handlers of system/reset.h; event RESET for
 * causes that are told. vCPUs stand. The requests above end here; machine creation calls it with
 * SHUTDOWN_CAUSE_NONE.
 */
void system_reset_run(ShutdownCause cause);

/*
 * Run a reset that was requested and that the main thread has not come to yet. Any thread but a
 * vCPU's; vCPUs stand.
 */
void system_reset_if_requested(void);

/* What -no-reboot, -no-shutdown, -action and the command set-action choose. */
void system_set_reboot_action(RebootAction action);
void system_set_shutdown_action(ShutdownAction action);

/* SIGINT, SIGTERM and SIGHUP ask for a shutdown from now on. Main thread, once. */
void system_init_signals(void);

/* vm_start()'s: take a stop that was asked for and not acted on yet. */
bool system_take_vmstop_request(void);

/*
 * Autostart: whether the machine is to run once it is ready (no -S). An incoming migration reads
 * it when it finishes; "cont" during incoming sets it.
 */
bool runstate_autostart(void);
void runstate_set_autostart(bool autostart);

#endif
