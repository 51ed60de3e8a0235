/*
 * output.h: the one place that decides what goes on the wire.
 */
#ifndef TCP_OUTPUT_H
#define TCP_OUTPUT_H

#include "tcp/build.h"
#include "tcp/stack.h"

enum sent {
    SENT,
    SENT_NOT_NOW, /* a slot is missing or still busy, or an extension is missing: others may go on */
    SENT_FULL,    /* the way out is full: nobody can go on */
};

/* Sends a packet without payload from a slot of its own. */
enum sent output_control(struct tcp_stack *s, struct build *b);

/* When tcp_output() is to be called again although nothing has happened, or UINT64_MAX. */
uint64_t output_deadline(const struct tcp_stack *s);

#endif
