/*
 * echo_handed.c: an echo server on kernel sockets in two processes, the one with the sockets, the other with the program, both asleep
 * when nothing happens: what it costs to wake one after the other, for bench/programs/idle.py.
 *
 *   echo_handed PORT
 *
 *   client ── socket ──> front, in epoll ── socket pair ──> back, in poll: stamps, echoes
 *
 * As janusd wakes an application, and with as little done in between as can be.
 */
#include "bench/listen.h"
#include "bench/stamp.h"

#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 16, BYTES = 4096 };

struct message {
    int conn; /* as the front numbers it */
    char bytes[BYTES];
};

static void back(int pair)
{
    static struct message m;
    struct pollfd p = {pair, POLLIN, 0};

    for (;;) {
        ssize_t n;

        poll(&p, 1, -1);
        n = recv(pair, &m, sizeof m, MSG_DONTWAIT);
        if (n == 0) /* the front has ended */
            exit(0);
        if (n < (ssize_t)sizeof m.conn)
            continue;
        if (stamp_is_wanted(m.bytes, (size_t)n - sizeof m.conn))
            stamp(m.bytes);
        (void)!send(pair, &m, (size_t)n, 0);
    }
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void welcome(int epoll, int listener)
{
    int one = 1, fd = accept(listener, NULL, NULL);

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(epoll, fd);
}

static void from_back(int pair)
{
    static struct message m;
    ssize_t n = recv(pair, &m, sizeof m, MSG_DONTWAIT);

    if (n > (ssize_t)sizeof m.conn)
        (void)!send(m.conn, m.bytes, (size_t)n - sizeof m.conn, MSG_NOSIGNAL);
}

static void from_client(int conn, int pair)
{
    static struct message m;
    ssize_t n = recv(conn, m.bytes, sizeof m.bytes, MSG_DONTWAIT);

    m.conn = conn;
    if (n > 0)
        (void)!send(pair, &m, sizeof m.conn + (size_t)n, 0);
    else if (n == 0)
        close(conn);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    int pair[2], listener, epoll = epoll_create1(0);

    if (argc != 2 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0) {
        fprintf(stderr, "usage: echo_handed PORT\n");
        return 2;
    }
    if (fork() == 0) {
        close(pair[0]);
        back(pair[1]);
    }
    close(pair[1]);
    listener = listen_on((uint16_t)atoi(argv[1]));
    watch(epoll, listener);
    watch(epoll, pair[0]);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener)
                welcome(epoll, listener);
            else if (events[i].data.fd == pair[0])
                from_back(pair[0]);
            else
                from_client(events[i].data.fd, pair[0]);
        }
    }
}
