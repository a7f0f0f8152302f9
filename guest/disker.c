/*
 * disker: a guest that writes a disk at a rate and knows what every block must hold.
 *
 * Blocks of 4 KiB are written round after round in a scattered order. A block names itself and its
 * generation (the round that wrote it), and the rest of it follows from these and the seed; what it
 * must hold follows from round and position, so a write that a move of the machine or of the disk
 * lost, mixed up or brought back in an older state is found: before a block is written again it is
 * read and checked in full, and 'v' checks all. Several requests are under way at any time, and
 * every so many writes there is a flush.
 *
 * Command line:
 *   disk=N         which disk (0)                       size=BYTES   of it to use (0: all)
 *   start=BYTES    where on the disk to begin (0)       depth=N      requests under way (8, at most 64)
 *   rate=MIB       MiB written a second (20; 0: as fast as possible)
 *   flush=N        flush after so many blocks (64; 0: never)
 *   seed=N         (1)     report=MILLISECONDS (1000)   check=0      do not check before writing
 *   scan=1         write nothing: read every block; each must be zero or whole, of any generation
 * Serial input: 'v' verify all and print "verify ok BLOCKS" or "verify FAILED ERRORS"; 's' stop
 * writing;
 * 'g' go on; 'f' flush and print "flushed"; 'q' power off.
 * Output: "disker: start blocks=N", "disker: ready blocks=N" when each was written once, then each
 * report period "disker: round N ok blocks=WRITTEN flushes=N" or "disker: round N FAILED errors=N
 * blocks=WRITTEN", and for each of the first errors "disker: CORRUPT block=N want=GENERATION
 * got=GENERATION word=N value=X" or
 * "disker: FAILED request type=N block=N status=N". A scan ends with "scan ok blocks=N zero=N
 * oldest=G newest=G" or "scan FAILED ERRORS".
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "lib/guest.h"
#include "lib/virtio-blk.h"

#define WORDS (BLK_BYTES / 8)
#define REPORTS_MAX 8
#define STEP_K 0x9e3779b97f4a7c15ull
#define ANY_GENERATION UINT64_MAX

/* What becomes of a request when it is done. */
typedef enum Purpose { IDLE, CHECK_THEN_WRITE, WRITE, VERIFY, SCAN, FLUSH } Purpose;

typedef struct Job {
    Purpose purpose;
    uint64_t block;                     /* from 0, within the part of the disk that is used */
    uint64_t generation;                /* that is written, or must be there */
} Job;

static Job jobs[BLK_REQUESTS_MAX];
static unsigned depth, busy;
static uint64_t first_block, blocks, step, seed;
static uint64_t round, position, next_block;    /* the next to be written; round 0 is the first */
static uint64_t written, flushes, flush_every, since_flush, errors;
static bool check_before_write, writing = true, told_ready;
static uint64_t zero_blocks, oldest = UINT64_MAX, newest;
static uint64_t report_time, next_report, next_poll, write_time, next_write;

/* ---- patterns ---- */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static void pattern_write(uint64_t *words, uint64_t block, uint64_t generation)
{
    uint64_t base = mix(seed + block * STEP_K + mix(generation));

    words[0] = block;
    words[1] = generation;
    for (unsigned i = 2; i < WORDS; i++) {
        words[i] = base + i * STEP_K;
    }
}

/* The first word that is not as it must be; WORDS: none. */
static unsigned pattern_check(const uint64_t *words, uint64_t block, uint64_t generation)
{
    uint64_t base = mix(seed + block * STEP_K + mix(generation));

    if (words[0] != block || words[1] != generation) {
        return words[0] != block ? 0 : 1;
    }
    for (unsigned i = 2; i < WORDS; i++) {
        if (words[i] != base + i * STEP_K) {
            return i;
        }
    }
    return WORDS;
}

static bool is_zero(const uint64_t *words)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < WORDS; i++) {
        all |= words[i];
    }
    return all == 0;
}

/* ---- what is done ---- */

static void check_block(const Job *job, const uint64_t *words)
{
    unsigned bad = pattern_check(words, job->block, job->generation);

    if (bad < WORDS && errors++ < REPORTS_MAX) {
        print("disker: CORRUPT block=%lu want=%lu got=%lu word=%u value=%lx\n", job->block,
              job->generation, words[1], bad, words[bad]);
    }
}

static void scan_block(Job *job, const uint64_t *words)
{
    if (is_zero(words)) {
        zero_blocks++;
        return;
    }
    job->generation = words[1];
    check_block(job, words);
    oldest = words[1] < oldest ? words[1] : oldest;
    newest = words[1] > newest ? words[1] : newest;
}

static void begin(unsigned n, Purpose purpose, uint32_t type, uint64_t block, uint64_t generation)
{
    BlkRequest *request = blk_request(n);

    jobs[n] = (Job){ purpose, block, generation };
    request->type = type;
    request->block = first_block + block;
    busy++;
    blk_begin(request);
}

static void begin_write(unsigned n, uint64_t block, uint64_t generation)
{
    pattern_write((uint64_t *)blk_request(n)->data, block, generation);
    begin(n, WRITE, BLK_WRITE, block, generation);
}

/* Take back request @n, done. What comes next of it may be begun at once. */
static void finish(unsigned n)
{
    BlkRequest *request = blk_request(n);
    Job *job = &jobs[n];
    Purpose purpose = job->purpose;

    job->purpose = IDLE;
    busy--;
    if (request->status) {
        if (errors++ < REPORTS_MAX) {
            print("disker: FAILED request type=%u block=%lu status=%u\n", request->type, job->block,
                  request->status);
        }
        return;
    }
    switch (purpose) {
    case CHECK_THEN_WRITE:
        check_block(job, (const uint64_t *)request->data);
        begin_write(n, job->block, job->generation + 1);
        break;
    case WRITE:
        written++;
        break;
    case VERIFY:
        check_block(job, (const uint64_t *)request->data);
        break;
    case SCAN:
        scan_block(job, (const uint64_t *)request->data);
        break;
    case FLUSH:
        flushes++;
        break;
    case IDLE:
        break;
    }
}

static void collect(void)
{
    BlkRequest *request;

    while ((request = blk_poll()) != NULL) {
        finish(request - blk_request(0));
    }
}

static void wait_all(void)
{
    while (busy) {
        collect();
        pause_cpu();
    }
}

/* A request that is not under way; depth: none. */
static unsigned idle_request(void)
{
    unsigned n = 0;

    while (n < depth && jobs[n].purpose != IDLE) {
        n++;
    }
    return n;
}

/* ---- rounds ---- */

static void advance(void)
{
    next_block += step;
    next_block -= next_block >= blocks ? blocks : 0;
    if (++position == blocks) {
        position = 0;
        round++;
    }
}

/*
 * Begin the next block. A round ends before the next begins, so that what a block must hold follows
 * from round and position.
 */
static void write_next(void)
{
    unsigned n = idle_request();

    if (n == depth || (position == 0 && busy)) {
        return;
    }
    if (flush_every && since_flush >= flush_every) {
        since_flush = 0;
        begin(n, FLUSH, BLK_FLUSH, 0, 0);
        return;
    }
    since_flush++;
    if (round > 0 && check_before_write) {
        begin(n, CHECK_THEN_WRITE, BLK_READ, next_block, round - 1);
    } else {
        begin_write(n, next_block, round);
    }
    advance();
    next_write += write_time;
}

static void verify_all(void)
{
    uint64_t block = 0, before;

    wait_all();
    before = errors;
    for (uint64_t i = 0; i < blocks; i++, block += step, block -= block >= blocks ? blocks : 0) {
        unsigned n;

        if (i >= position && round == 0) {
            break;
        }
        while ((n = idle_request()) == depth) {
            collect();
        }
        begin(n, VERIFY, BLK_READ, block, i < position ? round : round - 1);
    }
    wait_all();
    if (errors != before) {
        print("verify FAILED %lu\n", errors);
    } else {
        print("verify ok %lu\n", round ? blocks : position);
    }
}

static void flush_now(void)
{
    wait_all();
    begin(0, FLUSH, BLK_FLUSH, 0, 0);
    wait_all();
    print("flushed\n");
}

static void scan_all(void)
{
    for (uint64_t block = 0; block < blocks; block++) {
        unsigned n;

        while ((n = idle_request()) == depth) {
            collect();
        }
        begin(n, SCAN, BLK_READ, block, ANY_GENERATION);
    }
    wait_all();
    if (errors) {
        print("scan FAILED %lu\n", errors);
        guest_exit(1);
    }
    if (zero_blocks == blocks) {
        oldest = 0;
    }
    print("scan ok blocks=%lu zero=%lu oldest=%lu newest=%lu\n", blocks, zero_blocks, oldest,
          newest);
    guest_exit(0);
}

/* ---- between requests ---- */

static void console(void)
{
    switch (serial_read()) {
    case 'v':
        verify_all();
        break;
    case 's':
        writing = false;
        wait_all();
        print("disker: stopped\n");
        break;
    case 'g':
        writing = true;
        next_write = time_now();
        print("disker: going on\n");
        break;
    case 'f':
        flush_now();
        break;
    case 'q':
        wait_all();
        guest_exit(errors ? 1 : 0);
    }
}

static void report(void)
{
    if (errors) {
        print("disker: round %lu FAILED errors=%lu blocks=%lu\n", round, errors, written);
    } else {
        print("disker: round %lu ok blocks=%lu flushes=%lu\n", round, written, flushes);
    }
}

static void housekeeping(uint64_t now)
{
    if (round > 0 && !told_ready) {
        told_ready = true;
        print("disker: ready blocks=%lu\n", blocks);
    }
    if ((int64_t)(now - next_poll) >= 0) {
        next_poll = now + time_hz() / 1000;
        console();
    }
    if ((int64_t)(now - next_report) >= 0) {
        next_report = now + report_time;
        report();
    }
    /* A long pause of the machine is not made up for. */
    if ((int64_t)(now - next_write) > (int64_t)(time_hz() / 10)) {
        next_write = now;
    }
}

static void work(void)
{
    next_write = time_now();
    for (;;) {
        uint64_t now = time_now();

        collect();
        housekeeping(now);
        if (writing && (!write_time || (int64_t)(now - next_write) >= 0)) {
            write_next();
        }
        pause_cpu();
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
    uint64_t value = n / 1000 * 618 + n % 1000 * 618 / 1000;

    if (value < 1) {
        return 1 % n;
    }
    while (gcd(value, n) != 1) {
        value++;
    }
    return value % n;
}

static uint64_t choose_part(uint64_t disk_blocks)
{
    uint64_t wanted = boot_option("size", 0) / BLK_BYTES;

    first_block = boot_option("start", 0) / BLK_BYTES;
    if (first_block >= disk_blocks) {
        return 0;
    }
    disk_blocks -= first_block;
    return wanted && wanted < disk_blocks ? wanted : disk_blocks;
}

void guest_main(void)
{
    uint64_t rate = boot_option("rate", 20);

    depth = (unsigned)boot_option("depth", 8);
    depth = depth < 1 ? 1 : depth > BLK_REQUESTS_MAX ? BLK_REQUESTS_MAX : depth;
    seed = boot_option("seed", 1);
    flush_every = boot_option("flush", 64);
    check_before_write = boot_option("check", 1) != 0;
    report_time = time_hz() / 1000 * boot_option("report", 1000);
    write_time = rate ? time_hz() / (rate * (1024 * 1024 / BLK_BYTES)) : 0;
    blocks = blk_init((unsigned)boot_option("disk", 0), depth);
    blocks = blocks ? choose_part(blocks) : 0;
    if (!blocks) {
        print("disker: no disk to write\n");
        guest_exit(2);
    }
    step = scattered_step(blocks);
    print("disker: start blocks=%lu\n", blocks);
    if (boot_option("scan", 0)) {
        scan_all();
    }
    work();
}
