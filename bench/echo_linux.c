/*
 * echo_linux.c: an echo server on kernel sockets as good as one thread of epoll is: the baseline of the benchmarks of connections.
 *
 *   echo_linux PORT CPU
 *
 * SO_REUSEPORT, pinned.  A new connection is read at once, because its request is often there already, and goes into epoll only if
 * it is not through.
 */
#include "bench/listen.h"
#include "bench/stamp.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, BUFFER = 65536 };

/* Echoes what is there.  False: the connection has ended and is closed. */
static bool serve(int fd)
{
    static char bytes[BUFFER];
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);

    if (n < 0 && errno == EAGAIN)
        return true;
    if (n > 0 && stamp_is_wanted(bytes, (size_t)n))
        stamp(bytes);
    if (n > 0 && send(fd, bytes, (size_t)n, MSG_NOSIGNAL) == n)
        return true;
    close(fd);
    return false;
}

static void accept_all(int listener, int epoll)
{
    int fd, one = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (serve(fd))
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files = {0};
    cpu_set_t cpus;

    if (argc != 3) {
        fprintf(stderr, "usage: echo_linux PORT CPU\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    CPU_ZERO(&cpus);
    CPU_SET((unsigned)atoi(argv[2]), &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    int listener = listen_on((uint16_t)atoi(argv[1])), epoll = epoll_create1(0);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener, epoll);
            else
                (void)serve(events[i].data.fd);
        }
    }
}
