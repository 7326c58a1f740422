# SPDX-License-Identifier: Apache-2.0
"""How long the redirection of waiting calls takes: at start, and with 280 libraries loaded.

The libraries are made here, with 900 relocations each: one in eight is a driver that imports all
the names below that wait or wake, the others five of them; half of each kind are bound eagerly with
read-only tables, half lazily. (Of 280 libraries that really were loaded, with numpy, lxml, drivers
and the like, the average had 930 relocations and two or three such names.) The start is tried on
what Debian's python3 has: its library and the extension modules of the standard library.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from measure import Book
from servers import BUILD
from serving import BenchError

PROGRAM = BUILD / "patching"
LIBRARIES = 280
ROUNDS = 5
TIMEOUT_S = 60
LINE = re.compile(
    r"^(?P<kind>install|scan)_us=(?P<us>[\d.]+) cpu_us=(?P<cpu_us>[\d.]+) slots=(?P<slots>\d+)",
    re.MULTILINE,
)

DRIVERS_IN = 8  # one of so many is a driver
RELOCATIONS = 900
WAITING = """
nanosleep poll select epoll_wait recv recvfrom recvmsg send sendto sendmsg read write readv writev
connect accept accept4 sem_wait sem_timedwait sem_post pthread_mutex_lock pthread_mutex_unlock
pthread_cond_wait pthread_cond_timedwait pthread_cond_signal pthread_cond_broadcast pthread_self
pthread_join waitpid close dup2 getaddrinfo usleep sleep sigwait
""".split()
USUAL = ["read", "write", "close", "pthread_mutex_lock", "pthread_mutex_unlock"]
OTHERS = """
malloc free calloc realloc memcpy memmove memset memcmp memchr strlen strcmp strncmp strcpy strncpy
strcat strchr strrchr strstr strtol strtoul strtod strdup strerror snprintf printf fprintf fputs
fputc fopen fclose fread fwrite fseek ftell fflush getenv setenv getpid getuid open lseek unlink
rename mkdir opendir readdir closedir mmap munmap mprotect socket bind listen setsockopt getsockopt
getsockname getpeername shutdown time gettimeofday clock_gettime gmtime_r localtime_r strftime
mktime qsort bsearch abort atexit signal sigaction sigemptyset
""".split()


def library_text(waiting: list[str]) -> str:
    """C: every name once called (JUMP_SLOT), every third kept in data (R_X86_64_64)."""
    names = waiting + OTHERS
    declared = "\n".join(f"extern void {name}(void);" for name in names)
    calls = "\n".join(f"    {name}();" for name in names)
    kept = ", ".join(names[::3])
    words = ", ".join(f'"word {i}"' for i in range(RELOCATIONS - len(names) * 4 // 3))
    return (
        f"{declared}\n"
        f"void bench_calls(void)\n{{\n{calls}\n}}\n"
        f"void (*bench_kept[])(void) = {{{kept}}};\n"
        f"const char *const bench_words[] = {{{words}}};\n"
    )


def make_libraries(folder: Path, count: int) -> list[Path]:
    """COUNT libraries that the dynamic linker takes for different ones."""
    kinds = []
    for name, waiting in (("driver", WAITING), ("usual", USUAL)):
        source = folder / f"{name}.c"
        source.write_text(library_text(waiting))
        for binding in ("now", "lazy"):
            library = folder / f"{name}-{binding}.so"
            subprocess.run(
                ["gcc", "-O1", "-w", "-fno-builtin", "-shared", "-fPIC", f"-Wl,-z,{binding}",
                 "-Wl,-z,relro", "-o", library, source],
                check=True,
                capture_output=True,
                timeout=TIMEOUT_S,
            )  # fmt: skip
            kinds.append(library)
    made = []
    for i in range(count):
        kind = kinds[i % 2 if i // 2 % DRIVERS_IN == 0 else 2 + i % 2]
        made.append(Path(shutil.copy(kind, folder / f"{i}-{kind.name}")))
    return made


def interpreter_libraries() -> list[Path]:
    """libpython and the standard library's extension modules, where they lie."""
    name = f"lib{Path(sysconfig.get_config_var('LDLIBRARY')).stem.removeprefix('lib')}.so.1.0"
    library = Path(sysconfig.get_config_var("LIBDIR")) / name
    if not library.exists():
        library = library.parent / sysconfig.get_config_var("MULTIARCH") / name
    if not library.exists():
        return []
    modules = Path(sysconfig.get_path("stdlib")) / "lib-dynload"
    # Modules of test suites and of toolkits that aren't installed are no part of a server.
    return [library, *sorted(p for p in modules.glob("*.so") if "test" not in p.name)]


def read(text: str) -> dict[str, dict[str, float]]:
    """By kind: microseconds, those of CPU among them, slots."""
    return {
        match["kind"]: {name: float(match[name]) for name in ("us", "cpu_us", "slots")}
        for match in LINE.finditer(text)
    }


def run(kind: str, *arguments: str | Path) -> dict[str, float]:
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"patching: {done.stderr.strip()[-200:]}")
    return read(done.stdout)[kind]


def patching(book: Book) -> None:
    if not PROGRAM.exists():
        book.fail("patching", "the program was not built")
        return
    start = interpreter_libraries()
    if not start:
        book.fail("patching", "no shared libpython here: the start is tried without it")
    with tempfile.TemporaryDirectory(prefix="pelton-bench-") as folder:
        try:
            libraries = make_libraries(Path(folder), LIBRARIES)
            for _ in range(ROUNDS):
                for name, took in (
                    ("start", run("install", *start)),
                    ("start_280", run("install", *start, *libraries)),
                    ("scan_280", run("scan", *start, "--", *libraries)),
                ):
                    book.add("patching", **{f"{name}_{part}": v for part, v in took.items()})
        except (BenchError, OSError, subprocess.SubprocessError, KeyError) as error:
            book.fail("patching", str(error))
