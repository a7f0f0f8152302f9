/*
 * The tcg accelerator: the common cases, and what it refuses.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <json-c/json.h>
#include <linux/kvm.h>
#include <sched.h>
#include <string.h>
#include "accel/tcg/tcg-int.h"
#include "system/bql.h"
#include "system/main-loop.h"
#include "tests/unit/accel-harness.h"
#include "util/bswap.h"

static const uint8_t spin[] = { 0xeb, 0xfe };

static void test_refusals(void)
{
    static const struct {
        const char *cpu_model, *message;
    } cases[] = {
        { "host", "CPU model 'host' requires KVM" },
        { "qemu64,+avx",
          "-cpu qemu64,+avx: the tcg accelerator cannot change the features of a model" },
        { "z80",
          "unable to find CPU model 'z80' (there are: qemu64, kvm64, phenom, core2duo, Conroe, "
          "Penryn, Nehalem, Westmere, max)" },
    };
    struct json_object *opts = json_object_new_object();
    Error *err = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpint(accel_tcg.init(NULL, cases[i].cpu_model, 1, &err), <, 0);
        g_assert_cmpstr(error_get_pretty(err), ==, cases[i].message);
        g_clear_pointer(&err, error_free);
    }
    json_object_object_add(opts, "thread", json_object_new_string("multi"));
    g_assert_cmpint(accel_tcg.init(opts, NULL, 1, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "Property 'thread' not found");
    error_free(err);
    json_object_put(opts);
}

static void expect_refused(CPUState *cpu, const char *message)
{
    Error *err = NULL;

    g_assert_cmpint(cpu_push_state(cpu, &err), <, 0);
    if (!strstr(error_get_pretty(err), message)) {
        g_error("'%s' is not in '%s'", message, error_get_pretty(err));
    }
    error_free(err);
}

/* States that came from an accelerator that has more. */
static void test_cannot_carry(void)
{
    CPUState *cpu = cpu_get(0);
    X86CPUState *env = &cpu->env;

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->cr4 |= 1 << 18;
    expect_refused(cpu, "processor features (CR4 0x40000)");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->interrupt_injected = 1;
    expect_refused(cpu, "the guest uses interrupts (one is being delivered)");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->has_lapic = 1;
    stl_le_p(env->lapic + 0xf0, 0x1ff);
    stl_le_p(env->lapic + 0x320, 0x20030);
    expect_refused(cpu, "the local APIC's timer");
    stl_le_p(env->lapic + 0x320, 0x30030);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmpint(env->has_lapic, ==, 1);
    g_assert_cmphex(ldl_le_p(env->lapic + 0xf0), ==, 0x1ff);

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->n_msrs = 1;
    env->msrs[0] = (X86MSR) { 0x4b564d01, 0x5001 };
    expect_refused(cpu, "the guest uses kvmclock");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->mp_state = 1;
    expect_refused(cpu, "more than one processor");

    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    env->seg[SEG_DS].selector = 0x2f;
    expect_refused(cpu, "local descriptor table (selector 0x2f)");
    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    harness_push(cpu);
}

static void test_vm_state(void)
{
    g_autofree AccelVMPart *parts = g_new0(AccelVMPart, VM_PARTS);
    g_autofree AccelVMPart *again = g_new0(AccelVMPart, VM_PARTS);
    struct kvm_pic_state pic = { .imr = 0 };
    struct kvm_ioapic_state ioapic = { .id = 3 };
    Error *err = NULL;

    parts[VM_PIC_MASTER].len = sizeof(pic);
    memcpy(parts[VM_PIC_MASTER].data, &pic, sizeof(pic));
    parts[VM_IOAPIC].len = sizeof(ioapic);
    for (int i = 0; i < KVM_IOAPIC_NUM_PINS; i++) {
        ioapic.redirtbl[i].bits = 0x10000;
    }
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    accel_tcg.put_vm_state(parts, &error_abort);
    accel_tcg.get_vm_state(again, &error_abort);
    g_assert_cmpmem(again[VM_IOAPIC].data, again[VM_IOAPIC].len, &ioapic, sizeof(ioapic));

    ioapic.redirtbl[4].bits = 0x34;
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    g_assert_cmpint(accel_tcg.put_vm_state(parts, &err), <, 0);
    g_assert_cmpstr(error_get_pretty(err), ==, "the guest uses interrupts (the I/O APIC is "
                    "programmed), which the tcg accelerator does not have");
    g_clear_pointer(&err, error_free);

    ioapic.redirtbl[4].bits = 0x10000;
    memcpy(parts[VM_IOAPIC].data, &ioapic, sizeof(ioapic));
    pic.irq_base = 0x20;
    memcpy(parts[VM_PIC_MASTER].data, &pic, sizeof(pic));
    g_assert_cmpint(accel_tcg.put_vm_state(parts, &err), <, 0);
    g_assert_nonnull(strstr(error_get_pretty(err), "the 8259 is programmed"));
    error_free(err);
}

/* HLT in ring 0 sleeps until a new state comes, and a saved one sleeps on. */
static void test_halt(void)
{
    /* mov [rdi], rdi; l: hlt; jmp l */
    static const uint8_t code[] = { 0x48, 0x89, 0x3f, 0xf4, 0xeb, 0xfd };
    CPUState *cpu = cpu_get(0);

    harness_load_code_ring0(cpu, 0x100000, code, sizeof(code));
    cpu->env.regs[R_RDI] = 0x200000;
    harness_push(cpu);
    cpus_resume_all();
    int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    while (!cpu->halted) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        bql_unlock();
        sched_yield();
        bql_lock();
    }
    cpus_pause_all();
    harness_sync(cpu);
    g_assert_cmpint(cpu->env.mp_state, ==, 3);
    g_assert_cmphex(cpu->env.rip, ==, 0x100004);
    g_assert_cmpint(cpu->env.seg[SEG_CS].dpl, ==, 0);
    g_assert_cmphex(ldq_le_p(harness_low->host + 0x200000), ==, 0x200000);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmpint(cpu->env.mp_state, ==, 3);
}

/* The state at reset is kept, not run: its code segment is one that nothing can load. */
static void test_reset_state(void)
{
    CPUState *cpu = cpu_get(0);

    x86_cpu_state_reset(&cpu->env, true);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmphex(cpu->env.rip, ==, 0xfff0);
    g_assert_nonnull(tcg.cannot_run);
    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    harness_push(cpu);
    g_assert_null(tcg.cannot_run);
}

/*
 * Other modes than long mode: a counter in EAX and in memory, through segments that are where they
 * are.
 */
static const struct Mode {
    const char *name;
    bool protection, paging, code32;
    unsigned ring;
    uint32_t code_base, data_base;
} modes[] = {
    { "real", false, false, false, 0, 0x20000, 0x30000 },
    { "real-at-zero", false, false, false, 0, 0, 0x10 },
    { "32-bit", true, false, true, 0, 0, 0 },
    { "32-bit-bases", true, false, true, 0, 0x51000, 0x6f010 },
    { "32-bit-ring3", true, false, true, 3, 0, 0 },
    { "32-bit-ring3-bases", true, false, true, 3, 0x51000, 0x6f010 },
    { "32-bit-paging", true, true, true, 3, 0, 0 },
    { "16-bit", true, false, false, 0, 0x70000, 0x60000 },
    { "16-bit-ring3", true, false, false, 3, 0x70000, 0x60000 },
};

#define MODE_CODE 0x10
#define MODE_DATA 0x40

static X86Segment mode_segment(const struct Mode *mode, uint32_t base, unsigned index, bool code)
{
    X86Segment seg = {
        .base = base, .limit = mode->code32 ? UINT32_MAX : 0xffff, .type = code ? 11 : 3, .s = 1,
        .present = 1, .dpl = mode->ring, .db = mode->code32, .g = mode->code32,
        .selector = mode->protection ? index << 3 | mode->ring : base >> 4,
    };
    return seg;
}

static void enter_mode(const struct Mode *mode, CPUState *cpu)
{
    /* inc eax; mov es:[edi], eax; jmp back; the same of 16 bits */
    static const uint8_t code32[] = { 0x40, 0x26, 0x89, 0x07, 0xeb, 0xfa };
    static const uint8_t code16[] = { 0x40, 0x26, 0x89, 0x05, 0xeb, 0xfa };
    X86CPUState *env = &cpu->env;

    x86_cpu_state_reset(env, true);
    memcpy(harness_low->host + mode->code_base + MODE_CODE, mode->code32 ? code32 : code16, 6);
    memset(harness_low->host + mode->data_base + MODE_DATA, 0, 4);
    env->seg[SEG_CS] = mode_segment(mode, mode->code_base, 1, true);
    for (int i = 0; i < SEG_LDT; i++) {
        if (i != SEG_CS) {
            env->seg[i] = mode_segment(mode, i == SEG_ES ? mode->data_base : 0, 2 + i, false);
        }
    }
    env->rip = MODE_CODE;
    env->regs[R_RDI] = MODE_DATA;
    env->regs[R_RSP] = 0x8000;
    env->cr0 = 0x10 | mode->protection;
    if (mode->paging) {
        /* The first 4 MiB, one large page. */
        stl_le_p(harness_low->host + 0x380000, 0x87);
        env->cr3 = 0x380000;
        env->cr4 = 1 << 4;
        env->cr0 |= 1u << 31;
    }
}

static uint32_t mode_counter(const struct Mode *mode)
{
    const uint8_t *at = harness_low->host + mode->data_base + MODE_DATA;

    return mode->code32 ? __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE)
                        : __atomic_load_n((const uint16_t *)at, __ATOMIC_ACQUIRE);
}

static void test_mode(gconstpointer opaque)
{
    const struct Mode *mode = opaque;
    CPUState *cpu = cpu_get(0);
    g_autofree X86CPUState *before = NULL;

    enter_mode(mode, cpu);
    before = g_memdup2(&cpu->env, sizeof(cpu->env));
    for (int i = 0; i < 20; i++) {
        int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
        uint32_t then = mode_counter(mode);

        harness_push(cpu);
        g_assert_null(tcg.cannot_run);
        cpus_resume_all();
        bql_unlock();
        while (mode_counter(mode) == then) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            sched_yield();
        }
        bql_lock();
        cpus_pause_all();
        harness_sync(cpu);
        g_assert_cmphex(cpu->env.rip, ==, MODE_CODE);
        g_assert_cmphex(cpu->env.regs[R_RAX], ==, mode_counter(mode));
        g_assert_cmphex(cpu->env.cr0, ==, before->cr0);
        g_assert_cmphex(cpu->env.cr3, ==, before->cr3);
        g_assert_cmphex(cpu->env.efer, ==, 0);
        g_assert_cmpmem(cpu->env.seg, SEG_LDT * sizeof(X86Segment), before->seg,
                        SEG_LDT * sizeof(X86Segment));
    }
}

static void test_no_mode(void)
{
    CPUState *cpu = cpu_get(0);

    enter_mode(&modes[4], cpu);
    cpu->env.rflags |= 1 << 17;
    harness_push(cpu);
    g_assert_cmpstr(tcg.cannot_run, ==,
                    "the vCPU is in virtual 8086 mode, where the tcg accelerator "
                    "cannot run it");
    harness_load_code(cpu, 0x100000, spin, sizeof(spin));
    harness_push(cpu);
}

/* A guest that loads segments by itself is understood by its own table. */
static void test_guest_segments(void)
{
    /* mov es, eax; xor ecx, ecx; mov gs, ecx; l: jmp l */
    static const uint8_t code[] = { 0x8e, 0xc0, 0x31, 0xc9, 0x8e, 0xe9, 0xeb, 0xfe };
    CPUState *cpu = cpu_get(0);
    X86CPUState *env = &cpu->env;

    stq_le_p(harness_low->host + 0x300058, 0x00cff3000000ffff);
    harness_load_code(cpu, 0x100000, code, sizeof(code));
    env->gdt = (X86Table) { 0x300000, 0x5f };
    env->regs[R_RAX] = 0x5b;
    harness_push(cpu);
    int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;
    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        cpus_resume_all();
        bql_unlock();
        sched_yield();
        bql_lock();
        cpus_pause_all();
        harness_sync(cpu);
    } while (env->rip != 0x100006);
    g_assert_cmphex(env->seg[SEG_ES].selector, ==, 0x5b);
    g_assert_cmphex(env->seg[SEG_ES].limit, ==, 0xffffffff);
    g_assert_cmpint(env->seg[SEG_ES].dpl, ==, 3);
    g_assert_cmpint(env->seg[SEG_ES].unusable, ==, 0);
    g_assert_cmpint(env->seg[SEG_GS].unusable, ==, 1);
    g_assert_cmpint(env->seg[SEG_SS].dpl, ==, 3);
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmphex(env->seg[SEG_ES].selector, ==, 0x5b);
    g_assert_cmphex(env->seg[SEG_GS].selector, ==, 0);
}

/*
 * A guest that knows what it has done: RBX counts rounds, and after each round the counter in
 * memory, the sum of two branches' counters, a lane of XMM0 and the top of the x87 stack must be
 * equal to it, and the stack pointer must be back. Between, it recurses, keeps conditions and the
 * direction flag over the borders of blocks, and reads the clock. RDI points to: the counter, the
 * number of the check that failed, room for FISTP, the stack pointer.
 */
static const uint8_t careful_code[] = {
    0x48, 0x89, 0x67, 0x18, 0xdb, 0xe3,        /* mov [rdi+0x18], rsp; fninit */
    0xd9, 0xee, 0x66, 0x0f, 0xef, 0xc0,        /* fldz; pxor xmm0, xmm0 */
    0xb8, 0x01, 0x00, 0x00, 0x00,              /* mov eax, 0x1 */
    0x66, 0x4c, 0x0f, 0x6e, 0xc8,              /* movq xmm9, rax */
    0x48, 0xff, 0xc3, 0x48, 0x89, 0xde,        /* loop: inc rbx; mov rsi, rbx */
    0x48, 0x83, 0xe6, 0x07, 0x49, 0x89, 0xf2,  /* and rsi, 0x7; mov r10, rsi */
    0xe8, 0xc1, 0x00, 0x00, 0x00,              /* call sum */
    0x49, 0x8d, 0x4a, 0x01,                    /* lea rcx, [r10+0x1] */
    0x49, 0x0f, 0xaf, 0xca, 0x48, 0xd1, 0xe9,  /* imul rcx, r10; shr rcx, 1 */
    0xba, 0x01, 0x00, 0x00, 0x00,              /* mov edx, 0x1 */
    0x48, 0x39, 0xc8,                          /* cmp rax, rcx */
    0x0f, 0x85, 0xa2, 0x00, 0x00, 0x00,        /* jne bad */
    0x0f, 0x31, 0xa8, 0x04, 0x74, 0x05,        /* rdtsc; test al, 0x4; je 0x4c */
    0x49, 0xff, 0xc0, 0xeb, 0x03,              /* inc r8; jmp 0x4f */
    0x49, 0xff, 0xc1, 0x4b, 0x8d, 0x04, 0x08,  /* inc r9; lea rax, [r8+r9*1] */
    0xba, 0x02, 0x00, 0x00, 0x00,              /* mov edx, 0x2 */
    0x48, 0x39, 0xd8,                          /* cmp rax, rbx */
    0x0f, 0x85, 0x82, 0x00, 0x00, 0x00,        /* jne bad */
    0x49, 0x89, 0xdb, 0x41, 0x83, 0xe3, 0x01,  /* mov r11, rbx; and r11d, 0x1 */
    0x41, 0x83, 0xfb, 0x01, 0xeb, 0x00,        /* cmp r11d, 0x1; jmp 0x6e */
    0x0f, 0x94, 0xc1, 0x0f, 0xb6, 0xc9,        /* sete cl; movzx ecx, cl */
    0xba, 0x03, 0x00, 0x00, 0x00,              /* mov edx, 0x3 */
    0x44, 0x39, 0xd9, 0x75, 0x65,              /* cmp ecx, r11d; jne bad */
    0x66, 0x41, 0x0f, 0xd4, 0xc1, 0xeb, 0x00,  /* paddq xmm0, xmm9; jmp 0x85 */
    0x66, 0x48, 0x0f, 0x7e, 0xc0,              /* movq rax, xmm0 */
    0xba, 0x04, 0x00, 0x00, 0x00,              /* mov edx, 0x4 */
    0x48, 0x39, 0xd8, 0x75, 0x4f, 0xd9, 0xe8,  /* cmp rax, rbx; jne bad; fld1 */
    0xeb, 0x00, 0xde, 0xc1, 0xd9, 0xc0,        /* jmp 0x98; faddp st(1), st; fld st(0) */
    0xeb, 0x00, 0xdf, 0x7f, 0x10,              /* jmp 0x9e; fistp [rdi+0x10] */
    0xba, 0x05, 0x00, 0x00, 0x00,              /* mov edx, 0x5 */
    0x48, 0x39, 0x5f, 0x10, 0x75, 0x37,        /* cmp [rdi+0x10], rbx; jne bad */
    0x48, 0x8d, 0x77, 0x10, 0xfd, 0xeb, 0x00,  /* lea rsi, [rdi+0x10]; std; jmp 0xb3 */
    0x48, 0xad, 0xeb, 0x00, 0xfc,              /* lods rax, [rsi]; jmp 0xb7; cld */
    0x48, 0x8d, 0x4f, 0x08,                    /* lea rcx, [rdi+0x8] */
    0xba, 0x06, 0x00, 0x00, 0x00,              /* mov edx, 0x6 */
    0x48, 0x39, 0xce, 0x75, 0x1d,              /* cmp rsi, rcx; jne bad */
    0xba, 0x07, 0x00, 0x00, 0x00,              /* mov edx, 0x7 */
    0x48, 0x39, 0x67, 0x18, 0x75, 0x12,        /* cmp [rdi+0x18], rsp; jne bad */
    0x48, 0xff, 0x07,                          /* inc [rdi] */
    0xba, 0x08, 0x00, 0x00, 0x00,              /* mov edx, 0x8 */
    0x48, 0x39, 0x1f, 0x75, 0x05,              /* cmp [rdi], rbx; jne bad */
    0xe9, 0x33, 0xff, 0xff, 0xff,              /* jmp loop */
    0x48, 0x89, 0x57, 0x08, 0xeb, 0xfe,        /* bad: mov [rdi+0x8], rdx; jmp 0xe7 */
    0x31, 0xc0, 0x48, 0x85, 0xf6, 0x74, 0x0d,  /* sum: xor eax, eax; test rsi, rsi; je 0xfd */
    0x56, 0x48, 0xff, 0xce,                    /* push rsi; dec rsi */
    0xe8, 0xf0, 0xff, 0xff, 0xff, 0x59,        /* call sum; pop rcx */
    0x48, 0x01, 0xc8, 0xc3,                    /* add rax, rcx; ret */
};

static bool is_wrong(CPUState *cpu, const uint8_t *data)
{
    return cpu->stop || __atomic_load_n((const uint64_t *)(data + 8), __ATOMIC_ACQUIRE);
}

/* Let the guest run until the counter is beyond @count, and then stop it anywhere. */
static void run_beyond(CPUState *cpu, const uint8_t *data, uint64_t count)
{
    int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;

    cpus_resume_all();
    bql_unlock();
    while (__atomic_load_n((const uint64_t *)data, __ATOMIC_ACQUIRE) <= count &&
           !is_wrong(cpu, data)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        sched_yield();
    }
    for (int spins = g_test_rand_int_range(0, 3000); spins; spins--) {
        __asm__ volatile("pause");
    }
    bql_lock();
    g_assert_false(cpu->stop);
    cpus_pause_all();
}

/* Stopped anywhere, and gone on in a new engine with the state that was read. */
static void test_stop_is_exact(void)
{
    enum { STOPS = 600 };
    CPUState *cpu = cpu_get(0);
    uint8_t *data = harness_low->host + 0x200000;
    unsigned elsewhere = 0;
    uint64_t last_rip = 0;

    memset(data, 0, 32);
    harness_load_code(cpu, 0x100000, careful_code, sizeof(careful_code));
    cpu->env.regs[R_RSP] = 0x300000;
    cpu->env.regs[R_RDI] = 0x200000;
    harness_push(cpu);
    for (int i = 0; i < STOPS; i++) {
        run_beyond(cpu, data, ldq_le_p(data) + g_test_rand_int_range(0, 5));
        harness_sync(cpu);
        elsewhere += cpu->env.rip != last_rip;
        last_rip = cpu->env.rip;
        g_assert_cmphex(cpu->env.rip - 0x100000, <, sizeof(careful_code));
        g_assert_cmpuint(ldq_le_p(data + 8), ==, 0);
        if (i % 4) {
            harness_push(cpu);
        }
    }
    /* The stops were spread over the code, else they have not tested much. */
    g_assert_cmpuint(elsewhere, >, STOPS / 4);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    main_loop_init();
    bql_lock();
    test_refusals();
    harness_add_cases(&accel_tcg, 1);
    g_test_add_func("/tcg/cannot-carry", test_cannot_carry);
    g_test_add_func("/tcg/vm-state", test_vm_state);
    g_test_add_func("/tcg/halt", test_halt);
    g_test_add_func("/tcg/reset-state", test_reset_state);
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_autofree char *path = g_strdup_printf("/tcg/mode/%s", modes[i].name);
        g_test_add_data_func(path, &modes[i], test_mode);
    }
    g_test_add_func("/tcg/no-mode", test_no_mode);
    g_test_add_func("/tcg/guest-segments", test_guest_segments);
    g_test_add_func("/tcg/stop-is-exact", test_stop_is_exact);
    int ret = g_test_run();
    harness_destroy();
    bql_unlock();
    return ret;
}
