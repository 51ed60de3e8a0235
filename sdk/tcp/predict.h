/*
 * predict.h: header prediction: the segments that nearly always come, handled in one piece.
 *
 * ESTABLISHED, nothing lost or out of order on either side, and the segment continues the stream, or ends it, or acknowledges more, or
 * several of these; LAST-ACK, and it acknowledges our FIN; or it acknowledged our SYN, and says no more.  What is done is what the
 * steps of input.c would do; with -DJANUS_NO_PREDICTION those do it all.
 */
#ifndef TCP_PREDICT_H
#define TCP_PREDICT_H

#include "tcp/stack.h"

/* What a connection may not be in for it. */
enum { PREDICT_UNUSUAL = TCB_RECOVERY | TCB_LOSS | TCB_ORPHAN | TCB_FIN_AHEAD | TCB_PROBED | TCB_ECN_ECHO };

/* True: the segment was as predicted, and *drop says what became of it. */
bool predict_input(struct tcp_stack *s, struct tcb *t, struct input *in, enum tcp_drop *drop);

/* The ACK that has just made t of a half-open block, which has found it acceptable.  True: it was that and nothing else. */
bool predict_first(struct tcb *t, const struct input *in);

#endif
