/*
 * Fuzzing an NBD client's bytes: the server of this process gets them over a socket, as from
 * anybody.
 *
 * Built twice. With FUZZ_NBD_REQUESTS the handshake is done for the fuzzer, in one of several ways
 * that the first byte chooses, and its bytes are requests; without it they are all that the client
 * ever says.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/dirty-bitmap.h"
#include "block/export.h"
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "tests/fuzz/fuzz.h"
#include "util/bswap.h"

#define DISK_BYTES (1024 * 1024)
#define DEADLINE_US (15 * G_USEC_PER_SEC)

static char *socket_path;

static void remove_socket(void)
{
    g_unlink(socket_path);
}

static BlockDriverState *open_disk(void)
{
    g_autoptr(BlockdevOptions) opts = g_new0(BlockdevOptions, 1);
    int fd = memfd_create("disk", 0);

    g_assert(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    opts->driver = BLOCKDEV_DRIVER_FILE;
    opts->node_name = g_strdup("disk");
    opts->has_discard = true;
    opts->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    opts->u.file.filename = g_strdup_printf("/proc/self/fd/%d", fd);
    opts->u.file.has_locking = true;
    opts->u.file.locking = ON_OFF_AUTO_OFF;
    opts->u.file.has_aio = true;
    opts->u.file.aio = BLOCKDEV_AIO_OPTIONS_THREADS;
    return bdrv_open(opts, &error_abort);
}

static void add_export(void)
{
    BlockDirtyBitmapOrStr bitmap = { .type = QTYPE_QSTRING, .u.local = (char *)"b0" };
    BlockDirtyBitmapOrStrList bitmaps = { .value = &bitmap };
    BlockExportOptions opts = {
        .type = BLOCK_EXPORT_TYPE_NBD, .id = (char *)"e", .node_name = (char *)"disk",
        .has_writable = true, .writable = true,
        .u.nbd = {
            .name = (char *)"e", .description = (char *)"a disk", .has_bitmaps = true,
            .bitmaps = &bitmaps,
            .has_allocation_depth = true, .allocation_depth = true,
        },
    };

    block_export_add(&opts, BLK_PERM_ALL, &error_abort);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    SocketAddress addr = { .type = SOCKET_ADDRESS_TYPE_UNIX };
    NbdServerConfig config = { .addr = &addr, .threads = 1 };

    fuzz_process_init();
    aio_context_main();
    nbd_export_register();
    socket_path = g_strdup_printf("%s/ferry-fuzz-nbd-%d", g_get_tmp_dir(), (int)getpid());
    atexit(remove_socket);
    addr.u.q_unix.path = socket_path;
    open_disk();
    bdrv_create_dirty_bitmap(bdrv_find_node("disk"), 0, "b0", &error_abort);
    nbd_server_start(&config, &error_abort);
    add_export();
    return 0;
}

/* ---- the client ---- */

static int connect_client(void)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(un.sun_path, socket_path, sizeof(un.sun_path));
    g_assert(fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0);
    g_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

static void turn(void)
{
    if (!g_main_context_iteration(NULL, FALSE)) {
        g_thread_yield();
    }
}

/* Drop what the server says; false when it has closed. */
static bool drain(int fd)
{
    char buf[65536];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void say(int fd, const uint8_t *data, size_t size)
{
    gint64 deadline = g_get_monotonic_time() + DEADLINE_US;
    bool open = true;

    while (open && size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

        if (n > 0) {
            data += n;
            size -= n;
        } else if (errno != EAGAIN) {
            break;
        }
        turn();
        open = drain(fd);
        g_assert(g_get_monotonic_time() < deadline);
    }
    shutdown(fd, SHUT_WR);
    while (open) {
        turn();
        open = drain(fd);
        g_assert(g_get_monotonic_time() < deadline);
    }
    close(fd);
    /* The server forgets the client on its main thread. */
    for (int i = 0; i < 8; i++) {
        turn();
    }
}

#ifdef FUZZ_NBD_REQUESTS
static void put32(GByteArray *out, uint32_t value)
{
    uint8_t buf[4];

    stl_be_p(buf, value);
    g_byte_array_append(out, buf, sizeof(buf));
}

static void put_option(GByteArray *out, uint32_t option, const void *data, uint32_t len)
{
    g_byte_array_append(out, (const uint8_t *)"IHAVEOPT", 8);
    put32(out, option);
    put32(out, len);
    g_byte_array_append(out, data, len);
}

/* The handshake as a client would do it that knows more or less of the protocol. */
static void put_handshake(GByteArray *out, uint8_t how)
{
    static const uint8_t contexts[] =
        "\0\0\0\1" "e" "\0\0\0\2" "\0\0\0\17" "base:allocation" "\0\0\0\25" "qemu:allocation-depth";

    put32(out, 3);
    if (how & 1) {
        put_option(out, NBD_OPT_STRUCTURED_REPLY, "", 0);
    }
    if (how & 2) {
        put_option(out, NBD_OPT_EXTENDED_HEADERS, "", 0);
    }
    if (how & 4) {
        put_option(out, NBD_OPT_SET_META_CONTEXT, contexts, sizeof(contexts) - 1);
    }
    if (how & 8) {
        put_option(out, NBD_OPT_EXPORT_NAME, "e", 1);
    } else {
        put_option(out, NBD_OPT_GO, "\0\0\0\1" "e" "\0\0", 7);
    }
}
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

#ifdef FUZZ_NBD_REQUESTS
    if (size < 1) {
        return 0;
    }
    put_handshake(out, data[0]);
    data++;
    size--;
#endif
    g_byte_array_append(out, data, size);
    say(connect_client(), out->data, out->len);
    return 0;
}
