/*
 * csb_fresh.c: one reweight of 16 tids, 6 % of the circle moved: lookups from ready keys and from 4-tuples, and the update.
 *
 *   csb_fresh lookup|update STREAMS PACKETS RUNS
 *
 * Prints a line per measurement: FORM METRIC VALUE.  The forms take turns, the first of one round is the last of the next.
 */
#include "bench/csb_balance.h"
#include "bench/csb_peers.h"

static uint32_t moved_keys(const struct csb_map *a, const struct csb_map *b)
{
    uint32_t moved = 0;

    for (uint32_t i = 0; i < 65536; i++)
        moved += csb_lookup(a, i << 16) != csb_lookup(b, i << 16);
    return moved;
}

/* Points of the tid with the most go to their neighbours until 6 % of the circle has moved. */
static void reweight(const struct csb_map *map, struct csb_point *points, uint32_t count, struct csb_map *next)
{
    uint32_t share[TIDS] = {0}, most = 0;

    memcpy(points, map->points, count * sizeof *points);
    for (uint32_t i = 0; i < 65536; i++)
        share[csb_lookup(map, i << 16)]++;
    for (uint32_t t = 1; t < TIDS; t++)
        most = share[t] > share[most] ? t : most;
    *next = *map;
    for (uint32_t i = 0; i < count && moved_keys(map, next) < 65536 * 6 / 100; i++) {
        if (points[i].tid != most)
            continue;
        points[i].tid = points[(i + 1) % count].tid != most ? points[(i + 1) % count].tid : (most + 1) % TIDS;
        if (!csb_map_build(next, points, count, 2))
            abort();
    }
}

struct bed {
    struct streams streams;
    struct product product;
    struct faithful faithful;
    struct packets packets;
    struct tracker maglev, jet;
    struct csb_point points[TIDS * POINTS], moved[TIDS * POINTS];
    struct csb_map map, next;
    uint32_t point_count;
};

static void bed_init(struct bed *b, uint32_t count, uint32_t packets)
{
    for (uint32_t t = 0; t < TIDS; t++)
        csb_place_tid(b->points, &b->point_count, t, POINTS);
    streams_init(&b->streams, count);
    product_init(&b->product, b->points, b->point_count, count);
    faithful_start(&b->faithful, b->points, b->point_count, count);
    b->map = b->product.map;
    reweight(&b->map, b->moved, b->point_count, &b->next);
    for (uint32_t i = 0; i < count; i++)
        b->streams.tid[i] = (uint8_t)csb_lookup(&b->map, csb_key(b->streams.hash[i]));
    product_fill(&b->product, &b->streams);
    faithful_fill(&b->faithful, &b->streams);
    packets_init(&b->packets, packets);
    packets_draw(&b->packets, &b->streams);
}

static void verify(struct bed *b)
{
    uint64_t wrong = 0, wrong_faithful = 0;

    for (uint32_t i = 0; i < b->streams.count; i++) {
        wrong += csb_view_lookup(b->product.view, b->streams.hash[i]) != b->streams.tid[i];
        wrong_faithful += faithful_lookup(&b->faithful.csb, csb_key(b->streams.hash[i]), false) != b->streams.tid[i];
    }
    printf("janus misdirected %llu\n", (unsigned long long)wrong);
    printf("faithful misdirected %llu\n", (unsigned long long)wrong_faithful);
    printf("janus exceptions %u\n", b->product.view->exception_count);
    printf("janus bytes %llu\n", (unsigned long long)b->product.view->bytes);
    printf("faithful bytes %llu\n", b->faithful.csb.bf.bit_count / 8ULL + b->faithful.csb.h_diff.count * 8ULL);
    printf("faithful runs %u\n", b->faithful.csb.h_diff.count);
}

/* As in an I/O thread, where a burst's tuples have just been parsed. */
static void fetch(const struct flow *flows)
{
    for (uint32_t i = 0; i < BURST * sizeof *flows; i += 64)
        __builtin_prefetch((const char *)flows + i);
}

/* From 4-tuples: the hash is part of it, in both forms. */
static void tuple_round(struct bed *b, const struct flow *flows, uint32_t count, bool is_janus)
{
    double began = now();
    uint64_t hashes[BURST], sum = 0;
    uint16_t tids[BURST];

    for (uint32_t i = 0; i + BURST <= count; i += BURST) {
        fetch(flows + (i + 2 * BURST <= count ? i + BURST : 0));
        if (is_janus) {
            csb_hash_batch(&b->streams.secret, flows + i, hashes, BURST);
            csb_view_lookup_batch(b->product.view, hashes, tids, BURST);
            sum += tids[0];
        } else {
            for (uint32_t j = i; j < i + BURST; j++)
                sum += faithful_lookup(&b->faithful.csb, csb_key(csb_hash(&b->streams.secret, &flows[j])), false);
        }
    }
    checksum += sum;
    printf("%s tuple %.0f\n", is_janus ? "janus" : "faithful", count / (now() - began));
}

static void peers_init(struct bed *b)
{
    double maglev = tracker_init(&b->maglev, &b->streams, true), jet = tracker_init(&b->jet, &b->streams, false);

    printf("maglev opening %.2f\n", maglev / b->streams.count * 1e9);
    printf("jet opening %.2f\n", jet / b->streams.count * 1e9);
    printf("maglev bytes %llu\n", b->maglev.size * 8ULL + MAGLEV_SIZE);
    printf("jet bytes %llu\n", b->jet.size * 8ULL + MAGLEV_SIZE);
}

static void ready_round(struct bed *b, bool is_janus)
{
    if (is_janus) {
        printf("maglev ready %.0f\n", tracker_lookups(&b->maglev, &b->packets));
        printf("jet ready %.0f\n", tracker_lookups(&b->jet, &b->packets));
        printf("janus ready %.0f\n", product_lookups(b->product.view, &b->packets));
    } else
        printf("faithful ready %.0f\n", faithful_lookups(&b->faithful.csb, &b->packets));
}

static void update_round(struct bed *b, bool is_janus)
{
    if (is_janus) {
        printf("janus update %.9f\n", product_update(&b->product, &b->next));
        csb_view_build(b->product.view, b->product.room, &b->map, NULL, 0); /* back to before */
        b->product.map = b->map;
    } else {
        printf("faithful update %.9f\n", faithful_update(&b->faithful, b->moved, b->point_count, b->streams.count));
    }
}

int main(int argc, char **argv)
{
    struct bed *b = room_of(sizeof *b);
    uint32_t count = argc == 5 ? (uint32_t)atoi(argv[2]) : 0, packets = argc == 5 ? (uint32_t)atoi(argv[3]) : 0;
    uint32_t tuples = packets < (1 << 22) ? packets : 1 << 22;
    struct flow *flows = NULL;

    if (count == 0 || packets == 0) {
        fprintf(stderr, "usage: csb_fresh lookup|update STREAMS PACKETS RUNS\n");
        return 2;
    }
    bed_init(b, count, packets);
    if (argv[1][0] == 'l') {
        flows = room_of(tuples * sizeof *flows);
        for (uint32_t i = 0; i < tuples; i++)
            flows[i] =
                draw_flow(); /* of the same distribution; one in sixteen finds an exception's slot, as streams do */
        product_update(&b->product, &b->next);
        faithful_update(&b->faithful, b->moved, b->point_count, count);
        verify(b);
        peers_init(b);
    }
    for (int run = 0; run < atoi(argv[4]); run++) {
        for (int turn = 0; turn < 2; turn++) {
            bool is_janus = (turn + run) % 2 == 0;

            if (flows == NULL)
                update_round(b, is_janus);
            else {
                ready_round(b, is_janus);
                tuple_round(b, flows, tuples, is_janus);
            }
        }
    }
    fprintf(stderr, "checksum %llu\n", (unsigned long long)checksum);
    return 0;
}
