/*
 * session.h: one thread's life with janusd: attach, services, the loss of janusd and the way back.
 *
 *   UP ──hang-up──> AWAY ──back-off──> ATTACHING ──READY──> MOVING ──session_moved()──> SERVICES ──ONLINE answered──> UP
 *                    ^                     └────refused, silent────┐                        └──hang-up──┐
 *                    └─────────────────────────────────────────────┴─────────────────────────────────────┘
 *
 * Knows rings and messages; the stack it carries belongs to thread.c, which is told when to let go and when to move in.
 */
#ifndef APP_SESSION_H
#define APP_SESSION_H

#include "app/attach.h"
#include "app/balance.h"
#include "app/env_rings.h"

enum session_phase { SESSION_UP, SESSION_AWAY, SESSION_ATTACHING, SESSION_MOVING, SESSION_SERVICES };

struct session_service {
    struct ip_addr addr;
    uint16_t port;
};

enum { SESSION_KEPT_MAX = 4 };

struct session {
    enum session_phase phase;
    struct attach attach;
    struct region region, old; /* old is mapped only while MOVING */
    struct env_rings rings;
    struct balance balance;
    struct attach_hello hello;
    struct attach_welcome lease; /* of the session that is or was up */
    char path[108];
    int poll_fd; /* epoll: doorbell and attach socket */
    struct session_service services[TCP_LISTENERS_MAX];
    uint32_t service_count;
    uint32_t service_next; /* in SERVICES: the next to be sent again */
    uint32_t awaited_seq;
    uint32_t leave_seq; /* of the LEAVE that is to be answered, 0: none */
    bool online;
    uint64_t backoff_us, retry_us, give_up_us, check_us;
    uint64_t attached;
    struct kept_j2a {
        const uint8_t *j2a;
        size_t bytes;
    } kept[SESSION_KEPT_MAX]; /* of earlier sessions, while slots of theirs are lent */
    uint32_t kept_count;
    struct janus_error last_error;
};

/* Attaches; blocks for a few seconds at most.  0 or -errno with error filled. */
int session_open(struct session *s, const struct janus_options *options, struct janus_error *error);
/* lent: views of received slots outlive the session, and their memory stays mapped until the process ends. */
void session_close(struct session *s, bool lent);

/* Requests to janusd that wait for the answer.  While janusd is away they are remembered and count as granted. */
int session_listen(struct session *s, const struct ip_addr *addr, uint16_t port, struct janus_error *error);
int session_unlisten(struct session *s, const struct ip_addr *addr, uint16_t port, struct janus_error *error);
int session_online(struct session *s, struct janus_error *error);
/* Asks for no more new connections; session_has_left() when none comes any more.  Never blocks. */
void session_leave(struct session *s);
bool session_has_left(const struct session *s);

/* Looks after the session, cheap when called often.  Never blocks.  True: janusd is back and a new region is there, into which the
 * stack is to move, then session_moved(). */
bool session_step(struct session *s, uint64_t now_us);
/* The stack has moved into region: old is unmapped, but for received slots that are lent; services are announced again. */
void session_moved(struct session *s, bool lent);
/* No slot is lent any more. */
void session_unmap_kept(struct session *s);
/* When session_step() has something to do; UINT64_MAX: only when poll_fd is readable. */
uint64_t session_next_deadline(const struct session *s);

#endif
