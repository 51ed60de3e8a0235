/*
 * echo.c: the whole of a server in C.
 *
 *     cc -O2 echo.c -o echo $(pkg-config --cflags --libs janus) && ./echo 7
 *     cc -O2 -fPIC -shared echo.c -o echo.so && janus run ./echo.so:handle --port 7 --workers 2
 */
#include <err.h>
#include <janus.h>
#include <stdlib.h>

void handle(struct janus_conn *c);

void handle(struct janus_conn *c)
{
    struct janus_view v;

    while ((v = janus_recv_view(c)).len > 0) {
        if (janus_send(c, v.data, (size_t)v.len) < 0)
            break;
    }
}

int main(int argc, char **argv)
{
    const struct janus_service service = {.port = (uint16_t)(argc > 1 ? atoi(argv[1]) : 7), .handler = handle};
    const struct janus_options options = {.threads = (uint32_t)(argc > 2 ? atoi(argv[2]) : 1)};
    struct janus_error error;

    if (janus_run(&options, &service, 1, &error) < 0)
        errx(1, "%s", error.text);
    return 0;
}
