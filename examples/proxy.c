/*
 * proxy.c: passes each connection on to a server elsewhere: both a server and a client on Janus.
 *
 *     cc -O2 proxy.c -o proxy $(pkg-config --cflags --libs janus) && ./proxy 8000 10.77.0.2 9000
 *
 * Two directions are two coroutines: the client's handler, and one given to the connection that it opened.
 */
#include <err.h>
#include <janus.h>
#include <stdbool.h>
#include <stdlib.h>

enum { CONNECT_MS = 10000 };

static const char *upstream_address;
static uint16_t upstream_port;

/* Passes on all of one direction, its end too.  False: an error, after which both connections are to end. */
static bool pump(struct janus_conn *from, struct janus_conn *to)
{
    struct janus_view v;

    while ((v = janus_recv_view(from)).len > 0) {
        if (janus_send(to, v.data, (size_t)v.len) < 0)
            return false;
    }
    return v.len == 0 && janus_shutdown(to) == 0;
}

/* Says by its user pointer that it has failed: a variable on the other handler's stack would not be there while that one waits. */
static void pump_back(struct janus_conn *up)
{
    if (!pump(up, janus_user(up)))
        janus_set_user(up, NULL);
}

static void handle(struct janus_conn *c)
{
    struct janus_conn *up;

    janus_deadline(CONNECT_MS);
    up = janus_connect(upstream_address, upstream_port, NULL);
    janus_deadline(0);
    if (up == NULL) {
        janus_abort(c);
        return;
    }
    janus_set_user(up, c);
    if (janus_start(up, pump_back) == 0 && pump(c, up) && janus_join(up) == 0 && janus_user(up) != NULL) {
        janus_close(up);
    } else {
        janus_abort(up);
        janus_abort(c);
    }
}

int main(int argc, char **argv)
{
    struct janus_service service = {.handler = handle};
    struct janus_error error;

    if (argc != 4)
        errx(2, "usage: proxy PORT UPSTREAM-ADDRESS UPSTREAM-PORT");
    service.port = (uint16_t)atoi(argv[1]);
    upstream_address = argv[2];
    upstream_port = (uint16_t)atoi(argv[3]);
    if (janus_run(&(struct janus_options){0}, &service, 1, &error) < 0)
        errx(1, "%s", error.text);
    return 0;
}
