/*
 * eal.c: EAL's one start, in a thread of its own.
 *
 * That thread becomes EAL's main lcore and is pinned by it; the caller, which is Python's main thread, is not.  It blocks all
 * signals but those of its own faults, and EAL's other threads inherit that, so that signals go to Python.
 */
#include "dpdk_glue/eal.h"
#include "dpdk_glue/glue.h"
#include "dpdk_glue/refuse.h"

#include <errno.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORDS_MAX = 128 };

static bool started;

struct start {
    int argc;
    char *argv[WORDS_MAX + 2];
    int result, error;
};

static void *run(void *arg)
{
    struct start *start = arg;

    start->result = rte_eal_init(start->argc, start->argv);
    start->error = rte_errno;
    return NULL;
}

static int run_in_own_thread(struct start *start)
{
    sigset_t faults, before;
    pthread_t thread;

    sigfillset(&faults);
    sigdelset(&faults, SIGBUS);
    sigdelset(&faults, SIGSEGV);
    sigdelset(&faults, SIGFPE);
    sigdelset(&faults, SIGILL);
    pthread_sigmask(SIG_SETMASK, &faults, &before);
    int rc = pthread_create(&thread, NULL, run, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_join(thread, NULL);
    return rc;
}

void eal_listen(struct eal_ear *ear)
{
    ear->log = NULL;
    ear->stream = open_memstream(&ear->log, &ear->bytes);
    if (ear->stream != NULL)
        rte_openlog_stream(ear->stream);
}

void eal_heard(struct eal_ear *ear)
{
    size_t end, n = 0;

    rte_openlog_stream(NULL);
    if (ear->stream != NULL)
        fclose(ear->stream);
    end = ear->log != NULL ? strlen(ear->log) : 0;
    while (end > 0 && (ear->log[end - 1] == '\n' || ear->log[end - 1] == ' '))
        end--;
    for (size_t i = end > sizeof ear->said - 1 ? end - (sizeof ear->said - 1) : 0; i < end; i++)
        ear->said[n++] = (char)(ear->log[i] == '\n' ? ' ' : ear->log[i]);
    ear->said[n] = '\0';
    free(ear->log);
    if (n == 0)
        strcpy(ear->said, "DPDK gave no reason");
}

bool eal_is_started(void)
{
    return started;
}

int glue_eal_start(const char *const *words, uint32_t count, struct glue_text *why)
{
    static char program[] = "janusd";
    struct eal_ear ear;
    struct start *start = calloc(1, sizeof *start); /* EAL keeps its argv: never freed once it has started */

    if (start == NULL || count > WORDS_MAX) {
        free(start);
        return refuse(why, E2BIG, "at most %d EAL options", WORDS_MAX);
    }
    start->argv[start->argc++] = program;
    for (uint32_t i = 0; i < count; i++)
        start->argv[start->argc++] = strdup(words[i]);

    eal_listen(&ear);
    int rc = run_in_own_thread(start);
    eal_heard(&ear);
    if (rc != 0)
        return refuse(why, rc, "no thread for EAL: %s", strerror(rc));
    if (start->result < 0)
        return refuse(why, start->error > 0 ? start->error : EINVAL, "EAL does not start (%s): %s",
                      strerror(start->error), ear.said);
    started = true;
    return 0;
}
