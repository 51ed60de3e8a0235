/*
 * csb_aged.c: many reweights with churn between them, as long-lived connections see them; each form with its own circles.
 *
 *   csb_aged STREAMS PACKETS FAITHFUL_PACKETS RUNS CHURN_PERMILLE FLYING_PERMILLE both|janus|count < circles
 *
 * The faithful form, which takes longer, may be asked for fewer packets.  count: of it for no streams after an update, as the number of
 * its exceptions alone is wanted.
 * After each update what is known of the exceptions is printed, and the next circles are read.
 * The input has, for the start and each update, the faithful form's points and the product's: a count, then point and tid of
 * each.  FLYING_PERMILLE of the streams end and as many begin while each update runs.  After every update each form is asked for every stream, and answers are compared with the owner it is due to;
 * a misdirected stream is counted and begins anew.  Prints FORM METRIC VALUE.
 */
#include "bench/csb_balance.h"
#include "csb/census.h"

enum { STRANGERS_MAX = CSB_SLOT_COUNT * TIDS };

struct circle {
    struct csb_point points[CSB_POINTS_MAX];
    uint32_t count;
};

static bool read_circle(struct circle *c)
{
    if (scanf("%u", &c->count) != 1)
        return false;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->count > CSB_POINTS_MAX || scanf("%u %u", &c->points[i].point, &c->points[i].tid) != 2)
            abort();
    }
    return true;
}

struct bed {
    struct streams streams, faithful_streams; /* the same hashes, owners of their own */
    struct product product;
    struct faithful faithful;
    struct circle circle, faithful_circle;
    struct csb_map next;
    bool has_faithful, is_count;
    uint32_t flying_count;
    uint32_t *flying;      /* streams whose successors begin during an update */
    uint64_t *flying_hash; /* of the successors */
    uint64_t *late[TIDS];
    uint32_t counts[CSB_SLOT_COUNT * CSB_TIDS_MAX];
    struct csb_strangers strangers[STRANGERS_MAX];
};

static uint64_t draw_hash(const struct bed *b)
{
    struct flow flow = draw_flow();

    return csb_hash(&b->streams.secret, &flow);
}

static void churn(struct bed *b, uint32_t permille)
{
    uint64_t count = (uint64_t)b->streams.count * permille / 1000;

    for (uint64_t n = 0; n < count; n++) {
        uint32_t i = draw_below(b->streams.count);
        uint64_t hash = draw_hash(b);

        b->streams.hash[i] = hash;
        b->streams.tid[i] = (uint8_t)csb_view_lookup(b->product.view, hash);
        if (b->has_faithful)
            b->faithful_streams.tid[i] = (uint8_t)faithful_lookup(&b->faithful.csb, csb_key(hash), false);
    }
}

static uint64_t verify_product(struct bed *b)
{
    uint64_t wrong = 0;
    uint16_t tids[BURST];

    for (uint32_t i = 0, n; i < b->streams.count; i += n) {
        n = b->streams.count - i < BURST ? b->streams.count - i : BURST;
        csb_view_lookup_batch(b->product.view, b->streams.hash + i, tids, n);
        for (uint32_t j = 0; j < n; j++) {
            wrong += tids[j] != b->streams.tid[i + j];
            b->streams.tid[i + j] = (uint8_t)tids[j];
        }
    }
    return wrong;
}

static uint64_t verify_faithful(struct bed *b)
{
    uint64_t wrong = 0;

    for (uint32_t i = 0; i < b->streams.count; i++) {
        uint8_t tid = (uint8_t)faithful_lookup(&b->faithful.csb, csb_key(b->streams.hash[i]), false);

        wrong += tid != b->faithful_streams.tid[i];
        b->faithful_streams.tid[i] = tid;
    }
    return wrong;
}

/* What the circle's maker may know: "strangers", a count, then slot, tid and keys of each. */
static void print_strangers(struct bed *b)
{
    uint32_t found = csb_view_census(b->product.view, b->counts, b->strangers, STRANGERS_MAX);

    printf("strangers %u\n", found);
    for (uint32_t i = 0; i < found; i++)
        printf("%u %u %u\n", b->strangers[i].slot, b->strangers[i].tid, b->strangers[i].count);
}

static void verify(struct bed *b)
{
    printf("janus misdirected %llu\n", (unsigned long long)verify_product(b));
    printf("janus exceptions %u\n", b->product.view->exception_count);
    printf("janus flagged %u\n", b->product.view->flagged_count);
    printf("janus bytes %llu\n", (unsigned long long)b->product.view->bytes);
    if (b->has_faithful && !b->is_count)
        printf("faithful misdirected %llu\n", (unsigned long long)verify_faithful(b));
    if (b->has_faithful) {
        printf("faithful exceptions %u\n", b->faithful.csb.set_diff_count);
        printf("faithful bytes %llu\n", b->faithful.csb.bf.bit_count / 8ULL + b->faithful.csb.h_diff.count * 8ULL);
    }
    print_strangers(b);
    fflush(stdout);
}

/* By map n-1, and listed late if the update concerns it. */
static void product_fly(struct bed *b)
{
    struct product *p = &b->product;
    uint32_t late[TIDS] = {0};

    for (uint32_t i = 0; i < b->flying_count; i++) {
        uint64_t hash = b->flying_hash[i];
        uint16_t tid = csb_view_lookup(p->view, hash);

        b->streams.tid[b->flying[i]] = (uint8_t)tid;
        if (csb_plan_concerns(&p->plan, p->view, tid, hash))
            b->late[tid][late[tid]++] = hash;
    }
    for (uint32_t t = 0; t < TIDS; t++)
        p->lists[p->list_count++] = (struct csb_list){b->late[t], late[t], (uint16_t)t};
}

/* Into Set_fly, as printed. */
static void faithful_fly(struct bed *b)
{
    for (uint32_t i = 0; i < b->flying_count; i++)
        b->faithful_streams.tid[b->flying[i]] =
            (uint8_t)faithful_lookup(&b->faithful.csb, csb_key(b->flying_hash[i]), true);
}

static void update(struct bed *b, bool is_janus)
{
    double began = now(), took;

    if (is_janus) {
        product_collect(&b->product, &b->next);
        took = now() - began;
        product_fly(b);
        began = now();
        product_publish(&b->product, &b->next);
    } else {
        faithful_begin(&b->faithful, b->faithful_circle.points, b->faithful_circle.count, b->streams.count);
        took = now() - began;
        faithful_fly(b);
        began = now();
        faithful_end(&b->faithful);
    }
    printf("%s update %.9f\n", is_janus ? "janus" : "faithful", took + now() - began);
}

static void both_updates(struct bed *b, bool is_janus_first)
{
    if (!csb_map_build(&b->next, b->circle.points, b->circle.count, b->product.map.epoch + 1))
        abort();
    product_fill(&b->product, &b->streams);
    if (b->has_faithful)
        faithful_fill(&b->faithful, &b->faithful_streams);
    for (uint32_t i = 0; i < b->flying_count; i++) { /* each stream once: by strides */
        b->flying[i] = (uint32_t)((uint64_t)i * b->streams.count / b->flying_count);
        b->flying_hash[i] = draw_hash(b);
    }
    if (b->has_faithful && !is_janus_first)
        update(b, false);
    update(b, true);
    if (b->has_faithful && is_janus_first)
        update(b, false);
    for (uint32_t i = 0; i < b->flying_count; i++)
        b->streams.hash[b->flying[i]] = b->flying_hash[i];
}

static void bed_init(struct bed *b, uint32_t count, uint32_t flying_permille)
{
    streams_init(&b->streams, count);
    b->flying_count = (uint32_t)((uint64_t)count * flying_permille / 1000);
    b->flying = room_of(b->flying_count * sizeof *b->flying);
    b->flying_hash = room_of(b->flying_count * sizeof *b->flying_hash);
    for (uint32_t t = 0; t < TIDS; t++)
        b->late[t] = room_of(b->flying_count * sizeof *b->late[t]);
    product_init(&b->product, b->circle.points, b->circle.count, count);
    for (uint32_t i = 0; i < count; i++)
        b->streams.tid[i] = (uint8_t)csb_view_lookup(b->product.view, b->streams.hash[i]);
    if (!b->has_faithful)
        return;
    b->faithful_streams = b->streams;
    b->faithful_streams.tid = room_of(count);
    faithful_start(&b->faithful, b->faithful_circle.points, b->faithful_circle.count, count);
    for (uint32_t i = 0; i < count; i++)
        b->faithful_streams.tid[i] = (uint8_t)faithful_lookup(&b->faithful.csb, csb_key(b->streams.hash[i]), false);
}

/* Lookups of all packets in turn, forwards and backwards. */
static void lookups(struct bed *b, uint32_t count, uint32_t faithful_count, int runs)
{
    struct packets packets;

    packets_init(&packets, count);
    packets_draw(&packets, &b->streams);
    for (int n = 0; n < 2 * runs; n++) {
        if ((n % 2 + n / 2) % 2 == 0) {
            packets.count = count;
            printf("janus ready %.0f\n", product_lookups(b->product.view, &packets));
        } else if (b->has_faithful) {
            packets.count = faithful_count;
            printf("faithful ready %.0f\n", faithful_lookups(&b->faithful.csb, &packets));
        }
    }
}

int main(int argc, char **argv)
{
    struct bed *b = room_of(sizeof *b);
    uint32_t count = argc == 8 ? (uint32_t)atoi(argv[1]) : 0;

    if (count == 0 || !read_circle(&b->faithful_circle) || !read_circle(&b->circle)) {
        fprintf(stderr, "usage: csb_aged STREAMS PACKETS FAITHFUL_PACKETS RUNS CHURN_PERMILLE FLYING_PERMILLE "
                        "both|janus|count < circles\n");
        return 2;
    }
    b->has_faithful = argv[7][0] != 'j';
    b->is_count = argv[7][0] == 'c';
    bed_init(b, count, (uint32_t)atoi(argv[6]));
    for (int n = 0; read_circle(&b->faithful_circle) && read_circle(&b->circle); n++) {
        both_updates(b, n % 2 == 0);
        verify(b);
        churn(b, (uint32_t)atoi(argv[5]));
    }
    if (!b->is_count)
        lookups(b, (uint32_t)atoi(argv[2]), (uint32_t)atoi(argv[3]), atoi(argv[4]));
    fprintf(stderr, "checksum %llu\n", (unsigned long long)checksum);
    return 0;
}
