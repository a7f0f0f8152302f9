/*
 * The cases common to accelerators that run code: state that goes in comes out, code runs and
 * reaches ports and memory, a storm of kicks and pauses loses and repeats nothing, and a dirty
 * tracker tells exactly the pages that were written.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tests/unit/accel-harness.h"

#include <glib.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include "system/bql.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "util/bitmap.h"
#include "util/bswap.h"

#define DEADLINE_US (60 * G_USEC_PER_SEC)

#define PML4 0x1000u
#define PDPT 0x2000u
#define PD 0x3000u
/* All ports are allowed by the bitmap, too: not every KVM keeps IOPL while ring 3 runs natively. */
#define TSS 0x10000u
#define TSS_IO_BITMAP 0x68u
#define TSS_BYTES (TSS_IO_BITMAP + 0x2000 + 1)
/* Present, writable, user, accessed, dirty: so that walking the tables never writes to them. */
#define TABLE_FLAGS 0x67u
#define LARGE_FLAGS 0xe7u

#define PORT_COUNT 0x500
#define PORT_PAGES 0x510

RAMBlock *harness_low, *harness_high;
const char *harness_absent;

static pthread_cond_t port_event;

/* ---- devices: a port that checks a sequence for each vCPU, and one that hands out pages ---- */

static struct {
    uint32_t last[CPUS_MAX];
    unsigned wrong;
    uint64_t total;
} counted;

static void count_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    int index = cpu_current()->index;

    if ((uint32_t)value != counted.last[index] + 1 || size != 4) {
        counted.wrong++;
    }
    counted.last[index] = value;
    __atomic_fetch_add(&counted.total, 1, __ATOMIC_RELAXED);
    pthread_cond_signal(&port_event);
}

static struct {
    const uint32_t *pages;
    unsigned n, next;
    bool done;
} feed;

static uint64_t pages_read(void *opaque, uint64_t offset, unsigned size)
{
    if (feed.next < feed.n) {
        return feed.pages[feed.next++];
    }
    /* Asked once more: the last page has been written. */
    feed.done = true;
    pthread_cond_signal(&port_event);
    return HARNESS_PARK_PAGE;
}

static const IOOps count_ops = { .write = count_write };
static const IOOps pages_ops = { .read = pages_read };

#define WAIT_FOR(condition) do { \
        int64_t end_ = g_get_monotonic_time() + DEADLINE_US; \
        while (!(condition)) { \
            bool in_time_ = bql_cond_wait_until(&port_event, end_); \
            g_assert_true(in_time_); \
        } \
    } while (0)

/* For what no port tells of. */
#define POLL_FOR(condition) do { \
        int64_t end_ = g_get_monotonic_time() + DEADLINE_US; \
        while (!(condition)) { \
            g_assert_cmpint(g_get_monotonic_time(), <, end_); \
            bql_unlock(); \
            sched_yield(); \
            bql_lock(); \
        } \
    } while (0)

/* ---- the machine ---- */

static void build_page_tables(void)
{
    uint8_t *ram = harness_low->host;

    stq_le_p(ram + PML4, PDPT | TABLE_FLAGS);
    stq_le_p(ram + PDPT, PD | TABLE_FLAGS);
    for (uint64_t i = 0; i < 512; i++) {
        stq_le_p(ram + PD + i * 8, i << 21 | LARGE_FLAGS);
    }
    stw_le_p(ram + TSS + 0x66, TSS_IO_BITMAP);
    ram[TSS + TSS_BYTES - 1] = 0xff;
}

bool harness_create(const AccelClass *klass, unsigned cpus)
{
    Error *err = NULL;

    bql_cond_init(&port_event);
    if (accel_init(klass, NULL, NULL, cpus, &err) < 0) {
        harness_absent = g_strdup(error_get_pretty(err));
        error_free(err);
        return false;
    }
    harness_low = ram_block_new("low", HARNESS_RAM_BYTES, NULL, &error_abort);
    harness_high = ram_block_new("high", HARNESS_HIGH_OFFSET + HARNESS_HIGH_BYTES, NULL,
                                 &error_abort);
    /* Where no memory is yet, the first write may create more than the page written. */
    memset(harness_low->host, 0, harness_low->used_length);
    memset(harness_high->host, 0, harness_high->used_length);
    build_page_tables();
    memory_map_ram("low", 0, harness_low, 0, HARNESS_RAM_BYTES, false, &error_abort);
    memory_map_ram("high", HARNESS_HIGH_GPA, harness_high, HARNESS_HIGH_OFFSET,
                   HARNESS_HIGH_BYTES, false, &error_abort);
    memory_map_ports("count", PORT_COUNT, 4, &count_ops, NULL, &error_abort);
    memory_map_ports("pages", PORT_PAGES, 4, &pages_ops, NULL, &error_abort);
    cpus_create(cpus, &error_abort);
    return true;
}

void harness_destroy(void)
{
    if (!harness_absent) {
        cpus_destroy();
        if (accel_current()->cleanup) {
            accel_current()->cleanup();
        }
    }
}

static X86Segment flat(uint16_t selector, uint8_t type, uint8_t dpl, bool code)
{
    return (X86Segment) { .limit = 0xffffffff, .selector = selector, .type = type, .s = 1,
                          .dpl = dpl, .present = 1, .l = code, .db = !code, .g = 1 };
}

static void load_code(CPUState *cpu, uint64_t gpa, const uint8_t *code, size_t len, uint8_t ring)
{
    X86CPUState *env = &cpu->env;

    address_space_write(gpa, code, len);
    x86_cpu_state_reset(env, true);
    env->cr0 = 0x80050033;
    env->cr3 = PML4;
    env->cr4 = 0x620;
    env->efer = 0x500;
    env->rflags = 2 | 3 << 12;
    env->rip = gpa;
    env->seg[SEG_CS] = flat(ring ? 0x33 : 0x10, 0xb, ring, true);
    for (int i = 0; i < SEG_LDT; i++) {
        if (i != SEG_CS) {
            env->seg[i] = flat(ring ? 0x2b : 0x18, 3, ring, false);
        }
    }
    env->seg[SEG_TR].base = TSS;
    env->seg[SEG_TR].limit = TSS_BYTES - 1;
    env->gdt = env->idt = (X86Table) { 0 };
    cpu->env_valid = true;
    cpu->env_dirty = true;
}

void harness_load_code(CPUState *cpu, uint64_t gpa, const uint8_t *code, size_t len)
{
    load_code(cpu, gpa, code, len, 3);
}

void harness_load_code_ring0(CPUState *cpu, uint64_t gpa, const uint8_t *code, size_t len)
{
    load_code(cpu, gpa, code, len, 0);
}

void harness_push(CPUState *cpu)
{
    cpu_push_state(cpu, &error_abort);
}

void harness_sync(CPUState *cpu)
{
    cpu->env_valid = false;
    cpu_synchronize_state(cpu, &error_abort);
}

/* inc rcx; mov eax, ecx; out dx, eax; inc rbx; mov [rdi], rcx; jmp back */
static const uint8_t counter_code[] = {
    0x48, 0xff, 0xc1, 0x89, 0xc8, 0xef, 0x48, 0xff, 0xc3, 0x48, 0x89, 0x0f, 0xeb, 0xf2,
};

static void start_counter(CPUState *cpu)
{
    harness_load_code(cpu, 0x100000 + cpu->index * 0x1000, counter_code, sizeof(counter_code));
    cpu->env.regs[R_RDX] = PORT_COUNT;
    cpu->env.regs[R_RDI] = 0x200000 + cpu->index * 0x1000;
    memset(harness_low->host + cpu->env.regs[R_RDI], 0, 8);
    counted.last[cpu->index] = 0;
    harness_push(cpu);
}

/* in eax, dx; shl rax, 12; mov [rax], rcx; inc rcx; jmp back */
static const uint8_t writer_code[] = {
    0xed, 0x48, 0xc1, 0xe0, 0x0c, 0x48, 0x89, 0x08, 0x48, 0xff, 0xc1, 0xeb, 0xf3,
};

void harness_start_writer(CPUState *cpu)
{
    harness_load_code(cpu, 0x180000, writer_code, sizeof(writer_code));
    cpu->env.regs[R_RDX] = PORT_PAGES;
    cpu->env.regs[R_RCX] = 1;
    harness_push(cpu);
}

void harness_write_pages(const uint32_t *pages, unsigned n)
{
    feed.pages = pages;
    feed.n = n;
    feed.next = 0;
    feed.done = false;
    WAIT_FOR(feed.done);
    feed.n = feed.next = 0;
}

/* Everybody but @cpu stays where it is. */
static void run_only(CPUState *cpu)
{
    cpu->stop = false;
    cpu->stopped = false;
    cpu_kick(cpu);
}

/* ---- cases ---- */

static void test_round_trip(void)
{
    static const uint8_t nothing[] = { 0xeb, 0xfe };
    CPUState *cpu = cpu_get(0);
    g_autofree X86CPUState *want = NULL;
    X86CPUState *env;

    HARNESS_SKIP_IF_ABSENT();
    env = &cpu->env;
    harness_load_code(cpu, 0x100000, nothing, sizeof(nothing));
    for (int i = 0; i < R_COUNT; i++) {
        env->regs[i] = 0x0123456789abcdefull * (i + 1);
    }
    env->rflags |= 0x8d5;               /* OF SF ZF AF PF CF */
    env->seg[SEG_FS].base = 0x7fff12345678;
    env->seg[SEG_GS].base = 0x12345;
    env->gdt = (X86Table) { 0x300000, 0x7f };
    env->idt = (X86Table) { 0x301000, 0xfff };
    env->dr[0] = 0x100004;
    env->dr[3] = 0x2000;
    env->cr2 = 0xdeadbeef000;
    for (int i = 0; i < 256; i++) {
        env->xsave[160 + i] = i * 7 + 1;        /* XMM */
    }
    stw_le_p(env->xsave, 0x27f);
    stl_le_p(env->xsave + 24, 0x1fa0);
    /* Two values on the x87 stack: top is 6. */
    stw_le_p(env->xsave + 2, 6 << 11);
    env->xsave[4] = 0xc0;
    stw_le_p(env->xsave + 6, 0x5d9);
    stq_le_p(env->xsave + 8, 0x100234);
    stq_le_p(env->xsave + 32, 0xc90fdaa22168c235);
    stw_le_p(env->xsave + 40, 0x4000);
    stq_le_p(env->xsave + 48, 0x8000000000000000);
    stw_le_p(env->xsave + 56, 0x3fff);
    env->n_msrs = 3;
    env->msrs[0] = (X86MSR) { 0xc0000081, 0x0023001000000000 };   /* STAR */
    env->msrs[1] = (X86MSR) { 0xc0000082, 0xffffffff81000000 };   /* LSTAR */
    env->msrs[2] = (X86MSR) { 0xc0000102, 0xffff888000001000 };   /* KERNEL_GS_BASE */
    want = g_memdup2(env, sizeof(*env));

    harness_push(cpu);
    for (int i = 0; i < R_COUNT; i++) {
        env->regs[i] = 0;
    }
    env->rip = 0;
    memset(env->xsave, 0xaa, env->xsave_len);
    harness_sync(cpu);

    for (int i = 0; i < R_COUNT; i++) {
        g_assert_cmphex(env->regs[i], ==, want->regs[i]);
    }
    g_assert_cmphex(env->rip, ==, want->rip);
    g_assert_cmphex(env->rflags, ==, want->rflags);
    for (int i = 0; i < SEG_LDT; i++) {
        g_assert_cmphex(env->seg[i].selector, ==, want->seg[i].selector);
        g_assert_cmphex(env->seg[i].base, ==, want->seg[i].base);
        g_assert_cmpint(env->seg[i].dpl, ==, 3);
        g_assert_cmpint(env->seg[i].l, ==, i == SEG_CS);
    }
    g_assert_cmphex(env->gdt.base, ==, want->gdt.base);
    g_assert_cmphex(env->gdt.limit, ==, want->gdt.limit);
    g_assert_cmphex(env->idt.base, ==, want->idt.base);
    g_assert_cmphex(env->cr0, ==, want->cr0);
    g_assert_cmphex(env->cr2, ==, want->cr2);
    g_assert_cmphex(env->cr3, ==, want->cr3);
    g_assert_cmphex(env->cr4, ==, want->cr4);
    g_assert_cmphex(env->efer, ==, want->efer);
    g_assert_cmphex(env->dr[0], ==, want->dr[0]);
    g_assert_cmphex(env->dr[3], ==, want->dr[3]);
    g_assert_cmpint(env->mp_state, ==, 0);
    g_assert_cmpmem(env->xsave, 24, want->xsave, 24);
    g_assert_cmphex(ldl_le_p(env->xsave + 24), ==, 0x1fa0);
    g_assert_cmpmem(env->xsave + 32, 10, want->xsave + 32, 10);
    g_assert_cmpmem(env->xsave + 48, 10, want->xsave + 48, 10);
    g_assert_cmpmem(env->xsave + 160, 256, want->xsave + 160, 256);
    for (unsigned i = 0; i < want->n_msrs; i++) {
        bool found = false;

        for (unsigned j = 0; j < env->n_msrs; j++) {
            if (env->msrs[j].index == want->msrs[i].index) {
                g_assert_cmphex(env->msrs[j].value, ==, want->msrs[i].value);
                found = true;
            }
        }
        g_assert_true(found);
    }
    g_assert_cmpuint(env->tsc, !=, 0);
}

/* Pushing what was read changes nothing. */
static void test_put_what_was_got(void)
{
    g_autofree X86CPUState *before = NULL;
    CPUState *cpu = cpu_get(0);

    HARNESS_SKIP_IF_ABSENT();
    start_counter(cpu);
    run_only(cpu);
    WAIT_FOR(counted.last[0] > 100);
    cpus_pause_all();
    harness_sync(cpu);
    before = g_memdup2(&cpu->env, sizeof(cpu->env));
    harness_push(cpu);
    harness_sync(cpu);
    g_assert_cmpmem(cpu->env.regs, sizeof(before->regs), before->regs, sizeof(before->regs));
    g_assert_cmphex(cpu->env.rip, ==, before->rip);
    g_assert_cmpmem(cpu->env.seg, sizeof(before->seg), before->seg, sizeof(before->seg));
    g_assert_cmpuint(cpu->env.n_msrs, ==, before->n_msrs);
    g_assert_cmpmem(cpu->env.xsave, before->xsave_len, before->xsave, before->xsave_len);
    g_assert_cmpmem(cpu->env.lapic, CPU_LAPIC_BYTES, before->lapic, CPU_LAPIC_BYTES);

    uint32_t last = counted.last[0];
    run_only(cpu);
    WAIT_FOR(counted.last[0] > last + 100);
    cpus_pause_all();
    g_assert_cmpuint(counted.wrong, ==, 0);
}

static void test_unmapped_memory(void)
{
    /* mov rbx, [rsi]; mov [rsi], rbx; movzx r8, word [rsi+1]; mov [rdi], r8; l: pause; jmp l */
    static const uint8_t code[] = {
        0x48, 0x8b, 0x1e, 0x48, 0x89, 0x1e, 0x4c, 0x0f, 0xb7, 0x46, 0x01, 0x4c, 0x89, 0x07,
        0xf3, 0x90, 0xeb, 0xfc,
    };
    CPUState *cpu = cpu_get(0);

    HARNESS_SKIP_IF_ABSENT();
    uint64_t *answer = (uint64_t *)(harness_low->host + 0x200000);
    *answer = 0;
    harness_load_code(cpu, 0x100000, code, sizeof(code));
    cpu->env.regs[R_RDI] = 0x200000;
    cpu->env.regs[R_RSI] = HARNESS_UNMAPPED;
    harness_push(cpu);
    run_only(cpu);
    POLL_FOR(__atomic_load_n(answer, __ATOMIC_ACQUIRE));
    cpus_pause_all();
    harness_sync(cpu);
    g_assert_cmphex(cpu->env.regs[R_RBX], ==, UINT64_MAX);
    g_assert_cmphex(cpu->env.regs[R_R8], ==, 0xffff);
    g_assert_cmphex(*answer, ==, 0xffff);
}

static gpointer kick_storm(gpointer opaque)
{
    int *stop = opaque;

    while (!g_atomic_int_get(stop)) {
        uint64_t total = __atomic_load_n(&counted.total, __ATOMIC_RELAXED);

        CPU_FOREACH(cpu) {
            cpu_kick(cpu);
        }
        /* A guest that is kicked before each step would never take one. */
        while (total == __atomic_load_n(&counted.total, __ATOMIC_RELAXED) &&
               !g_atomic_int_get(stop)) {
            sched_yield();
        }
    }
    return NULL;
}

static void check_counter(CPUState *cpu)
{
    const X86CPUState *env = &cpu->env;
    uint64_t rcx = env->regs[R_RCX], rbx = env->regs[R_RBX];
    uint64_t stored = ldq_le_p(harness_low->host + env->regs[R_RDI]);
    uint32_t out = counted.last[cpu->index];

    g_assert_true(rcx == rbx || rcx == rbx + 1);
    g_assert_true((uint32_t)rcx == out || (uint32_t)rcx == out + 1);
    g_assert_true(stored == rcx || stored + 1 == rcx);
}

static void test_kick_storm(void)
{
    int stop = 0;
    GThread *kickers[2];

    HARNESS_SKIP_IF_ABSENT();
    memset(&counted, 0, sizeof(counted));
    CPU_FOREACH(cpu) {
        start_counter(cpu);
    }
    for (int i = 0; i < 2; i++) {
        kickers[i] = g_thread_new("kicker", kick_storm, &stop);
    }
    for (int round = 0; round < 300; round++) {
        cpus_resume_all();
        if (round % 3) {
            uint64_t until = counted.total + round % 50;

            WAIT_FOR(counted.total > until);
        }
        cpus_pause_all();
        CPU_FOREACH(cpu) {
            harness_sync(cpu);
            check_counter(cpu);
            if (round % 7 == 0) {
                harness_push(cpu);
            }
        }
    }
    g_atomic_int_set(&stop, 1);
    for (int i = 0; i < 2; i++) {
        g_thread_join(kickers[i]);
    }
    CPU_FOREACH(cpu) {
        uint32_t last = counted.last[cpu->index];

        run_only(cpu);
        WAIT_FOR(counted.last[cpu->index] > last + 10);
        cpus_pause_all();
    }
    g_assert_cmpuint(counted.wrong, ==, 0);
}

/* ---- dirty tracking ---- */

static unsigned random_pages(uint32_t *pages, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t high = HARNESS_HIGH_GPA / TARGET_PAGE_SIZE;

        pages[i] = g_test_rand_bit()
            ? g_test_rand_int_range(0x800, HARNESS_RAM_BYTES / TARGET_PAGE_SIZE)
            : high + g_test_rand_int_range(0, HARNESS_HIGH_BYTES / TARGET_PAGE_SIZE);
    }
    return n;
}

static void expect_page(uint32_t page, unsigned long *low, unsigned long *high)
{
    uint32_t first = HARNESS_HIGH_GPA / TARGET_PAGE_SIZE;

    if (page >= first) {
        page += HARNESS_HIGH_OFFSET / TARGET_PAGE_SIZE - first;
        high[page / 64] |= 1ul << page % 64;
    } else {
        low[page / 64] |= 1ul << page % 64;
    }
}

/* Sync a block and compare with @want, but for the parking page. */
static void sync_and_compare(DirtyTracker *tracker, RAMBlock *block, unsigned long *want)
{
    g_autofree unsigned long *got = g_new0(unsigned long, block->pages / 64 + 2);
    uint64_t expected = 0;
    int64_t reported = dirty_tracker_sync(tracker, block, got, &error_abort);

    if (block == harness_low && got[HARNESS_PARK_PAGE / 64] >> HARNESS_PARK_PAGE % 64 & 1) {
        got[HARNESS_PARK_PAGE / 64] &= ~(1ul << HARNESS_PARK_PAGE % 64);
        reported--;
    }
    for (uint64_t i = 0; i < block->pages; i++) {
        bool is = got[i / 64] >> i % 64 & 1, should = want[i / 64] >> i % 64 & 1;

        if (is != should) {
            g_error("%s page 0x%" PRIx64 " is %s", block->idstr, i, is ? "dirty" : "clean");
        }
        expected += should;
    }
    g_assert_cmpint(reported, >=, expected);
    memset(want, 0, (block->pages / 64 + 2) * sizeof(want[0]));
}

static void test_dirty_exactly(gconstpointer name)
{
    enum { PAGES = 400 };
    CPUState *cpu = cpu_get(0);
    uint32_t pages[PAGES];
    Error *err = NULL;

    HARNESS_SKIP_IF_ABSENT();
    g_autofree unsigned long *low = g_new0(unsigned long, harness_low->pages / 64 + 2);
    g_autofree unsigned long *high = g_new0(unsigned long, harness_high->pages / 64 + 2);
    dirty_tracker_select(name, &error_abort);
    harness_start_writer(cpu);
    run_only(cpu);
    harness_write_pages(pages, random_pages(pages, PAGES));

    DirtyTracker *tracker = dirty_tracker_start(&err);
    if (!tracker) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        cpus_pause_all();
        return;
    }
    for (int round = 0; round < 20; round++) {
        unsigned n = random_pages(pages, PAGES);
        uint8_t byte = round;

        harness_write_pages(pages, n);
        for (unsigned i = 0; i < n; i++) {
            expect_page(pages[i], low, high);
        }
        if (round % 4 == 0) {
            /* The process writes, too: once across a page border. */
            address_space_write(0x900fff, &byte, 1);
            address_space_set(0x901fff, byte, 2);
            expect_page(0x900, low, high);
            expect_page(0x901, low, high);
            expect_page(0x902, low, high);
        }
        sync_and_compare(tracker, harness_low, low);
        sync_and_compare(tracker, harness_high, high);
    }
    dirty_tracker_stop(tracker);
    cpus_pause_all();
    dirty_tracker_select(NULL, &error_abort);
}

/*
 * A guest writes pages as fast as it can while they are synced and copied; in the end every page of
 * the copy is the guest's: nothing was written unseen.
 */
static void test_dirty_race(gconstpointer name)
{
    /* l: mov [rdi], rcx; inc rcx; add rdi, 4096; cmp rdi, rsi; jb l; mov rdi, rbx; jmp l */
    static const uint8_t code[] = {
        0x48, 0x89, 0x0f, 0x48, 0xff, 0xc1, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x48, 0x39,
        0xf7, 0x72, 0xee, 0x48, 0x89, 0xdf, 0xeb, 0xe9,
    };
    enum { FIRST = 0x2000, PAGES = 256, ROUNDS = 200 };
    CPUState *cpu = cpu_get(0);
    Error *err = NULL;

    HARNESS_SKIP_IF_ABSENT();
    g_autofree unsigned long *bitmap = g_new0(unsigned long, harness_low->pages / 64 + 2);
    g_autofree uint64_t *copy = g_new0(uint64_t, PAGES);
    uint8_t *first = harness_low->host + FIRST * TARGET_PAGE_SIZE;

    dirty_tracker_select(name, &error_abort);
    harness_load_code(cpu, 0x100000, code, sizeof(code));
    cpu->env.regs[R_RBX] = cpu->env.regs[R_RDI] = FIRST * TARGET_PAGE_SIZE;
    cpu->env.regs[R_RSI] = (FIRST + PAGES) * TARGET_PAGE_SIZE;
    harness_push(cpu);
    for (int i = 0; i < PAGES; i++) {
        stq_le_p(first + i * TARGET_PAGE_SIZE, 0);
    }
    DirtyTracker *tracker = dirty_tracker_start(&err);
    if (!tracker) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
        return;
    }
    run_only(cpu);
    int64_t end = g_get_monotonic_time() + DEADLINE_US;
    bool last = false;
    for (int round = 0; !last; round++) {
        last = round >= ROUNDS && ldq_le_p(first) > ROUNDS * PAGES;
        if (last) {
            cpus_pause_all();
        } else {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            bql_unlock();
            sched_yield();
            bql_lock();
        }
        dirty_tracker_sync(tracker, harness_low, bitmap, &error_abort);
        for (int i = 0; i < PAGES; i++) {
            if (bitmap[(FIRST + i) / 64] >> (FIRST + i) % 64 & 1) {
                copy[i] = ldq_le_p(first + i * TARGET_PAGE_SIZE);
            }
        }
        memset(bitmap, 0, harness_low->pages / 8);
    }
    dirty_tracker_stop(tracker);
    for (int i = 0; i < PAGES; i++) {
        g_assert_cmpuint(copy[i], ==, ldq_le_p(first + i * TARGET_PAGE_SIZE));
    }
    g_assert_cmpuint(copy[0], !=, 0);
    dirty_tracker_select(NULL, &error_abort);
}

static void add(const AccelClass *klass, const char *name, void (*fn)(void))
{
    g_autofree char *path = g_strdup_printf("/%s/%s", klass->name, name);

    g_test_add_func(path, fn);
}

static void add_dirty(const AccelClass *klass, const char *tracker)
{
    g_autofree char *exactly = g_strdup_printf("/%s/dirty/%s/exactly", klass->name, tracker);
    g_autofree char *race = g_strdup_printf("/%s/dirty/%s/race", klass->name, tracker);

    g_test_add_data_func(exactly, tracker, test_dirty_exactly);
    g_test_add_data_func(race, tracker, test_dirty_race);
}

void harness_add_cases(const AccelClass *klass, unsigned cpus)
{
    harness_create(klass, cpus);
    add(klass, "state/round-trip", test_round_trip);
    add(klass, "state/put-what-was-got", test_put_what_was_got);
    add(klass, "unmapped-memory", test_unmapped_memory);
    add(klass, "kick-storm", test_kick_storm);
    add_dirty(klass, "pagemap");
    if (klass->dirty_tracker) {
        add_dirty(klass, klass->dirty_tracker->name);
    }
}
