/*
 * listen.h: the listening socket of the echo servers of the kernel's.
 */
#ifndef BENCH_LISTEN_H
#define BENCH_LISTEN_H

#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BACKLOG = 65535 };

/* Without blocking, to be shared by servers of one port; ends the program if it cannot be had. */
static inline int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, BACKLOG) < 0) {
        perror(program_invocation_short_name);
        exit(1);
    }
    return fd;
}

#endif
