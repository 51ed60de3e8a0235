/*
 * The simulator over a core without header prediction and without the short way to take a packet apart: the long ways must send the very
 * same packets.
 */
#define JANUS_NO_PREDICTION
#include "tcp/parse.c"
#include "tcp/predict.c"

#include "sim.c"
