/*
 * sockets.h: sockets over the core's calls, with the results and errors that a kernel's have.
 *
 * A handle is a real descriptor (of /dev/null), because packetdrill's end of a run closes its sockets by the kernel's close().  Calls
 * return their result or a negative errno, and are called with the host's lock held.
 */
#ifndef PACKETDRILL_SOCKETS_H
#define PACKETDRILL_SOCKETS_H

#include "tests/packetdrill/host.h"

#include <sys/epoll.h>
#include <sys/socket.h>

enum { SOCKETS_MAX = 1024, ACCEPT_MAX = 256, KEPT_MAX = 16, WATCHED_MAX = 64 };

struct kept_option {
    int level, name, value;
};

struct sock {
    int fd;
    int domain;
    struct ip_addr addr; /* bound to; all zero: any */
    uint16_t port;
    bool nonblock, listening, connecting;
    bool error_told, shut_write, shut_read;
    bool nodelay, keepalive;
    int keepidle_s, keepintvl_s, keepcnt;
    int congestion; /* enum tcp_cc; -1: the stack's */
    uint32_t user_timeout_ms;
    int tos, ttl;
    int linger_s;  /* -1: off */
    uint32_t conn; /* TCP_NO_CONN: none */
    uint32_t news; /* events so far: what edge-triggered watchers compare */
    uint32_t accept_first, accept_count;
    uint32_t accepted[ACCEPT_MAX];
    uint32_t kept_count;
    struct kept_option kept[KEPT_MAX];
};

struct watched {
    int fd;
    uint32_t events;
    uint32_t news_seen;
    uint64_t data;
};

struct epoll {
    int fd;
    uint32_t count;
    struct watched watched[WATCHED_MAX];
};

extern struct host host;

/* Null: fd is none of ours. */
struct sock *sock_find(int fd);
struct epoll *epoll_find(int fd);

void sockets_reset(void);
void sockets_on_event(const struct tcp_event *event);

int sock_open(int domain, int type);
int sock_bind(struct sock *k, const struct sockaddr *addr, socklen_t len);
int sock_listen(struct sock *k);
int sock_accept(struct sock *k, struct sockaddr *addr, socklen_t *len);
int sock_connect(struct sock *k, const struct sockaddr *addr, socklen_t len);
ssize_t sock_read(struct sock *k, void *buf, size_t len, int flags);
ssize_t sock_write(struct sock *k, const void *buf, size_t len, int flags);
int sock_shutdown(struct sock *k, int how);
int sock_close(struct sock *k);

/* poll()'s events of k, of those asked for. */
uint32_t sock_revents(const struct sock *k, uint32_t events);
/* The error that ended the connection, told once; 0: none. */
int sock_take_error(struct sock *k);

int epoll_open(void);
int epoll_change(struct epoll *ep, int op, int fd, const struct epoll_event *event);
int epoll_collect(struct epoll *ep, struct epoll_event *events, int max, int timeout_ms);
void epoll_shut(struct epoll *ep);
void epolls_reset(void);
/* When a time-out of poll() or epoll_wait() is over. */
uint64_t sockets_deadline(int timeout_ms);

#endif
