/*
 * csb_balance.h: the streams of the balancer's benchmarks, and both forms with the state that an update needs.
 *
 * Both forms see the same streams.  The faithful one has a dense table per tid, 16 bytes a row, and a BF for all streams at a
 * false positive rate of 1e-4; the product has a column of hashes per tid.  Buffers of the product are made once.
 */
#ifndef CSB_BALANCE_H
#define CSB_BALANCE_H

#include "bench/csb_tools.h"
#include "csb/hash.h"
#include "csb/view.h"
#include "csb/walk.h"

#include "tests/reference/csb_faithful.c"

enum { TIDS = 16, POINTS = 16, BURST = 64, BLOOM_HASHES = 13 };

struct streams {
    uint32_t count;
    struct csb_secret secret;
    uint64_t *hash;
    uint8_t *tid; /* the owner */
};

struct product {
    struct csb_map map;
    struct csb_plan plan;
    struct csb_view *view, *spare;
    uint64_t room;
    uint64_t *column, *list; /* of all streams, a part per tid */
    uint32_t start[TIDS + 1], list_count;
    struct csb_list lists[2 * TIDS]; /* what the walks found, and what came late */
};

struct faithful {
    struct faithful_csb csb;
    struct faithful_connection *table; /* of all streams, a part per tid */
    uint32_t start[TIDS + 1];
};

static struct flow draw_flow(void)
{
    struct flow flow = {.lport = 80, .rport = (uint16_t)(1024 + draw_below(64000))};
    uint32_t raddr = (uint32_t)draw();

    flow.laddr.b[10] = flow.laddr.b[11] = flow.raddr.b[10] = flow.raddr.b[11] = 0xff;
    memcpy(flow.laddr.b + 12, "\x0a\x4d\x00\x01", 4);
    memcpy(flow.raddr.b + 12, &raddr, 4);
    return flow;
}

static void streams_init(struct streams *s, uint32_t count)
{
    s->count = count;
    s->secret = (struct csb_secret){draw(), draw()};
    s->hash = room_of(count * sizeof *s->hash);
    s->tid = room_of(count);
    for (uint32_t i = 0; i < count; i++) {
        struct flow flow = draw_flow();
        s->hash[i] = csb_hash(&s->secret, &flow);
    }
}

/* Where each tid's part of a table of all streams begins. */
static void partition(const struct streams *s, uint32_t start[TIDS + 1])
{
    memset(start, 0, (TIDS + 1) * sizeof start[0]);
    for (uint32_t i = 0; i < s->count; i++)
        start[s->tid[i] + 1]++;
    for (uint32_t t = 0; t < TIDS; t++)
        start[t + 1] += start[t];
}

/* --- the product's form --- */

static void product_init(struct product *p, const struct csb_point *points, uint32_t point_count, uint32_t count)
{
    if (!csb_map_build(&p->map, points, point_count, 1))
        abort();
    p->room = csb_view_bytes(count, count / 16);
    p->view = room_of(p->room);
    p->spare = room_of(p->room);
    p->column = room_of(count * sizeof *p->column);
    p->list = room_of(count * sizeof *p->list);
    csb_view_build(p->view, p->room, &p->map, NULL, 0);
}

static void product_fill(struct product *p, const struct streams *s)
{
    uint32_t at[TIDS];

    partition(s, p->start);
    memcpy(at, p->start, sizeof at);
    for (uint32_t i = 0; i < s->count; i++)
        p->column[at[s->tid[i]]++] = s->hash[i];
}

/* Plan and walks: what each tid lists. */
static void product_collect(struct product *p, const struct csb_map *next)
{
    csb_plan_init(&p->plan, next, p->view);
    for (uint32_t t = 0; t < TIDS; t++) {
        uint32_t rows = p->start[t + 1] - p->start[t], cursor = 0;
        uint64_t *out = p->list + p->start[t];
        uint32_t listed =
            csb_walk(&p->plan, p->view, (uint16_t)t, p->column + p->start[t], rows, &cursor, UINT32_MAX, out, rows);

        p->lists[t] = (struct csb_list){out, listed, (uint16_t)t};
    }
    p->list_count = TIDS;
}

/* The view of what is listed, in force. */
static void product_publish(struct product *p, const struct csb_map *next)
{
    struct csb_view *old = p->view;

    if (csb_view_build(p->spare, p->room, next, p->lists, p->list_count) > p->room)
        abort();
    p->view = p->spare;
    p->spare = old;
    p->map = *next;
}

/* Seconds of an update from the plan to the finished view; waits for markers and swaps are not in it. */
static inline double product_update(struct product *p, const struct csb_map *next)
{
    double began = now();

    product_collect(p, next);
    product_publish(p, next);
    return now() - began;
}

/* --- the faithful form --- */

static void faithful_start(struct faithful *f, const struct csb_point *points, uint32_t point_count, uint32_t count)
{
    faithful_init(&f->csb, (const struct faithful_point *)points, point_count);
    f->table = room_of(count * sizeof *f->table);
    f->csb.set_diff = room_of(count * sizeof *f->csb.set_diff);
    f->csb.set_diff_room = count;
}

static void faithful_fill(struct faithful *f, const struct streams *s)
{
    uint32_t at[TIDS];

    partition(s, f->start);
    memcpy(at, f->start, sizeof at);
    for (uint32_t i = 0; i < s->count; i++)
        f->table[at[s->tid[i]]++] = (struct faithful_connection){.key = csb_key(s->hash[i]), .tid = s->tid[i]};
}

/* Steps 1 to 3: connections that begin behind them are flying. */
static void faithful_begin(struct faithful *f, const struct csb_point *points, uint32_t point_count, uint32_t count)
{
    faithful_step_1_place(&f->csb, (const struct faithful_point *)points, point_count, (uint32_t)(count * 19.17),
                          BLOOM_HASHES);
    faithful_step_2_open(&f->csb);
    for (uint32_t t = 0; t < TIDS; t++)
        faithful_step_3_filter(&f->csb, f->table + f->start[t], f->start[t + 1] - f->start[t]);
}

/* Steps 4 to 6. */
static void faithful_end(struct faithful *f)
{
    for (uint32_t t = 0; t < TIDS; t++)
        faithful_step_4_collect(&f->csb, f->table + f->start[t], f->start[t + 1] - f->start[t]);
    faithful_step_5_merge(&f->csb);
    faithful_step_6_publish(&f->csb);
}

static inline double faithful_update(struct faithful *f, const struct csb_point *points, uint32_t point_count,
                                     uint32_t count)
{
    double began = now();

    faithful_begin(f, points, point_count, count);
    faithful_end(f);
    return now() - began;
}

/* --- what is looked up: packets of all streams, in random order --- */

struct packets {
    uint32_t count;
    uint64_t *hash;
    uint32_t *key;
};

static void packets_draw(struct packets *p, const struct streams *s)
{
    for (uint32_t i = 0; i < p->count; i++) {
        p->hash[i] = s->hash[draw_below(s->count)];
        p->key[i] = csb_key(p->hash[i]);
    }
}

static void packets_init(struct packets *p, uint32_t count)
{
    p->count = count;
    p->hash = room_of(count * sizeof *p->hash);
    p->key = room_of(count * sizeof *p->key);
}

static uint64_t checksum; /* of all answers, so that no lookup is optimised away */

/* Lookups per second. */
static double product_lookups(const struct csb_view *view, const struct packets *p)
{
    uint16_t tids[BURST];
    double began = now();

    for (uint32_t i = 0; i + BURST <= p->count; i += BURST) {
        csb_view_lookup_batch(view, p->hash + i, tids, BURST);
        checksum += tids[0] + tids[BURST - 1];
    }
    return p->count / (now() - began);
}

static double faithful_lookups(struct faithful_csb *csb, const struct packets *p)
{
    double began = now();
    uint64_t sum = 0;

    for (uint32_t i = 0; i < p->count; i++)
        sum += faithful_lookup(csb, p->key[i], false);
    checksum += sum;
    return p->count / (now() - began);
}

#endif
