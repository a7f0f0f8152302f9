/*
 * What CPU the guest sees: the -cpu option turned into the CPUID leaves of every vCPU.
 *
 * Everything starts from what KVM supports on this host. "host" and "max" take all of it; the named
 * models take a short fixed list, so that a machine started on one host can go on on another. Then
 * +feature and -feature change single bits, and what depends on them (the XSAVE layout) follows. A
 * feature that was asked for and is not there is an error: a guest that starts without it would be
 * harder to understand.
 *
 * Nested virtualization is never offered, since its state is not carried in a migration.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include "accel/kvm/cpu-features.h"
#include "accel/kvm/kvm-int.h"

#define CPUID_ENTRIES_MAX 256

typedef struct CPUModel {
    const char *name;
    const char *vendor;         /* NULL: everything as the host has it */
    unsigned family, model, stepping;
    uint32_t level, xlevel;
    const char *model_id;
    const char *features;       /* separated by spaces; what the host lacks is left out */
} CPUModel;

/* What every 64-bit CPU has, in QEMU's model of the same name too. */
#define BASE_FEATURES                                                                          \
    "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat fxsr mmx sse sse2 mtrr clflush mca " \
    "pse36 "                                                                                   \
    "cx16 sse3 syscall nx lm hypervisor x2apic tsc-deadline "                                  \
    "kvmclock-old kvmclock kvm-nopiodelay kvm-asyncpf kvm-steal-time kvm-pv-eoi "              \
    "kvmclock-stable-bit"

static const CPUModel models[] = {
    { .name = "host" },
    { .name = "max" },
    { .name = "qemu64", .vendor = "AuthenticAMD", .family = 15, .model = 107, .stepping = 1,
      .level = 0xd, .xlevel = 0x8000000a, .model_id = "QEMU Virtual CPU version 2.5+",
      .features = BASE_FEATURES " lahf-lm" },
    { .name = "kvm64", .vendor = "GenuineIntel", .family = 15, .model = 6, .stepping = 1,
      .level = 0xd, .xlevel = 0x80000008, .model_id = "Common KVM processor",
      .features = BASE_FEATURES },
};
#define DEFAULT_MODEL "qemu64"

/* CPUID as KVM gives it, with room to grow. */
static struct kvm_cpuid2 *supported_cpuid(Error **errp)
{
    struct kvm_cpuid2 *cpuid =
        g_malloc0(sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(cpuid->entries[0]));

    cpuid->nent = CPUID_ENTRIES_MAX - 16;
    if (ioctl(kvm.fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        error_setg_errno(errp, errno, "KVM does not say which CPU features it supports");
        g_free(cpuid);
        return NULL;
    }
    return cpuid;
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

        if (e->function == function &&
            (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index)) {
            return e;
        }
    }
    return NULL;
}

static void remove_entry(struct kvm_cpuid2 *cpuid, struct kvm_cpuid_entry2 *e)
{
    unsigned i = e - cpuid->entries;

    memmove(e, e + 1, (cpuid->nent - i - 1) * sizeof(*e));
    cpuid->nent--;
}

static struct kvm_cpuid_entry2 *add_entry(struct kvm_cpuid2 *cpuid, uint32_t function,
                                          uint32_t index, bool indexed)
{
    struct kvm_cpuid_entry2 *e;

    g_assert(cpuid->nent < CPUID_ENTRIES_MAX);
    e = &cpuid->entries[cpuid->nent++];
    *e = (struct kvm_cpuid_entry2) {
        .function = function, .index = index,
        .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
    };
    return e;
}

static uint32_t *feature_word(struct kvm_cpuid2 *cpuid, const CPUFeature *feature)
{
    struct kvm_cpuid_entry2 *e = find(cpuid, feature->function, feature->index);

    return e ? cpuid_entry_register(e, feature->reg) : NULL;
}

static bool feature_is_set(struct kvm_cpuid2 *cpuid, const char *name)
{
    CPUFeature feature;
    bool known = cpu_feature_find(name, &feature);
    uint32_t *word;

    g_assert(known);
    word = feature_word(cpuid, &feature);
    return word && (*word & (1u << feature.bit));
}

static void feature_change(struct kvm_cpuid2 *cpuid, const CPUFeature *feature, bool on)
{
    uint32_t *word = feature_word(cpuid, feature);

    if (word && on) {
        *word |= 1u << feature->bit;
    } else if (word) {
        *word &= ~(1u << feature->bit);
    }
}

static void feature_change_by_name(struct kvm_cpuid2 *cpuid, const char *name, bool on)
{
    CPUFeature feature;
    bool known = cpu_feature_find(name, &feature);

    g_assert(known);
    feature_change(cpuid, &feature, on);
}

/* The supported set is right but for what depends on how Ferry uses KVM. */
static void adjust_supported(struct kvm_cpuid2 *cpuid)
{
    feature_change_by_name(cpuid, "hypervisor", true);
    feature_change_by_name(cpuid, "x2apic", true);
    feature_change_by_name(cpuid, "tsc-deadline",
                           kvm_check_extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0);
    feature_change_by_name(cpuid, "vmx", false);
    feature_change_by_name(cpuid, "svm", false);
    /* KVM sets these two by what the guest turns on. */
    feature_change_by_name(cpuid, "osxsave", false);
    feature_change_by_name(cpuid, "ospke", false);
}

const char *kvm_cpu_model(unsigned i)
{
    return i < G_N_ELEMENTS(models) ? models[i].name : NULL;
}

static const CPUModel *model_by_name(const char *name, Error **errp)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(models); i++) {
        if (!strcmp(models[i].name, name)) {
            return &models[i];
        }
        g_string_append_printf(known, "%s%s", i ? ", " : "", models[i].name);
    }
    error_setg(errp, "unable to find CPU model '%s' (there are: %s)", name, known->str);
    return NULL;
}

static void set_string(uint32_t *words[], unsigned n, const char *text)
{
    for (unsigned i = 0; i < n; i++) {
        char bytes[4] = { 0 };

        for (unsigned b = 0; b < 4 && *text; b++) {
            bytes[b] = *text++;
        }
        memcpy(words[i], bytes, 4);
    }
}

static void set_vendor(struct kvm_cpuid2 *cpuid, const CPUModel *model)
{
    static const uint32_t leaves[] = { 0, 0x80000000 };

    for (unsigned i = 0; i < G_N_ELEMENTS(leaves); i++) {
        struct kvm_cpuid_entry2 *e = find(cpuid, leaves[i], 0);

        if (e) {
            uint32_t *words[] = { &e->ebx, &e->edx, &e->ecx };

            e->eax = MIN(e->eax, i ? model->xlevel : model->level);
            set_string(words, 3, model->vendor);
        }
    }
}

static void set_model_id(struct kvm_cpuid2 *cpuid, const CPUModel *model)
{
    char text[49] = { 0 };

    g_strlcpy(text, model->model_id, sizeof(text));
    for (unsigned i = 0; i < 3; i++) {
        struct kvm_cpuid_entry2 *e = find(cpuid, 0x80000002 + i, 0);
        char part[17] = { 0 };

        if (!e) {
            e = add_entry(cpuid, 0x80000002 + i, 0, false);
        }
        memcpy(part, text + 16 * i, 16);
        set_string((uint32_t *[]) { &e->eax, &e->ebx, &e->ecx, &e->edx }, 4, part);
    }
}

/* Keep of every feature word only what the model lists, and of the leaves only the plain ones. */
static void apply_model(struct kvm_cpuid2 *cpuid, const CPUModel *model)
{
    if (!model->vendor) {
        return;
    }
    g_auto(GStrv) names = g_strsplit(model->features, " ", -1);
    g_autofree struct kvm_cpuid2 *host =
        g_memdup2(cpuid, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(cpuid->entries[0]));

    for (unsigned i = 0; i < cpu_feature_words_count(); i++) {
        CPUFeature word = cpu_feature_word(i);
        uint32_t *reg = feature_word(cpuid, &word);

        if (reg) {
            *reg = 0;
        }
    }
    for (char **name = names; *name; name++) {
        feature_change_by_name(cpuid, *name, feature_is_set(host, *name));
    }
    set_vendor(cpuid, model);
    set_model_id(cpuid, model);

    struct kvm_cpuid_entry2 *e = find(cpuid, 1, 0);
    struct kvm_cpuid_entry2 *extended = find(cpuid, 0x80000001, 0);
    if (e && extended && !strcmp(model->vendor, "AuthenticAMD")) {
        /* AMD shows these features a second time. */
        extended->edx |= e->edx & 0x0183f3ff;
    }
    unsigned family = MIN(model->family, 15);
    if (e) {
        e->eax = (model->family - family) << 20 | (model->model >> 4) << 16 | family << 8 |
            (model->model & 15) << 4 | model->stepping;
    }
    /* Performance counters are the host's own; a model that moves has none. */
    e = find(cpuid, 0xa, 0);
    if (e) {
        e->eax = e->ebx = e->ecx = e->edx = 0;
    }
}

static int apply_feature(struct kvm_cpuid2 *cpuid, struct kvm_cpuid2 *host, const char *name,
                         bool on, Error **errp)
{
    CPUFeature feature;

    if (!cpu_feature_find(name, &feature)) {
        error_setg(errp, "-cpu: Property '%s' not found", name);
        return -1;
    }
    uint32_t *word = feature_word(host, &feature);
    if (on && (!word || !(*word & (1u << feature.bit)))) {
        if (!strcmp(name, "vmx") || !strcmp(name, "svm")) {
            error_setg(errp, "-cpu: nested virtualization ('%s') is not supported", name);
        } else {
            error_setg(errp, "-cpu: this host's KVM does not support the feature '%s'", name);
        }
        return -1;
    }
    feature_change(cpuid, &feature, on);
    return 0;
}

static int apply_features(struct kvm_cpuid2 *cpuid, struct kvm_cpuid2 *host, char **words,
                          Error **errp)
{
    for (; *words; words++) {
        g_autofree char *name = NULL;
        char *value = strchr(*words, '=');
        bool on = **words == '+' || !value;

        if (**words == '+' || **words == '-') {
            name = g_strdup(*words + 1);
            on = **words == '+';
        } else if (value && (!strcmp(value, "=on") || !strcmp(value, "=off"))) {
            name = g_strndup(*words, value - *words);
            on = !strcmp(value, "=on");
        } else if (value) {
            error_setg(errp, "-cpu: '%s' must be 'on' or 'off'", *words);
            return -1;
        } else {
            name = g_strdup(*words);
        }
        if (apply_feature(cpuid, host, name, on, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Which parts of XCR0 the guest may turn on follows from its features. */
static uint64_t xsave_components(struct kvm_cpuid2 *cpuid)
{
    uint64_t components = 3;

    if (!feature_is_set(cpuid, "xsave")) {
        return 0;
    }
    components |= feature_is_set(cpuid, "avx") ? 1 << 2 : 0;
    components |= feature_is_set(cpuid, "mpx") ? 3 << 3 : 0;
    components |= feature_is_set(cpuid, "avx512f") ? 7 << 5 : 0;
    components |= feature_is_set(cpuid, "pku") ? 1 << 9 : 0;
    components |= feature_is_set(cpuid, "amx-tile") ? 3 << 17 : 0;
    return components;
}

static void trim_xsave(struct kvm_cpuid2 *cpuid)
{
    uint64_t components = xsave_components(cpuid);
    uint32_t bytes = 512 + 64;

    for (unsigned i = 0; i < cpuid->nent; ) {
        struct kvm_cpuid_entry2 *e = &cpuid->entries[i];
        bool supervisor = e->function == 0xd && e->index >= 2 && (e->ecx & 1);

        if (e->function == 0xd && e->index >= 2 &&
            (supervisor ? !feature_is_set(cpuid, "xsaves") : !(components >> e->index & 1))) {
            remove_entry(cpuid, e);
            continue;
        }
        if (e->function == 0xd && e->index >= 2 && !supervisor) {
            bytes = MAX(bytes, e->ebx + e->eax);
        }
        i++;
    }
    struct kvm_cpuid_entry2 *e = find(cpuid, 0xd, 0);
    if (e) {
        e->eax &= (uint32_t)components;
        e->edx &= components >> 32;
        e->ecx = components ? bytes : 0;
        e->ebx = components ? 512 + 64 : 0;
    }
    e = find(cpuid, 0xd, 1);
    if (e && !components) {
        e->eax = e->ebx = e->ecx = e->edx = 0;
    }
}

int kvm_cpuid_init(const char *cpu_model, Error **errp)
{
    g_auto(GStrv) words = g_strsplit(cpu_model && *cpu_model ? cpu_model : DEFAULT_MODEL, ",", -1);
    const CPUModel *model = model_by_name(words[0], errp);

    if (!model) {
        return -1;
    }
    g_autofree struct kvm_cpuid2 *cpuid = supported_cpuid(errp);
    if (!cpuid) {
        return -1;
    }
    adjust_supported(cpuid);
    g_autofree struct kvm_cpuid2 *host =
        g_memdup2(cpuid, sizeof(*cpuid) + CPUID_ENTRIES_MAX * sizeof(cpuid->entries[0]));

    apply_model(cpuid, model);
    if (apply_features(cpuid, host, words + 1, errp) < 0) {
        return -1;
    }
    trim_xsave(cpuid);
    kvm.cpuid = g_steal_pointer(&cpuid);
    return 0;
}

/* One package; each vCPU is a core without siblings. */
static void set_topology_leaf(struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t apic_id)
{
    unsigned bits = kvm.cpus > 1 ? 32 - __builtin_clz(kvm.cpus - 1) : 0;

    for (unsigned i = 0; i < cpuid->nent; ) {
        if (cpuid->entries[i].function == function) {
            remove_entry(cpuid, &cpuid->entries[i]);
        } else {
            i++;
        }
    }
    for (unsigned level = 0; level < 3; level++) {
        struct kvm_cpuid_entry2 *e = add_entry(cpuid, function, level, true);

        e->eax = level == 1 ? bits : 0;
        e->ebx = level == 0 ? 1 : level == 1 ? kvm.cpus : 0;
        e->ecx = level | (level < 2 ? (level + 1) << 8 : 0);
        e->edx = apic_id;
    }
}

static void set_identity(struct kvm_cpuid_entry2 *e, const CPUState *cpu)
{
    switch (e->function) {
    case 1:
        e->ebx = (e->ebx & 0xff00) | cpu->apic_id << 24 | kvm.cpus << 16;
        if (kvm.cpus > 1) {
            e->edx |= 1u << 28;     /* more than one logical processor in the package */
        }
        break;
    case 4:
    case 0x8000001d:
        if (e->eax & 31) {
            bool shared = (e->eax >> 5 & 7) >= 3;

            e->eax &= ~(0xfffu << 14 | 0x3fu << 26);
            e->eax |= (shared ? kvm.cpus - 1 : 0) << 14;
            e->eax |= e->function == 4 ? (kvm.cpus - 1) << 26 : 0;
        }
        break;
    case 0x80000008:
        e->ecx = kvm.cpus - 1;
        break;
    case 0x8000001e:
        e->eax = cpu->apic_id;
        e->ebx = cpu->apic_id & 0xff;
        e->ecx = 0;
        break;
    }
}

int kvm_cpuid_set_vcpu(CPUState *cpu, Error **errp)
{
    g_autofree struct kvm_cpuid2 *cpuid = g_memdup2(
        kvm.cpuid, sizeof(*kvm.cpuid) + CPUID_ENTRIES_MAX * sizeof(kvm.cpuid->entries[0]));
    struct kvm_cpuid_entry2 *basic = find(cpuid, 0, 0);

    for (unsigned i = 0; i < cpuid->nent; i++) {
        set_identity(&cpuid->entries[i], cpu);
    }
    if (basic && basic->eax >= 0xb) {
        set_topology_leaf(cpuid, 0xb, cpu->apic_id);
    }
    if (basic && basic->eax >= 0x1f) {
        set_topology_leaf(cpuid, 0x1f, cpu->apic_id);
    }
    int r = kvm_vcpu_ioctl(cpu, KVM_SET_CPUID2, cpuid);
    if (r < 0) {
        error_setg_errno(errp, -r, "KVM refuses the CPU model for vCPU %d", cpu->index);
        return -1;
    }
    return 0;
}
