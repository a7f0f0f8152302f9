/*
 * The connections of a node to its NBD server.
 *
 * One coroutine, the connector, makes connections: when the session has been opened those beyond
 * the first (where the server takes several), later those that were lost. It runs in the session's
 * context like everything here, does what blocks in the thread pool, and ends when all are there.
 * To stop it, whatever it waits for is ended early.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/nbd-session.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "io/socket-address.h"
#include "io/sockets.h"
#include "util/coroutine-lock.h"
#include "util/thread-pool.h"

#define SECOND_NS INT64_C(1000000000)
/* A connection and its handshake may take that long, each. */
#define CONNECT_TIMEOUT_NS (30 * SECOND_NS)
/* The same while the node is opened and open-timeout says nothing more: a monitor waits for it. */
#define OPEN_TIMEOUT_NS (5 * SECOND_NS)
/* Attempts follow after so long, and twice as long each time. */
#define RETRY_MIN_NS (SECOND_NS / 20)
#define RETRY_MAX_NS (2 * SECOND_NS)
/* Commands under way on a connection; more wait. */
#define COMMANDS_MAX 128
#define CONNS_MAX 4

int64_t nbd_session_drain_reconnect_ns = 10 * SECOND_NS;
int64_t nbd_session_drain_silence_ns = 30 * SECOND_NS;

struct NbdSession {
    SocketAddress *addr;
    char *export_name, *context;
    char *target;               /* for messages */
    int64_t reconnect_ns;
    int64_t patience_ns;        /* with a server that is connected to */
    NbdInfo info;
    AioContext *ctx;            /* NULL: detached */

    NbdConn *conns[CONNS_MAX];
    unsigned n_conns, wanted;
    int64_t lost_ns;            /* when the last one was lost */
    CoQueue waiting;            /* commands, for a connection */
    CoQueue crowd;              /* commands, for others to end */
    AioTimer *give_up_timer;    /* for those that wait */

    Coroutine *connector;
    bool stop;                  /* it shall end */
    CoQueue connector_gone;
    int cancel_fd;              /* while it connects: an eventfd; -1 */
    NbdConn *handshaking;       /* while it shakes hands */
    Coroutine *pausing;         /* while it pauses */

    bool draining;
    int64_t drain_ns;           /* since when */
    AioTimer *silence_timer;
};

/*
 * Making a connection
 * ---------------------------------------------------------------------------------------
 */

typedef struct ConnectCall {
    const SocketAddress *addr;
    int cancel_fd;
    Error *err;
} ConnectCall;

static int connect_in_pool(void *opaque)
{
    ConnectCall *call = opaque;

    return socket_connect(call->addr, call->cancel_fd, &call->err);
}

static void cancel_connect(void *opaque)
{
    NbdSession *s = opaque;

    if (s->cancel_fd >= 0) {
        eventfd_write(s->cancel_fd, 1);
    }
}

static int coroutine_fn co_connect_socket(NbdSession *s, Error **errp)
{
    ConnectCall call = { .addr = s->addr, .cancel_fd = eventfd(0, EFD_CLOEXEC) };
    AioTimer *timer;
    int fd;

    if (call.cancel_fd < 0) {
        error_setg_errno(errp, errno, "Could not make an eventfd");
        return -1;
    }
    s->cancel_fd = call.cancel_fd;
    timer = aio_timer_new(s->ctx, cancel_connect, s);
    aio_timer_mod(timer, aio_clock_ns() + s->patience_ns);
    fd = thread_pool_submit_co(connect_in_pool, &call);
    aio_timer_free(timer);
    s->cancel_fd = -1;
    close(call.cancel_fd);
    error_propagate(errp, call.err);
    return fd;
}

static NbdConn *coroutine_fn co_connect(NbdSession *s, Error **errp)
{
    int fd = co_connect_socket(s, errp);
    NbdConn *conn;

    if (fd >= 0 && s->stop) {
        /* There was nothing left to cancel. */
        close(fd);
        error_setg(errp, "The connection to '%s' is not needed any more", s->target);
        fd = -1;
    }
    if (fd < 0) {
        return NULL;
    }
    conn =
        nbd_conn_co_open(fd, s->export_name, s->context, s->patience_ns, &s->handshaking, errp);
    if (!conn) {
        error_prepend(errp, "Failed to open export '%s' of '%s': ", s->export_name, s->target);
    }
    return conn;
}

/* Whether an export is still what the node's users were told it is. */
static bool is_same(const NbdInfo *was, const NbdInfo *is, Error **errp)
{
    const char *what = is->size != was->size ? "its size has changed"
        : is->read_only && !was->read_only ? "it is read-only now"
        : is->min_block > MAX(was->min_block, 1) ? "its minimum block size has grown"
        : is->max_block && (!was->max_block || is->max_block < was->max_block)
          ? "its maximum block size has shrunk"
        : was->can_flush && !is->can_flush ? "it cannot be flushed any more"
        : was->can_fua && !is->can_fua ? "it does not know FUA any more"
        : was->has_context && !is->has_context ? "the metadata context is gone" : NULL;

    if (what) {
        error_setg(errp, "the export is another one: %s", what);
    }
    return !what;
}

static void wake_pausing(void *opaque)
{
    NbdSession *s = opaque;
    Coroutine *co = s->pausing;

    if (co) {
        s->pausing = NULL;
        aio_co_wake(co);
    }
}

static void coroutine_fn co_pause(NbdSession *s, int64_t ns)
{
    AioTimer *timer = aio_timer_new(s->ctx, wake_pausing, s);

    aio_timer_mod(timer, aio_clock_ns() + ns);
    s->pausing = coroutine_self();
    coroutine_yield();
    aio_timer_free(timer);
}

/*
 * Losing and regaining connections
 * ----------------------------------------------------------------------------
 */

static void start_connector(NbdSession *s);

/* Until when commands wait for a connection. */
static int64_t give_up_ns(const NbdSession *s)
{
    int64_t deadline = s->lost_ns + s->reconnect_ns;

    if (s->draining) {
        deadline = MIN(deadline, MAX(s->lost_ns, s->drain_ns) + nbd_session_drain_reconnect_ns);
    }
    return deadline;
}

static void give_up(void *opaque)
{
    NbdSession *s = opaque;

    co_queue_restart_all(&s->waiting);
}

static void conn_lost(NbdConn *conn, void *opaque)
{
    NbdSession *s = opaque;
    unsigned i = 0;

    while (s->conns[i] != conn) {
        i++;
    }
    s->conns[i] = s->conns[--s->n_conns];
    if (s->n_conns == 0) {
        warn_report("Connection to NBD server '%s' lost: %s", s->target, nbd_conn_reason(conn));
        s->lost_ns = aio_clock_ns();
        aio_timer_mod(s->give_up_timer, give_up_ns(s));
        s->wanted = 1;
        co_queue_restart_all(&s->crowd);
    }
    nbd_conn_close(conn);
    start_connector(s);
}

/*
 * How many connections the server gets. Over a network more carry more; on one host they mostly
 * cost more, but two let the server work on small requests at the same time.
 */
static unsigned conns_wanted(const NbdSession *s, const NbdConn *conn)
{
    if (!nbd_conn_info(conn)->can_multi_conn) {
        return 1;
    }
    return s->addr->type == SOCKET_ADDRESS_TYPE_INET ? CONNS_MAX : 2;
}

static void adopt(NbdSession *s, NbdConn *conn)
{
    nbd_conn_on_lost(conn, conn_lost, s);
    s->conns[s->n_conns++] = conn;
    if (s->n_conns == 1) {
        s->wanted = conns_wanted(s, conn);
    }
    aio_timer_del(s->give_up_timer);
    co_queue_restart_all(&s->waiting);
    co_queue_restart_all(&s->crowd);
}

/* One more connection, if it can be had. */
static bool coroutine_fn co_add_connection(NbdSession *s)
{
    Error *err = NULL;
    NbdConn *conn = co_connect(s, &err);

    if (conn && (s->stop || !is_same(&s->info, nbd_conn_info(conn), &err))) {
        nbd_conn_close(conn);
        conn = NULL;
    }
    error_free(err);
    if (conn) {
        adopt(s, conn);
    }
    return conn;
}

static void coroutine_fn connector_entry(void *opaque)
{
    NbdSession *s = opaque;
    int64_t pause = RETRY_MIN_NS;

    while (!s->stop && s->n_conns < s->wanted) {
        if (co_add_connection(s)) {
            pause = RETRY_MIN_NS;
        } else if (s->n_conns > 0) {
            /* The server has enough of us. */
            s->wanted = s->n_conns;
        } else if (!s->stop) {
            co_pause(s, pause);
            pause = MIN(2 * pause, RETRY_MAX_NS);
        }
    }
    s->connector = NULL;
    co_queue_restart_all(&s->connector_gone);
}

static void start_connector(NbdSession *s)
{
    /* A descriptor that was handed over connects once. */
    if (s->connector || s->stop || s->n_conns >= s->wanted ||
        s->addr->type == SOCKET_ADDRESS_TYPE_FD) {
        return;
    }
    s->connector = coroutine_create(connector_entry, s);
    aio_co_schedule(s->ctx, s->connector);
}

static void coroutine_fn co_stop_connector(NbdSession *s)
{
    s->stop = true;
    cancel_connect(s);
    if (s->handshaking) {
        nbd_conn_abort(s->handshaking, "it is not needed any more");
    }
    wake_pausing(s);
    while (s->connector) {
        co_queue_wait(&s->connector_gone, NULL);
    }
}

/*
 * Draining
 * -------------------------------------------------------------------------------------------------
 */

static void check_silence(void *opaque)
{
    NbdSession *s = opaque;
    int64_t now = aio_clock_ns(), next = INT64_MAX;

    for (unsigned i = 0; i < s->n_conns; i++) {
        NbdConn *conn = s->conns[i];
        int64_t deadline =
            MAX(nbd_conn_last_activity_ns(conn), s->drain_ns) + nbd_session_drain_silence_ns;

        if (nbd_conn_in_flight(conn) > 0 && deadline <= now) {
            nbd_conn_abort(conn, "the server does not answer");
        } else if (nbd_conn_in_flight(conn) > 0) {
            next = MIN(next, deadline);
        }
    }
    if (next < INT64_MAX) {
        aio_timer_mod(s->silence_timer, next);
    }
}

void nbd_session_drain_begin(NbdSession *s)
{
    s->draining = true;
    s->drain_ns = aio_clock_ns();
    if (s->n_conns == 0) {
        aio_timer_mod(s->give_up_timer, give_up_ns(s));
    }
    check_silence(s);
}

void nbd_session_drain_end(NbdSession *s)
{
    s->draining = false;
    aio_timer_del(s->silence_timer);
}

/*
 * Life
 * -------------------------------------------------------------------------------------------------
 */

NbdSession *nbd_session_new(const SocketAddress *addr, const char *export_name, const char *context)
{
    NbdSession *s = g_new0(NbdSession, 1);

    s->addr = socket_address_copy(addr);
    s->export_name = g_strdup(export_name);
    s->context = g_strdup(context);
    s->target = socket_describe(addr);
    s->cancel_fd = -1;
    s->wanted = 1;
    co_queue_init(&s->waiting);
    co_queue_init(&s->crowd);
    co_queue_init(&s->connector_gone);
    return s;
}

void nbd_session_free(NbdSession *s)
{
    g_assert(s->n_conns == 0 && !s->connector);
    qapi_free_SocketAddress(s->addr);
    g_free(s->export_name);
    g_free(s->context);
    g_free(s->target);
    g_free(s);
}

void nbd_session_set_reconnect_delay(NbdSession *s, uint32_t seconds)
{
    s->reconnect_ns = seconds * SECOND_NS;
}

const NbdInfo *nbd_session_info(const NbdSession *s)
{
    return &s->info;
}

static void make_timers(NbdSession *s)
{
    s->give_up_timer = aio_timer_new(s->ctx, give_up, s);
    s->silence_timer = aio_timer_new(s->ctx, check_silence, s);
}

static void free_timers(NbdSession *s)
{
    aio_timer_free(s->give_up_timer);
    aio_timer_free(s->silence_timer);
    s->give_up_timer = s->silence_timer = NULL;
}

typedef struct OpenCall {
    NbdSession *s;
    int64_t deadline_ns;
    Error *err;
    bool ok;
} OpenCall;

static void coroutine_fn open_entry(void *opaque)
{
    OpenCall *call = opaque;
    NbdSession *s = call->s;
    int64_t pause = RETRY_MIN_NS;
    NbdConn *conn;

    make_timers(s);
    s->patience_ns = MAX(OPEN_TIMEOUT_NS, call->deadline_ns - aio_clock_ns());
    while (!(conn = co_connect(s, &call->err)) && aio_clock_ns() + pause < call->deadline_ns) {
        error_free(call->err);
        call->err = NULL;
        co_pause(s, pause);
        pause = MIN(2 * pause, RETRY_MAX_NS);
    }
    if (!conn) {
        free_timers(s);
        return;
    }
    s->patience_ns = CONNECT_TIMEOUT_NS;
    s->info = *nbd_conn_info(conn);
    adopt(s, conn);
    start_connector(s);
    call->ok = true;
}

int nbd_session_open(NbdSession *s, AioContext *ctx, uint32_t timeout, Error **errp)
{
    OpenCall call = { .s = s, .deadline_ns = aio_clock_ns() + timeout * SECOND_NS };

    s->ctx = ctx;
    aio_co_run(ctx, open_entry, &call);
    error_propagate(errp, call.err);
    return call.ok ? 0 : -1;
}

static void coroutine_fn close_entry(void *opaque)
{
    NbdSession *s = opaque;

    co_stop_connector(s);
    while (s->n_conns > 0) {
        nbd_conn_close(s->conns[--s->n_conns]);
    }
    free_timers(s);
}

void nbd_session_close(NbdSession *s)
{
    aio_co_run(s->ctx, close_entry, s);
}

static void coroutine_fn detach_entry(void *opaque)
{
    NbdSession *s = opaque;

    co_stop_connector(s);
    for (unsigned i = 0; i < s->n_conns; i++) {
        nbd_conn_detach(s->conns[i]);
    }
    free_timers(s);
    s->ctx = NULL;
}

void nbd_session_detach(NbdSession *s)
{
    aio_co_run(s->ctx, detach_entry, s);
}

static void coroutine_fn attach_entry(void *opaque)
{
    NbdSession *s = opaque;

    make_timers(s);
    for (unsigned i = 0; i < s->n_conns; i++) {
        nbd_conn_attach(s->conns[i], s->ctx);
    }
    s->stop = false;
    start_connector(s);
}

void nbd_session_attach(NbdSession *s, AioContext *ctx)
{
    s->ctx = ctx;
    aio_co_run(ctx, attach_entry, s);
}

/*
 * Commands
 * -------------------------------------------------------------------------------------------------
 */

/* The connection with the least to do; NULL: all have enough, or there is none. */
static NbdConn *pick_connection(NbdSession *s)
{
    NbdConn *best = NULL;

    for (unsigned i = 0; i < s->n_conns; i++) {
        if (!nbd_conn_is_lost(s->conns[i]) &&
            (!best || nbd_conn_in_flight(s->conns[i]) < nbd_conn_in_flight(best))) {
            best = s->conns[i];
        }
    }
    return best && nbd_conn_in_flight(best) < COMMANDS_MAX ? best : NULL;
}

/* A connection, after waiting perhaps; NULL: none came in time. */
static NbdConn *coroutine_fn co_get_connection(NbdSession *s)
{
    NbdConn *conn;

    while (!(conn = pick_connection(s))) {
        if (s->n_conns > 0) {
            co_queue_wait(&s->crowd, NULL);
        } else if (aio_clock_ns() >= give_up_ns(s)) {
            return NULL;
        } else {
            co_queue_wait(&s->waiting, NULL);
        }
    }
    return conn;
}

int coroutine_fn nbd_session_co_command(NbdSession *s, NbdCommand *cmd)
{
    int64_t first_loss_ns = 0;

    while (true) {
        NbdConn *conn = co_get_connection(s);
        int ret;

        if (!conn) {
            return -EIO;
        }
        ret = nbd_conn_co_command(conn, cmd);
        if (!co_queue_empty(&s->crowd)) {
            co_queue_next(&s->crowd);
        }
        if (ret != -ENOTCONN) {
            return ret;
        }
        /* A command that breaks every connection is not sent for ever. */
        if (first_loss_ns == 0) {
            first_loss_ns = aio_clock_ns();
        } else if (aio_clock_ns() >= first_loss_ns + s->reconnect_ns) {
            return -EIO;
        }
    }
}
