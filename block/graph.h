/*
 * The graph: nodes, their names and references, the edges between them and who holds them.
 *
 * All of this happens on the main thread, under the big lock where there is one, and outside of
 * coroutines. An edge is changed only while the nodes at both ends are drained:
 * bdrv_drained_begin() stops new requests at the users' BlockBackends and waits for those under
 * way.
 *
 * AioContexts. Each node has a home context; nodes that are connected have the same one, the main
 * context unless a device moved them. Requests of a node run there. Users in other threads need not
 * know: BlockBackend carries a request over and back; and nodes whose whole tree is made of
 * thread-safe drivers (file, raw) take requests in any thread.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BLOCK_GRAPH_H
#define BLOCK_GRAPH_H

#include "block/common.h"
#include "qapi/qapi-types-block-core.h"

/*
 * Opening
 * ------------------------------------------------------------------------------------------
 */

struct json_object;

/*
 * bdrv_open:
 * @opts: a description of the node and its children; not kept
 *
 * Open a node. Its node name is that of @opts or a generated one ("#block017").
 * Returns: a reference to it; NULL with @errp set.
 */
BlockDriverState *bdrv_open(const BlockdevOptions *opts, Error **errp);

/*
 * bdrv_options_for_file:
 * @filename: a path; or nbd:unix:PATH[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME],
 * nbd://..., nbd+unix://...;
 *     or json:{...}, a whole description; or "null-co://"
 * @format: the name of a format driver; NULL: look into the file (only where a person asks for
 * that)
 *
 * The description of an image by its name, as ferry-img and -drive take it: the protocol below a
 * format.
 * Generic members (read-only, cache, discard) are the caller's to fill in afterwards on the top
 * node; bdrv_open() hands them down.
 * Returns: the caller's; NULL with @errp set.
 */
BlockdevOptions *bdrv_options_for_file(const char *filename, const char *format, Error **errp);

/*
 * bdrv_options_from_text:
 * @text: KEY=VALUE,... or JSON, as --image-opts takes it; the first value may be a driver's name
 * alone
 *
 * Returns: the description; NULL with @errp set. What has a filename and no driver is a file, or a
 * host device; at the top, where a child "file" is described and no driver, the format is what that
 * file looks like. JSON may have dotted keys at its top.
 */
BlockdevOptions *bdrv_options_from_text(const char *text, Error **errp);
/* The same for the members of @obj, whose values are text: "driver" is added where it is implied. */
void bdrv_imply_file_drivers(struct json_object *obj);
/*
 * The name of the driver whose format an image of @filename seems to have: "raw" when none knows
 * it. Only reads. NULL with @errp set when it cannot be read.
 */
const char *bdrv_probe_format(const char *filename, Error **errp);

/*
 * Names and references
 * ------------------------------------------------------------------------------
 */

void bdrv_ref(BlockDriverState *bs);
/* The last one closes the node; its data is flushed. NULL is allowed. */
void bdrv_unref(BlockDriverState *bs);
const char *bdrv_get_node_name(const BlockDriverState *bs);
/* What it is open on, for people: a file name, or "json:{...}"; owned by the node. */
const char *bdrv_get_filename(const BlockDriverState *bs);
const char *bdrv_get_format_name(const BlockDriverState *bs);
/* NULL when there is none. */
BlockDriverState *bdrv_find_node(const char *node_name);
/*
 * A node by its name or by the name of the BlockBackend on it (`-drive id=`). NULL with @errp set.
 */
BlockDriverState *bdrv_lookup(const char *device_or_node, Error **errp);
/* All nodes in the order in which they were opened: NULL starts, NULL ends. */
BlockDriverState *bdrv_next_node(BlockDriverState *after);

/* What a monitor owns: blockdev-add keeps a reference until blockdev-del. */
void bdrv_set_monitor_owned(BlockDriverState *bs);
BlockDriverState *bdrv_next_monitor_owned(BlockDriverState *after);
/* Close everything at the end of the process: exports, jobs and devices are gone by then. */
void bdrv_close_all(void);

bool bdrv_is_read_only(const BlockDriverState *bs);
bool bdrv_is_inserted(BlockDriverState *bs);
/* Length in bytes as last known; a negative errno. Main thread; bdrv_co_getlength() asks. */
int64_t bdrv_getlength(BlockDriverState *bs);

/*
 * The path of the backing file that the image of @bs, a format, names: relative to the image's own
 * directory unless it is absolute. The image names one. g_free() it; NULL with @errp set where
 * there is no such path.
 */
char *bdrv_full_backing_filename(const BlockDriverState *bs, Error **errp);

/*
 * The child that reads go to when this node has nothing: backing of a format, the child of a
 * filter.
 */
BlockDriverState *bdrv_filter_or_cow_bs(BlockDriverState *bs);
/* Down through filters to the first node that is none; @bs itself perhaps. */
BlockDriverState *bdrv_skip_filters(BlockDriverState *bs);
/* The backing node below @bs (through filters); NULL. */
BlockDriverState *bdrv_backing_chain_next(BlockDriverState *bs);
/* The child that holds the data: "file" of formats, the child of a filter. */
BlockDriverState *bdrv_primary_bs(BlockDriverState *bs);
/* Whether @base is @top or below it in the chain of backing files. */
bool bdrv_chain_contains(BlockDriverState *top, BlockDriverState *base);

/*
 * Changing the graph
 * ---------------------------------------------------------------------------------
 */

/*
 * Make @bs the backing node of @overlay, NULL: none. Takes a reference of its own.
 * Returns 0, or -1 with @errp set and nothing changed.
 */
int bdrv_set_backing_hd(BlockDriverState *overlay, BlockDriverState *bs, Error **errp);
/*
 * Put @bs_new, which has no backing and no parents but monitor and caller, above @bs_top: all users
 * of
 * @bs_top become users of @bs_new, whose backing is @bs_top. 0, or -1 with @errp set and nothing
 * changed.
 */
int bdrv_append(BlockDriverState *bs_new, BlockDriverState *bs_top, Error **errp);
/*
 * Let all users of @from use @to instead, except edges inside @to's own tree. 0, or -1 with @errp
 * set.
 */
int bdrv_replace_node(BlockDriverState *from, BlockDriverState *to, Error **errp);
/* Let the edge point to @new_bs. 0, or -1 with @errp set. */
int bdrv_replace_child(BdrvChild *child, BlockDriverState *new_bs, Error **errp);

/*
 * bdrv_reopen_multiple:
 * @list: nodes by their names, each with its driver and all of its options as bdrv_open() takes
 * them, but
 *     children by their names; "backing" is given where there is one
 *
 * Change the options of nodes while they are used, all of them or none. Children that were opened
 * by the definition of a node in the list follow it in what they inherit. 0, or -1 with @errp set.
 */
int bdrv_reopen_multiple(const BlockdevOptionsList *list, Error **errp);
/* The same for one node and one option. */
int bdrv_reopen_set_read_only(BlockDriverState *bs, bool read_only, Error **errp);

/*
 * Home context
 * ----------------------------------------------------------------------------------------
 */

AioContext *bdrv_get_aio_context(BlockDriverState *bs);
/* Move the node and all that is connected to it. Fails when a user insists on its context. */
int bdrv_try_change_aio_context(BlockDriverState *bs, AioContext *ctx, Error **errp);
/*
 * Whether requests may come from any thread: the whole tree is of thread-safe drivers. Any thread.
 */
bool bdrv_is_thread_safe(const BlockDriverState *bs);

/*
 * Draining
 * --------------------------------------------------------------------------------------------
 */

/*
 * From begin to end no request runs on @bs or anything that reaches it; new ones wait at their
 * BlockBackends. Nests. Not in a coroutine.
 */
void bdrv_drained_begin(BlockDriverState *bs);
void bdrv_drained_end(BlockDriverState *bs);
void bdrv_drain(BlockDriverState *bs);
void bdrv_drain_all_begin(void);
void bdrv_drain_all_end(void);
void bdrv_drain_all(void);

/*
 * A migration's switchover
 * ------------------------------------------------------------------------------
 */

/*
 * Flush every node and give up the right to write, the last thing before another process takes the
 * images over (its locks would refuse it otherwise). 0, or -1 with @errp set; the nodes are active
 * then.
 */
int bdrv_inactivate_all(Error **errp);
/* The reverse: read metadata anew and take the locks. 0, or -1 with @errp set. */
int bdrv_activate_all(Error **errp);
/* The same for one node and what is below it. */
int bdrv_activate(BlockDriverState *bs, Error **errp);
bool bdrv_is_inactive(const BlockDriverState *bs);
/* Nodes opened from now on start inactive: a machine that waits for a migration. */
void bdrv_set_open_inactive(bool inactive);
/*
 * Nodes opened from now on are there to be checked or repaired: a format opens, as it is, an image
 * that it would otherwise refuse as corrupt or repair at once.
 */
void bdrv_set_open_for_check(bool for_check);

/* Flush one node, from outside of coroutines: 0 or a negative errno. */
int bdrv_flush(BlockDriverState *bs);
/* Flush all nodes: 0 or the first negative errno. */
int bdrv_flush_all(void);

#endif
