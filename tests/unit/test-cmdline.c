/*
 * The command line: what each option sets, QEMU's defaults, and that every wrong one is an error
 * that names it. The manual page must describe every option of the table.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>
#include "system/accel.h"
#include "system/cmdline.h"

#define MIB (1024ull * 1024)

static const MachineClass microvm = {
    .name = "microvm", .desc = "a machine", .is_default = true, .max_cpus = 16,
    .default_ram_bytes = 128 * MIB,
};
static const MachineClass other = { .name = "other", .desc = "another", .alias = "o" };
static const char *one_model(unsigned i)
{
    return i ? NULL : "max";
}

static const char *two_models(unsigned i)
{
    return i < 2 ? (const char *[]) { "host", "max" }[i] : NULL;
}

static const AccelClass fast = { .name = "kvm", .cpu_model = two_models },
                        slow = { .name = "tcg", .cpu_model = one_model };
static const AccelClass *const accels[] = { &fast, &slow };

static CommandLine *parse(const char *text, Error **errp)
{
    g_autofree char *line = g_strconcat("ferry ", text, NULL);
    g_auto(GStrv) argv = NULL;
    int argc;

    g_assert_true(g_shell_parse_argv(line, &argc, &argv, NULL));
    return cmdline_parse(argc, argv, errp);
}

static CommandLine *good(const char *text)
{
    return parse(text, &error_abort);
}

static const char *text_at(GArray *array, guint i)
{
    return g_array_index(array, TextOption, i).text;
}

static void test_defaults(void)
{
    g_autoptr(CommandLine) cl = good("");

    g_assert_true(cl->machine.klass == &microvm);
    g_assert_cmpuint(cl->machine.ram_bytes, ==, 128 * MIB);
    g_assert_cmpuint(cl->machine.cpus, ==, 1);
    g_assert_cmpuint(cl->accels->len, ==, 0);
    g_assert_false(cl->stopped);
    g_assert_null(cl->incoming);
    g_assert_null(cl->print);
}

static void test_machine(void)
{
    g_autoptr(CommandLine) a = good("-M o,memory-backend=mem,accel=tcg:kvm -cpu max,-avx");
    g_autoptr(CommandLine) b = good("--machine type=microvm -accel tcg,tb-size=4 -accel kvm");

    g_assert_true(a->machine.klass == &other);
    g_assert_cmpstr(a->machine.memory_backend, ==, "mem");
    g_assert_cmpuint(a->machine.ram_bytes, ==, 0);
    g_assert_cmpuint(a->accels->len, ==, 2);
    g_assert_cmpstr(g_array_index(a->accels, AccelOption, 0).name, ==, "tcg");
    g_assert_cmpstr(g_array_index(a->accels, AccelOption, 1).name, ==, "kvm");
    g_assert_cmpstr(a->cpu_model, ==, "max,-avx");
    g_assert_cmpuint(b->accels->len, ==, 2);
    g_assert_cmpstr(json_object_get_string(json_object_object_get(
        g_array_index(b->accels, AccelOption, 0).opts, "tb-size")), ==, "4");
    g_assert_null(g_array_index(b->accels, AccelOption, 1).opts);
}

static void test_memory(void)
{
    static const struct { const char *text; uint64_t bytes; } cases[] = {
        { "-m 64", 64 * MIB }, { "-m 2G", 2048 * MIB }, { "-m size=1.5G", 1536 * MIB },
        { "-m 64 -m 32M", 32 * MIB }, { "-m 0", 128 * MIB }, { "-m 5000001k", 5120004096 },
        { "-m 64G", 65536 * MIB },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(CommandLine) cl = good(cases[i].text);

        g_assert_cmpuint(cl->machine.ram_bytes, ==, cases[i].bytes);
    }
}

static void test_smp(void)
{
    static const struct { const char *text; unsigned cpus, sockets, cores, threads; } cases[] = {
        { "-smp 4", 4, 1, 4, 1 },
        { "-smp 8,sockets=2", 8, 2, 4, 1 },
        { "-smp cpus=8,cores=2", 8, 4, 2, 1 },
        { "-smp 8,threads=2", 8, 1, 4, 2 },
        { "-smp sockets=2,cores=3,threads=2", 12, 2, 3, 2 },
        { "-smp 16,maxcpus=16", 16, 1, 16, 1 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(CommandLine) cl = good(cases[i].text);

        g_assert_cmpuint(cl->machine.cpus, ==, cases[i].cpus);
        g_assert_cmpuint(cl->machine.sockets, ==, cases[i].sockets);
        g_assert_cmpuint(cl->machine.cores, ==, cases[i].cores);
        g_assert_cmpuint(cl->machine.threads, ==, cases[i].threads);
    }
}

static void test_kernel(void)
{
    g_autoptr(CommandLine) a = good("-kernel k -initrd i -append 'a b=c,d'");

    g_assert_cmpstr(a->machine.kernel, ==, "k");
    g_assert_cmpstr(a->machine.initrd, ==, "i");
    g_assert_cmpstr(a->machine.append, ==, "a b=c,d");
}

static void test_rest(void)
{
    g_autoptr(CommandLine) cl = good(
        "-S -nodefaults -no-user-config -display none -vga none -audio none -audiodev none,id=a "
        "-name guest=g,process=p,debug-threads=on -uuid 00112233-4455-6677-8899-aabbccddeeff "
        "-add-fd fd=7,set=3,opaque=x -msg timestamp,guest-name=off -pidfile pid -daemonize "
        "-qmp stdio -qmp-pretty pty -monitor none -mon chardev=c,mode=control -serial null "
        "-serial none -device memstress,id=m -device '{\"driver\":\"memstress\"}' "
        "-object memory-backend-ram,id=r,size=1G -chardev null,id=n -qtest unix:x -qtest-log l "
        "-drive file=/tmp/a,,b.img,format=raw -blockdev null-co,node-name=n -drive id=d "
        "-incoming defer -no-reboot -action shutdown=pause");

    g_assert_true(cl->stopped && cl->nodefaults && cl->daemonize && !cl->nographic);
    g_assert_true(cl->no_reboot && cl->no_shutdown);
    g_assert_true(cl->msg_timestamp && !cl->msg_guest_name);
    g_assert_cmpstr(cl->name, ==, "g");
    g_assert_cmpstr(cl->process_name, ==, "p");
    g_assert_cmpstr(cl->uuid, ==, "00112233-4455-6677-8899-aabbccddeeff");
    g_assert_cmpstr(cl->pidfile, ==, "pid");
    g_assert_cmpstr(cl->qtest, ==, "unix:x");
    g_assert_cmpstr(cl->qtest_log, ==, "l");
    g_assert_cmpstr(cl->incoming, ==, "defer");
    g_assert_cmpuint(cl->monitors->len, ==, 4);
    g_assert_cmpstr(g_array_index(cl->monitors, TextOption, 1).option, ==, "qmp-pretty");
    g_assert_cmpstr(text_at(cl->monitors, 3), ==, "chardev=c,mode=control");
    g_assert_cmpuint(cl->serials->len, ==, 2);
    g_assert_cmpstr(text_at(cl->serials, 1), ==, "none");
    g_assert_cmpuint(cl->devices->len, ==, 2);
    g_assert_cmpstr(text_at(cl->devices, 1), ==, "{\"driver\":\"memstress\"}");
    g_assert_cmpuint(cl->objects->len, ==, 1);
    g_assert_cmpuint(cl->chardevs->len, ==, 1);
    g_assert_cmpuint(cl->drives->len, ==, 2);
    g_assert_cmpstr(text_at(cl->drives, 0), ==, "file=/tmp/a,,b.img,format=raw");
    g_assert_cmpuint(cl->blockdevs->len, ==, 1);
    g_assert_cmpuint(cl->add_fds->len, ==, 1);
    g_assert_cmpint(g_array_index(cl->add_fds, AddFdOption, 0).fd, ==, 7);
    g_assert_cmpint(g_array_index(cl->add_fds, AddFdOption, 0).set, ==, 3);
    g_assert_cmpstr(g_array_index(cl->add_fds, AddFdOption, 0).opaque, ==, "x");
}

static void test_action(void)
{
    g_autoptr(CommandLine) cl =
        good("-no-reboot -no-shutdown -action reboot=reset,shutdown=poweroff");

    g_assert_false(cl->no_reboot || cl->no_shutdown);
}

static void test_print(void)
{
    static const struct { const char *text, *part; } cases[] = {
        { "-version", "version " FERRY_VERSION }, { "-h", "usage: ferry-system-x86_64" },
        { "--help", "-uuid UUID" }, { "-machine help", "microvm              a machine (default)" },
        { "-M ?", "other                another" }, { "-accel help", "kvm\ntcg\n" },
        { "-cpu help", "Available CPUs:\n  host       (kvm)\n  max        (kvm, tcg)\n" },
        /* What comes after is not looked at. */
        { "-help -nonsense", "usage:" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(CommandLine) cl = good(cases[i].text);

        g_assert_nonnull(cl->print);
        g_assert_nonnull(strstr(cl->print, cases[i].part));
    }
}

static const struct { const char *text, *message;
} bad[] = {
    { "-nonsense", "-nonsense: invalid option" },
    { "-", "-: invalid option" },
    { "disk.img", "disk.img: unexpected argument; options begin with '-'" },
    { "-m", "-m: requires an argument" },
    { "-S -incoming", "-incoming: requires an argument" },
    { "-incoming defer -incoming tcp:0:1", "-incoming tcp:0:1: the option was given twice" },
    { "-machine q35", "-machine q35: unsupported machine type 'q35'" },
    { "-machine microvm,usb=off",
      "-machine microvm,usb=off: Property 'usb' is not known to -machine" },
    { "-accel hax", "-accel hax: invalid accelerator hax" },
    { "-M microvm,accel=kvm:hax", "-M microvm,accel=kvm:hax: invalid accelerator hax" },
    { "-accel kvm -machine accel=tcg",
      "-machine accel=tcg: The -accel and \"-machine accel=\" options are incompatible" },
    { "-m 1G,slots=2", "-m 1G,slots=2: Property 'slots' is not known to -m" },
    { "-m 100000T", NULL },
    { "-m lots", NULL },
    { "-smp 0", "-smp 0: Invalid CPU topology: CPU topology parameters must be greater than zero" },
    { "-smp 17", "-smp 17: Invalid CPU topology: at most 16 vCPUs are possible" },
    { "-smp 4,dies=2", "-smp 4,dies=2: Property 'dies' is not known to -smp" },
    { "-smp 2,maxcpus=4",
      "-smp 2,maxcpus=4: maxcpus (4) must be equal to cpus (2): vCPUs cannot be "
      "added later" },
    { "-smp 4,sockets=3", "-smp 4,sockets=3: Invalid CPU topology: product of the hierarchy must "
                          "match maxcpus: sockets (3) * cores (1) * threads (1) != maxcpus (4)" },
    { "-append x", "-append only allowed with -kernel option" },
    { "-initrd x", "-initrd only allowed with -kernel option" },
    { "-uuid 1234", "-uuid 1234: Failed to parse UUID string or wrong format" },
    { "-name guest=a,colour=red",
      "-name guest=a,colour=red: Property 'colour' is not known to -name" },
    { "-add-fd fd=1,set=1", "-add-fd fd=1,set=1: fd cannot be a standard I/O stream" },
    { "-add-fd set=1", "-add-fd set=1: Parameter 'fd' is missing" },
    { "-action panic=none", "-action panic=none: Property 'panic' is not known to -action" },
    { "-action reboot=none",
      "-action reboot=none: Parameter 'reboot' is 'reset' or 'shutdown', not 'none'" },
    { "-msg colour", "-msg colour: Property 'colour' is not known to -msg" },
    { "-msg timestamp=maybe",
      "-msg timestamp=maybe: Parameter 'timestamp' expects 'on' or 'off', not 'maybe'" },
    { "-display gtk", "-display gtk: only 'none' is supported" },
    { "-audiodev alsa,id=a", "-audiodev alsa,id=a: only driver 'none' is supported" },
    { "-daemonize -nographic", "-nographic cannot be used with -daemonize" },
};

static void test_bad(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_null(parse(bad[i].text, &err));
        g_assert_nonnull(err);
        if (bad[i].message) {
            g_assert_cmpstr(error_get_pretty(err), ==, bad[i].message);
        } else {
            g_assert_true(g_str_has_prefix(error_get_pretty(err), bad[i].text));
        }
    }
}

/* Each option has an item of its own, ".It Fl NAME" at the beginning of a line. */
static void test_manual(void)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "docs", "user",
                                                  "ferry-system-x86_64.1", NULL);
    g_autofree char *manual = NULL;
    const char *name;

    g_assert_true(g_file_get_contents(path, &manual, NULL, NULL));
    for (unsigned i = 0; (name = cmdline_option_name(i)); i++) {
        g_autofree char *item = g_strdup_printf("\n.It Fl %s", name);
        const char *found = strstr(manual, item);

        while (found && !strchr(" \n", found[strlen(item)])) {
            found = strstr(found + 1, item);
        }
        if (!found) {
            g_error("the manual page does not describe -%s", name);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    machine_register(&microvm);
    machine_register(&other);
    cmdline_set_accels(accels, G_N_ELEMENTS(accels));
    g_test_add_func("/cmdline/defaults", test_defaults);
    g_test_add_func("/cmdline/machine", test_machine);
    g_test_add_func("/cmdline/memory", test_memory);
    g_test_add_func("/cmdline/smp", test_smp);
    g_test_add_func("/cmdline/kernel", test_kernel);
    g_test_add_func("/cmdline/rest", test_rest);
    g_test_add_func("/cmdline/action", test_action);
    g_test_add_func("/cmdline/print", test_print);
    g_test_add_func("/cmdline/bad", test_bad);
    g_test_add_func("/cmdline/manual", test_manual);
    return g_test_run();
}
