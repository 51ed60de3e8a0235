/*
 * sockets.c: see sockets.h.
 */
#include "tests/packetdrill/sockets.h"

#include "tests/packetdrill/options.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static struct sock *table[SOCKETS_MAX];
static const struct ip_addr any_addr;

struct sock *sock_find(int fd)
{
    return fd >= 0 && fd < SOCKETS_MAX ? table[fd] : NULL;
}

/* The descriptors are packetdrill's to close. */
void sockets_reset(void)
{
    for (int fd = 0; fd < SOCKETS_MAX; fd++) {
        free(table[fd]);
        table[fd] = NULL;
    }
}

void sockets_on_event(const struct tcp_event *event)
{
    struct sock *k = sock_find((int)event->user);

    if (k == NULL)
        return;
    k->news++;
    if (!(event->kinds & TCP_EVENT_ACCEPTED) || !k->listening)
        return;
    if (k->accept_count == ACCEPT_MAX)
        tcp_abort(host.stack, event->conn, host.now_us);
    else
        k->accepted[(k->accept_first + k->accept_count++) % ACCEPT_MAX] = event->conn;
}

/* --- addresses --- */

static bool address_read(const struct sockaddr *from, socklen_t len, struct ip_addr *addr, uint16_t *port)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (len >= sizeof in && from->sa_family == AF_INET) {
        memcpy(&in, from, sizeof in);
        *addr = ip_addr_from_ipv4((const uint8_t *)&in.sin_addr);
        if (in.sin_addr.s_addr == 0)
            *addr = any_addr;
        *port = ntohs(in.sin_port);
        return true;
    }
    if (len >= sizeof in6 && from->sa_family == AF_INET6) {
        memcpy(&in6, from, sizeof in6);
        memcpy(addr->b, &in6.sin6_addr, sizeof addr->b);
        *port = ntohs(in6.sin6_port);
        return true;
    }
    return false;
}

static void address_write(int domain, const struct ip_addr *addr, uint16_t port, struct sockaddr *to, socklen_t *len)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    socklen_t full = domain == AF_INET ? sizeof in : sizeof in6;

    if (to == NULL || len == NULL)
        return;
    memcpy(&in.sin_addr, addr->b + 12, sizeof in.sin_addr);
    memcpy(&in6.sin6_addr, addr->b, sizeof in6.sin6_addr);
    memcpy(to, domain == AF_INET ? (const void *)&in : (const void *)&in6, *len < full ? *len : full);
    *len = full;
}

/* --- state of a connection --- */

static bool is_opening(const struct sock *k)
{
    enum tcp_state state = tcp_conn_state(host.stack, k->conn);

    return state == TCP_STATE_SYN_SENT || state == TCP_STATE_SYN_RECEIVED;
}

static bool is_over(const struct sock *k)
{
    enum tcp_state state = tcp_conn_state(host.stack, k->conn);

    return state == TCP_STATE_CLOSED || state == TCP_STATE_TIME_WAIT;
}

static bool has_error(const struct sock *k)
{
    return !k->error_told && k->conn != TCP_NO_CONN && tcp_error(host.stack, k->conn) != 0;
}

int sock_take_error(struct sock *k)
{
    if (!has_error(k))
        return 0;
    k->error_told = true;
    return tcp_error(host.stack, k->conn);
}

static bool is_writable(const struct sock *k)
{
    const struct tcp_config *c = &host.settings.config;
    struct tcp_info info;

    tcp_get_info(host.stack, k->conn, &info);
    return info.flight_bytes + info.unsent_bytes + info.smss <= (c->snd_buf_bytes != 0 ? c->snd_buf_bytes : 256 * 1024);
}

uint32_t sock_revents(const struct sock *k, uint32_t events)
{
    uint32_t got = 0;

    if (k->listening)
        return k->accept_count != 0 ? events & (POLLIN | POLLRDNORM) : 0;
    if (k->conn == TCP_NO_CONN)
        return (events & (POLLOUT | POLLWRNORM)) | POLLHUP;
    if (!is_opening(k)) {
        bool eof = tcp_recv_eof(host.stack, k->conn) || k->shut_read || is_over(k);

        if (eof || tcp_recv_ready(host.stack, k->conn) != 0)
            got |= POLLIN | POLLRDNORM;
        if (eof)
            got |= POLLRDHUP;
        if (is_over(k) || k->shut_write || is_writable(k))
            got |= POLLOUT | POLLWRNORM;
        if (is_over(k) || (eof && k->shut_write))
            got |= POLLHUP;
    }
    if (has_error(k))
        got |= POLLERR;
    return got & (events | POLLERR | POLLHUP);
}

/* --- opening --- */

static struct sock *make(int domain)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct sock *k = fd >= 0 && fd < SOCKETS_MAX ? calloc(1, sizeof *k) : NULL;

    if (k == NULL) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    free(table[fd]); /* the kernel's close() has taken its descriptor away */
    *k = (struct sock){.fd = fd,
                       .domain = domain,
                       .conn = TCP_NO_CONN,
                       .linger_s = -1,
                       .keepidle_s = 7200,
                       .keepintvl_s = 75,
                       .keepcnt = 9,
                       .ttl = 64,
                       .congestion = -1};
    table[fd] = k;
    return k;
}

int sock_open(int domain, int type)
{
    struct sock *k;

    if (domain != AF_INET && domain != AF_INET6)
        return -EAFNOSUPPORT;
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        return -EPROTONOSUPPORT;
    k = make(domain);
    if (k == NULL)
        return -EMFILE;
    k->nonblock = (type & SOCK_NONBLOCK) != 0;
    return k->fd;
}

int sock_bind(struct sock *k, const struct sockaddr *addr, socklen_t len)
{
    if (!address_read(addr, len, &k->addr, &k->port))
        return -EINVAL;
    if (!ip_addr_equal(&k->addr, &any_addr))
        host_own(&host, &k->addr);
    return 0;
}

int sock_listen(struct sock *k)
{
    struct tcp_settings settings;
    int result;

    if (k->listening)
        return 0;
    if (k->conn != TCP_NO_CONN)
        return -EINVAL;
    if (host_stack(&host) == NULL)
        return -ENOBUFS;
    option_settings(k, &settings);
    result = tcp_listen_with(host.stack, &k->addr, k->port, (uint64_t)k->fd, &settings);
    k->listening = result == 0;
    return result;
}

/* Settings that waited for a connection. */
static void apply(struct sock *k)
{
    struct tcp_settings settings;

    if (k->nodelay)
        tcp_set_nodelay(host.stack, k->conn, true);
    option_settings(k, &settings);
    tcp_set_settings(host.stack, k->conn, &settings);
}

static bool can_accept(void *arg)
{
    return ((struct sock *)arg)->accept_count != 0;
}

int sock_accept(struct sock *k, struct sockaddr *addr, socklen_t *len)
{
    struct flow flow;
    struct sock *new;

    if (!k->listening)
        return -EINVAL;
    if (k->accept_count == 0 && (k->nonblock || !host_wait(&host, can_accept, k, HOST_NEVER)))
        return -EAGAIN;
    new = make(k->domain);
    if (new == NULL)
        return -EMFILE;
    new->conn = k->accepted[k->accept_first];
    k->accept_first = (k->accept_first + 1) % ACCEPT_MAX;
    k->accept_count--;
    new->nodelay = k->nodelay;
    new->keepalive = k->keepalive;
    new->keepidle_s = k->keepidle_s;
    new->keepintvl_s = k->keepintvl_s;
    new->keepcnt = k->keepcnt;
    new->congestion = k->congestion;
    new->user_timeout_ms = k->user_timeout_ms;
    new->tos = k->tos;
    new->ttl = k->ttl;
    new->linger_s = k->linger_s;
    memcpy(new->kept, k->kept, sizeof k->kept);
    new->kept_count = k->kept_count;
    tcp_set_user(host.stack, new->conn, (uint64_t) new->fd);
    apply(new);
    tcp_flow(host.stack, new->conn, &flow);
    address_write(k->domain, &flow.raddr, flow.rport, addr, len);
    return new->fd;
}

static bool has_opened(void *arg)
{
    return !is_opening(arg);
}

static int start_connect(struct sock *k, const struct sockaddr *addr, socklen_t len)
{
    const struct ip_addr *laddr = &k->addr;
    struct ip_addr raddr;
    uint16_t rport;
    int result;

    if (!address_read(addr, len, &raddr, &rport))
        return -EINVAL;
    if (host_stack(&host) == NULL)
        return -ENOBUFS;
    if (ip_addr_equal(laddr, &any_addr))
        laddr = &host.settings.laddr[ip_addr_is_ipv4(&raddr) ? 0 : 1];
    result = tcp_connect(host.stack, laddr, k->port, &raddr, rport, NULL, NULL, (uint64_t)k->fd, host.now_us, &k->conn);
    if (result != 0) {
        k->conn = TCP_NO_CONN;
        return result;
    }
    k->connecting = true;
    apply(k);
    return 0;
}

int sock_connect(struct sock *k, const struct sockaddr *addr, socklen_t len)
{
    if (k->listening)
        return -EISCONN;
    if (k->conn == TCP_NO_CONN) {
        int result = start_connect(k, addr, len);

        if (result != 0)
            return result;
        if (k->nonblock)
            return -EINPROGRESS;
    } else if (!k->connecting) {
        return -EISCONN;
    }
    if (is_opening(k) && (k->nonblock || !host_wait(&host, has_opened, k, HOST_NEVER)))
        return -EALREADY;
    k->connecting = false;
    apply(k);
    return -sock_take_error(k);
}

/* --- data --- */

static uint32_t peek(const struct sock *k, uint8_t *buf, uint32_t len)
{
    static struct tcp_view views[HOST_RX_SLOTS];
    uint32_t count = tcp_recv_views(host.stack, k->conn, views, HOST_RX_SLOTS);
    uint32_t done = 0;

    for (uint32_t i = 0; i < count && done < len; i++) {
        uint32_t part = views[i].len < len - done ? views[i].len : len - done;

        memcpy(buf + done, views[i].data, part);
        done += part;
    }
    return done;
}

static bool can_read(void *arg)
{
    const struct sock *k = arg;

    return tcp_recv_ready(host.stack, k->conn) != 0 || tcp_recv_eof(host.stack, k->conn) || is_over(k) ||
           has_error(k) || k->shut_read;
}

ssize_t sock_read(struct sock *k, void *buf, size_t len, int flags)
{
    bool dont_wait = k->nonblock || (flags & MSG_DONTWAIT);
    size_t done = 0;

    if (k->conn == TCP_NO_CONN || is_opening(k))
        return -ENOTCONN;
    if (flags & (MSG_OOB | MSG_ERRQUEUE))
        return flags & MSG_OOB ? -EINVAL : -EAGAIN;
    while (done < len) {
        uint32_t want = len - done < INT32_MAX ? (uint32_t)(len - done) : INT32_MAX;
        uint32_t ready = tcp_recv_ready(host.stack, k->conn);

        if (ready != 0 && (flags & MSG_PEEK))
            return (ssize_t)peek(k, buf, want);
        if (ready != 0 && (flags & MSG_TRUNC)) {
            want = want < ready ? want : ready;
            tcp_recv_consume(host.stack, k->conn, want);
            done += want;
        } else if (ready != 0) {
            done += tcp_recv(host.stack, k->conn, (uint8_t *)buf + done, want);
        }
        if (done == len || (done != 0 && !(flags & MSG_WAITALL)))
            break;
        if (done == 0 && has_error(k))
            return -sock_take_error(k);
        if (tcp_recv_eof(host.stack, k->conn) || is_over(k) || k->shut_read)
            break;
        if (dont_wait || !host_wait(&host, can_read, k, HOST_NEVER))
            return done != 0 ? (ssize_t)done : -EAGAIN;
    }
    return (ssize_t)done;
}

static bool can_write(void *arg)
{
    const struct sock *k = arg;

    return !is_opening(k) && (is_over(k) || has_error(k) || k->shut_write || is_writable(k));
}

ssize_t sock_write(struct sock *k, const void *buf, size_t len, int flags)
{
    bool dont_wait = k->nonblock || (flags & MSG_DONTWAIT);
    size_t done = 0;

    if (flags & MSG_FASTOPEN)
        return -EOPNOTSUPP;
    if (k->conn == TCP_NO_CONN || k->shut_write)
        return -EPIPE;
    while (done < len) {
        int64_t taken = (flags & MSG_OOB ? tcp_send_urgent : tcp_send)(host.stack, k->conn, (const uint8_t *)buf + done,
                                                                       len - done);

        if (taken == -ENOTCONN)
            taken = 0;
        if (taken < 0) {
            int error = done == 0 ? sock_take_error(k) : 0;

            return done != 0 ? (ssize_t)done : -(error != 0 ? error : EPIPE);
        }
        done += (size_t)taken;
        if (taken != 0) { /* a burst may take more than one turn */
            host_step(&host);
            continue;
        }
        if (done < len && (dont_wait || !host_wait(&host, can_write, k, HOST_NEVER)))
            return done != 0 ? (ssize_t)done : -EAGAIN;
    }
    return (ssize_t)done;
}

/* --- ending --- */

int sock_shutdown(struct sock *k, int how)
{
    if (k->conn == TCP_NO_CONN || (is_over(k) && !k->shut_write && !tcp_recv_eof(host.stack, k->conn)))
        return -ENOTCONN;
    k->shut_read |= how != SHUT_WR;
    if (how == SHUT_RD)
        return 0;
    k->shut_write = true;
    tcp_shutdown(host.stack, k->conn, host.now_us);
    return 0;
}

static bool is_sent(void *arg)
{
    const struct sock *k = arg;

    return is_over(k) || tcp_unacked(host.stack, k->conn) == 0;
}

int sock_close(struct sock *k)
{
    if (k->listening) {
        tcp_unlisten(host.stack, &k->addr, k->port);
        for (; k->accept_count != 0; k->accept_count--, k->accept_first++)
            tcp_abort(host.stack, k->accepted[k->accept_first % ACCEPT_MAX], host.now_us);
    }
    if (k->conn != TCP_NO_CONN) {
        if (k->linger_s > 0 && tcp_recv_ready(host.stack, k->conn) == 0) {
            tcp_shutdown(host.stack, k->conn, host.now_us);
            host_wait(&host, is_sent, k, host.now_us + (uint64_t)k->linger_s * 1000000);
        }
        if (k->linger_s == 0)
            tcp_abort(host.stack, k->conn, host.now_us);
        else
            tcp_close(host.stack, k->conn, host.now_us);
    }
    table[k->fd] = NULL;
    close(k->fd);
    free(k);
    return 0;
}
