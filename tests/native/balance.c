/* balance.c: a TCP thread's part in updates with a clock, a socket and flows of the test's own. */
#include "../../sdk/app/balance.c"
#include "../../sdk/app/mapper.c"

#include <stdlib.h>
#include <sys/eventfd.h>

struct bed {
    struct balance b;
    struct attach attach;
    uint64_t *column[TCP_FLOW_COLUMNS];
    uint32_t rows[TCP_FLOW_COLUMNS];
    uint64_t clock_us, tick_us; /* each look at the clock makes it tick_us later */
    uint64_t worked_ns;         /* each look at the thread's own time makes that a microsecond more */
    uint32_t room;              /* messages that the socket still takes */
    bool only_small;            /* it has no room for lists */
    uint32_t messages, answers; /* taken */
    uint32_t last_phase, last_attempt;
    uint64_t *listed;
    uint32_t listed_count;
};

static struct bed *bed;

uint64_t clock_now_us(void)
{
    return bed->clock_us += bed->tick_us;
}

uint64_t clock_thread_ns(void)
{
    return bed->worked_ns += 1000;
}

bool attach_wait(const struct attach *a, int timeout_ms)
{
    return false;
}

void tcp_expect_cookies(struct tcp_stack *s, uint64_t now_us)
{
}

uint32_t tcp_flow_column(const struct tcp_stack *s, uint32_t part, const uint64_t **column)
{
    *column = bed->column[part];
    return bed->rows[part];
}

int attach_send_list(int fd, uint64_t attempt, const uint64_t *hashes, uint32_t count)
{
    if (bed->room == 0 || bed->only_small)
        return -EAGAIN;
    bed->room--;
    memcpy(bed->listed + bed->listed_count, hashes, count * sizeof *hashes);
    bed->listed_count += count;
    bed->messages++;
    return 0;
}

int attach_send_done(int fd, uint64_t attempt, uint32_t phase)
{
    if (bed->room == 0)
        return -EAGAIN;
    bed->room--;
    bed->last_phase = phase;
    bed->last_attempt = (uint32_t)attempt;
    bed->answers++;
    return 0;
}

/* A thread 0 with these flows, in the three columns in order. */
static struct bed *bed_new(const uint64_t *hashes, uint32_t half_open, uint32_t rows, uint32_t time_wait)
{
    const uint32_t counts[TCP_FLOW_COLUMNS] = {half_open, rows, time_wait};

    bed = calloc(1, sizeof *bed);
    for (uint32_t part = 0; part < TCP_FLOW_COLUMNS; part++) {
        bed->rows[part] = counts[part];
        bed->column[part] = calloc(counts[part] + 1, sizeof(uint64_t));
        memcpy(bed->column[part], hashes, counts[part] * sizeof(uint64_t));
        hashes += counts[part];
    }
    bed->listed = calloc(half_open + rows + time_wait + LIST_ROOM, sizeof *bed->listed);
    bed->room = UINT32_MAX;
    bed->attach.fd = eventfd(0, EFD_CLOEXEC);
    balance_start(&bed->b, &bed->attach, 0, true);
    return bed;
}

static void bed_free(void)
{
    if (bed->b.mapper.thread != 0)
        mapper_stop(&bed->b.mapper);
    bed->b.mapper.is_running = false;
    bed->room = UINT32_MAX;
    work_all(&bed->b.mapper);
    balance_free(&bed->b);
    close(bed->attach.fd);
    for (uint32_t part = 0; part < TCP_FLOW_COLUMNS; part++)
        free(bed->column[part]);
    free(bed->listed);
    free(bed);
    bed = NULL;
}

/* janusd says something that brings a value of these bytes. */
static void say(uint32_t type, uint64_t attempt, const void *value, uint64_t bytes)
{
    struct attach_csb message = {.type = type, .attempt = attempt, .bytes = bytes, .ios = 1};
    int fd = memfd_create("value", MFD_CLOEXEC);

    if (fd < 0 || write(fd, value, bytes) != (ssize_t)bytes)
        abort();
    balance_hear(&bed->b, &message, fd, bed->clock_us);
}

/* Lower keys than point stay, others go to tid 1. */
static struct csb_map *map_of(uint32_t point)
{
    struct csb_map *map = calloc(1, sizeof *map);
    const struct csb_point points[] = {{point, 0}, {UINT32_MAX, 1}};

    if (!csb_map_build(map, points, 2, 1))
        abort();
    return map;
}

static void say_begin(uint64_t attempt, uint32_t point)
{
    struct csb_map *map = map_of(point);
    struct csb_plan *plan = calloc(1, sizeof *plan);

    csb_plan_init(plan, map, NULL);
    say(ATTACH_CSB_BEGIN, attempt, plan, sizeof *plan);
    free(plan);
    free(map);
}

static void say_abort(uint64_t attempt)
{
    struct attach_csb message = {.type = ATTACH_CSB_ABORT, .attempt = attempt};

    balance_hear(&bed->b, &message, -1, bed->clock_us);
}

/* A draft or a view with these exceptions, which are all tid's. */
static uint64_t say_view(uint32_t type, uint64_t attempt, uint32_t point, const uint64_t *hashes, uint32_t count,
                         uint16_t tid)
{
    struct csb_map *map = map_of(point);
    const struct csb_list list = {hashes, count, tid};
    uint64_t bytes = csb_view_bytes(count, 1);
    void *view = aligned_alloc(64, (bytes + 63) / 64 * 64);

    bytes = csb_view_build(view, bytes, map, &list, 1);
    say(type, attempt, view, bytes);
    free(view);
    free(map);
    return bytes;
}

/* A value of the right length, with nothing right in it. */
static void say_rubbish(uint32_t type, uint64_t attempt)
{
    uint64_t bytes = sizeof(struct csb_view);
    void *value = malloc(bytes);

    memset(value, 0xff, bytes);
    say(type, attempt, value, bytes);
    free(value);
}

static uint64_t walked(void)
{
    uint64_t rows = bed->b.member.cursor;

    for (uint32_t part = 0; part < bed->b.part; part++)
        rows += bed->rows[part];
    return rows;
}

/* From here on what is to be mapped waits for map_all(), as if the mapper were slow. */
static void map_later(void)
{
    sem_init(&bed->b.mapper.wake, 0, 0);
    bed->b.mapper.is_running = true;
}

static void map_one(void)
{
    struct mapper *m = &bed->b.mapper;
    uint32_t done = atomic_load(&m->done);

    if (done == atomic_load(&m->asked))
        abort();
    work(m, &m->jobs[done % MAPPER_JOBS]);
    atomic_store(&m->done, done + 1);
}

static void map_all(void)
{
    work_all(&bed->b.mapper);
}

/* How often the mapper was woken since map_later(). */
static int wakes(void)
{
    int count = 0;

    sem_getvalue(&bed->b.mapper.wake, &count);
    return count;
}

/* From here on a thread of its own does it. */
static void map_beside(void)
{
    mapper_start(&bed->b.mapper);
}
