/* bad_handlers.c: handlers that do what handlers must not: "overflow" and "block" as the first word of a connection. */
#include <err.h>
#include <janus.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int sink;

static __attribute__((noinline)) int recurse(int depth)
{
    volatile char block[4096];

    block[0] = (char)depth;
    return depth < 0 ? 0 : recurse(depth + 1) + block[0];
}

static void handle(struct janus_conn *c)
{
    char word[16] = "";

    while (janus_recv(c, word, sizeof word - 1) > 0) {
        if (strcmp(word, "overflow") == 0)
            sink = recurse(1);
        else if (strcmp(word, "block") == 0)
            nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
        janus_send(c, "back", 4);
        memset(word, 0, sizeof word);
    }
}

int main(int argc, char **argv)
{
    const struct janus_service service = {.port = (uint16_t)(argc > 1 ? atoi(argv[1]) : 7), .handler = handle};
    struct janus_error error;

    if (janus_run(&(struct janus_options){.stall_ms = 300}, &service, 1, &error) < 0)
        errx(1, "%s", error.text);
    return sink;
}
