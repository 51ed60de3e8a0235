/*
 * sweep.h: a thread that tells the peers of a dead app, a few rows at a time.
 */
#ifndef DPDK_GLUE_SWEEP_H
#define DPDK_GLUE_SWEEP_H

#include "dpdk_glue/state.h"

/* Ends the thread, if there is one. */
void sweep_stop(struct glue *g);

#endif
