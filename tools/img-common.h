/*
 * What the subcommands of ferry-img share: opening images, progress, signals, work by many
 * coroutines.
 *
 * Everything runs on the main thread unless it says otherwise; there is no machine and no big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_IMG_COMMON_H
#define TOOLS_IMG_COMMON_H

#include <json-c/json.h>

#include "block/block-backend.h"
#include "block/driver.h"
#include "tools/img-args.h"

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockBackend, blk_unref)

/* The subcommands, in order of their names; ends with NULL. */
extern const ImgCommand *const img_commands[];
extern const ImgCommand img_cmd_bench, img_cmd_bitmap, img_cmd_check, img_cmd_commit,
    img_cmd_compare, img_cmd_convert, img_cmd_create, img_cmd_dd, img_cmd_info, img_cmd_map,
    img_cmd_measure, img_cmd_rebase, img_cmd_resize, img_cmd_snapshot;

/*
 * Opening
 * -------------------------------------------------------------------------------------------
 */

typedef struct ImgOpen {
    const char *format;         /* NULL: look into the image */
    const char *cache;          /* a cache mode; NULL: writeback */
    bool image_opts;            /* the name is a description, key=value */
    bool writable;
    bool force_share;           /* -U: although others write to it; not with writable */
    bool no_backing;            /* leave the backing file alone */
    bool for_check; /* also an image that is marked as corrupt; nothing is repaired by opening it */
    bool quiet;                 /* no warning about a guessed format */
    const char *snapshot;       /* read this internal snapshot; NULL: the disk as it is */
    bool has_aio;               /* how files are read and written; else as it is best */
    BlockdevAioOptions aio;
} ImgOpen;

/* Whether there is such a cache mode: none, writeback, writethrough, directsync, unsafe. */
bool img_cache_mode_ok(const char *mode);
/* Open an image and hold it; NULL with @errp set, naming the image. */
BlockBackend *img_open(const char *name, const ImgOpen *how, Error **errp);
/* The description that img_open() would open; the caller's. */
BlockdevOptions *img_describe(const char *name, const ImgOpen *how, Error **errp);
/* Let the description's format not look for its backing file. */
void img_drop_backing(BlockdevOptions *opts);
/*
 * The path of a regular file, or one to be, that an image's name means; NULL: it is something else.
 * g_free() it.
 */
char *img_path_of(const char *name);

/*
 * Running
 * -------------------------------------------------------------------------------------------
 */

/*
 * Call @fn(@opaque) in @n coroutines and return when all have returned. With @threads they are
 * spread over up to as many threads as there are CPUs (each coroutine stays in one), else all run
 * in the main thread.
 */
void img_run_workers(unsigned n, CoroutineEntry *fn, void *opaque, bool threads);
/* Call @fn(@opaque) in one coroutine of the main thread and return when it has returned. */
void img_run(CoroutineEntry *fn, void *opaque);

/*
 * From now on SIGINT, SIGTERM and SIGHUP are noted rather than deadly, so that work stops between
 * two requests. A second one ends the process at once, having removed the file that
 * img_staging_begin() made.
 */
void img_catch_signals(void);
/* Whether one came. Any thread. */
bool img_interrupted(void);
/* Die of the signal that came, as who started the program expects; returns when none came. */
void img_die_of_signal(void);
/* For img-staging.c: what the second signal removes; NULL: nothing. */
void img_signal_unlink(const char *path);

/*
 * Progress: "    (12.34/100%)" on one line, when @show; else once at each SIGUSR1. @total is in bytes. One at
 * a time.
 */
void img_progress_begin(bool show, int64_t total);
/* So many bytes are done. Any thread. */
void img_progress_add(int64_t bytes);
void img_progress_end(bool complete);

/* A limit of the rate: bytes a second, 0: none. */
typedef struct ImgRate {
    int64_t bytes_per_s;
    int64_t next_ns;
    Mutex lock;
} ImgRate;
void img_rate_init(ImgRate *rate, int64_t bytes_per_s);
/* Wait until @bytes may be written. Any thread. */
void coroutine_fn img_rate_wait(ImgRate *rate, int64_t bytes);

/*
 * Texts
 * ---------------------------------------------------------------------------------------------
 */

/* Print a JSON value as QEMU does, a member a line. Takes it over. */
void img_print_json(struct json_object *value);
/* stdout is whole, or: a message, and false. */
bool img_flush_stdout(void);

/*
 * Creating (img-new.c)
 * --------------------------------------------------------------------------------
 */

typedef struct ImgCreate {
    const char *filename;
    const char *format;
    GPtrArray *options;         /* texts of -o; NULL: none */
    const char *backing, *backing_format;
    bool backing_unchecked;     /* -u */
    int64_t size;               /* -1: that of the backing file */
    bool quiet;
    const char *shown_name;     /* what messages call it; NULL: filename */
    bool explicit_prealloc;     /* out: -o preallocation= other than off was given */
} ImgCreate;

/* Make an image. 0, or -1 with @errp set. */
int img_make(ImgCreate *c, Error **errp);
/* Whether one of the texts of -o asks for help. */
bool img_wants_option_help(const GPtrArray *options);
/*
 * What -o of @format takes; @filename, when not NULL, adds what its protocol takes. 0, or -1 with
 * @errp set.
 */
int img_print_create_options(const char *format, const char *filename, Error **errp);
/*
 * The texts of -o as one object of strings, checked against what @drv takes; NULL with @errp set.
 * The caller's.
 */
struct json_object *img_parse_create_options(const BlockDriver *drv, const GPtrArray *options,
                                             Error **errp);

/*
 * Staging (img-staging.c)
 * -------------------------------------------------------------------------------
 */

/*
 * A new image is written under another name beside its own and gets its name when it is whole. So a
 * name never stands for half an image, whatever ends the process.
 */
typedef struct ImgStaging {
    char *name;                 /* where to write, as the block layer names it */
    char *path; /* the file that is written, until it has its name; NULL: not staged */
    char *final;                /* that name; NULL: not staged */
    char *in_place;             /* a regular file whose directory cannot be written; NULL: none */
    struct timespec changed;    /* of a file that is replaced: when, before we did anything */
    bool replaces;
    unsigned mode, uid, gid;
} ImgStaging;

/* 0, or -1 with @errp set: what is there is in use, or nothing can be made there. */
int img_staging_begin(ImgStaging *s, const char *filename, Error **errp);
/* The image is whole and closed. 0, or -1 with @errp set. */
int img_staging_commit(ImgStaging *s, Error **errp);
/* Remove what was written, except after commit. Frees what belongs to @s. */
void img_staging_end(ImgStaging *s);

/* Whether an image that was just made there reads as zeroes. */
bool img_new_is_zero(BlockDriverState *bs);

#endif
