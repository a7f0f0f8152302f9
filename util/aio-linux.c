/*
 * The engine `native`: Linux AIO by libaio.
 *
 * The kernel does it in the background for direct I/O only; anything else would block in
 * io_submit(), so it goes to the thread pool. The requests of a turn are submitted by one system
 * call; an eventfd in the context's set tells of completions. No more requests are under way than
 * the kernel was asked to have room for; further ones wait in a list.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-engine-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define IN_FLIGHT_MAX 256
#define BATCH 64

typedef struct NativeRequest NativeRequest;
struct NativeRequest {
    struct iocb iocb;           /* first member */
    Coroutine *co;
    int64_t ret;
    bool done;
    NativeRequest *next;
};

typedef struct Native {
    AioHook hook;               /* first member */
    AioContext *ctx;
    io_context_t io;
    int event_fd;
    unsigned in_flight, n_waiting;
    NativeRequest *waiting, *waiting_last;      /* in order, not submitted yet */
} Native;

static void finish(NativeRequest *r, int64_t ret)
{
    r->ret = ret;
    r->done = true;
    aio_co_wake(r->co);
}

/* Submit up to BATCH of those that wait. Returns how many, 0 when the kernel takes none now. */
static int submit_batch(Native *native)
{
    struct iocb *batch[BATCH];
    NativeRequest *r = native->waiting;
    int n = 0, ret;

    for (; r && n < BATCH && native->in_flight + n < IN_FLIGHT_MAX; r = r->next) {
        batch[n++] = &r->iocb;
    }
    if (n == 0) {
        return 0;
    }
    do {
        ret = io_submit(native->io, n, batch);
    } while (ret == -EINTR);
    for (int i = 0; i < ret; i++) {
        native->waiting = native->waiting->next;
        native->n_waiting--;
    }
    native->in_flight += MAX(ret, 0);
    if (ret == -EAGAIN && native->in_flight > 0) {
        return 0;               /* a completion makes room */
    }
    if (ret < 0) {
        /* The first one is at fault. */
        r = native->waiting;
        native->waiting = r->next;
        native->n_waiting--;
        finish(r, ret);
        return 1;
    }
    return ret;
}

static void native_flush(AioHook *hook)
{
    while (submit_batch((Native *)hook) > 0) {
    }
}

static bool native_reap(AioHook *hook)
{
    Native *native = (Native *)hook;
    struct io_event events[BATCH];
    struct timespec now = { 0 };
    bool did = false;
    int n;

    if (native->in_flight == 0) {
        return false;
    }
    do {
        n = io_getevents(native->io, 0, BATCH, events, &now);
        for (int i = 0; i < n; i++) {
            native->in_flight--;
            did = true;
            finish((NativeRequest *)events[i].obj, (long)events[i].res);
        }
    } while (n == BATCH);
    return did;
}

static bool native_ready(AioHook *hook)
{
    return false;               /* the eventfd tells */
}

static void on_event(void *opaque)
{
    Native *native = opaque;
    uint64_t n;

    if (read(native->event_fd, &n, sizeof(n)) == sizeof(n)) {
        native_reap(&native->hook);
    }
}

static void native_destroy(AioHook *hook)
{
    Native *native = (Native *)hook;

    g_assert(native->in_flight == 0 && !native->waiting);
    io_destroy(native->io);
    close(native->event_fd);
    g_free(native);
}

static Native *native_new(AioContext *ctx)
{
    Native *native = g_new0(Native, 1);

    native->ctx = ctx;
    native->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (native->event_fd < 0 || io_setup(IN_FLIGHT_MAX, &native->io) < 0) {
        if (native->event_fd >= 0) {
            close(native->event_fd);
        }
        g_free(native);
        return NULL;
    }
    native->hook.flush = native_flush;
    native->hook.reap = native_reap;
    native->hook.ready = native_ready;
    native->hook.destroy = native_destroy;
    aio_hook_add(ctx, &native->hook);
    aio_set_fd_handler(ctx, native->event_fd, on_event, NULL, native);
    ctx->engine[AIO_ENGINE_NATIVE] = native;
    return native;
}

/* Whether the kernel would do it in the background. */
static bool is_for_kernel(const AioRequest *req)
{
    int flags;

    if (req->op != AIO_OP_READ && req->op != AIO_OP_WRITE) {
        return false;
    }
    flags = fcntl(req->fd, F_GETFL);
    return flags >= 0 && flags & O_DIRECT;
}

static void fill_iocb(Native *native, NativeRequest *r, const AioRequest *req)
{
    if (req->op == AIO_OP_READ) {
        io_prep_preadv(&r->iocb, req->fd, req->iov, req->niov, req->offset);
    } else {
        io_prep_pwritev(&r->iocb, req->fd, req->iov, req->niov, req->offset);
        r->iocb.aio_rw_flags = req->fua ? RWF_DSYNC : 0;
    }
    io_set_eventfd(&r->iocb, native->event_fd);
}

static int64_t coroutine_fn native_co_submit(AioContext *ctx, const AioRequest *part)
{
    Native *native = ctx->engine[AIO_ENGINE_NATIVE];
    NativeRequest r = { .co = coroutine_self() };

    if (!is_for_kernel(part) || (!native && !(native = native_new(ctx)))) {
        return aio_threads_co_submit(ctx, part);
    }
    fill_iocb(native, &r, part);
    if (native->waiting) {
        native->waiting_last->next = &r;
    } else {
        native->waiting = &r;
    }
    native->waiting_last = &r;
    if (++native->n_waiting == __atomic_load_n(&ctx->max_batch, __ATOMIC_RELAXED)) {
        native_flush(&native->hook);
    } else {
        aio_notify(ctx);
    }
    while (!r.done) {
        coroutine_yield();
    }
    return r.ret;
}

static bool native_available(Error **errp)
{
    io_context_t io = NULL;
    int ret = io_setup(1, &io);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Linux AIO is not available%s",
                         ret == -EAGAIN ? " (see fs.aio-max-nr)" : "");
        return false;
    }
    io_destroy(io);
    return true;
}

const AioEngine aio_engine_native = {
    .name = "native", .available = native_available, .co_submit = native_co_submit,
};
