/* The simulator as a program, for processors that Python is not at hand for: "SEED trace_hash [failure]" a line. */
#include "tests/native/sim.c"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    uint64_t first = argc > 2 ? strtoull(argv[1], NULL, 10) : 1, count = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

    for (uint64_t seed = first; seed < first + count; seed++) {
        struct sim_result r;

        sim_run_seed(seed, 0, &r, false);
        printf("%" PRIu64 " %016" PRIx64 " %s\n", seed, r.trace_hash, r.failed ? r.text : "");
    }
    return 0;
}
