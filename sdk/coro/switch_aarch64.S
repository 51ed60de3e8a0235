/*
 * switch_aarch64.S: how a coroutine begins, waits and ends; entering it again is in enter.h.
 *
 * Why these registers suffice: a wait is a function call, so by AAPCS64 its caller expects x19 to x29, sp and the low halves of v8
 * to v15 again, and x30 is where to go on.  FPCR belongs to the thread.  SVE and SME state is the caller's at a call.  A return
 * address signed by PAC is authenticated at the sp at which it was signed, for an image always returns to its own address.
 *
 * Scheduler and coroutine part by br to a landing pad (bti j) and meet by ret, as on x86-64 and for the same reason.
 */
#include "coro/offsets.h"

    .text

/* struct coro_result coro_wait(uint64_t request); the scheduler comes from thread-local storage, see switch_x86_64.S. */
    .globl  coro_wait
    .globl  coro_wait_value
    .type   coro_wait, %function
    .type   coro_wait_value, %function
    .p2align 5
coro_wait:
coro_wait_value:
    .cfi_startproc
    hint    #34
    sub     sp, sp, #176
    .cfi_adjust_cfa_offset 176
    stp     x0, x30, [sp]
    .cfi_rel_offset x30, 8
    stp     x19, x20, [sp, #16]
    .cfi_rel_offset x19, 16
    .cfi_rel_offset x20, 24
    stp     x21, x22, [sp, #32]
    .cfi_rel_offset x21, 32
    .cfi_rel_offset x22, 40
    stp     x23, x24, [sp, #48]
    .cfi_rel_offset x23, 48
    .cfi_rel_offset x24, 56
    stp     x25, x26, [sp, #64]
    .cfi_rel_offset x25, 64
    .cfi_rel_offset x26, 72
    stp     x27, x28, [sp, #80]
    .cfi_rel_offset x27, 80
    .cfi_rel_offset x28, 88
    stp     x29, xzr, [sp, #96]
    .cfi_rel_offset x29, 96
    stp     d8, d9, [sp, #112]
    stp     d10, d11, [sp, #128]
    stp     d12, d13, [sp, #144]
    stp     d14, d15, [sp, #160]
    mov     x9, sp
    b       .Lleave
    .cfi_endproc
    .size   coro_wait, . - coro_wait
    .size   coro_wait_value, . - coro_wait_value

/* The outermost frame.  Entered with sp at the top of the stack, the handler in x19 and its owner in x20.  The handler begins with zeroed registers, so that images of equal handlers are equal. */
    .globl  coro_start_
    .hidden coro_start_
    .type   coro_start_, %function
    .p2align 5
coro_start_:
    .cfi_startproc
    .cfi_undefined x30
    hint    #36
    mov     x0, x20
    mov     x9, x19
    mov     x19, xzr
    mov     x20, xzr
    blr     x9
    mov     x9, xzr
.Lleave:
    mrs     x10, tpidr_el0
    adrp    x2, :gottprel:coro_running_
    ldr     x2, [x2, #:gottprel_lo12:coro_running_]
    ldr     x2, [x10, x2]
    str     x9, [x2, #CORO_OFFSET_SP]
    ldr     x9, [x2, #CORO_OFFSET_HOST_SP]
    mov     sp, x9
    ldr     x29, [x2, #CORO_OFFSET_HOST_FP]
    ldr     x9, [x2, #CORO_OFFSET_HOST_PC]
    br      x9
    .cfi_endproc
    .size   coro_start_, . - coro_start_

    .section .note.GNU-stack, "", %progbits
