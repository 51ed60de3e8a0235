/*
 * control.h: the load's commands, a line each on a Unix socket, and their answers.
 *
 *   run [seconds= warm=] [rate= window= bytes= requests= fin= merge=]    "counting" when the warm-up is over, then a result
 *   open count= [rate= window= sample= bytes= requests=]                 a result when all are open, and so on
 *   sample seconds= sample= [bytes=]
 *   close [rate= window=]                                                closes what open has opened
 *   keep seconds= [bytes=]                                               exchanges without end on what open requests=1 has opened
 *   blast seconds=                                                       segments that nobody answers, as fast as they go
 *   idle
 *
 * port= in any of them is the server's port from then on.  A result is one JSON object.
 */
#ifndef BENCH_LOAD_CONTROL_H
#define BENCH_LOAD_CONTROL_H

#include "bench/load/load.h"

enum control_wait { CONTROL_NOTHING, CONTROL_WARM_UP, CONTROL_TIME, CONTROL_DRAIN, CONTROL_OPENED, CONTROL_CLOSED };

struct control {
    int listener, client;
    enum control_wait wait;
    double seconds;
    uint64_t began_us, ended_us, until_us;
    struct load_counts counts; /* as they were when the measured time ended */
    uint64_t seen, seen_us;    /* progress, for giving up */
    uint32_t line_len;
    char line[512];
};

/* Listens at path.  0 or -errno. */
int control_open(struct control *c, const char *path);
/* Reads a command when there is one, and answers what has ended.  False: nothing is to be done but to wait for commands. */
bool control_step(struct control *c, struct load *l);

#endif
