/*
 * env_loop.c: two TCP threads joined by a wire in memory.
 */
#include "app/env_loop.h"

#include "app/clock.h"
#include "app/error.h"
#include "app/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct flying {
    uint64_t arrives_us;
    uint32_t slot; /* of the receiving end */
    uint16_t offset, len;
};

struct pool {
    uint8_t *slots;
    uint32_t *free;
    uint32_t free_count, total;
};

struct loop_end {
    struct janus_loop *loop;
    struct loop_end *other;
    struct pool rx, tx;
    struct flying *queue; /* rx.total entries: a packet in flight owns its RX slot already */
    uint32_t head, tail;  /* free-running */
    uint32_t tx_freed;    /* since the last collect() */
    struct janus_thread thread;
};

struct janus_loop {
    struct loop_end ends[2];
    uint64_t virtual_us; /* 0: real time */
    uint32_t latency_us;
    uint64_t random_state;
};

/* --- pools --- */

static bool pool_make(struct pool *p, uint32_t total)
{
    p->slots = malloc((size_t)total * TCP_SLOT_BYTES);
    p->free = malloc(total * sizeof *p->free);
    p->total = total;
    for (uint32_t i = total; p->free && i-- > 0;)
        p->free[p->free_count++] = i;
    return p->slots && p->free;
}

static void pool_free(struct pool *p)
{
    free(p->slots);
    free(p->free);
}

static uint32_t pool_take(struct pool *p)
{
    return p->free_count > 0 ? p->free[--p->free_count] : TCP_NO_SLOT;
}

static uint8_t *pool_slot(const struct pool *p, uint32_t slot)
{
    return p->slots + (size_t)slot * TCP_SLOT_BYTES;
}

/* --- struct tcp_env --- */

static uint64_t now_us(void *context)
{
    const struct loop_end *end = context;

    return end->loop->virtual_us ? end->loop->virtual_us : clock_now_us();
}

static uint32_t tx_alloc(void *context)
{
    return pool_take(&((struct loop_end *)context)->tx);
}

static void tx_free(void *context, uint32_t slot)
{
    struct loop_end *end = context;

    end->tx.free[end->tx.free_count++] = slot;
    end->tx_freed++;
}

static uint8_t *tx_data(void *context, uint32_t slot)
{
    return pool_slot(&((struct loop_end *)context)->tx, slot);
}

static bool tx_send(void *context, uint32_t slot, uint32_t offset, uint32_t len, bool last)
{
    struct loop_end *end = context;
    struct loop_end *to = end->other;
    uint32_t arrived = pool_take(&to->rx);

    if (arrived != TCP_NO_SLOT) { /* else it is lost, as on any wire */
        memcpy(pool_slot(&to->rx, arrived) + offset, tx_data(end, slot) + offset, len);
        to->queue[to->tail++ % to->rx.total] =
            (struct flying){now_us(end) + end->loop->latency_us, arrived, (uint16_t)offset, (uint16_t)len};
    }
    if (last)
        tx_free(end, slot);
    return true;
}

static bool tx_busy(void *context, uint32_t slot)
{
    (void)context;
    (void)slot;
    return false; /* the wire has copied it */
}

static uint32_t tx_available(void *context)
{
    return ((const struct loop_end *)context)->tx.free_count;
}

static const uint8_t *rx_data(void *context, uint32_t slot)
{
    return pool_slot(&((const struct loop_end *)context)->rx, slot);
}

static void rx_release(void *context, uint32_t slot)
{
    struct loop_end *end = context;

    end->rx.free[end->rx.free_count++] = slot;
}

/* xorshift64*: the same seed gives the same run. */
static void draw_random(void *context, void *data, size_t len)
{
    uint64_t *state = &((struct loop_end *)context)->loop->random_state;
    uint8_t *out = data;

    for (size_t i = 0; i < len; i++) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        out[i] = (uint8_t)((*state * UINT64_C(0x2545f4914f6cdd1d)) >> 56);
    }
}

/* --- struct driver --- */

static bool arrived(const struct loop_end *end)
{
    return end->head != end->tail && end->queue[end->head % end->rx.total].arrives_us <= now_us((void *)(uintptr_t)end);
}

static uint32_t receive(void *context, struct tcp_packet *packets, uint32_t max)
{
    struct loop_end *end = context;
    uint32_t n = 0;

    for (; n < max && arrived(end); n++) {
        const struct flying *f = &end->queue[end->head++ % end->rx.total];

        packets[n] = (struct tcp_packet){
            .ip = pool_slot(&end->rx, f->slot) + f->offset, .slot = f->slot, .offset = f->offset, .len = f->len};
    }
    return n;
}

static uint32_t collect(void *context)
{
    struct loop_end *end = context;
    uint32_t n = end->tx_freed;

    end->tx_freed = 0;
    return n;
}

static void publish(void *context)
{
    (void)context;
}

static bool pending(void *context)
{
    const struct loop_end *end = context;

    return arrived(end) || end->tx_freed > 0;
}

static void set_sleeping(void *context, bool sleeping)
{
    (void)context;
    (void)sleeping;
}

static uint64_t next_us(void *context)
{
    const struct loop_end *end = context;

    return end->head == end->tail ? UINT64_MAX : end->queue[end->head % end->rx.total].arrives_us;
}

/* --- opening and closing --- */

static int open_end(struct loop_end *end, const struct janus_loop_options *options, uint32_t index,
                    struct janus_error *error)
{
    struct janus_thread *t = &end->thread;
    struct janus_options common = {
        .rcv_buf_bytes = options->rcv_buf_bytes, .snd_buf_bytes = options->snd_buf_bytes, .msl_ms = options->msl_ms};

    end->queue = calloc(options->rx_slots, sizeof *end->queue);
    if (!pool_make(&end->rx, options->rx_slots) || !pool_make(&end->tx, options->tx_slots) || !end->queue)
        return error_set(error, ENOMEM, "no memory for %u RX and %u TX slots", options->rx_slots, options->tx_slots);
    thread_configure(&t->config, &common, options->rows);
    t->config.rx_slots = options->rx_slots;
    t->config.tx_slots = options->tx_slots;
    t->config.mtu = options->mtu;
    t->config.source_port_first = 32768;
    t->config.source_port_last = 60999;
    draw_random(end, &t->config.flow_secret, sizeof t->config.flow_secret);
    t->address_count = 1;
    t->addresses[0] = options->addresses[index];
    t->env = (struct tcp_env){
        .context = end,
        .tx_alloc = tx_alloc,
        .tx_free = tx_free,
        .tx_data = tx_data,
        .tx_send = tx_send,
        .tx_busy = tx_busy,
        .tx_available = tx_available,
        .rx_data = rx_data,
        .rx_release = rx_release,
        .random = draw_random,
    };
    t->driver = (struct driver){
        .context = end,
        .now_us = now_us,
        .receive = receive,
        .collect = collect,
        .publish = publish,
        .pending = pending,
        .set_sleeping = set_sleeping,
        .next_us = next_us,
    };
    return thread_make_stack(t, NULL, now_us(end), error);
}

struct janus_loop *janus_loop_open(const struct janus_loop_options *options, struct janus_error *error)
{
    struct janus_loop *loop = calloc(1, sizeof *loop);

    if (!loop) {
        error_set(error, ENOMEM, "no memory");
        return NULL;
    }
    loop->latency_us = options->latency_us;
    loop->virtual_us = options->virtual_time ? 1000000 : 0;
    loop->random_state = options->seed * 2 + 1;
    for (uint32_t i = 0; i < 2; i++) {
        loop->ends[i].loop = loop;
        loop->ends[i].other = &loop->ends[1 - i];
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (open_end(&loop->ends[i], options, i, error) < 0) {
            janus_loop_close(loop);
            return NULL;
        }
    }
    return loop;
}

void janus_loop_close(struct janus_loop *loop)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct loop_end *end = &loop->ends[i];

        thread_free_memory(&end->thread);
        if (end->thread.lent > 0)
            end->rx.slots = NULL; /* views still show it */
        pool_free(&end->rx);
        pool_free(&end->tx);
        free(end->queue);
    }
    free(loop);
}

struct janus_thread *janus_loop_thread(struct janus_loop *loop, uint32_t index)
{
    return index < 2 ? &loop->ends[index].thread : NULL;
}

void janus_loop_advance(struct janus_loop *loop, uint64_t us)
{
    if (loop->virtual_us)
        loop->virtual_us += us;
}
