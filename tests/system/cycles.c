/*
 * cycles.c: a TCP thread that attaches, serves a moment and goes, again and again.
 *
 *   cycles SOCKET APP PORT COUNT
 *
 * Every third goes without a word, as a process that has been killed. Prints {"cycles": N, "fds": F, "maps": M}: how many descriptors
 * and mappings this process has more than after its first cycle.
 */
#include "app/thread_api.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    while (dir != NULL && readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

static int count_maps(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    int count = 0;

    for (int c = fgetc(file); c != EOF; c = fgetc(file))
        count += c == '\n';
    fclose(file);
    return count;
}

static void require(bool good, const struct janus_error *error)
{
    if (good)
        return;
    fprintf(stderr, "cycles: %s\n", error->text);
    exit(1);
}

static struct janus_thread *come(char **argv)
{
    struct janus_options options = {.app = argv[2], .socket_path = argv[1], .rx_slots = 256, .tx_slots = 256};
    struct janus_error error = {0};
    struct janus_thread *t = thread_open(&options, &error);

    require(t != NULL, &error);
    require(thread_listen(t, NULL, (uint16_t)atoi(argv[3]), 0, &error) == 0, &error);
    require(thread_online(t, &error) == 0, &error);
    for (int turn = 0; turn < 10; turn++) {
        struct tcp_event event;

        thread_poll(t);
        while (thread_next_event(t, &event))
            continue;
        thread_flush(t);
        thread_wait(t, 100);
    }
    return t;
}

static void vanish(char **argv)
{
    pid_t child = fork();

    if (child == 0) {
        (void)come(argv);
        _exit(0);
    }
    int status = 1;
    if (waitpid(child, &status, 0) != child || status != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: cycles SOCKET APP PORT COUNT\n");
        return 2;
    }
    int fds = 0, maps = 0, count = atoi(argv[4]);
    for (int i = 0; i < count; i++) {
        if (i % 3 == 2)
            vanish(argv);
        else
            thread_close(come(argv));
        if (i == 0) {
            fds = count_fds();
            maps = count_maps();
        }
    }
    printf("{\"cycles\": %d, \"fds\": %d, \"maps\": %d}\n", count, count_fds() - fds, count_maps() - maps);
    return 0;
}
