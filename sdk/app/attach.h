/*
 * attach.h: the client's end of the attach socket, one message at a time, never blocking by itself.
 *
 *   DOWN ──attach_start──> HELLO_SENT ──WELCOME──> MAPPED_SENT ──READY──> UP ──hang-up, closed──> DOWN
 *
 * The same steps serve the first attach, which waits in between, and a re-attach, which runs beside the loop.  What comes in
 * is checked for type and length; anything else ends the session.
 */
#ifndef APP_ATTACH_H
#define APP_ATTACH_H

#include "app/thread_api.h"
#include "app/region.h"
#include "shm/attach.h"

enum attach_phase {
    ATTACH_PHASE_DOWN,
    ATTACH_PHASE_HELLO_SENT,
    ATTACH_PHASE_MAPPED_SENT,
    ATTACH_PHASE_UP,
};

enum attach_news {
    ATTACH_NEWS_NONE,   /* nothing has come */
    ATTACH_NEWS_MAPPED, /* WELCOME came, region is mapped, MAPPED is sent */
    ATTACH_NEWS_READY,  /* the session is up */
    ATTACH_NEWS_REPLY,  /* reply is filled */
    ATTACH_NEWS_CSB,    /* csb and csb_fd (or -1) are filled; the descriptor is the caller's */
    ATTACH_NEWS_FAILED, /* error is filled; the phase is DOWN, the socket closed, region unmapped unless it was up */
};

struct attach {
    int fd; /* -1 when DOWN */
    enum attach_phase phase;
    uint32_t seq; /* of the last request */
    struct attach_welcome welcome;
    struct region region; /* from MAPPED_SENT on; the owner moves it out at READY */
    struct attach_reply reply;
    struct attach_csb csb;
    int csb_fd;
};

void attach_init(struct attach *a);
/* Moves the region out, once the session is up: the caller unmaps it. */
struct region attach_take_region(struct attach *a);
/* Connects and sends HELLO.  0 or -errno with error filled. */
int attach_start(struct attach *a, const char *path, const struct attach_hello *hello, struct janus_error *error);
/* Reads one message, if there is one, and takes the next step. */
enum attach_news attach_receive(struct attach *a, struct janus_error *error);
/* Waits up to timeout_ms for something to read.  False: nothing came. */
bool attach_wait(const struct attach *a, int timeout_ms);
/* LISTEN, UNLISTEN, ONLINE or LEAVE; the answer comes with seq a->seq.  0 or -errno. */
int attach_send_listen(struct attach *a, enum attach_type type, const struct ip_addr *addr, uint16_t port);
int attach_send_online(struct attach *a);
int attach_send_leave(struct attach *a);
/* Sends to a descriptor of the socket, which may be another thread's own: LIST with so many of the hashes, and DONE.  0 or -errno. */
int attach_send_list(int fd, uint64_t attempt, const uint64_t *hashes, uint32_t count);
int attach_send_done(int fd, uint64_t attempt, uint32_t phase);
/* Says BYE when the session is up, and closes. */
void attach_stop(struct attach *a);
/* The errno for a refusal. */
int attach_errno(uint32_t status);

#endif
