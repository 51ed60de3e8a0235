/*
 * many_clients.c: many kernel connections at once, each echoing, driven line by line from a test.
 *
 *   many_clients ADDRESS PORT COUNT
 *
 * Commands on standard input, one answer line each, as a JSON object {"ok": N, "bad": N}; ok and bad count connections:
 *   open          connects all, at most OPENING_MAX at a time              bad: could not connect
 *   echo ROUND    sends a message of its own on each, all at once,
 *                 and waits for the same bytes                             bad: other bytes, closed or silent
 *   await-reset   waits until the peer has reset each                      bad: still open, or ended in another way
 *   close         shuts down each, waits for the peer's FIN, closes        bad: reset or silent
 * A command gives up after PATIENCE_MS without any progress.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OPENING_MAX = 256, MESSAGE_BYTES = 64, PATIENCE_MS = 30000, EVENTS = 512 };

enum stage { IDLE, CONNECTING, BUSY, DONE, FAILED };

struct client {
    int fd;
    enum stage stage;
    uint32_t got;
    char expected[MESSAGE_BYTES];
};

struct crowd {
    int epoll;
    uint32_t count;
    uint32_t pending;
    struct sockaddr_in server;
    struct client *clients;
};

static void settle(struct crowd *w, struct client *c, bool well)
{
    c->stage = well ? DONE : FAILED;
    w->pending--;
}

static void watch(struct crowd *w, struct client *c, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    if (epoll_ctl(w->epoll, how, c->fd, &event) < 0)
        perror("many_clients: epoll_ctl");
}

static void begin_connect(struct crowd *w, struct client *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->stage = CONNECTING;
    w->pending++;
    if (c->fd < 0) {
        settle(w, c, false);
        return;
    }
    watch(w, c, EPOLLOUT, EPOLL_CTL_ADD);
    if (connect(c->fd, (struct sockaddr *)&w->server, sizeof(w->server)) < 0 && errno != EINPROGRESS)
        settle(w, c, false);
}

static void on_connect(struct crowd *w, struct client *c)
{
    int error = 0;
    socklen_t size = sizeof(error);

    if (c->stage != CONNECTING)
        return;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    settle(w, c, error == 0);
    watch(w, c, EPOLLET, EPOLL_CTL_MOD);
}

static void on_echo(struct crowd *w, struct client *c)
{
    char bytes[MESSAGE_BYTES];
    ssize_t n;

    while (c->stage == BUSY && (n = recv(c->fd, bytes, MESSAGE_BYTES - c->got, 0)) != -1) {
        if (n == 0 || memcmp(bytes, c->expected + c->got, (size_t)n) != 0)
            settle(w, c, false);
        else if ((c->got += (uint32_t)n) == MESSAGE_BYTES)
            settle(w, c, true);
    }
    if (c->stage == BUSY && errno != EAGAIN)
        settle(w, c, false);
}

static void on_reset(struct crowd *w, struct client *c)
{
    char byte;
    ssize_t n;

    if (c->stage != BUSY || ((n = recv(c->fd, &byte, 1, 0)) < 0 && errno == EAGAIN))
        return;
    settle(w, c, n < 0 && errno == ECONNRESET);
    watch(w, c, EPOLLET, EPOLL_CTL_MOD);
}

static void on_close(struct crowd *w, struct client *c)
{
    char byte;
    ssize_t n;

    if (c->stage != BUSY || ((n = recv(c->fd, &byte, 1, 0)) < 0 && errno == EAGAIN))
        return;
    settle(w, c, n == 0);
    close(c->fd);
    c->fd = -1;
}

/* Handles events until nothing is pending, or for one turn when there is still more to begin. */
static bool turn(struct crowd *w, void (*handle)(struct crowd *, struct client *), uint32_t until)
{
    struct epoll_event events[EVENTS];

    while (w->pending > until) {
        int n = epoll_wait(w->epoll, events, EVENTS, PATIENCE_MS);

        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        for (int i = 0; i < n; i++)
            handle(w, events[i].data.ptr);
    }
    return true;
}

static void report(const struct crowd *w)
{
    uint32_t ok = 0;

    for (uint32_t i = 0; i < w->count; i++)
        ok += w->clients[i].stage == DONE;
    printf("{\"ok\": %u, \"bad\": %u}\n", ok, w->count - ok);
    fflush(stdout);
}

static void open_all(struct crowd *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        begin_connect(w, &w->clients[i]);
        if (!turn(w, on_connect, OPENING_MAX))
            return;
    }
    turn(w, on_connect, 0);
}

static void echo_all(struct crowd *w, unsigned long round)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct client *c = &w->clients[i];

        if (c->stage == FAILED || c->fd < 0)
            continue;
        memset(c->expected, '.', MESSAGE_BYTES);
        snprintf(c->expected, MESSAGE_BYTES, "round %lu of client %d/%u", round, (int)getpid(), i);
        c->got = 0;
        c->stage = BUSY;
        w->pending++;
        watch(w, c, EPOLLIN, EPOLL_CTL_MOD);
        if (send(c->fd, c->expected, MESSAGE_BYTES, MSG_NOSIGNAL) != MESSAGE_BYTES)
            settle(w, c, false);
    }
    turn(w, on_echo, 0);
}

static void await_all(struct crowd *w, void (*handle)(struct crowd *, struct client *), bool shut)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct client *c = &w->clients[i];

        if (c->fd < 0)
            continue;
        c->stage = BUSY;
        w->pending++;
        watch(w, c, EPOLLIN | EPOLLRDHUP, EPOLL_CTL_MOD);
        if (shut)
            shutdown(c->fd, SHUT_WR);
    }
    turn(w, handle, 0);
}

static bool obey(struct crowd *w, const char *line)
{
    w->pending = 0;
    if (strncmp(line, "open", 4) == 0)
        open_all(w);
    else if (strncmp(line, "echo", 4) == 0)
        echo_all(w, strtoul(line + 4, NULL, 10));
    else if (strncmp(line, "await-reset", 11) == 0)
        await_all(w, on_reset, false);
    else if (strncmp(line, "close", 5) == 0)
        await_all(w, on_close, true);
    else
        return false;
    report(w);
    return true;
}

int main(int argc, char **argv)
{
    struct crowd w = {.epoll = epoll_create1(EPOLL_CLOEXEC)};
    struct rlimit files;
    char line[128];

    if (argc != 4 || inet_pton(AF_INET, argv[1], &w.server.sin_addr) != 1) {
        fprintf(stderr, "usage: many_clients ADDRESS PORT COUNT\n");
        return 2;
    }
    w.server.sin_family = AF_INET;
    w.server.sin_port = htons((uint16_t)atoi(argv[2]));
    w.count = (uint32_t)strtoul(argv[3], NULL, 10);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    w.clients = calloc(w.count, sizeof(*w.clients));
    if (w.clients == NULL)
        return 1;
    for (uint32_t i = 0; i < w.count; i++)
        w.clients[i].fd = -1;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (!obey(&w, line)) {
            fprintf(stderr, "many_clients: no such command: %s", line);
            return 2;
        }
    }
    return 0;
}
