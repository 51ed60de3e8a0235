/*
 * session.h: one TCP thread of an app, from its regions to the return of its last slot.
 *
 *   create -> seal -> start -> stop -> (resets) -> free
 */
#ifndef DPDK_GLUE_SESSION_H
#define DPDK_GLUE_SESSION_H

#include "dpdk_glue/state.h"

/* The session's row array, bounded by what it may be. */
uint32_t session_rows_used(const struct glue_session *s);

#endif
