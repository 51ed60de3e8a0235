/*
 * hystart.h: HyStart++ (RFC 9406): slow start that ends before it overflows the queue.
 *
 * When the round trip of a round has risen against the one before, growth goes on at a quarter of the speed for up to five rounds; if the
 * rise was a mistake, slow start goes on.
 */
#ifndef TCP_HYSTART_H
#define TCP_HYSTART_H

#include "tcp/cc.h"

/* One ACK in slow start.  Returns the bytes it did not use. */
uint32_t hystart_on_ack(struct cc_window *window, struct hystart *h, const struct cc_ack *ack);

#endif
