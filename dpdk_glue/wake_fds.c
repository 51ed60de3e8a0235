/*
 * wake_fds.c: found by their address family.
 */
#include "dpdk_glue/wake_fds.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static bool is_packet_socket(int fd)
{
    int domain = 0;
    socklen_t len = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && (domain == AF_PACKET || domain == AF_XDP);
}

void wake_fds_list(struct wake_fds *out)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *entry;

    out->count = 0;
    while (dir != NULL && (entry = readdir(dir)) != NULL && out->count < WAKE_FDS_MAX) {
        char *end;
        long fd = strtol(entry->d_name, &end, 10);
        if (*end == '\0' && end != entry->d_name && is_packet_socket((int)fd))
            out->fds[out->count++] = (int)fd;
    }
    if (dir != NULL)
        closedir(dir);
}

void wake_fds_subtract(struct wake_fds *after, const struct wake_fds *before)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < after->count; i++) {
        bool old = false;
        for (uint32_t k = 0; k < before->count; k++)
            old |= before->fds[k] == after->fds[i];
        if (!old)
            after->fds[kept++] = after->fds[i];
    }
    after->count = kept;
}

bool wake_fds_watch(const struct wake_fds *w, int epoll_fd)
{
    struct epoll_event arrived = {.events = EPOLLIN | EPOLLET};

    for (uint32_t i = 0; i < w->count; i++) {
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, w->fds[i], &arrived) != 0)
            return false;
    }
    return true;
}
