/* SPDX-License-Identifier: Apache-2.0 */
/* The context switch of fibers, x86-64 System V: the callee-saved registers, the floating-point control
 * words, the stack pointer. Called by src/cores/fiber.c only, which tells sanitizers about it.
 *
 *   void pn__fiber_swap(void **save_sp, void *to_sp)
 *
 * What lies on a stack that is switched away from, from its stack pointer up: control words (8 bytes), r15, r14, r13,
 * r12, rbx, rbp, return address. fiber.c builds the same for a new fiber, with pn__fiber_start as the
 * return address, the function in r13 and its argument in r12. */
        .text

        .globl  pn__fiber_swap
        .hidden pn__fiber_swap
        .type   pn__fiber_swap, @function
        .p2align 4
pn__fiber_swap:
        .cfi_startproc
        endbr64
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
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
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, (%rdi)
        movq    %rsi, %rsp
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        ret
        .cfi_endproc
        .size   pn__fiber_swap, . - pn__fiber_swap

/* Where a new fiber begins. It has no caller: unwinders (gdb, perf, backtrace) stop here. */
        .globl  pn__fiber_start
        .hidden pn__fiber_start
        .type   pn__fiber_start, @function
        .p2align 4
pn__fiber_start:
        .cfi_startproc
        .cfi_undefined %rip
        endbr64
        xorl    %ebp, %ebp
        movq    %r12, %rdi
        call    *%r13
        ud2
        .cfi_endproc
        .size   pn__fiber_start, . - pn__fiber_start

        .section .note.GNU-stack, "", @progbits
