/*
 * save.c: from the top of the stack downward, in vectors of 32 bytes where there are any.
 *
 * Downward because the lowest words have just been pushed: a wide load of them has to wait until they are in the cache, and memcpy, which
 * begins with them, is about 3 ns of 34 slower for 1 KiB.  For loading an image memcpy is the better one: what is popped first arrives
 * first.
 */
#include "coro/save.h"
#include "coro/images.h"

#include <stdint.h>
#include <string.h>

static void save_by_memcpy(char *to_end, const char *from_end, size_t units)
{
    memcpy(to_end - units * IMAGE_UNIT, from_end - units * IMAGE_UNIT, units * IMAGE_UNIT);
}

#if defined(__x86_64__)

typedef uint64_t quad __attribute__((vector_size(32), may_alias));

static __attribute__((target("avx2"))) void save_downward(char *to_end, const char *from_end, size_t units)
{
    quad *to = (quad *)(void *)to_end;
    const quad *from = (const quad *)(const void *)from_end;

    for (; units >= 4; units -= 4, to -= 4, from -= 4) {
        quad a = from[-1], b = from[-2], c = from[-3], d = from[-4];

        to[-1] = a;
        to[-2] = b;
        to[-3] = c;
        to[-4] = d;
    }
    for (; units > 0; units--)
        *--to = *--from;
}

coro_save_fn *coro_choose_save(void)
{
    return __builtin_cpu_supports("avx2") ? save_downward : save_by_memcpy;
}

#else

coro_save_fn *coro_choose_save(void)
{
    return save_by_memcpy;
}

#endif
