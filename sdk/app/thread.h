/*
 * thread.h: what a TCP thread is made of; private to sdk/app.
 */
#ifndef APP_THREAD_H
#define APP_THREAD_H

#include "app/driver.h"
#include "app/thread_api.h"
#include "app/session.h"

enum { THREAD_BATCH = 64 };

struct janus_thread {
    struct tcp_stack *stack;
    struct driver driver;
    uint64_t now_us;
    struct session *session; /* null: a loop in memory */
    void *memory;
    size_t memory_bytes;
    void *rows; /* own memory when there is no session */
    size_t rows_bytes;
    struct tcp_config config;
    struct tcp_env env;
    struct ip_addr addresses[TCP_ADDRESSES_MAX];
    uint32_t address_count;
    uint32_t rows_used;
    uint32_t lent; /* slots that views still show: their memory stays mapped, whatever ends */
    bool
        busy; /* the last turn changed something: the output after it may have made news, look once more before sleeping */
    bool worked; /* the last turn found, changed or sent something: until the next one begins the thread was busy */
    uint64_t turns, sleeps, commit_us, busy_us;
    uint64_t spare_us; /* the next look for memory that nothing uses */
    thread_rows_spare *rows_spare;
    void *rows_spare_context;
};

/* Fills the parts of config that follow from the options and the number of rows. */
void thread_configure(struct tcp_config *config, const struct janus_options *options, uint32_t rows);
/* Makes t's stack from config, env and addresses; rows null: in own memory.  0 or -errno with error filled. */
int thread_make_stack(struct janus_thread *t, void *rows, uint64_t now_us, struct janus_error *error);
/* Row conn is in use: janusd reads rows up to the highest. */
void thread_note_row(struct janus_thread *t, uint32_t conn);
void thread_free_memory(struct janus_thread *t);

#endif
