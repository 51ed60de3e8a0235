/* handlers.c: servers and clients of the C API in one process, two workers on a wire in memory, in virtual time. */
#include "app/env_loop.h"
#include "app/worker.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOG_BYTES = 1 << 16, BIG = 600000 };

struct world {
    struct janus_loop *loop;
    struct janus_worker *server, *client;
    struct service_data {
        struct world *w;
        int refuse;
    } data[16];
    uint32_t services;
    char log[LOG_BYTES];
    size_t log_len;
    char *big;
    int big_fd;
};

static struct world *the_world;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    struct world *w = the_world;
    va_list ap;

    va_start(ap, format);
    w->log_len += (size_t)vsnprintf(w->log + w->log_len, LOG_BYTES - w->log_len, format, ap);
    va_end(ap);
    w->log[w->log_len++] = '\n';
    w->log[w->log_len] = '\0';
}

/* --- servers --- */

static void echo_view(struct janus_conn *c)
{
    struct janus_view v;

    while ((v = janus_recv_view(c)).len > 0)
        janus_send(c, v.data, (size_t)v.len);
}

static void echo_copy(struct janus_conn *c)
{
    char *buffer = janus_scratch();
    ssize_t n;

    while ((n = janus_recv(c, buffer, 2048)) > 0)
        janus_send(c, buffer, (size_t)n);
}

static void echo_stack(struct janus_conn *c)
{
    char buffer[64];
    ssize_t n;

    while ((n = janus_recv(c, buffer, sizeof buffer)) > 0)
        janus_send(c, buffer, (size_t)n);
    say("echo_stack ends with %zd", n);
}

static void greeter(struct janus_conn *c)
{
    char name[JANUS_NAME_BYTES], text[128];
    int n = snprintf(text, sizeof text, "hello %s", janus_peer_name(c, name, sizeof name));

    janus_send(c, text, (size_t)n);
}

static void records(struct janus_conn *c)
{
    char record[10];
    ssize_t n;

    while ((n = janus_recv_all(c, record, sizeof record)) == sizeof record)
        say("record %.10s, %zu more", record, janus_readable(c));
    say("at the end %zd", n);
}

static void impatient(struct janus_conn *c)
{
    char buffer[16];

    janus_deadline(500);
    while (janus_recv(c, buffer, sizeof buffer) > 0)
        janus_deadline(500);
    say("recv again: %zd, sleep: %d", janus_recv(c, buffer, sizeof buffer), janus_sleep(10));
    janus_deadline(0);
    say("sleep without: %d", janus_sleep(20));
    janus_send(c, "late", 4);
}

static void sleeper(struct janus_conn *c)
{
    uint64_t begin = janus_now_us();

    janus_deadline(100);
    for (int i = 0; i < 2; i++) {
        int slept = janus_sleep(60);

        say("slept: %d after %llu", slept, (unsigned long long)(janus_now_us() - begin) / 1000);
    }
    janus_close(c);
    say("after close: %zd %zd %d", janus_recv(c, janus_scratch(), 10), janus_send(c, "x", 1), janus_shutdown(c));
    janus_deadline(0);
    say("sleep: %d", janus_sleep(50));
}

static void big_sender(struct janus_conn *c)
{
    ssize_t n = janus_send(c, the_world->big, BIG);

    say("sent %zd, acknowledged %d", n, janus_sent(c));
}

static void done(void *argument, int status)
{
    say("done %s: %d", (const char *)argument, status);
}

static void owned_sender(struct janus_conn *c)
{
    int a = janus_send_owned(c, the_world->big, BIG / 2, done, "first");
    int b = janus_send_owned(c, the_world->big + BIG / 2, BIG / 2 - 5, done, "second");

    say("owned %d %d, tail %zd", a, b, janus_send(c, the_world->big + BIG - 5, 5));
}

static void owned_and_gone(struct janus_conn *c)
{
    say("owned %d", janus_send_owned(c, the_world->big, BIG, done, "all"));
}

static void file_sender(struct janus_conn *c)
{
    ssize_t n = janus_send_file(c, the_world->big_fd, 0, BIG);

    say("file %zd, beyond %zd, bad %zd", n, janus_send_file(c, the_world->big_fd, BIG, 10),
        janus_send_file(c, -1, 0, 10));
}

static void aborter(struct janus_conn *c)
{
    janus_recv(c, janus_scratch(), 10);
    janus_abort(c);
}

static void deep(struct janus_conn *c)
{
    volatile char block[100000];

    block[0] = block[sizeof block - 1] = 1;
    janus_recv(c, janus_scratch(), 10);
    janus_recv(c, janus_scratch(), 10);
    block[0] += block[sizeof block - 1];
}

/* The other direction of a proxy, in the upstream's own handler. */
static void pump_back(struct janus_conn *up)
{
    struct janus_conn *down = janus_user(up);
    struct janus_view v;

    while ((v = janus_recv_view(up)).len > 0)
        if (janus_send(down, v.data, (size_t)v.len) < 0)
            break;
    janus_shutdown(down);
}

static void proxy(struct janus_conn *c)
{
    struct janus_view v;
    int error;
    struct janus_conn *up = janus_connect("192.0.2.2", 9, &error);

    if (up == NULL) {
        say("proxy: %d", error);
        return;
    }
    janus_set_user(up, c);
    janus_start(up, pump_back);
    while ((v = janus_recv_view(c)).len > 0)
        if (janus_send(up, v.data, (size_t)v.len) < 0)
            break;
    janus_shutdown(up);
    if (v.len == 0)
        janus_join(up);
    janus_close(up);
}

static int hook(struct janus_conn *c, void *data)
{
    struct service_data *d = data;

    janus_set_user(c, d);
    return d->refuse;
}

/* --- clients: argument is a number --- */

static struct janus_conn *reach(uint16_t port)
{
    int error = -1;
    struct janus_conn *c = janus_connect("192.0.2.1", port, &error);

    if (c == NULL)
        say("connect: %d", error);
    return c;
}

static void talk(void *argument)
{
    struct janus_conn *c = reach(7);
    char text[32], back[32] = "";
    int n = snprintf(text, sizeof text, "number %u", (unsigned)(uintptr_t)argument);

    if (c == NULL)
        return;
    janus_send(c, text, (size_t)n);
    n = (int)janus_recv_all(c, back, (size_t)n);
    say("%s (%d)", back, n);
    janus_shutdown(c);
    say("end %zd", janus_recv(c, back, sizeof back));
    janus_close(c);
}

/* Connects, sends one byte if told so, and keeps the connection for argument ms. */
static void hold(void *argument)
{
    struct janus_conn *c = reach(7);
    uint32_t ms = (uint32_t)(uintptr_t)argument;

    if (c == NULL)
        return;
    if (ms & 1) {
        janus_send(c, "x", 1);
        janus_recv_all(c, janus_scratch(), 1);
    }
    janus_sleep(ms);
    janus_close(c);
}

static void listen_only(void *argument)
{
    struct janus_conn *c = reach(7);
    size_t total = 0;
    bool same = true;
    struct janus_view v;

    (void)argument;
    if (c == NULL)
        return;
    while ((v = janus_recv_view(c)).len > 0) {
        if (total + (size_t)v.len <= BIG)
            same = same && memcmp(the_world->big + total, v.data, (size_t)v.len) == 0;
        total += (size_t)v.len;
    }
    say("got %zu, %s, end %zd", total, same ? "same" : "other", v.len);
    janus_close(c);
}

static void one_line(void *argument)
{
    struct janus_conn *c = reach(7);
    char line[128];
    ssize_t n = c == NULL ? 0 : janus_recv_all(c, line, sizeof line - 1);

    (void)argument;
    if (c == NULL)
        return;
    say("line '%.*s'", n > 0 ? (int)n : 0, line);
    say("set %d %d %d %d", janus_set_dscp(c, 46), janus_set_dscp(c, 64), janus_set_ttl(c, 255), janus_set_ttl(c, 256));
    janus_close(c);
}

static void say_info(const struct janus_conn *c)
{
    struct janus_info i;

    janus_get_info(c, &i);
    say("smss %u flight %u unread %u timeouts %u again %u stalled %u %s", i.smss_bytes, i.flight_bytes, i.unread_bytes,
        i.timeouts, i.retransmits, i.stalled,
        i.stalled_ms == 0      ? "never"
        : i.stalled_ms >= 1000 ? "for long"
                               : "too short");
}

/* Asks before, while and after the server is deaf, which begins within argument ms and lasts less than five seconds. */
static void ask_in_trouble(void *argument)
{
    struct janus_conn *c = reach(7);

    if (c == NULL)
        return;
    janus_send(c, "x", 1);
    janus_recv_all(c, janus_scratch(), 1);
    say_info(c);
    janus_sleep((uint32_t)(uintptr_t)argument);
    janus_send(c, "y", 1);
    janus_sleep(4000);
    say_info(c);
    janus_recv_all(c, janus_scratch(), 1);
    say_info(c);
    janus_close(c);
}

static void poke_and_wait(void *argument)
{
    struct janus_conn *c = reach(7);
    char text[200];
    ssize_t n;

    if (c == NULL)
        return;
    memset(text, 'r', sizeof text);
    janus_send(c, text, (size_t)(uintptr_t)argument);
    n = janus_recv(c, text, sizeof text);
    say("poked: %zd", n);
    janus_close(c);
}

static void never_reads(void *argument)
{
    struct janus_conn *c = reach(7);

    if (c == NULL)
        return;
    janus_send(c, "x", 1);
    janus_sleep((uint32_t)(uintptr_t)argument);
    janus_abort(c);
}

static void reader(struct janus_conn *c)
{
    ssize_t n = janus_recv(c, janus_scratch(), 10);

    say("reader: %zd, then %zd and %d", n, janus_send(c, "x", 1), janus_sleep(5));
}

static void third(void *c)
{
    say("third: %zd", janus_recv(c, janus_scratch(), 10));
}

/* One connection, three coroutines; its opener closes it while its own handler waits. */
static void crowd(void *argument)
{
    struct janus_conn *c = reach(7);

    (void)argument;
    say("start %d", janus_start(c, reader));
    say("again %d", janus_start(c, reader));
    janus_spawn(NULL, third, c);
    janus_deadline(20);
    say("opener: %zd", janus_recv(c, janus_scratch(), 10));
    janus_deadline(0);
    janus_close(c);
    say("closed");
}

static void takes_urgent(struct janus_conn *c)
{
    struct janus_info i;
    ssize_t n = janus_recv_all(c, janus_scratch(), 2);

    janus_get_info(c, &i);
    say("took %zd, urgent %u", n, i.urgent_bytes);
    n = janus_recv_all(c, janus_scratch(), 3);
    janus_get_info(c, &i);
    say("took %zd, urgent %u", n, i.urgent_bytes);
    for (n = 0; janus_recv(c, janus_scratch(), 1000) > 0;)
        n++;
}

static void sends_urgent(void *argument)
{
    struct janus_conn *c = reach(7);

    (void)argument;
    if (c == NULL)
        return;
    janus_send(c, "a", 1);
    say("sent %zd", janus_send_urgent(c, "stop", 4));
    say("sent %zd", janus_send_urgent(c, the_world->big, BIG)); /* more than there is room for */
    janus_close(c);
}

static const struct {
    const char *name;
    janus_handler *handler;
} servers[] = {
    {"echo_view", echo_view},
    {"echo_copy", echo_copy},
    {"echo_stack", echo_stack},
    {"greeter", greeter},
    {"records", records},
    {"impatient", impatient},
    {"sleeper", sleeper},
    {"big_sender", big_sender},
    {"owned_sender", owned_sender},
    {"owned_and_gone", owned_and_gone},
    {"file_sender", file_sender},
    {"aborter", aborter},
    {"deep", deep},
    {"proxy", proxy},
    {"takes_urgent", takes_urgent},
};

static const struct {
    const char *name;
    void (*run)(void *argument);
} clients[] = {
    {"talk", talk},
    {"hold", hold},
    {"listen_only", listen_only},
    {"one_line", one_line},
    {"poke_and_wait", poke_and_wait},
    {"ask_in_trouble", ask_in_trouble},
    {"sends_urgent", sends_urgent},
    {"never_reads", never_reads},
    {"crowd", crowd},
};

static struct ip_addr v4(uint8_t last)
{
    return ip_addr_from_ipv4((uint8_t[]){192, 0, 2, last});
}

struct world *world_new(uint8_t stacks, uint32_t rows, uint32_t slots, uint32_t snd_buf)
{
    struct world *w = calloc(1, sizeof *w);
    struct janus_loop_options options = {.rows = rows,
                                         .rx_slots = slots,
                                         .tx_slots = slots,
                                         .mtu = 1500,
                                         .virtual_time = true,
                                         .seed = 1,
                                         .addresses = {v4(1), v4(2)},
                                         .snd_buf_bytes = snd_buf,
                                         .msl_ms = 10};
    struct janus_error error;

    w->loop = janus_loop_open(&options, &error);
    if (w->loop == NULL)
        abort();
    w->server = worker_on(janus_loop_thread(w->loop, 0), stacks, &error);
    w->client = worker_on(janus_loop_thread(w->loop, 1), stacks, &error);
    w->big = malloc(BIG);
    for (int i = 0; i < BIG; i++)
        w->big[i] = (char)(i * 7 + i / 251);
    w->big_fd = memfd_create("big", 0);
    if (w->server == NULL || w->client == NULL || write(w->big_fd, w->big, BIG) != BIG)
        abort();
    the_world = w;
    return w;
}

void world_free(struct world *w)
{
    janus_detach(w->server);
    janus_detach(w->client);
    janus_loop_close(w->loop);
    close(w->big_fd);
    free(w->big);
    free(w);
}

int world_serve(struct world *w, const char *handler, uint16_t port, uint16_t flags, int refuse)
{
    struct service_data *d = &w->data[w->services++];
    struct janus_service service = {.port = port, .flags = flags, .accept = hook, .data = d};
    struct janus_error error;

    *d = (struct service_data){w, refuse};
    for (size_t i = 0; i < sizeof servers / sizeof servers[0]; i++) {
        if (strcmp(servers[i].name, handler) == 0)
            service.handler = servers[i].handler;
    }
    return janus_listen(port == 9 ? w->client : w->server, &service, &error);
}

int world_unserve(struct world *w, uint16_t port)
{
    struct janus_error error;

    return janus_unlisten(w->server, NULL, port, &error);
}

int world_client(struct world *w, const char *client, uint32_t number)
{
    for (size_t i = 0; i < sizeof clients / sizeof clients[0]; i++) {
        if (strcmp(clients[i].name, client) == 0)
            return janus_spawn(w->client, clients[i].run, (void *)(uintptr_t)number);
    }
    return -ENOENT;
}

void world_run(struct world *w, uint32_t ms)
{
    for (uint32_t i = 0; i <= ms; i++) {
        for (int quiet = 0; quiet < 2;)
            quiet = janus_turn(w->server, 0) + janus_turn(w->client, 0) == 0 ? quiet + 1 : 0;
        janus_loop_advance(w->loop, 1000);
    }
}

void world_run_deaf(struct world *w, uint32_t ms)
{
    for (uint32_t i = 0; i <= ms; i++) {
        while (janus_turn(w->client, 0) != 0)
            ;
        janus_loop_advance(w->loop, 1000);
    }
}

void world_cancel(struct world *w)
{
    handlers_cancel(w->server->handlers);
}

const char *world_log(struct world *w)
{
    return w->log;
}

static struct janus_counts counts(struct world *w, int client)
{
    struct janus_counts c;

    janus_get_counts(client ? w->client : w->server, &c);
    return c;
}

uint64_t world_live(struct world *w, int client)
{
    return counts(w, client).handlers;
}

uint64_t world_conns(struct world *w, int client)
{
    return counts(w, client).connections;
}

uint64_t world_stored(struct world *w)
{
    return counts(w, 0).stored_bytes;
}

uint64_t world_templated(struct world *w)
{
    return counts(w, 0).templated;
}

uint64_t world_accepted(struct world *w)
{
    return counts(w, 0).accepted;
}

static struct tcp_usage usage(struct world *w)
{
    struct janus_stats stats;

    thread_get_stats(w->server->thread, &stats);
    return stats.usage;
}

uint32_t world_extensions(struct world *w)
{
    return usage(w).extensions;
}

uint32_t world_rx_held(struct world *w)
{
    return usage(w).rx_slots_held;
}

int call_outside(struct world *w)
{
    (void)w;
    return janus_connect("192.0.2.1", 7, NULL) == NULL ? janus_sleep(1) : 0;
}

bool handlers_need_separate_stacks(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return true;
#else
    return false;
#endif
}
