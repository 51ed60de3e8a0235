/*
 * calls.c: the table, one thin function each: lock, act, let the stack answer, unlock, errno last.
 *
 * Descriptors that are not ours are the kernel's.
 */
#include "tests/packetdrill/interface.h"
#include "tests/packetdrill/options.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <netinet/in.h>
#include <unistd.h>

enum { SPLICE_BYTES = 65536 };

struct host host;
static bool is_running;

/* The common end of a call: result or errno. */
static ssize_t leave(ssize_t result)
{
    host_step(&host);
    pthread_mutex_unlock(&host.lock);
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

static struct sock *enter(int fd)
{
    pthread_mutex_lock(&host.lock);
    return sock_find(fd);
}

/* fd is not ours: the kernel's call follows, without the lock. */
static void not_ours(void)
{
    pthread_mutex_unlock(&host.lock);
}

/* --- opening and closing --- */

static int call_socket(void *u, int domain, int type, int protocol)
{
    (void)u;
    pthread_mutex_lock(&host.lock);
    if (host.stack == NULL)
        sysctls_read(&host.settings);
    return (int)leave(protocol == 0 || protocol == IPPROTO_TCP ? sock_open(domain, type) : -EPROTONOSUPPORT);
}

static int call_bind(void *u, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sock *k = enter(fd);

    (void)u;
    return (int)leave(k != NULL ? sock_bind(k, addr, len) : -EBADF);
}

static int call_listen(void *u, int fd, int backlog)
{
    struct sock *k = enter(fd);

    (void)u, (void)backlog;
    return (int)leave(k != NULL ? sock_listen(k) : -EBADF);
}

static int call_accept(void *u, int fd, struct sockaddr *addr, socklen_t *len)
{
    struct sock *k = enter(fd);

    (void)u;
    return (int)leave(k != NULL ? sock_accept(k, addr, len) : -EBADF);
}

static int call_connect(void *u, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct sock *k = enter(fd);

    (void)u;
    return (int)leave(k != NULL ? sock_connect(k, addr, len) : -EBADF);
}

static int call_shutdown(void *u, int fd, int how)
{
    struct sock *k = enter(fd);

    (void)u;
    return (int)leave(k != NULL ? sock_shutdown(k, how) : -EBADF);
}

static int call_close(void *u, int fd)
{
    struct sock *k = enter(fd);
    struct epoll *ep = epoll_find(fd);

    (void)u;
    if (k != NULL)
        return (int)leave(sock_close(k));
    if (ep != NULL) {
        epoll_shut(ep);
        return (int)leave(0);
    }
    not_ours();
    return close(fd);
}

/* --- reading --- */

static ssize_t call_recv(void *u, int fd, void *buf, size_t len, int flags)
{
    struct sock *k = enter(fd);

    (void)u;
    if (k != NULL)
        return leave(sock_read(k, buf, len, flags));
    not_ours();
    return flags == 0 ? read(fd, buf, len) : recv(fd, buf, len, flags);
}

static ssize_t call_read(void *u, int fd, void *buf, size_t count)
{
    return call_recv(u, fd, buf, count, 0);
}

static ssize_t call_recvfrom(void *u, int fd, void *buf, size_t len, int flags, struct sockaddr *addr,
                             socklen_t *addr_len)
{
    if (addr != NULL && addr_len != NULL)
        *addr_len = 0; /* a stream's peer is known */
    return call_recv(u, fd, buf, len, flags);
}

/* Piece by piece; only the first may wait, unless all is wanted. */
static ssize_t read_pieces(struct sock *k, const struct iovec *iov, size_t count, int flags)
{
    ssize_t done = 0;

    for (size_t i = 0; i < count; i++) {
        bool wait = done == 0 || (flags & MSG_WAITALL);
        ssize_t got = sock_read(k, iov[i].iov_base, iov[i].iov_len, wait ? flags : flags | MSG_DONTWAIT);

        if (got < 0)
            return done != 0 ? done : got;
        done += got;
        if ((size_t)got < iov[i].iov_len)
            break;
    }
    return done;
}

static ssize_t call_readv(void *u, int fd, const struct iovec *iov, int count)
{
    struct sock *k = enter(fd);

    (void)u;
    if (k != NULL)
        return leave(read_pieces(k, iov, (size_t)count, 0));
    not_ours();
    return readv(fd, iov, count);
}

static ssize_t call_recvmsg(void *u, int fd, struct msghdr *msg, int flags)
{
    struct sock *k = enter(fd);

    (void)u;
    if (k == NULL)
        return leave(-EBADF);
    msg->msg_controllen = 0;
    msg->msg_namelen = 0;
    msg->msg_flags = 0;
    return leave(read_pieces(k, msg->msg_iov, msg->msg_iovlen, flags));
}

/* --- writing --- */

static ssize_t call_send(void *u, int fd, const void *buf, size_t len, int flags)
{
    struct sock *k = enter(fd);

    (void)u;
    if (k != NULL)
        return leave(sock_write(k, buf, len, flags));
    not_ours();
    return flags == 0 ? write(fd, buf, len) : send(fd, buf, len, flags);
}

static ssize_t call_write(void *u, int fd, const void *buf, size_t count)
{
    return call_send(u, fd, buf, count, 0);
}

static ssize_t call_sendto(void *u, int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
                           socklen_t addr_len)
{
    (void)addr, (void)addr_len;
    return call_send(u, fd, buf, len, flags);
}

static ssize_t write_pieces(struct sock *k, const struct iovec *iov, size_t count, int flags)
{
    size_t len = 0, done = 0;
    uint8_t *all;
    ssize_t result;

    for (size_t i = 0; i < count; i++)
        len += iov[i].iov_len;
    all = malloc(len + 1);
    for (size_t i = 0; all != NULL && i < count; done += iov[i++].iov_len)
        memcpy(all + done, iov[i].iov_base, iov[i].iov_len);
    result = all != NULL ? sock_write(k, all, len, flags) : -ENOMEM; /* in one: the stack sees one write */
    free(all);
    return result;
}

static ssize_t call_writev(void *u, int fd, const struct iovec *iov, int count)
{
    struct sock *k = enter(fd);

    (void)u;
    if (k != NULL)
        return leave(write_pieces(k, iov, (size_t)count, 0));
    not_ours();
    return writev(fd, iov, count);
}

static ssize_t call_sendmsg(void *u, int fd, const struct msghdr *msg, int flags)
{
    struct sock *k = enter(fd);

    (void)u;
    return leave(k != NULL ? write_pieces(k, msg->msg_iov, msg->msg_iovlen, flags) : -EBADF);
}

/* Between a socket and a pipe, which takes what fits in it. */
static int call_splice(void *u, int in, loff_t *off_in, int out, loff_t *off_out, size_t len, unsigned flags)
{
    static uint8_t buf[SPLICE_BYTES];
    struct sock *from = enter(in);
    struct sock *to = sock_find(out);
    ssize_t got;

    (void)u;
    len = len < SPLICE_BYTES ? len : SPLICE_BYTES;
    if (from != NULL && to == NULL) {
        got = sock_read(from, buf, len, 0);
        if (got > 0)
            got = write(out, buf, (size_t)got);
        return (int)leave(got);
    }
    if (to != NULL && from == NULL) {
        got = read(in, buf, len);
        return (int)leave(got < 0 ? -errno : sock_write(to, buf, (size_t)got, 0));
    }
    if (from != NULL)
        return (int)leave(-EINVAL);
    not_ours();
    return (int)splice(in, off_in, out, off_out, len, flags);
}

static int call_pipe(void *u, int fds[2])
{
    (void)u;
    return pipe(fds);
}

/* --- settings --- */

static int call_fcntl(void *u, int fd, int cmd, ...)
{
    struct sock *k = enter(fd);
    va_list args;
    int arg;

    (void)u;
    va_start(args, cmd);
    arg = va_arg(args, int);
    va_end(args);
    if (k == NULL) {
        not_ours();
        return fcntl(fd, cmd, arg);
    }
    if (cmd == F_GETFL)
        return (int)leave(O_RDWR | (k->nonblock ? O_NONBLOCK : 0));
    if (cmd == F_SETFL)
        k->nonblock = (arg & O_NONBLOCK) != 0;
    return (int)leave(cmd == F_SETFL ? 0 : -EINVAL);
}

static int call_ioctl(void *u, int fd, unsigned long request, ...)
{
    struct sock *k = enter(fd);
    va_list args;
    int *value;

    (void)u;
    va_start(args, request);
    value = va_arg(args, int *);
    va_end(args);
    if (k == NULL) {
        not_ours();
        return ioctl(fd, request, value);
    }
    if (k->conn == TCP_NO_CONN || value == NULL || (request != FIONREAD && request != TIOCOUTQ))
        return (int)leave(-EINVAL);
    *value = (int)(request == FIONREAD ? tcp_recv_ready(host.stack, k->conn) : tcp_unacked(host.stack, k->conn));
    return (int)leave(0);
}

static int call_getsockopt(void *u, int fd, int level, int name, void *value, socklen_t *len)
{
    struct sock *k = enter(fd);

    (void)u;
    return (int)leave(k != NULL ? option_get(k, level, name, value, len) : -EBADF);
}

static int call_setsockopt(void *u, int fd, int level, int name, const void *value, socklen_t len)
{
    struct sock *k = enter(fd);

    (void)u;
    return (int)leave(k != NULL ? option_set(k, level, name, value, len) : -EBADF);
}

/* For scripts' assertions, which ask the kernel for TCP_INFO of our descriptors: found first when this object is preloaded. */
int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len)
{
    static int (*next)(int, int, int, void *, socklen_t *);

    if (is_running && sock_find(fd) != NULL)
        return call_getsockopt(NULL, fd, level, name, value, len);
    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "getsockopt");
    return next(fd, level, name, value, len);
}

/* --- watching --- */

struct polled {
    struct pollfd *fds;
    nfds_t count;
};

static int poll_all(const struct polled *p)
{
    int ready = 0;

    for (nfds_t i = 0; i < p->count; i++) {
        const struct sock *k = sock_find(p->fds[i].fd);
        uint32_t got = k != NULL ? sock_revents(k, (uint16_t)p->fds[i].events) : POLLNVAL;

        p->fds[i].revents = p->fds[i].fd >= 0 ? (short)got : 0;
        ready += p->fds[i].revents != 0;
    }
    return ready;
}

static bool any_polled(void *arg)
{
    return poll_all(arg) != 0;
}

static int call_poll(void *u, struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct polled p = {fds, count};

    (void)u;
    pthread_mutex_lock(&host.lock);
    if (poll_all(&p) == 0 && timeout_ms != 0)
        host_wait(&host, any_polled, &p, sockets_deadline(timeout_ms));
    return (int)leave(poll_all(&p));
}

static int call_epoll_create(void *u, int size)
{
    (void)u;
    pthread_mutex_lock(&host.lock);
    return (int)leave(size > 0 ? epoll_open() : -EINVAL);
}

static int call_epoll_ctl(void *u, int epfd, int op, int fd, struct epoll_event *event)
{
    struct epoll *ep;

    (void)u;
    pthread_mutex_lock(&host.lock);
    ep = epoll_find(epfd);
    return (int)leave(ep != NULL ? epoll_change(ep, op, fd, event) : -EBADF);
}

static int call_epoll_wait(void *u, int epfd, struct epoll_event *events, int max, int timeout_ms)
{
    struct epoll *ep;

    (void)u;
    pthread_mutex_lock(&host.lock);
    ep = epoll_find(epfd);
    return (int)leave(ep != NULL ? epoll_collect(ep, events, max, timeout_ms) : -EBADF);
}

/* --- wire and time --- */

static int call_netdev_send(void *u, const void *buf, size_t len)
{
    (void)u;
    pthread_mutex_lock(&host.lock);
    host_input(&host, buf, (uint32_t)(len < UINT16_MAX ? len : UINT16_MAX));
    return (int)leave(0);
}

static bool has_sent(void *arg)
{
    return ((struct host *)arg)->out_count != 0;
}

static int call_netdev_receive(void *u, void *buf, size_t *len, long long *time_us)
{
    const struct host_packet *p;

    (void)u;
    pthread_mutex_lock(&host.lock);
    host_run_until(&host, host.now_us + HOST_RECEIVE_US, has_sent, &host);
    if (host.out_count == 0 || host.broken) {
        *len = 0; /* -1 would be asked again at once, for ever */
        *time_us = (long long)host.now_us;
        return (int)leave(0);
    }
    p = &host.out[host.out_first];
    *len = *len < p->len ? *len : p->len;
    memcpy(buf, p->data, *len);
    *time_us = (long long)p->at_us;
    host.out_first = (host.out_first + 1) % HOST_OUT_MAX;
    host.out_count--;
    return (int)leave(0);
}

static int call_usleep(void *u, useconds_t us)
{
    (void)u;
    pthread_mutex_lock(&host.lock);
    host_run_until(&host, host.now_us + us, NULL, NULL);
    return (int)leave(0);
}

/* Each look at the clock takes a microsecond: packetdrill also waits by looking. */
static int call_gettimeofday(void *u, struct timeval *tv, struct timezone *tz)
{
    (void)u, (void)tz;
    pthread_mutex_lock(&host.lock);
    tv->tv_sec = (time_t)(host.now_us / 1000000);
    tv->tv_usec = (suseconds_t)(host.now_us % 1000000);
    host.now_us++;
    host_tell(&host);
    pthread_mutex_unlock(&host.lock);
    return 0;
}

static void call_free(void *u)
{
    (void)u;
    if (!is_running)
        return;
    is_running = false;
    sockets_reset();
    epolls_reset();
    host_free(&host);
}

void packetdrill_interface_init(const char *flags, struct packetdrill_interface *ifc)
{
    struct host_settings settings = {
        .config = {.conn_max = 256,
                   .half_open_max = 256,
                   .time_wait_max = 256,
                   .extension_max = 256,
                   .rx_slots = HOST_RX_SLOTS,
                   .tx_slots = HOST_TX_SLOTS,
                   .mtu = 1500,
                   .source_port_first = 32768,
                   .source_port_last = 60999,
                   .flow_secret = {1, 2},
                   .reset_unknown = true},
    };

    call_free(NULL);
    flags_read("local=192.168.0.1,local=fd3d:a0b:17d6::1",
               &settings); /* where packetdrill lives unless told otherwise */
    if (!flags_read(flags, &settings))
        exit(1);
    snprintf(settings.flags, sizeof settings.flags, "%s", flags != NULL ? flags : "");
    host_init(&host, &settings, sockets_on_event);
    is_running = true;
    *ifc = (struct packetdrill_interface){
        NULL,
        call_free,
        call_socket,
        call_bind,
        call_listen,
        call_accept,
        call_connect,
        call_read,
        call_readv,
        call_recv,
        call_recvfrom,
        call_recvmsg,
        call_write,
        call_writev,
        call_send,
        call_sendto,
        call_sendmsg,
        call_fcntl,
        call_ioctl,
        call_close,
        call_shutdown,
        call_getsockopt,
        call_setsockopt,
        call_poll,
        call_netdev_send,
        call_netdev_receive,
        call_usleep,
        call_gettimeofday,
        call_epoll_create,
        call_epoll_ctl,
        call_epoll_wait,
        call_pipe,
        call_splice,
    };
}
