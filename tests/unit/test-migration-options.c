/*
 * Capabilities, parameters and addresses: what is accepted, what is refused and with which words.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>
#include "migration/address.h"
#include "migration/options.h"
#include "qapi/qapi-commands-migration.h"

static void assert_error(Error *err, const char *message)
{
    g_assert_nonnull(err);
    g_assert_cmpstr(error_get_pretty(err), ==, message);
    error_free(err);
}

static void set_caps(MigrationCapability a, bool sa, MigrationCapability b, bool sb, Error **errp)
{
    MigrationCapabilityStatus sts[2] = { { .capability = a, .state = sa },
                                         { .capability = b, .state = sb } };
    MigrationCapabilityStatusList second = { .value = &sts[1] };
    MigrationCapabilityStatusList first = { .value = &sts[0], .next = &second };

    qmp_migrate_set_capabilities(&first, errp);
}

static bool query_cap(MigrationCapability cap)
{
    MigrationCapabilityStatusList *list = qmp_query_migrate_capabilities(&error_abort);
    bool state = false, seen = false;

    for (MigrationCapabilityStatusList *i = list; i; i = i->next) {
        if (i->value->capability == cap) {
            state = i->value->state;
            seen = true;
        }
    }
    qapi_free_MigrationCapabilityStatusList(list);
    g_assert_true(seen);
    return state;
}

static void test_aliases(void)
{
    set_caps(MIGRATION_CAPABILITY_MAPPED_RAM, true, MIGRATION_CAPABILITY_EVENTS, true,
             &error_abort);
    g_assert_true(query_cap(MIGRATION_CAPABILITY_DIRECT_MAPPED));
    g_assert_true(query_cap(MIGRATION_CAPABILITY_MAPPED_RAM));
    set_caps(MIGRATION_CAPABILITY_DIRECT_MAPPED, false, MIGRATION_CAPABILITY_EVENTS, false,
             &error_abort);
    g_assert_false(query_cap(MIGRATION_CAPABILITY_MAPPED_RAM));

    MigrationParameters p = { .has_direct_io = true, .direct_io = true };
    qmp_migrate_set_parameters(&p, &error_abort);
    g_assert_true(query_cap(MIGRATION_CAPABILITY_BYPASS_CACHE));
    set_caps(MIGRATION_CAPABILITY_BYPASS_CACHE, false, MIGRATION_CAPABILITY_EVENTS, false,
             &error_abort);
    g_autoptr(MigrationParameters) now = qmp_query_migrate_parameters(&error_abort);
    g_assert_true(now->has_direct_io);
    g_assert_false(now->direct_io);
}

static void test_alias_conflict(void)
{
    Error *err = NULL;

    set_caps(MIGRATION_CAPABILITY_DIRECT_MAPPED, true, MIGRATION_CAPABILITY_MAPPED_RAM, false,
             &err);
    assert_error(err, "Capability 'direct-mapped' is asked to be both on and off ('mapped-ram' is "
                      "another spelling of it)");
    g_assert_false(query_cap(MIGRATION_CAPABILITY_DIRECT_MAPPED));
}

static void test_ranges(void)
{
    static const struct {
        MigrationParameters p;
        const char *message;
    } cases[] = {
        { { .has_multifd_channels = true, .multifd_channels = 0 },
          "Parameter 'multifd-channels' expects a value between 1 and 255" },
        { { .has_downtime_limit = true, .downtime_limit = 2000001 },
          "Parameter 'downtime-limit' expects a value between 0 and 2000000" },
        { { .has_multifd_zlib_level = true, .multifd_zlib_level = 10 },
          "Parameter 'multifd-zlib-level' expects a value between 0 and 9" },
        { { .has_multifd_zstd_level = true, .multifd_zstd_level = 21 },
          "Parameter 'multifd-zstd-level' expects a value between 0 and 20" },
        { { .has_throttle_trigger_threshold = true, .throttle_trigger_threshold = 101 },
          "Parameter 'throttle-trigger-threshold' expects a value between 1 and 100" },
        { { .has_max_cpu_throttle = true, .max_cpu_throttle = 19 },
          "Parameter 'max-cpu-throttle' expects a value between cpu-throttle-initial (20) and 99" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        MigrationParameters p = cases[i].p;
        Error *err = NULL;
        qmp_migrate_set_parameters(&p, &err);
        assert_error(err, cases[i].message);
    }
    g_autoptr(MigrationParameters) now = qmp_query_migrate_parameters(&error_abort);
    g_assert_cmpuint(now->multifd_channels, ==, 2);
    g_assert_cmpuint(now->downtime_limit, ==, 300);
    g_assert_cmpuint(now->max_bandwidth, ==, 128 << 20);
}

static void test_conflicts(void)
{
    Error *err = NULL;
    MigrationParameters zlib = { .has_multifd_compression = true,
                                 .multifd_compression = MULTI_FD_COMPRESSION_ZLIB };
    MigrationParameters none = { .has_multifd_compression = true };

    set_caps(MIGRATION_CAPABILITY_DIRECT_MAPPED, true, MIGRATION_CAPABILITY_MULTIFD, true,
             &error_abort);
    qmp_migrate_set_parameters(&zlib, &err);
    assert_error(err, "Capability 'direct-mapped' cannot be used together with parameter "
                      "'multifd-compression' set to 'zlib'");
    set_caps(MIGRATION_CAPABILITY_DIRECT_MAPPED, false, MIGRATION_CAPABILITY_MULTIFD, false,
             &error_abort);
    qmp_migrate_set_parameters(&zlib, &error_abort);
    err = NULL;
    set_caps(MIGRATION_CAPABILITY_MAPPED_RAM, true, MIGRATION_CAPABILITY_MULTIFD, true, &err);
    assert_error(err, "Capability 'direct-mapped' cannot be used together with parameter "
                      "'multifd-compression' set to 'zlib'");
    qmp_migrate_set_parameters(&none, &error_abort);
}

static void test_config(void)
{
    MigrationOptions opts;
    Error *err = NULL;
    MigrationConfig config = {
        .has_mapped_ram = true, .mapped_ram = true,
        .has_direct_io = true, .direct_io = true,
        .has_multifd_channels = true, .multifd_channels = 7,
    };

    g_assert_cmpint(migration_options_resolve(&config, false, &opts, &error_abort), ==, 0);
    g_assert_true(migration_cap(&opts, MIGRATION_CAPABILITY_DIRECT_MAPPED));
    g_assert_true(migration_cap(&opts, MIGRATION_CAPABILITY_BYPASS_CACHE));
    g_assert_cmpuint(opts.params.multifd_channels, ==, 7);
    /* The set that commands change is as it was. */
    g_assert_false(query_cap(MIGRATION_CAPABILITY_DIRECT_MAPPED));

    config.mapped_ram = false;
    g_assert_cmpint(migration_options_resolve(&config, false, &opts, &err), <, 0);
    assert_error(err, "Capability 'bypass-cache' requires capability 'direct-mapped'");

    err = NULL;
    config.multifd_channels = 0;
    g_assert_cmpint(migration_options_resolve(&config, false, &opts, &err), <, 0);
    assert_error(err, "config: Parameter 'multifd-channels' expects a value between 1 and 255");
}

static void test_running(void)
{
    MigrationOptions opts;
    Error *err = NULL;
    MigrationParameters live = { .has_downtime_limit = true, .downtime_limit = 77 };
    MigrationParameters fixed = { .has_multifd_channels = true, .multifd_channels = 3 };
    MigrationParameters back = { .has_downtime_limit = true, .downtime_limit = 300 };

    g_assert_cmpint(migration_options_resolve(NULL, false, &opts, &error_abort), ==, 0);
    migration_options_begin(&opts);
    g_assert_cmpuint(migration_live_downtime_limit_ms(), ==, 300);
    qmp_migrate_set_parameters(&live, &error_abort);
    g_assert_cmpuint(migration_live_downtime_limit_ms(), ==, 77);
    qmp_migrate_set_parameters(&fixed, &err);
    assert_error(err,
                 "Parameter 'multifd-channels' cannot be changed while a migration is running");
    err = NULL;
    set_caps(MIGRATION_CAPABILITY_EVENTS, true, MIGRATION_CAPABILITY_MULTIFD, true, &err);
    assert_error(err, "Capabilities cannot be changed while a migration is running");
    migration_options_end();
    qmp_migrate_set_parameters(&back, &error_abort);
}

static void test_uri_good(void)
{
    static const struct {
        const char *uri, *describe;
    } cases[] = {
        { "tcp:localhost:4444", "tcp socket localhost:4444" },
        { "tcp:[::1]:4444", "tcp socket ::1:4444" },
        { "unix:/run/x.sock", "unix socket '/run/x.sock'" },
        { "vsock:3:1234", "vsock 3:1234" },
        { "fd:7", "file descriptor '7'" },
        { "fd:mig", "file descriptor 'mig'" },
        { "exec:cat > /x, y", "command '/bin/sh -c cat > /x, y'" },
        { "file:/a,b", "file '/a,b'" },
        { "file:/a,offset=1M", "file '/a'" },
        { "rdma:host:1", "rdma host:1" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(MigrationAddress) addr = migration_address_parse(cases[i].uri, &error_abort);
        g_autofree char *text = migration_address_describe(addr);
        g_assert_cmpstr(text, ==, cases[i].describe);
    }
    g_autoptr(MigrationAddress) file = migration_address_parse("file:/a,b,offset=2k", &error_abort);
    g_assert_cmpstr(file->u.file.filename, ==, "/a,b");
    g_assert_cmpuint(file->u.file.offset, ==, 2048);
}

static void test_uri_bad(void)
{
    static const struct {
        const char *uri, *message;
    } cases[] = {
        { "", "unknown migration protocol: " },
        { "ftp://x", "unknown migration protocol: ftp://x" },
        { "exec:", "exec: the command is empty" },
        { "file:", "file:: the path is empty" },
        { "file:,offset=3", "file:,offset=3: the path is empty" },
        { "tcp:unix:/x", "'tcp:unix:/x' is not of the form tcp:HOST:PORT" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;
        g_assert_null(migration_address_parse(cases[i].uri, &err));
        assert_error(err, cases[i].message);
    }
    static const char *const refused[] = { "tcp:", "tcp:host", "unix:", "vsock:3", "fd:",
                                           "file:/x,offset=", "file:/x,offset=-1",
                                           "file:/x,offset=1Q", "rdma:unix:/x" };
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++) {
        Error *err = NULL;
        g_assert_null(migration_address_parse(refused[i], &err));
        g_assert_nonnull(err);
        error_free(err);
    }
}

static void test_args(void)
{
    MigrationChannel channel = { .addr = NULL };
    MigrationChannelList one = { .value = &channel };
    MigrationChannelList two = { .value = &channel, .next = &one };
    Error *err = NULL;

    g_assert_null(migration_address_from_args("unix:/x", true, &one, &err));
    assert_error(err, "'uri' and 'channels' are mutually exclusive: exactly one of the two must be "
                      "given");
    err = NULL;
    g_assert_null(migration_address_from_args(NULL, false, NULL, &err));
    assert_error(err, "neither 'uri' nor 'channels' is given: exactly one of the two is needed");
    err = NULL;
    g_assert_null(migration_address_from_args(NULL, true, NULL, &err));
    assert_error(err, "'channels' is empty: a channel of type 'main' is needed");
    err = NULL;
    g_assert_null(migration_address_from_args(NULL, true, &two, &err));
    assert_error(err, "'channels' has more than one channel of type 'main'");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration/options/aliases", test_aliases);
    g_test_add_func("/migration/options/alias-conflict", test_alias_conflict);
    g_test_add_func("/migration/options/ranges", test_ranges);
    g_test_add_func("/migration/options/conflicts", test_conflicts);
    g_test_add_func("/migration/options/config", test_config);
    g_test_add_func("/migration/options/running", test_running);
    g_test_add_func("/migration/address/good", test_uri_good);
    g_test_add_func("/migration/address/bad", test_uri_bad);
    g_test_add_func("/migration/address/args", test_args);
    return g_test_run();
}
