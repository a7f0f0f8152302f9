/*
 * The table of CPU features: for each CPUID register that holds feature bits, the names of its
 * bits.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <linux/kvm.h>
#include <string.h>
#include "accel/kvm/cpu-features.h"

typedef struct FeatureWord {
    uint32_t function, index;
    CPUIDRegister reg;
    const char *names[32];
} FeatureWord;

static const FeatureWord feature_words[] = {
    { 1, 0, CPUID_EDX, {
        "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce",
        "cx8", "apic", NULL, "sep", "mtrr", "pge", "mca", "cmov",
        "pat", "pse36", "pn", "clflush", NULL, "ds", "acpi", "mmx",
        "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe" } },
    { 1, 0, CPUID_ECX, {
        "sse3", "pclmulqdq", "dtes64", "monitor", "ds-cpl", "vmx", "smx", "est",
        "tm2", "ssse3", "cid", NULL, "fma", "cx16", "xtpr", "pdcm",
        NULL, "pcid", "dca", "sse4.1", "sse4.2", "x2apic", "movbe", "popcnt",
        "tsc-deadline", "aes", "xsave", "osxsave", "avx", "f16c", "rdrand", "hypervisor" } },
    { 7, 0, CPUID_EBX, {
        "fsgsbase", "tsc-adjust", "sgx", "bmi1", "hle", "avx2", "fdp-excptn-only", "smep",
        "bmi2", "erms", "invpcid", "rtm", NULL, "zero-fcs-fds", "mpx", NULL,
        "avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", "pcommit", "clflushopt",
        "clwb", "intel-pt", "avx512pf", "avx512er", "avx512cd", "sha-ni", "avx512bw",
        "avx512vl" } },
    { 7, 0, CPUID_ECX, {
        NULL, "avx512vbmi", "umip", "pku", "ospke", "waitpkg", "avx512vbmi2", NULL,
        "gfni", "vaes", "vpclmulqdq", "avx512vnni", "avx512bitalg", NULL, "avx512-vpopcntdq", NULL,
        "la57", NULL, NULL, NULL, NULL, NULL, "rdpid", NULL,
        "bus-lock-detect", "cldemote", NULL, "movdiri", "movdir64b", NULL, "sgxlc", "pks" } },
    { 7, 0, CPUID_EDX, {
        NULL, NULL, "avx512-4vnniw", "avx512-4fmaps", "fsrm", NULL, NULL, NULL,
        "avx512-vp2intersect", NULL, "md-clear", NULL, NULL, NULL, "serialize", NULL,
        "tsx-ldtrk", NULL, NULL, "arch-lbr", NULL, NULL, "amx-bf16", "avx512-fp16",
        "amx-tile", "amx-int8", "spec-ctrl", "stibp", "flush-l1d", "arch-capabilities",
        "core-capability", "ssbd" } },
    { 7, 1, CPUID_EAX, {
        "sha512", "sm3", "sm4", NULL, "avx-vnni", "avx512-bf16", NULL, "cmpccxadd",
        NULL, NULL, "fzrm", "fsrs", "fsrc", NULL, NULL, NULL,
        NULL, "fred", "lkgs", "wrmsrns", NULL, "amx-fp16", NULL, "avx-ifma",
        NULL, NULL, "lam", NULL, NULL, NULL, NULL, NULL } },
    { 0xd, 1, CPUID_EAX, {
        "xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd" } },
    { 0x80000001, 0, CPUID_EDX, {
        [11] = "syscall", [19] = "mp", [20] = "nx", [22] = "mmxext", [25] = "fxsr-opt",
        [26] = "pdpe1gb", [27] = "rdtscp", [29] = "lm", [30] = "3dnowext", [31] = "3dnow" } },
    { 0x80000001, 0, CPUID_ECX, {
        "lahf-lm", "cmp-legacy", "svm", "extapic", "cr8legacy", "abm", "sse4a", "misalignsse",
        "3dnowprefetch", "osvw", "ibs", "xop", "skinit", "wdt", NULL, "lwp",
        "fma4", "tce", NULL, "nodeid-msr", NULL, "tbm", "topoext", "perfctr-core",
        "perfctr-nb", NULL, NULL, NULL, NULL, NULL, NULL, NULL } },
    { 0x80000007, 0, CPUID_EDX, {
        [8] = "invtsc" } },
    { 0x80000008, 0, CPUID_EBX, {
        [0] = "clzero", [2] = "xsaveerptr", [9] = "wbnoinvd", [12] = "ibpb", [14] = "ibrs",
        [15] = "amd-stibp", [17] = "stibp-always-on", [24] = "amd-ssbd", [25] = "virt-ssbd",
        [26] = "amd-no-ssb", [28] = "amd-psfd" } },
    { 0x80000021, 0, CPUID_EAX, {
        [0] = "no-nested-data-bp", [2] = "lfence-always-serializing", [6] = "null-sel-clr-base",
        [8] = "auto-ibrs" } },
    { 0x40000001, 0, CPUID_EAX, {
        "kvmclock-old", "kvm-nopiodelay", "kvm-mmu", "kvmclock", "kvm-asyncpf", "kvm-steal-time",
        "kvm-pv-eoi", "kvm-pv-unhalt",
        NULL, "kvm-pv-tlb-flush", "kvm-asyncpf-vmexit", "kvm-pv-ipi", "kvm-poll-control",
        "kvm-pv-sched-yield", "kvm-asyncpf-int", "kvm-msi-ext-dest-id",
        [24] = "kvmclock-stable-bit" } },
};

/* Both spellings of a name, with - and with _. */
static bool same_name(const char *known, const char *name)
{
    for (; *known && *name; known++, name++) {
        if (*known != *name && !(*known == '-' && *name == '_')) {
            return false;
        }
    }
    return !*known && !*name;
}

static const struct {
    const char *alias, *name;
} aliases[] = {
    { "pni", "sse3" }, { "pclmuldq", "pclmulqdq" }, { "sse4-1", "sse4.1" }, { "sse4-2", "sse4.2" },
    { "i64", "lm" }, { "xd", "nx" }, { "ffxsr", "fxsr-opt" }, { "tsc-deadline-timer",
                                                                "tsc-deadline" },
};

bool cpu_feature_find(const char *name, CPUFeature *feature)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(aliases); i++) {
        if (same_name(aliases[i].alias, name)) {
            name = aliases[i].name;
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(feature_words); i++) {
        const FeatureWord *word = &feature_words[i];

        for (unsigned bit = 0; bit < 32; bit++) {
            if (word->names[bit] && same_name(word->names[bit], name)) {
                *feature = (CPUFeature) { word->function, word->index, word->reg, bit };
                return true;
            }
        }
    }
    return false;
}

unsigned cpu_feature_words_count(void)
{
    return G_N_ELEMENTS(feature_words);
}

CPUFeature cpu_feature_word(unsigned i)
{
    const FeatureWord *word = &feature_words[i];

    return (CPUFeature) { word->function, word->index, word->reg, 0 };
}

uint32_t *cpuid_entry_register(struct kvm_cpuid_entry2 *entry, CPUIDRegister reg)
{
    switch (reg) {
    case CPUID_EAX:
        return &entry->eax;
    case CPUID_EBX:
        return &entry->ebx;
    case CPUID_ECX:
        return &entry->ecx;
    default:
        return &entry->edx;
    }
}
