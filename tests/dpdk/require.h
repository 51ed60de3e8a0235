/*
 * require.h: what ends a test program with the line that does not hold.
 */
#ifndef TESTS_DPDK_REQUIRE_H
#define TESTS_DPDK_REQUIRE_H

#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(what)                                                                                                  \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, "line %d: %s\n", __LINE__, #what);                                                         \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

#endif
