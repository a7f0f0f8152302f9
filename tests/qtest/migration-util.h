/*
 * What the migration tests share: a pair of machines that are alike, with content that can be
 * checked on both sides, and the steps of a migration.
 *
 * Under kvm and tcg the content is the guest's (dirtier or disker), which verifies itself; under
 * qtest it is the memstress device's. In all cases the memory of the stopped source and of the
 * loaded, not yet running destination is compared byte by byte.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TESTS_QTEST_MIGRATION_UTIL_H
#define TESTS_QTEST_MIGRATION_UTIL_H

#include "libqtest.h"

typedef struct MigMachine {
    QTestState *qts;
    int serial;                 /* connected to the guest's serial port, or -1 */
    GString *serial_text;       /* received and not yet looked at */
} MigMachine;

typedef struct MigPair {
    const char *accel;          /* "kvm", "tcg", "qtest" */
    unsigned memory_mib;
    unsigned cpus;
    unsigned rate_mib;          /* how fast the content changes, per second */
    const char *guest;          /* "dirtier", or "disker", which needs a disk from @extra_args */
    const char *extra_args;     /* for both machines, or NULL */
    char *dir;                  /* temporary, removed at the end */
    MigMachine src, dst;
    unsigned n_started;
} MigPair;

/* A pair that is not started, with defaults for the accelerator. */
MigPair *mig_pair_new(const char *accel);
/* End the machines that are there and remove the files. */
void mig_pair_free(MigPair *p);
/* A path in the pair's directory; caller frees. */
char *mig_path(MigPair *p, const char *name);

/* "unix:" and the path of @name in the pair's directory. Caller frees. */
char *mig_unix_uri(MigPair *p, const char *name);

/* Start the source and wait until its content changes. */
void mig_start_src(MigPair *p);
/* Start the destination, stopped (-S), with -incoming @incoming. */
void mig_start_dst(MigPair *p, const char *incoming);
/*
 * The same, told by migrate-incoming to load @uri: the test has its monitor before loading begins,
 * whatever loading comes to.
 */
void mig_start_loading(MigPair *p, const char *uri);
void mig_quit(MigMachine *m);
void mig_kill(MigMachine *m);

/*
 * Machines started from here on see @fault (a variable of faulty-io.c) of the file @path. False,
 * and the test is skipped, with a sanitizer.
 */
bool mig_begin_fault(const char *path, const char *fault, const char *value);
void mig_end_fault(const char *fault);

/* The migrate command with @uri; on success. */
void mig_migrate(MigMachine *m, const char *uri);
/* Wait until query-migrate says one of these (NULL-terminated); which one. */
const char *mig_wait_status_any(MigMachine *m, const char *const *wanted);
/* Wait until it says @wanted; ending otherwise fails the test with the reason. */
void mig_wait_status(MigMachine *m, const char *wanted);
/* The whole answer of query-migrate. */
struct json_object *mig_query(MigMachine *m);
/* Its error-desc, or NULL. Caller frees. */
char *mig_error(MigMachine *m);

/* It has one that says @text, else the test fails. */
void mig_assert_error(MigMachine *m, const char *text);
/* The destination ended by itself with status 1, and said why loading failed: @text is in it. */
void mig_assert_dst_refused(MigPair *p, const char *text);

/* Capabilities and parameters of the machine, for this and all later migrations. */
void mig_set_cap(MigMachine *m, const char *cap, bool on);
void mig_set_param_int(MigMachine *m, const char *param, int64_t value);
void mig_set_param_str(MigMachine *m, const char *param, const char *value);

/*
 * Source stopped after a completed migration, destination loaded and stopped: memory is the same.
 */
void mig_compare_memory(MigPair *p);
/* Let the destination run and have the content verify itself there. */
void mig_verify_dst(MigPair *p);
/* The source goes on running and its content is whole. */
void mig_verify_src_runs(MigPair *p);

/*
 * The end of a test. mig_finish: both sides completed; the content is the same and lives on.
 * mig_finish_after_failure: the source lives on, and a migration without any capability that
 * direct-mapped and multifd tests set, over a UNIX socket to a new destination, ends well.
 * Both free @p.
 */
void mig_finish(MigPair *p);
void mig_finish_after_failure(MigPair *p);

/* For each accelerator that works, a test at PATH/ACCEL. */
void mig_add_accel_tests(const char *path, void (*fn)(const char *accel));

#endif
