/*
 * Jobs: work on disks that goes on beside the machine, with a state that people and programs can
 * follow.
 *
 *     created -> running <-> paused          pause points, by the user or a drain
 *                running  -> ready <-> standby   nothing to do but to follow changes, until completed
 *                running, ready -> waiting -> pending -> concluded -> null
 *                any of them -> aborting -> concluded -> null        failed or cancelled
 *
 * A kind of job is a JobDriver. Its run() is a coroutine in the job's AioContext and does the whole
 * work; what changes the graph (commit, abort, clean) runs on the main thread afterwards. run()
 * passes a pause point often: after each request or so.
 *
 * Threads: "any" where it says so; run(), and what it alone calls, in the job's context; all others
 * main thread, outside of coroutines. A job belongs to the list of jobs until it is dismissed; a
 * pointer to one is valid that long, or while the caller holds a reference.
 *
 * docs/devel/jobs.md explains it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_JOB_H
#define BLOCK_JOB_H

#include "block/block-backend.h"
#include "qapi/qapi-types-job.h"

typedef struct Job Job;

typedef struct JobDriver {
    JobType type;
    /* It is listed by query-block-jobs and sends the events of block jobs as well. */
    bool is_block_job;

    /*
     * The work. 0, or -1 with @errp set. When job_is_cancelled() it returns early, with whatever it
     * likes.
     */
    int coroutine_fn (*run)(Job *job, void *opaque, Error **errp);
    /* Around a pause, in run()'s context. May be NULL. */
    void coroutine_fn (*pause)(Job *job, void *opaque);
    void coroutine_fn (*resume)(Job *job, void *opaque);

    /*
     * The user wants a job that is ready to end. NULL: such jobs end by themselves. -1 with @errp
     * set.
     */
    int (*complete)(Job *job, void *opaque, Error **errp);
    /*
     * It is to be cancelled. Returns whether it is given up at once (job_is_cancelled()); false,
     * only when not
     * @force: it ends in good order instead. NULL: true.
     */
    bool (*cancel)(Job *job, void *opaque, bool force);

    /* Everything that can still fail, before commit. 0, or -1 with @errp set. NULL: nothing can. */
    int (*prepare)(Job *job, void *opaque, Error **errp);
    /* One of these ends a job that ran or was cancelled; then clean. May be NULL. */
    void (*commit)(Job *job, void *opaque);
    void (*abort)(Job *job, void *opaque);
    void (*clean)(Job *job, void *opaque);
    /* The job is gone. May be NULL. */
    void (*free)(void *opaque);
} JobDriver;

typedef enum JobFlags {
    JOB_DEFAULT = 0,
    JOB_MANUAL_FINALIZE = 1 << 0,       /* pending until job-finalize */
    JOB_MANUAL_DISMISS = 1 << 1,        /* concluded until job-dismiss */
} JobFlags;

/*
 * Life
 * ------------------------------------------------------------------------------------------------
 */

/*
 * job_create:
 * @id: its name, well formed and not taken
 * @ctx: where run() begins
 * @opaque: the driver's; it frees it by @driver->free, not when this fails
 *
 * Returns: a job in the list, created, not started; NULL with @errp set.
 */
Job *job_create(const char *id, const JobDriver *driver, AioContext *ctx, JobFlags flags,
                void *opaque, Error **errp);
void job_start(Job *job);
void job_ref(Job *job);
void job_unref(Job *job);

Job *job_by_id(const char *id);                 /* NULL: there is none */
Job *job_next(Job *after);                      /* NULL starts, NULL ends */

/*
 * Hold @bs for the job: it cannot be closed, permissions protect it, and draining it pauses the
 * job. Before job_start(). The job's context follows the node's from then on. Returns: the
 * BlockBackend, the job's, gone with it; NULL with @errp set.
 */
BlockBackend *job_add_node(Job *job, BlockDriverState *bs, uint64_t perm, uint64_t shared_perm,
                           Error **errp);
/* Let go of all nodes now: for commit and abort, that change the graph. */
void job_remove_nodes(Job *job);

/*
 * What users want
 * ------------------------------------------------------------------------------------------
 */

/* Each fails, -1 with @errp set, when the job's state does not allow it. */
int job_user_pause(Job *job, Error **errp);
int job_user_resume(Job *job, Error **errp);
int job_user_cancel(Job *job, bool force, Error **errp);
int job_complete(Job *job, Error **errp);
int job_finalize(Job *job, Error **errp);
int job_dismiss(Job *job, Error **errp);
/* Bytes a second, 0: no limit. */
int job_set_speed(Job *job, int64_t speed, Error **errp);

/*
 * Cancel by force and wait until it has concluded; a job that is dismissed by itself is gone then.
 */
void job_cancel_sync(Job *job);
/* The same for all, and dismiss them: at the end of the process. */
void job_cancel_sync_all(void);

/*
 * Facts; any thread
 * ----------------------------------------------------------------------------------------
 */

const char *job_id(const Job *job);
const JobDriver *job_driver(const Job *job);
void *job_opaque(const Job *job);
JobStatus job_status(const Job *job);
int64_t job_speed(const Job *job);
bool job_is_ready(const Job *job);
bool job_is_paused(const Job *job);             /* at a pause point, not only asked to */
bool job_user_paused(const Job *job);
bool job_is_busy(const Job *job);               /* run() is not waiting */
bool job_is_completed(const Job *job);          /* concluded, aborting or pending: run() is over */
/* Given up: run() should return. */
bool job_is_cancelled(const Job *job);
/* Somebody asked for its end, in good order or not. */
bool job_cancel_requested(const Job *job);
void job_progress(const Job *job, uint64_t *current, uint64_t *total);
JobInfo *job_query(const Job *job);             /* the caller's */
BlockJobInfo *job_query_block_job(const Job *job);

/*
 * For run()
 * -------------------------------------------------------------------------------------------------
 */

/* Stop here while somebody wants a pause. */
void coroutine_fn job_pause_point(Job *job);
/* Wait, at most that long; job_enter() and pauses end it early. Then a pause point. */
void coroutine_fn job_sleep_ns(Job *job, int64_t ns);
/* Wait for job_enter(), or a pause. Then a pause point. */
void coroutine_fn job_yield(Job *job);
/* Let run() go on from a wait. Any thread. */
void job_enter(Job *job);
/* Account for @bytes that were moved, and sleep as the speed limit demands. A pause point. */
void coroutine_fn job_throttle(Job *job, uint64_t bytes);
/* All is done but to follow changes. */
void coroutine_fn job_transition_to_ready(Job *job);

/* Any thread. */
void job_progress_update(Job *job, uint64_t done);              /* more was done */
void job_progress_set_remaining(Job *job, uint64_t remaining); /* total is what was done and that */
void job_progress_increase_remaining(Job *job, uint64_t delta);

#endif
