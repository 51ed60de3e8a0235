/*
 * drops.c: the words of drops.def.
 */
#include "shm/drops.h"

#include <stddef.h>

static const char *const names[SHM_DROP_COUNT] = {
#define DROP(symbol, name, sentence) name,
#include "shm/drops.def"
#undef DROP
};

static const char *const sentences[SHM_DROP_COUNT] = {
#define DROP(symbol, name, sentence) sentence,
#include "shm/drops.def"
#undef DROP
};

const char *shm_drop_name(enum shm_drop drop)
{
    return (unsigned)drop < SHM_DROP_COUNT ? names[drop] : NULL;
}

const char *shm_drop_sentence(enum shm_drop drop)
{
    return (unsigned)drop < SHM_DROP_COUNT ? sentences[drop] : NULL;
}
