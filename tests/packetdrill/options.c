/*
 * options.c: see options.h.
 */
#include "tests/packetdrill/options.h"

#include "tests/packetdrill/linux_info.h"
#include "wire/tcp_options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

/* Of <linux/tcp.h>, whose other names are the core's. */
enum {
    OPT_NODELAY = 1,
    OPT_MAXSEG = 2,
    OPT_KEEPIDLE = 4,
    OPT_KEEPINTVL = 5,
    OPT_KEEPCNT = 6,
    OPT_SYNCNT = 7,
    OPT_LINGER2 = 8,
    OPT_DEFER_ACCEPT = 9,
    OPT_INFO = 11,
    OPT_QUICKACK = 12,
    OPT_CONGESTION = 13,
    OPT_USER_TIMEOUT = 18,
    OPT_NOTSENT_LOWAT = 25,
    OPT_INQ = 36,
};
enum { KEEPIDLE_MAX_S = 32767, KEEPCNT_MAX = 15 }; /* Linux's, the core's */
enum { LINUX_QUICK_ACKS = 16, LINUX_MSL_MS = 30000, LINUX_RCV_BUF = 131072, LINUX_SND_BUF = 4194304 };

/* --- options that are only given back --- */

static bool is_without_effect(int level, int name)
{
    if (level == SOL_SOCKET)
        return name == SO_REUSEADDR || name == SO_REUSEPORT || name == SO_PRIORITY || name == SO_MARK ||
               name == SO_RCVBUF || name == SO_SNDBUF || name == SO_TIMESTAMP || name == SO_INCOMING_CPU;
    if (level == IPPROTO_TCP)
        return name == OPT_LINGER2 || name == OPT_SYNCNT || name == OPT_DEFER_ACCEPT || name == OPT_NOTSENT_LOWAT ||
               name == OPT_INQ || name == OPT_QUICKACK;
    return (level == IPPROTO_IP && (name == IP_RECVERR || name == IP_MTU_DISCOVER)) ||
           (level == IPPROTO_IPV6 && (name == IPV6_V6ONLY || name == IPV6_RECVERR));
}

static void keep(struct sock *k, int level, int name, int value)
{
    for (uint32_t i = 0; i < k->kept_count; i++)
        if (k->kept[i].level == level && k->kept[i].name == name) {
            k->kept[i].value = value;
            return;
        }
    if (k->kept_count < KEPT_MAX)
        k->kept[k->kept_count++] = (struct kept_option){level, name, value};
}

static bool kept(const struct sock *k, int level, int name, int *value)
{
    for (uint32_t i = 0; i < k->kept_count; i++)
        if (k->kept[i].level == level && k->kept[i].name == name) {
            *value = k->kept[i].value;
            return true;
        }
    return false;
}

/* --- setting --- */

void option_settings(const struct sock *k, struct tcp_settings *settings)
{
    tcp_default_settings(host.stack, settings);
    settings->keepalive_ms = k->keepalive ? (uint32_t)k->keepidle_s * 1000 : 0;
    settings->keepalive_interval_ms = (uint32_t)k->keepintvl_s * 1000;
    settings->keepalive_probes = (uint8_t)k->keepcnt;
    settings->user_timeout_ms = k->user_timeout_ms;
    settings->dscp = (uint8_t)k->tos >> 2;
    settings->ttl = (uint8_t)k->ttl;
    if (k->congestion >= 0)
        settings->congestion_control = (uint8_t)k->congestion;
}

/* The settings of a connection that is there already. */
static int change(const struct sock *k)
{
    struct tcp_settings settings;

    if (k->conn == TCP_NO_CONN)
        return 0;
    option_settings(k, &settings);
    return tcp_set_settings(host.stack, k->conn, &settings);
}

static int set_congestion(struct sock *k, const char *value, size_t len)
{
    char name[16] = {0};

    memcpy(name, value, len < sizeof name - 1 ? len : sizeof name - 1);
    k->congestion = tcp_cc_by_name(strcmp(name, "reno") == 0 ? "newreno" : name);
    return k->congestion < 0 ? -ENOENT : change(k);
}

static void set_buffer(int name, int value)
{
    uint32_t *bytes = name == SO_RCVBUF ? &host.settings.config.rcv_buf_bytes : &host.settings.config.snd_buf_bytes;

    if (host.stack == NULL)
        *bytes = value > 4096 ? (uint32_t)value : 4096;
}

/* Within its bounds; what it was when the core refuses. */
static int set_number(struct sock *k, int *field, int value, int max)
{
    int before = *field, result;

    if (value < 1 || value > max)
        return -EINVAL;
    *field = value;
    result = change(k);
    if (result != 0)
        *field = before;
    return result;
}

static int set_tcp(struct sock *k, int name, int value)
{
    switch (name) {
    case OPT_NODELAY:
        k->nodelay = value != 0;
        if (k->conn != TCP_NO_CONN)
            tcp_set_nodelay(host.stack, k->conn, k->nodelay);
        return 0;
    case OPT_KEEPIDLE:
        return set_number(k, &k->keepidle_s, value, KEEPIDLE_MAX_S);
    case OPT_KEEPINTVL:
        return set_number(k, &k->keepintvl_s, value, KEEPIDLE_MAX_S);
    case OPT_KEEPCNT:
        return value > KEEPCNT_MAX ? -ENOPROTOOPT : set_number(k, &k->keepcnt, value, KEEPCNT_MAX);
    case OPT_USER_TIMEOUT:
        if (value < 0)
            return -EINVAL;
        k->user_timeout_ms = (uint32_t)value;
        return change(k);
    default:
        return -ENOPROTOOPT;
    }
}

/* The field of what is sent that an option of IP sets, which its number has whatever the family; null: it sets none. */
static int *ip_field(struct sock *k, int level, int name)
{
    if ((level == IPPROTO_IP && name == IP_TOS) || (level == IPPROTO_IPV6 && name == IPV6_TCLASS))
        return &k->tos;
    if ((level == IPPROTO_IP && name == IP_TTL) || (level == IPPROTO_IPV6 && name == IPV6_UNICAST_HOPS))
        return &k->ttl;
    return NULL;
}

static int set_ip(struct sock *k, int *field, int value)
{
    if (value < 0 || value > UINT8_MAX || (field == &k->ttl && value == 0))
        return -EINVAL;
    *field = value;
    return change(k);
}

int option_set(struct sock *k, int level, int name, const void *value, socklen_t len)
{
    struct linger linger;
    int number = 0;

    if (level == IPPROTO_TCP && name == OPT_CONGESTION)
        return set_congestion(k, value, len);
    if (level == SOL_SOCKET && name == SO_LINGER) {
        if (len < sizeof linger)
            return -EINVAL;
        memcpy(&linger, value, sizeof linger);
        k->linger_s = linger.l_onoff != 0 ? linger.l_linger : -1;
        return 0;
    }
    if (len < sizeof number)
        return -EINVAL;
    memcpy(&number, value, sizeof number);
    if (level == SOL_SOCKET && name == SO_KEEPALIVE) {
        k->keepalive = number != 0;
        return change(k);
    }
    if (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_SNDBUF)) {
        set_buffer(name, number);
        number *= 2; /* as Linux tells it */
    }
    if (is_without_effect(level, name)) {
        keep(k, level, name, number);
        return 0;
    }
    if (ip_field(k, level, name) != NULL)
        return set_ip(k, ip_field(k, level, name), number);
    return level == IPPROTO_TCP ? set_tcp(k, name, number) : -ENOPROTOOPT;
}

/* --- getting --- */

/* The number that Linux gives to a state. */
static uint8_t linux_state(const struct sock *k)
{
    static const uint8_t numbers[] = {
        [TCP_STATE_FREE] = 7,       [TCP_STATE_CLOSED] = 7,       [TCP_STATE_LISTEN] = 10,
        [TCP_STATE_SYN_SENT] = 2,   [TCP_STATE_SYN_RECEIVED] = 3, [TCP_STATE_ESTABLISHED] = 1,
        [TCP_STATE_FIN_WAIT_1] = 4, [TCP_STATE_FIN_WAIT_2] = 5,   [TCP_STATE_CLOSE_WAIT] = 8,
        [TCP_STATE_CLOSING] = 11,   [TCP_STATE_LAST_ACK] = 9,     [TCP_STATE_TIME_WAIT] = 6,
    };

    if (k->conn == TCP_NO_CONN)
        return k->listening ? 10 : 7;
    return numbers[tcp_conn_state(host.stack, k->conn)];
}

static void fill_info(const struct sock *k, struct info_values *v)
{
    struct tcp_info info = {0};
    uint32_t smss;

    if (k->conn != TCP_NO_CONN)
        tcp_get_info(host.stack, k->conn, &info);
    smss = info.smss != 0 ? info.smss : 1;
    *v = (struct info_values){
        .state = linux_state(k),
        .snd_wscale = info.wscale_snd,
        .rcv_wscale = info.wscale_rcv,
        .timestamps = info.timestamps,
        .sack = info.sack,
        .wscale = info.wscale_snd != 0 || info.wscale_rcv != 0,
        .ecn = info.ecn,
        .rto_us = info.rto_us,
        .rtt_us = info.srtt_us,
        .rttvar_us = info.rttvar_us,
        .snd_mss = info.smss,
        .snd_cwnd = info.cwnd_bytes / smss,
        .snd_ssthresh = info.ssthresh_bytes == UINT32_MAX ? INT32_MAX : info.ssthresh_bytes / smss,
        .unacked = (info.flight_bytes + smss - 1) / smss,
        .notsent_bytes = info.unsent_bytes,
        .snd_wnd = info.snd_wnd,
        .pmtu = host.settings.config.mtu,
    };
}

static bool get_number(struct sock *k, int level, int name, int *value)
{
    struct tcp_info info;

    if (level == SOL_SOCKET) {
        switch (name) {
        case SO_ERROR:
            *value = sock_take_error(k);
            return true;
        case SO_TYPE:
            *value = SOCK_STREAM;
            return true;
        case SO_ACCEPTCONN:
            *value = k->listening;
            return true;
        case SO_KEEPALIVE:
            *value = k->keepalive;
            return true;
        }
    }
    if (level == IPPROTO_TCP) {
        switch (name) {
        case OPT_NODELAY:
            *value = k->nodelay;
            return true;
        case OPT_KEEPIDLE:
            *value = k->keepidle_s;
            return true;
        case OPT_KEEPINTVL:
            *value = k->keepintvl_s;
            return true;
        case OPT_KEEPCNT:
            *value = k->keepcnt;
            return true;
        case OPT_USER_TIMEOUT:
            *value = (int)k->user_timeout_ms;
            return true;
        case OPT_MAXSEG:
            *value = 536;
            if (k->conn != TCP_NO_CONN) {
                tcp_get_info(host.stack, k->conn, &info);
                *value = info.smss;
            }
            return true;
        }
    }
    return kept(k, level, name, value);
}

int option_get(struct sock *k, int level, int name, void *value, socklen_t *len)
{
    struct info_values info;
    int number;

    if (level == IPPROTO_TCP && name == OPT_INFO) {
        fill_info(k, &info);
        *len = (socklen_t)linux_info(&info, value, *len);
        return 0;
    }
    if (level == IPPROTO_TCP && name == OPT_CONGESTION) {
        static const char *const names[] = {
            [TCP_CC_CUBIC] = "cubic", [TCP_CC_NEWRENO] = "reno", [TCP_CC_DCTCP] = "dctcp", [TCP_CC_BBR] = "bbr"};
        const char *cc = names[k->congestion >= 0 ? k->congestion : host.settings.config.congestion_control];

        *len = *len < strlen(cc) + 1 ? *len : (socklen_t)strlen(cc) + 1;
        memcpy(value, cc, *len);
        return 0;
    }
    if (level == SOL_SOCKET && name == SO_LINGER) {
        struct linger linger = {k->linger_s >= 0, k->linger_s >= 0 ? k->linger_s : 0};

        *len = *len < sizeof linger ? *len : sizeof linger;
        memcpy(value, &linger, *len);
        return 0;
    }
    if (!get_number(k, level, name, &number))
        return -ENOPROTOOPT;
    *len = *len < sizeof number ? *len : sizeof number;
    memcpy(value, &number, *len);
    return 0;
}

/* --- flags --- */

static bool set_field(struct tcp_config *c, const char *name, uint32_t value)
{
    const struct {
        const char *name;
        void *field;
        size_t size;
    } fields[] = {
        {"mtu", &c->mtu, sizeof c->mtu},
        {"rcv_buf_bytes", &c->rcv_buf_bytes, sizeof c->rcv_buf_bytes},
        {"snd_buf_bytes", &c->snd_buf_bytes, sizeof c->snd_buf_bytes},
        {"msl_ms", &c->msl_ms, sizeof c->msl_ms},
        {"fin_wait_2_ms", &c->fin_wait_2_ms, sizeof c->fin_wait_2_ms},
        {"half_open_max", &c->half_open_max, sizeof c->half_open_max},
        {"congestion_control", &c->congestion_control, sizeof c->congestion_control},
        {"window_scale", &c->window_scale, sizeof c->window_scale},
        {"quick_acks", &c->quick_acks, sizeof c->quick_acks},
        {"handshake_rtt", &c->handshake_rtt, sizeof c->handshake_rtt},
        {"options_off", &c->options_off, sizeof c->options_off},
        {"reset_unknown", &c->reset_unknown, sizeof c->reset_unknown},
    };

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (strcmp(fields[i].name, name) == 0) {
            memcpy(fields[i].field, &value, fields[i].size); /* little-endian */
            return true;
        }
    return false;
}

static bool set_address(const char *text, struct host_settings *settings)
{
    uint8_t v4[4];
    struct ip_addr addr;

    if (inet_pton(AF_INET, text, v4) == 1)
        settings->laddr[0] = ip_addr_from_ipv4(v4);
    else if (inet_pton(AF_INET6, text, addr.b) == 1)
        settings->laddr[1] = addr;
    else
        return false;
    return true;
}

static bool read_flag(char *flag, struct host_settings *settings)
{
    char *value = strchr(flag, '=');
    char *end;
    unsigned long number;

    if (value == NULL) {
        settings->linux |= strcmp(flag, "linux") == 0;
        return settings->linux;
    }
    *value++ = '\0';
    if (strcmp(flag, "local") == 0)
        return set_address(value, settings);
    number = strtoul(value, &end, 0);
    return *value != '\0' && *end == '\0' && set_field(&settings->config, flag, (uint32_t)number);
}

bool flags_read(const char *flags, struct host_settings *settings)
{
    char copy[sizeof settings->flags];
    char *rest, *flag;

    if (flags == NULL)
        return true;
    snprintf(copy, sizeof copy, "%s", flags);
    for (flag = strtok_r(copy, ",", &rest); flag != NULL; flag = strtok_r(NULL, ",", &rest))
        if (!read_flag(flag, settings)) {
            fprintf(stderr, "janus: flag %s is not understood\n", flag);
            return false;
        }
    return true;
}

/* --- sysctls --- */

/* The numbers of a sysctl; returns how many there are, at most 3. */
static int sysctl_numbers(const char *name, unsigned long numbers[3])
{
    char path[128];
    FILE *file;
    int count = 0;

    snprintf(path, sizeof path, "/proc/sys/net/ipv4/%s", name);
    file = fopen(path, "re");
    if (file == NULL)
        return 0;
    while (count < 3 && fscanf(file, "%lu", &numbers[count]) == 1)
        count++;
    fclose(file);
    return count;
}

void sysctls_read(struct host_settings *settings)
{
    static const struct {
        const char *name;
        uint8_t option;
    } switches[] = {
        {"tcp_timestamps", TCP_OPTION_TIMESTAMPS},
        {"tcp_sack", TCP_OPTION_SACK_PERMITTED},
        {"tcp_window_scaling", TCP_OPTION_WINDOW_SCALE},
    };
    struct tcp_config *c = &settings->config;
    unsigned long n[3];

    if (!settings->linux)
        return;
    c->quick_acks = LINUX_QUICK_ACKS;
    c->handshake_rtt = true;
    c->rcv_buf_bytes = LINUX_RCV_BUF;
    c->snd_buf_bytes = LINUX_SND_BUF;
    c->msl_ms = LINUX_MSL_MS;
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++)
        if (sysctl_numbers(switches[i].name, n) == 1 && n[0] == 0)
            c->options_off |= switches[i].option;
    if (sysctl_numbers("tcp_rmem", n) == 3 && n[1] >= 4096 && n[2] < 1ul << 30) {
        c->rcv_buf_bytes = (uint32_t)n[1];
        for (c->window_scale = 0; c->window_scale < 14 && n[2] >> c->window_scale > UINT16_MAX;)
            c->window_scale++;
    }
    if (sysctl_numbers("tcp_wmem", n) == 3 && n[2] >= 4096 && n[2] < 1ul << 30)
        c->snd_buf_bytes = (uint32_t)n[2];
    if (sysctl_numbers("tcp_fin_timeout", n) == 1)
        c->fin_wait_2_ms = (uint32_t)n[0] * 1000;
    flags_read(settings->flags, settings);
    settings->linux = false;
}
