/*
 * fuzz_calls.c: scripts of calls: two TCP cores whose users call whatever the interface has, in any order, while packets are
 * delivered, lost, doubled and exchanged and time passes.
 *
 * Invariant: each call answers what its comment in tcp.h promises, by a model that knows the bytes of each stream and the calls
 * made; every byte read is the next one that the other user sent; no connection fails without a cause; what both sides finish in order
 * arrives whole; tcp_check() holds after every step, and in the end nothing is left.
 */
#include "fuzz/pair.h"

#include <errno.h>

enum { LINES = 6, STEPS_MAX = 120, LENT_MAX = 4, FIRST_PORT = 4000 };

/* One side of a connection, as its user knows it. */
struct end {
    bool held, failed, shut, connected, asked, dirty; /* dirty: closed or aborted by its user, before it was done */
    uint32_t conn;
    uint64_t sent, received;
};

struct line {
    bool used;
    uint16_t port; /* of the opener: never the same again */
    uint8_t opener, family;
    struct end end[2];
};

struct lent {
    uint8_t host;
    uint32_t slot;
    struct tcp_view view;
    uint64_t at;
    uint16_t port;
};

struct fuzz {
    struct pair p;
    struct input in;
    struct line lines[LINES];
    struct lent lent[LENT_MAX];
    uint32_t lent_count;
    uint16_t ports; /* given out */
    bool calm;      /* nothing has happened that may end a connection */
    bool tight;     /* nor is anything short */
};

static uint8_t byte_at(uint16_t port, uint32_t host, uint64_t at)
{
    return (uint8_t)(at * 31 + (at >> 8) * 7 + port + host * 101);
}

/* --- the model --- */

static void require(struct fuzz *f, bool holds, const char *what)
{
    if (!holds)
        sim_fail(&f->p.failure, "%s", what);
}

static void read_bytes(struct fuzz *f, struct line *l, uint32_t host, const uint8_t *data, uint32_t len)
{
    struct end *e = &l->end[host];

    for (uint32_t i = 0; i < len; i++)
        if (data[i] != byte_at(l->port, !host, e->received + i))
            sim_fail(&f->p.failure, "port %u: host %u reads a wrong byte at %llu", l->port, host,
                     (unsigned long long)(e->received + i));
    e->received += len;
    require(f, e->received <= l->end[!host].sent, "more was read than sent");
}

static struct line *line_of(struct fuzz *f, uint32_t host, uint32_t conn)
{
    for (uint32_t i = 0; i < LINES; i++)
        if (f->lines[i].used && f->lines[i].end[host].held && f->lines[i].end[host].conn == conn)
            return &f->lines[i];
    return NULL;
}

static void accepted(struct fuzz *f, uint32_t host, uint32_t conn)
{
    struct tcp_stack *s = f->p.hosts[host].s;
    struct flow flow;

    tcp_flow(s, conn, &flow);
    for (uint32_t i = 0; i < LINES; i++) {
        struct line *l = &f->lines[i];

        if (!l->used || l->port != flow.rport || l->opener == host || l->end[host].connected)
            continue;
        l->end[host] = (struct end){.held = true, .connected = true, .conn = conn};
        return;
    }
    tcp_abort(s, conn, f->p.now_us); /* of a line that is gone, by an old packet */
    f->calm = false;
}

static void heard(struct pair *p, uint32_t host, const struct tcp_event *event)
{
    struct fuzz *f = (struct fuzz *)p;
    struct tcp_stack *s = p->hosts[host].s;
    struct line *l;

    if (event->kinds & TCP_EVENT_ACCEPTED)
        accepted(f, host, event->conn);
    l = line_of(f, host, event->conn);
    if (l == NULL)
        return;
    if (event->kinds & TCP_EVENT_CONNECTED) {
        require(f, l->opener == host && !l->end[host].connected, "CONNECTED of what did not connect");
        l->end[host].connected = true;
    }
    if (event->kinds & TCP_EVENT_SENT_ALL) {
        require(f, l->end[host].asked, "SENT_ALL unasked");
        l->end[host].asked = false;
    }
    if (event->kinds & TCP_EVENT_ERROR) {
        require(f, tcp_error(s, event->conn) != 0, "ERROR without an error");
        require(f, !f->calm || f->tight, "a connection fails without a cause");
        l->end[host].failed = true;
    }
}

/* --- calls --- */

static void call_connect(struct fuzz *f)
{
    uint32_t choice = take(&f->in, 1), host = choice & 1, conn;
    int error;

    for (uint32_t i = 0; i < LINES; i++) {
        struct line *l = &f->lines[i];

        if (l->used && (l->end[0].held || l->end[1].held))
            continue;
        *l = (struct line){
            .port = (uint16_t)(FIRST_PORT + f->ports), .opener = (uint8_t)host, .family = choice >> 1 & 1};
        error = tcp_connect(f->p.hosts[host].s, NULL, l->port, &host_addresses[!host][l->family], choice & 60 ? 80 : 81,
                            NULL, NULL, 5, f->p.now_us, &conn);
        require(f, error == 0 || error == -ENOBUFS, "tcp_connect() says neither 0 nor ENOBUFS");
        if (error != 0)
            return;
        f->ports++;
        f->calm = f->calm && (choice & 60);
        l->used = true;
        l->end[host] = (struct end){.held = true, .conn = conn};
        return;
    }
}

static void call_send(struct fuzz *f, struct line *l, uint32_t host, uint32_t len)
{
    static uint8_t data[6000];
    struct end *e = &l->end[host];
    struct tcp_stack *s = f->p.hosts[host].s;
    uint32_t room = tcp_send_room(s, e->conn);
    int64_t taken;

    len %= sizeof data;
    for (uint32_t i = 0; i < len; i++)
        data[i] = byte_at(l->port, host, e->sent + i);
    taken = (len % 4 == 1 ? tcp_send_urgent : tcp_send)(s, e->conn, data, len);
    if (tcp_error(s, e->conn) != 0)
        require(f, taken == -tcp_error(s, e->conn), "tcp_send() of a failed connection does not say why");
    else if (e->shut)
        require(f, taken == -EPIPE, "tcp_send() after tcp_shutdown() is not EPIPE");
    else if (tcp_conn_state(s, e->conn) < TCP_STATE_ESTABLISHED)
        require(f, taken == -ENOTCONN, "tcp_send() before the connection is not ENOTCONN");
    else
        require(f, taken >= (int64_t)(len < room ? len : room) && taken <= (int64_t)len,
                "tcp_send() takes less than the room, or more than was given");
    e->sent += taken > 0 ? (uint64_t)taken : 0;
    require(f, tcp_unacked(s, e->conn) <= e->sent, "more is unacknowledged than was sent");
}

static void call_views(struct fuzz *f, struct line *l, uint32_t host, uint32_t len)
{
    struct tcp_view views[8];
    struct end *e = &l->end[host];
    struct tcp_stack *s = f->p.hosts[host].s;
    uint32_t count = tcp_recv_views(s, e->conn, views, 8), ready = tcp_recv_ready(s, e->conn), total = 0;

    len = ready > 0 ? len % (ready + 1) : 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t part = views[i].len < len - total ? views[i].len : len - total;

        require(f, views[i].len > 0, "an empty view");
        read_bytes(f, l, host, views[i].data, part);
        total += part;
    }
    require(f, total == len || count == 8, "the views hold less than is ready");
    tcp_recv_consume(s, e->conn, total);
#ifdef JANUS_PLANTED_BUG /* a user who loses count when he has read all but a little of what is there */
    e->received += ready - total > 0 && ready - total < 256;
#endif
    require(f, tcp_recv_ready(s, e->conn) == ready - total, "what is ready does not go down by what was read");
}

static void call_recv(struct fuzz *f, struct line *l, uint32_t host, uint32_t len)
{
    static uint8_t data[8192];
    struct end *e = &l->end[host];
    struct tcp_stack *s = f->p.hosts[host].s;
    uint32_t ready = tcp_recv_ready(s, e->conn), got;

    len %= sizeof data;
    got = tcp_recv(s, e->conn, data, len);
    require(f, got == (len < ready ? len : ready), "tcp_recv() gives less than is ready, or more");
    read_bytes(f, l, host, data, got);
}

static void call_lend(struct fuzz *f, struct line *l, uint32_t host)
{
    struct end *e = &l->end[host];
    struct lent *lent = &f->lent[f->lent_count];

    if (f->lent_count == LENT_MAX)
        return;
    *lent = (struct lent){.host = (uint8_t)host, .at = e->received, .port = l->port};
    lent->slot = tcp_recv_lend(f->p.hosts[host].s, e->conn, &lent->view);
    if (lent->slot == TCP_NO_SLOT)
        return;
    read_bytes(f, l, host, lent->view.data, lent->view.len);
    f->lent_count++;
}

/* Still what it was, whatever became of its connection; then it goes back. */
static void call_give(struct fuzz *f)
{
    struct lent *lent;

    if (f->lent_count == 0)
        return;
    lent = &f->lent[--f->lent_count];
    for (uint32_t i = 0; i < lent->view.len; i++)
        require(f, lent->view.data[i] == byte_at(lent->port, !lent->host, lent->at + i), "a lent packet has changed");
    tcp_recv_give(f->p.hosts[lent->host].s, lent->slot);
}

static void let_go(struct fuzz *f, struct line *l, uint32_t host, bool abort_it)
{
    struct end *e = &l->end[host];

    if (abort_it)
        tcp_abort(f->p.hosts[host].s, e->conn, f->p.now_us);
    else
        tcp_close(f->p.hosts[host].s, e->conn, f->p.now_us);
    e->held = false;
    e->dirty = true;
    f->calm = false;
}

static void call_settings(struct fuzz *f, struct line *l, uint32_t host, uint32_t value)
{
    struct tcp_stack *s = f->p.hosts[host].s;
    struct tcp_settings wanted = {.congestion_control = value % 5,
                                  .keepalive_probes = value >> 2 & 15,
                                  .dscp = value >> 1 & 63,
                                  .ttl = value >> 3 & 255,
                                  .user_timeout_option = value >> 6 & 1,
                                  .keepalive_ms = value >> 7 & 1 ? 500 + value : 0,
                                  .keepalive_interval_ms = 1000 + value,
                                  .user_timeout_ms = value >> 8 & 1 ? 100 + value : 0};
    struct tcp_settings before, now;
    int error;

    tcp_get_settings(s, l->end[host].conn, &before);
    error = tcp_set_settings(s, l->end[host].conn, &wanted);
    tcp_get_settings(s, l->end[host].conn, &now);
    require(f, error == 0 || error == -EINVAL || error == -ENOSPC, "tcp_set_settings() says none of 0, EINVAL, ENOSPC");
    if (error != 0)
        require(f, memcmp(&before, &now, sizeof now) == 0, "refused settings change something");
    else
        require(f,
                now.congestion_control == wanted.congestion_control && now.keepalive_ms == wanted.keepalive_ms &&
                    now.user_timeout_ms == wanted.user_timeout_ms,
                "settings are not what was set");
    f->calm = f->calm && now.keepalive_ms == 0 && now.user_timeout_ms == 0 && !now.user_timeout_option;
}

static void call(struct fuzz *f)
{
    struct line *l = &f->lines[take(&f->in, 1) % LINES];
    uint32_t what = take(&f->in, 1), host = what & 1, amount = take(&f->in, 2);
    struct end *e = &l->end[host];
    struct tcp_stack *s = f->p.hosts[host].s;

    if (!l->used || !e->held)
        return;
    switch ((what >> 1) % 16) {
    case 0:
    case 1:
    case 2:
        call_send(f, l, host, amount);
        break;
    case 3:
        call_recv(f, l, host, amount);
        break;
    case 4:
    case 5:
        call_views(f, l, host, amount);
        break;
    case 6:
        call_lend(f, l, host);
        break;
    case 7:
        call_give(f);
        break;
    case 8:
        e->shut = e->shut || tcp_conn_state(s, e->conn) >= TCP_STATE_ESTABLISHED;
        tcp_shutdown(s, e->conn, f->p.now_us);
        break;
    case 9:
        let_go(f, l, host, amount & 1);
        break;
    case 10:
        tcp_set_nodelay(s, e->conn, amount & 1);
        break;
    case 11:
        call_settings(f, l, host, amount);
        break;
    case 12:
        tcp_want_sent_all(s, e->conn);
        e->asked = true;
        break;
    case 13:
        tcp_set_user(s, e->conn, amount);
        require(f, tcp_user(s, e->conn) == amount, "the user's number");
        break;
    default:
        if (tcp_recv_eof(s, e->conn) && !e->failed)
            require(f, l->end[!host].shut || l->end[!host].dirty, "an end of stream that nobody made");
    }
}

/* --- the world --- */

static void step_wire(struct fuzz *f, uint32_t what)
{
    struct pair *p = &f->p;
    uint32_t at = take(&f->in, 1);

    if (p->count == 0)
        return;
    at %= p->count;
    switch (what % 4) {
    case 0:
        pair_deliver(p, at);
        break;
    case 1:
        if (p->count < WIRE_MAX)
            p->wire[p->count++] = p->wire[at];
        break;
    case 2:
        f->calm = false;
        p->count--;
        memmove(&p->wire[at], &p->wire[at + 1], (p->count - at) * sizeof *p->wire);
        break;
    default:
        pair_deliver(p, 0);
    }
}

static void step(struct fuzz *f)
{
    static const uint32_t waits_us[] = {1, 500, 40000, 250000, 1000000, 7000000};
    uint32_t what = take(&f->in, 1);

    if (what < 20)
        call_connect(f);
    else if (what < 150)
        call(f);
    else if (what < 190)
        step_wire(f, what);
    else if (what < 215)
        pair_work(&f->p);
    else if (what < 240)
        pair_settle(&f->p);
    else if (what < 250)
        pair_pass(&f->p, waits_us[what % 6]);
    else if (what < 252) {
        f->calm = false;
        tcp_unlisten(f->p.hosts[what & 1].s, &(struct ip_addr){{0}}, 80);
    } else {
        (void)tcp_listen(f->p.hosts[what & 1].s, &(struct ip_addr){{0}}, 80, 9);
    }
    pair_check(&f->p);
}

static bool finish_line(struct fuzz *f, struct line *l)
{
    bool done = true;

    for (uint32_t host = 0; host < 2; host++) {
        struct end *e = &l->end[host];
        struct tcp_stack *s = f->p.hosts[host].s;

        if (!l->used || !e->held || e->failed)
            continue;
        tcp_shutdown(s, e->conn, f->p.now_us);
        e->shut = e->shut || tcp_conn_state(s, e->conn) >= TCP_STATE_ESTABLISHED;
        call_recv(f, l, host, 8191);
        done = done && tcp_recv_eof(s, e->conn) && tcp_unacked(s, e->conn) == 0;
    }
    return done;
}

static void wind_up(struct fuzz *f)
{
    bool done = false;

    while (f->lent_count > 0)
        call_give(f);
    for (uint32_t i = 0; i < 400 && !done; i++) {
        pair_pass(&f->p, 1000000);
        done = true;
        for (uint32_t n = 0; n < LINES; n++)
            done = finish_line(f, &f->lines[n]) && done;
    }
    for (uint32_t n = 0; n < LINES; n++) {
        struct line *l = &f->lines[n];
        bool whole = l->used && l->end[0].held && l->end[1].held && !l->end[0].failed && !l->end[1].failed;

        if (whole && (l->end[0].received != l->end[1].sent || l->end[1].received != l->end[0].sent))
            sim_fail(&f->p.failure, "port %u: %llu of %llu and %llu of %llu arrive", l->port,
                     (unsigned long long)l->end[1].received, (unsigned long long)l->end[0].sent,
                     (unsigned long long)l->end[0].received, (unsigned long long)l->end[1].sent);
        for (uint32_t host = 0; host < 2; host++)
            if (l->used && l->end[host].held)
                let_go(f, l, host, n & 1);
    }
    for (uint32_t i = 0; i < 60 && (i < 2 || !pair_is_at_rest(&f->p)); i++) {
        pair_pass(&f->p, 10000000);
        for (uint32_t n = 0; n < 2 * LINES; n++) /* accepted meanwhile */
            if (f->lines[n / 2].used && f->lines[n / 2].end[n & 1].held)
                let_go(f, &f->lines[n / 2], n & 1, true);
    }
    host_check_empty(&f->p.hosts[0]);
    host_check_empty(&f->p.hosts[1]);
}

static void set_up(struct fuzz *f)
{
    uint32_t choice = take(&f->in, 1), mode = take(&f->in, 1);
    struct tcp_config config = {
        .conn_max = choice & 1 ? 3 : LINES,
        .half_open_max = choice & 2 ? 1 : 8,
        .time_wait_max = choice & 4 ? 1 : 16,
        .extension_max = choice & 8   ? 2
                         : choice & 1 ? 3
                                      : LINES,
        .rx_slots = choice & 16 ? 12 : 40,
        .tx_slots = choice & 32 ? 12 : 40,
        .mtu = choice & 64 ? 576 : 1500,
        .source_port_first = FIRST_PORT,
        .source_port_last = FIRST_PORT + 2000,
        .rcv_buf_bytes = mode & 1 ? 4096 : 16384,
        .snd_buf_bytes = mode & 2 ? 4096 : 16384,
        .msl_ms = 1000,
        .congestion_control = mode >> 2 & 1 ? TCP_CC_BBR : TCP_CC_CUBIC,
        .ecn = mode >> 3 & 1,
        .pacing = mode >> 4 & 1,
        .reset_unknown = true,
        .flow_secret = {1, 2},
    };

    f->calm = true;
    f->tight = (choice & 0x3b) != 0;
    pair_open(&f->p, &config, choice & 128 ? 4294967295000ull : 5000000, mode & 32 ? 1000 : 0);
    for (uint32_t host = 0; host < 2; host++)
        tcp_listen(f->p.hosts[host].s, &(struct ip_addr){{0}}, 80, 9);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz f;

    memset(&f.p.failure, 0, sizeof f - offsetof(struct fuzz, p.failure));
    f.in = (struct input){data, size};
    f.p.heard = heard;
    if (setjmp(f.p.failure.out) != 0) {
        fprintf(stderr, "%s\n", f.p.failure.text);
        abort();
    }
    set_up(&f);
    for (uint32_t steps = 0; f.in.left > 0 && steps < STEPS_MAX; steps++)
        step(&f);
    wind_up(&f);
    pair_close(&f.p);
    return 0;
}
