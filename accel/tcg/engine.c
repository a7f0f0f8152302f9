/*
 * A Unicorn engine that sees the machine: RAM by pointer, every other address as MMIO, ports by
 * hooks.
 *
 * A new state always gets a new engine (it costs less than a millisecond): an engine's privilege
 * level and segments can only be set from its first state, and code that it translated from memory
 * which has changed since (a kernel loaded again at reset) goes with it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include "accel/tcg/tcg-int.h"

static uint64_t mmio_read(uc_engine *uc, uint64_t offset, unsigned size, void *opaque)
{
    const TCGGap *gap = opaque;
    uint64_t value = 0;

    address_space_rw(gap->start + offset, &value, MIN(size, 8), false);
    return value;
}

static void mmio_write(uc_engine *uc, uint64_t offset, unsigned size, uint64_t value, void *opaque)
{
    const TCGGap *gap = opaque;

    address_space_rw(gap->start + offset, &value, MIN(size, 8), true);
}

static uint32_t hook_in(uc_engine *uc, uint32_t port, int size, void *opaque)
{
    return port_read(port, size);
}

static void hook_out(uc_engine *uc, uint32_t port, int size, uint32_t value, void *opaque)
{
    port_write(port, value, size);
}

static void hook_interrupt(uc_engine *uc, uint32_t vector, void *opaque)
{
    tcg.exception = vector;
    uc_emu_stop(uc);
}

/*
 * Before every block, so also each time round a loop. The engine has just stored the instruction
 * pointer, flags and registers, and looks for a stop between here and the block's first
 * instruction.
 */
static void hook_block(uc_engine *uc, uint64_t address, uint32_t size, void *opaque)
{
    if (tcg.running && __atomic_load_n(&tcg.running->exit_request, __ATOMIC_RELAXED)) {
        tcg.stopped = true;
        uc_emu_stop(uc);
    }
}

static int compare_ranges(const void *a, const void *b)
{
    const RAMRange *x = a, *y = b;

    return x->gpa < y->gpa ? -1 : x->gpa > y->gpa;
}

static uc_err map_ram(uc_engine *uc)
{
    g_array_sort(tcg.ram, compare_ranges);
    for (unsigned i = 0; i < tcg.ram->len; i++) {
        const RAMRange *range = &g_array_index(tcg.ram, RAMRange, i);
        uint32_t prot = range->readonly ? UC_PROT_READ | UC_PROT_EXEC : UC_PROT_ALL;
        uc_err err = uc_mem_map_ptr(uc, range->gpa, range->size, prot,
                                    range->block->host + range->offset);
        if (err != UC_ERR_OK) {
            return err;
        }
    }
    return UC_ERR_OK;
}

static void add_gap(GArray *gaps, uint64_t start, uint64_t end)
{
    TCGGap gap = { start, end - start };

    if (gap.size) {
        g_array_append_val(gaps, gap);
    }
}

static uc_err map_gaps(uc_engine *uc)
{
    uint64_t at = 0;

    tcg.gaps = g_array_new(FALSE, FALSE, sizeof(TCGGap));
    for (unsigned i = 0; i < tcg.ram->len; i++) {
        const RAMRange *range = &g_array_index(tcg.ram, RAMRange, i);

        add_gap(tcg.gaps, at, range->gpa);
        at = range->gpa + range->size;
    }
    add_gap(tcg.gaps, at, TCG_PHYS_END);

    /* The array does not move from here on: its elements are the callbacks' arguments. */
    for (unsigned i = 0; i < tcg.gaps->len; i++) {
        TCGGap *gap = &g_array_index(tcg.gaps, TCGGap, i);
        uc_err err = uc_mmio_map(uc, gap->start, gap->size, mmio_read, gap, mmio_write, gap);

        if (err != UC_ERR_OK) {
            return err;
        }
    }
    return UC_ERR_OK;
}

static uc_err add_hooks(uc_engine *uc)
{
    uc_hook in, out, interrupt, block;
    uc_err err = uc_hook_add(uc, &in, UC_HOOK_INSN, (void *)hook_in, NULL, 1, 0, UC_X86_INS_IN);

    if (err == UC_ERR_OK) {
        err = uc_hook_add(uc, &out, UC_HOOK_INSN, (void *)hook_out, NULL, 1, 0, UC_X86_INS_OUT);
    }
    if (err == UC_ERR_OK) {
        err = uc_hook_add(uc, &interrupt, UC_HOOK_INTR, (void *)hook_interrupt, NULL, 1, 0);
    }
    if (err == UC_ERR_OK) {
        err = uc_hook_add(uc, &block, UC_HOOK_BLOCK, (void *)hook_block, NULL, 1, 0);
    }
    return err;
}

int tcg_engine_open(Error **errp)
{
    uc_engine *uc = NULL;
    uc_err err;

    tcg_engine_close();
    err = uc_open(UC_ARCH_X86, UC_MODE_64, &uc);
    if (err == UC_ERR_OK) {
        err = uc_ctl_set_cpu_model(uc, tcg.model);
    }
    if (err == UC_ERR_OK) {
        err = add_hooks(uc);
    }
    if (err != UC_ERR_OK) {
        error_setg(errp, "cannot create the emulator: %s", uc_strerror(err));
        if (uc) {
            uc_close(uc);
        }
        return -1;
    }
    tcg.uc = uc;
    tcg.exception = -1;
    return 0;
}

int tcg_engine_map(Error **errp)
{
    uc_err err = map_ram(tcg.uc);

    if (err == UC_ERR_OK) {
        err = map_gaps(tcg.uc);
    }
    if (err != UC_ERR_OK) {
        error_setg(errp, "the emulator does not take the machine's memory: %s", uc_strerror(err));
        return -1;
    }
    return 0;
}

/* On the vCPU's thread, so it does not run. */
void tcg_engine_close(void)
{
    if (tcg.uc) {
        uc_close(tcg.uc);
        tcg.uc = NULL;
        g_clear_pointer(&tcg.gaps, g_array_unref);
    }
}
