/*
 * A channel over memory: what is written stays, and can be read from the beginning.
 *
 * There is one position for both directions, as in a file: write, seek back, read. Writing at a
 * position beyond the end fills the gap with zeros. It never waits, and is always ready.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef IO_CHANNEL_BUFFER_H
#define IO_CHANNEL_BUFFER_H

#include "io/channel.h"

typedef struct QIOChannelBuffer QIOChannelBuffer;

/* An empty one with room for @capacity bytes before memory has to be moved. */
QIOChannelBuffer *qio_channel_buffer_new(size_t capacity);
/* What is in it, until the next write, and how much. */
const uint8_t *qio_channel_buffer_data(QIOChannelBuffer *b, size_t *size);

#endif
