/*
 * Dirty trackers: the conformance cases over KVM's dirty log.
 *
 * The writer is a vCPU in ring 3 that waits at a mailbox for an address and a value. Its page
 * tables, its code and the mailbox lie in a slot that no RAM block is behind.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include "accel/kvm/kvm-int.h"
#include "system/bql.h"
#include "tests/unit/dirty-conformance.h"
#include "util/bswap.h"
#include "util/mutex.h"

#define OWN_SLOT 1000
#define OWN_BYTES 0x40000u
#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
#define GIB_MAPPED 16u
#define CODE 0x20000u
#define MAILBOX 0x30000u

/*
 * l: mov rax, [rsi]; test rax, rax; jz l; mov rdi, [rsi+8]; mov rbx, [rsi+16]; mov [rdi], rbx;
 * mov qword [rsi], 0; jmp l
 */
static const uint8_t code[] = {
    0x48, 0x8b, 0x06, 0x48, 0x85, 0xc0, 0x74, 0xf8, 0x48, 0x8b, 0x7e, 0x08, 0x48, 0x8b, 0x5e, 0x10,
    0x48, 0x89, 0x1f, 0x48, 0xc7, 0x06, 0x00, 0x00, 0x00, 0x00, 0xeb, 0xe4,
};

static uint8_t *own;
static CPUState cpu;
static GThread *thread;
static int stop;
static Mutex mailbox_lock;

static int ram_mapped(const RAMRange *range, void *opaque, Error **errp)
{
    return accel_kvm.ram_mapped(range, errp);
}

static void fill_own(void)
{
    stq_le_p(own + PML4, PDPT | 0x67);
    for (uint64_t i = 0; i < GIB_MAPPED; i++) {
        stq_le_p(own + PDPT + 8 * i, (PD + i * 0x1000) | 0x67);
    }
    for (uint64_t i = 0; i < GIB_MAPPED * 512; i++) {
        stq_le_p(own + PD + 8 * i, i << 21 | 0xe7);
    }
    memcpy(own + CODE, code, sizeof(code));
    memset(own + MAILBOX, 0, 0x1000);
}

static void set_registers(X86CPUState *env)
{
    x86_cpu_state_reset(env, true);
    env->cr0 = 0x80050033;
    env->cr3 = PML4;
    env->cr4 = 0x620;
    env->efer = 0x500;
    env->rip = CODE;
    env->regs[R_RSI] = MAILBOX;
    for (int i = 0; i < SEG_LDT; i++) {
        env->seg[i] = (X86Segment) {
            .limit = UINT32_MAX, .selector = i == SEG_CS ? 0x33 : 0x2b,
            .type = i == SEG_CS ? 0xb : 3, .s = 1, .dpl = 3, .present = 1, .l = i == SEG_CS,
            .db = i != SEG_CS, .g = 1,
        };
    }
}

static gpointer vcpu_thread(gpointer opaque)
{
    bql_lock();
    accel_kvm.vcpu_init(&cpu, &error_abort);
    set_registers(&cpu.env);
    accel_kvm.put_state(&cpu, &error_abort);
    bql_unlock();
    while (!g_atomic_int_get(&stop)) {
        CPUExit why = accel_kvm.vcpu_exec(&cpu);

        g_assert_cmpint(why, ==, CPU_EXIT_AGAIN);
    }
    accel_kvm.vcpu_destroy(&cpu);
    return NULL;
}

static char *kvm_set_up(void)
{
    Error *err = NULL;

    if (accel_kvm.init(NULL, NULL, 1, &err) < 0) {
        char *reason = g_strdup(error_get_pretty(err));

        error_free(err);
        return reason;
    }
    memory_set_listener(ram_mapped, NULL, &error_abort);
    struct kvm_userspace_memory_region region = {
        .slot = OWN_SLOT, .memory_size = OWN_BYTES, .userspace_addr = (uintptr_t)own,
    };
    fill_own();
    int r = kvm_vm_ioctl(KVM_SET_USER_MEMORY_REGION, &region);
    g_assert_cmpint(r, ==, 0);
    memset(&cpu, 0, sizeof(cpu));
    g_atomic_int_set(&stop, 0);
    thread = g_thread_new("vcpu", vcpu_thread, NULL);
    return NULL;
}

static void kvm_tear_down(void)
{
    g_atomic_int_set(&stop, 1);
    /* A kick before the vCPU exists finds nobody; it looks at stop later. */
    accel_kvm.vcpu_kick(&cpu);
    g_thread_join(thread);
    memory_set_listener(NULL, NULL, &error_abort);
    accel_kvm.cleanup();
}

static void kvm_cpu_write(RAMBlock *block, uint64_t offset, uint64_t value)
{
    uint64_t *mail = (uint64_t *)(own + MAILBOX);
    int64_t end = g_get_monotonic_time() + 30 * G_USEC_PER_SEC;

    mutex_lock(&mailbox_lock);
    mail[1] = block->guest_addr + offset;
    mail[2] = value;
    __atomic_store_n(&mail[0], 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&mail[0], __ATOMIC_SEQ_CST)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        sched_yield();
    }
    mutex_unlock(&mailbox_lock);
}

static const TrackerUnderTest kvm_under_test = {
    .klass = &dirty_tracker_kvm,
    .set_up = kvm_set_up,
    .tear_down = kvm_tear_down,
    .cpu_write = kvm_cpu_write,
};

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    own = mmap(NULL, OWN_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert_true(own != MAP_FAILED);
    dirty_conformance_add(&kvm_under_test);
    return g_test_run();
}
