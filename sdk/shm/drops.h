/*
 * drops.h: the reasons of drops.def as numbers and words.
 */
#ifndef SHM_DROPS_H
#define SHM_DROPS_H

enum shm_drop {
#define DROP(symbol, name, sentence) SHM_DROP_##symbol,
#include "shm/drops.def"
#undef DROP
    SHM_DROP_COUNT
};

/* The metric's label and the sentence for people; null when drop is none of the list. */
const char *shm_drop_name(enum shm_drop drop);
const char *shm_drop_sentence(enum shm_drop drop);

#endif
