/*
 * hold_server.c: an echo server on janus.h whose handlers begin at accept, so that every idle connection has one that waits.
 *
 *   hold_server PORT
 *
 * JANUS_APP and JANUS_SOCKET as for every application.  A line on the standard input is answered by a JSON object.
 */
#include "app/janus.h"

#include <err.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void handle(struct janus_conn *c)
{
    struct janus_view v;

    while ((v = janus_recv_view(c)).len > 0) {
        if (janus_send(c, v.data, (size_t)v.len) < 0)
            break;
    }
}

/* False: the other end of the standard input is closed. */
static bool answer(const struct janus_worker *w)
{
    struct janus_counts counts;
    char line[64];
    ssize_t n = read(STDIN_FILENO, line, sizeof line);

    if (n <= 0)
        return n < 0;
    janus_get_counts(w, &counts);
    printf("{\"connections\": %llu, \"handlers\": %llu, \"accepted\": %llu, \"templated\": %llu, \"stored_bytes\": "
           "%llu}\n",
           (unsigned long long)counts.connections, (unsigned long long)counts.handlers,
           (unsigned long long)counts.accepted, (unsigned long long)counts.templated,
           (unsigned long long)counts.stored_bytes);
    return fflush(stdout) == 0;
}

int main(int argc, char **argv)
{
    const struct janus_options options = {0};
    struct janus_service service = {.flags = JANUS_START_AT_ACCEPT, .handler = handle};
    struct janus_error error;
    struct janus_worker *w = janus_attach(&options, &error);

    if (argc != 2)
        errx(2, "usage: hold_server PORT");
    service.port = (uint16_t)atoi(argv[1]);
    if (w == NULL || janus_listen(w, &service, &error) < 0 || janus_online(w, &error) < 0)
        errx(1, "%s", error.text);
    (void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    for (uint32_t turn = 0; turn % 1024 != 0 || answer(w); turn++)
        janus_turn(w, 1000);
    janus_detach(w);
    return 0;
}
