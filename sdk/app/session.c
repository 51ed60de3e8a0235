/*
 * session.c: one thread's life with janusd.
 */
#include "app/session.h"

#include "app/clock.h"
#include "app/error.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    ANSWER_US = 5 * 1000 * 1000, /* janusd's longest silence */
    CHECK_US = 2000,             /* between looks at the socket */
    CROWD_MS = 10,
    BACKOFF_FIRST_US = 10 * 1000,
    BACKOFF_LAST_US = 1000 * 1000,
};

/* --- opening --- */

static int fill_hello(struct session *s, const struct janus_options *options, struct janus_error *error)
{
    struct tcp_row_layout row;
    size_t app_len = strlen(options->app);

    if (app_len == 0 || app_len >= ATTACH_APP_NAME_BYTES)
        return error_set(error, EINVAL, "app name '%s' has %zu characters; allowed are 1 to %d", options->app, app_len,
                         ATTACH_APP_NAME_BYTES - 1);
    if (strlen(options->socket_path) >= sizeof s->path)
        return error_set(error, EINVAL, "socket path is longer than %zu bytes", sizeof s->path - 1);
    strcpy(s->path, options->socket_path);
    tcp_row_layout(&row);
    s->hello = (struct attach_hello){
        .type = ATTACH_HELLO,
        .magic = ATTACH_MAGIC,
        .abi_major = SHM_ABI_MAJOR,
        .abi_minor = SHM_ABI_MINOR,
        .rows = options->rows,
        .rx_slots_per_io = options->rx_slots,
        .tx_slots = options->tx_slots,
        .row = {row.stride, row.state, row.raddr, row.rport, row.lport, row.laddr_index, row.snd_nxt, row.rcv_nxt},
    };
    memcpy(s->hello.app, options->app, app_len);
    return 0;
}

static void watch(const struct session *s, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    (void)epoll_ctl(s->poll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Waits for one piece of news, up to the deadline. */
static enum attach_news await_news(struct session *s, uint64_t deadline_us, struct janus_error *error)
{
    for (;;) {
        enum attach_news news = attach_receive(&s->attach, error);
        uint64_t now_us = clock_now_us();

        if (news != ATTACH_NEWS_NONE)
            return news;
        if (now_us >= deadline_us) {
            attach_stop(&s->attach);
            error_set(error, ETIMEDOUT, "janusd did not answer within %d s", ANSWER_US / 1000000);
            return ATTACH_NEWS_FAILED;
        }
        attach_wait(&s->attach, (int)((deadline_us - now_us) / 1000 + 1));
    }
}

/* The new session's region and lease become the thread's; a later HELLO asks for the same again. */
static void adopt(struct session *s)
{
    const struct attach_welcome *w = &s->attach.welcome;

    s->region = attach_take_region(&s->attach);
    s->lease = *w;
    s->hello.resume = 1;
    memcpy(s->hello.token, w->token, sizeof s->hello.token);
    s->hello.rows = w->sizes.rows;
    s->hello.rx_slots_per_io = w->sizes.rx_slots_per_io;
    s->hello.tx_slots = w->sizes.tx_slots;
    s->attached++;
    s->backoff_us = BACKOFF_FIRST_US;
    watch(s, s->region.doorbell);
}

/* From HELLO to READY.  A full queue at janusd's socket and ATTACH_BUSY (EAGAIN) are a crowd, no refusal. */
static int attach_first(struct session *s, uint64_t deadline_us, struct janus_error *error)
{
    enum attach_news news;

    for (;;) {
        int rc = attach_start(&s->attach, s->path, &s->hello, error);

        if (rc == 0) {
            do
                news = await_news(s, deadline_us, error);
            while (news == ATTACH_NEWS_MAPPED);
            if (news != ATTACH_NEWS_FAILED)
                return 0;
            rc = -error->code;
        }
        if (rc != -EAGAIN || clock_now_us() >= deadline_us)
            return rc;
        (void)poll(NULL, 0, CROWD_MS);
    }
}

static void begin_balance(struct session *s)
{
    balance_start(&s->balance, &s->attach, s->lease.tid, true);
    mapper_start(&s->balance.mapper);
    s->rings.balance = &s->balance;
}

int session_open(struct session *s, const struct janus_options *options, struct janus_error *error)
{
    uint64_t deadline_us = clock_now_us() + ANSWER_US;
    int rc;

    memset(s, 0, sizeof *s);
    attach_init(&s->attach);
    s->poll_fd = -1;
    rc = fill_hello(s, options, error);
    if (rc < 0)
        return rc;
    s->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (s->poll_fd < 0)
        return error_set(error, errno, "no epoll descriptor: %s", strerror(errno));
    rc = attach_first(s, deadline_us, error);
    if (rc < 0) {
        close(s->poll_fd);
        return rc;
    }
    adopt(s);
    watch(s, s->attach.fd);
    if (env_rings_init(&s->rings, &s->region, s->lease.port_flags & 1) < 0) {
        session_close(s, false);
        return error_set(error, ENOMEM, "no memory for %u RX and %u TX slots", s->region.sizes.rx_slots_per_io,
                         s->region.sizes.tx_slots);
    }
    begin_balance(s);
    s->phase = SESSION_UP;
    return 0;
}

void session_unmap_kept(struct session *s)
{
    while (s->kept_count > 0) {
        struct kept_j2a *kept = &s->kept[--s->kept_count];

        munmap((void *)(uintptr_t)kept->j2a, kept->bytes);
    }
}

void session_close(struct session *s, bool lent)
{
    attach_stop(&s->attach);
    balance_free(&s->balance);
    if (lent) {
        s->rings.rx_private = NULL;
        s->region.j2a = NULL;
    } else {
        session_unmap_kept(s);
    }
    env_rings_free(&s->rings);
    region_unmap(&s->region);
    if (s->phase == SESSION_MOVING)
        region_unmap(&s->old);
    close(s->poll_fd);
}

/* --- losing janusd and coming back --- */

static uint64_t jittered(uint64_t us)
{
    uint32_t r = 0;

    (void)!getrandom(&r, sizeof r, GRND_NONBLOCK);
    return us / 2 + r % (us / 2 + 1);
}

static void back_off(struct session *s, uint64_t now_us)
{
    s->phase = SESSION_AWAY;
    s->retry_us = now_us + jittered(s->backoff_us);
    s->backoff_us = s->backoff_us * 2 < BACKOFF_LAST_US ? s->backoff_us * 2 : BACKOFF_LAST_US;
}

static void lose(struct session *s, uint64_t now_us)
{
    attach_stop(&s->attach);
    /* Its other end is closed: it would stay readable and let nobody sleep until janusd is back. */
    (void)epoll_ctl(s->poll_fd, EPOLL_CTL_DEL, s->region.doorbell, NULL);
    env_rings_down(&s->rings);
    balance_lost(&s->balance);
    s->leave_seq = 0;
    s->last_error = (struct janus_error){0};
    back_off(s, now_us);
}

static void start_again(struct session *s, uint64_t now_us)
{
    if (attach_start(&s->attach, s->path, &s->hello, &s->last_error) < 0) {
        back_off(s, now_us);
        return;
    }
    watch(s, s->attach.fd);
    s->phase = SESSION_ATTACHING;
    s->give_up_us = now_us + ANSWER_US;
}

/* A session that the connections cannot live in is as good as none. */
static bool fits(struct session *s)
{
    const struct attach_welcome *w = &s->attach.welcome;

    if (env_rings_fits(&s->rings, &s->attach.region) && w->address_count == s->lease.address_count &&
        memcmp(w->addresses, s->lease.addresses, sizeof w->addresses[0] * w->address_count) == 0)
        return true;
    error_set(&s->last_error, ESTALE, "janusd offers another lease than before: addresses, rows or slots changed");
    return false;
}

static bool step_attaching(struct session *s, uint64_t now_us)
{
    enum attach_news news = attach_receive(&s->attach, &s->last_error);

    if (news == ATTACH_NEWS_FAILED || (news == ATTACH_NEWS_NONE && now_us >= s->give_up_us)) {
        if (s->last_error.code == ESTALE)
            s->hello.resume = 0; /* janusd has forgotten the session: begin a new one */
        attach_stop(&s->attach);
        back_off(s, now_us);
        return false;
    }
    if (news != ATTACH_NEWS_READY)
        return false;
    if (!fits(s)) {
        region_unmap(&s->attach.region);
        attach_stop(&s->attach);
        back_off(s, now_us);
        return false;
    }
    s->old = s->region;
    adopt(s);
    begin_balance(s);
    s->phase = SESSION_MOVING;
    return true;
}

/* Announces the next service, or ONLINE behind the last. */
static void send_next_service(struct session *s)
{
    int rc;

    if (s->service_next < s->service_count) {
        const struct session_service *service = &s->services[s->service_next++];

        rc = attach_send_listen(&s->attach, ATTACH_LISTEN, &service->addr, service->port);
    } else if (s->service_next++ == s->service_count && s->online) {
        rc = attach_send_online(&s->attach);
    } else {
        s->phase = SESSION_UP;
        rc = 0;
    }
    s->awaited_seq = s->attach.seq;
    if (rc < 0)
        error_set(&s->last_error, -rc, "janusd hung up during LISTEN: %s", strerror(-rc));
}

void session_moved(struct session *s, bool lent)
{
    if (lent) {
        if (s->kept_count < SESSION_KEPT_MAX) /* else it stays mapped until the process ends */
            s->kept[s->kept_count++] = (struct kept_j2a){s->old.j2a, s->old.offsets.j2a_bytes};
        s->old.j2a = NULL;
    }
    region_unmap(&s->old);
    s->service_next = 0;
    s->phase = SESSION_SERVICES;
    send_next_service(s);
}

static void step_up(struct session *s, uint64_t now_us)
{
    enum attach_news news;

    while ((news = attach_receive(&s->attach, &s->last_error)) == ATTACH_NEWS_CSB)
        balance_hear(&s->balance, &s->attach.csb, s->attach.csb_fd, now_us);
    if (news == ATTACH_NEWS_FAILED || s->attach.phase == ATTACH_PHASE_DOWN || region_j2a(&s->region)->closed != 0) {
        lose(s, now_us);
        return;
    }
    if (news == ATTACH_NEWS_REPLY && s->phase == SESSION_SERVICES && s->attach.reply.seq == s->awaited_seq) {
        if (s->attach.reply.status != ATTACH_OK)
            error_set(&s->last_error, attach_errno(s->attach.reply.status), "janusd: %s", s->attach.reply.text);
        send_next_service(s);
    }
    if (news == ATTACH_NEWS_REPLY && s->attach.reply.seq == s->leave_seq)
        s->leave_seq = 0;
}

bool session_step(struct session *s, uint64_t now_us)
{
    if (now_us < s->check_us && !balance_wants_view(&s->balance))
        return false;
    s->check_us = now_us + CHECK_US;
    if (s->phase == SESSION_UP || s->phase == SESSION_SERVICES)
        step_up(s, now_us);
    else if (s->phase == SESSION_AWAY && now_us >= s->retry_us)
        start_again(s, now_us);
    else if (s->phase == SESSION_ATTACHING)
        return step_attaching(s, now_us);
    return false;
}

uint64_t session_next_deadline(const struct session *s)
{
    if (s->phase == SESSION_AWAY)
        return s->retry_us;
    if (s->phase == SESSION_ATTACHING)
        return s->give_up_us;
    return UINT64_MAX;
}

/* --- requests --- */

static int await_reply(struct session *s, int sent, struct janus_error *error)
{
    uint64_t deadline_us = clock_now_us() + ANSWER_US;
    uint32_t seq = s->attach.seq;

    if (sent < 0)
        return error_set(error, -sent, "janusd hung up: %s", strerror(-sent));
    for (;;) {
        enum attach_news news = await_news(s, deadline_us, error);

        if (news == ATTACH_NEWS_FAILED) {
            s->check_us = 0; /* the next step sees the loss: the socket is closed */
            return -error->code;
        }
        if (news == ATTACH_NEWS_CSB)
            balance_hear(&s->balance, &s->attach.csb, s->attach.csb_fd, clock_now_us());
        if (news == ATTACH_NEWS_REPLY && s->attach.reply.seq == s->leave_seq)
            s->leave_seq = 0;
        if (news != ATTACH_NEWS_REPLY || s->attach.reply.seq != seq)
            continue;
        if (s->attach.reply.status == ATTACH_OK)
            return 0;
        return error_set(error, attach_errno(s->attach.reply.status), "janusd refuses: %s", s->attach.reply.text);
    }
}

static uint32_t find_service(const struct session *s, const struct ip_addr *addr, uint16_t port)
{
    uint32_t i = 0;

    while (i < s->service_count && !(ip_addr_equal(&s->services[i].addr, addr) && s->services[i].port == port))
        i++;
    return i;
}

int session_listen(struct session *s, const struct ip_addr *addr, uint16_t port, struct janus_error *error)
{
    int rc = 0;

    if (s->service_count == TCP_LISTENERS_MAX)
        return error_set(error, ENOSPC, "a thread listens on at most %d ports", TCP_LISTENERS_MAX);
    if (s->phase == SESSION_UP)
        rc = await_reply(s, attach_send_listen(&s->attach, ATTACH_LISTEN, addr, port), error);
    if (rc < 0)
        return rc;
    if (s->service_next > s->service_count)
        s->service_next = s->service_count; /* ONLINE was on its way: this one first, then ONLINE again */
    s->services[s->service_count++] = (struct session_service){*addr, port};
    return 0;
}

int session_unlisten(struct session *s, const struct ip_addr *addr, uint16_t port, struct janus_error *error)
{
    uint32_t i = find_service(s, addr, port);

    if (i == s->service_count)
        return error_set(error, ENOENT, "port %u was not listened on", port);
    s->services[i] = s->services[--s->service_count];
    if (s->phase == SESSION_UP)
        return await_reply(s, attach_send_listen(&s->attach, ATTACH_UNLISTEN, addr, port), error);
    if (s->phase == SESSION_SERVICES) {
        (void)attach_send_listen(&s->attach, ATTACH_UNLISTEN, addr, port);
        s->service_next = 0; /* the list has changed order; LISTEN may be repeated */
    }
    return 0;
}

int session_online(struct session *s, struct janus_error *error)
{
    s->online = true;
    if (s->phase == SESSION_UP)
        return await_reply(s, attach_send_online(&s->attach), error);
    return 0;
}

void session_leave(struct session *s)
{
    if (s->phase == SESSION_UP && s->leave_seq == 0 && attach_send_leave(&s->attach) == 0)
        s->leave_seq = s->attach.seq;
}

bool session_has_left(const struct session *s)
{
    return s->leave_seq == 0;
}
