/*
 * relay.c: a wire between two interfaces that loses, repeats, reorders, corrupts and delays frames.
 *
 *   relay IF_A IF_B [loss_ppm=N] [duplicate_ppm=N] [reorder_ppm=N] [corrupt_ppm=N] [delay_us=N] [reorder_us=N] [seed=N]
 *                   [rate_kbps=N] [queue_bytes=N] [one_way=1]
 *
 * A rate makes a bottleneck each way: a frame leaves when those before it have, and is dropped when queue_bytes wait already.  one_way: the
 * probabilities hold for frames from IF_A to IF_B only.
 *
 * Probabilities are parts per million, each frame draws anew from one seeded generator.  A frame that is reordered leaves
 * reorder_us later than it would have; frames on their way wait in a binary heap by (time to leave, order of arrival), so what is not
 * reordered keeps its order.  Says "ready" when both ends are open; answers each line on its standard input with its counters
 * as one JSON object, after it has taken the settings in the line; ends at the end of its input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FRAME_BYTES = 2048, FRAMES = 1 << 15, BATCH = 64, HEADER_BYTES = 14, RECEIVE_BUFFER = 16 << 20 };

struct frame {
    uint64_t leave_ns;
    uint64_t order;
    uint16_t len;
    uint8_t to; /* index of the end that it leaves by */
    uint8_t bytes[FRAME_BYTES];
};

struct knobs {
    uint64_t loss_ppm, duplicate_ppm, reorder_ppm, corrupt_ppm, delay_us, reorder_us, seed;
    uint64_t rate_kbps, queue_bytes, one_way;
};

struct counters {
    uint64_t frames, lost, duplicated, reordered, corrupted, oversize, overflow, unsent, queue_full;
};

struct relay {
    int ends[2];
    struct knobs knobs;
    struct counters counters;
    uint64_t random;
    uint64_t order;
    uint64_t line_free_ns[2]; /* when the bottleneck to each end has sent all that it holds */
    uint32_t waiting;         /* heap[0, waiting) */
    uint32_t free_count;
    uint32_t heap[FRAMES];
    uint32_t free_frames[FRAMES];
    struct frame frames[FRAMES];
};

static struct relay relay;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* SplitMix64: one multiplication chain per draw, any seed will do. */
static uint64_t draw(struct relay *r)
{
    uint64_t z = (r->random += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool happens(struct relay *r, uint64_t ppm)
{
    return ppm != 0 && draw(r) % 1000000 < ppm;
}

static bool earlier(const struct relay *r, uint32_t a, uint32_t b)
{
    const struct frame *x = &r->frames[a], *y = &r->frames[b];

    return x->leave_ns != y->leave_ns ? x->leave_ns < y->leave_ns : x->order < y->order;
}

static void heap_add(struct relay *r, uint32_t frame)
{
    uint32_t at = r->waiting++;

    while (at > 0 && earlier(r, frame, r->heap[(at - 1) / 2])) {
        r->heap[at] = r->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    r->heap[at] = frame;
}

static uint32_t heap_take(struct relay *r)
{
    uint32_t top = r->heap[0], last = r->heap[--r->waiting], at = 0;

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= r->waiting)
            break;
        if (child + 1 < r->waiting && earlier(r, r->heap[child + 1], r->heap[child]))
            child++;
        if (!earlier(r, r->heap[child], last))
            break;
        r->heap[at] = r->heap[child];
        at = child;
    }
    r->heap[at] = last;
    return top;
}

static void put_on_wire(struct relay *r, int to, const uint8_t *bytes, size_t len)
{
    if (send(r->ends[to], bytes, len, 0) < 0)
        r->counters.unsent++;
}

/* When the bottleneck has sent a frame that it takes now; false: its queue is full. */
static bool queue_up(struct relay *r, int to, size_t len, uint64_t now, uint64_t *leave_ns)
{
    uint64_t *line = &r->line_free_ns[to];

    *leave_ns = now;
    if (r->knobs.rate_kbps == 0)
        return true;
    if (*line < now)
        *line = now;
    if ((*line - now) * r->knobs.rate_kbps / 8000000 + len > r->knobs.queue_bytes) {
        r->counters.queue_full++;
        return false;
    }
    *line += len * 8000000 / r->knobs.rate_kbps;
    *leave_ns = *line;
    return true;
}

/* Sends now what need not wait; keeps the rest. */
static void forward(struct relay *r, int to, const uint8_t *bytes, size_t len, uint64_t now, uint64_t wait_us)
{
    uint64_t leave_ns;
    struct frame *f;
    uint32_t index;

    if (!queue_up(r, to, len, now, &leave_ns))
        return;
    if (wait_us == 0 && leave_ns == now) {
        put_on_wire(r, to, bytes, len);
        return;
    }
    if (r->free_count == 0) {
        r->counters.overflow++;
        return;
    }
    index = r->free_frames[--r->free_count];
    f = &r->frames[index];
    f->leave_ns = leave_ns + wait_us * 1000;
    f->order = r->order++;
    f->to = (uint8_t)to;
    f->len = (uint16_t)len;
    memcpy(f->bytes, bytes, len);
    heap_add(r, index);
}

static void pass(struct relay *r, int to, uint8_t *bytes, size_t len, uint64_t now)
{
    uint64_t wait_us = r->knobs.delay_us;

    r->counters.frames++;
    if (r->knobs.one_way && to == 0) {
        forward(r, to, bytes, len, now, wait_us);
        return;
    }
    if (happens(r, r->knobs.loss_ppm)) {
        r->counters.lost++;
        return;
    }
    if (happens(r, r->knobs.corrupt_ppm) && len > HEADER_BYTES) {
        size_t at = HEADER_BYTES + draw(r) % (len - HEADER_BYTES);

        bytes[at] ^= (uint8_t)(1u << (draw(r) % 8));
        r->counters.corrupted++;
    }
    if (happens(r, r->knobs.reorder_ppm)) {
        wait_us += r->knobs.reorder_us;
        r->counters.reordered++;
    }
    forward(r, to, bytes, len, now, wait_us);
    if (happens(r, r->knobs.duplicate_ppm)) {
        forward(r, to, bytes, len, now, wait_us);
        r->counters.duplicated++;
    }
}

static void receive(struct relay *r, int from)
{
    static uint8_t bytes[BATCH][FRAME_BYTES];
    static struct sockaddr_ll source[BATCH];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    uint64_t now;
    int count;

    memset(messages, 0, sizeof(messages));
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){.iov_base = bytes[i], .iov_len = FRAME_BYTES};
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &source[i];
        messages[i].msg_hdr.msg_namelen = sizeof(source[i]);
    }
    count = recvmmsg(r->ends[from], messages, BATCH, MSG_DONTWAIT, NULL);
    now = now_ns();
    for (int i = 0; i < count; i++) {
        if (source[i].sll_pkttype == PACKET_OUTGOING)
            continue;
        if ((messages[i].msg_hdr.msg_flags & MSG_TRUNC) != 0)
            r->counters.oversize++;
        else
            pass(r, 1 - from, bytes[i], messages[i].msg_len, now);
    }
}

static void send_due(struct relay *r)
{
    uint64_t now = now_ns();

    while (r->waiting > 0 && r->frames[r->heap[0]].leave_ns <= now) {
        uint32_t index = heap_take(r);
        struct frame *f = &r->frames[index];

        put_on_wire(r, f->to, f->bytes, f->len);
        r->free_frames[r->free_count++] = index;
    }
}

static int open_end(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    struct packet_mreq all = {.mr_type = PACKET_MR_PROMISC};
    int size = RECEIVE_BUFFER, one = 1;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    address.sll_ifindex = all.mr_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || address.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        fprintf(stderr, "relay: cannot open %s: %s\n", name, strerror(errno));
        exit(1);
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all));
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one));
    return fd;
}

static void read_knob(struct knobs *knobs, const char *word)
{
    const struct {
        const char *name;
        uint64_t *value;
    } known[] = {
        {"loss_ppm", &knobs->loss_ppm},
        {"duplicate_ppm", &knobs->duplicate_ppm},
        {"reorder_ppm", &knobs->reorder_ppm},
        {"corrupt_ppm", &knobs->corrupt_ppm},
        {"delay_us", &knobs->delay_us},
        {"reorder_us", &knobs->reorder_us},
        {"seed", &knobs->seed},
        {"rate_kbps", &knobs->rate_kbps},
        {"queue_bytes", &knobs->queue_bytes},
        {"one_way", &knobs->one_way},
    };
    const char *equals = strchr(word, '=');

    for (size_t i = 0; equals != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
        if (strncmp(word, known[i].name, (size_t)(equals - word)) == 0 && known[i].name[equals - word] == '\0') {
            *known[i].value = strtoull(equals + 1, NULL, 10);
            return;
        }
    }
    fprintf(stderr, "relay: no such setting: %s\n", word);
    exit(2);
}

static void take_settings(struct relay *r, char *line)
{
    char *rest;

    for (char *word = strtok_r(line, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (strchr(word, '=') == NULL)
            continue;
        read_knob(&r->knobs, word);
        if (strncmp(word, "seed=", 5) == 0)
            r->random = r->knobs.seed;
    }
}

/* Answers the lines that have come in, whole ones by the way in which we are asked.  False at the end of the input. */
static bool answer(struct relay *r)
{
    const struct counters *c = &r->counters;
    char lines[512];
    ssize_t got = read(STDIN_FILENO, lines, sizeof(lines) - 1);
    char *rest;

    if (got <= 0)
        return false;
    lines[got] = '\0';
    for (char *line = strtok_r(lines, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        take_settings(r, line);
        printf("{\"frames\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"duplicated\": %" PRIu64 ", \"reordered\": %" PRIu64
               ", \"corrupted\": %" PRIu64 ", \"oversize\": %" PRIu64 ", \"overflow\": %" PRIu64
               ", \"unsent\": %" PRIu64 ", \"queue_full\": %" PRIu64 ", \"waiting\": %" PRIu32 "}\n",
               c->frames, c->lost, c->duplicated, c->reordered, c->corrupted, c->oversize, c->overflow, c->unsent,
               c->queue_full, r->waiting);
        fflush(stdout);
    }
    return true;
}

static void run(struct relay *r)
{
    struct pollfd watched[3] = {{.fd = r->ends[0], .events = POLLIN},
                                {.fd = r->ends[1], .events = POLLIN},
                                {.fd = STDIN_FILENO, .events = POLLIN}};

    for (;;) {
        struct timespec wait = {0};
        struct timespec *limit = NULL;

        if (r->waiting > 0) {
            uint64_t now = now_ns(), leave = r->frames[r->heap[0]].leave_ns;

            if (leave > now)
                wait = (struct timespec){.tv_sec = (time_t)((leave - now) / 1000000000),
                                         .tv_nsec = (long)((leave - now) % 1000000000)};
            limit = &wait;
        }
        if (ppoll(watched, 3, limit, NULL) < 0 && errno != EINTR)
            return;
        for (int end = 0; end < 2; end++) {
            if ((watched[end].revents & POLLIN) != 0)
                receive(r, end);
        }
        send_due(r);
        if (watched[2].revents != 0 && !answer(r))
            return;
    }
}

int main(int argc, char **argv)
{
    struct relay *r = &relay;

    if (argc < 3) {
        fprintf(stderr, "usage: relay IF_A IF_B [setting=value ...]\n");
        return 2;
    }
    r->knobs = (struct knobs){.reorder_us = 1500, .seed = 1};
    for (int i = 3; i < argc; i++)
        read_knob(&r->knobs, argv[i]);
    r->random = r->knobs.seed;
    for (r->free_count = 0; r->free_count < FRAMES; r->free_count++)
        r->free_frames[r->free_count] = r->free_count;
    r->ends[0] = open_end(argv[1]);
    r->ends[1] = open_end(argv[2]);
    printf("ready\n");
    fflush(stdout);
    run(r);
    return 0;
}
