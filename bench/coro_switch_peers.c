/*
 * coro_switch_peers.c: two older ways, for comparison: a shared stack copied around a switch function, and swapcontext.
 *
 * The first is what the usual shared-stack libraries do: a heap block per coroutine that holds all callee-saved registers and FPU
 * control words, an image in a buffer from malloc that grows by doubling, memcpy, and a switch that is a function of its own.
 */
#include "bench/coro_switch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#if defined(__x86_64__)

struct copier {
    uint64_t r12, r13, r14, r15, pc, sp, rbx, rbp;
    uint32_t mxcsr;
    uint16_t fpu;
    struct row *row;
    char *image;
    size_t image_bytes, capacity;
    int64_t got;
};

void copier_switch(struct copier *from, struct copier *to);
__asm__(".text\n.p2align 5\n.type copier_switch, @function\ncopier_switch:\n"
        "    popq %rdx\n    movq %rdx, 32(%rdi)\n    movq %rsp, 40(%rdi)\n"
        "    movq %r12, 0(%rdi)\n    movq %r13, 8(%rdi)\n    movq %r14, 16(%rdi)\n    movq %r15, 24(%rdi)\n"
        "    movq %rbx, 48(%rdi)\n    movq %rbp, 56(%rdi)\n    stmxcsr 64(%rdi)\n    fnstcw 68(%rdi)\n"
        "    movq 0(%rsi), %r12\n    movq 8(%rsi), %r13\n    movq 16(%rsi), %r14\n    movq 24(%rsi), %r15\n"
        "    movq 48(%rsi), %rbx\n    movq 56(%rsi), %rbp\n    ldmxcsr 64(%rsi)\n    fldcw 68(%rsi)\n"
        "    movq 40(%rsi), %rsp\n    movq 32(%rsi), %rdx\n    jmpq *%rdx\n.size copier_switch, .-copier_switch\n");

enum { COPIER_STACK = 1 << 20 };
static struct copier host;
static struct copier *running;
static char *copier_stack, *copier_top;

static __attribute__((noinline)) int64_t receive_copying(struct copier *c)
{
    copier_switch(c, &host);
    return c->got;
}

static void copier_main(void)
{
    struct copier *c = running;
    int64_t got;

    while ((got = receive_copying(c)) != 0)
        c->row->served += (uint64_t)got;
}

static void copier_main_1024(void)
{
    struct copier *c = running;
    char block[920];
    int64_t got;

    memset(block, 1, sizeof block);
    do {
        __asm__ volatile("" : : "r"(block) : "memory");
        got = receive_copying(c);
        c->row->served += (uint64_t)got;
    } while (got != 0);
    __asm__ volatile("" : : "r"(block) : "memory");
}

/* Saves [sp, top), makes room first. */
static void copier_save(struct copier *c)
{
    c->image_bytes = (size_t)((uintptr_t)copier_top - c->sp);
    if (c->image_bytes > c->capacity) {
        free(c->image);
        for (c->capacity = 64; c->capacity < c->image_bytes;)
            c->capacity *= 2;
        c->image = malloc(c->capacity);
        if (c->image == NULL)
            exit(4);
    }
    memcpy(c->image, (const char *)c->sp, c->image_bytes);
}

static __attribute__((noinline)) void copier_resume(struct copier *c, int64_t got)
{
    c->got = got;
    memcpy((char *)c->sp, c->image, c->image_bytes);
    running = c;
    copier_switch(&host, c);
    copier_save(c);
}

void prepare_copying(uint32_t count, size_t live)
{
    copier_stack = mmap(NULL, COPIER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    copier_top = copier_stack + COPIER_STACK - 64;
    for (uint32_t i = 0; i < count; i++) {
        struct copier *c = calloc(1, sizeof *c);

        if (c == NULL)
            exit(4);
        *c = (struct copier){.row = &rows[i], .mxcsr = 0x1f80, .fpu = 0x37f};
        c->pc = (uint64_t)(uintptr_t)(live == 0 ? copier_main : copier_main_1024);
        c->sp = (uint64_t)(uintptr_t)copier_top - 8;
        rows[i].copier = c;
        running = c;
        copier_switch(&host, c);
        copier_save(c);
    }
}

void pass_copying(uint32_t events)
{
    for (uint32_t i = 0; i < events; i++)
        copier_resume(rows[order[i]].copier, 1);
}

#endif

/* --- swapcontext --- */

enum { CONTEXT_STACK = 16 << 10 };
struct context {
    ucontext_t self;
    struct row *row;
    char stack[CONTEXT_STACK];
};
static ucontext_t host_context;

static void context_main(unsigned high, unsigned low)
{
    struct context *c = (struct context *)((uintptr_t)high << 32 | low);

    for (;;) {
        swapcontext(&c->self, &host_context);
        c->row->served++;
    }
}

void prepare_swapcontext(uint32_t count, size_t live)
{
    (void)live;
    for (uint32_t i = 0; i < count; i++) {
        struct context *c = malloc(sizeof *c);

        if (c == NULL)
            exit(4);
        getcontext(&c->self);
        c->row = &rows[i];
        c->self.uc_stack.ss_sp = c->stack;
        c->self.uc_stack.ss_size = CONTEXT_STACK;
        rows[i].context = c;
        makecontext(&c->self, (void (*)(void))context_main, 2, (unsigned)((uintptr_t)c >> 32), (unsigned)(uintptr_t)c);
        swapcontext(&host_context, &c->self);
    }
}

void pass_swapcontext(uint32_t events)
{
    for (uint32_t i = 0; i < events; i++) {
        struct context *c = rows[order[i]].context;

        swapcontext(&host_context, &c->self);
    }
}
