/*
 * What the files of this folder share: the part that all monitors have, and how a session of either
 * kind plugs into it.
 *
 * Output goes into a buffer from any thread and leaves it on the main thread, as fast as the client
 * reads. Input is not read while much output waits, so a client that sends and never reads stops
 * itself; one that neither sends nor reads, while events pile up, is disconnected.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_MONITOR_INTERNAL_H
#define MONITOR_MONITOR_INTERNAL_H

#include "chardev/char-fe.h"
#include "monitor/monitor.h"
#include "util/mutex.h"

/* Input is not read while more output than this waits. */
#define MONITOR_OUT_PAUSE_BYTES (64u << 10)
/* With more than this waiting, whatever more there is to say ends the session. */
#define MONITOR_OUT_MAX_BYTES (16u << 20)
/* Input taken from the device at a time. */
#define MONITOR_IN_BYTES (64u << 10)

typedef struct MonitorOps {
    void (*opened)(Monitor *mon);
    void (*closed)(Monitor *mon);
    /* The terminal is ours again after another had it; may be NULL. */
    void (*mux_in)(Monitor *mon);
    /*
     * Use some of the input: at least one byte, at most @size, and no more than one command.
     * Returns the number of bytes used. Not called while input is held (see suspend) or output is
     * behind.
     */
    size_t (*input)(Monitor *mon, const char *data, size_t size);
    /* The last hold was released; may be NULL. */
    void (*resumed)(Monitor *mon);
    void (*free)(Monitor *mon);
} MonitorOps;

/* Kinds of monitor embed this as their first member. */
struct Monitor {
    const MonitorOps *ops;
    bool is_qmp;
    bool has_device;            /* false: output is collected in @out for human-monitor-command */
    CharFrontend chr;
    bool open;
    bool mux_out;               /* another user of the terminal has it: output waits */
    bool busy;                  /* a command of it runs, and the loop may turn meanwhile */
    int suspended;              /* input is held while > 0 */
    GByteArray *in;             /* read, not used yet */
    size_t in_used;

    Mutex out_lock;
    GString *out;               /* under out_lock */
    size_t out_sent;            /* bytes of out that are gone */
    bool overflow;              /* under out_lock: the client is to be disconnected */
    int pump_posted;            /* atomic: monitor_pump() is on its way */
    guint out_watch;            /* waits for the client to read; 0 when not */

    NamedFds *fds;
    int cpu_index;              /* HMP's "cpu" */
    Monitor *parent;            /* the QMP monitor that runs human-monitor-command here */
};

/* All monitors with a device. Changed by the main thread under monitor_list_lock. */
extern GPtrArray *monitor_list;
extern Mutex monitor_list_lock;

/* Make @mon (zeroed) ready; with @chr its device is attached too. */
bool monitor_data_init(Monitor *mon, const MonitorOps *ops, bool is_qmp, Chardev *chr,
                       Error **errp);
void monitor_data_destroy(Monitor *mon);
/* Let the device's events come, and begin the session if its client is there already. */
void monitor_start(Monitor *mon);

/* Append bytes to the output; any thread. They leave soon. */
void monitor_out(Monitor *mon, const char *data, size_t size);
/* Bytes that wait; any thread. */
size_t monitor_out_pending(Monitor *mon);

/* Hold input, and let it in again. Nests. Main thread. */
void monitor_suspend(Monitor *mon);
void monitor_resume(Monitor *mon);

/* Set the monitor that monitor_cur() gives in this thread; returns the one before. */
Monitor *monitor_set_cur(Monitor *mon);

/* A descriptor that the client sent along; -1 when it sent none. */
int monitor_take_msgfd(Monitor *mon);

/* The kinds. */
bool monitor_init_qmp(Chardev *chr, bool pretty, Error **errp);
bool monitor_init_hmp(Chardev *chr, Error **errp);
/* Part of monitor_init_globals(). */
void qmp_init_globals(void);

#endif
