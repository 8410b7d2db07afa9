#!/bin/sh
# Install what ocirt needs, build it, install it into .venv, and run a container with it.
#
#   ./setup.sh [--peers] [--no-system] [--no-run]
#
#   --peers      also install what only tests need: runc, crun, Docker, containerd, Podman, Slurm, MPI
#   --no-system  leave the system's packages alone
#   --no-run     do not run the example
#
# As root on Debian or Ubuntu, missing packages are installed; otherwise they are named.
# May be called again: what is there already is left as it is.
set -eu
cd "$(dirname "$0")"

BUILD="gcc libc6-dev libpython3-dev musl-tools make git python3 python3-venv"
RUN="libseccomp2 busybox-static"
PEERS="runc crun mpich libmpich-dev openmpi-bin libopenmpi-dev docker.io containerd containernetworking-plugins podman
    netavark catatonit uidmap slirp4netns rootlesskit iptables iproute2 slurmctld slurmd slurm-client munge"

system=yes run=yes packages="$BUILD $RUN"
for option; do
    case "$option" in
    --peers) packages="$packages $PEERS" ;;
    --no-system) system=no ;;
    --no-run) run=no ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 1 ;;
    esac
done

say() { printf '\n== %s\n' "$*"; }

missing=
if [ "$system" = yes ] && command -v dpkg-query >/dev/null; then
    for package in $packages; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $package"
    done
fi
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        say "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q update </dev/null
        # shellcheck disable=SC2086 # a list of names
        apt-get -q -y --no-install-recommends install $missing </dev/null
    else
        echo "these packages are missing; install them as root:$missing" >&2
        exit 1
    fi
fi

python=
for candidate in "${PYTHON:-}" /usr/bin/python3 python3; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
        "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { echo "needs Python 3.11 or later with venv; set PYTHON" >&2; exit 1; }

say "building into .venv"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' </dev/null
# Each call would compile what it imports: the launcher writes nothing.
make -s bytecode
.venv/bin/ocirt --version

# Where a shell finds it; a file that is not ours is left alone.
link=${HOME:-.}/.local/bin/ocirt
[ "$(id -u)" = 0 ] && link=/usr/local/bin/ocirt
if [ -L "$link" ] || [ ! -e "$link" ]; then
    mkdir -p "$(dirname "$link")"
    ln -sfn "$PWD/.venv/bin/ocirt" "$link"
    echo "$link -> $PWD/.venv/bin/ocirt"
else
    echo "$link is not ours and stays; use $PWD/.venv/bin/ocirt"
fi

if [ "$run" = yes ]; then
    say "running a container"
    .venv/bin/python examples/make_bundle.py build/hello
    if [ "$(id -u)" = 0 ]; then
        .venv/bin/ocirt run --bundle build/hello "hello-$$"
    else
        echo "as root: ocirt run --bundle build/hello hello"
    fi
fi
