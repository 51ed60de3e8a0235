/*
 * attach.c: the client's end of the attach socket.
 */
#include "app/attach.h"

#include "app/error.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

union message {
    uint32_t type;
    struct attach_welcome welcome;
    struct attach_refused refused;
    struct attach_plain plain;
    struct attach_reply reply;
    struct attach_csb csb;
    uint8_t bytes[512];
};

static void forget_region(struct attach *a)
{
    memset(&a->region, 0, sizeof a->region);
    a->region.doorbell = -1;
    for (uint32_t i = 0; i < SHM_IO_MAX; i++)
        a->region.io_doorbells[i] = -1;
}

void attach_init(struct attach *a)
{
    memset(a, 0, sizeof *a);
    a->fd = -1;
    forget_region(a);
}

struct region attach_take_region(struct attach *a)
{
    struct region taken = a->region;

    forget_region(a);
    return taken;
}

static void drop(struct attach *a)
{
    if (a->fd >= 0) {
        (void)shutdown(a->fd, SHUT_RDWR); /* another thread may have a descriptor of it */
        close(a->fd);
    }
    a->fd = -1;
    if (a->phase == ATTACH_PHASE_MAPPED_SENT)
        region_unmap(&a->region);
    a->phase = ATTACH_PHASE_DOWN;
}

void attach_stop(struct attach *a)
{
    if (a->phase == ATTACH_PHASE_UP) {
        struct attach_plain bye = {.type = ATTACH_BYE, .seq = ++a->seq, .generation = a->welcome.generation};

        (void)send(a->fd, &bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    drop(a);
}

int attach_errno(uint32_t status)
{
    switch (status) {
    case ATTACH_ABI_MISMATCH:
        return EPROTO;
    case ATTACH_NOT_ALLOWED:
    case ATTACH_PORT_NOT_LEASED:
        return EACCES;
    case ATTACH_QUOTA:
        return EDQUOT;
    case ATTACH_NO_MEMORY:
        return ENOMEM;
    case ATTACH_ADDRESS_NOT_LEASED:
        return EADDRNOTAVAIL;
    case ATTACH_PORT_TAKEN:
        return EADDRINUSE;
    case ATTACH_BAD_TOKEN:
        return ESTALE;
    case ATTACH_BUSY:
        return EAGAIN;
    case ATTACH_SHUTTING_DOWN:
        return ECONNREFUSED;
    default:
        return EINVAL;
    }
}

static int connect_error(int code, const char *path, struct janus_error *error)
{
    switch (code) {
    case ENOENT:
        return error_set(error, code, "no janusd: %s does not exist; start janusd, or name its socket in JANUS_SOCKET",
                         path);
    case ECONNREFUSED:
        return error_set(error, code, "no janusd: nobody answers at %s; start janusd", path);
    case EACCES:
        return error_set(error, code, "this user may not open %s; add it to the socket's group", path);
    default:
        return error_set(error, code, "cannot connect to janusd at %s: %s", path, strerror(code));
    }
}

int attach_start(struct attach *a, const char *path, const struct attach_hello *hello, struct janus_error *error)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof sun.sun_path)
        return error_set(error, EINVAL, "socket path '%s' has %zu bytes; allowed are 1 to %zu", path, len,
                         sizeof sun.sun_path - 1);
    memcpy(sun.sun_path, path, len);
    drop(a);
    a->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->fd < 0)
        return error_set(error, errno, "no socket: %s", strerror(errno));
    if (connect(a->fd, (struct sockaddr *)&sun, sizeof sun) < 0) {
        int code = errno;

        drop(a);
        return connect_error(code, path, error);
    }
    if (send(a->fd, hello, sizeof *hello, MSG_NOSIGNAL) != (ssize_t)sizeof *hello) {
        int code = errno;

        drop(a);
        return error_set(error, code, "janusd hung up at HELLO: %s", strerror(code));
    }
    a->phase = ATTACH_PHASE_HELLO_SENT;
    a->seq = 0;
    return 0;
}

/* Reads one message and the descriptors that come with it.  Bytes read, 0 at hang-up, -EAGAIN, or another -errno. */
static ssize_t read_message(int fd, union message *m, int *fds, uint32_t *fd_count)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * ATTACH_FDS_MAX)];
    } control;
    struct iovec iov = {m, sizeof *m};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t len = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    *fd_count = 0;
    if (len < 0)
        return errno == EINTR ? -EAGAIN : -errno;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        *fd_count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
    }
    return len;
}

static enum attach_news fail(struct attach *a, struct janus_error *error, int code, const char *text)
{
    drop(a);
    error_set(error, code, "%s", text);
    return ATTACH_NEWS_FAILED;
}

static enum attach_news take_refused(struct attach *a, union message *m, struct janus_error *error)
{
    int code = attach_errno(m->refused.status);

    m->refused.text[ATTACH_TEXT_BYTES - 1] = '\0';
    drop(a);
    error_set(error, code, "janusd refuses: %s", m->refused.text);
    return ATTACH_NEWS_FAILED;
}

static enum attach_news take_welcome(struct attach *a, const struct attach_welcome *w, const int *fds,
                                     uint32_t fd_count, struct janus_error *error)
{
    struct attach_plain mapped = {.type = ATTACH_MAPPED, .seq = ++a->seq, .generation = w->generation};

    if (w->magic != ATTACH_MAGIC || w->abi_major != SHM_ABI_MAJOR || w->address_count > ATTACH_ADDRESSES_MAX) {
        for (uint32_t i = 0; i < fd_count; i++)
            close(fds[i]);
        return fail(a, error, EPROTO,
                    "janusd speaks another version of the attach protocol; update janusd or this package");
    }
    a->welcome = *w;
    if (region_map(&a->region, w, fds, fd_count, error) < 0) {
        drop(a);
        return ATTACH_NEWS_FAILED;
    }
    a->phase = ATTACH_PHASE_MAPPED_SENT;
    if (send(a->fd, &mapped, sizeof mapped, MSG_NOSIGNAL) != (ssize_t)sizeof mapped)
        return fail(a, error, ECONNRESET, "janusd hung up before READY");
    return ATTACH_NEWS_MAPPED;
}

static enum attach_news take_reply(struct attach *a, const struct attach_reply *reply)
{
    a->reply = *reply;
    a->reply.text[ATTACH_TEXT_BYTES - 1] = '\0';
    return ATTACH_NEWS_REPLY;
}

enum attach_news attach_receive(struct attach *a, struct janus_error *error)
{
    union message m;
    int fds[ATTACH_FDS_MAX];
    uint32_t fd_count;
    ssize_t len;

    if (a->phase == ATTACH_PHASE_DOWN)
        return ATTACH_NEWS_NONE;
    memset(&m, 0, sizeof m);
    len = read_message(a->fd, &m, fds, &fd_count);
    if (len == -EAGAIN)
        return ATTACH_NEWS_NONE;
    if (len == sizeof m.csb && m.type >= ATTACH_CSB_BEGIN && m.type <= ATTACH_CSB_VIEW && a->phase == ATTACH_PHASE_UP &&
        fd_count <= 1) {
        a->csb = m.csb;
        a->csb_fd = fd_count == 1 ? fds[0] : -1;
        return ATTACH_NEWS_CSB;
    }
    if (len == sizeof m.welcome && m.type == ATTACH_WELCOME && a->phase == ATTACH_PHASE_HELLO_SENT)
        return take_welcome(a, &m.welcome, fds, fd_count, error);
    for (uint32_t i = 0; i < fd_count; i++)
        close(fds[i]);
    if (len <= 0)
        return fail(a, error, ECONNRESET, "janusd closed the session");
    if (len == sizeof m.refused && m.type == ATTACH_REFUSED)
        return take_refused(a, &m, error);
    if (len == sizeof m.plain && m.type == ATTACH_READY && a->phase == ATTACH_PHASE_MAPPED_SENT) {
        a->phase = ATTACH_PHASE_UP;
        return ATTACH_NEWS_READY;
    }
    if (len == sizeof m.reply && m.type == ATTACH_REPLY && a->phase == ATTACH_PHASE_UP)
        return take_reply(a, &m.reply);
    return fail(a, error, EPROTO, "janusd sent a message that does not belong here");
}

bool attach_wait(const struct attach *a, int timeout_ms)
{
    struct pollfd p = {a->fd, POLLIN, 0};

    return a->fd >= 0 && poll(&p, 1, timeout_ms) > 0;
}

int attach_send_listen(struct attach *a, enum attach_type type, const struct ip_addr *addr, uint16_t port)
{
    struct attach_listen m = {.type = (uint32_t)type, .seq = ++a->seq, .port = port};

    memcpy(m.address, addr->b, sizeof m.address);
    return send(a->fd, &m, sizeof m, MSG_NOSIGNAL) == (ssize_t)sizeof m ? 0 : -errno;
}

int attach_send_list(int fd, uint64_t attempt, const uint64_t *hashes, uint32_t count)
{
    struct {
        uint32_t type, count;
        uint64_t attempt;
    } head = {ATTACH_CSB_LIST, count, attempt};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)(uintptr_t)hashes, count * sizeof *hashes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    static_assert(sizeof head == offsetof(struct attach_csb_list, hashes), "as the ABI has it");
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 ? 0 : -errno;
}

int attach_send_done(int fd, uint64_t attempt, uint32_t phase)
{
    struct attach_csb done = {.type = ATTACH_CSB_DONE, .attempt = attempt, .phase = phase};

    return send(fd, &done, sizeof done, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 ? 0 : -errno;
}

static int send_plain(struct attach *a, enum attach_type type)
{
    struct attach_plain m = {.type = (uint32_t)type, .seq = ++a->seq, .generation = a->welcome.generation};

    return send(a->fd, &m, sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof m ? 0 : -errno;
}

int attach_send_online(struct attach *a)
{
    return send_plain(a, ATTACH_ONLINE);
}

int attach_send_leave(struct attach *a)
{
    return send_plain(a, ATTACH_LEAVE);
}
