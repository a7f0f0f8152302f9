/*
 * ferry-nbd: from the command line to an open node.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_FERRY_NBD_IMAGE_H
#define TOOLS_FERRY_NBD_IMAGE_H

#include "block/graph.h"
#include "tools/ferry-nbd-options.h"

/* A reference to the node that is to be served; NULL with @errp set. */
BlockDriverState *nbd_tool_open_image(const NbdToolOptions *o, Error **errp);

#endif
