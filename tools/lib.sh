# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts beside it: what a bare Debian 12 is missing is installed here, and the
# local virtual environments are made here. Nothing is installed, and the network is not touched,
# when everything is there.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

say() { printf '== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The system's own interpreter (Debian builds it with PGO): every measurement and the tools use it.
system_python() {
    if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3 || true; fi
}

# missing_packages NEED...: prints the Debian packages that stand for needs that are not met.
missing_packages() {
    local need py
    for need in "$@"; do
        py="$(system_python)"
        case "$need" in
            cc) command -v gcc >/dev/null || echo gcc
                [ -e /usr/include/stdio.h ] || echo libc6-dev ;;
            pkg-config) command -v pkg-config >/dev/null || echo pkg-config ;;
            python) [ -n "$py" ] || echo python3
                [ -n "$py" ] && [ -e "$("$py" -c 'import sysconfig
print(sysconfig.get_paths()["include"])')/Python.h" ] || echo python3-dev
                [ -n "$py" ] && "$py" -c 'import ensurepip, venv' 2>/dev/null \
                    || echo python3-venv ;;
            zlib) [ -e /usr/include/zlib.h ] || echo zlib1g-dev ;;
            cmocka) [ -e /usr/include/cmocka.h ] || echo libcmocka-dev ;;
            ab) command -v ab >/dev/null || echo apache2-utils ;;
            clang) command -v clang-14 >/dev/null || command -v clang >/dev/null || echo clang-14
                compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer*' >/dev/null \
                    || compgen -G '/usr/lib/clang/*/lib/linux/libclang_rt.fuzzer*' >/dev/null \
                    || echo libclang-rt-14-dev ;;
            clang-format) command -v clang-format-14 >/dev/null || echo clang-format-14 ;;
            openssl) command -v openssl >/dev/null || echo openssl ;;
            redis) command -v redis-server >/dev/null || command -v valkey-server >/dev/null \
                    || echo redis-server ;;
            postgres) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql ;;
            python-testsuite) py="$(system_python)"
                echo "lib$("${py:-python3}" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-testsuite" ;;
            debootstrap) command -v debootstrap >/dev/null || echo debootstrap ;;
            chromium) [ -x /usr/bin/chromium ] || echo chromium
                [ -x /usr/bin/chromedriver ] || echo chromium-driver ;;
            gdb) command -v gdb >/dev/null || echo gdb ;;
            valgrind) command -v valgrind >/dev/null || echo valgrind ;;
            # Without their services where that can be: the tests start them themselves.
            drivers) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
                command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] \
                    || echo mariadb-server-core
                command -v my_print_defaults >/dev/null || echo mariadb-client-core
                command -v redis-server >/dev/null || command -v valkey-server >/dev/null \
                    || echo redis-server
                command -v mariadb_config >/dev/null || echo libmariadb-dev ;;
            peers-build) command -v g++ >/dev/null || echo g++
                [ -e /usr/include/ev.h ] || echo libev-dev ;;
            *) die "tools/lib.sh: unknown need '$need'" ;;
        esac
    done
}

# ensure NEED...: installs what is missing, with apt-get, as root or by sudo.
ensure() {
    local packages sudo=()
    packages="$(missing_packages "$@")" || exit 1
    packages="$(echo $packages)"
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null \
        || die "missing: $packages (Debian names; there is no apt-get here to install them)"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null \
            || die "missing: $packages; run 'apt-get install $packages' as root, or install sudo"
        sudo=(sudo)
    fi
    say "installing: $packages"
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -q update \
        || say "apt-get update failed; going on with the package lists that are there"
    # shellcheck disable=SC2086
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qy \
        install --no-install-recommends $packages || die "could not install: $packages"
}

# venv PYTHON DIR REQUIREMENTS: a virtual environment, made or brought up to date only when its
# interpreter or the list has changed.
venv() {
    local python="$1" dir="$2" list="$3" stamp
    stamp="$("$python" -c 'import sys; print(sys.version, sys.base_prefix)') $(cat "$list")"
    if [ -x "$dir/bin/python" ] && [ "$(cat "$dir/.stamp" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    say "virtual environment $(basename "$dir") ($("$python" --version 2>&1))"
    rm -rf "$dir"
    "$python" -m venv "$dir" || die "$python could not make the virtual environment $dir"
    "$dir/bin/python" -m pip install -q --disable-pip-version-check --upgrade 'pip>=23.1' \
        || die "pip could not be brought up to date in $dir"
    "$dir/bin/python" -m pip install -q --disable-pip-version-check -r "$list" \
        || die "could not install what $(basename "$list") lists into $dir"
    printf '%s\n' "$stamp" > "$dir/.stamp"
}

# tools_venv: meson, ninja and ruff for the whole tree; puts them first in PATH.
tools_venv() {
    venv "$(system_python)" "$ROOT/.venv-tools" "$ROOT/tools/requirements-tools.txt"
    export PATH="$ROOT/.venv-tools/bin:$PATH"
}

# interpreters: "NAME PATH" lines of what `make test` runs on. PYTHONS (names such as 3.12, or
# paths, or 'debian') overrides: Debian's python3, and the newest 3.11, 3.12, 3.13 of pyenv.
interpreters() {
    local minor path name
    if [ -n "${PYTHONS:-}" ]; then
        for name in $PYTHONS; do
            case "$name" in
                debian | system) path="$(system_python)" ;;
                */*) path="$name" ;;
                *) path="$(pyenv_python "$name")"
                    [ -n "$path" ] || path="$(command -v "python$name" || true)" ;;
            esac
            [ -n "$path" ] && [ -x "$path" ] || die "PYTHONS: no interpreter for '$name'"
            echo "$(interpreter_name "$path") $path"
        done
        return
    fi
    path="$(system_python)"
    echo "$(interpreter_name "$path") $path"
    for minor in 3.11 3.12 3.13; do
        path="$(pyenv_python "$minor")"
        [ -z "$path" ] || echo "$(interpreter_name "$path") $path"
    done
}

pyenv_python() {
    local dir
    dir="$(compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1*/bin/python3" \
        | grep -E "/versions/${1//./\\.}(\.[0-9]+)?/bin" | sort -V | tail -n 1)"
    [ -z "$dir" ] || echo "$dir"
}

interpreter_name() {
    local version
    version="$("$1" -c 'import platform; print(platform.python_version())')"
    case "$1" in /usr/bin/*) echo "debian-$version" ;; *) echo "$version" ;; esac
}

# install_pelton VENV NAME [MESON_ARG...]: builds the tree into the virtual environment, with a
# build directory of its own so that the next time is quick.
install_pelton() {
    local dir="$1" name="$2" args=() arg
    shift 2
    for arg in "$@"; do args+=("-Csetup-args=$arg"); done
    mkdir -p "$ROOT/build"
    PATH="$dir/bin:$PATH" "$dir/bin/python" -m pip install -q --disable-pip-version-check \
        --no-build-isolation --no-deps --force-reinstall \
        "-Cbuild-dir=$ROOT/build/pip-$name" "${args[@]}" "$ROOT"
}
