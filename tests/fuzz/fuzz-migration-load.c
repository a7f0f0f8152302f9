/*
 * Fuzzing a migration stream: a machine of 4 MiB without CPUs that run loads what the fuzzer made.
 *
 * The first byte chooses how the stream is read: bit 0 direct-mapped. The rest is a file, or what a
 * socket would carry. The machine is never run; what a stream leaves in its devices the next one
 * finds there.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hw/x86/microvm.h"
#include "migration/context.h"
#include "migration/migration.h"
#include "monitor/monitor.h"
#include "system/accel.h"
#include "system/bql.h"
#include "system/cmdline.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "tests/fuzz/fuzz.h"

static const AccelClass *const accels[] = { &accel_qtest };
static int stream_fd;

static void build_machine(void)
{
    char *argv[] = { (char *)"fuzz",   (char *)"-machine",    (char *)"microvm",
                     (char *)"-accel", (char *)"qtest",       (char *)"-m",
                     (char *)"4M",     (char *)"-nodefaults", (char *)"-display",
                     (char *)"none",   (char *)"-incoming",   (char *)"defer" };
    CommandLine *cl;

    machine_register(&machine_microvm);
    cmdline_set_accels(accels, G_N_ELEMENTS(accels));
    cl = cmdline_parse(G_N_ELEMENTS(argv), argv, &error_abort);
    runstate_set(RUN_STATE_INMIGRATE);
    accel_init(&accel_qtest, NULL, NULL, 1, &error_abort);
    migration_init();
    g_assert(machine_create(&cl->machine, &error_abort) == 0);
    g_assert(cl->machine.klass->boot(&cl->machine, &error_abort) == 0);
    system_reset_run(SHUTDOWN_CAUSE_NONE);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_process_init();
    main_loop_init();
    bql_lock();
    monitor_init_globals();
    build_machine();
    stream_fd = memfd_create("stream", MFD_CLOEXEC);
    g_assert(stream_fd >= 0);
    return 0;
}

static void load(bool mapped, MigrationAddress *addr)
{
    MigrationConfig config = { .has_direct_mapped = true, .direct_mapped = mapped };
    g_autofree MigrationContext *ctx = g_new0(MigrationContext, 1);
    QIOChannel *ioc;
    Error *err = NULL;

    ctx->incoming = true;
    if (migration_options_resolve(&config, true, &ctx->opts, &err) < 0) {
        error_free(err);
        return;
    }
    ctx->channels = migration_channels_new_incoming(addr, &ctx->opts, &err);
    g_assert(ctx->channels);
    ctx->counters.total_bytes = ram_blocks_total();
    bql_unlock();
    ioc = migration_channels_accept(ctx->channels, &err);
    g_assert(ioc);
    ctx->main_file = mfile_new_input(ioc);
    loadvm(ctx, &err);
    migration_channels_shutdown(ctx->channels);
    migration_channels_close(ctx->channels);
    bql_lock();
    mfile_free(ctx->main_file);
    migration_channels_free(ctx->channels);
    error_free(err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", stream_fd);
    MigrationAddress addr = { .transport = MIGRATION_ADDRESS_TYPE_FILE };

    if (size < 1) {
        return 0;
    }
    g_assert(ftruncate(stream_fd, 0) == 0);
    g_assert(pwrite(stream_fd, data + 1, size - 1, 0) == (ssize_t)(size - 1));
    addr.u.file.filename = path;
    load(data[0] & 1, &addr);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
    return 0;
}
