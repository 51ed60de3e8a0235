/*
 * timers.c: a binary heap of deadlines; every owner knows its place, so removing one is O(log n).
 */
#include "janus_tcp/face.h"

static void put(struct timers *t, uint32_t i, struct timer_entry entry)
{
    t->heap[i] = entry;
    *entry.index = i;
}

static void sift_up(struct timers *t, uint32_t i)
{
    struct timer_entry entry = t->heap[i];

    for (; i > 1 && t->heap[i / 2].when_us > entry.when_us; i /= 2)
        put(t, i, t->heap[i / 2]);
    put(t, i, entry);
}

static void sift_down(struct timers *t, uint32_t i)
{
    struct timer_entry entry = t->heap[i];

    for (uint32_t child; (child = 2 * i) <= t->count; i = child) {
        if (child < t->count && t->heap[child + 1].when_us < t->heap[child].when_us)
            child++;
        if (t->heap[child].when_us >= entry.when_us)
            break;
        put(t, i, t->heap[child]);
    }
    put(t, i, entry);
}

bool timers_set(struct timers *t, uint64_t when_us, PyObject *owner, uint32_t *index)
{
    timers_remove(t, index);
    if (t->count + 1 >= t->room) {
        uint32_t room = t->room ? 2 * t->room : 64;
        struct timer_entry *heap = PyMem_Realloc(t->heap, room * sizeof *heap);

        if (!heap) {
            PyErr_NoMemory();
            return false;
        }
        t->heap = heap;
        t->room = room;
    }
    t->heap[++t->count] = (struct timer_entry){when_us, owner, index};
    sift_up(t, t->count);
    return true;
}

void timers_remove(struct timers *t, uint32_t *index)
{
    uint32_t i = *index;
    struct timer_entry last;

    if (i == 0)
        return;
    *index = 0;
    last = t->heap[t->count--];
    if (i > t->count)
        return;
    put(t, i, last);
    sift_up(t, i);
    sift_down(t, *last.index);
}

uint64_t timers_next_us(const struct timers *t)
{
    return t->count > 0 ? t->heap[1].when_us : UINT64_MAX;
}

PyObject *timers_pop(struct timers *t, uint64_t now_us)
{
    PyObject *owner;

    if (t->count == 0 || t->heap[1].when_us > now_us)
        return NULL;
    owner = Py_NewRef(t->heap[1].owner);
    timers_remove(t, t->heap[1].index);
    return owner;
}

void timers_free(struct timers *t)
{
    while (t->count > 0)
        timers_remove(t, t->heap[1].index);
    PyMem_Free(t->heap);
    t->heap = NULL;
    t->room = 0;
}
