/*
 * enter.h: from the scheduler into a coroutine, inlined into the loop that does it.
 *
 * Inlined and entered by ret because of the return stack, see switch_x86_64.S: the loop's own calls and returns are balanced, so the
 * entry on top is the one of the last coroutine's call.  A function around it would put its own return address there.
 * To the compiler the statement is a call that keeps nothing: it returns when the coroutine waits or ends, with s->sp set.
 */
#ifndef CORO_ENTER_H
#define CORO_ENTER_H

#include "coro/coro.h"
#include "coro/offsets.h"

#define CORO_TEXT_(x) #x
#define CORO_TEXT(x)  CORO_TEXT_(x)

#if defined(__AVX512F__)
#define CORO_WIDE_REGISTERS                                                                                            \
    , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27",      \
        "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7"
#else
#define CORO_WIDE_REGISTERS
#endif

#if defined(__x86_64__)
static inline __attribute__((always_inline)) void coro_enter(struct coro_sched *s, struct coro_result result)
{
    __asm__ volatile(
        "movq %%rsp, " CORO_TEXT(
            CORO_OFFSET_HOST_SP) "(%%rdi)\n\t"
                                 "movq %%rbp, " CORO_TEXT(
                                     CORO_OFFSET_HOST_FP) "(%%rdi)\n\t"
                                                          "leaq 1f(%%rip), %%rcx\n\t"
                                                          "movq %%rcx, " CORO_TEXT(
                                                              CORO_OFFSET_HOST_PC) "(%%rdi)\n\t"
                                                                                   "movq " CORO_TEXT(
                                                                                       CORO_OFFSET_SP) "(%%rdi), "
                                                                                                       "%%rsp\n\t"
                                                                                                       "popq %%rcx\n\t"
                                                                                                       "popq %%r15\n\t"
                                                                                                       "popq %%r14\n\t"
                                                                                                       "popq %%r13\n\t"
                                                                                                       "popq %%r12\n\t"
                                                                                                       "popq %%rbp\n\t"
                                                                                                       "popq %%rbx\n\t"
                                                                                                       "ret\n"
                                                                                                       "1:\n\t"
                                                                                                       "endbr64"
        : "+D"(s), "+a"(result.first), "+d"(result.second)
        :
        : "rbx", "rcx", "rsi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1",
          "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
          "xmm15" CORO_WIDE_REGISTERS);
}
#elif defined(__aarch64__)
static inline __attribute__((always_inline)) void coro_enter(struct coro_sched *s, struct coro_result result)
{
    register uint64_t x0 __asm__("x0") = result.first;
    register uint64_t x1 __asm__("x1") = result.second;
    register struct coro_sched *x2 __asm__("x2") = s;

    __asm__ volatile(
        "mov x9, sp\n\t"
        "str x9, [x2, " CORO_TEXT(
            CORO_OFFSET_HOST_SP) "]\n\t"
                                 "str x29, [x2, " CORO_TEXT(
                                     CORO_OFFSET_HOST_FP) "]\n\t"
                                                          "adr x9, 1f\n\t"
                                                          "str x9, [x2, " CORO_TEXT(
                                                              CORO_OFFSET_HOST_PC) "]\n\t"
                                                                                   "ldr x9, [x2, " CORO_TEXT(
                                                                                       CORO_OFFSET_SP) "]\n\t"
                                                                                                       "mov sp, x9\n\t"
                                                                                                       "ldr x30, [sp, "
                                                                                                       "8]\n\t"
                                                                                                       "ldp x19, x20, "
                                                                                                       "[sp, 16]\n\t"
                                                                                                       "ldp x21, x22, "
                                                                                                       "[sp, 32]\n\t"
                                                                                                       "ldp x23, x24, "
                                                                                                       "[sp, 48]\n\t"
                                                                                                       "ldp x25, x26, "
                                                                                                       "[sp, 64]\n\t"
                                                                                                       "ldp x27, x28, "
                                                                                                       "[sp, 80]\n\t"
                                                                                                       "ldr x29, [sp, "
                                                                                                       "96]\n\t"
                                                                                                       "ldp d8, d9, "
                                                                                                       "[sp, 112]\n\t"
                                                                                                       "ldp d10, d11, "
                                                                                                       "[sp, 128]\n\t"
                                                                                                       "ldp d12, d13, "
                                                                                                       "[sp, 144]\n\t"
                                                                                                       "ldp d14, d15, "
                                                                                                       "[sp, 160]\n\t"
                                                                                                       "add sp, sp, "
                                                                                                       "176\n\t"
                                                                                                       "ret\n"
                                                                                                       "1:\n\t"
                                                                                                       "hint #36"
        : "+r"(x0), "+r"(x1), "+r"(x2)
        :
        : "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17", "x18",
          "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x30", "memory", "cc", "v0", "v1", "v2",
          "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17", "v18",
          "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
}
#endif

#endif
