/*
 * load_client.c: a closed-loop load on kernel sockets, the same for every server that is measured.
 *
 *   load_client MODE ADDRESS PORT CONNECTIONS SECONDS [BYTES]
 *
 * MODE echo: each connection sends BYTES and waits for as many.  http: each sends a GET and waits for the whole answer, connection kept.
 * connect: one echo of BYTES per connection, then shutdown, FIN from the peer, and a new one.  One thread, epoll; the next
 * request leaves when the answer is complete.  After WARM_UP of the time the counters start.  Prints one JSON object:
 * operations, those of the warm-up included, seconds, errors, the client's own CPU seconds, and percentiles of the latency in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, BUFFER = 65536, BUCKETS = 64 * 32, ANSWER_MAX = 16384 };
#define WARM_UP 0.2

enum mode { ECHO, HTTP, CONNECT };

struct connection {
    int fd;
    bool closing;
    uint64_t began_ns;
    size_t expected; /* bytes of the answer; 0: not yet known (http) */
    size_t got;
    size_t head_len;
    char head[1024]; /* http: the answer until its length is known */
};

struct load {
    enum mode mode;
    int epoll;
    uint32_t count;
    size_t request_len;
    char *request;
    struct sockaddr_in server;
    struct connection *connections;
    bool counting;
    uint64_t operations, all_operations, errors;
    uint64_t buckets[BUCKETS];
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* A logarithmic histogram: 32 buckets to each power of two. */
static uint32_t bucket_of(uint64_t ns)
{
    uint32_t log2 = ns < 32 ? 5 : 63 - (uint32_t)__builtin_clzll(ns);

    return ns < 32 ? (uint32_t)ns : (log2 - 4) * 32 + (uint32_t)(ns >> (log2 - 5)) - 32;
}

static double bucket_us(uint32_t bucket)
{
    uint32_t log2 = bucket / 32 + 4;

    return (bucket < 32 ? bucket : (double)((uint64_t)(bucket % 32 + 32) << (log2 - 5))) / 1000.0;
}

static double percentile(const struct load *l, double part)
{
    uint64_t seen = 0;

    for (uint32_t b = 0; b < BUCKETS; b++) {
        seen += l->buckets[b];
        if (seen > 0 && (double)seen >= part * (double)l->operations)
            return bucket_us(b);
    }
    return 0;
}

static void open_connection(struct load *l, struct connection *c);

static void again(struct load *l, struct connection *c, bool failed)
{
    if (failed && l->counting)
        l->errors++;
    close(c->fd);
    open_connection(l, c);
}

static void ask(struct load *l, struct connection *c)
{
    c->got = c->head_len = 0;
    c->expected = l->mode == HTTP ? 0 : l->request_len;
    if (l->mode != CONNECT)
        c->began_ns = now_ns();
    if (send(c->fd, l->request, l->request_len, MSG_NOSIGNAL) != (ssize_t)l->request_len)
        again(l, c, true);
}

static void open_connection(struct load *l, struct connection *c)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    int one = 1;

    c->closing = false;
    c->began_ns = now_ns();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        perror("load_client: socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event);
    if (connect(c->fd, (struct sockaddr *)&l->server, sizeof(l->server)) < 0 && errno != EINPROGRESS) {
        perror("load_client: connect");
        exit(1);
    }
}

static void connected(struct load *l, struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int error = 0;
    socklen_t size = sizeof(error);

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
        again(l, c, true);
        return;
    }
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &event);
    ask(l, c);
}

/* Learns an HTTP answer's whole length when its head is complete.  False: it is none that can be read. */
static bool read_head(struct connection *c, const char *bytes, size_t n)
{
    size_t room = sizeof(c->head) - 1 - c->head_len, take = n < room ? n : room;
    const char *end, *field;

    memcpy(c->head + c->head_len, bytes, take);
    c->head[c->head_len += take] = '\0';
    end = strstr(c->head, "\r\n\r\n");
    if (end == NULL)
        return take == n;
    field = strcasestr(c->head, "\r\nContent-Length:");
    if (field == NULL || field > end || strncmp(c->head, "HTTP/1.1 200 ", 13) != 0)
        return false;
    c->expected = (size_t)(end - c->head) + 4 + strtoul(field + 17, NULL, 10);
    return c->expected < ANSWER_MAX;
}

static void complete(struct load *l, struct connection *c)
{
    l->all_operations++;
    if (l->counting) {
        l->operations++;
        l->buckets[bucket_of(now_ns() - c->began_ns)]++;
    }
    if (l->mode != CONNECT) {
        ask(l, c);
        return;
    }
    c->closing = true;
    shutdown(c->fd, SHUT_WR);
}

static void readable(struct load *l, struct connection *c)
{
    static char bytes[BUFFER];
    ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);

    if (n < 0 && errno == EAGAIN)
        return;
    if (c->closing && n == 0) {
        again(l, c, false);
        return;
    }
    if (n <= 0 || (c->expected == 0 && !read_head(c, bytes, (size_t)n))) {
        again(l, c, true);
        return;
    }
    c->got += (size_t)n;
    if (c->expected != 0 && c->got > c->expected)
        again(l, c, true);
    else if (c->expected != 0 && c->got == c->expected)
        complete(l, c);
}

static void run_until(struct load *l, uint64_t end_ns)
{
    struct epoll_event events[EVENTS];

    while (now_ns() < end_ns) {
        int n = epoll_wait(l->epoll, events, EVENTS, 50);

        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;

            if ((events[i].events & EPOLLOUT) != 0)
                connected(l, c);
            else
                readable(l, c);
        }
    }
}

static double cpu_seconds(void)
{
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static bool prepare(struct load *l, int argc, char **argv)
{
    size_t bytes = argc > 6 ? strtoul(argv[6], NULL, 10) : 64;

    if (argc < 6 || inet_pton(AF_INET, argv[2], &l->server.sin_addr) != 1 || bytes == 0)
        return false;
    l->mode = strcmp(argv[1], "http") == 0 ? HTTP : strcmp(argv[1], "connect") == 0 ? CONNECT : ECHO;
    l->server.sin_family = AF_INET;
    l->server.sin_port = htons((uint16_t)atoi(argv[3]));
    l->count = (uint32_t)strtoul(argv[4], NULL, 10);
    l->connections = calloc(l->count, sizeof(*l->connections));
    l->request = malloc(bytes + 256);
    if (l->connections == NULL || l->request == NULL)
        return false;
    memset(l->request, 'x', bytes);
    l->request_len = bytes;
    if (l->mode == HTTP)
        l->request_len = (size_t)sprintf(l->request, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", argv[2]);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    return true;
}

int main(int argc, char **argv)
{
    static struct load l;
    uint64_t start, length;
    double cpu;

    if (!prepare(&l, argc, argv)) {
        fprintf(stderr, "usage: load_client echo|http|connect ADDRESS PORT CONNECTIONS SECONDS [BYTES]\n");
        return 2;
    }
    for (uint32_t i = 0; i < l.count; i++)
        open_connection(&l, &l.connections[i]);
    length = (uint64_t)(atof(argv[5]) * 1e9);
    run_until(&l, now_ns() + (uint64_t)(WARM_UP * (double)length));
    l.counting = true;
    printf("counting\n");
    fflush(stdout);
    cpu = cpu_seconds();
    start = now_ns();
    run_until(&l, start + length);
    printf("{\"operations\": %llu, \"all_operations\": %llu, \"seconds\": %.6f, \"errors\": %llu, "
           "\"client_cpu_seconds\": %.6f, "
           "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           (unsigned long long)l.operations, (unsigned long long)l.all_operations, (double)(now_ns() - start) * 1e-9,
           (unsigned long long)l.errors, cpu_seconds() - cpu, percentile(&l, 0.5), percentile(&l, 0.99));
    return 0;
}
