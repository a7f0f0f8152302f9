/*
 * Descriptors: one epoll set a context, in which a descriptor stays for as long as somebody cares.
 *
 * It is watched in one of two ways. Handlers are level-triggered. Waits of coroutines are
 * edge-triggered: each direction has a flag that says "an edge came and nobody has waited since",
 * so a wait after it returns at once, and a coroutine that tries the system call first and waits on
 * EAGAIN costs no epoll_ctl() at all. Writability is watched only from the first wait for it until
 * an edge comes that nobody waits for: a peer that reads would cause one after the other.
 *
 * Events are taken in batches. Handlers of a batch may remove each other (the states are freed when
 * no batch is in work) and may poll the context again, after which the rest of the batch is stale
 * and is dropped: level-triggered ones come back, and edges were noted before any handler ran.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/aio-internal.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#define BATCH 64

enum { DIR_READ, DIR_WRITE };

struct FdState {
    int fd;
    bool dead;
    bool edges;                 /* watched for coroutines */
    uint32_t watched;           /* EPOLL* as the kernel knows them */
    AioFn *on_read, *on_write;
    void *opaque;
    Coroutine *waiter[2];
    bool ready[2];
    FdState *next_dead;
};

static FdState *fd_find(AioContext *ctx, int fd)
{
    return fd < ctx->n_fds ? ctx->fds[fd] : NULL;
}

static FdState *fd_get(AioContext *ctx, int fd)
{
    FdState *state = fd_find(ctx, fd);

    g_assert(fd >= 0);
    if (!state) {
        if (fd >= ctx->n_fds) {
            unsigned n = MAX((unsigned)fd + 1, ctx->n_fds * 2);

            ctx->fds = g_renew(FdState *, ctx->fds, n);
            for (unsigned i = ctx->n_fds; i < n; i++) {
                ctx->fds[i] = NULL;
            }
            ctx->n_fds = n;
        }
        state = g_new0(FdState, 1);
        state->fd = fd;
        ctx->fds[fd] = state;
    }
    return state;
}

/* Returns false when the descriptor is of a kind that never has to be waited for. */
static bool fd_watch(AioContext *ctx, FdState *state, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = state };
    int op = state->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (epoll_ctl(ctx->epoll_fd, op, state->fd, &event) < 0) {
        if (errno == EPERM) {
            return false;
        }
        g_error("cannot watch descriptor %d: %s", state->fd, g_strerror(errno));
    }
    state->watched = events;
    return true;
}

static void fd_drop(AioContext *ctx, FdState *state)
{
    if (state->watched) {
        epoll_ctl(ctx->epoll_fd, EPOLL_CTL_DEL, state->fd, NULL);
    }
    ctx->fds[state->fd] = NULL;
    state->dead = true;
    if (ctx->handing_out) {
        state->next_dead = ctx->dead_fds;
        ctx->dead_fds = state;
    } else {
        g_free(state);
    }
}

static void free_dead(AioContext *ctx)
{
    while (ctx->dead_fds) {
        FdState *state = ctx->dead_fds;

        ctx->dead_fds = state->next_dead;
        g_free(state);
    }
}

void aio_fds_free(AioContext *ctx)
{
    for (unsigned i = 0; i < ctx->n_fds; i++) {
        g_free(ctx->fds[i]);
    }
    g_free(ctx->fds);
    free_dead(ctx);
}

void aio_set_fd_handler(AioContext *ctx, int fd, AioFn *on_read, AioFn *on_write, void *opaque)
{
    FdState *state = fd_find(ctx, fd);
    uint32_t events = (on_read ? EPOLLIN : 0) | (on_write ? EPOLLOUT : 0);

    if (!events) {
        if (state) {
            g_assert(!state->edges);
            fd_drop(ctx, state);
        }
        return;
    }
    state = fd_get(ctx, fd);
    g_assert(!state->edges);
    state->on_read = on_read;
    state->on_write = on_write;
    state->opaque = opaque;
    if (events != state->watched && !fd_watch(ctx, state, events)) {
        g_error("descriptor %d is a file, which cannot be watched", fd);
    }
}

void aio_forget_fd(AioContext *ctx, int fd)
{
    FdState *state = fd_find(ctx, fd);

    if (state) {
        g_assert(!state->waiter[DIR_READ] && !state->waiter[DIR_WRITE]);
        fd_drop(ctx, state);
    }
}

void coroutine_fn aio_co_wait_fd(int fd, bool write)
{
    AioContext *ctx = aio_current();
    FdState *state = fd_get(ctx, fd);
    int dir = write ? DIR_WRITE : DIR_READ;
    uint32_t event = write ? EPOLLOUT : EPOLLIN;

    g_assert(!state->on_read && !state->on_write && !state->waiter[dir]);
    if (state->ready[dir]) {
        state->ready[dir] = false;
        return;
    }
    state->edges = true;
    if (!(state->watched & event) && !fd_watch(ctx, state, state->watched | event | EPOLLET)) {
        fd_drop(ctx, state);
        return;
    }
    state->waiter[dir] = coroutine_self();
    coroutine_yield();
    /* Still there when something else woke it; the state is then this wait's still. */
    if (fd_find(ctx, fd) == state && state->waiter[dir] == coroutine_self()) {
        state->waiter[dir] = NULL;
    }
}

static bool note_edge(AioContext *ctx, FdState *state, int dir)
{
    Coroutine *co = state->waiter[dir];

    if (co) {
        state->waiter[dir] = NULL;
        aio_co_schedule(ctx, co);
        return true;
    }
    state->ready[dir] = true;
    return false;
}

/* Note the edges of one event. Returns whether a coroutine was woken. */
static bool note_edges(AioContext *ctx, FdState *state, uint32_t events)
{
    bool woken = false;

    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) {
        woken |= note_edge(ctx, state, DIR_READ);
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && state->watched & EPOLLOUT) {
        bool wanted = note_edge(ctx, state, DIR_WRITE);

        if (!wanted && !(events & (EPOLLHUP | EPOLLERR)) && state->watched & EPOLLIN) {
            state->ready[DIR_WRITE] = false;
            fd_watch(ctx, state, EPOLLIN | EPOLLET);
        }
        woken |= wanted;
    }
    return woken;
}

static bool call_handlers(AioContext *ctx, FdState *state, uint32_t events, uint64_t poll)
{
    bool did = false;

    if (!state->dead && state->on_read && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        state->on_read(state->opaque);
        did = true;
    }
    if (!state->dead && ctx->polls == poll && state->on_write &&
        events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        state->on_write(state->opaque);
        did = true;
    }
    return did;
}

static int wait_for_events(AioContext *ctx, struct epoll_event *events, int64_t timeout_ns)
{
    struct timespec ts = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    int n;

    if (timeout_ns <= 0) {
        n = epoll_wait(ctx->epoll_fd, events, BATCH, timeout_ns < 0 ? -1 : 0);
    } else {
        n = epoll_pwait2(ctx->epoll_fd, events, BATCH, &ts, NULL);
        if (n < 0 && errno == ENOSYS) {
            int64_t ms = MIN((timeout_ns + 999999) / 1000000, G_MAXINT);

            n = epoll_wait(ctx->epoll_fd, events, BATCH, ms);
        }
    }
    if (n < 0 && errno != EINTR) {
        g_error("cannot wait for events: %s", g_strerror(errno));
    }
    return MAX(n, 0);
}

bool aio_fds_wait(AioContext *ctx, int64_t timeout_ns)
{
    struct epoll_event events[BATCH];
    uint64_t poll = ++ctx->polls;
    int n = wait_for_events(ctx, events, timeout_ns);
    bool did = false;

    if (__atomic_load_n(&ctx->sleeping, __ATOMIC_RELAXED) & SLEEPING_IN_POLL) {
        __atomic_fetch_and(&ctx->sleeping, ~SLEEPING_IN_POLL, __ATOMIC_SEQ_CST);
    }
    if (n == 0) {
        return false;
    }
    /* The wake-up was used up here: the next one must write the eventfd again. */
    __atomic_exchange_n(&ctx->notified, 0, __ATOMIC_SEQ_CST);
    ctx->handing_out++;
    for (int i = 0; i < n; i++) {
        FdState *state = events[i].data.ptr;

        if (state && state->edges) {
            did |= note_edges(ctx, state, events[i].events);
        }
    }
    for (int i = 0; i < n && ctx->polls == poll; i++) {
        FdState *state = events[i].data.ptr;

        if (state && !state->edges) {
            did |= call_handlers(ctx, state, events[i].events, poll);
        }
    }
    if (--ctx->handing_out == 0) {
        free_dead(ctx);
    }
    return did;
}
