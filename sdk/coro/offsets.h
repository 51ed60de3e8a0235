/*
 * offsets.h: the numbers that C and assembly share: fields of struct coro_sched, words of an image.
 *
 * Read by the C compiler and by the assembler, hence #define alone; run.h asserts them against the structure.
 */
#ifndef CORO_OFFSETS_H
#define CORO_OFFSETS_H

#define CORO_OFFSET_SP      0
#define CORO_OFFSET_HOST_SP 8
#define CORO_OFFSET_HOST_FP 16
#define CORO_OFFSET_HOST_PC 24

/* An image begins with what coro_wait() pushed: the request, then the registers that a callee must preserve.  START words are
 * there when a coroutine begins; PC is the address at which it goes on, FN and OWNER are registers that coro_start_ reads. */
#if defined(__x86_64__)
#define CORO_WORD_OWNER  5 /* rbp */
#define CORO_WORD_FN     6 /* rbx */
#define CORO_WORD_PC     7
#define CORO_WORDS_START 8
#elif defined(__aarch64__)
#define CORO_WORD_PC     1 /* x30 */
#define CORO_WORD_FN     2 /* x19 */
#define CORO_WORD_OWNER  3 /* x20 */
#define CORO_WORDS_START 22
#else
#error "the coroutine switch is written for x86-64 and aarch64"
#endif

#endif
