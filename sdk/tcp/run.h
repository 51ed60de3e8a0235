/*
 * run.h: segments of a batch that continue the one before them, taken as one.
 *
 * A run begins behind a segment whose text was appended to an ESTABLISHED connection.  What follows it in the batch belongs to the run
 * as long as its header is that of the first but for what a stream changes (lengths, IDs, PSH, timestamps), its number is the next,
 * and it says nothing new: same ACK, same window, same ECN bits.  Header prediction would do for each of them the same few things, whose
 * outcome the last one decides, so they are done once.  With -DJANUS_NO_PREDICTION there are no runs.
 */
#ifndef TCP_RUN_H
#define TCP_RUN_H

#include "tcp/stack.h"

/* packets[0] was taken by input, and its connection, if it still has one, is t.  Takes the run behind it; returns its length, less than
 * count. */
uint32_t run_take(struct tcp_stack *s, struct tcb *t, const struct tcp_packet *packets, uint32_t count);

#endif
