/*
 * hostile_app.c: attaches as an app should, then breaks every rule of the shared memory in one named class.
 *
 *   hostile_app SOCKET CLASS SEED SECONDS
 *
 * Prints {"ops": N, "closed": R, "refused": N, "allowed": [..]}: R is the drop reason for which janusd has closed the session, 0: none.
 */
#include "hostile_app.h"

#include "wire/bytes.h"
#include "wire/checksum.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

static uint32_t refused; /* tries that the kernel has refused, as it must */
static char allowed[512];

static void must_fail(bool failed, const char *what)
{
    refused += failed;
    if (!failed)
        snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s\"%s\"", allowed[0] ? ", " : "", what);
}

/* --- attach, as it should be --- */

static void receive_welcome(struct hostile *h)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof h->fds)];
    } control;
    struct iovec iov = {&h->welcome, sizeof h->welcome};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};

    if (recvmsg(h->sock, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof h->welcome || CMSG_FIRSTHDR(&m) == NULL)
        give_up("no WELCOME");
    h->fd_count = (uint32_t)((CMSG_FIRSTHDR(&m)->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(h->fds, CMSG_DATA(CMSG_FIRSTHDR(&m)), h->fd_count * sizeof(int));
}

static void say(struct hostile *h, uint32_t type)
{
    struct attach_plain m = {.type = type, .seq = ++h->seq, .generation = h->welcome.generation};
    uint8_t answer[512];

    if (send(h->sock, &m, sizeof m, MSG_NOSIGNAL) < 0 || recv(h->sock, answer, sizeof answer, 0) <= 0)
        give_up("attach");
}

static void listen_on(struct hostile *h, uint16_t port)
{
    struct attach_listen m = {.type = ATTACH_LISTEN, .seq = ++h->seq, .port = port};
    struct attach_reply reply = {0};

    if (send(h->sock, &m, sizeof m, MSG_NOSIGNAL) < 0 || recv(h->sock, &reply, sizeof reply, 0) <= 0 || reply.status)
        give_up("LISTEN");
}

static void map_regions(struct hostile *h)
{
    uint32_t io = h->welcome.tid % h->welcome.sizes.io_count;

    if (!shm_layout(&h->welcome.sizes, &h->at))
        give_up("sizes");
    h->j2a = mmap(NULL, h->at.j2a_bytes, PROT_READ, MAP_SHARED, h->fds[FD_J2A], 0);
    h->a2j = mmap(NULL, h->at.a2j_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, h->fds[FD_A2J], 0);
    h->rows = mmap(NULL, h->at.rows_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, h->fds[FD_ROWS], 0);
    if (h->j2a == MAP_FAILED || h->a2j == MAP_FAILED || h->rows == MAP_FAILED)
        give_up("mmap");
    h->mine = &((struct shm_a2j_header *)h->a2j)->io[io];
    h->theirs = &((const struct shm_j2a_header *)h->j2a)->io[io];
    h->tx = (struct shm_desc *)(h->a2j + h->at.tx[io]);
    h->returns = (struct shm_desc *)(h->a2j + h->at.rx_return[io]);
    h->tx_head = h->return_head = h->rx_tail = 0;
}

static void hello_and_map(struct hostile *h)
{
    struct attach_hello wish = hello();

    h->sock = connect_to(h->path);
    if (h->sock < 0 || send(h->sock, &wish, sizeof wish, MSG_NOSIGNAL) < 0)
        give_up("connect");
    receive_welcome(h);
    map_regions(h);
}

static void go_online(struct hostile *h)
{
    say(h, ATTACH_MAPPED);
    listen_on(h, PORT);
    say(h, ATTACH_ONLINE);
}

/* --- packets --- */

/* A segment that the lease allows, to a closed port of the client, which answers with RST. */
static void honest(uint8_t *p, uint16_t source_port)
{
    static const uint8_t addresses[8] = {10, 77, 0, 1, 10, 77, 0, 2};
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct ip_addr from, to;

    memset(p, 0, PACKET);
    p[0] = 0x45;
    put_be16(p + 2, PACKET);
    put_be16(p + 6, 0x4000);
    p[8] = 64;
    p[9] = 6;
    memcpy(p + 12, addresses, sizeof addresses);
    uint16_t sum = checksum_finish(checksum_add(0, p, 20));
    memcpy(p + 10, &sum, sizeof sum);
    put_be16(p + 20, source_port);
    put_be16(p + 22, PEER_PORT);
    p[32] = 0x50;
    p[33] = 0x10; /* ACK */
    memcpy(from.b, mapped, 12);
    memcpy(from.b + 12, addresses, 4);
    memcpy(to.b, mapped, 12);
    memcpy(to.b + 12, addresses + 4, 4);
    sum = checksum_finish(checksum_add(checksum_pseudo(&from, &to, 6, PACKET - 20), p + 20, PACKET - 20));
    memcpy(p + 36, &sum, sizeof sum);
}

static void fix_header_checksum(uint8_t *p)
{
    put_be16(p + 10, 0);
    uint16_t sum = checksum_finish(checksum_add(0, p, 20));
    memcpy(p + 10, &sum, sizeof sum);
}

/* Honest and changed packets in turn, until the session is closed. */
static void forge(struct hostile *h, void (*change)(struct hostile *, uint8_t *))
{
    for (uint32_t slot = 0;; slot = (slot + 1) % TX_SLOTS) {
        honest(tx_slot(h, slot), PORT);
        if (slot % 2) {
            change(h, tx_slot(h, slot));
            fix_header_checksum(tx_slot(h, slot));
        }
        if (!submit(h, to_send(slot)))
            return;
    }
}

static void other_source(struct hostile *h, uint8_t *p)
{
    static const uint8_t sources[4][4] = {{10, 77, 0, 2}, {10, 77, 0, 3}, {8, 8, 8, 8}, {127, 0, 0, 1}};
    memcpy(p + 12, sources[draw(h) % 4], 4);
}

static void other_port(struct hostile *h, uint8_t *p)
{
    static const uint16_t ports[] = {22, 7050, 7999, 8100, 45000, 0, 65535};
    put_be16(p + 20, ports[draw(h) % 7]);
}

static void other_protocol(struct hostile *h, uint8_t *p)
{
    static const uint8_t protocols[] = {17, 1, 4, 41, 47, 50, 132, 0, 255};
    p[9] = protocols[draw(h) % sizeof protocols];
}

static void other_length(struct hostile *h, uint8_t *p)
{
    if (draw(h) % 2)
        put_be16(p + 2, (uint16_t)(PACKET + 1 + draw(h) % 1000)); /* longer than the descriptor says */
    else
        p[32] = (uint8_t)(draw(h) % 2 ? 0xf0 : 0x40); /* a TCP header beyond the packet, or of 16 bytes */
}

static void fragment(struct hostile *h, uint8_t *p)
{
    put_be16(p + 6, draw(h) % 2 ? 0x2000 : 1 + draw(h) % 0x1fff); /* more fragments, or an offset */
}

static void ip_options(struct hostile *h, uint8_t *p)
{
    (void)h;
    p[0] = 0x46; /* LSRR in the place of the ports */
    p[20] = 131;
}

static void other_destination(struct hostile *h, uint8_t *p)
{
    static const uint8_t to[4][4] = {{224, 0, 0, 1}, {255, 255, 255, 255}, {127, 0, 0, 1}, {0, 0, 0, 0}};
    memcpy(p + 16, to[draw(h) % 4], 4);
}

static void forged_source(struct hostile *h)
{
    forge(h, other_source);
}
static void forged_port(struct hostile *h)
{
    forge(h, other_port);
}
static void forged_protocol(struct hostile *h)
{
    forge(h, other_protocol);
}
static void forged_length(struct hostile *h)
{
    forge(h, other_length);
}
static void forged_fragment(struct hostile *h)
{
    forge(h, fragment);
}
static void forged_options(struct hostile *h)
{
    forge(h, ip_options);
}
static void forged_destination(struct hostile *h)
{
    forge(h, other_destination);
}

/* Any bytes at all behind a descriptor that is in order. */
static void random_packet(struct hostile *h)
{
    for (uint32_t slot = 0;; slot = (slot + 1) % TX_SLOTS) {
        for (uint32_t i = 0; i < PACKET; i++)
            tx_slot(h, slot)[i] = (uint8_t)draw(h);
        if (slot % 4)
            tx_slot(h, slot)[0] = 0x45;
        if (!submit(h, to_send(slot)))
            return;
    }
}

/* --- descriptors and indices --- */

static void random_descriptor(struct hostile *h)
{
    struct shm_desc d;
    uint32_t words[4];

    do {
        for (uint32_t i = 0; i < 4; i++)
            words[i] = draw(h);
        memcpy(&d, words, sizeof d);
        if (draw(h) % 2) { /* far enough into the checks to matter */
            d.kind = SHM_DESC_PACKET;
            d.flags &= SHM_DESC_NEED_CHECKSUM;
            d.slot %= 2 * TX_SLOTS;
        }
    } while (submit(h, d));
}

static void index_beyond(struct hostile *h)
{
    store_index(&h->mine->tx_head, TX_SLOTS + 1 + draw(h) % 0x7fffffff);
    while (!over(h))
        ring_bell(h);
    h->ops++;
}

static void index_backwards(struct hostile *h)
{
    for (uint32_t slot = 0; slot < 64; slot++) {
        honest(tx_slot(h, slot), PORT);
        (void)submit(h, to_send(slot));
    }
    while (load_index(&h->theirs->tx_tail) != h->tx_head && !over(h))
        ring_bell(h);
    store_index(&h->mine->tx_head, h->tx_head - 1 - draw(h) % 64);
    while (!over(h))
        ring_bell(h);
}

/* A return index that runs around the whole of 32 bits. */
static void index_wrapping(struct hostile *h)
{
    for (uint32_t value = draw(h); !over(h); value += 0x10000001, h->ops++) {
        store_index(&h->mine->rx_return_head, value);
        ring_bell(h);
    }
}

static void index_random(struct hostile *h)
{
    struct shm_index *indices[] = {&h->mine->tx_head, &h->mine->rx_tail, &h->mine->rx_return_head,
                                   &h->mine->tx_done_tail};

    for (; !over(h); h->ops++) {
        store_index(indices[draw(h) % 4], draw(h) >> draw(h) % 32);
        ring_bell(h);
    }
}

static void double_submit(struct hostile *h)
{
    honest(tx_slot(h, 0), PORT);
    while (submit(h, to_send(0)))
        continue;
}

static void return_unowned(struct hostile *h)
{
    do
        h->ops++;
    while (give_back(h, (struct shm_desc){.slot = draw(h) % RX_SLOTS, .generation = 1, .kind = SHM_DESC_RETURN}));
}

static void return_random(struct hostile *h)
{
    struct shm_desc d;
    uint32_t words[4];

    do {
        for (uint32_t i = 0; i < 4; i++)
            words[i] = draw(h);
        memcpy(&d, words, sizeof d);
    } while (give_back(h, d));
}

/* What the client answers is given back with a wrong generation, then rightly, then again. */
static void return_stale(struct hostile *h)
{
    const struct shm_desc *rx = (const struct shm_desc *)(h->j2a + h->at.rx[0]);

    honest(tx_slot(h, 0), PORT);
    while (submit(h, to_send(0))) {
        while (h->rx_tail != load_index(&h->theirs->rx_head)) {
            struct shm_desc d = rx[h->rx_tail++ % (2 * RX_SLOTS)];
            d.kind = SHM_DESC_RETURN;
            d.generation = (uint16_t)(d.generation + 1);
            (void)give_back(h, d);
            d.generation = (uint16_t)(d.generation - 1);
            (void)give_back(h, d);
            (void)give_back(h, d);
        }
        store_index(&h->mine->rx_tail, h->rx_tail);
    }
}

/* --- time of check, time of use --- */

static _Atomic bool flipping;

/* Mostly honest; now and then, for a moment, from another address or port, with the checksum that fits. */
static void *flip(void *arg)
{
    struct hostile *h = arg;
    uint8_t good[PACKET], bad[2][PACKET], *p = tx_slot(h, 0);
    struct hostile own = {.random = h->random};

    honest(good, PORT);
    honest(bad[0], PORT);
    bad[0][15] = 3;
    fix_header_checksum(bad[0]);
    honest(bad[1], 7050);
    while (atomic_load(&flipping)) {
        memcpy(p, bad[draw(&own) % 2], 24);
        for (volatile uint32_t i = draw(&own) % 50; i > 0; i--)
            continue;
        memcpy(p, good, 24);
        for (volatile uint32_t i = draw(&own) % 5000; i > 0; i--)
            continue;
    }
    return NULL;
}

static void header_flipped(struct hostile *h)
{
    pthread_t other;

    honest(tx_slot(h, 0), PORT);
    atomic_store(&flipping, true);
    if (pthread_create(&other, NULL, flip, h) != 0)
        give_up("pthread_create");
    while (submit(h, to_send(0)))
        continue;
    atomic_store(&flipping, false);
    pthread_join(other, NULL);
}

/* --- rows and header --- */

/* Every second row is one that janusd may believe: then it may only speak for us. */
static void random_rows(struct hostile *h)
{
    static const uint8_t client[16] = {[10] = 0xff, [11] = 0xff, [12] = 10, [13] = 77, [15] = 2};
    struct shm_a2j_header *header = (struct shm_a2j_header *)h->a2j;

    for (uint32_t turn = 0; !over(h); turn++) {
        for (uint32_t i = 0; i < ROWS && !over(h); i++, h->ops++) {
            uint8_t *row = h->rows + (size_t)i * 64;
            for (uint32_t k = 0; k < 64; k += 4)
                memcpy(row + k, &(uint32_t){draw(h)}, 4);
            if (i % 2) {
                uint16_t ports[3] = {(uint16_t)draw(h), (uint16_t)(PORT + draw(h) % 100), (uint16_t)(draw(h) % 2)};
                row[0] = (uint8_t)(draw(h) % 16);
                memcpy(row + 8, client, sizeof client);
                memcpy(row + 24, ports, sizeof ports);
            }
        }
        store_index(&header->rows_used, turn % 2 ? ROWS : draw(h));
        for (uint32_t i = 0; i < SHM_CACHE_LINE; i++)
            header->counters[i] = (uint64_t)draw(h) << 32 | draw(h);
        header->magic = draw(h);
        header->generation = draw(h);
        store_index(&header->heartbeat, draw(h));
    }
}

/* --- pages --- */

static void try_pages(struct hostile *h, int fd, const char *name, uint64_t bytes, void *mapped)
{
    char text[64], path[64];

    snprintf(text, sizeof text, "%s PUNCH_HOLE", name);
    must_fail(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes) < 0, text);
    snprintf(text, sizeof text, "%s MADV_REMOVE", name);
    must_fail(madvise(mapped, bytes, MADV_REMOVE) < 0, text);
    snprintf(text, sizeof text, "%s shorter", name);
    must_fail(ftruncate(fd, 0) < 0, text);
    snprintf(text, sizeof text, "%s longer", name);
    must_fail(ftruncate(fd, (off_t)(2 * bytes)) < 0, text);
    snprintf(text, sizeof text, "%s PROT_WRITE", name);
    must_fail(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED, text);
    snprintf(text, sizeof text, "%s write", name);
    must_fail(pwrite(fd, "x", 1, 0) < 0, text);
    snprintf(text, sizeof text, "%s seal", name);
    must_fail(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0, text);
    snprintf(text, sizeof text, "%s chmod", name);
    must_fail(fchmod(fd, 0666) < 0, text);
    snprintf(text, sizeof text, "%s reopen", name);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    must_fail(open(path, O_RDWR) < 0, text);
    h->ops += 9;
}

/* The rows' pages may go at any time, and what is said of the file with them; its size and its seals stay. */
static void rows_pages(struct hostile *h)
{
    struct shm_a2j_header *header = (struct shm_a2j_header *)h->a2j;
    int fd = h->fds[FD_ROWS], flags[] = {O_NONBLOCK, O_APPEND, O_DIRECT, 0};
    char path[64];

    must_fail(ftruncate(fd, 0) < 0, "rows shorter");
    must_fail(ftruncate(fd, (off_t)(2 * h->at.rows_bytes)) < 0, "rows longer");
    must_fail(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0, "rows seal");
    must_fail(fchmod(fd, 0666) < 0, "rows chmod");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    must_fail(open(path, O_RDWR) < 0, "rows reopen");
    store_index(&header->rows_used, UINT32_MAX);
    for (uint32_t turn = 0; !over(h); turn++, h->ops++) {
        memset(h->rows, (int)(draw(h) % 16), (size_t)ROWS * 64);
        (void)fcntl(fd, F_SETFL, flags[turn % 4]);
        (void)lseek(fd, (off_t)draw(h), SEEK_SET);
        must_fail((turn % 2 ? fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)h->at.rows_bytes)
                            : madvise(h->rows, h->at.rows_bytes, MADV_REMOVE)) == 0,
                  "rows keep their pages");
        must_fail(h->rows[0] == 0, "a hole that is not zero");
    }
}

static void pages(struct hostile *h)
{
    try_pages(h, h->fds[FD_J2A], "J2A", h->at.j2a_bytes, (void *)(uintptr_t)h->j2a);
    try_pages(h, h->fds[FD_A2J], "A2J", h->at.a2j_bytes, h->a2j);
    must_fail(mprotect((void *)(uintptr_t)h->j2a, 4096, PROT_READ | PROT_WRITE) < 0, "J2A mprotect");
    must_fail(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, h->fds[FD_CSB], 0) == MAP_FAILED, "CSB PROT_WRITE");
    must_fail(fallocate(h->fds[FD_CSB], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0, "CSB PUNCH_HOLE");
    for (uint32_t slot = 0; slot < 64; slot++) {
        honest(tx_slot(h, slot), PORT);
        (void)submit(h, to_send(slot));
    }
}

/* Before MAPPED there is no late seal yet: what is pulled away then must be there again when janusd looks. */
static void early_pages(struct hostile *h)
{
    (void)fallocate(h->fds[FD_A2J], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)h->at.a2j_bytes);
    (void)madvise(h->a2j, h->at.a2j_bytes, MADV_REMOVE);
    go_online(h);
    random_descriptor(h);
}

/* --- doorbells, and an app that stops --- */

/* Says that it sleeps and never looks; rings without end; makes its descriptors blocking. */
static void doorbells(struct hostile *h)
{
    store_index(&((struct shm_a2j_header *)h->a2j)->app_sleeping, 1);
    (void)fcntl(h->fds[FD_DOORBELL], F_SETFL, 0);
    (void)fcntl(h->fds[FD_IO], F_SETFL, O_NONBLOCK);
    honest(tx_slot(h, 0), PORT);
    while (submit(h, to_send(0))) {
        ring_bell(h);
        if (write(h->fds[FD_IO], &(uint64_t){UINT64_MAX - 1}, 8) > 0)
            h->ops++;
        (void)!send(h->fds[FD_DOORBELL], h->a2j, 4096, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* Fills its rings, takes nothing back, and stops until somebody wakes it. */
static void stopped(struct hostile *h)
{
    honest(tx_slot(h, 0), PORT);
    for (uint32_t i = 0; i < 2 * TX_SLOTS; i++) {
        while (h->tx_head - load_index(&h->theirs->tx_tail) >= TX_SLOTS && !over(h))
            ring_bell(h);
        h->tx[h->tx_head++ % TX_SLOTS] = to_send(0);
        store_index(&h->mine->tx_head, h->tx_head);
        h->ops++;
    }
    ring_bell(h);
    raise(SIGSTOP);
}

/* As fast as can be to hosts that are not there: each wants an ARP request and room in the table of all apps. */
static void neighbour_flood(struct hostile *h)
{
    for (uint32_t slot = 0;; slot = (slot + 1) % TX_SLOTS) {
        uint8_t *p = tx_slot(h, slot);
        honest(p, PORT);
        p[19] = (uint8_t)(3 + draw(h) % 250);
        fix_header_checksum(p);
        if (!submit(h, to_send(slot)))
            return;
    }
}

/* --- the whole --- */

struct class
{
    const char *name;
    void (*run)(struct hostile *);
    enum { ONLINE, MAPPED, NOTHING } after; /* how far an honest attach goes before */
};

static const struct class classes[] = {
    {"index-beyond", index_beyond, ONLINE},
    {"index-backwards", index_backwards, ONLINE},
    {"index-wrapping", index_wrapping, ONLINE},
    {"index-random", index_random, ONLINE},
    {"descriptor-random", random_descriptor, ONLINE},
    {"packet-random", random_packet, ONLINE},
    {"double-submit", double_submit, ONLINE},
    {"return-unowned", return_unowned, ONLINE},
    {"return-random", return_random, ONLINE},
    {"return-stale", return_stale, ONLINE},
    {"header-flipped", header_flipped, ONLINE},
    {"rows-random", random_rows, ONLINE},
    {"forged-source", forged_source, ONLINE},
    {"forged-port", forged_port, ONLINE},
    {"forged-protocol", forged_protocol, ONLINE},
    {"forged-length", forged_length, ONLINE},
    {"forged-fragment", forged_fragment, ONLINE},
    {"forged-options", forged_options, ONLINE},
    {"forged-destination", forged_destination, ONLINE},
    {"pages", pages, ONLINE},
    {"rows-pages", rows_pages, ONLINE},
    {"pages-early", early_pages, MAPPED},
    {"doorbells", doorbells, ONLINE},
    {"neighbour-flood", neighbour_flood, ONLINE},
    {"stopped", stopped, ONLINE},
    {"attach-garbage", attach_garbage, NOTHING},
    {"attach-chatter", attach_chatter, ONLINE},
};

static const struct class *find_class(const char *name)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (strcmp(classes[i].name, name) == 0)
            return &classes[i];
    }
    fprintf(stderr, "hostile_app: there is no class %s\n", name);
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: hostile_app SOCKET CLASS SEED SECONDS\n");
        return 2;
    }
    const struct class *class = find_class(argv[2]);
    struct hostile h = {.path = argv[1], .random = strtoull(argv[3], NULL, 10) * 2 + 1, .sock = -1};
    if (class->after != NOTHING)
        hello_and_map(&h);
    if (class->after == ONLINE)
        go_online(&h);
    h.deadline_us = now_us() + (uint64_t)(atof(argv[4]) * 1e6);
    class->run(&h);
    printf("{\"ops\": %llu, \"closed\": %u, \"refused\": %u, \"allowed\": [%s]}\n", (unsigned long long)h.ops,
           class->after != NOTHING ? closed(&h) : 0, refused, allowed);
    return 0;
}
