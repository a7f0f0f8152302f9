/*
 * ferry-nbd --list, by libnbd: one connection asks for the names, then one each export for its
 * facts.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/ferry-nbd-list.h"

#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>

#include "io/sockets.h"
#include "nbd/protocol.h"

typedef struct nbd_handle NbdHandle;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdHandle, nbd_close)

typedef struct Listed {
    char *name, *description;
} Listed;

static void listed_free(void *opaque)
{
    Listed *listed = opaque;

    g_free(listed->name);
    g_free(listed->description);
    g_free(listed);
}

static int add_listed(void *opaque, const char *name, const char *description)
{
    Listed *listed = g_new0(Listed, 1);

    listed->name = g_strdup(name);
    listed->description = g_strdup(description);
    g_ptr_array_add(opaque, listed);
    return 0;
}

static int add_text(void *opaque, const char *text)
{
    g_ptr_array_add(opaque, g_strdup(text));
    return 0;
}

/* In the phase of options. */
static NbdHandle *connect_to(const SocketAddress *addr, Error **errp)
{
    g_autoptr(NbdHandle) nbd = nbd_create();
    int fd;

    if (!nbd) {
        error_setg(errp, "libnbd: %s", nbd_get_error());
        return NULL;
    }
    fd = socket_connect(addr, -1, errp);
    if (fd < 0) {
        return NULL;
    }
    /* The descriptor is libnbd's, also when this fails. */
    if (nbd_set_opt_mode(nbd, true) < 0 || nbd_set_full_info(nbd, true) < 0 ||
        nbd_add_meta_context(nbd, "base:allocation") < 0 || nbd_connect_socket(nbd, fd) < 0) {
        error_setg(errp, "libnbd: %s", nbd_get_error());
        return NULL;
    }
    return g_steal_pointer(&nbd);
}

static void print_flags(NbdHandle *nbd)
{
    const struct {
        int value;
        int bit;
        const char *name;
    } flags[] = {
        { nbd_is_read_only(nbd), NBD_FLAG_READ_ONLY, "readonly" },
        { nbd_can_flush(nbd), NBD_FLAG_SEND_FLUSH, "flush" },
        { nbd_can_fua(nbd), NBD_FLAG_SEND_FUA, "fua" },
        { nbd_is_rotational(nbd), NBD_FLAG_ROTATIONAL, "rotational" },
        { nbd_can_trim(nbd), NBD_FLAG_SEND_TRIM, "trim" },
        { nbd_can_zero(nbd), NBD_FLAG_SEND_WRITE_ZEROES, "zeroes" },
        { nbd_can_df(nbd), NBD_FLAG_SEND_DF, "df" },
        { nbd_can_multi_conn(nbd), NBD_FLAG_CAN_MULTI_CONN, "multi" },
        { nbd_can_cache(nbd), NBD_FLAG_SEND_CACHE, "cache" },
        { nbd_can_fast_zero(nbd), NBD_FLAG_SEND_FAST_ZERO, "fast-zero" },
    };
    unsigned bits = NBD_FLAG_HAS_FLAGS;

    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        bits |= flags[i].value > 0 ? flags[i].bit : 0;
    }
    printf("  flags: 0x%x (", bits);
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++) {
        if (flags[i].value > 0) {
            printf(" %s", flags[i].name);
        }
    }
    printf(" )\n");
}

static void print_contexts(NbdHandle *nbd)
{
    g_autoptr(GPtrArray) contexts = g_ptr_array_new_with_free_func(g_free);

    nbd_clear_meta_contexts(nbd);
    if (nbd_opt_list_meta_context(nbd, (nbd_context_callback) { .callback = add_text,
                                                                .user_data = contexts }) < 0) {
        return;
    }
    printf("  available meta contexts: %u\n", contexts->len);
    for (guint i = 0; i < contexts->len; i++) {
        printf("   %s\n", (char *)g_ptr_array_index(contexts, i));
    }
}

static int print_export(const SocketAddress *addr, const Listed *listed, Error **errp)
{
    g_autoptr(NbdHandle) nbd = connect_to(addr, errp);

    if (!nbd) {
        return -1;
    }
    printf(" export: '%s'\n", listed->name);
    if (listed->description && *listed->description) {
        printf("  description: %s\n", listed->description);
    }
    if (nbd_set_export_name(nbd, listed->name) < 0 || nbd_opt_info(nbd) < 0) {
        printf("  not available: %s\n", nbd_get_error());
        return 0;
    }
    printf("  size:  %" PRIi64 "\n", nbd_get_size(nbd));
    print_flags(nbd);
    printf("  min block: %" PRIi64 "\n", nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM));
    printf("  opt block: %" PRIi64 "\n", nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED));
    printf("  max block: %" PRIi64 "\n", nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM));
    print_contexts(nbd);
    nbd_opt_abort(nbd);
    return 0;
}

int nbd_tool_list(const SocketAddress *addr, Error **errp)
{
    g_autoptr(GPtrArray) exports = g_ptr_array_new_with_free_func(listed_free);
    g_autoptr(NbdHandle) nbd = connect_to(addr, errp);

    if (!nbd) {
        return -1;
    }
    if (nbd_opt_list(nbd, (nbd_list_callback){ .callback = add_listed, .user_data = exports }) <
        0) {
        error_setg(errp, "the server does not list its exports: %s", nbd_get_error());
        return -1;
    }
    nbd_opt_abort(nbd);
    printf("exports available: %u\n", exports->len);
    for (guint i = 0; i < exports->len; i++) {
        if (print_export(addr, g_ptr_array_index(exports, i), errp) < 0) {
            return -1;
        }
    }
    return 0;
}
