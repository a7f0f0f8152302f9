/*
 * vCPU threads with an accelerator that only counts: pausing and resuming from several threads at
 * once, work on the vCPU's own thread, state going in and out, halting, throttling, and what a
 * guest can ask the run state to do.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <json-c/json.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>
#include "qapi/event.h"
#include "system/accel.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "util/mutex.h"

#define CPUS 3
#define DEADLINE_US (30 * G_USEC_PER_SEC)
#define STORM_ROUNDS 150

typedef enum FakeMode { SPIN, HALT, ASK_RESET, ASK_SHUTDOWN, FAIL } FakeMode;

static int mode;                        /* atomic FakeMode, acted on by vCPU 0 */
static guint counters[CPUS];            /* atomic: turns in the guest */
static int in_guest[CPUS];              /* atomic */
static int64_t guest_us[CPUS];          /* time in the guest, of finished runs */
static guint halts, kicks;              /* atomic */
static uint64_t hardware_rip[CPUS];     /* what the accelerator would hold */
static GPtrArray *events;
static Mutex events_lock;

/* ---- the accelerator ---- */

static int fake_vcpu_init(CPUState *cpu, Error **errp)
{
    g_assert_true(cpu == cpu_current());
    g_assert_true(bql_locked());
    return 0;
}

static CPUExit spin(CPUState *cpu)
{
    int64_t begin = g_get_monotonic_time();

    while (!g_atomic_int_get(&cpu->exit_request)) {
        g_atomic_int_inc(&counters[cpu->index]);
        g_usleep(20);
    }
    __atomic_fetch_add(&guest_us[cpu->index], g_get_monotonic_time() - begin, __ATOMIC_RELAXED);
    return CPU_EXIT_AGAIN;
}

static CPUExit fake_vcpu_exec(CPUState *cpu)
{
    FakeMode now = cpu->index == 0 ? g_atomic_int_get(&mode) : SPIN;
    CPUExit ret = CPU_EXIT_AGAIN;

    g_assert_false(bql_locked());
    g_assert_true(cpu == cpu_current());
    g_assert_cmpint(g_atomic_int_exchange(&in_guest[cpu->index], 1), ==, 0);
    switch (now) {
    case SPIN:
        ret = spin(cpu);
        break;
    case HALT:
        g_atomic_int_inc(&halts);
        ret = CPU_EXIT_HALTED;
        break;
    case ASK_RESET:
        g_atomic_int_set(&mode, SPIN);
        system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
        ret = CPU_EXIT_STOPPED;
        break;
    case ASK_SHUTDOWN:
        g_atomic_int_set(&mode, SPIN);
        system_shutdown_request(SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
        ret = CPU_EXIT_STOPPED;
        break;
    case FAIL:
        g_atomic_int_set(&mode, SPIN);
        g_atomic_int_set(&in_guest[cpu->index], 0);
        cpu_report_internal_error(cpu, "the instruction at 0x%x is unknown", 0x1234);
        ret = CPU_EXIT_STOPPED;
        break;
    }
    hardware_rip[cpu->index]++;
    g_atomic_int_set(&in_guest[cpu->index], 0);
    return ret;
}

static void fake_vcpu_kick(CPUState *cpu)
{
    g_atomic_int_inc(&kicks);
}

static int fake_get_state(CPUState *cpu, Error **errp)
{
    g_assert_true(cpu == cpu_current());
    g_assert_cmpint(g_atomic_int_get(&in_guest[cpu->index]), ==, 0);
    if (hardware_rip[cpu->index] == UINT64_MAX) {
        error_setg(errp, "registers are on holiday");
        return -1;
    }
    cpu->env.rip = hardware_rip[cpu->index];
    return 0;
}

static int fake_put_state(CPUState *cpu, Error **errp)
{
    g_assert_true(cpu == cpu_current());
    hardware_rip[cpu->index] = cpu->env.rip;
    return 0;
}

static const AccelClass fake_accel = {
    .name = "fake",
    .runs_cpus = true,
    .max_cpus = CPUS,
    .vcpu_init = fake_vcpu_init,
    .vcpu_exec = fake_vcpu_exec,
    .vcpu_kick = fake_vcpu_kick,
    .get_state = fake_get_state,
    .put_state = fake_put_state,
};

/* ---- helpers ---- */

static void collect_event(const char *name, struct json_object *data, void *opaque)
{
    json_object_put(data);
    mutex_lock(&events_lock);
    g_ptr_array_add(events, g_strdup(name));
    mutex_unlock(&events_lock);
}

static char *take_events(void)
{
    char *list;

    mutex_lock(&events_lock);
    g_ptr_array_add(events, NULL);
    list = g_strjoinv(" ", (char **)events->pdata);
    g_ptr_array_set_size(events, 0);
    mutex_unlock(&events_lock);
    return list;
}

#define assert_events(expected) do { \
        g_autofree char *seen_ = take_events(); \
        g_assert_cmpstr(seen_, ==, expected); \
    } while (0)

/* Let the other threads and the main loop go on until @condition. The lock is held. */
#define wait_for(condition) do { \
        int64_t end_ = g_get_monotonic_time() + DEADLINE_US; \
        while (!(condition)) { \
            g_assert_cmpint(g_get_monotonic_time(), <, end_); \
            main_loop_iterate(false); \
            sched_yield(); \
        } \
    } while (0)

static void wait_for_progress(void)
{
    guint before[CPUS];

    for (int i = 0; i < CPUS; i++) {
        before[i] = g_atomic_int_get(&counters[i]);
    }
    for (int i = 0; i < CPUS; i++) {
        wait_for((guint)g_atomic_int_get(&counters[i]) != before[i]);
    }
}

static void assert_all_stand(void)
{
    CPU_FOREACH(cpu) {
        g_assert_true(cpu->stopped);
        g_assert_cmpint(g_atomic_int_get(&in_guest[cpu->index]), ==, 0);
    }
}

/* ---- tests; the big lock is held in each ---- */

static void test_pause_resume(void)
{
    assert_all_stand();
    g_assert_cmpint(runstate_get(), ==, RUN_STATE_PRELAUNCH);
    vm_start();
    wait_for_progress();
    vm_stop(RUN_STATE_PAUSED);
    assert_all_stand();
    vm_stop(RUN_STATE_IO_ERROR);
    g_assert_cmpint(runstate_get(), ==, RUN_STATE_PAUSED);
    vm_start();
    vm_start();
    wait_for_progress();
    vm_stop(RUN_STATE_PAUSED);
    assert_events("RESUME STOP RESUME STOP");
}

static void on_own_thread(CPUState *cpu, void *opaque)
{
    unsigned *calls = opaque;

    g_assert_true(bql_locked());
    g_assert_true(cpu == cpu_current());
    g_assert_cmpint(g_atomic_int_get(&in_guest[cpu->index]), ==, 0);
    (*calls)++;
}

static void test_run_on(void)
{
    unsigned calls = 0;

    CPU_FOREACH(cpu) {
        cpu_run_on(cpu, on_own_thread, &calls);
    }
    vm_start();
    for (int i = 0; i < 50; i++) {
        CPU_FOREACH(cpu) {
            cpu_run_on(cpu, on_own_thread, &calls);
        }
    }
    vm_stop(RUN_STATE_PAUSED);
    g_assert_cmpuint(calls, ==, 51 * CPUS);
}

static int storms_left;

static gpointer storm(gpointer opaque)
{
    unsigned calls = 0;

    for (int i = 0; i < STORM_ROUNDS; i++) {
        bql_lock();
        cpus_pause_all();
        assert_all_stand();
        cpu_run_on(cpu_get(i % CPUS), on_own_thread, &calls);
        /* Waiting for the work let go of the lock, so the others may have resumed meanwhile. */
        cpus_resume_all();
        bql_unlock();
        sched_yield();
    }
    g_assert_cmpuint(calls, ==, STORM_ROUNDS);
    g_atomic_int_add(&storms_left, -1);
    return NULL;
}

static void test_storm(void)
{
    GThread *threads[3];

    vm_start();
    storms_left = G_N_ELEMENTS(threads);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("storm", storm, NULL);
    }
    wait_for(g_atomic_int_get(&storms_left) == 0);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_thread_join(threads[i]);
    }
    wait_for_progress();
    vm_stop(RUN_STATE_PAUSED);
    assert_all_stand();
}

static void test_state(void)
{
    CPUState *cpu = cpu_get(1);
    g_autofree char *message = NULL;
    Error *err = NULL;

    cpu->env.rip = 1000000;
    cpu->env_valid = true;
    g_assert_cmpint(cpu_push_state(cpu, &error_abort), ==, 0);
    g_assert_cmpuint(hardware_rip[1], ==, 1000000);
    vm_start();
    wait_for_progress();
    /* While it runs, and again when it stands: what the accelerator holds, never what env held. */
    g_assert_cmpint(cpu_synchronize_state(cpu, &error_abort), ==, 0);
    g_assert_cmpuint(cpu->env.rip, >, 1000000);
    vm_stop(RUN_STATE_PAUSED);
    g_assert_cmpint(cpus_synchronize_all(&error_abort), ==, 0);
    g_assert_cmpuint(cpu->env.rip, ==, hardware_rip[1]);

    hardware_rip[1] = UINT64_MAX;
    cpu->env_valid = false;
    g_assert_cmpint(cpu_synchronize_state(cpu, &err), ==, -1);
    g_assert_cmpstr(error_get_pretty(err), ==,
                    "Could not read the state of vCPU 1: registers are on holiday");
    error_free(err);
    hardware_rip[1] = 0;
}

static void test_halt(void)
{
    guint seen;

    g_atomic_int_set(&mode, HALT);
    vm_start();
    wait_for(cpu_get(0)->halted);
    seen = g_atomic_int_get(&halts);
    cpu_kick(cpu_get(0));
    wait_for((guint)g_atomic_int_get(&halts) > seen);
    g_atomic_int_set(&mode, SPIN);
    cpu_kick(cpu_get(0));
    wait_for_progress();
    g_assert_false(cpu_get(0)->halted);
    vm_stop(RUN_STATE_PAUSED);
}

/* The share of wall time that vCPU 0 spent in the guest in the next 200 ms or more. */
static double measure_share(void)
{
    int64_t begin = g_get_monotonic_time(), end = begin + 200 * 1000;
    int64_t before, after;

    cpu_synchronize_state(cpu_get(0), &error_abort);    /* ends the run being measured */
    before = __atomic_load_n(&guest_us[0], __ATOMIC_RELAXED);
    while (g_get_monotonic_time() < end) {
        main_loop_iterate(false);
        sched_yield();
    }
    cpu_synchronize_state(cpu_get(0), &error_abort);
    after = __atomic_load_n(&guest_us[0], __ATOMIC_RELAXED);
    return (double)(after - before) / (g_get_monotonic_time() - begin);
}

static void test_throttle(void)
{
    vm_start();
    cpus_throttle_set(80);
    g_assert_cmpint(cpus_throttle_get(), ==, 80);
    wait_for(measure_share() < 0.5);
    cpus_throttle_set(0);
    wait_for(measure_share() > 0.8);

    /* A vCPU asleep for nearly a second still stops, and works, at once: this ends at all. */
    cpus_throttle_set(99);
    for (int i = 0; i < 100; i++) {
        cpus_pause_all();
        assert_all_stand();
        cpus_resume_all();
        main_loop_iterate(false);
    }
    cpus_throttle_set(1000);
    g_assert_cmpint(cpus_throttle_get(), ==, 99);
    cpus_throttle_set(0);
    wait_for_progress();
    vm_stop(RUN_STATE_PAUSED);
    g_free(take_events());
}

static unsigned resets;

static void count_reset(void *opaque)
{
    assert_all_stand();
    g_assert_cmpuint(cpu_get(0)->env.rip, ==, 0xfff0);
    resets++;
}

static void test_guest_reset(void)
{
    reset_register(count_reset, NULL);
    g_atomic_int_set(&mode, ASK_RESET);
    vm_start();
    wait_for(resets == 1);
    wait_for_progress();
    g_assert_true(runstate_is_running());
    vm_stop(RUN_STATE_PAUSED);
    assert_events("RESUME RESET STOP");

    /* A machine that stands is as new after a reset. */
    system_reset_request(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
    wait_for(resets == 2);
    g_assert_cmpint(runstate_get(), ==, RUN_STATE_PRELAUNCH);
    reset_unregister(count_reset, NULL);
    assert_events("RESET");
}

static void test_no_reboot(void)
{
    system_set_reboot_action(REBOOT_ACTION_SHUTDOWN);
    system_set_shutdown_action(SHUTDOWN_ACTION_PAUSE);
    g_atomic_int_set(&mode, ASK_RESET);
    vm_start();
    wait_for(runstate_check(RUN_STATE_SHUTDOWN));
    assert_all_stand();
    assert_events("RESUME SHUTDOWN STOP");
    system_set_reboot_action(REBOOT_ACTION_RESET);
    system_reset_request(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
    wait_for(runstate_check(RUN_STATE_PRELAUNCH));
    assert_events("RESET");
}

/* A stop asked by a vCPU and a start before it was acted on: both are told, and it runs. */
static void test_stop_then_start(void)
{
    vm_start();
    system_vmstop_request(RUN_STATE_PAUSED);
    vm_start();
    wait_for_progress();
    g_assert_true(runstate_is_running());
    assert_events("RESUME STOP RESUME");
    vm_stop(RUN_STATE_PAUSED);
    g_free(take_events());
}

static void test_internal_error(void)
{
    vm_start();
    wait_for_progress();
    g_atomic_int_set(&mode, FAIL);
    cpu_kick(cpu_get(0));
    wait_for(runstate_check(RUN_STATE_INTERNAL_ERROR));
    assert_all_stand();
    assert_events("RESUME STOP");
    system_reset_request(SHUTDOWN_CAUSE_HOST_QMP_SYSTEM_RESET);
    wait_for(runstate_check(RUN_STATE_PRELAUNCH));
    g_free(take_events());
}

static void test_guest_shutdown(void)
{
    system_set_shutdown_action(SHUTDOWN_ACTION_POWEROFF);
    g_atomic_int_set(&mode, ASK_SHUTDOWN);
    vm_start();
    g_assert_cmpint(main_loop_run(), ==, 0);
    assert_events("RESUME SHUTDOWN");
}

/* ---- */

static void add(const char *path, void (*fn)(void))
{
    g_test_add_func(path, fn);
}

int main(int argc, char **argv)
{
    Error *err = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    events = g_ptr_array_new_with_free_func(g_free);
    qapi_event_set_emitter(collect_event, NULL);
    if (accel_init(&fake_accel, NULL, NULL, CPUS + 1, &err) == 0) {
        return 1;
    }
    error_free(err);
    accel_init(&fake_accel, NULL, NULL, CPUS, &error_abort);
    cpus_create(CPUS, &error_abort);

    add("/cpus/pause-resume", test_pause_resume);
    add("/cpus/run-on", test_run_on);
    add("/cpus/storm", test_storm);
    add("/cpus/state", test_state);
    add("/cpus/halt", test_halt);
    add("/cpus/throttle", test_throttle);
    add("/cpus/guest-reset", test_guest_reset);
    add("/cpus/no-reboot", test_no_reboot);
    add("/cpus/stop-then-start", test_stop_then_start);
    add("/cpus/internal-error", test_internal_error);
    add("/cpus/guest-shutdown", test_guest_shutdown);
    ret = g_test_run();

    cpus_destroy();
    bql_unlock();
    g_ptr_array_unref(events);
    return ret;
}
