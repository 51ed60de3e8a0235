/*
 * switch_x86_64.S: how a coroutine begins, waits and ends; entering it again is in enter.h.
 *
 * Why these registers suffice: a wait is a function call, so by the System V ABI its caller expects rbx, rbp, r12 to r15 and rsp
 * again and nothing else.  x87 control word and MXCSR are preserved too by that ABI: they belong to the thread here, handlers
 * do not change them across a wait.  No byte below rsp is live (no leaf: the red zone is the callers').
 *
 * Why it leaves by jmp: ret is predicted from the return stack.  The entry that the handler's call of its receive function
 * pushed stays there, and the ret in enter.h takes it: coroutines that wait in the same place are predicted right, and so are
 * the frames above.
 */
#include "coro/offsets.h"

    .text

/* struct coro_result coro_wait(uint64_t request).  The scheduler comes from thread-local storage and not as an argument, that is through
 * registers of the handler: the loads of the next event then need not wait for any of this one's. */
    .globl  coro_wait
    .globl  coro_wait_value
    .type   coro_wait, @function
    .type   coro_wait_value, @function
    .p2align 5
coro_wait:
coro_wait_value:
    .cfi_startproc
    endbr64
    pushq   %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq   %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq   %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq   %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq   %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    pushq   %rdi
    .cfi_adjust_cfa_offset 8
    movq    coro_running_@gottpoff(%rip), %rdi
    movq    %fs:(%rdi), %rdi
    movq    %rsp, CORO_OFFSET_SP(%rdi)
    movq    CORO_OFFSET_HOST_SP(%rdi), %rsp
    movq    CORO_OFFSET_HOST_FP(%rdi), %rbp
    jmpq    *CORO_OFFSET_HOST_PC(%rdi)
    .cfi_endproc
    .size   coro_wait, . - coro_wait
    .size   coro_wait_value, . - coro_wait_value

/* The outermost frame.  Entered with rsp at the top of the stack, the handler in rbx and its owner in rbp.  The handler begins with zeroed registers, so that images of equal handlers are equal. */
    .globl  coro_start_
    .hidden coro_start_
    .type   coro_start_, @function
    .p2align 5
coro_start_:
    .cfi_startproc
    .cfi_undefined %rip
    endbr64
    movq    %rbp, %rdi
    movq    %rbx, %rax
    xorl    %ebx, %ebx
    xorl    %ebp, %ebp
    call    *%rax
    movq    coro_running_@gottpoff(%rip), %rdi
    movq    %fs:(%rdi), %rdi
    movq    $0, CORO_OFFSET_SP(%rdi)
    movq    CORO_OFFSET_HOST_SP(%rdi), %rsp
    movq    CORO_OFFSET_HOST_FP(%rdi), %rbp
    jmpq    *CORO_OFFSET_HOST_PC(%rdi)
    .cfi_endproc
    .size   coro_start_, . - coro_start_

    .section .note.GNU-stack, "", @progbits
