/*
 * tx.h: packets of the TCP threads to the ports: copied, checked against the lease, framed.
 */
#ifndef DPDK_GLUE_TX_H
#define DPDK_GLUE_TX_H

#include "dpdk_glue/state.h"

/* At most TX_BURST_PER_APP packets from each session of this thread's list, beginning with another one each turn; how many. */
uint32_t tx_sessions(struct io_thread *io);

/* Whether a turn would take something of this session.  Not so while the app leaves no room for completions: it is not waited for. */
bool tx_waits(struct glue_session *s, uint32_t io);

#endif
