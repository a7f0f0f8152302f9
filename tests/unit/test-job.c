/*
 * The job core: every way through a job's life, by the events that it sends; pauses by users and by
 * drains; speed; jobs in an iothread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/job.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "qapi/event.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/iothread.h"
#include "util/mutex.h"

/* ---- events ---- */

static Mutex log_lock;
static GString *event_log;

static const char *member(struct json_object *data, const char *name)
{
    struct json_object *value;

    return json_object_object_get_ex(data, name, &value) ? json_object_get_string(value) : "-";
}

static void record(const char *name, struct json_object *data, void *opaque)
{
    mutex_lock(&log_lock);
    if (!strcmp(name, "JOB_STATUS_CHANGE")) {
        g_string_append_printf(event_log, "%s ", member(data, "status"));
    } else {
        g_string_append_printf(event_log, "%s(%s/%s) ", name, member(data, "offset"),
                               member(data, "len"));
    }
    mutex_unlock(&log_lock);
    json_object_put(data);
}

static void expect_events(const char *expected)
{
    mutex_lock(&log_lock);
    g_assert_cmpstr(g_strchomp(event_log->str), ==, expected);
    g_string_truncate(event_log, 0);
    mutex_unlock(&log_lock);
}

/* ---- a job to be steered ---- */

typedef struct Work {
    /* What run() is to do; atomic. */
    int finish;                 /* 1: return well, -1: fail */
    int ready;                  /* become ready */
    int turns;                  /* how often it looked */
    int max_turns;              /* then return well; 0: never */
    bool sleeps;
    bool soft_cancel, fail_prepare;
    /* What was called. */
    int committed, aborted, cleaned, freed, paused, resumed;
    AioContext *ran_in;         /* atomic */
    BlockBackend *blk;
} Work;

static int coroutine_fn work_run(Job *job, void *opaque, Error **errp)
{
    Work *w = opaque;
    bool is_ready = false;

    job_progress_set_remaining(job, 100);
    while (!job_is_cancelled(job)) {
        int finish = __atomic_load_n(&w->finish, __ATOMIC_SEQ_CST);

        __atomic_store_n(&w->ran_in, aio_current(), __ATOMIC_SEQ_CST);
        if (finish) {
            job_progress_update(job, finish > 0 ? 100 : 40);
            if (finish < 0) {
                error_setg(errp, "The work went wrong");
            }
            return finish > 0 ? 0 : -1;
        }
        if (!is_ready && __atomic_load_n(&w->ready, __ATOMIC_SEQ_CST)) {
            is_ready = true;
            job_transition_to_ready(job);
        }
        if (w->max_turns && __atomic_load_n(&w->turns, __ATOMIC_SEQ_CST) == w->max_turns) {
            return 0;
        }
        __atomic_fetch_add(&w->turns, 1, __ATOMIC_SEQ_CST);
        aio_wait_kick();
        if (w->max_turns) {
            job_throttle(job, 1000);
        } else if (w->sleeps) {
            job_sleep_ns(job, 1000 * 1000);
        } else {
            job_yield(job);
        }
    }
    return 0;
}

static void coroutine_fn work_pause(Job *job, void *opaque)
{
    ((Work *)opaque)->paused++;
}

static void coroutine_fn work_resume(Job *job, void *opaque)
{
    ((Work *)opaque)->resumed++;
}

static int work_complete(Job *job, void *opaque, Error **errp)
{
    __atomic_store_n(&((Work *)opaque)->finish, 1, __ATOMIC_SEQ_CST);
    job_enter(job);
    return 0;
}

static bool work_cancel(Job *job, void *opaque, bool force)
{
    Work *w = opaque;

    if (w->soft_cancel && !force) {
        __atomic_store_n(&w->finish, 1, __ATOMIC_SEQ_CST);
        return false;
    }
    return true;
}

static int work_prepare(Job *job, void *opaque, Error **errp)
{
    if (((Work *)opaque)->fail_prepare) {
        error_setg(errp, "Not prepared");
        return -1;
    }
    return 0;
}

static void work_commit(Job *job, void *opaque)
{
    ((Work *)opaque)->committed++;
}

static void work_abort(Job *job, void *opaque)
{
    ((Work *)opaque)->aborted++;
}

static void work_clean(Job *job, void *opaque)
{
    ((Work *)opaque)->cleaned++;
}

static void work_free(void *opaque)
{
    ((Work *)opaque)->freed++;
}

static const JobDriver work_driver = {
    .type = JOB_TYPE_CREATE,
    .run = work_run,
    .pause = work_pause,
    .resume = work_resume,
    .complete = work_complete,
    .cancel = work_cancel,
    .prepare = work_prepare,
    .commit = work_commit,
    .abort = work_abort,
    .clean = work_clean,
    .free = work_free,
};

static JobDriver block_driver;

static Job *make(Work *w, const JobDriver *driver, JobFlags flags)
{
    return job_create("j", driver, aio_context_main(), flags, w, &error_abort);
}

static void wait_status(Job *job, JobStatus status)
{
    AIO_WAIT_WHILE(job_status(job) != status);
}

/* Until it is gone, when its last reference is the list's. */
static void wait_gone(void)
{
    AIO_WAIT_WHILE(job_next(NULL) != NULL);
}

static void wait_turns(Work *w, int turns)
{
    AIO_WAIT_WHILE(__atomic_load_n(&w->turns, __ATOMIC_SEQ_CST) < turns);
}

static void expect_error(Error **err, const char *text)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, text);
    error_free(g_steal_pointer(err));
}

/* ---- lives ---- */

static void test_success(void)
{
    Work w = { .finish = 1 };
    Job *job = make(&w, &work_driver, JOB_DEFAULT);

    job_start(job);
    wait_gone();
    expect_events("created running waiting pending concluded null");
    g_assert_true(w.committed == 1 && w.cleaned == 1 && w.freed == 1 && w.aborted == 0);
}

static void test_failure(void)
{
    Work w = { .finish = -1 };
    Job *job = make(&w, &work_driver, JOB_MANUAL_DISMISS);
    JobInfo *info;

    job_start(job);
    wait_status(job, JOB_STATUS_CONCLUDED);
    expect_events("created running aborting concluded");
    g_assert_true(w.committed == 0 && w.cleaned == 1 && w.freed == 0 && w.aborted == 1);
    info = job_query(job);
    g_assert_cmpstr(info->id, ==, "j");
    g_assert_cmpstr(info->error, ==, "The work went wrong");
    g_assert_cmpint(info->current_progress, ==, 40);
    g_assert_cmpint(info->total_progress, ==, 100);
    g_assert_cmpint(info->status, ==, JOB_STATUS_CONCLUDED);
    qapi_free_JobInfo(info);
    g_assert_cmpint(job_dismiss(job, &error_abort), ==, 0);
    expect_events("null");
    g_assert_null(job_by_id("j"));
    g_assert_cmpint(w.freed, ==, 1);
}

static void test_finalize(void)
{
    Work w = { .finish = 1 };
    Job *job = make(&w, &work_driver, JOB_MANUAL_DISMISS | JOB_MANUAL_FINALIZE);

    job_start(job);
    wait_status(job, JOB_STATUS_PENDING);
    expect_events("created running waiting pending");
    g_assert_true(w.committed == 0 && w.cleaned == 0);
    g_assert_cmpint(job_finalize(job, &error_abort), ==, 0);
    expect_events("concluded");
    g_assert_true(w.committed == 1 && w.cleaned == 1);
    job_dismiss(job, &error_abort);
    expect_events("null");
}

static void test_prepare_fails(void)
{
    Work w = { .finish = 1, .fail_prepare = true };
    Job *job = make(&w, &work_driver, JOB_MANUAL_DISMISS);
    JobInfo *info;

    job_start(job);
    wait_status(job, JOB_STATUS_CONCLUDED);
    expect_events("created running waiting pending aborting concluded");
    info = job_query(job);
    g_assert_cmpstr(info->error, ==, "Not prepared");
    qapi_free_JobInfo(info);
    g_assert_true(w.committed == 0 && w.cleaned == 1 && w.aborted == 1);
    job_dismiss(job, &error_abort);
    expect_events("null");
}

static void test_cancel(void)
{
    for (int at = 0; at < 4; at++) {
        Work w = { .ready = at == 2 };
        Job *job = make(&w, &work_driver, at == 3 ? JOB_MANUAL_FINALIZE : JOB_DEFAULT);

        if (at == 0) {
            job_user_cancel(job, true, &error_abort);
            expect_events("created aborting concluded null");
        } else if (at == 1) {
            job_start(job);
            wait_turns(&w, 1);
            job_user_cancel(job, true, &error_abort);
            wait_gone();
            expect_events("created running aborting concluded null");
        } else if (at == 2) {
            job_start(job);
            wait_status(job, JOB_STATUS_READY);
            job_cancel_sync(job);
            expect_events("created running ready aborting concluded null");
        } else {
            w.finish = 1;
            job_start(job);
            wait_status(job, JOB_STATUS_PENDING);
            job_user_cancel(job, true, &error_abort);
            expect_events("created running waiting pending aborting concluded null");
        }
        g_assert_true(w.committed == 0 && w.cleaned == 1 && w.aborted == 1 && w.freed == 1);
        g_assert_null(job_next(NULL));
    }
}

static void test_cancel_says_so(void)
{
    Work w = {};
    Job *job = make(&w, &work_driver, JOB_MANUAL_DISMISS);
    JobInfo *info;

    job_start(job);
    wait_turns(&w, 1);
    job_cancel_sync(job);
    info = job_query(job);
    g_assert_cmpstr(info->error, ==, "Operation canceled");
    qapi_free_JobInfo(info);
    job_cancel_sync_all();
    expect_events("created running aborting concluded null");
}

static void test_ready(void)
{
    Work w = { .ready = 1 };
    Job *job = make(&w, &work_driver, JOB_DEFAULT);
    Error *err = NULL;

    job_start(job);
    wait_status(job, JOB_STATUS_READY);
    g_assert_true(job_is_ready(job) && !job_is_completed(job));
    g_assert_cmpint(job_user_pause(job, &error_abort), ==, 0);
    wait_status(job, JOB_STATUS_STANDBY);
    g_assert_true(job_is_ready(job) && job_is_paused(job));
    g_assert_cmpint(job_complete(job, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'standby' cannot accept command verb 'complete'");
    g_assert_cmpint(job_user_resume(job, &error_abort), ==, 0);
    wait_status(job, JOB_STATUS_READY);
    g_assert_cmpint(job_complete(job, &error_abort), ==, 0);
    wait_gone();
    expect_events("created running ready standby ready waiting pending concluded null");
    g_assert_cmpint(w.committed, ==, 1);
}

/* A job that is ready may turn a soft cancel into an end in good order; force it may not. */
static void test_soft_cancel(void)
{
    Work w = { .ready = 1, .soft_cancel = true }, forced = w;
    Job *job = make(&w, &work_driver, JOB_DEFAULT);

    job_start(job);
    wait_status(job, JOB_STATUS_READY);
    job_user_cancel(job, false, &error_abort);
    g_assert_true(job_cancel_requested(job) && !job_is_cancelled(job));
    wait_gone();
    expect_events("created running ready waiting pending concluded null");
    g_assert_cmpint(w.committed, ==, 1);

    job = make(&forced, &work_driver, JOB_DEFAULT);
    job_start(job);
    wait_status(job, JOB_STATUS_READY);
    job_user_cancel(job, true, &error_abort);
    wait_gone();
    expect_events("created running ready aborting concluded null");
    g_assert_cmpint(forced.aborted, ==, 1);
}

static void test_pause(void)
{
    Work w = { .sleeps = true };
    Job *job = make(&w, &work_driver, JOB_DEFAULT);
    Error *err = NULL;
    int turns;

    g_assert_cmpint(job_user_resume(job, &err), ==, -1);
    expect_error(&err, "Can't resume a job that was not paused");
    /* Paused before it begins: it does not begin. */
    g_assert_cmpint(job_user_pause(job, &error_abort), ==, 0);
    g_assert_cmpint(job_user_pause(job, &err), ==, -1);
    expect_error(&err, "Job is already paused");
    job_start(job);
    wait_status(job, JOB_STATUS_PAUSED);
    g_assert_cmpint(w.turns, ==, 0);
    g_assert_cmpint(job_user_resume(job, &error_abort), ==, 0);
    wait_turns(&w, 3);
    g_assert_cmpint(job_user_pause(job, &error_abort), ==, 0);
    wait_status(job, JOB_STATUS_PAUSED);
    g_assert_true(job_user_paused(job));
    turns = w.turns;
    /* A kick is no resume. */
    for (int i = 0; i < 10; i++) {
        job_enter(job);
        aio_poll(aio_context_main(), false);
    }
    g_assert_cmpint(w.turns, ==, turns);
    expect_events("created running paused running paused");
    g_assert_cmpint(w.paused, ==, 2);
    g_assert_cmpint(w.resumed, ==, 1);
    /* Cancelling a paused job ends it. */
    job_user_cancel(job, true, &error_abort);
    wait_gone();
    expect_events("running aborting concluded null");
    g_assert_cmpint(w.resumed, ==, 2);
}

static void test_verbs(void)
{
    Work w = { .finish = 1 };
    Job *job = make(&w, &work_driver, JOB_MANUAL_DISMISS);
    Error *err = NULL;

    g_assert_cmpint(job_complete(job, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'created' cannot accept command verb 'complete'");
    g_assert_cmpint(job_finalize(job, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'created' cannot accept command verb 'finalize'");
    g_assert_cmpint(job_dismiss(job, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'created' cannot accept command verb 'dismiss'");
    g_assert_cmpint(job_set_speed(job, -1, &err), ==, -1);
    expect_error(&err, "Parameter 'speed' expects a non-negative value");
    job_start(job);
    wait_status(job, JOB_STATUS_CONCLUDED);
    g_assert_cmpint(job_user_pause(job, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'concluded' cannot accept command verb 'pause'");
    g_assert_cmpint(job_user_cancel(job, true, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'concluded' cannot accept command verb 'cancel'");
    g_assert_cmpint(job_set_speed(job, 1, &err), ==, -1);
    expect_error(&err, "Job 'j' in state 'concluded' cannot accept command verb 'set-speed'");

    g_assert_null(job_create("j", &work_driver, aio_context_main(), 0, &w, &err));
    expect_error(&err, "Job ID 'j' already in use");
    g_assert_null(job_create("1 j", &work_driver, aio_context_main(), 0, &w, &err));
    expect_error(&err, "Invalid job ID '1 j'");
    job_dismiss(job, &error_abort);
    expect_events("created running waiting pending concluded null");
}

static void test_block_job_events(void)
{
    Work good = { .ready = 1 }, bad = { .finish = -1 }, ugly = {};
    Job *job = make(&good, &block_driver, JOB_MANUAL_FINALIZE);
    BlockJobInfo *info;

    job_set_speed(job, 5000, &error_abort);
    job_start(job);
    wait_status(job, JOB_STATUS_READY);
    info = job_query_block_job(job);
    g_assert_cmpstr(info->device, ==, "j");
    g_assert_true(info->ready && !info->paused && !info->auto_finalize && info->auto_dismiss);
    g_assert_cmpint(info->speed, ==, 5000);
    g_assert_cmpint(info->len, ==, 100);
    qapi_free_BlockJobInfo(info);
    job_complete(job, &error_abort);
    wait_status(job, JOB_STATUS_PENDING);
    job_finalize(job, &error_abort);
    expect_events(
        "created running ready BLOCK_JOB_READY(0/100) waiting pending BLOCK_JOB_PENDING(-/-) "
        "BLOCK_JOB_COMPLETED(100/100) concluded null");

    job_start(make(&bad, &block_driver, JOB_DEFAULT));
    wait_gone();
    expect_events("created running aborting BLOCK_JOB_COMPLETED(40/100) concluded null");

    job = make(&ugly, &block_driver, JOB_DEFAULT);
    job_start(job);
    wait_turns(&ugly, 1);
    job_cancel_sync(job);
    expect_events("created running aborting BLOCK_JOB_CANCELLED(0/100) concluded null");
}

/* ---- speed ---- */

static void test_speed(void)
{
    Work w = { .max_turns = 30 };
    Job *job = make(&w, &work_driver, JOB_DEFAULT);
    int64_t start = aio_clock_ns();

    /* 30 kB at 150 kB/s: 0.2 s, less the slice of 0.1 s that it may be ahead. */
    job_set_speed(job, 150 * 1000, &error_abort);
    job_start(job);
    wait_gone();
    g_assert_cmpint(aio_clock_ns() - start, >=, 90 * 1000 * 1000);
    expect_events("created running waiting pending concluded null");
}

/* So slow that it would never end; a new limit, or none, takes effect at once. */
static void test_speed_change(void)
{
    Work w = { .max_turns = 30 };
    Job *job = make(&w, &work_driver, JOB_DEFAULT);

    job_set_speed(job, 1, &error_abort);
    job_start(job);
    wait_turns(&w, 1);
    job_set_speed(job, 0, &error_abort);
    wait_gone();
    g_assert_cmpint(w.turns, ==, 30);

    w = (Work){ .max_turns = 30 };
    job = make(&w, &work_driver, JOB_DEFAULT);
    job_set_speed(job, 1, &error_abort);
    job_start(job);
    wait_turns(&w, 1);
    job_cancel_sync(job);
    g_assert_cmpint(w.turns, ==, 1);
    expect_events(
        "created running waiting pending concluded null created running aborting concluded null");
}

/* ---- nodes ---- */

static char *image;

static BlockDriverState *open_node(void)
{
    g_autoptr(BlockdevOptions) opts = bdrv_options_for_file(image, "raw", &error_abort);

    opts->node_name = g_strdup("disk");
    return bdrv_open(opts, &error_abort);
}

static void run_with_node(AioContext *ctx)
{
    BlockDriverState *bs = open_node();
    Work w = { .sleeps = true };
    Job *job;
    BlockBackend *other;
    Error *err = NULL;
    int turns;

    if (ctx) {
        g_assert_cmpint(bdrv_try_change_aio_context(bs, ctx, &error_abort), ==, 0);
    }
    job = make(&w, &work_driver, JOB_DEFAULT);
    w.blk = job_add_node(job, bs, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE,
                         BLK_PERM_CONSISTENT_READ, &error_abort);
    g_assert_nonnull(w.blk);
    job_start(job);
    wait_turns(&w, 2);
    g_assert_true(__atomic_load_n(&w.ran_in, __ATOMIC_SEQ_CST) == (ctx ? ctx : aio_context_main()));

    /* The job does not share writing. */
    other = blk_new_with_bs(bs, BLK_PERM_WRITE, BLK_PERM_ALL, &err);
    g_assert_null(other);
    g_assert_nonnull(strstr(error_get_pretty(err), "job 'j'"));
    error_free(err);

    /* While the node is drained the job stands still. */
    bdrv_drained_begin(bs);
    g_assert_true(job_is_paused(job));
    turns = __atomic_load_n(&w.turns, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 10; i++) {
        aio_poll(aio_context_main(), false);
    }
    g_assert_cmpint(__atomic_load_n(&w.turns, __ATOMIC_SEQ_CST), ==, turns);
    bdrv_drained_end(bs);
    wait_turns(&w, turns + 2);
    wait_status(job, JOB_STATUS_RUNNING);
    expect_events("created running paused running");

    /* It follows its node to another context, and back. */
    if (ctx) {
        g_assert_cmpint(bdrv_try_change_aio_context(bs, aio_context_main(), &error_abort), ==, 0);
        turns = __atomic_load_n(&w.turns, __ATOMIC_SEQ_CST);
        wait_turns(&w, turns + 2);
        g_assert_true(__atomic_load_n(&w.ran_in, __ATOMIC_SEQ_CST) == aio_context_main());
        g_assert_cmpint(bdrv_try_change_aio_context(bs, ctx, &error_abort), ==, 0);
        turns = __atomic_load_n(&w.turns, __ATOMIC_SEQ_CST);
        wait_turns(&w, turns + 2);
        g_assert_true(__atomic_load_n(&w.ran_in, __ATOMIC_SEQ_CST) == ctx);
        wait_status(job, JOB_STATUS_RUNNING);
        expect_events("paused running paused running");
    }
    /* A user's pause and a drain do not undo each other. */
    job_user_pause(job, &error_abort);
    wait_status(job, JOB_STATUS_PAUSED);
    bdrv_drain(bs);
    g_assert_true(job_is_paused(job));
    job_user_resume(job, &error_abort);
    wait_status(job, JOB_STATUS_RUNNING);
    expect_events("paused running");

    __atomic_store_n(&w.finish, 1, __ATOMIC_SEQ_CST);
    wait_gone();
    expect_events("waiting pending concluded null");
    if (ctx) {
        bdrv_try_change_aio_context(bs, aio_context_main(), &error_abort);
    }
    bdrv_unref(bs);
}

static void test_node(void)
{
    run_with_node(NULL);
}

static void test_node_iothread(void)
{
    IOThread *iothread = iothread_new("io0", 0, &error_abort);

    run_with_node(iothread_context(iothread));
    iothread_free(iothread);
}

/* Many pauses, resumes and kicks from here against a job that runs in another thread. */
static void test_iothread_stress(void)
{
    IOThread *iothread = iothread_new("io0", 0, &error_abort);
    Work w = { .sleeps = true };
    Job *job =
        job_create("j", &work_driver, iothread_context(iothread), JOB_DEFAULT, &w, &error_abort);

    job_start(job);
    for (int i = 0; i < 300; i++) {
        job_user_pause(job, &error_abort);
        job_enter(job);
        if (i % 3 == 0) {
            AIO_WAIT_WHILE(!job_is_paused(job));
        }
        job_enter(job);
        job_user_resume(job, &error_abort);
        job_enter(job);
    }
    wait_turns(&w, 5);
    job_cancel_sync(job);
    mutex_lock(&log_lock);
    g_assert_true(g_str_has_suffix(event_log->str, "running aborting concluded null "));
    g_string_truncate(event_log, 0);
    mutex_unlock(&log_lock);
    iothread_free(iothread);
}

int main(int argc, char **argv)
{
    int fd, status;

    g_test_init(&argc, &argv, NULL);
    event_log = g_string_new(NULL);
    qapi_event_set_emitter(record, NULL);
    block_driver = work_driver;
    block_driver.is_block_job = true;
    fd = g_file_open_tmp("ferry-job-XXXXXX", &image, NULL);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, 1 << 20), ==, 0);
    close(fd);

    g_test_add_func("/job/success", test_success);
    g_test_add_func("/job/failure", test_failure);
    g_test_add_func("/job/finalize", test_finalize);
    g_test_add_func("/job/prepare-fails", test_prepare_fails);
    g_test_add_func("/job/cancel", test_cancel);
    g_test_add_func("/job/cancel-says-so", test_cancel_says_so);
    g_test_add_func("/job/ready", test_ready);
    g_test_add_func("/job/soft-cancel", test_soft_cancel);
    g_test_add_func("/job/pause", test_pause);
    g_test_add_func("/job/verbs", test_verbs);
    g_test_add_func("/job/block-job-events", test_block_job_events);
    g_test_add_func("/job/speed", test_speed);
    g_test_add_func("/job/speed-change", test_speed_change);
    g_test_add_func("/job/node", test_node);
    g_test_add_func("/job/node-iothread", test_node_iothread);
    g_test_add_func("/job/iothread-stress", test_iothread_stress);
    status = g_test_run();
    g_unlink(image);
    g_free(image);
    g_string_free(event_log, TRUE);
    return status;
}
