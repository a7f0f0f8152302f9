/*
 * One connection to an NBD server.
 *
 * libnbd calls back when a command has completed, while it holds its lock; nothing may be asked of
 * it there. So completed commands are collected, and their coroutines go on when libnbd has
 * returned.
 *
 * When libnbd gives a connection up it ends all commands with ENOTCONN; a server cannot send that
 * number.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/nbd-conn.h"

#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/common.h"

/* Replies that are taken in a row before the loop's other work has its turn. */
#define REPLIES_PER_TURN 32

typedef struct Pending Pending;

/* A command under way; on its coroutine's stack. */
struct Pending {
    NbdConn *conn;
    NbdCommand *cmd;
    Coroutine *co;
    bool completed, done;       /* libnbd said so; the coroutine has been woken */
    int error;                  /* positive errno */
    Pending *next_done;
};

struct NbdConn {
    struct nbd_handle *h;
    int fd;
    AioContext *ctx;            /* NULL: detached */
    unsigned watched;           /* LIBNBD_AIO_DIRECTION_* */
    char *context;
    NbdInfo info;

    Coroutine *handshake;       /* waits for the end of it */
    bool established, lost;
    char *reason;
    void (*on_lost)(NbdConn *conn, void *opaque);
    void *on_lost_opaque;

    unsigned in_flight;
    Pending *done_first, **done_tail;
    int64_t last_activity_ns;
};

/*
 * Events
 * -------------------------------------------------------------------------------------------------
 */

static void on_readable(void *opaque);
static void on_writable(void *opaque);

static void watch(NbdConn *conn, unsigned direction)
{
    if (conn->watched == direction || !conn->ctx) {
        return;
    }
    conn->watched = direction;
    aio_set_fd_handler(conn->ctx, conn->fd,
                       direction & LIBNBD_AIO_DIRECTION_READ ? on_readable : NULL,
                       direction & LIBNBD_AIO_DIRECTION_WRITE ? on_writable : NULL, conn);
}

/* Their coroutines may start other commands at once; those end up behind these. */
static void wake_completed(NbdConn *conn)
{
    while (conn->done_first) {
        Pending *p = conn->done_first;

        conn->done_first = p->next_done;
        if (!conn->done_first) {
            conn->done_tail = &conn->done_first;
        }
        p->done = true;
        aio_co_wake(p->co);
    }
}

static void set_reason(NbdConn *conn, const char *why)
{
    if (!conn->reason) {
        conn->reason = g_strdup(why ? why : "the server closed the connection");
    }
}

static bool is_broken(const NbdConn *conn)
{
    return nbd_aio_is_dead(conn->h) || nbd_aio_is_closed(conn->h);
}

/* After libnbd did something: whom does it concern? The connection may be gone afterwards. */
static void follow_up(NbdConn *conn)
{
    bool broken = is_broken(conn);

    if (broken && !conn->lost) {
        conn->lost = true;
        set_reason(conn, NULL);
        watch(conn, 0);
    } else if (!broken) {
        watch(conn, nbd_aio_get_direction(conn->h));
    }
    wake_completed(conn);
    if (conn->handshake && (broken || nbd_aio_is_ready(conn->h))) {
        Coroutine *co = conn->handshake;

        conn->handshake = NULL;
        aio_co_wake(co);
    } else if (broken && conn->established && conn->on_lost && conn->in_flight == 0) {
        void (*fn)(NbdConn *, void *) = conn->on_lost;

        conn->on_lost = NULL;
        fn(conn, conn->on_lost_opaque);
    }
}

/* In a loop's turn, not under any function of this file: nothing there is used after it. */
static void follow_up_later(void *opaque)
{
    NbdConn *conn = opaque;

    conn->in_flight--;
    follow_up(conn);
}

static void notify(NbdConn *conn, bool write)
{
    if (!is_broken(conn) &&
        (write ? nbd_aio_notify_write(conn->h) : nbd_aio_notify_read(conn->h)) < 0) {
        set_reason(conn, nbd_get_error());
    }
}

/* libnbd must be told only of what there is. */
static bool more_to_read(NbdConn *conn)
{
    int bytes = 0;

    return nbd_aio_get_direction(conn->h) & LIBNBD_AIO_DIRECTION_READ &&
           ioctl(conn->fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

static void on_readable(void *opaque)
{
    NbdConn *conn = opaque;
    int replies = 0;

    conn->last_activity_ns = aio_clock_ns();
    /* libnbd stops after each reply. Going on costs less than another turn of the loop. */
    do {
        notify(conn, false);
    } while (++replies < REPLIES_PER_TURN && more_to_read(conn));
    follow_up(conn);
}

static void on_writable(void *opaque)
{
    NbdConn *conn = opaque;

    notify(conn, true);
    follow_up(conn);
}

/*
 * Life
 * -------------------------------------------------------------------------------------------------
 */

static void handshake_timed_out(void *opaque)
{
    NbdConn *conn = opaque;

    set_reason(conn, "the server does not answer");
    shutdown(conn->fd, SHUT_RDWR);
}

/* A power of two that fits, or 0. */
static bool get_block_size(NbdConn *conn, int type, bool power_of_two, uint32_t *size, Error **errp)
{
    int64_t n = nbd_get_block_size(conn->h, type);

    if (n <= 0) {
        *size = 0;
        return true;
    }
    if (n > UINT32_MAX || (power_of_two && ((n & (n - 1)) || n > BDRV_MAX_ALIGNMENT))) {
        error_setg(errp, "the server sent an invalid block size: %" PRId64, n);
        return false;
    }
    *size = n;
    return true;
}

static bool check_sizes(const NbdInfo *info, Error **errp)
{
    if (info->size > BDRV_MAX_LENGTH) {
        error_setg(errp, "the export is too large: %" PRId64 " bytes", info->size);
        return false;
    }
    if (info->min_block && info->size % info->min_block) {
        error_setg(errp,
                   "the size of the export (%" PRId64 ") is no multiple of its minimum block size "
                   "(%" PRIu32 ")",
                   info->size, info->min_block);
        return false;
    }
    if (info->max_block && info->max_block < info->min_block) {
        error_setg(errp,
                   "the server sent a maximum block size (%" PRIu32 ") that is smaller than the "
                   "minimum (%" PRIu32 ")",
                   info->max_block, info->min_block);
        return false;
    }
    return true;
}

static bool read_info(NbdConn *conn, Error **errp)
{
    NbdInfo *info = &conn->info;

    info->size = nbd_get_size(conn->h);
    if (info->size < 0) {
        error_setg(errp, "%s", nbd_get_error());
        return false;
    }
    info->read_only = nbd_is_read_only(conn->h) > 0;
    info->can_flush = nbd_can_flush(conn->h) > 0;
    info->can_fua = nbd_can_fua(conn->h) > 0;
    info->can_trim = nbd_can_trim(conn->h) > 0;
    info->can_zero = nbd_can_zero(conn->h) > 0;
    info->can_fast_zero = nbd_can_fast_zero(conn->h) > 0;
    info->can_multi_conn = nbd_can_multi_conn(conn->h) > 0;
    info->has_context = nbd_can_meta_context(conn->h, conn->context) > 0;
    return get_block_size(conn, LIBNBD_SIZE_MINIMUM, true, &info->min_block, errp) &&
           get_block_size(conn, LIBNBD_SIZE_PREFERRED, true, &info->preferred_block, errp) &&
           get_block_size(conn, LIBNBD_SIZE_MAXIMUM, false, &info->max_block, errp) &&
           check_sizes(info, errp);
}

static NbdConn *conn_new(const char *export_name, const char *context, Error **errp)
{
    NbdConn *conn = g_new0(NbdConn, 1);

    conn->fd = -1;
    conn->context = g_strdup(context);
    conn->done_tail = &conn->done_first;
    conn->h = nbd_create();
    if (!conn->h || nbd_set_export_name(conn->h, export_name) < 0 ||
        nbd_add_meta_context(conn->h, context) < 0 ||
        nbd_set_pread_initialize(conn->h, false) < 0) {
        error_setg(errp, "%s", nbd_get_error());
        nbd_conn_close(conn);
        return NULL;
    }
    return conn;
}

/* Until the export can be used, or the connection is broken. */
static void coroutine_fn co_handshake(NbdConn *conn, int64_t timeout_ns)
{
    AioTimer *timer = aio_timer_new(conn->ctx, handshake_timed_out, conn);

    aio_timer_mod(timer, aio_clock_ns() + timeout_ns);
    while (!is_broken(conn) && !nbd_aio_is_ready(conn->h)) {
        conn->handshake = coroutine_self();
        watch(conn, nbd_aio_get_direction(conn->h));
        coroutine_yield();
    }
    aio_timer_free(timer);
}

NbdConn *coroutine_fn nbd_conn_co_open(int fd, const char *export_name, const char *context,
                                       int64_t timeout_ns, NbdConn **abort_slot, Error **errp)
{
    NbdConn *conn = conn_new(export_name, context, errp);

    if (!conn) {
        close(fd);
        return NULL;
    }
    /* For UNIX sockets it fails, and is not needed. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    conn->fd = fd;
    conn->ctx = aio_current();
    if (nbd_aio_connect_socket(conn->h, fd) < 0) {
        set_reason(conn, nbd_get_error());
    }
    *abort_slot = conn;
    co_handshake(conn, timeout_ns);
    *abort_slot = NULL;
    if (is_broken(conn)) {
        set_reason(conn, NULL);
        error_setg(errp, "%s", conn->reason);
    } else if (read_info(conn, errp)) {
        conn->established = true;
        conn->last_activity_ns = aio_clock_ns();
        watch(conn, nbd_aio_get_direction(conn->h));
        return conn;
    }
    nbd_conn_close(conn);
    return NULL;
}

void nbd_conn_close(NbdConn *conn)
{
    g_assert(conn->in_flight == 0);
    watch(conn, 0);
    if (conn->established && !is_broken(conn)) {
        /* What does not fit into the socket at once is not waited for. */
        nbd_aio_disconnect(conn->h, 0);
    }
    nbd_close(conn->h);
    g_free(conn->context);
    g_free(conn->reason);
    g_free(conn);
}

const NbdInfo *nbd_conn_info(const NbdConn *conn)
{
    return &conn->info;
}

void nbd_conn_on_lost(NbdConn *conn, void (*fn)(NbdConn *conn, void *opaque), void *opaque)
{
    conn->on_lost = fn;
    conn->on_lost_opaque = opaque;
}

/* libnbd learns of it from the socket, as of any other end. */
void nbd_conn_abort(NbdConn *conn, const char *why)
{
    set_reason(conn, why);
    shutdown(conn->fd, SHUT_RDWR);
}

bool nbd_conn_is_lost(const NbdConn *conn)
{
    return is_broken(conn);
}

const char *nbd_conn_reason(const NbdConn *conn)
{
    return conn->reason ? conn->reason : "it is not lost";
}

void nbd_conn_detach(NbdConn *conn)
{
    g_assert(conn->in_flight == 0);
    watch(conn, 0);
    conn->ctx = NULL;
}

void nbd_conn_attach(NbdConn *conn, AioContext *ctx)
{
    conn->ctx = ctx;
    if (!conn->lost) {
        watch(conn, nbd_aio_get_direction(conn->h));
    }
}

/*
 * Commands
 * -------------------------------------------------------------------------------------------------
 */

/* Under libnbd's lock. */
static int command_completed(void *opaque, int *error)
{
    Pending *p = opaque;
    NbdConn *conn = p->conn;

    p->completed = true;
    p->error = *error;
    p->next_done = NULL;
    *conn->done_tail = p;
    conn->done_tail = &p->next_done;
    conn->in_flight--;
    /* libnbd need not remember it. */
    return 1;
}

static int extent_told(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                       size_t nr_entries, int *error)
{
    Pending *p = opaque;

    if (nr_entries >= 2 && p->cmd->extent_bytes == 0 && offset == p->cmd->offset &&
        strcmp(context, p->conn->context) == 0) {
        p->cmd->extent_bytes = entries[0];
        p->cmd->extent_flags = entries[1];
    }
    return 0;
}

static int64_t issue(struct nbd_handle *h, Pending *p)
{
    nbd_completion_callback done = { .callback = command_completed, .user_data = p };
    nbd_extent_callback extent = { .callback = extent_told, .user_data = p };
    const NbdCommand *cmd = p->cmd;

    switch (cmd->type) {
    case NBD_COMMAND_READ:
        return nbd_aio_pread(h, cmd->buf, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_COMMAND_WRITE:
        return nbd_aio_pwrite(h, cmd->buf, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_COMMAND_FLUSH:
        return nbd_aio_flush(h, done, cmd->flags);
    case NBD_COMMAND_TRIM:
        return nbd_aio_trim(h, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_COMMAND_ZERO:
        return nbd_aio_zero(h, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_COMMAND_BLOCK_STATUS:
        return nbd_aio_block_status(h, cmd->bytes, cmd->offset, extent, done, cmd->flags);
    }
    g_assert_not_reached();
}

int coroutine_fn nbd_conn_co_command(NbdConn *conn, NbdCommand *cmd)
{
    Pending p = { .conn = conn, .cmd = cmd, .co = coroutine_self() };

    g_assert(aio_current() == conn->ctx);
    cmd->extent_bytes = 0;
    conn->in_flight++;
    if (issue(conn->h, &p) < 0 && !p.completed) {
        int error = nbd_get_errno();

        set_reason(conn, nbd_get_error());
        conn->in_flight--;
        return is_broken(conn) || error == 0 ? -ENOTCONN : -error;
    }
    if (is_broken(conn)) {
        set_reason(conn, nbd_get_error());
    }
    if (is_broken(conn) || conn->done_first) {
        /* Not from here: it could free the connection. Counted, so that nobody else does. */
        conn->in_flight++;
        aio_bh_schedule_oneshot(conn->ctx, follow_up_later, conn);
    } else {
        watch(conn, nbd_aio_get_direction(conn->h));
    }
    while (!p.done) {
        coroutine_yield();
    }
    return -p.error;
}

unsigned nbd_conn_in_flight(const NbdConn *conn)
{
    return conn->in_flight;
}

int64_t nbd_conn_last_activity_ns(const NbdConn *conn)
{
    return conn->last_activity_ns;
}
