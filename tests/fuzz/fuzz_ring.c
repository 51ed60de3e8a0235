/*
 * fuzz_ring.c: any app on the other side of the rings, with any bytes in all it may write, at any moment.
 *
 * Invariant: every slot is free or lent, never both, and comes back only with the generation it was lent with; a ring never
 * has more than its size; what is sent lies in its slot and is within the lease whatever the app writes after the check;
 * a row that is believed speaks for the lease alone; every index from 0 on and across the wrap.
 */
#include "dpdk_glue/ledger.h"
#include "dpdk_glue/rows.h"
#include "dpdk_glue/txcheck.h"
#include "shm/ring.h"
#include "wire/bytes.h"
#include "wire/checksum.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 8, FIRST = 8, ROWS = 4, STRIDE = 64, STEPS_MAX = 400, PACKET = 44 };

/* All that the app may write. */
static struct {
    uint32_t tx_head, rx_tail, return_head, done_tail;
    struct shm_desc tx[SLOTS], returns[SLOTS];
    uint8_t slots[SLOTS][SHM_SLOT_BYTES];
    uint8_t (*rows)[STRIDE]; /* of the file of rows */
    int rows_fd;
} app;

/* All that janusd may write. */
static struct {
    uint32_t tx_tail, rx_head, return_tail, done_head;
    struct shm_desc rx[2 * SLOTS], done[SLOTS];
} ours;

/* janusd's private side, and the model beside it. */
static struct {
    struct ring_consumer tx, returns;
    struct ring_producer rx, done;
    struct ledger ledger;
    struct txcheck_lease lease;
    struct rows rows;
    bool closed;
    bool lent[SLOTS];
    uint16_t generation[SLOTS];
} glue;

static const uint8_t *input;
static size_t left;

static void require(bool holds)
{
    if (!holds)
        abort();
}

static uint8_t take(void)
{
    return left > 0 ? left--, *input++ : 0;
}

static uint16_t take16(void)
{
    uint16_t high = take();
    return (uint16_t)(high << 8 | take());
}

/* --- the app --- */

/* Up to three times any byte anywhere, or an index moved a little. */
static void scribble(void)
{
    uint32_t *indices[] = {&app.tx_head, &app.rx_tail, &app.return_head, &app.done_tail};

    for (uint32_t n = take() % 4; n > 0; n--) {
        uint8_t how = take();
        if (how % 4 == 0)
            *indices[how / 4 % 4] += (uint32_t)(int8_t)take();
        else if (how % 4 == 1)
            ((uint8_t *)app.tx)[take() % sizeof app.tx] = take();
        else if (how % 4 == 2)
            ((uint8_t *)app.returns)[take() % sizeof app.returns] = take();
        else
            ((uint8_t *)app.slots)[take16() % sizeof app.slots] = take();
    }
}

static void app_submits(void)
{
    static const uint8_t addresses[8] = {10, 0, 0, 1, 10, 0, 0, 2};
    uint8_t slot = take() % SLOTS, *p = app.slots[slot] + SHM_SLOT_HEADROOM;

    memset(p, 0, PACKET);
    p[0] = 0x45;
    p[3] = PACKET;
    p[6] = 0x40;
    p[8] = 64;
    p[9] = 6;
    memcpy(p + 12, addresses, sizeof addresses);
    put_be16(p + 20, 80);
    put_be16(p + 22, 1024);
    p[32] = 0x50;
    for (uint32_t n = take() % 3; n > 0; n--) {
        uint8_t at = take() % PACKET;
        p[at] = take();
    }
    uint16_t sum = checksum_finish(checksum_add(0, p, 20));
    memcpy(p + 10, &sum, sizeof sum);
    app.tx[app.tx_head++ % SLOTS] =
        (struct shm_desc){.slot = slot, .offset = SHM_SLOT_HEADROOM, .len = PACKET, .kind = SHM_DESC_PACKET};
}

/* What was received, given back rightly, twice, or with something changed. */
static void app_returns(void)
{
    struct shm_desc d = ours.rx[take() % (2 * SLOTS)];
    uint8_t how = take();

    d.kind = how & 0x80 ? how : SHM_DESC_RETURN;
    d.slot += how & 1;
    d.generation = (uint16_t)(d.generation - (how >> 1 & 1));
    app.returns[app.return_head++ % SLOTS] = d;
    app.rx_tail = ours.rx_head;
}

/* One that speaks for the lease, but for what the input changes. */
static void app_writes_row(void)
{
    static const uint8_t addresses[2][16] = {{[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 2}, {0x20, 1, [15] = 2}};
    static const uint16_t ports[2] = {1024, 80};
    uint8_t which = take(), *row = app.rows[which % ROWS];

    if (which >= 0xf8) { /* all are pulled away */
        require(fallocate(app.rows_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, ROWS * STRIDE) == 0);
        return;
    }
    memset(row, 0, STRIDE);
    row[0] = 5;
    memcpy(row + 8, addresses[take() % 2], 16);
    memcpy(row + 24, ports, sizeof ports);
    for (uint32_t n = take() % 4; n > 0; n--) {
        uint8_t at = take() % STRIDE;
        row[at] = take();
    }
}

/* --- janusd, with the app at work between any two of its steps --- */

static void collect(void)
{
    int32_t n = ring_consumer_refresh(&glue.returns);

    glue.closed |= n < 0;
    require(n <= SLOTS);
    for (int32_t i = 0; i < n; i++) {
        scribble();
        struct shm_desc d = ring_pop(&glue.returns);
        if (d.kind != SHM_DESC_RETURN)
            continue;
        uint32_t s = d.slot - FIRST;
        bool rightly = s < SLOTS && glue.lent[s] && glue.generation[s] == d.generation;
        require((ledger_take_back(&glue.ledger, d.slot, d.generation) == SHM_DROP_NONE) == rightly);
        if (rightly)
            glue.lent[s] = false;
    }
    ring_release(&glue.returns);
}

static void deliver(void)
{
    uint16_t generation;

    if (ring_producer_room(&glue.rx) == 0 && ring_producer_refresh(&glue.rx) < 0)
        glue.closed = true;
    require(ring_producer_room(&glue.rx) <= 2 * SLOTS);
    if (glue.closed || ring_producer_room(&glue.rx) == 0 || glue.ledger.free_count == 0)
        return;
    uint32_t slot = ledger_lend(&glue.ledger, &generation), s = slot - FIRST;
    require(s < SLOTS && !glue.lent[s]);
    glue.lent[s] = true;
    glue.generation[s] = generation;
    ring_push(&glue.rx, (struct shm_desc){.slot = slot, .generation = generation, .kind = SHM_DESC_PACKET});
    ring_publish(&glue.rx);
}

/* What a router and a receiver would say, by other code than the checks'. */
static void check_sent(const uint8_t *p, uint32_t len)
{
    static const uint8_t source[4] = {10, 0, 0, 1};
    uint64_t ports[] = {80, 8000, 8001};
    uint16_t port = (uint16_t)(p[20] << 8 | p[21]);

    require(len >= 40 && p[0] == 0x45 && (p[2] << 8 | p[3]) == (int)len && p[9] == 6);
    require((p[6] & 0x3f) == 0 && p[7] == 0 && memcmp(p + 12, source, 4) == 0);
    require(port == ports[0] || port == ports[1] || port == ports[2]);
    require(p[16] != 127 && p[16] < 224 && p[16] != 0);
    require(p[32] >> 4 >= 5 && 20u + (p[32] >> 4) * 4u <= len);
}

static void send_one(void)
{
    uint8_t copy[SHM_SLOT_BYTES];
    struct txcheck_packet packet;
    const struct shm_desc *shared = &app.tx[glue.tx.tail_shadow % SLOTS];
    struct shm_desc d = ring_pop(&glue.tx);

    if (txcheck_desc(&d, SLOTS) == SHM_DROP_NONE) {
        scribble();
#ifdef JANUS_PLANTED_BUG /* the length is read a second time, after the check */
        d.len = shared->len;
#else
        (void)shared;
#endif
        require(d.slot < SLOTS && d.offset + d.len <= SHM_SLOT_BYTES);
        memcpy(copy, app.slots[d.slot] + d.offset, d.len);
        enum shm_drop drop = txcheck_packet(&glue.lease, copy, d.len, &packet);
        scribble();
        if (drop == SHM_DROP_NONE)
            check_sent(copy, d.len);
    }
    ring_push(&glue.done, (struct shm_desc){.slot = d.slot, .kind = SHM_DESC_RETURN});
}

static void send_all(void)
{
    int32_t n = ring_consumer_refresh(&glue.tx);

    if (n < 0 || ring_producer_refresh(&glue.done) < 0)
        glue.closed = true;
    require(n <= SLOTS && ring_producer_room(&glue.done) <= SLOTS);
    if (glue.closed)
        return;
    for (; n > 0 && ring_producer_room(&glue.done) > 0; n--)
        send_one();
    ring_release(&glue.tx);
    ring_publish(&glue.done);
}

static void read_rows(void)
{
    static struct rows_window window;
    struct glue_row row;

    window.count = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        if (rows_read(&glue.rows, &window, i, &row) != ROWS_OK)
            continue;
        require(memcmp(row.laddr, &glue.lease.addresses[0], sizeof row.laddr) == 0);
        require(row.lport == 80 || row.lport == 8000 || row.lport == 8001);
        require(row.state != 0 && row.rport != 0 && row.raddr[0] != 0xff);
    }
}

static void check_ledger(void)
{
    uint32_t lent = 0, seen = 0;

    for (uint32_t i = 0; i < SLOTS; i++)
        lent += glue.lent[i];
    require(ledger_lent(&glue.ledger) == lent && glue.ledger.free_count + lent == SLOTS);
    for (uint32_t i = 0; i < glue.ledger.free_count; i++) {
        uint32_t s = glue.ledger.free[i] - FIRST;
        require(s < SLOTS && !glue.lent[s] && !(seen >> s & 1));
        seen |= UINT32_C(1) << s;
    }
}

/* --- one run --- */

/* The file of rows, once for all runs; empty. */
static void make_rows(void)
{
    if (app.rows == NULL) {
        app.rows_fd = memfd_create("rows", MFD_CLOEXEC);
        if (app.rows_fd < 0 || ftruncate(app.rows_fd, ROWS * STRIDE) != 0)
            abort();
        void *p = mmap(NULL, ROWS * STRIDE, PROT_READ | PROT_WRITE, MAP_SHARED, app.rows_fd, 0);
        if (p == MAP_FAILED)
            abort();
        app.rows = p;
    }
    memset(app.rows, 0, ROWS * STRIDE);
}

static void begin(uint32_t base)
{
    static const uint8_t own[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1};

    make_rows();
    memset(app.tx, 0, sizeof app.tx);
    memset(app.returns, 0, sizeof app.returns);
    memset(app.slots, 0, sizeof app.slots);
    memset(&ours, 0, sizeof ours);
    memset(&glue, 0, sizeof glue);
    app.tx_head = app.rx_tail = app.return_head = app.done_tail = base;
    ours.tx_tail = ours.rx_head = ours.return_tail = ours.done_head = base;
    glue.tx = (struct ring_consumer){app.tx, &app.tx_head, &ours.tx_tail, SLOTS - 1, base, base};
    glue.returns = (struct ring_consumer){app.returns, &app.return_head, &ours.return_tail, SLOTS - 1, base, base};
    glue.rx = (struct ring_producer){ours.rx, &ours.rx_head, &app.rx_tail, 2 * SLOTS - 1, base, base};
    glue.done = (struct ring_producer){ours.done, &ours.done_head, &app.done_tail, SLOTS - 1, base, base};
    glue.lease.address_count = 1;
    memcpy(&glue.lease.addresses[0], own, sizeof own);
    txcheck_lease_port(&glue.lease, 80, 80);
    txcheck_lease_port(&glue.lease, 8000, 8001);
    glue.rows = (struct rows){app.rows_fd, ROWS, {STRIDE, 0, 8, 24, 26, 28, 32, 36}, &glue.lease};
    if (!ledger_init(&glue.ledger, FIRST, SLOTS))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const steps[])(void) = {app_submits, app_returns, app_writes_row, scribble,
                                          collect,     deliver,     send_all,       read_rows};

    input = data;
    left = size;
    begin(take() % 2 ? UINT32_MAX - 5 : 0);
    for (uint32_t i = 0; i < STEPS_MAX && left > 0 && !glue.closed; i++) {
        steps[take() % 8]();
        check_ledger();
    }
    ledger_take_all(&glue.ledger);
    require(glue.ledger.free_count == SLOTS && ledger_lent(&glue.ledger) == 0);
    ledger_release(&glue.ledger);
    return 0;
}
