/*
 * HMP: the current vCPU and its registers by name, as expressions use them ($rip).
 *
 * Names are those that debuggers use; the 32-bit names give the whole register, as they do in the
 * customary monitor.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stddef.h>
#include <string.h>
#include "monitor/hmp.h"
#include "monitor/monitor-internal.h"

#define REG(i) (offsetof(X86CPUState, regs) + (i) * sizeof(uint64_t))
#define SEL(i) (offsetof(X86CPUState, seg) + (i) * sizeof(X86Segment) + \
                offsetof(X86Segment, selector))
#define BASE(i) (offsetof(X86CPUState, seg) + (i) * sizeof(X86Segment) + \
                 offsetof(X86Segment, base))

static const struct {
    const char *name, *alias;
    size_t offset;
    unsigned bytes;
} registers[] = {
    { "rax", "eax", REG(R_RAX), 8 }, { "rcx", "ecx", REG(R_RCX), 8 },
    { "rdx", "edx", REG(R_RDX), 8 }, { "rbx", "ebx", REG(R_RBX), 8 },
    { "rsp", "esp", REG(R_RSP), 8 }, { "rbp", "ebp", REG(R_RBP), 8 },
    { "rsi", "esi", REG(R_RSI), 8 }, { "rdi", "edi", REG(R_RDI), 8 },
    { "r8", NULL, REG(R_R8), 8 }, { "r9", NULL, REG(R_R9), 8 },
    { "r10", NULL, REG(R_R10), 8 }, { "r11", NULL, REG(R_R11), 8 },
    { "r12", NULL, REG(R_R12), 8 }, { "r13", NULL, REG(R_R13), 8 },
    { "r14", NULL, REG(R_R14), 8 }, { "r15", NULL, REG(R_R15), 8 },
    { "rip", "eip", offsetof(X86CPUState, rip), 8 },
    { "pc", NULL, offsetof(X86CPUState, rip), 8 },
    { "eflags", "rflags", offsetof(X86CPUState, rflags), 8 },
    { "cs", NULL, SEL(SEG_CS), 2 }, { "ds", NULL, SEL(SEG_DS), 2 },
    { "es", NULL, SEL(SEG_ES), 2 }, { "ss", NULL, SEL(SEG_SS), 2 },
    { "fs", NULL, SEL(SEG_FS), 2 }, { "gs", NULL, SEL(SEG_GS), 2 },
    { "cs.base", NULL, BASE(SEG_CS), 8 }, { "ds.base", NULL, BASE(SEG_DS), 8 },
    { "es.base", NULL, BASE(SEG_ES), 8 }, { "ss.base", NULL, BASE(SEG_SS), 8 },
    { "fs.base", NULL, BASE(SEG_FS), 8 }, { "gs.base", NULL, BASE(SEG_GS), 8 },
    { "cr0", NULL, offsetof(X86CPUState, cr0), 8 }, { "cr2", NULL, offsetof(X86CPUState, cr2), 8 },
    { "cr3", NULL, offsetof(X86CPUState, cr3), 8 }, { "cr4", NULL, offsetof(X86CPUState, cr4), 8 },
};

CPUState *hmp_current_cpu(Monitor *mon, Error **errp)
{
    CPUState *cpu = mon->cpu_index < cpus_count() ? cpu_get(mon->cpu_index) : NULL;

    if (!cpu) {
        error_setg(errp, "No CPU available");
        return NULL;
    }
    return cpu_synchronize_state(cpu, errp) < 0 ? NULL : cpu;
}

bool hmp_register_lookup(const char *name, int64_t *value)
{
    CPUState *cpu = monitor_cur() ? hmp_current_cpu(monitor_cur(), NULL) : NULL;

    for (unsigned i = 0; cpu && i < G_N_ELEMENTS(registers); i++) {
        const char *at = (const char *)&cpu->env + registers[i].offset;

        if (strcmp(name, registers[i].name) && g_strcmp0(name, registers[i].alias)) {
            continue;
        }
        if (registers[i].bytes == 2) {
            uint16_t v;

            memcpy(&v, at, sizeof(v));
            *value = v;
        } else {
            memcpy(value, at, sizeof(*value));
        }
        return true;
    }
    return false;
}

void hmp_registers_complete(Completions *c)
{
    if (c->word[0] != '$') {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(registers); i++) {
        g_autofree char *word = g_strconcat("$", registers[i].name, NULL);
        completions_add(c, word);
    }
}
