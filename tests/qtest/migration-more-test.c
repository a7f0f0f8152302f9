/*
 * Migrations seen from their weak sides: passes that follow one another while a destination waits,
 * limits that must hold, commands at the wrong moment, peers that stall or speak nonsense, and
 * what is left behind when it failed.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "migration-util.h"

#define MIB (1ull << 20)

static char *unix_uri(MigPair *p, const char *name)
{
    g_autofree char *path = mig_path(p, name);
    return g_strdup_printf("unix:%s", path);
}

static void finish_live(MigPair *p)
{
    mig_wait_status(&p->src, "completed");
    mig_wait_status(&p->dst, "completed");
    mig_compare_memory(p);
    mig_verify_dst(p);
    mig_pair_free(p);
}

/* ---- passes ---- */

/*
 * The second pass has far more to send than queues and sockets hold, on channels that wait for the
 * main stream to say that the first pass is over.
 */
static void test_multifd_second_pass(const char *accel)
{
    MigPair *p = mig_pair_new(accel);
    g_autofree char *uri = unix_uri(p, "sock");

    p->memory_mib = 256;
    p->rate_mib = 4000;
    mig_start_src(p);
    mig_set_cap(&p->src, "multifd", true);
    mig_set_param_int(&p->src, "max-bandwidth", 0);
    mig_set_param_int(&p->src, "downtime-limit", 1);
    mig_start_dst(p, "defer");
    mig_set_cap(&p->dst, "multifd", true);
    qtest_qmp_assert_success(p->dst.qts,
                             "{'execute': 'migrate-incoming', 'arguments': {'uri': %s}}", uri);
    mig_migrate(&p->src, uri);
    gint64 deadline = qtest_deadline();
    for (int64_t passes = 0; passes < 4;) {
        struct json_object *info = mig_query(&p->src);
        g_assert_cmpstr(qtest_get_str(info, "status"), !=, "failed");
        passes = strcmp(qtest_get_str(info, "status"), "completed") == 0
                     ? 4 : qtest_get_int(info, "ram.dirty-sync-count");
        json_object_put(info);
        if (g_get_monotonic_time() > deadline) {
            qtest_fail(p->src.qts, "no pass follows the other");
        }
        g_usleep(1000);
    }
    mig_set_param_int(&p->src, "downtime-limit", 20000);
    finish_live(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    mig_add_accel_tests("/migration/more/multifd-second-pass", test_multifd_second_pass);
    return g_test_run();
}
