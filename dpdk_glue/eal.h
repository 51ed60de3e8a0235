/*
 * eal.h: is EAL there, and what does it complain about?
 */
#ifndef DPDK_GLUE_EAL_H
#define DPDK_GLUE_EAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Collects what DPDK logs between the two calls. */
struct eal_ear {
    FILE *stream;
    char *log;
    size_t bytes;
    char said[160]; /* its end, on one line */
};

bool eal_is_started(void);
void eal_listen(struct eal_ear *ear);
void eal_heard(struct eal_ear *ear);

#endif
