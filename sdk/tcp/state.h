/*
 * state.h: what the states of RFC 9293 3.3.2 allow, as predicates over enum tcp_state.
 */
#ifndef TCP_STATE_H
#define TCP_STATE_H

#include "tcp/tcp.h"

/* Both sides know both initial sequence numbers. */
static inline bool state_is_synchronized(uint8_t state)
{
    return state >= TCP_STATE_ESTABLISHED;
}

/* Segments of this connection reach its TCB, not a compact block and not nobody. */
static inline bool state_is_open(uint8_t state)
{
    return state >= TCP_STATE_SYN_SENT && state <= TCP_STATE_LAST_ACK;
}

/* The peer may still send data: its FIN has not arrived. */
static inline bool state_can_receive(uint8_t state)
{
    return state == TCP_STATE_ESTABLISHED || state == TCP_STATE_FIN_WAIT_1 || state == TCP_STATE_FIN_WAIT_2;
}

/* The user may still give data: there was no shutdown. */
static inline bool state_can_send(uint8_t state)
{
    return state == TCP_STATE_ESTABLISHED || state == TCP_STATE_CLOSE_WAIT;
}

/* Data or FIN may have to be sent, for the first time or again. */
static inline bool state_can_transmit(uint8_t state)
{
    return state_is_synchronized(state) && state != TCP_STATE_FIN_WAIT_2 && state != TCP_STATE_TIME_WAIT;
}

#endif
