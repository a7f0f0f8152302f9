/*
 * A vCPU thread holds the big lock except while it runs guest code or sleeps. Its loop looks, in
 * this order, at: work that others queued for it, the wish that it stop, the throttle, its own
 * halt; only when none applies does it enter the guest. Whoever changes one of these does so under
 * the lock and then kicks, so nothing is missed: a kick that comes after the loop looked finds
 * exit_request cleared and sets it again, and the accelerator looks at it on its way in.
 *
 * A pause and a resume by two threads never mix: a resume waits until every pause that began before
 * it has returned.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "system/accel.h"
#include "system/bql.h"
#include "system/cpus.h"
#include "system/main-loop.h"
#include "system/runstate.h"

/* Each throttled vCPU runs this long between two sleeps. */
#define THROTTLE_SLICE_MS 10
#define THROTTLE_MAX 99

typedef struct VCPU {
    CPUState cpu;                   /* what the rest of the program sees */
    pthread_cond_t wake;
    GQueue work;                    /* of Work, not owned */
    int64_t throttle_until_us;      /* 0: not asleep by throttle */
    bool quit;
    bool thread_started;
    Error *init_error;
} VCPU;

typedef struct Work {
    void (*fn)(CPUState *cpu, void *opaque);
    void *opaque;
    bool done;
} Work;

static VCPU *vcpus[CPUS_MAX];
static unsigned vcpu_count;
static __thread VCPU *this_vcpu;

/* Something that others wait for has happened to a vCPU: created, stopped, work done. */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned pausers;

static pthread_mutex_t throttle_lock = PTHREAD_MUTEX_INITIALIZER;
static int throttle_percentage;
static bool throttle_ticking;

unsigned cpus_count(void)
{
    return vcpu_count;
}

CPUState *cpu_get(unsigned index)
{
    return index < vcpu_count ? &vcpus[index]->cpu : NULL;
}

CPUState *cpu_current(void)
{
    return this_vcpu ? &this_vcpu->cpu : NULL;
}

static VCPU *vcpu_of(CPUState *cpu)
{
    return (VCPU *)((char *)cpu - offsetof(VCPU, cpu));
}

/* ---- the thread ---- */

static void run_queued_work(VCPU *vcpu)
{
    Work *work;

    while ((work = g_queue_pop_head(&vcpu->work))) {
        work->fn(&vcpu->cpu, work->opaque);
        work->done = true;
        pthread_cond_broadcast(&changed);
    }
}

static void stand(VCPU *vcpu)
{
    if (!vcpu->cpu.stopped) {
        vcpu->cpu.stopped = true;
        pthread_cond_broadcast(&changed);
    }
    bql_cond_wait(&vcpu->wake);
}

/* Sleep off what the throttle gave us. Returns whether we did sleep. */
static bool throttled(VCPU *vcpu)
{
    if (!vcpu->throttle_until_us) {
        return false;
    }
    if (g_get_monotonic_time() >= vcpu->throttle_until_us) {
        vcpu->throttle_until_us = 0;
        return false;
    }
    bql_cond_wait_until(&vcpu->wake, vcpu->throttle_until_us);
    return true;
}

static void run_guest(VCPU *vcpu)
{
    const AccelClass *klass = accel_current();
    CPUState *cpu = &vcpu->cpu;
    CPUExit why;

    g_atomic_int_set(&cpu->exit_request, 0);
    if (cpu->env_dirty) {
        Error *err = NULL;

        if (klass->put_state && klass->put_state(cpu, &err) < 0) {
            cpu_report_internal_error(cpu, "cannot set its state: %s", error_get_pretty(err));
            error_free(err);
            return;
        }
        cpu->env_dirty = false;
    }
    cpu->env_valid = false;

    bql_unlock();
    why = klass->vcpu_exec(cpu);
    bql_lock();

    switch (why) {
    case CPU_EXIT_AGAIN:
        break;
    case CPU_EXIT_HALTED:
        cpu->halted = true;
        break;
    case CPU_EXIT_STOPPED:
        cpu->stop = true;
        break;
    }
}

static void vcpu_loop(VCPU *vcpu)
{
    CPUState *cpu = &vcpu->cpu;

    for (;;) {
        run_queued_work(vcpu);
        if (vcpu->quit) {
            return;
        }
        if (cpu->stop) {
            stand(vcpu);
        } else if (throttled(vcpu)) {
            continue;
        } else if (!accel_current()->runs_cpus) {
            bql_cond_wait(&vcpu->wake);
        } else if (cpu->halted && !g_atomic_int_get(&cpu->exit_request)) {
            bql_cond_wait(&vcpu->wake);
        } else {
            cpu->halted = false;
            run_guest(vcpu);
        }
    }
}

static void name_thread(VCPU *vcpu)
{
    g_autofree char *accel = g_ascii_strup(accel_current()->name, -1);
    char name[16];

    g_snprintf(name, sizeof(name), "CPU %d/%s", vcpu->cpu.index, accel);
    pthread_setname_np(pthread_self(), name);
}

static void *vcpu_thread(void *opaque)
{
    VCPU *vcpu = opaque;
    const AccelClass *klass = accel_current();
    bool ready;

    name_thread(vcpu);
    bql_lock();
    this_vcpu = vcpu;
    vcpu->cpu.thread_id = syscall(SYS_gettid);
    ready = !klass->vcpu_init || klass->vcpu_init(&vcpu->cpu, &vcpu->init_error) == 0;
    vcpu->cpu.created = true;
    vcpu->cpu.stopped = true;
    pthread_cond_broadcast(&changed);
    if (ready) {
        vcpu_loop(vcpu);
        if (klass->vcpu_destroy) {
            klass->vcpu_destroy(&vcpu->cpu);
        }
    }
    bql_unlock();
    return NULL;
}

/* ---- creation and end ---- */

static void reset_vcpu(CPUState *cpu)
{
    x86_cpu_state_reset(&cpu->env, cpu->index == 0);
    cpu->env_valid = true;
    cpu->env_dirty = true;
    cpu->halted = false;
}

static VCPU *vcpu_new(unsigned index)
{
    VCPU *vcpu = g_new0(VCPU, 1);

    vcpu->cpu.index = index;
    vcpu->cpu.apic_id = index;
    vcpu->cpu.stop = true;
    bql_cond_init(&vcpu->wake);
    g_queue_init(&vcpu->work);
    reset_vcpu(&vcpu->cpu);
    return vcpu;
}

/* The signals that end the program are the main thread's to see. */
static int start_thread(VCPU *vcpu)
{
    sigset_t block, old;
    int ret;

    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    ret = pthread_create(&vcpu->cpu.thread, NULL, vcpu_thread, vcpu);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    vcpu->thread_started = ret == 0;
    return ret;
}

static int create_one(unsigned index, Error **errp)
{
    VCPU *vcpu = vcpus[index] = vcpu_new(index);
    int ret;

    vcpu_count = index + 1;
    ret = start_thread(vcpu);
    if (ret) {
        error_setg_errno(errp, ret, "Could not start the thread of vCPU %u", index);
        return -1;
    }
    while (!vcpu->cpu.created) {
        bql_cond_wait(&changed);
    }
    if (vcpu->init_error) {
        error_propagate(errp, g_steal_pointer(&vcpu->init_error));
        error_prepend(errp, "Could not create vCPU %u: ", index);
        return -1;
    }
    return 0;
}

int cpus_create(unsigned count, Error **errp)
{
    g_assert(bql_locked() && accel_current() && vcpu_count == 0);
    g_assert(count >= 1 && count <= CPUS_MAX);

    for (unsigned i = 0; i < count; i++) {
        if (create_one(i, errp) < 0) {
            cpus_destroy();
            return -1;
        }
    }
    return 0;
}

void cpus_destroy(void)
{
    unsigned count = vcpu_count;

    g_assert(bql_locked() && !this_vcpu);
    for (unsigned i = 0; i < count; i++) {
        vcpus[i]->quit = true;
        cpu_kick(&vcpus[i]->cpu);
    }
    bql_unlock();
    for (unsigned i = 0; i < count; i++) {
        if (vcpus[i]->thread_started) {
            pthread_join(vcpus[i]->cpu.thread, NULL);
        }
    }
    bql_lock();
    vcpu_count = 0;
    for (unsigned i = 0; i < count; i++) {
        pthread_cond_destroy(&vcpus[i]->wake);
        error_free(vcpus[i]->init_error);
        g_clear_pointer(&vcpus[i], g_free);
    }
}

void cpus_reset_all(void)
{
    g_assert(bql_locked());
    CPU_FOREACH(cpu) {
        g_assert(cpu->stopped);
        reset_vcpu(cpu);
    }
}

/* ---- starting, stopping, work ---- */

void cpu_kick(CPUState *cpu)
{
    const AccelClass *klass = accel_current();

    g_atomic_int_set(&cpu->exit_request, 1);
    pthread_cond_signal(&vcpu_of(cpu)->wake);
    if (klass->vcpu_kick && cpu->created) {
        klass->vcpu_kick(cpu);
    }
}

static bool all_stopped(void)
{
    CPU_FOREACH(cpu) {
        if (!cpu->stopped) {
            return false;
        }
    }
    return true;
}

void cpus_pause_all(void)
{
    g_assert(bql_locked() && !this_vcpu);

    pausers++;
    CPU_FOREACH(cpu) {
        cpu->stop = true;
        cpu_kick(cpu);
    }
    while (!all_stopped()) {
        bql_cond_wait(&changed);
    }
    pausers--;
    pthread_cond_broadcast(&changed);
}

void cpus_resume_all(void)
{
    g_assert(bql_locked() && !this_vcpu);

    while (pausers) {
        bql_cond_wait(&changed);
    }
    CPU_FOREACH(cpu) {
        cpu->stop = false;
        cpu->stopped = false;
        cpu_kick(cpu);
    }
}

void cpu_run_on(CPUState *cpu, void (*fn)(CPUState *cpu, void *opaque), void *opaque)
{
    Work work = { .fn = fn, .opaque = opaque };

    g_assert(bql_locked());
    if (cpu == cpu_current()) {
        fn(cpu, opaque);
        return;
    }
    g_queue_push_tail(&vcpu_of(cpu)->work, &work);
    cpu_kick(cpu);
    while (!work.done) {
        bql_cond_wait(&changed);
    }
}

/* ---- state ---- */

typedef struct StateRequest {
    int ret;
    Error **errp;
} StateRequest;

static void get_state(CPUState *cpu, void *opaque)
{
    const AccelClass *klass = accel_current();
    StateRequest *request = opaque;

    if (cpu->env_valid) {
        return;
    }
    request->ret = klass->get_state ? klass->get_state(cpu, request->errp) : 0;
    if (request->ret == 0) {
        cpu->env_valid = true;
    }
}

static void put_state(CPUState *cpu, void *opaque)
{
    const AccelClass *klass = accel_current();
    StateRequest *request = opaque;

    request->ret = klass->put_state ? klass->put_state(cpu, request->errp) : 0;
    if (request->ret == 0) {
        cpu->env_valid = true;
        cpu->env_dirty = false;
        cpu->halted = false;
    }
}

static int state_request(CPUState *cpu, void (*fn)(CPUState *cpu, void *opaque), const char *what,
                         Error **errp)
{
    Error *err = NULL;
    StateRequest request = { .errp = &err };

    cpu_run_on(cpu, fn, &request);
    if (request.ret < 0) {
        error_propagate(errp, err);
        error_prepend(errp, "Could not %s the state of vCPU %d: ", what, cpu->index);
        return -1;
    }
    return 0;
}

int cpu_synchronize_state(CPUState *cpu, Error **errp)
{
    /* env_valid goes down under the lock only, before the vCPU enters the guest. */
    return cpu->env_valid ? 0 : state_request(cpu, get_state, "read", errp);
}

int cpu_push_state(CPUState *cpu, Error **errp)
{
    return state_request(cpu, put_state, "set", errp);
}

int cpus_synchronize_all(Error **errp)
{
    CPU_FOREACH(cpu) {
        if (cpu_synchronize_state(cpu, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

int cpus_push_all(Error **errp)
{
    CPU_FOREACH(cpu) {
        if (cpu_push_state(cpu, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

void cpu_report_internal_error(CPUState *cpu, const char *fmt, ...)
{
    bool locked = bql_locked();
    g_autofree char *message = NULL, *registers = NULL;
    StateRequest request = {};
    va_list ap;

    va_start(ap, fmt);
    message = g_strdup_vprintf(fmt, ap);
    va_end(ap);

    g_assert(cpu == cpu_current());
    if (!locked) {
        bql_lock();
    }
    error_report("vCPU %d: %s", cpu->index, message);
    get_state(cpu, &request);
    if (request.ret == 0) {
        registers = x86_cpu_state_describe(&cpu->env);
        fputs(registers, stderr);
    }
    vm_stop(RUN_STATE_INTERNAL_ERROR);
    if (!locked) {
        bql_unlock();
    }
}

/* ---- throttle ---- */

/*
 * A vCPU that sleeps P percent of its time runs one slice and sleeps the rest of a period of
 * slice / (1 - P/100).
 */
static unsigned throttle_period_ms(int percentage)
{
    return THROTTLE_SLICE_MS * 100 / (100 - percentage);
}

static gboolean throttle_tick(gpointer opaque)
{
    int64_t until_us = 0;
    int percentage;

    pthread_mutex_lock(&throttle_lock);
    percentage = throttle_percentage;
    throttle_ticking = percentage > 0;
    if (throttle_ticking) {
        g_timeout_add(throttle_period_ms(percentage), throttle_tick, NULL);
    }
    pthread_mutex_unlock(&throttle_lock);

    if (percentage) {
        until_us = g_get_monotonic_time() + throttle_period_ms(percentage) * 10 * percentage;
    }
    CPU_FOREACH(cpu) {
        vcpu_of(cpu)->throttle_until_us = until_us;
        cpu_kick(cpu);
    }
    return G_SOURCE_REMOVE;
}

static void throttle_wake(void *opaque)
{
    if (cpus_throttle_get()) {
        return;
    }
    CPU_FOREACH(cpu) {
        vcpu_of(cpu)->throttle_until_us = 0;
        cpu_kick(cpu);
    }
}

void cpus_throttle_set(int percentage)
{
    percentage = CLAMP(percentage, 0, THROTTLE_MAX);

    pthread_mutex_lock(&throttle_lock);
    throttle_percentage = percentage;
    if (percentage && !throttle_ticking) {
        throttle_ticking = true;
        g_timeout_add(throttle_period_ms(percentage), throttle_tick, NULL);
    }
    pthread_mutex_unlock(&throttle_lock);
    if (!percentage) {
        main_loop_post(throttle_wake, NULL);
    }
}

int cpus_throttle_get(void)
{
    int percentage;

    pthread_mutex_lock(&throttle_lock);
    percentage = throttle_percentage;
    pthread_mutex_unlock(&throttle_lock);
    return percentage;
}
