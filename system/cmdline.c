/*
 * The table of options, and the three things that read it: the parser, -help, and the test that
 * looks for each option in the manual page. An option that only sets a flag or keeps a string says
 * where by the offset of the member; what needs more has a function in cmdline-options.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stddef.h>
#include <string.h>
#include "system/cmdline-internal.h"

typedef struct Option {
    const char *name;
    const char *alias;          /* another spelling, or NULL */
    const char *arg;            /* how the argument looks, or NULL when there is none */
    const char *help;           /* lines after the first are indented by the printer */
    enum {
        SET_FLAG,               /* the bool at @offset becomes true */
        SET_STRING,             /* the char * at @offset; a second one replaces it */
        SET_STRING_ONCE,        /* the same, but a second one is an error */
        ADD_TEXT,               /* a TextOption for the GArray at @offset */
        PARSE,
        PRINT_HELP,
        PRINT_VERSION,
        IGNORE,                 /* says what is the case anyway */
    } action;
    size_t offset;
    OptionParser *parse;
} Option;

#define AT(member) .offset = offsetof(CommandLine, member)

static const Option options[] = {
    { "help", "h", NULL, "show this text", PRINT_HELP },
    { "version", NULL, NULL, "show the version", PRINT_VERSION },
    { "machine", "M", "[type=]NAME[,PROP=VALUE...]",
      "machine type, 'help' lists them; properties:\n"
      "memory-backend=ID  the memory-backend object that is the machine's RAM\n"
      "accel=A[:B...]     accelerators to try, as with -accel",
      PARSE, .parse = cmdline_machine },
    { "accel", NULL, "[accel=]NAME[,PROP=VALUE...]",
      "accelerator: kvm, tcg or qtest; may be given several times, the first\n"
      "that works is used; 'help' lists them",
      PARSE, .parse = cmdline_accel },
    { "cpu", NULL, "MODEL[,+FEATURE][,-FEATURE]", "vCPU model, 'help' lists them", PARSE,
      .parse = cmdline_cpu },
    { "smp", NULL, "[cpus=]N[,maxcpus=N][,sockets=N][,cores=N][,threads=N]", "number of vCPUs",
      PARSE, .parse = cmdline_smp },
    { "m", NULL, "[size=]SIZE", "size of RAM, in MiB without a suffix (default 128M)", PARSE,
      .parse = cmdline_memory },
    { "object", NULL, "TYPE,id=ID[,PROP=VALUE...]",
      "create an object, such as memory-backend-ram; also as JSON", ADD_TEXT, AT(objects) },
    { "kernel", NULL, "FILE", "boot FILE: a static ELF64, a Linux bzImage, or a flat binary",
      SET_STRING, AT(machine.kernel) },
    { "initrd", NULL, "FILE", "initial RAM disk for the kernel", SET_STRING, AT(machine.initrd) },
    { "append", NULL, "TEXT", "command line for the kernel", SET_STRING, AT(machine.append) },
    { "blockdev", NULL, "[driver=]DRIVER,node-name=NAME[,PROP=VALUE...]",
      "open a node, as the command blockdev-add; also as JSON", ADD_TEXT, AT(blockdevs) },
    { "drive", NULL, "file=FILE,format=raw|qcow2|...[,id=ID][,if=virtio|none][,PROP=VALUE...]",
      "open a disk; with if=virtio, the default, the machine gets a virtio-blk\n"
      "device for it, and without -kernel the first one's first sector is booted:\n"
      "index=N                      its place among those without id\n"
      "media=disk                   there are no others\n"
      "cache=MODE                   writeback, none, writethrough, directsync, unsafe\n"
      "aio=threads|native|io_uring  how files are read and written\n"
      "discard=ignore|unmap, detect-zeroes=off|on|unmap, read-only=on|off,\n"
      "node-name=NAME, file.locking=auto|on|off, and all others of -blockdev\n"
      "copy-on-read=on|off          keep what is read from a backing file\n"
      "werror=enospc|stop|report|ignore, rerror=report|stop|ignore",
      ADD_TEXT, AT(drives) },
    { "device", NULL, "DRIVER[,PROP=VALUE...]",
      "add a device; 'help' lists them, 'DRIVER,help' its properties; also as JSON", ADD_TEXT,
      AT(devices) },
    { "global", NULL, "DRIVER.PROP=VALUE", "default of a property for every device of a driver",
      ADD_TEXT, AT(globals) },
    { "chardev", NULL, "BACKEND,id=ID[,PROP=VALUE...]",
      "create a character device; 'help' lists "
      "them",
      ADD_TEXT, AT(chardevs) },
    { "serial", NULL, "DEV",
      "connect the next serial port: stdio, file:PATH, unix:PATH,\n"
      "pty, chardev:ID, null, none, ...",
      ADD_TEXT, AT(serials) },
    { "monitor", NULL, "DEV", "human monitor on DEV, in the syntax of -serial", ADD_TEXT,
      AT(monitors) },
    { "qmp", NULL, "DEV", "QMP monitor on DEV", ADD_TEXT, AT(monitors) },
    { "qmp-pretty", NULL, "DEV", "QMP monitor on DEV, with indented JSON", ADD_TEXT, AT(monitors) },
    { "mon", NULL, "[chardev=]ID[,mode=readline|control][,pretty=on|off]",
      "monitor on a character device", ADD_TEXT, AT(monitors) },
    { "qtest", NULL, "DEV", "serve the qtest protocol on DEV", SET_STRING_ONCE, AT(qtest) },
    { "qtest-log", NULL, "FILE", "log the qtest protocol to FILE ('none': do not)", SET_STRING,
      AT(qtest_log) },
    { "incoming", NULL, "URI|JSON|defer", "wait for a migration from URI, or for migrate-incoming",
      SET_STRING_ONCE, AT(incoming) },
    { "S", NULL, NULL, "do not start the machine; cont does", SET_FLAG, AT(stopped) },
    { "name", NULL, "[guest=]NAME[,process=NAME][,debug-threads=on|off]",
      "name of the machine and of the process", PARSE, .parse = cmdline_name },
    { "uuid", NULL, "UUID", "UUID of the machine", PARSE, .parse = cmdline_uuid },
    { "add-fd", NULL, "fd=N,set=N[,opaque=TEXT]",
      "add an inherited file descriptor to a set (/dev/fdset/N)", PARSE, .parse = cmdline_add_fd },
    { "no-reboot", NULL, NULL, "shut down instead of resetting", SET_FLAG, AT(no_reboot) },
    { "no-shutdown", NULL, NULL, "keep the process after a shutdown", SET_FLAG, AT(no_shutdown) },
    { "action", NULL, "[reboot=reset|shutdown][,shutdown=poweroff|pause]",
      "what a reset by the guest and a shutdown do", PARSE, .parse = cmdline_action },
    { "msg", NULL, "[timestamp[=on|off]][,guest-name[=on|off]]",
      "what messages on standard error begin with", PARSE, .parse = cmdline_msg },
    { "pidfile", NULL, "FILE", "write the process id to FILE, and lock it", SET_STRING,
      AT(pidfile) },
    { "daemonize", NULL, NULL, "go into the background once the machine stands", SET_FLAG,
      AT(daemonize) },
    { "nographic", NULL, NULL, "serial port and monitor on standard input and output", SET_FLAG,
      AT(nographic) },
    { "nodefaults", NULL, NULL, "no serial port that was not asked for", SET_FLAG, AT(nodefaults) },
    { "no-user-config", NULL, NULL, "accepted: there are no configuration files", IGNORE },
    { "display", NULL, "none", "accepted: there is no display", PARSE,
      .parse = cmdline_nothing_but_none },
    { "vga", NULL, "none", "accepted: there is no graphics card", PARSE,
      .parse = cmdline_nothing_but_none },
    { "audio", NULL, "none", "accepted: there is no sound", PARSE,
      .parse = cmdline_nothing_but_none },
    { "audiodev", NULL, "[driver=]none,id=ID", "accepted: there is no sound", PARSE,
      .parse = cmdline_audiodev },
};

static const AccelClass *const *accel_classes;
static unsigned accel_class_count;

void cmdline_set_accels(const AccelClass *const *accels, unsigned n)
{
    accel_classes = accels;
    accel_class_count = n;
}

const AccelClass *cmdline_accel_class(unsigned i)
{
    return i < accel_class_count ? accel_classes[i] : NULL;
}

const AccelClass *cmdline_accel_find(const char *name)
{
    for (unsigned i = 0; i < accel_class_count; i++) {
        if (!strcmp(accel_classes[i]->name, name)) {
            return accel_classes[i];
        }
    }
    return NULL;
}

const char *cmdline_option_name(unsigned i)
{
    return i < G_N_ELEMENTS(options) ? options[i].name : NULL;
}

char *cmdline_help(void)
{
    GString *out = g_string_new("usage: ferry-system-x86_64 [options]\n\n");

    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        const Option *option = &options[i];
        g_auto(GStrv) lines = g_strsplit(option->help, "\n", -1);

        if (option->alias) {
            g_string_append_printf(out, "-%s or ", option->alias);
        }
        g_string_append_printf(out, "-%s%s%s\n", option->name, option->arg ? " " : "",
                               option->arg ? option->arg : "");
        for (char **line = lines; *line; line++) {
            g_string_append_printf(out, "                %s\n", *line);
        }
    }
    return g_string_free(out, FALSE);
}

static char *version_text(void)
{
    return g_strdup("Ferry emulator version " FERRY_VERSION "\n"
                    "Copyright (C) 2026 The Ferry developers\n");
}

/* ---- parsing ---- */

static const Option *find_option(const char *text)
{
    const char *name = text + 1;

    if (*name == '-') {
        name++;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (!strcmp(name, options[i].name) || !g_strcmp0(name, options[i].alias)) {
            return &options[i];
        }
    }
    return NULL;
}

static void set_string(char **where, const char *value)
{
    g_free(*where);
    *where = g_strdup(value);
}

static void add_text(CommandLine *cl, const Option *option, const char *arg)
{
    GArray *array = *(GArray **)((char *)cl + option->offset);
    TextOption text = { .option = option->name, .text = g_strdup(arg) };

    g_array_append_val(array, text);
}

static int apply(CommandLine *cl, const Option *option, const char *arg, Error **errp)
{
    void *where = (char *)cl + option->offset;

    switch (option->action) {
    case SET_FLAG:
        *(bool *)where = true;
        return 0;
    case SET_STRING_ONCE:
        if (*(char **)where) {
            error_setg(errp, "the option was given twice");
            return -1;
        }
        set_string(where, arg);
        return 0;
    case SET_STRING:
        set_string(where, arg);
        return 0;
    case ADD_TEXT:
        add_text(cl, option, arg);
        return 0;
    case PARSE:
        return option->parse(cl, arg, errp);
    case PRINT_HELP:
        cl->print = cmdline_help();
        return 0;
    case PRINT_VERSION:
        cl->print = version_text();
        return 0;
    case IGNORE:
        return 0;
    }
    g_assert_not_reached();
}

/* Read the option at @argv[*i], and step over what it took. */
static int parse_one(CommandLine *cl, int argc, char **argv, int *i, Error **errp)
{
    const char *text = argv[(*i)++];
    const Option *option;
    const char *arg = NULL;

    if (text[0] != '-') {
        error_setg(errp, "%s: unexpected argument; options begin with '-'", text);
        return -1;
    }
    option = find_option(text);
    if (!option) {
        error_setg(errp, "%s: invalid option", text);
        return -1;
    }
    if (option->arg) {
        if (*i >= argc) {
            error_setg(errp, "%s: requires an argument", text);
            return -1;
        }
        arg = argv[(*i)++];
    }
    if (apply(cl, option, arg, errp) < 0) {
        error_prepend(errp, "%s%s%s: ", text, arg ? " " : "", arg ? arg : "");
        return -1;
    }
    return 0;
}

/* What no single option can tell. */
static int check_together(CommandLine *cl, Error **errp)
{
    if (!cl->machine.kernel && (cl->machine.initrd || cl->machine.append)) {
        error_setg(errp, "-%s only allowed with -kernel option",
                   cl->machine.initrd ? "initrd" : "append");
        return -1;
    }
    if (cl->daemonize && cl->nographic) {
        error_setg(errp, "-nographic cannot be used with -daemonize");
        return -1;
    }
    return 0;
}

static void fill_defaults(CommandLine *cl)
{
    Machine *machine = &cl->machine;

    if (!machine->klass) {
        machine->klass = machine_class_find(NULL);
    }
    if (!machine->ram_bytes && !machine->memory_backend) {
        machine->ram_bytes = machine->klass->default_ram_bytes;
    }
    if (!machine->cpus) {
        machine->cpus = machine->sockets = machine->cores = machine->threads = 1;
    }
}

CommandLine *cmdline_parse(int argc, char **argv, Error **errp)
{
    g_autoptr(CommandLine) cl = g_new0(CommandLine, 1);

    cl->machine.acpi = cl->machine.auto_kernel_cmdline = true;
    cl->accels = g_array_new(FALSE, FALSE, sizeof(AccelOption));
    cl->objects = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->chardevs = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->blockdevs = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->drives = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->devices = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->globals = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->serials = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->monitors = g_array_new(FALSE, FALSE, sizeof(TextOption));
    cl->add_fds = g_array_new(FALSE, FALSE, sizeof(AddFdOption));

    for (int i = 1; i < argc;) {
        if (parse_one(cl, argc, argv, &i, errp) < 0) {
            return NULL;
        }
        if (cl->print) {
            return g_steal_pointer(&cl);
        }
    }
    if (check_together(cl, errp) < 0) {
        return NULL;
    }
    fill_defaults(cl);
    return g_steal_pointer(&cl);
}

static void free_texts(GArray *array)
{
    for (guint i = 0; i < array->len; i++) {
        g_free(g_array_index(array, TextOption, i).text);
    }
    g_array_free(array, TRUE);
}

void cmdline_free(CommandLine *cl)
{
    if (!cl) {
        return;
    }
    for (guint i = 0; i < cl->accels->len; i++) {
        g_free(g_array_index(cl->accels, AccelOption, i).name);
        json_object_put(g_array_index(cl->accels, AccelOption, i).opts);
    }
    for (guint i = 0; i < cl->add_fds->len; i++) {
        g_free(g_array_index(cl->add_fds, AddFdOption, i).opaque);
    }
    g_array_free(cl->accels, TRUE);
    g_array_free(cl->add_fds, TRUE);
    free_texts(cl->objects);
    free_texts(cl->chardevs);
    free_texts(cl->blockdevs);
    free_texts(cl->drives);
    free_texts(cl->devices);
    free_texts(cl->globals);
    free_texts(cl->serials);
    free_texts(cl->monitors);
    g_free(cl->machine.memory_backend);
    g_free(cl->machine.kernel);
    g_free(cl->machine.initrd);
    g_free(cl->machine.append);
    g_free(cl->machine.boot_disk);
    g_free(cl->cpu_model);
    g_free(cl->qtest);
    g_free(cl->qtest_log);
    g_free(cl->incoming);
    g_free(cl->name);
    g_free(cl->process_name);
    g_free(cl->uuid);
    g_free(cl->pidfile);
    g_free(cl->print);
    g_free(cl);
}
