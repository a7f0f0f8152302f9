/*
 * Requests to reset, shut down, power down or stop come from guests, monitors and signals, in any
 * thread. They are noted under a small lock of their own and acted on by the main thread, where
 * vCPUs can be waited for; of several pending ones shutdown goes first, as nothing else matters
 * then.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <glib-unix.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "system/accel.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "qapi/qapi-events-run-state.h"

typedef struct Requests {
    ShutdownCause shutdown, reset;      /* SHUTDOWN_CAUSE_NONE: none */
    int exit_code;
    bool powerdown, vmstop;
    RunState vmstop_state;
} Requests;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Requests pending;

static RebootAction reboot_action = REBOOT_ACTION_RESET;
static ShutdownAction shutdown_action = SHUTDOWN_ACTION_POWEROFF;

/* Written by the signal handler, read by the main thread after the eventfd told it. */
static int signal_fd = -1;
static volatile sig_atomic_t signal_number;
static volatile pid_t signal_sender;

void system_set_reboot_action(RebootAction action)
{
    reboot_action = action;
}

void system_set_shutdown_action(ShutdownAction action)
{
    shutdown_action = action;
}

static bool caused_by_guest(ShutdownCause cause)
{
    return cause == SHUTDOWN_CAUSE_GUEST_SHUTDOWN || cause == SHUTDOWN_CAUSE_GUEST_RESET ||
           cause == SHUTDOWN_CAUSE_GUEST_PANIC;
}

/* ---- acting on them: the main thread ---- */

void system_reset_run(ShutdownCause cause)
{
    const AccelClass *klass = accel_current();
    Error *err = NULL;

    g_assert(bql_locked());
    if (klass->reset) {
        klass->reset();
    }
    cpus_reset_all();
    reset_run();
    if (cpus_push_all(&err) < 0) {
        error_report_err(err);
        vm_stop_force_state(RUN_STATE_INTERNAL_ERROR);
    }
    if (cause != SHUTDOWN_CAUSE_NONE && cause != SHUTDOWN_CAUSE_SUBSYSTEM_RESET &&
        cause != SHUTDOWN_CAUSE_SNAPSHOT_LOAD) {
        qapi_event_send_reset(caused_by_guest(cause), cause);
    }
}

static void do_reset(ShutdownCause cause)
{
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        /* All state is about to be replaced, perhaps by another thread at this moment. */
        return;
    }
    cpus_pause_all();
    system_reset_run(cause);
    if (runstate_is_running()) {
        cpus_resume_all();
    } else if (!runstate_check(RUN_STATE_FINISH_MIGRATE)) {
        runstate_set(RUN_STATE_PRELAUNCH);
    }
}

static void do_shutdown(ShutdownCause cause, int exit_code)
{
    qapi_event_send_shutdown(caused_by_guest(cause), cause);
    if (shutdown_action == SHUTDOWN_ACTION_PAUSE) {
        vm_stop(RUN_STATE_SHUTDOWN);
    } else {
        main_loop_quit(exit_code);
    }
}

static void act(void *opaque)
{
    Requests now;

    pthread_mutex_lock(&lock);
    now = pending;
    pending = (Requests){ .shutdown = SHUTDOWN_CAUSE_NONE };
    pthread_mutex_unlock(&lock);

    if (now.shutdown != SHUTDOWN_CAUSE_NONE) {
        do_shutdown(now.shutdown, now.exit_code);
    }
    if (now.reset != SHUTDOWN_CAUSE_NONE) {
        do_reset(now.reset);
    }
    if (now.powerdown) {
        qapi_event_send_powerdown();
    }
    if (now.vmstop) {
        vm_stop(now.vmstop_state);
    }
}

/* ---- asking ---- */

static void stop_current_cpu(void)
{
    CPUState *cpu = cpu_current();
    bool locked = bql_locked();

    if (!cpu) {
        return;
    }
    if (!locked) {
        bql_lock();
    }
    cpu->stop = true;
    g_atomic_int_set(&cpu->exit_request, 1);
    if (!locked) {
        bql_unlock();
    }
}

void system_shutdown_request_with_code(ShutdownCause cause, int exit_code)
{
    pthread_mutex_lock(&lock);
    if (pending.shutdown == SHUTDOWN_CAUSE_NONE) {
        pending.shutdown = cause;
        pending.exit_code = exit_code;
    }
    pthread_mutex_unlock(&lock);
    stop_current_cpu();
    main_loop_post(act, NULL);
}

void system_shutdown_request(ShutdownCause cause)
{
    system_shutdown_request_with_code(cause, 0);
}

void system_reset_request(ShutdownCause cause)
{
    if (reboot_action == REBOOT_ACTION_SHUTDOWN && cause != SHUTDOWN_CAUSE_SUBSYSTEM_RESET) {
        system_shutdown_request(cause);
        return;
    }
    pthread_mutex_lock(&lock);
    pending.reset = cause;
    pthread_mutex_unlock(&lock);
    stop_current_cpu();
    main_loop_post(act, NULL);
}

void system_powerdown_request(void)
{
    pthread_mutex_lock(&lock);
    pending.powerdown = true;
    pthread_mutex_unlock(&lock);
    main_loop_post(act, NULL);
}

void system_vmstop_request(RunState state)
{
    pthread_mutex_lock(&lock);
    pending.vmstop = true;
    pending.vmstop_state = state;
    pthread_mutex_unlock(&lock);
    stop_current_cpu();
    main_loop_post(act, NULL);
}

bool system_take_vmstop_request(void)
{
    bool asked;

    pthread_mutex_lock(&lock);
    asked = pending.vmstop;
    pending.vmstop = false;
    pthread_mutex_unlock(&lock);
    return asked;
}

void system_reset_if_requested(void)
{
    ShutdownCause cause;

    pthread_mutex_lock(&lock);
    cause = pending.reset;
    pending.reset = SHUTDOWN_CAUSE_NONE;
    pthread_mutex_unlock(&lock);
    if (cause != SHUTDOWN_CAUSE_NONE) {
        system_reset_run(cause);
    }
}

/* ---- signals ---- */

static void on_signal(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    uint64_t one = 1;
    ssize_t ret;

    signal_number = number;
    signal_sender = info->si_code == SI_USER || info->si_code == SI_QUEUE ? info->si_pid : 0;
    do {
        ret = write(signal_fd, &one, sizeof(one));
    } while (ret < 0 && errno == EINTR);
    errno = saved_errno;
}

static gboolean signal_arrived(gint fd, GIOCondition condition, gpointer opaque)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) != sizeof(count)) {
        return G_SOURCE_CONTINUE;
    }
    if (signal_sender) {
        g_autofree char *path = g_strdup_printf("/proc/%d/comm", (int)signal_sender);
        g_autofree char *name = NULL;

        if (g_file_get_contents(path, &name, NULL, NULL)) {
            g_strstrip(name);
        }
        error_report("terminating on signal %d from pid %d (%s)", (int)signal_number,
                     (int)signal_sender, name ? name : "<unknown process>");
    } else {
        error_report("terminating on signal %d", (int)signal_number);
    }
    /* Whoever sends a signal wants the process gone, -no-shutdown or not. */
    shutdown_action = SHUTDOWN_ACTION_POWEROFF;
    system_shutdown_request(SHUTDOWN_CAUSE_HOST_SIGNAL);
    return G_SOURCE_CONTINUE;
}

void system_init_signals(void)
{
    struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

    signal_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(signal_fd >= 0);
    g_unix_fd_add(signal_fd, G_IO_IN, signal_arrived, NULL);
    sigfillset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}
