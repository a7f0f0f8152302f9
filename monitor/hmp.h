/*
 * The human monitor: its table of commands, and how a line becomes a call.
 *
 * A handler gets its arguments parsed (monitor/hmp-args.h), builds a QMP command's arguments from
 * them, calls that command's handler and prints what it returns. It has no other means to change
 * the machine. Handlers run on the main thread under the big lock; monitor_cur() is @mon.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_HMP_H
#define MONITOR_HMP_H

#include "monitor/hmp-args.h"
#include "monitor/monitor.h"
#include "monitor/readline.h"
#include "system/cpus.h"

typedef void HMPHandler(Monitor *mon, HMPArgs *args);

typedef struct HMPCommand {
    const char *name;
    const char *alias;          /* another name, or NULL */
    const char *args_type;
    const char *params;         /* how help shows the arguments */
    const char *help;
    HMPHandler *handler;
    const struct HMPCommand *sub;   /* commands that the next word chooses from; or NULL */
    /*
     * Offer words for argument number @n (from 0, options do not count); NULL when the type of the
     * argument says it all.
     */
    void (*complete)(Completions *c, unsigned n);
} HMPCommand;

/* Ends with a command without a name. */
extern const HMPCommand hmp_commands[];

/* The command of that name or alias; NULL when there is none. */
const HMPCommand *hmp_find(const HMPCommand *table, const char *name);

/* Run one line on @mon: find the command, parse its arguments, call it. Errors are printed. */
void hmp_execute(Monitor *mon, const char *line);

/* Offer completions for @line, which ends at the cursor. */
void hmp_complete(const char *line, Completions *c);

/* Print "Error: MESSAGE" with its hint and free @err. True when there was an error. */
bool hmp_handle_error(Monitor *mon, Error *err);

/* The vCPU that @mon's commands look at, its state up to date; NULL with @errp set. */
CPUState *hmp_current_cpu(Monitor *mon, Error **errp);
/* A register of that vCPU, for expressions. */
bool hmp_register_lookup(const char *name, int64_t *value);
/* Names of all registers. */
void hmp_registers_complete(Completions *c);

/*
 * Call QMP command @name with @args (an object that is taken over, or NULL) as a client would.
 * Returns: what it returns, the caller's own; NULL with @errp set. For commands of domains that are
 * not always there.
 */
struct json_object *hmp_call_qmp(const char *name, struct json_object *args, Error **errp);

/* Whether @mon can be held until a command has ended: it has a person at its other end. */
bool hmp_can_wait(Monitor *mon);

/* ---- handlers, by the file they are in ---- */

/* hmp-block.c */
HMPHandler hmp_info_block, hmp_info_blockstats, hmp_info_block_jobs, hmp_block_resize, hmp_qemu_io;
void hmp_complete_disk(Completions *c, unsigned n);
/* hmp-cmds.c */
HMPHandler hmp_help, hmp_quit, hmp_stop, hmp_cont, hmp_system_reset, hmp_system_powerdown, hmp_cpu,
    hmp_getfd, hmp_closefd;
/* hmp-info.c */
HMPHandler hmp_info_help, hmp_info_version, hmp_info_status, hmp_info_name, hmp_info_uuid,
    hmp_info_cpus, hmp_info_registers, hmp_info_mtree, hmp_info_history, hmp_info_chardev;
/* hmp-memory.c */
HMPHandler hmp_memory_dump, hmp_physical_memory_dump, hmp_print, hmp_ioport_read, hmp_ioport_write,
    hmp_sum, hmp_memsave, hmp_pmemsave;
/* hmp-devices.c */
HMPHandler hmp_device_add, hmp_device_del, hmp_qom_list, hmp_qom_get, hmp_qom_set,
    hmp_info_qom_tree, hmp_object_add, hmp_object_del, hmp_info_memdev, hmp_info_iothreads,
    hmp_chardev_add, hmp_chardev_remove;
void hmp_complete_object_type(Completions *c, unsigned n);
void hmp_complete_object_id(Completions *c, unsigned n);
void hmp_complete_device_type(Completions *c, unsigned n);
void hmp_complete_device_id(Completions *c, unsigned n);
void hmp_complete_qom_path(Completions *c, unsigned n);
void hmp_complete_chardev(Completions *c, unsigned n);
/* hmp-migration.c */
HMPHandler hmp_migrate, hmp_migrate_cancel, hmp_migrate_incoming, hmp_migrate_continue,
    hmp_migrate_pause, hmp_migrate_set_capability, hmp_migrate_set_parameter, hmp_info_migrate,
    hmp_info_migrate_capabilities, hmp_info_migrate_parameters;
void hmp_complete_capability(Completions *c, unsigned n);
void hmp_complete_parameter(Completions *c, unsigned n);
void hmp_complete_migration_status(Completions *c, unsigned n);
/* A monitor goes away, or its client: whatever waits for a migration on its behalf ends. */
void hmp_migration_forget(Monitor *mon);

/* hmp-block-export.c */
HMPHandler hmp_nbd_server_start, hmp_nbd_server_add, hmp_nbd_server_remove, hmp_nbd_server_stop;

/* The lines entered on @mon, the oldest first, by number; NULL behind the last. */
const char *hmp_history_line(Monitor *mon, unsigned n);

#endif
