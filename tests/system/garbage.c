/*
 * garbage.c: frames that nobody should send, as fast as the interface takes them, for a number of seconds.
 *
 *   garbage INTERFACE SERVER_MAC SERVER_ADDRESS PORT SECONDS SEED
 *
 * Each frame is one of the kinds below, drawn from the seed.  Those that get as far as TCP have right checksums where the kind asks
 * for it, so that the receiver's deeper checks are reached too; none is a lone SYN, which would be no garbage.  Prints
 * one JSON object: frames sent, and by kind.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, FRAME_MAX = 1514, ETHER = 14, IP4 = 20, TCP = 20, PAYLOAD_MAX = 400 };

enum kind {
    KIND_NOISE,     /* random bytes after the addresses */
    KIND_CUT,       /* a right packet, cut anywhere */
    KIND_IP_LENGTH, /* total length of the header is not the frame's */
    KIND_IP_HEADER, /* random IHL and version */
    KIND_IP_CHECKSUM,
    KIND_FRAGMENT,
    KIND_TCP_OFFSET, /* random data offset */
    KIND_TCP_CHECKSUM,
    KIND_TCP_OPTIONS, /* random bytes as options, right checksums */
    KIND_TCP_FLAGS,   /* any flags but a lone SYN, no connection, right checksums */
    KIND_ARP_NOISE,
    KIND_ICMP_NOISE,
    KIND_IP6_NOISE,
    KIND_LAND, /* from the server's own address and port */
    KIND_COUNT
};

static const char *const kind_names[KIND_COUNT] = {
    "noise",        "cut",         "ip_length", "ip_header", "ip_checksum", "fragment",  "tcp_offset",
    "tcp_checksum", "tcp_options", "tcp_flags", "arp_noise", "icmp_noise",  "ip6_noise", "land",
};

struct target {
    uint8_t mac[6];
    uint32_t address; /* network order */
    uint16_t port;
};

static uint64_t state;

static uint32_t draw(void)
{
    uint64_t z = (state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) >> 16);
}

static void noise(uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)draw();
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t sum(const uint8_t *at, size_t len, uint32_t start)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        start += (uint32_t)at[i] << 8 | at[i + 1];
    return len % 2 != 0 ? start + ((uint32_t)at[len - 1] << 8) : start;
}

static uint32_t fold(uint32_t s)
{
    while (s >> 16 != 0)
        s = (s & 0xffff) + (s >> 16);
    return ~s & 0xffff;
}

static void seal_ip(uint8_t *ip)
{
    put16(ip + 10, 0);
    put16(ip + 10, fold(sum(ip, IP4, 0)));
}

static void seal_tcp(uint8_t *ip, size_t tcp_len)
{
    uint8_t *tcp = ip + IP4;

    put16(tcp + 16, 0);
    put16(tcp + 16, fold(sum(tcp, tcp_len, sum(ip + 12, 8, 6 + (uint32_t)tcp_len))));
}

/* A right IPv4 TCP packet of a connection that does not exist.  Returns the frame's length. */
static size_t whole(uint8_t *frame, const struct target *t, size_t payload)
{
    uint8_t *ip = frame + ETHER, *tcp = ip + IP4;

    put16(frame + 12, ETHERTYPE_IP);
    memset(ip, 0, IP4);
    ip[0] = 0x45;
    put16(ip + 2, (uint32_t)(IP4 + TCP + payload));
    put16(ip + 6, 0x4000);
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, &t->address, 4);
    ip[15] = (uint8_t)(2 + draw() % 250);
    memcpy(ip + 16, &t->address, 4);
    put16(tcp, draw());
    put16(tcp + 2, t->port);
    noise(tcp + 4, 8);
    tcp[12] = 5 << 4;
    tcp[13] = 0x10;
    put16(tcp + 14, 0xffff);
    put16(tcp + 18, 0);
    noise(tcp + TCP, payload);
    seal_ip(ip);
    seal_tcp(ip, TCP + payload);
    return ETHER + IP4 + TCP + payload;
}

static size_t spoil_tcp(uint8_t *frame, enum kind kind, size_t len, size_t payload)
{
    uint8_t *ip = frame + ETHER, *tcp = ip + IP4;

    if (kind == KIND_TCP_OFFSET) {
        tcp[12] = (uint8_t)(draw() << 4);
    } else if (kind == KIND_TCP_CHECKSUM) {
        tcp[16] ^= (uint8_t)(1 + draw() % 255);
        return len;
    } else if (kind == KIND_TCP_OPTIONS) {
        tcp[12] = (uint8_t)((5 + (payload / 4 < 10 ? payload / 4 : 10)) << 4);
    } else if (kind == KIND_TCP_FLAGS) {
        tcp[13] = (uint8_t)draw();
        if ((tcp[13] & 0x17) == 0x02)
            tcp[13] |= 0x01;
    } else {
        memcpy(ip + 12, ip + 16, 4);
        memcpy(tcp, tcp + 2, 2);
        seal_ip(ip);
    }
    seal_tcp(ip, TCP + payload);
    return len;
}

static size_t spoil_ip(uint8_t *frame, enum kind kind, size_t len)
{
    uint8_t *ip = frame + ETHER;

    if (kind == KIND_CUT)
        return ETHER + draw() % (len - ETHER);
    if (kind == KIND_IP_CHECKSUM) {
        ip[10] ^= (uint8_t)(1 + draw() % 255);
        return len;
    }
    if (kind == KIND_IP_LENGTH)
        put16(ip + 2, draw() % 3 == 0 ? draw() % IP4 : (uint32_t)len + 1 + draw() % 60000);
    else if (kind == KIND_IP_HEADER)
        ip[0] = (uint8_t)draw();
    else
        put16(ip + 6, 0x2000 | (draw() & 0x1fff));
    seal_ip(ip);
    return len;
}

static size_t other_protocol(uint8_t *frame, enum kind kind, const struct target *t)
{
    size_t len = 1 + draw() % 120;

    noise(frame + ETHER, len);
    if (kind == KIND_ARP_NOISE) {
        put16(frame + 12, ETHERTYPE_ARP);
        if (draw() % 2 == 0)
            memcpy(frame + ETHER, "\x00\x01\x08\x00\x06\x04\x00", 7);
    } else if (kind == KIND_IP6_NOISE) {
        put16(frame + 12, ETHERTYPE_IPV6);
        frame[ETHER] = 0x60;
        if (len >= 8)
            put16(frame + ETHER + 4, draw() % 100);
    } else if (kind == KIND_ICMP_NOISE) {
        len = whole(frame, t, len) - ETHER;
        frame[ETHER + 9] = 1;
        seal_ip(frame + ETHER);
    }
    return ETHER + len;
}

static size_t make(uint8_t *frame, const struct target *t, enum kind kind)
{
    size_t payload = draw() % PAYLOAD_MAX, len;

    memcpy(frame, t->mac, 6);
    memcpy(frame + 6, "\x02\x6a\x6e\x00", 4);
    noise(frame + 10, 2);
    if (kind == KIND_NOISE) {
        len = draw() % (FRAME_MAX - ETHER);
        noise(frame + 12, len + 2);
        return ETHER + len;
    }
    if (kind == KIND_ARP_NOISE || kind == KIND_ICMP_NOISE || kind == KIND_IP6_NOISE)
        return other_protocol(frame, kind, t);
    len = whole(frame, t, payload);
    if (kind >= KIND_TCP_OFFSET)
        return spoil_tcp(frame, kind, len, payload);
    return spoil_ip(frame, kind, len);
}

static int open_interface(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    if (fd < 0 || address.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        fprintf(stderr, "garbage: cannot open %s: %s\n", name, strerror(errno));
        exit(1);
    }
    return fd;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void flood(int fd, const struct target *t, double seconds, uint64_t *by_kind)
{
    static uint8_t frames[BATCH][FRAME_MAX + 16];
    double end = now() + seconds;

    while (now() < end) {
        struct mmsghdr messages[BATCH];
        struct iovec parts[BATCH];
        enum kind kinds[BATCH];
        int sent;

        memset(messages, 0, sizeof(messages));
        for (int i = 0; i < BATCH; i++) {
            kinds[i] = (enum kind)(draw() % KIND_COUNT);
            parts[i] = (struct iovec){.iov_base = frames[i], .iov_len = make(frames[i], t, kinds[i])};
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        sent = sendmmsg(fd, messages, BATCH, 0);
        for (int i = 0; i < sent; i++)
            by_kind[kinds[i]]++;
    }
}

int main(int argc, char **argv)
{
    struct target t = {0};
    uint64_t by_kind[KIND_COUNT] = {0}, total = 0;

    if (argc != 7 ||
        sscanf(argv[2], "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &t.mac[0], &t.mac[1], &t.mac[2], &t.mac[3], &t.mac[4],
               &t.mac[5]) != 6 ||
        inet_pton(AF_INET, argv[3], &t.address) != 1) {
        fprintf(stderr, "usage: garbage INTERFACE SERVER_MAC SERVER_ADDRESS PORT SECONDS SEED\n");
        return 2;
    }
    t.port = (uint16_t)atoi(argv[4]);
    state = strtoull(argv[6], NULL, 10);
    flood(open_interface(argv[1]), &t, atof(argv[5]), by_kind);
    printf("{");
    for (int i = 0; i < KIND_COUNT; i++) {
        total += by_kind[i];
        printf("\"%s\": %llu, ", kind_names[i], (unsigned long long)by_kind[i]);
    }
    printf("\"total\": %llu}\n", (unsigned long long)total);
    return 0;
}
