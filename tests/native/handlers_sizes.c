/* What waiting handlers of the real API store, as released: "NAME connections handlers live_bytes stored_bytes" a line. */
#include "app/env_loop.h"
#include "app/worker.h"
#include "coro/run.h"

#include <stdio.h>
#include <stdlib.h>

enum { CONNS = 300 };

static void by_copy(struct janus_conn *c)
{
    char *buffer = janus_scratch();
    ssize_t n;

    while ((n = janus_recv(c, buffer, 2048)) > 0)
        janus_send(c, buffer, (size_t)n);
}

static void by_view(struct janus_conn *c)
{
    struct janus_view v;

    while ((v = janus_recv_view(c)).len > 0)
        janus_send(c, v.data, (size_t)v.len);
}

static void client(void *argument)
{
    struct janus_conn *c = janus_connect("192.0.2.1", (uint16_t)(uintptr_t)argument, NULL);

    for (int round = 0; c != NULL && round < 4; round++) {
        janus_send(c, "request", 7);
        janus_recv_all(c, janus_scratch(), 7);
    }
    janus_sleep(1000000);
}

static void turn(struct janus_loop *loop, struct janus_worker *server, struct janus_worker *clients)
{
    for (int i = 0; i < 2000; i++) {
        janus_turn(server, 0);
        janus_turn(clients, 0);
        janus_loop_advance(loop, 10);
    }
}

static void measure(const char *name, janus_handler *handler, bool templates)
{
    const struct janus_loop_options options = {
        .rows = 1024,
        .rx_slots = 4096,
        .tx_slots = 4096,
        .mtu = 1500,
        .virtual_time = true,
        .seed = 1,
        .addresses = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}},
                      {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 2}}}};
    const struct janus_service service = {.port = 7, .handler = handler};
    struct janus_loop *loop = janus_loop_open(&options, NULL);
    struct janus_worker *server = worker_on(janus_loop_thread(loop, 0), JANUS_STACKS_SHARED, NULL);
    struct janus_worker *clients = worker_on(janus_loop_thread(loop, 1), JANUS_STACKS_SHARED, NULL);
    struct coro_templates *kept = server->handlers->sched->templates;
    struct coro_stats stats;

    if (!templates)
        server->handlers->sched->templates = NULL;
    if (janus_listen(server, &service, NULL) < 0)
        abort();
    for (int i = 0; i < CONNS; i++)
        janus_spawn(clients, client, (void *)7);
    turn(loop, server, clients);
    coro_stats(server->handlers->sched, &stats);
    printf("%s%s %llu %zu %zu\n", name, templates ? "_by_template" : "", (unsigned long long)stats.live,
           coro_live_bytes(server->handlers->sched, &server->handlers->rows[CONNS - 1].co),
           (size_t)(stats.image_bytes / stats.live));
    server->handlers->sched->templates = kept;
    janus_detach(server);
    janus_detach(clients);
    janus_loop_close(loop);
}

int main(void)
{
    measure("copy", by_copy, false);
    measure("copy", by_copy, true);
    measure("view", by_view, false);
    measure("view", by_view, true);
    return 0;
}
