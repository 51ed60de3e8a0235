/*
 * balance.h: a TCP thread's part in the balancer's updates: views and plans mapped, flows walked a bounded part per turn, lists sent.
 *
 *   messages ──> balance_hear()      markers ──> balance_marker()      each turn ──> balance_turn() ──> lists, answers
 *   env: balance_may_create(), balance_miss(), balance_ended()     active opens: balance_may_connect()
 *
 * The decisions are csb/update.h's; here are the memory behind them and the socket.
 */
#ifndef APP_BALANCE_H
#define APP_BALANCE_H

#include "app/attach.h"
#include "app/mapper.h"
#include "csb/update.h"
#include "tcp/tcp.h"

struct balance_map {
    const void *memory;
    uint64_t bytes;
};

/* By the clock, and by what the thread has had of a processor. */
struct balance_time {
    uint64_t wall_us, own_ns;
};

struct balance {
    struct csb_member member;
    struct attach *attach;
    struct tcp_stack *stack;
    bool is_on;                                       /* janusd speaks of views (ABI 1.2) */
    struct balance_map view, next, plan, draft, list; /* list: the member's */
    struct mapper mapper;
    uint64_t session;                  /* what was asked for in a former one is nothing */
    uint32_t views_asked;              /* not mapped yet */
    uint32_t sent;                     /* of the list, from its beginning */
    uint64_t attempt;                  /* that the answers below are of */
    uint64_t next_attempt, view_heard; /* attempts of the view that is mapped, and of the last one that was heard of */
    bool has_deferred;                 /* a BEGIN that came before the last update was opened here */
    struct attach_csb deferred;
    int deferred_fd;
    enum csb_phase due; /* to be answered when all lists are sent; CSB_IDLE: nothing */
    bool has_failed;    /* and it is to be said */
    bool is_walking, is_open_due;
    uint32_t part; /* column that is walked */
    uint64_t updates;
    struct balance_time spent, held; /* in this turn, and in the longest turn of all, by either */
    uint64_t closed;                 /* flows that have ended while the circle gave their keys to other threads */
};

/* A session with janusd has begun: the first, or one that follows a loss. */
void balance_start(struct balance *b, struct attach *attach, uint16_t tid, bool is_on);
/* janusd is gone: what is known is known no more, so nothing is created or reset in doubt. */
void balance_lost(struct balance *b);
void balance_free(struct balance *b);

/* A message of janusd; takes fd. */
void balance_hear(struct balance *b, const struct attach_csb *message, int fd, uint64_t now_us);
/* A marker has come out of the ring of I/O thread io, with nothing before it left undone. */
void balance_marker(struct balance *b, uint32_t attempt, uint32_t marker, uint32_t io, uint64_t now_us);
/* A bounded part of what there is to do.  True: there is more. */
bool balance_turn(struct balance *b);

static inline bool balance_is_idle(const struct balance *b)
{
    return b->member.attempt == 0 && b->due == CSB_IDLE && !b->has_failed && !b->is_open_due &&
           !mapper_is_busy(&b->mapper) && !mapper_wants_wake(&b->mapper) && b->spent.own_ns == 0;
}

/* The view that the last open marker asks for has not been read from the socket, or is not mapped. */
static inline bool balance_wants_view(const struct balance *b)
{
    return b->is_open_due;
}

bool balance_may_create(struct balance *b, uint64_t hash);
bool balance_may_connect(struct balance *b, uint64_t hash);
enum tcp_miss balance_miss(const struct balance *b, uint64_t hash);
void balance_ended(struct balance *b, uint64_t hash);

#endif
