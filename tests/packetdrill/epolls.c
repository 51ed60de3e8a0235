/*
 * epolls.c: epoll over our sockets, level- and edge-triggered, once or again and again.
 */
#include "tests/packetdrill/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { EPOLLS_MAX = 8 };

static struct epoll epolls[EPOLLS_MAX]; /* fd 0: free */

uint64_t sockets_deadline(int timeout_ms)
{
    return timeout_ms < 0 ? HOST_NEVER : host.now_us + (uint64_t)timeout_ms * 1000;
}

struct epoll *epoll_find(int fd)
{
    for (int i = 0; i < EPOLLS_MAX; i++)
        if (fd > 0 && epolls[i].fd == fd)
            return &epolls[i];
    return NULL;
}

int epoll_open(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct epoll *ep = epoll_find(fd);

    for (int i = 0; i < EPOLLS_MAX && ep == NULL; i++)
        if (epolls[i].fd == 0)
            ep = &epolls[i];
    if (ep == NULL || fd < 0)
        return -EMFILE;
    *ep = (struct epoll){.fd = fd};
    return fd;
}

void epoll_shut(struct epoll *ep)
{
    close(ep->fd);
    ep->fd = 0;
}

void epolls_reset(void)
{
    memset(epolls, 0, sizeof epolls);
}

int epoll_change(struct epoll *ep, int op, int fd, const struct epoll_event *event)
{
    struct watched *w = ep->watched;
    struct watched *end = w + ep->count;

    if (sock_find(fd) == NULL)
        return -EBADF;
    while (w < end && w->fd != fd)
        w++;
    if ((op == EPOLL_CTL_ADD) == (w < end))
        return w < end ? -EEXIST : -ENOENT;
    if (op == EPOLL_CTL_DEL) {
        memmove(w, w + 1, (size_t)(end - w - 1) * sizeof *w);
        ep->count--;
        return 0;
    }
    if (op == EPOLL_CTL_ADD && ep->count++ == WATCHED_MAX)
        return ep->count--, -ENOSPC;
    *w = (struct watched){fd, event->events, sock_find(fd)->news - 1, event->data.u64};
    return 0;
}

static uint32_t ready(const struct watched *w)
{
    const struct sock *k = sock_find(w->fd);
    uint32_t asked = w->events & ~(uint32_t)(EPOLLET | EPOLLONESHOT);

    if (k == NULL || asked == 0 || ((w->events & EPOLLET) && w->news_seen == k->news))
        return 0;
    return sock_revents(k, asked);
}

static bool any_ready(void *arg)
{
    const struct epoll *ep = arg;

    for (uint32_t i = 0; i < ep->count; i++)
        if (ready(&ep->watched[i]) != 0)
            return true;
    return false;
}

int epoll_collect(struct epoll *ep, struct epoll_event *events, int max, int timeout_ms)
{
    int count = 0;

    if (max <= 0)
        return -EINVAL;
    if (!any_ready(ep) && timeout_ms != 0)
        host_wait(&host, any_ready, ep, sockets_deadline(timeout_ms));
    for (uint32_t i = 0; i < ep->count && count < max; i++) {
        struct watched *w = &ep->watched[i];
        uint32_t got = ready(w);

        if (got == 0)
            continue;
        events[count].events = got;
        events[count++].data.u64 = w->data;
        w->news_seen = sock_find(w->fd)->news;
        if (w->events & EPOLLONESHOT)
            w->events = 0;
    }
    return count;
}
