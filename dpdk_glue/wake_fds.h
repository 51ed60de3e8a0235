/*
 * wake_fds.h: the sockets under a port, for an I/O thread to sleep on.
 *
 * af_packet and af_xdp poll sockets of the kernel and offer no interrupt, yet the kernel can say when one of them has a frame.  The
 * drivers keep their sockets to themselves, so they are found as those that appear while a port is being opened.
 */
#ifndef DPDK_GLUE_WAKE_FDS_H
#define DPDK_GLUE_WAKE_FDS_H

#include <stdbool.h>
#include <stdint.h>

enum { WAKE_FDS_MAX = 64 };

struct wake_fds {
    uint32_t count;
    int fds[WAKE_FDS_MAX];
};

/* The packet and XDP sockets of this process. */
void wake_fds_list(struct wake_fds *out);
/* Leaves in after what is not in before. */
void wake_fds_subtract(struct wake_fds *after, const struct wake_fds *before);
/* Lets each of them end a sleep on epoll_fd.  False: one does not. */
bool wake_fds_watch(const struct wake_fds *w, int epoll_fd);

#endif
