/*
 * control.c: commands in, results out.
 */
#include "bench/load/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { GIVE_UP_US = 5000000, DRAIN_US = 300000, WINDOW = 1024, BYTES = 64 };

int control_open(struct control *c, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *c = (struct control){.client = -1};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(c->listener, 1) < 0)
        return -errno;
    return 0;
}

static double number(const char *line, const char *key, double otherwise)
{
    char word[32];
    const char *at;

    snprintf(word, sizeof word, " %s=", key);
    at = strstr(line, word);
    return at != NULL ? strtod(at + strlen(word), NULL) : otherwise;
}

static void say(struct control *c, const char *text)
{
    if (c->client >= 0 && send(c->client, text, strlen(text), MSG_NOSIGNAL) < 0) {
        close(c->client);
        c->client = -1;
    }
}

static int percentiles(char *out, size_t room, const char *name, const struct histogram *h)
{
    return snprintf(out, room,
                    ", \"%s\": {\"count\": %llu, \"p50_us\": %u, \"p99_us\": %u, \"p999_us\": %u, \"max_us\": %u}",
                    name, (unsigned long long)h->count, histogram_percentile(h, 0.5), histogram_percentile(h, 0.99),
                    histogram_percentile(h, 0.999), h->max);
}

/* The counts of the measured time; what is unfinished or lost is as of now. */
static void report(struct control *c, const struct load *l)
{
    const struct load_counts *n = c->wait == CONTROL_DRAIN ? &c->counts : &l->counts;
    const struct {
        const char *name;
        uint64_t value;
    } values[] = {{"opened", n->opened},
                  {"established", n->established},
                  {"replies", n->replies},
                  {"completed", n->completed},
                  {"unfinished", l->unfinished},
                  {"resets", n->resets},
                  {"lost", l->counts.lost},
                  {"late", n->late},
                  {"stuck", n->stuck},
                  {"bad", n->bad},
                  {"ignored", n->ignored},
                  {"probes", n->probes},
                  {"rx_packets", n->rx_packets},
                  {"tx_packets", n->tx_packets},
                  {"wire_full", n->wire_full},
                  {"busy_cycles", n->busy_cycles},
                  {"held", l->holds ? l->next_index - l->held_from : 0}};
    char out[2048];
    int at = snprintf(out, sizeof out, "{\"seconds\": %.6f", (double)(c->ended_us - c->began_us) * 1e-6);

    for (uint32_t i = 0; i < sizeof values / sizeof values[0]; i++)
        at += snprintf(out + at, sizeof out - (size_t)at, ", \"%s\": %llu", values[i].name,
                       (unsigned long long)values[i].value);
    at += percentiles(out + at, sizeof out - (size_t)at, "handshake", &l->handshake);
    at += percentiles(out + at, sizeof out - (size_t)at, "reply", &l->reply);
    snprintf(out + at, sizeof out - (size_t)at, "}\n");
    say(c, out);
}

static void end(struct control *c, const struct load *l)
{
    if (c->wait != CONTROL_DRAIN)
        c->ended_us = l->now_us;
    report(c, l);
    c->wait = CONTROL_NOTHING;
}

/* The measured time is over: opens nothing any more, and lets what is under way come to its end. */
static void drain(struct control *c, struct load *l)
{
    c->counts = l->counts;
    c->ended_us = l->now_us;
    l->progress_us = l->now_us;
    l->job.count = 1;
    l->begun_count = 0;
    l->job.sample_rate = 0;
    if (l->job.phase == LOAD_BLASTING)
        l->job.phase = LOAD_IDLE;
    c->wait = CONTROL_DRAIN;
}

static void count_from_now(struct control *c, struct load *l, enum control_wait wait)
{
    load_reset_counts(l);
    c->began_us = c->seen_us = l->now_us;
    c->seen = 0;
    c->until_us = l->now_us + (uint64_t)(c->seconds * 1e6);
    c->wait = wait;
}

static void command(struct control *c, struct load *l)
{
    const char *line = c->line;
    double requests = number(line, "requests", -1);
    struct load_job job = {.phase = LOAD_OPENING,
                           .rate = number(line, "rate", 0),
                           .window = (uint64_t)number(line, "window", WINDOW),
                           .count = (uint64_t)number(line, "count", 0),
                           .bytes = (uint32_t)number(line, "bytes", BYTES) / 4 * 4,
                           .sample_rate = number(line, "sample", 0),
                           .merge = number(line, "merge", 0) != 0};

    c->seconds = number(line, "seconds", 1);
    l->ends.port = (uint16_t)number(line, "port", l->ends.port);
    if (job.bytes < 4 || job.bytes > LOAD_MESSAGE_MAX) {
        say(c, "{\"error\": \"bytes must be 4 to 8192\"}\n");
        return;
    }
    if (strncmp(line, "run", 3) == 0) {
        job.requests = requests < 0 ? 1 : (uint32_t)requests;
        job.fin = number(line, "fin", 1) != 0;
        load_begin(l, &job);
        c->wait = CONTROL_WARM_UP;
        c->until_us = l->now_us + (uint64_t)(number(line, "warm", 0.2) * 1e6);
    } else if (strncmp(line, "open", 4) == 0) {
        job.requests = requests < 0 ? 0 : requests > 0 ? LOAD_ENDLESS : 0;
        load_begin(l, &job);
        count_from_now(c, l, CONTROL_OPENED);
    } else if (strncmp(line, "sample", 6) == 0 || strncmp(line, "keep", 4) == 0) {
        job.requests = line[0] == 'k' ? LOAD_ENDLESS : 0;
        job.count = 1; /* opens nothing */
        load_begin(l, &job);
        l->begun_count = 0;
        c->wait = CONTROL_WARM_UP;
        c->until_us = l->now_us + (uint64_t)(number(line, "warm", 0.2) * 1e6);
    } else if (strncmp(line, "blast", 5) == 0) {
        job.phase = LOAD_BLASTING;
        load_begin(l, &job);
        c->wait = CONTROL_WARM_UP;
        c->until_us = l->now_us + (uint64_t)(number(line, "warm", 0.2) * 1e6);
    } else if (strncmp(line, "close", 5) == 0) {
        job.phase = LOAD_CLOSING;
        load_begin(l, &job);
        count_from_now(c, l, CONTROL_CLOSED);
    } else {
        job.phase = LOAD_IDLE;
        load_begin(l, &job);
        count_from_now(c, l, CONTROL_NOTHING);
        end(c, l);
    }
}

static void read_line(struct control *c, struct load *l)
{
    ssize_t n;

    if (c->client < 0) {
        c->client = accept4(c->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        c->line_len = 0;
        if (c->client < 0)
            return;
    }
    n = recv(c->client, c->line + c->line_len, sizeof c->line - 1 - c->line_len, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0 || c->line_len + (size_t)n == sizeof c->line - 1) {
        close(c->client);
        c->client = -1;
        return;
    }
    c->line_len += (uint32_t)n;
    c->line[c->line_len] = '\0';
    char *end = strchr(c->line, '\n');
    if (end == NULL)
        return;
    *end = '\0';
    c->line_len = 0;
    command(c, l);
}

/* Whether a number has stood still for GIVE_UP_US. */
static bool stands_still(struct control *c, const struct load *l, uint64_t value)
{
    if (value != c->seen) {
        c->seen = value;
        c->seen_us = l->now_us;
    }
    return l->now_us - c->seen_us > GIVE_UP_US;
}

bool control_step(struct control *c, struct load *l)
{
    read_line(c, l);
    switch (c->wait) {
    case CONTROL_NOTHING:
        break;
    case CONTROL_WARM_UP:
        if (l->now_us >= c->until_us) {
            count_from_now(c, l, CONTROL_TIME);
            say(c, "counting\n");
        }
        break;
    case CONTROL_TIME:
        if (l->now_us >= c->until_us)
            drain(c, l);
        break;
    case CONTROL_DRAIN:
        if (l->unfinished == 0 || l->now_us - l->progress_us > DRAIN_US)
            end(c, l);
        break;
    case CONTROL_OPENED:
        if ((l->next_index - l->begun_count >= l->job.count && l->unfinished == 0) ||
            stands_still(c, l, l->counts.established))
            end(c, l);
        break;
    case CONTROL_CLOSED:
        if ((l->close_index == l->next_index && l->unfinished == 0) ||
            stands_still(c, l, l->counts.completed + l->counts.resets))
            end(c, l);
        break;
    }
    return c->wait != CONTROL_NOTHING || l->job.requests == LOAD_ENDLESS;
}
