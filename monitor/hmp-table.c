/*
 * HMP's commands. A new command is a line here and a handler; help, completion and the check of its
 * arguments follow from the line.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/hmp.h"

#define COMMAND(name_, alias_, types, params_, help_, handler_, ...) \
    { .name = name_, .alias = alias_, .args_type = types, .params = params_, .help = help_, \
      .handler = handler_, __VA_ARGS__ }

static const HMPCommand info_commands[] = {
    COMMAND("block", NULL, "nodes:-n,verbose:-v,device:B?", "[-n] [-v] [device]",
            "show info of one block device or all block devices (-n: show named nodes; -v: show "
            "details)",
            hmp_info_block, .complete = hmp_complete_disk),
    COMMAND("block-jobs", NULL, "", "", "show progress of ongoing block device operations",
            hmp_info_block_jobs),
    COMMAND("blockstats", NULL, "", "", "show block device statistics", hmp_info_blockstats),
    COMMAND("chardev", NULL, "", "", "show the character devices", hmp_info_chardev),
    COMMAND("cpus", NULL, "", "", "show infos for each CPU", hmp_info_cpus),
    COMMAND("history", NULL, "", "", "show the command line history", hmp_info_history),
    COMMAND("iothreads", NULL, "", "", "show iothreads", hmp_info_iothreads),
    COMMAND("memdev", NULL, "", "", "show memory backends", hmp_info_memdev),
    COMMAND("migrate", NULL, "", "", "show migration status", hmp_info_migrate),
    COMMAND("migrate_capabilities", NULL, "", "", "show current migration capabilities",
            hmp_info_migrate_capabilities),
    COMMAND("migrate_parameters", NULL, "", "", "show current migration parameters",
            hmp_info_migrate_parameters),
    COMMAND("mtree", NULL, "", "", "show memory tree", hmp_info_mtree),
    COMMAND("name", NULL, "", "", "show the current VM name", hmp_info_name),
    COMMAND("qom-tree", NULL, "path:s?", "[path]", "show QOM composition tree", hmp_info_qom_tree,
            .complete = hmp_complete_qom_path),
    COMMAND("registers", NULL, "cpustate_all:-a,vcpu:i?", "[-a|vcpu]",
            "show the cpu registers (-a: of all CPUs; vcpu: of that CPU)", hmp_info_registers),
    COMMAND("status", NULL, "", "", "show the current VM status (running|paused)", hmp_info_status),
    COMMAND("uuid", NULL, "", "", "show the current VM UUID", hmp_info_uuid),
    COMMAND("version", NULL, "", "", "show the version of the program", hmp_info_version),
    { 0 },
};

static void complete_command_names(Completions *c, unsigned n)
{
    for (const HMPCommand *cmd = hmp_commands; n == 0 && cmd->name; cmd++) {
        completions_add(c, cmd->name);
    }
}

const HMPCommand hmp_commands[] = {
    COMMAND("block_resize", NULL, "device:B,size:o", "device size", "resize a block image",
            hmp_block_resize, .complete = hmp_complete_disk),
    COMMAND("chardev-add", NULL, "args:S", "args", "add chardev", hmp_chardev_add),
    COMMAND("chardev-remove", NULL, "id:s", "id", "remove chardev", hmp_chardev_remove,
            .complete = hmp_complete_chardev),
    COMMAND("closefd", NULL, "fdname:s", "closefd name",
            "close a file descriptor previously passed via SCM rights", hmp_closefd),
    COMMAND("cont", "c", "", "", "resume emulation", hmp_cont),
    COMMAND("cpu", NULL, "index:i", "index", "set the default CPU", hmp_cpu),
    COMMAND("device_add", NULL, "device:S", "driver[,prop=value][,...]",
            "add device, like -device on the command line", hmp_device_add,
            .complete = hmp_complete_device_type),
    COMMAND("device_del", NULL, "id:s", "device", "remove device", hmp_device_del,
            .complete = hmp_complete_device_id),
    COMMAND("getfd", NULL, "fdname:s", "getfd name",
            "receive a file descriptor via SCM rights and assign it a name", hmp_getfd),
    COMMAND("help", "?", "name:S?", "[cmd]", "show the help", hmp_help,
            .complete = complete_command_names),
    COMMAND("i", NULL, "fmt:/,addr:i,index:i.", "/fmt addr", "I/O port read", hmp_ioport_read),
    COMMAND("info", NULL, "", "[subcommand]", "show various information about the system state",
            hmp_info_help, .sub = info_commands),
    COMMAND("memsave", NULL, "val:l,size:l,filename:F", "addr size file",
            "save to disk virtual memory dump starting at 'addr' of size 'size'", hmp_memsave),
    COMMAND("migrate", NULL, "detach:-d,resume:-r,uri:s", "[-d] [-r] uri",
            "migrate to URI (using -d to not wait for completion)\n"
            "\t\t\t -r to resume a paused postcopy migration",
            hmp_migrate),
    COMMAND("migrate_cancel", NULL, "", "", "cancel the current VM migration", hmp_migrate_cancel),
    COMMAND("migrate_continue", NULL, "state:s", "state",
            "continue migration from the given paused state", hmp_migrate_continue,
            .complete = hmp_complete_migration_status),
    COMMAND("migrate_incoming", NULL, "uri:s", "uri",
            "continue an incoming migration from an -incoming defer", hmp_migrate_incoming),
    COMMAND("migrate_pause", NULL, "", "", "pause an ongoing migration (postcopy-only)",
            hmp_migrate_pause),
    COMMAND("migrate_set_capability", NULL, "capability:s,state:b", "capability state",
            "enable or disable a capability for migration", hmp_migrate_set_capability,
            .complete = hmp_complete_capability),
    COMMAND("migrate_set_parameter", NULL, "parameter:s,value:s", "parameter value",
            "set a parameter for migration", hmp_migrate_set_parameter,
            .complete = hmp_complete_parameter),
    COMMAND("nbd_server_add", NULL, "writable:-w,device:B,name:s?",
            "nbd_server_add [-w] device [name]", "export a block device via NBD",
            hmp_nbd_server_add),
    COMMAND("nbd_server_remove", NULL, "force:-f,name:s", "nbd_server_remove [-f] name",
            "remove an export previously exposed via NBD", hmp_nbd_server_remove),
    COMMAND("nbd_server_start", NULL, "all:-a,writable:-w,uri:s",
            "nbd_server_start [-a] [-w] host:port",
            "serve block devices on the given host and port, or at unix:path",
            hmp_nbd_server_start),
    COMMAND("nbd_server_stop", NULL, "", "nbd_server_stop",
            "stop serving block devices using the NBD protocol", hmp_nbd_server_stop),
    COMMAND("o", NULL, "fmt:/,addr:i,val:i", "/fmt addr value", "I/O port write", hmp_ioport_write),
    COMMAND("object_add", NULL, "object:S", "[qom-type=]type,id=str[,prop=value][,...]",
            "create QOM object", hmp_object_add, .complete = hmp_complete_object_type),
    COMMAND("object_del", NULL, "id:s", "id", "destroy QOM object", hmp_object_del,
            .complete = hmp_complete_object_id),
    COMMAND("pmemsave", NULL, "val:l,size:l,filename:F", "addr size file",
            "save to disk physical memory dump starting at 'addr' of size 'size'", hmp_pmemsave),
    COMMAND("print", "p", "fmt:/,val:l", "/fmt expr",
            "print expression value (use $reg for CPU register access)", hmp_print),
    COMMAND("qemu-io", NULL, "qdev:-d,device:B,command:s", "[-d] [device] \"[command]\"",
            "run a qemu-io command on a block device\n"
            "\t\t\t -d: [device] is a device ID rather than a drive ID or node name",
            hmp_qemu_io, .complete = hmp_complete_disk),
    COMMAND("qom-get", NULL, "path:s,property:s", "path property", "print QOM property",
            hmp_qom_get, .complete = hmp_complete_qom_path),
    COMMAND("qom-list", NULL, "path:s?", "path", "list QOM properties", hmp_qom_list,
            .complete = hmp_complete_qom_path),
    COMMAND("qom-set", NULL, "json:-j,path:s,property:s,value:S", "[-j] path property value",
            "set QOM property.\n\t\t\t -j: the value is specified in json format.", hmp_qom_set,
            .complete = hmp_complete_qom_path),
    COMMAND("quit", "q", "", "", "quit the program", hmp_quit),
    COMMAND("stop", "s", "", "", "stop emulation", hmp_stop),
    COMMAND("sum", NULL, "start:l,size:l", "addr size", "compute the checksum of a memory region",
            hmp_sum),
    COMMAND("system_powerdown", NULL, "", "", "send system power down event", hmp_system_powerdown),
    COMMAND("system_reset", NULL, "", "", "reset the system", hmp_system_reset),
    COMMAND("x", NULL, "fmt:/,addr:l", "/fmt addr", "virtual memory dump starting at 'addr'",
            hmp_memory_dump),
    COMMAND("xp", NULL, "fmt:/,addr:l", "/fmt addr", "physical memory dump starting at 'addr'",
            hmp_physical_memory_dump),
    { 0 },
};
