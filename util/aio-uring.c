/*
 * The engine `io_uring`: a ring for each context, made at the first request.
 *
 * A request takes a submission entry and its coroutine yields; all entries of a turn go to the
 * kernel in one system call, and what it could do at once (reads from the page cache) is finished
 * right after it. For the rest an eventfd in the context's set ends the loop's sleep. The kernel
 * drops no completion as long as no more requests are under way than the completion ring has
 * entries; further ones wait in a list.
 *
 * An iothread's ring has one submitter, which also does the kernel's deferred work, when it asks
 * for it: no interrupts between; and the eventfd is written only while the loop sleeps. The main
 * context's ring is used by any thread that holds the big lock, also while another one sleeps, so
 * none of that there.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-engine-internal.h"

#include <errno.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/barrier.h"
#include "util/mutex.h"

#define SQ_ENTRIES 256
#define CQ_ENTRIES 1024

typedef struct UringRequest UringRequest;
struct UringRequest {
    const AioRequest *req;
    Coroutine *co;
    int64_t ret;
    bool done;
    UringRequest *next;
};

typedef struct Uring {
    AioHook hook;               /* first member */
    AioContext *ctx;
    struct io_uring ring;
    int event_fd;
    bool one_thread;            /* only the context's own thread uses the ring */
    unsigned unsubmitted;       /* entries that the kernel has not been told of */
    unsigned in_flight;         /* these, and those that it works on */
    UringRequest *waiting, *waiting_last;
} Uring;

static void fill_entry(struct io_uring_sqe *sqe, UringRequest *r)
{
    const AioRequest *req = r->req;
    const struct iovec *iov = req->iov;

    switch (req->op) {
    case AIO_OP_READ:
        if (req->niov == 1) {
            io_uring_prep_read(sqe, req->fd, iov->iov_base, iov->iov_len, req->offset);
        } else {
            io_uring_prep_readv(sqe, req->fd, iov, req->niov, req->offset);
        }
        break;
    case AIO_OP_WRITE:
        if (req->niov == 1) {
            io_uring_prep_write(sqe, req->fd, iov->iov_base, iov->iov_len, req->offset);
        } else {
            io_uring_prep_writev(sqe, req->fd, iov, req->niov, req->offset);
        }
        sqe->rw_flags = req->fua ? RWF_DSYNC : 0;
        break;
    case AIO_OP_FSYNC:
        io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC);
        break;
    case AIO_OP_FALLOCATE:
        io_uring_prep_fallocate(sqe, req->fd, req->mode, req->offset, req->bytes);
        break;
    }
    io_uring_sqe_set_data(sqe, r);
}

static void submit(Uring *uring)
{
    int ret;

    while (uring->unsubmitted > 0) {
        ret = io_uring_submit(&uring->ring);
        if (ret < 0 && ret != -EINTR) {
            /* No memory now, or completions must be taken first: the next turn tries again. */
            if (ret != -EAGAIN && ret != -EBUSY && ret != -ENOMEM) {
                g_error("io_uring takes no requests: %s", g_strerror(-ret));
            }
            aio_notify(uring->ctx);
            break;
        }
        uring->unsubmitted -= MAX(ret, 0);
    }
}

/* Give @r a submission entry; false when it must wait. */
static bool queue_request(Uring *uring, UringRequest *r)
{
    unsigned max_batch = __atomic_load_n(&uring->ctx->max_batch, __ATOMIC_RELAXED);
    struct io_uring_sqe *sqe;

    if (uring->in_flight == CQ_ENTRIES) {
        return false;
    }
    sqe = io_uring_get_sqe(&uring->ring);
    if (!sqe) {
        submit(uring);
        sqe = io_uring_get_sqe(&uring->ring);
        if (!sqe) {
            return false;
        }
    }
    fill_entry(sqe, r);
    uring->in_flight++;
    if (++uring->unsubmitted == max_batch) {
        submit(uring);
    } else if (uring->unsubmitted == 1) {
        aio_notify(uring->ctx);     /* GLib's loop may sleep while another thread is at home here */
    }
    return true;
}

static void queue_waiting(Uring *uring)
{
    while (uring->waiting && queue_request(uring, uring->waiting)) {
        uring->waiting = uring->waiting->next;
    }
}

static void uring_flush(AioHook *hook)
{
    Uring *uring = (Uring *)hook;

    queue_waiting(uring);
    submit(uring);
}

static bool uring_ready(AioHook *hook)
{
    Uring *uring = (Uring *)hook;

    return io_uring_cq_ready(&uring->ring) > 0 ||
           (uring->in_flight > 0 && IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
            (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* One at a time: a coroutine that goes on may queue and even submit requests meanwhile. */
static bool uring_reap(AioHook *hook)
{
    Uring *uring = (Uring *)hook;
    struct io_uring_cqe *cqe;
    bool did = false;

    if (uring->in_flight == 0) {
        return false;
    }
    if (IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
        (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) {
        io_uring_get_events(&uring->ring);
    }
    for (unsigned n = io_uring_cq_ready(&uring->ring); n > 0; n--) {
        UringRequest *r;

        if (io_uring_peek_cqe(&uring->ring, &cqe) != 0) {
            break;
        }
        r = io_uring_cqe_get_data(cqe);
        r->ret = cqe->res;
        io_uring_cqe_seen(&uring->ring, cqe);
        uring->in_flight--;
        r->done = true;
        did = true;
        aio_co_wake(r->co);
    }
    return did;
}

static void uring_sleep(AioHook *hook, bool sleeping)
{
    Uring *uring = (Uring *)hook;

    if (uring->in_flight > 0) {
        io_uring_cq_eventfd_toggle(&uring->ring, sleeping);
        memory_barrier();       /* the kernel writes its flags, then looks at ours */
    }
}

static void uring_destroy(AioHook *hook)
{
    Uring *uring = (Uring *)hook;

    g_assert(uring->in_flight == 0 && !uring->waiting);
    io_uring_queue_exit(&uring->ring);
    close(uring->event_fd);
    g_free(uring);
}

static int init_ring(struct io_uring *ring, bool *one_thread)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
                 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        .cq_entries = CQ_ENTRIES,
    };
    int ret = -EINVAL;

    if (*one_thread) {
        ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
    }
    if (ret == -EINVAL) {
        /* The main context's, or an old kernel. */
        *one_thread = false;
        params = (struct io_uring_params) {
            .flags = IORING_SETUP_CQSIZE, .cq_entries = CQ_ENTRIES,
        };
        ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
    }
    return ret;
}

/* NULL when the context cannot have a ring (no descriptors, no memory) now. */
static Uring *uring_new(AioContext *ctx)
{
    Uring *uring = g_new0(Uring, 1);

    uring->ctx = ctx;
    uring->one_thread = ctx->timer_fd < 0;
    uring->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (uring->event_fd < 0) {
        g_free(uring);
        return NULL;
    }
    if (init_ring(&uring->ring, &uring->one_thread) < 0) {
        close(uring->event_fd);
        g_free(uring);
        return NULL;
    }
    uring->hook = (AioHook) {
        .flush = uring_flush, .reap = uring_reap, .ready = uring_ready, .destroy = uring_destroy,
        .sleep = uring->one_thread ? uring_sleep : NULL,
    };
    if (io_uring_register_eventfd(&uring->ring, uring->event_fd) < 0 ||
        !aio_wake_fd_add(ctx, uring->event_fd)) {
        uring_destroy(&uring->hook);
        return NULL;
    }
    if (uring->one_thread) {
        io_uring_cq_eventfd_toggle(&uring->ring, false);
    }
    aio_hook_add(ctx, &uring->hook);
    return uring;
}

/* The context's ring, made when it is first wanted. */
static Uring *uring_get(AioContext *ctx)
{
    if (!ctx->engine[AIO_ENGINE_IO_URING]) {
        ctx->engine[AIO_ENGINE_IO_URING] = uring_new(ctx);
    }
    return ctx->engine[AIO_ENGINE_IO_URING];
}

static int64_t coroutine_fn uring_co_submit(AioContext *ctx, const AioRequest *part)
{
    Uring *uring = uring_get(ctx);
    UringRequest r = { .req = part, .co = coroutine_self() };

    if (!uring) {
        return aio_threads_co_submit(ctx, part);
    }
    if (uring->waiting || !queue_request(uring, &r)) {
        if (uring->waiting) {
            uring->waiting_last->next = &r;
        } else {
            uring->waiting = &r;
        }
        uring->waiting_last = &r;
        aio_notify(ctx);
    }
    while (!r.done) {
        coroutine_yield();
    }
    return r.ret;
}

static bool uring_available(Error **errp)
{
    static Mutex lock;
    static int result = 1;      /* under lock; 1: nobody has tried yet */
    struct io_uring ring;
    int ret;

    mutex_lock(&lock);
    if (result > 0) {
        result = io_uring_queue_init(1, &ring, 0);
        if (result == 0) {
            io_uring_queue_exit(&ring);
        }
    }
    ret = result;
    mutex_unlock(&lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "io_uring is not available%s",
                         ret == -ENOSYS ? " in this kernel" :
                         ret == -EPERM ? " to this process (kernel.io_uring_disabled, seccomp)" :
                         ret == -ENOMEM ? " (see 'ulimit -l')" : "");
        return false;
    }
    return true;
}

const AioEngine aio_engine_io_uring = {
    .name = "io_uring", .available = uring_available, .co_submit = uring_co_submit,
};
