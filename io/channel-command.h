/*
 * A channel whose other end is a child process: its standard input is what is written, its standard
 * output what is read.
 *
 * The child runs in its own process group, with the standard streams only: what it is not connected
 * to is /dev/null, its standard error is ours. Shutting down the write direction closes its input,
 * and leaves reading what it still has to say.
 *
 * qio_channel_close() closes the pipes and waits for the child; a child that ends with a status
 * other than 0 or by a signal is an error that names the command and says how it ended (death by
 * SIGPIPE is none when we did not read to its end). When both directions have been shut down
 * before, that is a cancel: the child has half a second to end, then its process group gets
 * SIGTERM, after another half SIGKILL, and how it ended is no error.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_CHANNEL_COMMAND_H
#define IO_CHANNEL_COMMAND_H

#include "io/channel.h"

typedef struct QIOChannelCommand QIOChannelCommand;

/*
 * qio_channel_command_new_spawn:
 * @argv: the program (looked for in PATH when it has no slash) and its arguments, NULL-terminated
 * @flags: O_RDONLY to read the child's output, O_WRONLY to write its input, O_RDWR for both
 *
 * Returns: the channel, or NULL with @errp set when the program cannot be started.
 */
QIOChannelCommand *qio_channel_command_new_spawn(const char *const argv[], int flags,
                                                 Error **errp);
/* The process id of the child, until the channel is closed; -1 after that. */
pid_t qio_channel_command_get_pid(QIOChannelCommand *c);

#endif
