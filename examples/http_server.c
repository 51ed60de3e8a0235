/*
 * http_server.c: HTTP/1.1: one page, one file, persistent connections, pipelining, and limits on whatever a client controls.
 *
 *     cc -O2 http_server.c -o http_server $(pkg-config --cflags --libs janus) && ./http_server 80 FILE
 *
 * A head that came in one packet, as nearly all do, is read where it lies.  Only one that is cut between packets is collected, in memory that
 * is the connection's for as long: a waiting handler has no buffer.
 */
#define _GNU_SOURCE /* memmem() */
#include <err.h>
#include <fcntl.h>
#include <janus.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD_BYTES_MAX = 8192, HEAD_MS = 10000, ANSWER_MS = 30000 };

static const char page[] = "<!doctype html>\n<title>Janus</title>\n<p>Served by a user-level TCP stack.\n";
static int file_fd = -1;
static off_t file_bytes;

struct request {
    bool get, head, keep, file;
    int status;
};

void handle(struct janus_conn *c);

/* True: field name (lower case, with its colon) of the head contains word. */
static bool has_field(const char *head, size_t len, const char *name, const char *word)
{
    size_t name_len = strlen(name), word_len = strlen(word);

    for (const char *line = head; (line = memchr(line, '\n', (size_t)(head + len - line))) != NULL;) {
        const char *end;

        line++;
        end = memchr(line, '\r', (size_t)(head + len - line));
        if (end == NULL || (size_t)(end - line) < name_len || strncasecmp(line, name, name_len) != 0)
            continue;
        for (line += name_len; line + word_len <= end; line++) {
            if (strncasecmp(line, word, word_len) == 0)
                return true;
        }
    }
    return false;
}

static bool begins(const char *head, size_t len, const char *with)
{
    return len >= strlen(with) && memcmp(head, with, strlen(with)) == 0;
}

/* Bodies are not read: a request with one is refused (RFC 9112 6.3). */
static struct request parse(const char *head, size_t len)
{
    struct request r = {.get = begins(head, len, "GET "), .head = begins(head, len, "HEAD "), .status = 200};
    const char *target = head + (r.head ? 5 : 4), *end = memchr(head, '\r', len);
    size_t line = (size_t)(end - head);

    if (line < 14 || memcmp(end - 9, " HTTP/1.", 8) != 0)
        r.status = 400;
    else if (!r.get && !r.head)
        r.status = 501;
    else if (has_field(head, len, "content-length:", "") || has_field(head, len, "transfer-encoding:", ""))
        r.status = 413;
    else if (begins(target, (size_t)(end - target), "/file ") && file_fd >= 0)
        r.file = true;
    else if (!begins(target, (size_t)(end - target), "/ "))
        r.status = 404;
    r.keep = (r.status == 200 || r.status == 404) && end[-1] == '1' && !has_field(head, len, "connection:", "close");
    return r;
}

static bool answer(struct janus_conn *c, const struct request *r)
{
    char text[512];
    size_t body = r->status != 200 ? 0 : r->file ? (size_t)file_bytes : sizeof page - 1;
    int n = snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\nContent-Length: %zu\r\nConnection: %s\r\n\r\n", r->status,
                     r->status == 200 ? "OK" : "No", body, r->keep ? "keep-alive" : "close");

    janus_deadline(ANSWER_MS);
    if (body > 0 && !r->file && !r->head) { /* head and page in one segment */
        memcpy(text + n, page, body);
        return janus_send(c, text, (size_t)n + body) > 0;
    }
    if (janus_send(c, text, (size_t)n) < 0)
        return false;
    return body == 0 || r->head || janus_send_file(c, file_fd, 0, body) == (ssize_t)body;
}

/* Answers the complete heads at the beginning of data.  Returns how many bytes they had; *go_on false: close. */
static size_t serve(struct janus_conn *c, const char *data, size_t len, bool *go_on)
{
    size_t done = 0;
    const char *end;

    while (*go_on && done < len && (end = memmem(data + done, len - done, "\r\n\r\n", 4)) != NULL) {
        size_t head = (size_t)(end - data) + 4 - done;
        struct request r = parse(data + done, head);

        done += head;
        *go_on = answer(c, &r) && r.keep;
    }
    return done;
}

/* A head that is cut: rest is its beginning.  Returns false when the connection is to be closed. */
static __attribute__((noinline)) bool collect(struct janus_conn *c, const char *rest, size_t len)
{
    char *head = malloc(HEAD_BYTES_MAX);
    bool go_on = head != NULL && len <= HEAD_BYTES_MAX;

    if (go_on)
        memcpy(head, rest, len);
    while (go_on && len > 0) {
        ssize_t n = len < HEAD_BYTES_MAX ? janus_recv(c, head + len, HEAD_BYTES_MAX - len) : -1;
        size_t done;

        if (n <= 0) {
            go_on = false;
            break;
        }
        len += (size_t)n;
        done = serve(c, head, len, &go_on);
        memmove(head, head + done, len - done);
        len -= done;
        if (done > 0)
            janus_deadline(HEAD_MS);
    }
    free(head);
    return go_on;
}

void handle(struct janus_conn *c)
{
    bool go_on = true;

    while (go_on) {
        struct janus_view v;
        size_t done;

        janus_deadline(0); /* an idle client may stay */
        v = janus_recv_view(c);
        if (v.len <= 0)
            break;
        done = serve(c, v.data, (size_t)v.len, &go_on);
        janus_deadline(HEAD_MS);
        if (go_on && done < (size_t)v.len)
            go_on = collect(c, (const char *)v.data + done, (size_t)v.len - done);
    }
}

int main(int argc, char **argv)
{
    const struct janus_service service = {.port = (uint16_t)(argc > 1 ? atoi(argv[1]) : 80), .handler = handle};
    struct janus_error error;
    struct stat st;

    if (argc > 2) {
        file_fd = open(argv[2], O_RDONLY | O_CLOEXEC);
        if (file_fd < 0 || fstat(file_fd, &st) < 0)
            err(1, "%s", argv[2]);
        file_bytes = st.st_size;
    }
    if (janus_run(&(struct janus_options){0}, &service, 1, &error) < 0)
        errx(1, "%s", error.text);
    return 0;
}
