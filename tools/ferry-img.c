/*
 * ferry-img: making, looking at, copying and changing disk images. The subcommands are spelled as
 * qemu-img's.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tools/img-common.h"

const ImgCommand *const img_commands[] = {
    &img_cmd_bench,   &img_cmd_bitmap, &img_cmd_check,  &img_cmd_commit,   &img_cmd_compare,
    &img_cmd_convert, &img_cmd_create, &img_cmd_dd,     &img_cmd_info,     &img_cmd_map,
    &img_cmd_measure, &img_cmd_rebase, &img_cmd_resize, &img_cmd_snapshot, NULL,
};

static void print_formats(void)
{
    printf("\nSupported formats:");
    for (size_t i = 0; block_drivers[i]; i++) {
        printf(" %s", block_drivers[i]->format_name);
    }
    putchar('\n');
}

static void print_help(void)
{
    printf("Usage: ferry-img COMMAND [OPTION]... [OPERAND]...\n"
           "Make, look at, copy and change disk images.\n\nCommands:\n");
    for (size_t i = 0; img_commands[i]; i++) {
        printf("  %-10s %s\n", img_commands[i]->name, img_commands[i]->summary);
    }
    printf("\nOptions:\n"
           "  -h, --help     print this help; after a command, that of the command\n"
           "  -V, --version  print the version\n"
           "\nSizes are bytes, or have one of the suffixes k, M, G, T, P, E (powers of 1024).\n"
           "Cache modes: none, writeback, writethrough, directsync, unsafe.\n");
    print_formats();
}

static const ImgCommand *find_command(const char *name)
{
    for (size_t i = 0; img_commands[i]; i++) {
        if (!strcmp(img_commands[i]->name, name)) {
            return img_commands[i];
        }
    }
    return NULL;
}

static int run_command(const ImgCommand *command, int argc, char **argv)
{
    ImgArgs args = { .command = command, .argc = argc, .argv = argv };
    int status = command->run(&args);

    bdrv_close_all();
    if (!img_flush_stdout() && status == 0) {
        status = 1;
    }
    img_die_of_signal();
    return status;
}

static int complain(const char *fmt, const char *what)
{
    g_autofree char *text = g_strdup_printf("%s%s", fmt, what);

    error_report("%s", text);
    fprintf(stderr, "Try 'ferry-img --help' for more information\n");
    return 1;
}

int main(int argc, char **argv)
{
    const ImgCommand *command;

    g_set_prgname("ferry-img");
    signal(SIGPIPE, SIG_IGN);
    aio_context_main();
    if (argc < 2) {
        return complain("Not enough arguments", "");
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_help();
        return img_flush_stdout() ? 0 : 1;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        printf("ferry-img version %s\n", FERRY_VERSION);
        return img_flush_stdout() ? 0 : 1;
    }
    if (argv[1][0] == '-') {
        return complain("unrecognized option ", argv[1]);
    }
    command = find_command(argv[1]);
    if (!command) {
        return complain("Command not found: ", argv[1]);
    }
    return run_command(command, argc - 1, argv + 1);
}
