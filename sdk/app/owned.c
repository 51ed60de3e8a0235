/*
 * owned.c: memory of the caller's on its way: janus_send_owned().
 *
 * Connections that have such memory are few: their entries are in lists by row number, in the order of the calls.  An entry is
 * over when the core says that all is acknowledged, which may be later than its own last byte.
 */
#include "app/handlers.h"

#include <errno.h>
#include <stdlib.h>

struct owned_send {
    struct owned_send *next; /* perhaps of another row */
    uint32_t index;
    const char *data;
    size_t len, taken;
    void (*done)(void *argument, int status);
    void *argument;
};

static struct owned_send **list_of(const struct handlers *h, uint32_t index)
{
    return (struct owned_send **)(uintptr_t)&h->owned[index % HANDLERS_OWNED_LISTS];
}

bool owned_is_waiting(const struct handlers *h, const struct janus_conn *c)
{
    uint32_t index = handlers_index(h, c);

    for (const struct owned_send *o = *list_of(h, index); o != NULL; o = o->next) {
        if (o->index == index && o->taken < o->len)
            return true;
    }
    return false;
}

/* Takes the first entry of index that is through (or any, with all) out of the list; null: none. */
static struct owned_send *take(struct handlers *h, uint32_t index, bool all)
{
    for (struct owned_send **at = list_of(h, index); *at != NULL; at = &(*at)->next) {
        struct owned_send *o = *at;

        if (o->index == index && (all || o->taken == o->len)) {
            *at = o->next;
            return o;
        }
    }
    return NULL;
}

static void finish_all(struct handlers *h, uint32_t index, bool all, int status)
{
    struct owned_send *o;

    while ((o = take(h, index, all)) != NULL) {
        if (o->done != NULL)
            o->done(o->argument, status);
        free(o);
    }
}

void owned_end(struct handlers *h, struct janus_conn *c, int status)
{
    c->flags &= (uint16_t)~CONN_OWNED;
    finish_all(h, handlers_index(h, c), true, status);
}

bool owned_step(struct handlers *h, struct janus_conn *c, bool all_acknowledged)
{
    uint32_t index = handlers_index(h, c);
    int64_t n = -thread_conn_error(h->thread, index);
    bool open = false;

    for (struct owned_send *o = *list_of(h, index); o != NULL && n >= 0 && !open; o = o->next) {
        if (o->index != index || o->taken == o->len)
            continue;
        n = thread_send(h->thread, index, o->data + o->taken, o->len - o->taken);
        o->taken += n > 0 ? (size_t)n : 0;
        open = o->taken < o->len;
        all_acknowledged = false;
    }
    if (n < 0) {
        owned_end(h, c, (int)n);
        return false;
    }
    if (all_acknowledged)
        finish_all(h, index, false, 0);
    for (const struct owned_send *o = *list_of(h, index); o != NULL; o = o->next) {
        if (o->index == index) {
            thread_want_sent_all(h->thread, index);
            return true;
        }
    }
    c->flags &= (uint16_t)~CONN_OWNED;
    return false;
}

int janus_send_owned(struct janus_conn *c, const void *data, size_t len, void (*done)(void *argument, int status),
                     void *argument)
{
    struct handlers *h = handlers_here;
    struct owned_send *o, **at = list_of(h, handlers_index(h, c));

    if (c->flags & CONN_CLOSED)
        return handlers_closed_error(c);
    if (c->flags & CONN_SENDING)
        return -EBUSY;
    o = malloc(sizeof *o);
    if (o == NULL)
        return -ENOMEM;
    *o = (struct owned_send){NULL, handlers_index(h, c), data, len, 0, done, argument};
    while (*at != NULL)
        at = &(*at)->next;
    *at = o;
    c->flags |= CONN_OWNED;
    (void)owned_step(h, c, false);
    return 0;
}
