/*
 * validation.h: rounds of a connection, and a congestion window that nobody uses (RFC 7661).
 *
 * A round ends when what was sent at its beginning is acknowledged; what was acknowledged in it is a sample of pipeACK.  A window of
 * which less than half is used is kept for five minutes, then halved, and so on; when it meets congestion, what counts is what was used.
 */
#ifndef TCP_VALIDATION_H
#define TCP_VALIDATION_H

#include "tcp/stack.h"

/* An ACK of new data; SND.UNA has moved.  flight: outstanding before it.  True: it begins a round. */
bool validation_on_ack(struct tcb *t, struct tcb_ext *e, uint32_t bytes, uint32_t flight, uint64_t now_us);

/* The window is as large as its use in the last five minutes allows; before the first segment of a flight. */
void validation_decay(struct tcb *t, uint64_t now_us);

/* FlightSize for a reduction (RFC 5681 3.1, RFC 7661 4.4). */
uint32_t validation_flight(const struct tcb *t, const struct tcb_ext *e);

static inline uint16_t validation_seconds(uint64_t now_us)
{
    return (uint16_t)(now_us / 1000000);
}

#endif
