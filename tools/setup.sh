#!/usr/bin/env bash
# Installs what a task needs and is not here yet: Debian packages, and a virtual environment in .venv with this project in it.
# Run it again at any time: it does nothing where nothing is missing, and asks no package server then.
#
#   tools/setup.sh build   what `layerwright build` needs
#   tools/setup.sh demo    that, and what `make demo` needs
#   tools/setup.sh test    that, and what the tests and checks need
#
# PYTHON names the interpreter to use (3.11 or newer); without it the first fitting one is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly task=${1:-build}
readonly venv=.venv

# A line is "program package"; the program tells whether the package is there, on any distribution.
readonly build_needs='git git
runc runc'
readonly demo_needs='docker-registry docker-registry
mmdebstrap mmdebstrap
skopeo skopeo'
readonly test_needs='busybox busybox-static
crun crun
dockerd docker.io
fish fish
getfattr attr
htpasswd apache2-utils
ip iproute2
newuidmap uidmap
openssl openssl
podman podman
setcap libcap2-bin
strace strace
tmux tmux
tar tar
umoci umoci
zsh zsh
zstd zstd'

case $task in
build) needs=$build_needs ;;
demo) needs=$build_needs$'\n'$demo_needs ;;
test) needs=$build_needs$'\n'$demo_needs$'\n'$test_needs ;;
*)
    echo "tools/setup.sh: no task $task: build, demo or test" >&2
    exit 2
    ;;
esac

# sbin is not on every user's path, but runc and setcap live there.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf '== %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "root is needed for: $*"
        say "run this as root, or install sudo"
        exit 3
    fi
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Prints the interpreter to make the environment with. Debian's own may still lack its venv module.
choose_python() {
    local candidate fallback=
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
        is_new_enough "$candidate" || continue
        if has_venv "$candidate"; then
            echo "$candidate"
            return
        fi
        fallback=${fallback:-$candidate}
    done
    echo "${fallback:-/usr/bin/python3}"
}

missing_packages() {
    local program package
    while read -r program package; do
        # Debian has a busybox that needs the C library, too; it is of no use in an image without one.
        if ! command -v "$program" >/dev/null || { [ "$program" = busybox ] && ldd "$(command -v busybox)" >/dev/null 2>&1; }; then
            echo "$package"
        fi
    done <<<"$needs"
    [ -x $venv/bin/python ] || has_venv "$python" || echo python3-venv
}

install_packages() {
    local packages=("$@")
    if ! command -v apt-get >/dev/null; then
        say "missing, and there is no apt-get to install them with: ${packages[*]} (names as Debian has them)"
        exit 3
    fi
    say "installing ${packages[*]}"
    local log
    log=$(mktemp)
    if ! { as_root apt-get -qq update && as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"; } \
        </dev/null >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        exit 3
    fi
    rm -f "$log"
    # Debian starts a registry on every interface as soon as the package is there; we start our own, on loopback.
    if [[ " ${packages[*]} " == *' docker-registry '* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now docker-registry >&2 || true
    fi
    # The tests start daemons of their own; one for the whole machine would change its network.
    if [[ " ${packages[*]} " == *' docker.io '* ]] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now docker.service docker.socket containerd.service >&2 || true
    fi
}

# What the environment was made from: equal text, nothing to do.
fingerprint() { cat pyproject.toml constraints.txt | sha256sum | cut -d' ' -f1; }

fill_venv() {
    local what=. stamp=$venv/.filled-for-$1
    [ "$1" = test ] && what='.[dev]'
    if [ -x $venv/bin/layerwright ] && $venv/bin/python -c '' 2>/dev/null && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then
        return
    fi
    say "filling $venv from $python"
    # --clear mends an environment whose interpreter went away; a healthy one is kept, with what it holds.
    if ! $venv/bin/python -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear $venv
    fi
    $venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --constraint constraints.txt --editable "$what" >&2
    fingerprint >"$stamp"
    [ "$1" = test ] && fingerprint >$venv/.filled-for-run || true
}

python=$(choose_python)
mapfile -t packages < <(missing_packages)
[ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
if ! is_new_enough "$python"; then
    say "Python 3.11 or newer is needed; set PYTHON to one"
    exit 3
fi
if [ "$task" = test ]; then fill_venv test; else fill_venv run; fi
