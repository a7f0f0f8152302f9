/*
 * dirtier: a guest that writes memory at a rate and knows what every page must hold.
 *
 * Each processor owns a range of pages and writes them round after round in a fixed scattered
 * order. A page names itself and its generation (the round that wrote it), and the rest of it
 * follows from these and the seed. What a page must hold follows from two numbers alone, round and
 * position in it, so a page that a save or a move lost, mixed up or brought back in an older state
 * is found: before a page is written again it is checked in full, and 'v' checks everything at
 * once. In some generations a page is all zero, so that pages that become zero, and stop being so,
 * are met as well.
 *
 * Command line:
 *   size=BYTES     memory to use (64M; 0: all that is free)     cpus=N    processors (0: all)
 *   rate=MIB       MiB written per second in all (100; 0: as fast as possible)
 *   seed=N         (1)       report=MILLISECONDS (1000)         zero=PERCENT of zero pages (2)
 *   skip=BYTES     of free memory to leave alone before that which is used (0)
 *   scatter=0      write in ascending order                     check=0   do not check before writing
 * Serial input: 'v' verify all and print "verify ok PAGES" or "verify FAILED ERRORS"; 's' stop
 * writing; 'g' go on; 'q' power off.
 * Output: "dirtier: ready pages=N cpus=N", then each report period
 * "dirtier: round N ok pages=WRITTEN" or "dirtier: round N FAILED errors=N pages=WRITTEN", and for
 * each of the first bad pages "dirtier: CORRUPT page=N want=GENERATION got=GENERATION word=N
 * value=X".
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "lib/guest.h"

#define WORDS (GUEST_PAGE_SIZE / 8)
#define BATCH 16
#define REPORTS_PER_CPU 8
#define STEP_K 0x9e3779b97f4a7c15ull

/* One processor's work; a page each, so that they do not share cache lines. */
typedef struct Worker {
    uint64_t first, n;          /* its pages */
    uint64_t step;              /* from one page written to the next, no common divisor with n */
    uint64_t round;             /* being written; 0 fills the memory for the first time */
    uint64_t position;          /* pages of this round that are written */
    uint64_t page;              /* the next to write, from 0 */
    uint64_t written, errors;
    uint64_t batch_time, next_batch;
    uint32_t ready, verified;   /* verified: the last verify request that was answered */
} __attribute__((aligned(GUEST_PAGE_SIZE))) Worker;

static Worker workers[GUEST_CPUS_MAX];
static unsigned cpus;
static uint64_t seed, skip_pages, zero_percent, report_time, next_report, next_poll;
static bool check_before_write;
static volatile uint32_t writing = 1, verify_wanted, cpus_known;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t base_of(uint64_t page, uint64_t generation)
{
    return mix(seed + page * STEP_K + mix(generation + 1));
}

static bool is_zero_generation(uint64_t base)
{
    return (base >> 32) % 100 < zero_percent;
}

/* What word @i of a page holds. */
static uint64_t word_of(uint64_t page, uint64_t generation, uint64_t base, unsigned i)
{
    if (is_zero_generation(base)) {
        return 0;
    }
    return i == 0 ? page : i == 1 ? generation : base + i * STEP_K;
}

static void page_write(uint64_t *words, uint64_t page, uint64_t generation)
{
    uint64_t base = base_of(page, generation), value;

    if (is_zero_generation(base)) {
        memset(words, 0, GUEST_PAGE_SIZE);
        return;
    }
    words[0] = page;
    words[1] = generation;
    value = base + 2 * STEP_K;
    for (unsigned i = 2; i < WORDS; i++, value += STEP_K) {
        words[i] = value;
    }
}

static bool page_is_good(const uint64_t *words, uint64_t page, uint64_t generation)
{
    uint64_t base = base_of(page, generation), difference, value, step;

    if (is_zero_generation(base)) {
        value = step = 0;
        difference = words[0] | words[1];
    } else {
        value = base + 2 * STEP_K;
        step = STEP_K;
        difference = (words[0] ^ page) | (words[1] ^ generation);
    }
    for (unsigned i = 2; i < WORDS; i++, value += step) {
        difference |= words[i] ^ value;
    }
    return difference == 0;
}

static void report_corrupt(const uint64_t *words, uint64_t page, uint64_t generation)
{
    uint64_t base = base_of(page, generation);
    unsigned bad = 0;

    while (bad < WORDS - 1 && words[bad] == word_of(page, generation, base, bad)) {
        bad++;
    }
    print("dirtier: CORRUPT page=%lu want=%lu got=%lu word=%u value=%lx\n", page, generation,
          words[1], bad, words[bad]);
}

/* Check page @index of the worker's, which must be of @generation. */
static void page_check(Worker *w, uint64_t index, uint64_t generation)
{
    uint64_t page = w->first + index;
    const uint64_t *words = ram_page(skip_pages + page);

    if (!page_is_good(words, page, generation)) {
        if (w->errors++ < REPORTS_PER_CPU) {
            report_corrupt(words, page, generation);
        }
    }
}

static uint64_t next_page(const Worker *w, uint64_t index)
{
    index += w->step;
    return index >= w->n ? index - w->n : index;
}

static void write_next(Worker *w)
{
    if (w->round > 0 && check_before_write) {
        page_check(w, w->page, w->round - 1);
    }
    page_write(ram_page(skip_pages + w->first + w->page), w->first + w->page, w->round);
    w->page = next_page(w, w->page);
    w->written++;
    if (++w->position == w->n) {
        w->position = 0;
        w->round++;
    }
}

static void verify(Worker *w)
{
    uint64_t index = 0;

    for (uint64_t position = 0; position < w->n; position++, index = next_page(w, index)) {
        if (position < w->position) {
            page_check(w, index, w->round);
        } else if (w->round > 0) {
            page_check(w, index, w->round - 1);
        }
    }
}

static uint64_t errors_of_all(void)
{
    uint64_t errors = 0;

    for (unsigned i = 0; i < cpus; i++) {
        errors += __atomic_load_n(&workers[i].errors, __ATOMIC_ACQUIRE);
    }
    return errors;
}

static uint64_t pages_of_all(void)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < cpus; i++) {
        pages += workers[i].n;
    }
    return pages;
}

static void answer_verify(Worker *w)
{
    uint32_t wanted = __atomic_load_n(&verify_wanted, __ATOMIC_ACQUIRE);

    if (w->verified != wanted) {
        verify(w);
        __atomic_store_n(&w->verified, wanted, __ATOMIC_RELEASE);
    }
}

static void verify_all(void)
{
    uint64_t errors;

    __atomic_add_fetch(&verify_wanted, 1, __ATOMIC_RELEASE);
    answer_verify(&workers[0]);
    for (unsigned i = 1; i < cpus; i++) {
        while (__atomic_load_n(&workers[i].verified, __ATOMIC_ACQUIRE) != verify_wanted) {
            pause_cpu();
        }
    }
    errors = errors_of_all();
    if (errors) {
        print("verify FAILED %lu\n", errors);
    } else {
        print("verify ok %lu\n", pages_of_all());
    }
}

static void console(void)
{
    switch (serial_read()) {
    case 'v':
        verify_all();
        break;
    case 's':
        writing = 0;
        print("dirtier: stopped\n");
        break;
    case 'g':
        writing = 1;
        print("dirtier: going on\n");
        break;
    case 'q':
        guest_exit(errors_of_all() ? 1 : 0);
    }
}

static void report(void)
{
    uint64_t round = workers[0].round, written = 0, errors = errors_of_all();

    for (unsigned i = 0; i < cpus; i++) {
        uint64_t of_this = __atomic_load_n(&workers[i].round, __ATOMIC_RELAXED);

        round = of_this < round ? of_this : round;
        written += __atomic_load_n(&workers[i].written, __ATOMIC_RELAXED);
    }
    if (errors) {
        print("dirtier: round %lu FAILED errors=%lu pages=%lu\n", round, errors, written);
    } else {
        print("dirtier: round %lu ok pages=%lu\n", round, written);
    }
}

/* Processor 0, between batches: port accesses leave the guest, so only now and then. */
static void housekeeping(uint64_t now)
{
    if ((int64_t)(now - next_poll) >= 0) {
        next_poll = now + time_hz() / 1000;
        console();
    }
    if ((int64_t)(now - next_report) >= 0) {
        next_report = now + report_time;
        report();
    }
}

/* Whether it is time for the next batch. A long pause of the machine is not made up for. */
static bool is_due(Worker *w, uint64_t now)
{
    if (!w->batch_time) {
        return true;
    }
    if ((int64_t)(now - w->next_batch) < 0) {
        return false;
    }
    w->next_batch += w->batch_time;
    if ((int64_t)(now - w->next_batch) > (int64_t)(time_hz() / 10)) {
        w->next_batch = now;
    }
    return true;
}

static void work(unsigned cpu)
{
    Worker *w = &workers[cpu];

    while (cpus_known == 0) {
        pause_cpu();
    }
    while (w->round == 0) {
        write_next(w);
    }
    __atomic_store_n(&w->ready, 1, __ATOMIC_RELEASE);
    if (cpu == 0) {
        for (unsigned i = 1; i < cpus; i++) {
            while (!__atomic_load_n(&workers[i].ready, __ATOMIC_ACQUIRE)) {
                pause_cpu();
            }
        }
        print("dirtier: ready pages=%lu cpus=%u\n", pages_of_all(), cpus);
    }
    w->next_batch = time_now();
    for (;;) {
        uint64_t now = time_now();

        answer_verify(w);
        if (cpu == 0) {
            housekeeping(now);
        }
        if (!writing || !is_due(w, now)) {
            pause_cpu();
            continue;
        }
        for (unsigned i = 0; i < BATCH; i++) {
            write_next(w);
        }
    }
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* Golden section of @n, moved until it has no divisor in common with @n. */
static uint64_t scattered_step(uint64_t n)
{
    uint64_t step = n / 1000 * 618 + n % 1000 * 618 / 1000;

    if (step < 1) {
        return 1 % n;
    }
    while (gcd(step, n) != 1) {
        step++;
    }
    return step % n;
}

static void divide_memory(uint64_t pages, uint64_t rate_mib)
{
    bool scatter = boot_option("scatter", 1) != 0;

    for (unsigned i = 0; i < cpus; i++) {
        Worker *w = &workers[i];

        w->first = pages / cpus * i;
        w->n = i == cpus - 1 ? pages - w->first : pages / cpus;
        w->step = scatter ? scattered_step(w->n) : 1 % w->n;
        if (rate_mib) {
            w->batch_time = time_hz() / 256 * BATCH * cpus / rate_mib;
        }
    }
}

void guest_main(void)
{
    uint64_t pages = boot_option("size", 64ull << 20) / GUEST_PAGE_SIZE;

    seed = boot_option("seed", 1);
    zero_percent = boot_option("zero", 2);
    check_before_write = boot_option("check", 1) != 0;
    report_time = time_hz() / 1000 * boot_option("report", 1000);
    cpus = smp_start((unsigned)boot_option("cpus", 0), work);
    skip_pages = boot_option("skip", 0) / GUEST_PAGE_SIZE;
    if (skip_pages > ram_pages()) {
        skip_pages = ram_pages();
    }
    if (!pages || pages > ram_pages() - skip_pages) {
        pages = ram_pages() - skip_pages;
    }
    if (pages < cpus) {
        print("dirtier: no memory to write\n");
        guest_exit(2);
    }
    divide_memory(pages, boot_option("rate", 100));
    print("dirtier: start pages=%lu cpus=%u\n", pages, cpus);
    __atomic_store_n(&cpus_known, 1, __ATOMIC_RELEASE);
    work(0);
}
