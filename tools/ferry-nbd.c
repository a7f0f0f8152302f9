/*
 * ferry-nbd: the NBD server of the VMM as a program of its own, for one image.
 *
 * The main thread turns GLib's loop, in which the server listens and clients shake hands; threads
 * of the server serve them. An image whose format is not thread-safe gets one iothread, in which
 * both its requests and its clients are served, so that nothing has to be carried between threads.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/export.h"
#include "main/daemonize.h"
#include "nbd/server.h"
#include "qapi/qapi-types-block-export.h"
#include "tools/ferry-nbd-image.h"
#include "tools/ferry-nbd-list.h"
#include "tools/ferry-nbd-options.h"
#include "util/cutils.h"

#define EXPORT_ID "export"
#define IOTHREAD_ID "disk"
#define POLL_MAX_NS 200000
#define DEFAULT_BIND "0.0.0.0"
#define DEFAULT_PORT "10809"
/* The first descriptor that is passed by socket activation. */
#define LISTEN_FDS_START 3
#define LISTEN_FDS_MAX 64

static GMainLoop *loop;
static bool persistent;

/*
 * Where to listen
 * ---------------------------------------------------------------------------------------
 */

static SocketAddress *address_of(const NbdToolOptions *o)
{
    SocketAddress *addr = g_new0(SocketAddress, 1);

    if (o->socket) {
        addr->type = SOCKET_ADDRESS_TYPE_UNIX;
        /* It is removed at the end, when the directory may be another one. */
        addr->u.q_unix.path = g_canonicalize_filename(o->socket, NULL);
    } else {
        addr->type = SOCKET_ADDRESS_TYPE_INET;
        addr->u.inet.host = g_strdup(o->bind ? o->bind : DEFAULT_BIND);
        addr->u.inet.port = g_strdup(o->port ? o->port : DEFAULT_PORT);
    }
    return addr;
}

/* Sockets that were handed over, as systemd does it. Returns their number; -1 with @errp set. */
static int activated_sockets(int *fds, const NbdToolOptions *o, Error **errp)
{
    const char *pid = g_getenv("LISTEN_PID"), *count = g_getenv("LISTEN_FDS");
    uint64_t n = 0, for_pid;

    if (!pid || !count || !parse_uint64(pid, &for_pid, NULL) || for_pid != (uint64_t)getpid()) {
        return 0;
    }
    if (!parse_uint64_range(count, 1, LISTEN_FDS_MAX, &n, errp)) {
        error_prepend(errp, "LISTEN_FDS: ");
        return -1;
    }
    if (o->socket || o->bind || o->port) {
        error_setg(errp, "an address cannot be given together with socket activation");
        return -1;
    }
    for (uint64_t i = 0; i < n; i++) {
        fds[i] = LISTEN_FDS_START + i;
        if (fcntl(fds[i], F_SETFD, FD_CLOEXEC) < 0) {
            error_setg(errp, "LISTEN_FDS: descriptor %d is not open", fds[i]);
            return -1;
        }
    }
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    return n;
}

/*
 * Events
 * ------------------------------------------------------------------------------------------------
 */

static gboolean quit(gpointer opaque)
{
    g_main_loop_quit(loop);
    return G_SOURCE_CONTINUE;
}

/* A client that only asked what there is does not end the program. */
static void client_left(bool served, unsigned remaining, void *opaque)
{
    if (served && remaining == 0 && !persistent) {
        g_main_loop_quit(loop);
    }
}

static void log_line(const char *message, void *opaque)
{
    fprintf(stderr, "ferry-nbd: %s\n", message);
}

/*
 * Setting up
 * --------------------------------------------------------------------------------------------
 */

static int start_server(const NbdToolOptions *o, const int *fds, int n_fds, Error **errp)
{
    g_autoptr(SocketAddress) addr = n_fds > 0 ? NULL : address_of(o);
    NbdServerConfig config = {
        .addr = addr,
        .listen_fds = fds,
        .n_listen_fds = n_fds,
        .handshake_max_seconds = o->handshake_seconds,
        .max_connections = o->shared,
        .threads = o->threads,
        .client_left = client_left,
        .log = o->verbose ? log_line : NULL,
    };

    return nbd_server_start(&config, errp);
}

/* Links of the list of bitmaps, which are freed with it. */
static BlockDirtyBitmapOrStrList *list_bitmaps(const GPtrArray *names)
{
    BlockDirtyBitmapOrStrList *list = NULL;

    for (guint i = names->len; i-- > 0;) {
        BlockDirtyBitmapOrStr *bitmap = g_new0(BlockDirtyBitmapOrStr, 1);

        bitmap->type = QTYPE_QSTRING;
        bitmap->u.local = g_strdup(g_ptr_array_index(names, i));
        QAPI_LIST_PREPEND(list, bitmap);
    }
    return list;
}

static BlockExportOptions *export_options(const NbdToolOptions *o, BlockDriverState *bs)
{
    BlockExportOptions *opts = g_new0(BlockExportOptions, 1);

    opts->type = BLOCK_EXPORT_TYPE_NBD;
    opts->id = g_strdup(EXPORT_ID);
    opts->node_name = g_strdup(bdrv_get_node_name(bs));
    opts->has_writable = opts->has_writethrough = true;
    opts->writable = !bdrv_is_read_only(bs);
    opts->writethrough = o->writethrough;
    opts->u.nbd.name = g_strdup(o->export_name ? o->export_name : "");
    opts->u.nbd.description = g_strdup(o->description);
    opts->u.nbd.has_allocation_depth = true;
    opts->u.nbd.allocation_depth = o->allocation_depth;
    opts->u.nbd.has_bitmaps = o->bitmaps->len > 0;
    opts->u.nbd.bitmaps = list_bitmaps(o->bitmaps);
    return opts;
}

/* *@iothread: one for an image that must be served by one thread. */
static int add_export(const NbdToolOptions *o, IOThread **iothread, Error **errp)
{
    g_autoptr(BlockExportOptions) opts = NULL;
    BlockDriverState *bs = nbd_tool_open_image(o, errp);
    BlockExport *exp;

    if (!bs) {
        return -1;
    }
    opts = export_options(o, bs);
    if (!bdrv_is_thread_safe(bs)) {
        *iothread = iothread_new(IOTHREAD_ID, POLL_MAX_NS, errp);
        if (!*iothread) {
            bdrv_unref(bs);
            return -1;
        }
        aio_context_set_may_block(iothread_context(*iothread), true);
        opts->iothread = g_new0(BlockExportIothreads, 1);
        opts->iothread->type = QTYPE_QSTRING;
        opts->iothread->u.single = g_strdup(IOTHREAD_ID);
    }
    /* Another process may read the image meanwhile, no more. */
    exp = block_export_add(opts, BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE_UNCHANGED, errp);
    bdrv_unref(bs);
    return exp ? 0 : -1;
}

static void tear_down(IOThread *iothread)
{
    nbd_server_stop();
    bdrv_close_all();
    if (iothread) {
        iothread_free(iothread);
    }
}

static int set_up(const NbdToolOptions *o, const int *fds, int n_fds, IOThread **iothread,
                  Error **errp)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    loop = g_main_loop_new(NULL, FALSE);
    g_unix_signal_add(SIGTERM, quit, NULL);
    g_unix_signal_add(SIGINT, quit, NULL);
    g_unix_signal_add(SIGHUP, quit, NULL);
    nbd_export_register();
    if (start_server(o, fds, n_fds, errp) < 0 || add_export(o, iothread, errp) < 0 ||
        (o->pid_file && pidfile_create(o->pid_file, errp) < 0)) {
        return -1;
    }
    return daemonize_finish(errp);
}

static int serve(const NbdToolOptions *o)
{
    IOThread *iothread = NULL;
    int fds[LISTEN_FDS_MAX], n_fds;
    int status = EXIT_SUCCESS;
    Error *err = NULL;

    persistent = o->persistent;
    n_fds = activated_sockets(fds, o, &err);
    if (n_fds < 0 || (o->fork && daemonize_begin(&err) < 0)) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    /* Not before the process is the one that stays. */
    aio_context_main();
    if (set_up(o, fds, n_fds, &iothread, &err) == 0) {
        g_main_loop_run(loop);
    } else {
        error_report_err(err);
        status = EXIT_FAILURE;
    }
    tear_down(iothread);
    return status;
}

static int list(const NbdToolOptions *o)
{
    g_autoptr(SocketAddress) addr = address_of(o);
    Error *err = NULL;

    if (!o->socket && !o->bind) {
        g_free(addr->u.inet.host);
        addr->u.inet.host = g_strdup("localhost");
    }
    if (nbd_tool_list(addr, &err) < 0) {
        error_report_err(err);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    g_autoptr(NbdToolOptions) o = NULL;
    g_autofree char *help = NULL;
    Error *err = NULL;

    g_set_prgname("ferry-nbd");
    o = nbd_tool_parse(argc, argv, &err);
    if (!o) {
        error_append_hint(&err, "Try 'ferry-nbd --help'\n");
        error_report_err(err);
        return EXIT_FAILURE;
    }
    switch (o->mode) {
    case NBD_TOOL_HELP:
        help = nbd_tool_help();
        fputs(help, stdout);
        return EXIT_SUCCESS;
    case NBD_TOOL_VERSION:
        printf("ferry-nbd " FERRY_VERSION "\nCopyright (C) 2026 The Ferry developers\n");
        return EXIT_SUCCESS;
    case NBD_TOOL_LIST:
        return list(o);
    default:
        return serve(o);
    }
}
