/*
 * interruptions.h: what has taken the calling thread's processor away, as the kernel counts it: switches, page faults, and
 * the tracepoints of interrupts and softirqs that ran while the thread was the current one.  A host that takes the processor away
 * is not seen.
 */
#ifndef BENCH_INTERRUPTIONS_H
#define BENCH_INTERRUPTIONS_H

#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int interruptions_fd = -1;

static int interruptions_add(uint32_t type, uint64_t event)
{
    struct perf_event_attr attr = {
        .type = type, .size = sizeof attr, .config = event, .read_format = PERF_FORMAT_GROUP, .sample_period = 0};

    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, interruptions_fd, PERF_FLAG_FD_CLOEXEC);
}

static uint64_t tracepoint_number(const char *name)
{
    char path[128];
    unsigned long long number = 0;
    FILE *f;

    snprintf(path, sizeof path, "/sys/kernel/tracing/events/%s/id", name);
    if ((f = fopen(path, "r")) == NULL)
        return 0;
    if (fscanf(f, "%llu", &number) != 1)
        number = 0;
    fclose(f);
    return number;
}

/* Begins to count for the calling thread.  False: the kernel does not let us. */
static bool interruptions_begin(void)
{
    const char *const points[] = {"irq/irq_handler_entry",
                                  "irq/softirq_entry",
                                  "irq_vectors/local_timer_entry",
                                  "irq_vectors/reschedule_entry",
                                  "irq_vectors/irq_work_entry",
                                  "irq_vectors/call_function_entry",
                                  "irq_vectors/call_function_single_entry",
                                  "irq_vectors/x86_platform_ipi_entry"};

    interruptions_fd = interruptions_add(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CONTEXT_SWITCHES);
    if (interruptions_fd < 0 || interruptions_add(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS) < 0)
        return false;
    for (uint32_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        uint64_t number = tracepoint_number(points[i]);

        if (number == 0 || interruptions_add(PERF_TYPE_TRACEPOINT, number) < 0)
            return false;
    }
    return true;
}

/* How many there have been, of all kinds. */
static uint64_t interruptions(void)
{
    uint64_t values[16], sum = 0;

    if (read(interruptions_fd, values, sizeof values) < (ssize_t)sizeof values[0])
        abort();
    for (uint64_t i = 1; i <= values[0]; i++)
        sum += values[i];
    return sum;
}

#endif
