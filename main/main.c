/*
 * ferry-system-x86_64: the order in which a machine comes to life and ends.
 *
 * The command line has been checked before anything happens (system/cmdline.h). Then: process
 * (session, names, descriptors), objects, accelerator, machine, devices, kernel, first reset,
 * monitors, and at last the run state that was asked for. From there on the main loop has it, until
 * something quits it. A failure on the way prints its reason and ends with status 1.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "block/job.h"
#include "chardev/char.h"
#include "hw/block/run-state.h"
#include "hw/device.h"
#include "hw/x86/microvm.h"
#include "main/daemonize.h"
#include "main/disks.h"
#include "main/frontends.h"
#include "migration/incoming.h"
#include "migration/migration.h"
#include "nbd/server.h"
#include "system/accel.h"
#include "system/bql.h"
#include "system/cmdline.h"
#include "system/identity.h"
#include "system/machine.h"
#include "system/main-loop.h"
#include "system/object.h"
#include "system/runstate.h"
#include "util/aio.h"

/* In the order in which they are tried when none is asked for; qtest never is. */
static const AccelClass *const accels[] = {
    &accel_kvm,
#ifdef CONFIG_TCG
    &accel_tcg,
#endif
    &accel_qtest,
};

/* ---- the process ---- */

static int set_names(const CommandLine *cl, Error **errp)
{
    identity_set_name(cl->name);
    error_set_timestamps(cl->msg_timestamp);
    if (cl->msg_guest_name) {
        error_set_guest_name(cl->name);
    }
    if (cl->process_name && prctl(PR_SET_NAME, cl->process_name) < 0) {
        error_setg_errno(errp, errno, "Could not change the name of the process");
        return -1;
    }
    return cl->uuid ? identity_set_uuid(cl->uuid, errp) : 0;
}

static int start_process(const CommandLine *cl, Error **errp)
{
    if (cl->daemonize) {
        chardev_stdio_refuse();
        if (daemonize_begin(errp) < 0) {
            return -1;
        }
    }
    if (cl->pidfile && pidfile_create(cl->pidfile, errp) < 0) {
        return -1;
    }
    /* A peer that is gone or a file that may not grow is an error of the write, not our end. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    main_loop_init();
    bql_lock();
    /* Block nodes without a thread of their own are served by whoever holds the big lock. */
    aio_context_main();
    aio_set_main_home(bql_locked);
    system_init_signals();
    return set_names(cl, errp);
}

/* ---- the machine ---- */

static void default_accels(CommandLine *cl)
{
    if (cl->accels->len) {
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(accels); i++) {
        if ((accels[i] == &accel_qtest) == (cl->qtest != NULL)) {
            AccelOption accel = { .name = g_strdup(accels[i]->name) };

            g_array_append_val(cl->accels, accel);
        }
    }
}

/* The first that works; why the others did not is told. */
static int start_accel(CommandLine *cl, Error **errp)
{
    default_accels(cl);
    for (guint i = 0; i < cl->accels->len; i++) {
        const AccelOption *option = &g_array_index(cl->accels, AccelOption, i);
        const AccelClass *klass = cmdline_accel_find(option->name);
        Error *err = NULL;

        if (accel_init(klass, option->opts, cl->cpu_model, cl->machine.cpus, &err) == 0) {
            return 0;
        }
        error_prepend(&err, "-accel %s: ", option->name);
        if (i + 1 == cl->accels->len) {
            error_propagate(errp, err);
            return -1;
        }
        error_report_err(err);
        error_report("falling back to %s", g_array_index(cl->accels, AccelOption, i + 1).name);
    }
    g_assert_not_reached();
}

/* Run @fn on each text; its errors begin with the option. */
static int for_each_text(const GArray *texts, int (*fn)(const char *text, Error **errp),
                         Error **errp)
{
    for (guint i = 0; i < texts->len; i++) {
        const TextOption *option = &g_array_index(texts, TextOption, i);

        if (fn(option->text, errp) < 0) {
            error_prepend(errp, "-%s %s: ", option->option, option->text);
            return -1;
        }
    }
    return 0;
}

static int add_object(const char *text, Error **errp)
{
    Error *err = NULL;
    g_autofree char *help = object_help(text, &err);

    if (help) {
        fputs(help, stdout);
        exit(EXIT_SUCCESS);
    }
    if (err) {
        error_propagate(errp, err);
        return -1;
    }
    return object_new_from_str(text, errp) ? 0 : -1;
}

static int add_device(const char *text, Error **errp)
{
    g_autofree char *help = NULL;

    if (!device_add_text(text, &help, errp)) {
        return -1;
    }
    if (help) {
        fputs(help, stdout);
        exit(EXIT_SUCCESS);
    }
    return 0;
}

static int add_global(const char *text, Error **errp)
{
    return device_add_global(text, errp) ? 0 : -1;
}

static bool hotplug_check(Error **errp)
{
    if (migration_is_running() || incoming_in_progress()) {
        error_setg(errp, "Devices cannot be added or removed while the machine is being migrated");
        return false;
    }
    return true;
}

static int build_machine(CommandLine *cl, Error **errp)
{
    system_set_reboot_action(cl->no_reboot ? REBOOT_ACTION_SHUTDOWN : REBOOT_ACTION_RESET);
    system_set_shutdown_action(cl->no_shutdown ? SHUTDOWN_ACTION_PAUSE : SHUTDOWN_ACTION_POWEROFF);
    runstate_set_autostart(!cl->stopped);
    block_follow_run_state();
    if (cl->incoming) {
        runstate_set(RUN_STATE_INMIGRATE);
    }
    if (frontends_create_chardevs(cl, errp) < 0 ||
        for_each_text(cl->objects, add_object, errp) < 0 || disks_open(cl, errp) < 0 ||
        start_accel(cl, errp) < 0) {
        return -1;
    }
    migration_init();
    nbd_export_register();
    device_set_hotplug_check(hotplug_check);
    if (for_each_text(cl->globals, add_global, errp) < 0 ||
        machine_create(&cl->machine, errp) < 0 || frontends_create_serials(cl, errp) < 0 ||
        disks_create_devices(errp) < 0 || for_each_text(cl->devices, add_device, errp) < 0 ||
        cl->machine.klass->boot(&cl->machine, errp) < 0) {
        return -1;
    }
    system_reset_run(SHUTDOWN_CAUSE_NONE);
    return frontends_start(cl, errp);
}

static int run(const CommandLine *cl, Error **errp)
{
    /* Listening or opening is part of starting: the parent of -daemonize hears when it fails. */
    if ((cl->incoming && incoming_start_from_cmdline(cl->incoming, errp) < 0) ||
        daemonize_finish(errp) < 0) {
        return -1;
    }
    if (runstate_autostart() && runstate_check(RUN_STATE_PRELAUNCH)) {
        vm_start();
    }
    return 0;
}

static void end_machine(void)
{
    const AccelClass *klass = accel_current();

    migration_shutdown();
    vm_shutdown();
    nbd_server_stop();
    cpus_destroy();
    job_cancel_sync_all();
    device_delete_all();
    device_forget_globals();
    machine_destroy();
    if (klass->cleanup) {
        klass->cleanup();
    }
    disks_close();
    objects_delete_all();
    frontends_cleanup();
}

int main(int argc, char **argv)
{
    g_autoptr(CommandLine) cl = NULL;
    Error *err = NULL;
    int status;

    g_set_prgname("ferry-system-x86_64");
    machine_register(&machine_microvm);
    cmdline_set_accels(accels, G_N_ELEMENTS(accels));
    cl = cmdline_parse(argc, argv, &err);
    if (cl && cl->print) {
        fputs(cl->print, stdout);
        return EXIT_SUCCESS;
    }
    if (!cl || start_process(cl, &err) < 0 || build_machine(cl, &err) < 0 || run(cl, &err) < 0) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
    status = main_loop_run();
    end_machine();
    bql_unlock();
    return status;
}
