/*
 * Arguments with a structure of their own. Each function reads its text as key=value pairs, takes
 * the keys it knows out of the object, and refuses what is left, so a property that Ferry does not
 * have never passes unnoticed.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "system/cmdline-internal.h"
#include "util/cutils.h"
#include "util/keyval.h"

#define MIB (1024ull * 1024)
#define RAM_MAX_BYTES (1ull << 46)

/* ---- key=value pairs, one after the other ---- */

/* The value of @key, newly allocated, and out of the object; NULL when it is not there. */
static char *take(struct json_object *pairs, const char *key)
{
    struct json_object *value;
    char *text;

    if (!json_object_object_get_ex(pairs, key, &value) ||
        !json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    text = g_strdup(json_object_get_string(value));
    json_object_object_del(pairs, key);
    return text;
}

/* Nothing may be left. */
static int refuse_rest(struct json_object *pairs, const char *option, Error **errp)
{
    json_object_object_foreach(pairs, key, value) {
        (void)value;
        error_setg(errp, "Property '%s' is not known to -%s", key, option);
        return -1;
    }
    return 0;
}

static int parse_on_off(const char *key, const char *text, bool *result, Error **errp)
{
    if (!strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true")) {
        *result = true;
    } else if (!strcmp(text, "off") || !strcmp(text, "no") || !strcmp(text, "false")) {
        *result = false;
    } else {
        error_setg(errp, "Parameter '%s' expects 'on' or 'off', not '%s'", key, text);
        return -1;
    }
    return 0;
}

typedef struct json_object Pairs;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Pairs, json_object_put)

/* ---- machine and accelerator ---- */

static int accel_by_name(CommandLine *cl, const char *name, Pairs *opts, Error **errp)
{
    AccelOption accel = { .name = g_strdup(name), .opts = json_object_get(opts) };

    if (!cmdline_accel_find(name)) {
        error_setg(errp, "invalid accelerator %s", name);
        g_free(accel.name);
        json_object_put(opts);
        return -1;
    }
    g_array_append_val(cl->accels, accel);
    return 0;
}

static char *accel_list(void)
{
    GString *out = g_string_new("Accelerators supported by ferry-system-x86_64:\n");

    for (unsigned i = 0; cmdline_accel_class(i); i++) {
        g_string_append_printf(out, "%s\n", cmdline_accel_class(i)->name);
    }
    return g_string_free(out, FALSE);
}

int cmdline_accel(CommandLine *cl, const char *arg, Error **errp)
{
    bool help = false;
    g_autoptr(Pairs) pairs = keyval_parse(arg, "accel", &help, errp);
    g_autofree char *name = NULL;

    if (help) {
        cl->print = accel_list();
        return 0;
    }
    if (!pairs) {
        return -1;
    }
    name = take(pairs, "accel");
    if (!name) {
        error_setg(errp, "Parameter 'accel' is missing");
        return -1;
    }
    return accel_by_name(cl, name, json_object_object_length(pairs) ? pairs : NULL, errp);
}

static char *machine_list(void)
{
    GString *out = g_string_new("Supported machines are:\n");

    for (const MachineClass *klass = NULL; (klass = machine_class_next(klass));) {
        g_string_append_printf(out, "%-20s %s%s\n", klass->name, klass->desc,
                               klass->is_default ? " (default)" : "");
    }
    return g_string_free(out, FALSE);
}

static int machine_accels(CommandLine *cl, const char *list, Error **errp)
{
    g_auto(GStrv) names = g_strsplit(list, ":", -1);

    if (cl->accels->len) {
        error_setg(errp, "The -accel and \"-machine accel=\" options are incompatible");
        return -1;
    }
    for (char **name = names; *name; name++) {
        if (accel_by_name(cl, *name, NULL, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

int cmdline_machine(CommandLine *cl, const char *arg, Error **errp)
{
    bool help = false;
    g_autoptr(Pairs) pairs = keyval_parse(arg, "type", &help, errp);
    g_autofree char *type = NULL, *backend = NULL, *accels = NULL, *acpi = NULL,
                    *auto_cmdline = NULL;

    if (help) {
        cl->print = machine_list();
        return 0;
    }
    if (!pairs) {
        return -1;
    }
    type = take(pairs, "type");
    backend = take(pairs, "memory-backend");
    accels = take(pairs, "accel");
    acpi = take(pairs, "acpi");
    auto_cmdline = take(pairs, "auto-kernel-cmdline");
    if ((acpi && parse_on_off("acpi", acpi, &cl->machine.acpi, errp) < 0) ||
        (auto_cmdline && parse_on_off("auto-kernel-cmdline", auto_cmdline,
                                      &cl->machine.auto_kernel_cmdline, errp) < 0)) {
        return -1;
    }
    if (type) {
        cl->machine.klass = machine_class_find(type);
        if (!cl->machine.klass) {
            error_setg(errp, "unsupported machine type '%s'", type);
            error_append_hint(errp, "Use -machine help to list supported machines\n");
            return -1;
        }
    }
    if (backend) {
        g_free(cl->machine.memory_backend);
        cl->machine.memory_backend = g_steal_pointer(&backend);
    }
    if (accels && machine_accels(cl, accels, errp) < 0) {
        return -1;
    }
    return refuse_rest(pairs, "machine", errp);
}

/* Every model of every accelerator, once, with the accelerators that have it. */
static char *cpu_help(void)
{
    g_autoptr(GHashTable) owners = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    GString *out = g_string_new("Available CPUs:\n");

    for (unsigned a = 0; cmdline_accel_class(a); a++) {
        const AccelClass *klass = cmdline_accel_class(a);
        const char *name;

        for (unsigned i = 0; klass->cpu_model && (name = klass->cpu_model(i)); i++) {
            const char *known = g_hash_table_lookup(owners, name);

            if (!known) {
                g_ptr_array_add(names, (void *)name);
            }
            g_hash_table_replace(owners, (void *)name,
                                 g_strconcat(known ?: "", known ? ", " : "", klass->name, NULL));
        }
    }
    for (guint i = 0; i < names->len; i++) {
        const char *name = names->pdata[i];

        g_string_append_printf(out, "  %-10s (%s)\n", name,
                               (const char *)g_hash_table_lookup(owners, name));
    }
    return g_string_free(out, FALSE);
}

/* Whether any accelerator knows the model that @arg, MODEL[,FEATURES], begins with. */
static bool is_cpu_model(const char *arg)
{
    size_t len = strcspn(arg, ",");

    for (unsigned a = 0; cmdline_accel_class(a); a++) {
        const AccelClass *klass = cmdline_accel_class(a);
        const char *name;

        for (unsigned i = 0; klass->cpu_model && (name = klass->cpu_model(i)); i++) {
            if (strlen(name) == len && !strncmp(name, arg, len)) {
                return true;
            }
        }
    }
    return false;
}

/* The accelerator reads the model; here only what is none anywhere. */
int cmdline_cpu(CommandLine *cl, const char *arg, Error **errp)
{
    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        cl->print = cpu_help();
        return 0;
    }
    if (!is_cpu_model(arg)) {
        error_setg(errp, "unable to find CPU model '%s'; -cpu help lists those that there are", arg);
        return -1;
    }
    g_free(cl->cpu_model);
    cl->cpu_model = g_strdup(arg);
    return 0;
}

static int take_count(Pairs *pairs, const char *key, uint64_t *count, Error **errp)
{
    g_autofree char *text = take(pairs, key);

    *count = 0;
    if (!text) {
        return 0;
    }
    if (!parse_uint64_range(text, 0, UINT32_MAX, count, errp)) {
        error_prepend(errp, "Parameter '%s': ", key);
        return -1;
    }
    if (*count == 0) {
        error_setg(errp, "Invalid CPU topology: CPU topology parameters must be greater than zero");
        return -1;
    }
    return 0;
}

/* Counts that were not given follow from those that were: cores first, one socket, one thread. */
int cmdline_smp(CommandLine *cl, const char *arg, Error **errp)
{
    g_autoptr(Pairs) pairs = keyval_parse(arg, "cpus", NULL, errp);
    uint64_t cpus, max, sockets, cores, threads;

    if (!pairs || take_count(pairs, "cpus", &cpus, errp) < 0 ||
        take_count(pairs, "maxcpus", &max, errp) < 0 ||
        take_count(pairs, "sockets", &sockets, errp) < 0 ||
        take_count(pairs, "cores", &cores, errp) < 0 ||
        take_count(pairs, "threads", &threads, errp) < 0 || refuse_rest(pairs, "smp", errp) < 0) {
        return -1;
    }
    max = max ? max : cpus;
    threads = threads ? threads : 1;
    if (!sockets) {
        sockets = cores && max ? MAX(max / (cores * threads), 1) : 1;
    }
    if (!cores) {
        cores = max ? MAX(max / (sockets * threads), 1) : 1;
    }
    if (sockets > CPUS_MAX || cores > CPUS_MAX || threads > CPUS_MAX || max > CPUS_MAX) {
        error_setg(errp, "Invalid CPU topology: at most %d vCPUs are possible", CPUS_MAX);
        return -1;
    }
    max = max ? max : sockets * cores * threads;
    cpus = cpus ? cpus : max;
    if (sockets * cores * threads != max) {
        error_setg(errp, "Invalid CPU topology: product of the hierarchy must match maxcpus: "
                   "sockets (%" PRIu64 ") * cores (%" PRIu64 ") * threads (%" PRIu64 ") != maxcpus "
                   "(%" PRIu64 ")", sockets, cores, threads, max);
        return -1;
    }
    if (cpus != max) {
        error_setg(errp, "maxcpus (%" PRIu64 ") must be equal to cpus (%" PRIu64 "): vCPUs cannot "
                   "be added later", max, cpus);
        return -1;
    }
    cl->machine.cpus = cpus;
    cl->machine.sockets = sockets;
    cl->machine.cores = cores;
    cl->machine.threads = threads;
    return 0;
}

int cmdline_memory(CommandLine *cl, const char *arg, Error **errp)
{
    g_autoptr(Pairs) pairs = keyval_parse(arg, "size", NULL, errp);
    g_autofree char *size = NULL;
    uint64_t bytes;

    if (!pairs) {
        return -1;
    }
    size = take(pairs, "size");
    if (refuse_rest(pairs, "m", errp) < 0) {
        return -1;
    }
    if (!size) {
        error_setg(errp, "Parameter 'size' is missing");
        return -1;
    }
    if (!parse_size_unit(size, MIB, &bytes, errp)) {
        return -1;
    }
    if (bytes > RAM_MAX_BYTES) {
        error_setg(errp, "ram size too large: %" PRIu64 " bytes, at most %llu are possible", bytes,
                   RAM_MAX_BYTES);
        return -1;
    }
    cl->machine.ram_bytes = (bytes + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK;
    return 0;
}

/* ---- descriptors and names ---- */

static int take_number(Pairs *pairs, const char *key, uint64_t max, uint64_t *number, Error **errp)
{
    g_autofree char *text = take(pairs, key);

    if (!text) {
        error_setg(errp, "Parameter '%s' is missing", key);
        return -1;
    }
    if (!parse_uint64_range(text, 0, max, number, errp)) {
        error_prepend(errp, "Parameter '%s': ", key);
        return -1;
    }
    return 0;
}

int cmdline_add_fd(CommandLine *cl, const char *arg, Error **errp)
{
    g_autoptr(Pairs) pairs = keyval_parse(arg, NULL, NULL, errp);
    AddFdOption add = {};
    uint64_t fd, set;

    if (!pairs || take_number(pairs, "fd", INT32_MAX, &fd, errp) < 0 ||
        take_number(pairs, "set", INT64_MAX, &set, errp) < 0) {
        return -1;
    }
    if (fd <= 2) {
        error_setg(errp, "fd cannot be a standard I/O stream");
        return -1;
    }
    add.opaque = take(pairs, "opaque");
    if (refuse_rest(pairs, "add-fd", errp) < 0) {
        g_free(add.opaque);
        return -1;
    }
    add.fd = fd;
    add.set = set;
    g_array_append_val(cl->add_fds, add);
    return 0;
}

int cmdline_name(CommandLine *cl, const char *arg, Error **errp)
{
    g_autoptr(Pairs) pairs = keyval_parse(arg, "guest", NULL, errp);
    g_autofree char *guest = NULL, *process = NULL, *threads = NULL;
    bool debug_threads;

    if (!pairs) {
        return -1;
    }
    guest = take(pairs, "guest");
    process = take(pairs, "process");
    threads = take(pairs, "debug-threads");
    /* Threads always have names that say what they do. */
    if (refuse_rest(pairs, "name", errp) < 0 ||
        (threads && parse_on_off("debug-threads", threads, &debug_threads, errp) < 0)) {
        return -1;
    }
    if (guest) {
        g_free(cl->name);
        cl->name = g_steal_pointer(&guest);
    }
    if (process) {
        g_free(cl->process_name);
        cl->process_name = g_steal_pointer(&process);
    }
    return 0;
}

int cmdline_uuid(CommandLine *cl, const char *arg, Error **errp)
{
    if (!g_uuid_string_is_valid(arg)) {
        error_setg(errp, "Failed to parse UUID string or wrong format");
        return -1;
    }
    g_free(cl->uuid);
    cl->uuid = g_strdup(arg);
    return 0;
}

/* ---- actions and messages ---- */

int cmdline_action(CommandLine *cl, const char *arg, Error **errp)
{
    g_autoptr(Pairs) pairs = keyval_parse(arg, NULL, NULL, errp);
    g_autofree char *reboot = NULL, *shutdown = NULL;

    if (!pairs) {
        return -1;
    }
    reboot = take(pairs, "reboot");
    shutdown = take(pairs, "shutdown");
    if (refuse_rest(pairs, "action", errp) < 0) {
        return -1;
    }
    if (reboot && strcmp(reboot, "reset") && strcmp(reboot, "shutdown")) {
        error_setg(errp, "Parameter 'reboot' is 'reset' or 'shutdown', not '%s'", reboot);
        return -1;
    }
    if (shutdown && strcmp(shutdown, "poweroff") && strcmp(shutdown, "pause")) {
        error_setg(errp, "Parameter 'shutdown' is 'poweroff' or 'pause', not '%s'", shutdown);
        return -1;
    }
    if (reboot) {
        cl->no_reboot = !strcmp(reboot, "shutdown");
    }
    if (shutdown) {
        cl->no_shutdown = !strcmp(shutdown, "pause");
    }
    return 0;
}

/* The one option whose keys may stand alone, meaning "on". */
int cmdline_msg(CommandLine *cl, const char *arg, Error **errp)
{
    g_auto(GStrv) words = g_strsplit(arg, ",", -1);

    for (char **word = words; *word; word++) {
        g_auto(GStrv) pair = g_strsplit(*word, "=", 2);
        bool *flag = !g_strcmp0(pair[0], "timestamp") ? &cl->msg_timestamp
                   : !g_strcmp0(pair[0], "guest-name") ? &cl->msg_guest_name : NULL;

        if (!flag) {
            error_setg(errp, "Property '%s' is not known to -msg", *word);
            return -1;
        }
        *flag = true;
        if (pair[1] && parse_on_off(pair[0], pair[1], flag, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- what there is not ---- */

int cmdline_nothing_but_none(CommandLine *cl, const char *arg, Error **errp)
{
    if (strcmp(arg, "none")) {
        error_setg(errp, "only 'none' is supported");
        return -1;
    }
    return 0;
}

int cmdline_audiodev(CommandLine *cl, const char *arg, Error **errp)
{
    g_autoptr(Pairs) pairs = keyval_parse(arg, "driver", NULL, errp);
    g_autofree char *driver = NULL, *id = NULL;

    if (!pairs) {
        return -1;
    }
    driver = take(pairs, "driver");
    id = take(pairs, "id");
    if (!id) {
        error_setg(errp, "Parameter 'id' is missing");
        return -1;
    }
    if (g_strcmp0(driver, "none")) {
        error_setg(errp, "only driver 'none' is supported");
        return -1;
    }
    return refuse_rest(pairs, "audiodev", errp);
}
