# SPDX-License-Identifier: Apache-2.0
# Sourced by tools/test: what the sanitizers' runtimes are told. $sanitize and $ROOT are set.

case "$sanitize" in
    address)
        # Unit tests and the simulation are checked for leaks too. For the server this is off (the
        # harness says so): an interpreter keeps much until the process ends, and parked fibers'
        # stacks are no roots for LeakSanitizer; the harness compares descriptors instead, and the
        # unit tests count what each room allocates.
        export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=0:strict_string_checks=1
        export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
        export LSAN_OPTIONS="suppressions=$ROOT/tools/sanitizers/lsan.supp:print_suppressions=0"
        # The extension is instrumented and the interpreter isn't: the runtime must come first.
        PELTON_TEST_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
        export PELTON_TEST_PRELOAD PELTON_TEST_SANITIZER=address
        ;;
    thread)
        export TSAN_OPTIONS="suppressions=$ROOT/tools/sanitizers/tsan.supp:halt_on_error=0:second_deadlock_stack=1"
        ;;
esac
