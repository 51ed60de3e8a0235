/*
 * balance_values.c: plans, drafts and views made from what the control plane and the threads say.
 *
 * A value is written once, then sealed against everybody, janusd included; threads map it themselves, so janusd may forget it
 * when its own I/O threads have.  Lists come from apps: hashes of any value, as many as the caller's bound.
 */
#include "dpdk_glue/balance_values.h"

#include "dpdk_glue/refuse.h"
#include "dpdk_glue/state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    VALUE_MODE = 0400,
    ROOM_FIRST = 4096,
    LATE_PART = 4, /* of what a view was prepared with may be added to it */
    LATE_MIN = 4,
};

void balance_value_free(struct balance_value *v)
{
    if (v->memory != NULL)
        munmap(v->memory, v->bytes);
    if (v->fd >= 0)
        close(v->fd);
    *v = (struct balance_value){.fd = -1};
}

static void forget_next(struct balance *b)
{
    balance_value_free(&b->next);
    b->is_prepared = false;
}

void balance_forget_attempt(struct balance *b)
{
    forget_next(b);
    balance_value_free(&b->plan);
    balance_value_free(&b->draft);
    for (uint32_t tid = 0; tid < SHM_TID_MAX; tid++) {
        free(b->answers[tid].hashes);
        b->answers[tid] = (struct balance_answers){0};
    }
}

static int value_make(const char *name, uint64_t bytes, struct balance_value *v)
{
    void *memory = MAP_FAILED;

    *v = (struct balance_value){.fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)};
    if (v->fd < 0)
        return -errno;
    if (ftruncate(v->fd, (off_t)bytes) == 0 && fchmod(v->fd, VALUE_MODE) == 0)
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, v->fd, 0);
    if (memory == MAP_FAILED) {
        int rc = -errno;
        balance_value_free(v);
        return rc;
    }
    v->memory = memory;
    v->bytes = bytes;
    return 0;
}

/* From here on nobody can write it: nobody else can map it so, and this mapping becomes one to read.  F_SEAL_WRITE would want it unmapped
 * and look at every page, while clients wait. */
static int value_seal(struct balance_value *v)
{
    if (fcntl(v->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0 &&
        mprotect(v->memory, v->bytes, PROT_READ) == 0)
        return 0;
    int rc = -errno;
    balance_value_free(v);
    return rc;
}

static int no_memory(int rc, struct glue_text *why)
{
    return refuse(why, -rc, "no memory for a view of the balancer: %s", strerror(-rc));
}

static int map_make(struct csb_map **map, const struct glue_point *points, uint32_t count, uint64_t epoch,
                    struct glue_text *why)
{
    static_assert(sizeof(struct glue_point) == sizeof(struct csb_point), "one layout");

    *map = malloc(sizeof **map);
    if (*map == NULL)
        return no_memory(-ENOMEM, why);
    if (csb_map_build(*map, (const struct csb_point *)points, count, epoch))
        return 0;
    free(*map);
    *map = NULL;
    return refuse(why, EINVAL, "a circle has at most %d distinct points of tids below %d", CSB_POINTS_MAX,
                  CSB_TIDS_MAX);
}

/* Locks, and finds the app's balance; NULL, unlocked, when there is none. */
static struct balance *lock(struct glue *g, uint32_t app, struct glue_text *why)
{
    mtx_lock(&g->control);
    if (app < GLUE_APPS_MAX && g->apps[app].id != 0)
        return &g->apps[app].balance;
    mtx_unlock(&g->control);
    refuse(why, ENOENT, "there is no app %u", app);
    return NULL;
}

int glue_csb_plan(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count, uint64_t epoch,
                  struct glue_csb_value *out, struct glue_text *why)
{
    struct balance *b = lock(g, app, why);
    struct csb_map *map = NULL;

    if (b == NULL)
        return -ENOENT;
    balance_forget_attempt(b);
    int rc = map_make(&map, points, count, epoch, why);
    if (rc == 0) {
        rc = value_make("janus-csb-plan", sizeof(struct csb_plan), &b->plan);
        if (rc == 0) {
            csb_plan_init(b->plan.memory, map, b->view.memory);
            rc = value_seal(&b->plan);
        }
        if (rc != 0)
            no_memory(rc, why);
    }
    free(map);
    *out = (struct glue_csb_value){b->plan.fd, b->plan.bytes};
    mtx_unlock(&g->control);
    return rc;
}

int glue_csb_list(struct glue *g, uint32_t app, uint32_t tid, const uint8_t *hashes, uint32_t count, uint64_t limit)
{
    struct glue_text unused;
    struct balance *b = tid < SHM_TID_MAX ? lock(g, app, &unused) : NULL;
    int rc = 0;

    if (b == NULL)
        return -ENOENT;
    struct balance_answers *a = &b->answers[tid];
    if ((uint64_t)a->count + count > limit)
        rc = -E2BIG;
    if (rc == 0 && a->count + count > a->room) {
        uint32_t room = a->room != 0 ? a->room : ROOM_FIRST;
        while (room < a->count + count)
            room *= 2;
        uint64_t *grown = realloc(a->hashes, room * sizeof *grown);
        rc = grown != NULL ? 0 : -ENOMEM;
        if (grown != NULL) {
            a->hashes = grown;
            a->room = room;
        }
    }
    if (rc == 0) {
        memcpy(a->hashes + a->count, hashes, count * sizeof *a->hashes);
        a->count += count;
    }
    mtx_unlock(&g->control);
    return rc;
}

/* Builds a view of the plan with all lists into v. */
static int view_make(const struct balance *b, const char *name, struct balance_value *v, uint64_t *reported)
{
    struct csb_list lists[SHM_TID_MAX];
    const struct csb_plan *plan = b->plan.memory;
    uint32_t count = 0;

    *reported = 0;
    for (uint32_t tid = 0; tid < SHM_TID_MAX; tid++) {
        if (b->answers[tid].count == 0)
            continue;
        lists[count++] = (struct csb_list){b->answers[tid].hashes, b->answers[tid].count, (uint16_t)tid};
        *reported += b->answers[tid].count;
    }
    for (uint64_t room = csb_view_bytes(*reported, 0), bytes;; room = bytes) {
        int rc = value_make(name, room, v);
        if (rc != 0)
            return rc;
        bytes = csb_view_build(v->memory, room, &plan->next, lists, count);
        if (bytes != 0 && bytes <= room)
            return 0;
        balance_value_free(v);
        if (bytes == 0)
            return -EINVAL;
    }
}

int glue_csb_draft(struct glue *g, uint32_t app, struct glue_csb_value *out, struct glue_text *why)
{
    struct balance *b = lock(g, app, why);
    uint64_t reported;

    if (b == NULL)
        return -ENOENT;
    balance_value_free(&b->draft);
    int rc = b->plan.memory != NULL ? view_make(b, "janus-csb-draft", &b->draft, &reported) : -EINVAL;
    if (rc == 0)
        rc = value_seal(&b->draft);
    if (rc != 0)
        no_memory(rc, why);
    *out = (struct glue_csb_value){b->draft.fd, b->draft.bytes};
    mtx_unlock(&g->control);
    return rc;
}

/* Seals the next view, and says what it is; rc: of making it. */
static int finish(struct glue *g, struct balance *b, int rc, uint64_t reported, struct glue_csb_built *out,
                  struct glue_text *why)
{
    if (rc == 0)
        rc = value_seal(&b->next);
    if (rc == 0) {
        const struct csb_view *view = b->next.memory;

        *out = (struct glue_csb_built){.value = {b->next.fd, b->next.bytes},
                                       .exceptions = view->exception_count,
                                       .exact_flows = view->exact_count,
                                       .reported = reported};
        for (uint32_t i = 0; i < CSB_SLOT_COUNT; i++)
            out->flagged[i / 64] |= (uint64_t)((view->slot[i] & CSB_SLOT_FLAG) != 0) << (i % 64);
    } else {
        no_memory(rc, why);
    }
    mtx_unlock(&g->control);
    return rc;
}

int glue_csb_prepare(struct glue *g, uint32_t app, struct glue_text *why)
{
    struct balance *b = lock(g, app, why);
    uint64_t reported;

    if (b == NULL)
        return -ENOENT;
    forget_next(b);
    int rc = b->plan.memory != NULL ? view_make(b, "janus-csb-view", &b->next, &reported) : -EINVAL;
    if (rc != 0)
        no_memory(rc, why);
    b->is_prepared = rc == 0;
    for (uint32_t tid = 0; tid < SHM_TID_MAX; tid++)
        b->answers[tid].prepared = b->answers[tid].count;
    mtx_unlock(&g->control);
    return rc;
}

/* Adds what has been listed since to the view that is prepared.  False: it must be built anew. */
static bool complete(struct balance *b, uint64_t *reported)
{
    struct csb_list late[SHM_TID_MAX];
    uint64_t prepared = 0;
    uint32_t count = 0;

    if (!b->is_prepared)
        return false;
    b->is_prepared = false;
    *reported = 0;
    for (uint32_t tid = 0; tid < SHM_TID_MAX; tid++) {
        const struct balance_answers *a = &b->answers[tid];
        *reported += a->count;
        prepared += a->prepared;
        if (a->count > a->prepared)
            late[count++] = (struct csb_list){a->hashes + a->prepared, a->count - a->prepared, (uint16_t)tid};
    }
    if (*reported - prepared > prepared / LATE_PART + LATE_MIN)
        return false; /* lines that are too full are slow to look up */
    return csb_view_amend(b->next.memory, late, count);
}

int glue_csb_build(struct glue *g, uint32_t app, struct glue_csb_built *out, struct glue_text *why)
{
    struct balance *b = lock(g, app, why);
    uint64_t reported = 0;
    int rc = 0;

    if (b == NULL)
        return -ENOENT;
    if (!complete(b, &reported)) {
        forget_next(b);
        rc = b->plan.memory != NULL ? view_make(b, "janus-csb-view", &b->next, &reported) : -EINVAL;
    }
    return finish(g, b, rc, reported, out, why);
}

/* What a view of other points begins with: 0, and g is locked; or an error, and it is not. */
static int begin(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count, uint64_t epoch,
                 struct balance **b, struct csb_map **map, struct glue_text *why)
{
    *b = lock(g, app, why);
    if (*b == NULL)
        return -ENOENT;
    forget_next(*b);
    int rc = map_make(map, points, count, epoch, why);
    if (rc != 0)
        mtx_unlock(&g->control);
    return rc;
}

int glue_csb_build_without(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count,
                           uint64_t epoch, const uint64_t dead[4], struct glue_csb_built *out, struct glue_text *why)
{
    struct csb_map *map;
    struct balance *b;
    int rc = begin(g, app, points, count, epoch, &b, &map, why);

    if (rc != 0)
        return rc;
    const struct csb_view *now = b->view.memory;
    rc = value_make("janus-csb-view", now != NULL ? now->bytes : csb_view_bytes(0, 0), &b->next);
    if (rc == 0 && now != NULL)
        csb_view_inherit(b->next.memory, b->next.bytes, map, now, dead);
    else if (rc == 0)
        csb_view_build(b->next.memory, b->next.bytes, map, NULL, 0);
    free(map);
    return finish(g, b, rc, 0, out, why);
}

int glue_csb_build_flagged(struct glue *g, uint32_t app, const struct glue_point *points, uint32_t count,
                           uint64_t epoch, const uint64_t flagged[64], struct glue_csb_built *out,
                           struct glue_text *why)
{
    struct csb_map *map;
    struct balance *b;
    int rc = begin(g, app, points, count, epoch, &b, &map, why);

    if (rc != 0)
        return rc;
    rc = value_make("janus-csb-view", csb_view_bytes(0, 0), &b->next);
    if (rc == 0) {
        csb_view_build(b->next.memory, b->next.bytes, map, NULL, 0);
        csb_view_flag(b->next.memory, flagged);
    }
    free(map);
    return finish(g, b, rc, 0, out, why);
}

int glue_csb_view(struct glue *g, uint32_t app, struct glue_csb_value *out)
{
    struct glue_text unused;
    struct balance *b = lock(g, app, &unused);

    if (b == NULL)
        return -ENOENT;
    *out = (struct glue_csb_value){b->view.fd, b->view.bytes};
    mtx_unlock(&g->control);
    return 0;
}

/* --- the controller, for Python --- */

struct csb_update *glue_update_new(void)
{
    return calloc(1, sizeof(struct csb_update));
}

void glue_update_free(struct csb_update *u)
{
    free(u);
}

uint64_t glue_update_start(struct csb_update *u, const uint64_t members[4], uint64_t ios, int is_checked,
                           uint64_t now_us, uint64_t limit_us)
{
    static_assert(CSB_TID_WORDS == 4, "as glue.h has it");

    return csb_update_start(u, members, ios, is_checked != 0, now_us, limit_us) ? u->attempt : 0;
}

uint32_t glue_update_phase(const struct csb_update *u, uint64_t waiting[4])
{
    memcpy(waiting, u->waiting, sizeof u->waiting);
    return (uint32_t)u->phase;
}

int glue_update_member_done(struct csb_update *u, uint64_t attempt, uint32_t phase, uint32_t tid)
{
    return tid < CSB_TIDS_MAX && csb_update_member_done(u, attempt, (enum csb_phase)phase, (uint16_t)tid);
}

void glue_update_ios_done(struct csb_update *u)
{
    for (uint32_t io = 0; io < CSB_IO_MAX; io++)
        (void)csb_update_io_done(u, u->attempt, u->phase, io);
}

int glue_update_advance(struct csb_update *u)
{
    return csb_update_advance(u);
}

int glue_update_abort(struct csb_update *u)
{
    return csb_update_abort(u);
}

int glue_update_tick(struct csb_update *u, uint64_t now_us)
{
    return csb_update_tick(u, now_us);
}

int glue_update_lost(struct csb_update *u, uint32_t tid)
{
    return tid < CSB_TIDS_MAX && csb_update_lost(u, (uint16_t)tid);
}
