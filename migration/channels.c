/*
 * Choosing the transport for an address, refusing what it cannot serve, and keeping track of what
 * is open so that any thread can shut it all down.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/fd-resolver.h"
#include "migration/address.h"
#include "qapi/clone-visitor.h"
#include "qapi/qapi-visit-migration.h"
#include "util/mutex.h"

/* A descriptor is a file when pages can be put at offsets in it, else a stream. */
static const MigrationTransport *transport_for_fd(int fd, Error **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "file descriptor %d cannot be used", fd);
        return NULL;
    }
    return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? &transport_seekable_fd
                                                      : &transport_stream_fd;
}

/* The name of the passed descriptor that the address means, or NULL. */
static const char *fd_name(const MigrationAddress *addr)
{
    return addr->transport == MIGRATION_ADDRESS_TYPE_SOCKET &&
           addr->u.socket.type == SOCKET_ADDRESS_TYPE_FD ? addr->u.socket.u.fd.str : NULL;
}

/*
 * A duplicate of the descriptor: when the migration is refused the original is there still, for
 * another try.
 */
static int borrow_fd(const char *name, Error **errp)
{
    int theirs = io_fd_peek(name, errp);
    int fd = theirs < 0 ? -1 : fcntl(theirs, F_DUPFD_CLOEXEC, 0);

    if (theirs >= 0 && fd < 0) {
        error_setg_errno(errp, errno, "Could not duplicate file descriptor '%s'", name);
    }
    return fd;
}

/* The migration begins: nobody else has the descriptor from now on. */
static void take_fd(const MigrationAddress *addr)
{
    int fd = fd_name(addr) ? io_fd_get(fd_name(addr), NULL) : -1;

    if (fd >= 0) {
        close(fd);
    }
}

static const MigrationTransport *choose_transport(MigrationChannels *mc, Error **errp)
{
    switch (mc->addr->transport) {
    case MIGRATION_ADDRESS_TYPE_SOCKET:
        if (!fd_name(mc->addr)) {
            return &transport_socket;
        }
        mc->fd = borrow_fd(fd_name(mc->addr), errp);
        return mc->fd < 0 ? NULL : transport_for_fd(mc->fd, errp);
    case MIGRATION_ADDRESS_TYPE_EXEC:
        return &transport_exec;
    case MIGRATION_ADDRESS_TYPE_FILE:
        return &transport_file;
    case MIGRATION_ADDRESS_TYPE_RDMA:
        error_setg(errp, "RDMA support is not compiled in");
        return NULL;
    default:
        g_assert_not_reached();
    }
}

/* What the capabilities ask of the transport. */
static int check_capabilities(MigrationChannels *mc, const MigrationOptions *opts, Error **errp)
{
    const MigrationTransport *t = mc->transport;
    bool mapped = migration_cap(opts, MIGRATION_CAPABILITY_DIRECT_MAPPED);
    bool multifd = migration_cap(opts, MIGRATION_CAPABILITY_MULTIFD);

    if (mapped && !t->seekable) {
        error_setg(errp,
                   "Capability 'direct-mapped' needs a regular file or block device, transport "
                   "'%s' (%s) is a stream",
                   t->name, mc->describe);
        return -1;
    }
    if (multifd && !t->several) {
        error_setg(errp,
                   "Capability 'multifd' needs several channels, transport '%s' (%s) has only "
                   "one",
                   t->name, mc->describe);
        return -1;
    }
    if (multifd && t->seekable && !mapped) {
        error_setg(errp, "Capability 'multifd' on transport '%s' (%s) requires capability "
                   "'direct-mapped'", t->name, mc->describe);
        return -1;
    }
    return 0;
}

static MigrationChannels *channels_new(const MigrationAddress *addr, const MigrationOptions *opts,
                                       bool incoming, Error **errp)
{
    MigrationChannels *mc = g_new0(MigrationChannels, 1);

    mc->addr = QAPI_CLONE(MigrationAddress, addr);
    mc->describe = migration_address_describe(addr);
    mc->incoming = incoming;
    mc->want_extra = migration_cap(opts, MIGRATION_CAPABILITY_MULTIFD);
    mc->want_direct = migration_cap(opts, MIGRATION_CAPABILITY_BYPASS_CACHE);
    mc->fd = -1;
    mutex_init(&mc->lock);
    mc->open = g_ptr_array_new();
    mc->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mc->cancel_fd < 0) {
        error_setg_errno(errp, errno, "cannot make an eventfd");
        migration_channels_free(mc);
        return NULL;
    }
    mc->transport = choose_transport(mc, errp);
    if (!mc->transport || check_capabilities(mc, opts, errp) < 0 ||
        (incoming ? mc->transport->incoming(mc, errp) : mc->transport->outgoing(mc, errp)) < 0) {
        migration_channels_free(mc);
        return NULL;
    }
    take_fd(addr);
    return mc;
}

MigrationChannels *migration_channels_new_outgoing(const MigrationAddress *addr,
                                                   const MigrationOptions *opts, Error **errp)
{
    return channels_new(addr, opts, false, errp);
}

MigrationChannels *migration_channels_new_incoming(const MigrationAddress *addr,
                                                   const MigrationOptions *opts, Error **errp)
{
    return channels_new(addr, opts, true, errp);
}

/*
 * Remember @ioc so that a shutdown reaches it; one that comes after a shutdown is refused. Takes
 * over the reference in @ioc when it fails.
 */
static QIOChannel *channels_track(MigrationChannels *mc, QIOChannel *ioc, const char *name,
                                  Error **errp)
{
    if (!ioc) {
        return NULL;
    }
    qio_channel_set_name(ioc, name);
    mutex_lock(&mc->lock);
    bool shut = mc->shut;
    if (!shut) {
        g_ptr_array_add(mc->open, qio_channel_ref(ioc));
    }
    mutex_unlock(&mc->lock);
    if (shut) {
        error_setg(errp, "the migration was cancelled");
        qio_channel_unref(ioc);
        return NULL;
    }
    return ioc;
}

QIOChannel *migration_channels_connect(MigrationChannels *mc, Error **errp)
{
    mc->main = channels_track(mc, mc->transport->connect(mc, errp), "migration-main", errp);
    return mc->main;
}

QIOChannel *migration_channels_open_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    return channels_track(mc, mc->transport->open_extra(mc, direct_io, errp), "migration-ram",
                          errp);
}

QIOChannel *migration_channels_accept(MigrationChannels *mc, Error **errp)
{
    mc->main = channels_track(mc, mc->transport->accept(mc, errp), "incoming-main", errp);
    return mc->main;
}

QIOChannel *migration_channels_accept_extra(MigrationChannels *mc, bool direct_io, Error **errp)
{
    return channels_track(mc, mc->transport->accept_extra(mc, direct_io, errp), "incoming-ram",
                          errp);
}

bool migration_channels_extra_left(MigrationChannels *mc)
{
    return mc->transport->extra_left && mc->transport->extra_left(mc);
}

SocketAddressList *migration_channels_addresses(MigrationChannels *mc)
{
    return mc->transport->addresses ? mc->transport->addresses(mc) : NULL;
}

bool migration_channels_seekable(const MigrationChannels *mc)
{
    return mc->transport->seekable;
}

bool migration_channels_bidirectional(const MigrationChannels *mc)
{
    if (!mc->transport->bidirectional) {
        return false;
    }
    /* A passed descriptor may be a socket or a pipe. */
    int fd = mc->main ? qio_channel_get_fd(mc->main) : -1;
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

const char *migration_channels_describe(const MigrationChannels *mc)
{
    return mc->describe;
}

uint64_t migration_channels_queued(MigrationChannels *mc)
{
    uint64_t bytes = 0;

    mutex_lock(&mc->lock);
    for (unsigned i = 0; i < mc->open->len; i++) {
        int queued;

        if (ioctl(qio_channel_get_fd(g_ptr_array_index(mc->open, i)), SIOCOUTQ, &queued) == 0) {
            bytes += queued;
        }
    }
    mutex_unlock(&mc->lock);
    return bytes;
}

int migration_channels_flush(MigrationChannels *mc, Error **errp)
{
    return mc->transport->flush ? mc->transport->flush(mc, errp) : 0;
}

int migration_channels_finish(MigrationChannels *mc, Error **errp)
{
    return mc->transport->finish ? mc->transport->finish(mc, errp) : 0;
}

void migration_channels_shutdown(MigrationChannels *mc)
{
    uint64_t one = 1;

    mutex_lock(&mc->lock);
    mc->shut = true;
    if (write(mc->cancel_fd, &one, sizeof(one)) < 0) {
        /* The counter is full: it is readable already. */
    }
    for (unsigned i = 0; i < mc->open->len; i++) {
        qio_channel_shutdown(g_ptr_array_index(mc->open, i), QIO_CHANNEL_SHUTDOWN_BOTH, NULL);
    }
    mutex_unlock(&mc->lock);
}

void migration_channels_close(MigrationChannels *mc)
{
    /* Taken out first: a shutdown never meets a channel that is being closed. */
    mutex_lock(&mc->lock);
    GPtrArray *open = g_steal_pointer(&mc->open);
    mc->open = g_ptr_array_new();
    mutex_unlock(&mc->lock);

    for (unsigned i = 0; i < open->len; i++) {
        QIOChannel *ioc = g_ptr_array_index(open, i);
        qio_channel_close(ioc, NULL);
        qio_channel_unref(ioc);
    }
    g_ptr_array_free(open, TRUE);
}

void migration_channels_free(MigrationChannels *mc)
{
    if (!mc) {
        return;
    }
    migration_channels_close(mc);
    if (mc->transport && mc->transport->free && mc->state) {
        mc->transport->free(mc);
    }
    g_clear_pointer(&mc->main, qio_channel_unref);
    g_ptr_array_free(mc->open, TRUE);
    if (mc->fd >= 0) {
        close(mc->fd);
    }
    if (mc->cancel_fd >= 0) {
        close(mc->cancel_fd);
    }
    mutex_destroy(&mc->lock);
    qapi_free_MigrationAddress(mc->addr);
    g_free(mc->describe);
    g_free(mc);
}
