/*
 * The simulator over a core without header prediction: the slow path must send the very same packets.
 */
#include "tcp/predict.h"

bool predict_input(struct tcp_stack *s, struct tcb *t, struct input *in, enum tcp_drop *drop)
{
    return false;
}

#include "sim.c"
