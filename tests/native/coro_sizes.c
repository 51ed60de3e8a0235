/*
 * coro_sizes.c: how much of its stack each usual kind of handler keeps while it waits, in a build as it is released.
 *
 * Prints "name live stored templated": bytes from the stack pointer up; bytes stored without templates; and with them, the median
 * of many connections that have answered a few requests.
 */
#include "coro/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS = 200, ROUNDS = 8 };

struct conn {
    struct coro co;
    struct coro_sched *sched;
    uint64_t ready, replies;
    char reply[64];
};

static _Thread_local char scratch[2048];

/* As the receiving calls of the application layer are: the fast path here, the slow one is the tail call. */
static __attribute__((noinline)) int64_t receive(struct conn *c, void *buffer, size_t len)
{
    if (c->ready > 0) {
        memset(buffer, 'x', len < 16 ? len : 16);
        c->ready--;
        return 16;
    }
    return coro_wait_value((uint64_t)(uintptr_t)buffer | (uint64_t)len << 48);
}

static __attribute__((noinline)) struct coro_result receive_view(struct conn *c)
{
    if (c->ready > 0) {
        c->ready--;
        return (struct coro_result){(uint64_t)(uintptr_t)c->reply, 16};
    }
    return coro_wait(0);
}

static __attribute__((noinline)) void reply(struct conn *c, const void *data, size_t len)
{
    memcpy(c->reply, data, len < sizeof c->reply ? len : sizeof c->reply);
    c->replies++;
}

static void echo_by_copy(void *owner)
{
    struct conn *c = owner;
    char *buffer = scratch;
    int64_t n;

    while ((n = receive(c, buffer, sizeof scratch)) > 0)
        reply(c, "HTTP/1.1 200 OK\r\n\r\n", 19);
}

static void echo_by_view(void *owner)
{
    struct conn *c = owner;
    struct coro_result view;

    while ((view = receive_view(c)).second > 0)
        reply(c, (const void *)(uintptr_t)view.first, view.second);
}

struct request {
    uint32_t method, path_len;
};

static __attribute__((noinline)) int read_request(struct conn *c, struct request *request)
{
    struct coro_result view = receive_view(c);

    if (view.second == 0)
        return 0;
    request->method = *(const char *)(uintptr_t)view.first == 'G';
    request->path_len = (uint32_t)view.second;
    return 1;
}

static __attribute__((noinline)) int serve_one(struct conn *c)
{
    struct request request;

    if (!read_request(c, &request))
        return 0;
    reply(c, request.method ? "HTTP/1.1 200 OK\r\n\r\n" : "HTTP/1.1 400\r\n\r\n\r\n\r\n", 19);
    return 1;
}

static void http(void *owner)
{
    struct conn *c = owner;
    uint64_t served = 0;

    while (serve_one(c))
        served++;
    c->replies += served;
}

static void array_in_the_frame(void *owner)
{
    struct conn *c = owner;
    char block[512];
    int64_t n;

    while ((n = receive(c, block, sizeof block)) > 0)
        reply(c, block, (size_t)n);
}

static const struct {
    const char *name;
    void (*run)(void *owner);
} handlers[] = {
    {"echo_by_copy", echo_by_copy},
    {"echo_by_view", echo_by_view},
    {"http", http},
    {"array_in_the_frame", array_in_the_frame},
};

static void serve(struct coro_sched *s, struct conn *conns, void (*run)(void *))
{
    for (int i = 0; i < CONNECTIONS; i++) {
        conns[i].sched = s;
        coro_start(s, &conns[i].co, run, &conns[i]);
    }
    for (int i = 0; i < CONNECTIONS * ROUNDS; i++) {
        struct conn *c = &conns[i * 7919 % CONNECTIONS];

        coro_load(s, &c->co, c);
        coro_run(s,
                 (struct coro_result){run == echo_by_copy || run == array_in_the_frame ? 16 : (uintptr_t)c->reply, 16});
    }
}

static int by_size(const void *a, const void *b)
{
    return (*(const size_t *)a > *(const size_t *)b) - (*(const size_t *)a < *(const size_t *)b);
}

static size_t median_stored(struct coro_sched *s, struct conn *conns)
{
    size_t sizes[CONNECTIONS];

    for (int i = 0; i < CONNECTIONS; i++)
        sizes[i] = coro_stored_bytes(s, &conns[i].co);
    qsort(sizes, CONNECTIONS, sizeof sizes[0], by_size);
    return sizes[CONNECTIONS / 2];
}

int main(void)
{
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++) {
        size_t live = 0, stored[2];

        for (int templates = 0; templates < 2; templates++) {
            struct coro_options options = {
                .templates = templates, .owner_bytes = sizeof(struct conn), .image_bytes_max = 4 << 20};
            struct conn *conns = calloc(CONNECTIONS, sizeof *conns);
            struct coro_sched *s;

            if (conns == NULL || coro_sched_new(&options, &s) != 0)
                return 1;
            serve(s, conns, handlers[i].run);
            live = coro_live_bytes(s, &conns[0].co);
            stored[templates] = median_stored(s, conns);
            coro_sched_free(s);
            free(conns);
        }
        printf("%s %zu %zu %zu\n", handlers[i].name, live, stored[0], stored[1]);
    }
    return 0;
}
