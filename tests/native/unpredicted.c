/*
 * The simulator over a core without header prediction, runs, and the short way to take a packet apart: the long ways must send the very same
 * packets.
 */
#define JANUS_NO_PREDICTION
#include "tcp/input.c"
#include "tcp/parse.c"
#include "tcp/predict.c"
#include "tcp/run.c"

#include "sim.c"
