/*
 * The registry of sections and the markers of the stream, shared by savevm.c and loadvm.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_SAVEVM_INTERNAL_H
#define MIGRATION_SAVEVM_INTERNAL_H

#include "migration/context.h"
#include "migration/savevm.h"
#include "migration/vmstate.h"

#define MIG_FILE_MAGIC 0x5145564du      /* "QEVM" */
#define MIG_FILE_VERSION 3
/*
 * In place of the magic while a file is being written: only when all of it is on stable storage
 * does the magic take its place, so that what a crash leaves can never be taken for a whole
 * machine.
 */
#define MIG_FILE_INCOMPLETE 0x46697163u

enum {
    MIG_EOF = 0x00,
    MIG_SECTION_START = 0x01,
    MIG_SECTION_PART = 0x02,
    MIG_SECTION_END = 0x03,
    MIG_SECTION_FULL = 0x04,
    MIG_SUBSECTION = 0x05,
    MIG_VMDESCRIPTION = 0x06,
    MIG_CONFIGURATION = 0x07,
    MIG_COMMAND = 0x08,
    MIG_SECTION_FOOTER = 0x7e,
};

enum {
    MIG_CMD_OPEN_RETURN_PATH = 1,
    MIG_CMD_PING = 2,
    MIG_CMD_POSTCOPY_ADVISE = 3,
    MIG_CMD_POSTCOPY_LISTEN = 4,
    MIG_CMD_POSTCOPY_RUN = 5,
    MIG_CMD_POSTCOPY_RAM_DISCARD = 6,
    MIG_CMD_PACKAGED = 7,
    MIG_CMD_POSTCOPY_RESUME = 9,
    MIG_CMD_RECV_BITMAP = 10,
    MIG_CMD_SWITCHOVER_START = 11,
};

/* One section: a device's table (vmsd) or a live handler, never both. */
typedef struct SaveStateEntry {
    char idstr[256];
    uint32_t instance_id;
    uint32_t version_id;                /* of handlers; a vmsd has its own */
    const VMStateDescription *vmsd;
    const SaveVMHandlers *handlers;
    void *opaque;

    uint32_t section_id;                /* in the stream being saved or loaded */
    bool load_seen;                     /* START or FULL was read */
    bool load_ended;                    /* END was read, or it was FULL */
    bool prepared;                      /* save_prepare or load_prepare was called */
} SaveStateEntry;

/* In order of registration. */
extern GPtrArray *savevm_entries;
#define SAVEVM_FOREACH(entry) \
    for (unsigned entry##_i = 0; savevm_entries && entry##_i < savevm_entries->len; entry##_i++) \
        for (SaveStateEntry *entry = g_ptr_array_index(savevm_entries, entry##_i); entry; \
             entry = NULL)

/* The section that was registered by this name, or NULL. Under the big lock. */
SaveStateEntry *savevm_find(const char *idstr, uint32_t instance_id);

/* What the configuration section says (migration/configuration.c). */
typedef struct ConfigurationState {
    uint32_t len;
    char name[256];                     /* len bytes, no NUL in the stream */
    uint32_t caps_count;
    struct {
        uint8_t len;
        char name[256];
    } caps[32];
    uint8_t uuid[16];
    bool send_uuid;
    const MigrationOptions *opts;
} ConfigurationState;

extern const VMStateDescription vmstate_configuration;
/* This machine's configuration under @opts, to be saved or to be compared with. */
void configuration_init(ConfigurationState *state, const MigrationOptions *opts);

/* The globalstate section (migration/global-state.c). */
void global_state_register(void);
/* Forget what an earlier stream said. */
void global_state_reset(void);

#endif
