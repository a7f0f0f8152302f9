/*
 * Command lines of ferry-img: each subcommand has a table of its options, from which parsing, help,
 * and the check of the manual page all come.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TOOLS_IMG_ARGS_H
#define TOOLS_IMG_ARGS_H

#include <stdbool.h>
#include <stdint.h>

/* Values of options that have no letter. */
enum {
    IMG_OPT_HELP = 'h',
    IMG_OPT_IMAGE_OPTS = 256, IMG_OPT_TARGET_IMAGE_OPTS, IMG_OPT_OUTPUT, IMG_OPT_BACKING_CHAIN,
    IMG_OPT_TARGET_IS_ZERO, IMG_OPT_SALVAGE, IMG_OPT_BITMAPS, IMG_OPT_SKIP_BROKEN,
    IMG_OPT_SHRINK, IMG_OPT_PREALLOCATION, IMG_OPT_SIZE, IMG_OPT_FLUSH_INTERVAL,
    IMG_OPT_NO_DRAIN, IMG_OPT_PATTERN, IMG_OPT_ADD, IMG_OPT_REMOVE, IMG_OPT_CLEAR, IMG_OPT_ENABLE,
    IMG_OPT_DISABLE, IMG_OPT_MERGE,
};

typedef struct ImgOption {
    int value;                  /* a letter, or one of the above; 0: end of the table */
    const char *name;           /* after "--"; NULL: only the letter */
    const char *arg;            /* what its argument is called; NULL: it has none */
    const char *help;
} ImgOption;

typedef struct ImgCommand ImgCommand;

/* A command line that is being read. */
typedef struct ImgArgs {
    const ImgCommand *command;
    int argc;
    char **argv;                /* [0] is the subcommand */
    /* After img_next_option(): the option's argument. */
    const char *arg;
    /* After the last option: what is left. */
    int n_operands;
    char **operands;
    /* The line was refused, or was for help: end with this exit status. */
    bool stop;
    int status;
    void *parser;
} ImgArgs;

struct ImgCommand {
    const char *name;
    const char *summary;
    const char *operands;       /* "FILENAME [SIZE]" */
    const ImgOption *options;
    int usage_status;           /* exit status of a line that is refused; 0: 1 */
    /* Reads the options, does the work, returns the exit status. */
    int (*run)(ImgArgs *args);
};

/*
 * The next option's value, its argument in args->arg; -1 when there are no more, or args->stop is
 * set (a message or the help was printed already).
 */
int img_next_option(ImgArgs *args);
/* Print a message and where help is to be had, set stop and status. Always returns args->status. */
int img_usage_error(ImgArgs *args, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Print how the subcommand is used. */
void img_print_help(const ImgCommand *command);

/*
 * args->arg as a size (k, M, G... suffixes), and as a number between @min and @max. False, with a
 * message "Invalid WHAT specified" and stop set, otherwise.
 */
bool img_arg_size(ImgArgs *args, const char *what, int64_t min, int64_t max, int64_t *result);
bool img_arg_number(ImgArgs *args, const char *what, uint64_t min, uint64_t max, uint64_t *result);
/* --output: whether it is JSON. */
bool img_arg_output(ImgArgs *args, bool *json);

#endif
