/*
 * The globalstate section: the run state that the machine had when it was stopped to be moved, and
 * so the one to give it when it has arrived.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/savevm-internal.h"

#include <string.h>
#include "system/runstate.h"

typedef struct GlobalState {
    uint32_t size;                      /* of the name with its NUL */
    uint8_t runstate[32];
    uint8_t has_vm_was_suspended, vm_was_suspended;
    uint8_t unused[66];
    int received;                       /* RunState, or RUN_STATE__MAX */
} GlobalState;

static GlobalState global_state = { .received = RUN_STATE__MAX };

void savevm_store_global_state(void)
{
    const char *name = runstate_name(runstate_get());

    memset(global_state.runstate, 0, sizeof(global_state.runstate));
    g_strlcpy((char *)global_state.runstate, name, sizeof(global_state.runstate));
    global_state.size = strlen(name) + 1;
}

static int global_state_post_load(void *opaque, int version_id, Error **errp)
{
    GlobalState *state = opaque;
    const char *name = (const char *)state->runstate;
    int received;

    if (!memchr(state->runstate, 0, sizeof(state->runstate))) {
        error_setg(errp, "the run state in the stream is not terminated");
        return -1;
    }
    received = runstate_from_name(name);
    if (received < 0) {
        g_autofree char *text = g_strescape(name, NULL);
        error_setg(errp, "the run state '%s' in the stream is not known", text);
        return -1;
    }
    state->received = received;
    return 0;
}

void global_state_reset(void)
{
    global_state.received = RUN_STATE__MAX;
}

int loadvm_global_state(void)
{
    return global_state.received;
}

static const VMStateDescription vmstate_globalstate = {
    .name = "globalstate",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = global_state_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(size, GlobalState),
        VMSTATE_BUFFER(runstate, GlobalState),
        VMSTATE_UINT8(has_vm_was_suspended, GlobalState),
        VMSTATE_UINT8(vm_was_suspended, GlobalState),
        VMSTATE_BUFFER(unused, GlobalState),
        VMSTATE_END_OF_LIST() },
};

void global_state_register(void)
{
    vmstate_register("globalstate", 0, &vmstate_globalstate, &global_state, &error_abort);
}
