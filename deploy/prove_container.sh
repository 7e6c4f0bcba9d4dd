#!/usr/bin/env bash
# Builds the CPU image and uses it, from nothing: without a daemon, and without a registry of images.
#
#     bash deploy/prove_container.sh [FOLDER]
#
# On Debian, as root, with the packages buildah, mmdebstrap and iproute2, and 20 GB free in FOLDER (/var/tmp).
# The base images are made of Debian's packages, under the names that are asked for. How packages are reached
# is taken from this machine: settings of apt and pip, certificates, TORCH_INDEX.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d "${1:-/var/tmp}/prove-container.XXXXXX")
export TMPDIR=$work # where buildah keeps what it fetches, too
store=(--root "$work/images" --runroot "$work/run" --storage-driver vfs)
image=sd-pokemon:cpu
network='' # a process in a network that has nothing but loopback
trap '[ -z "$network" ] || kill "$network"; rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM

claim() { printf '==> %4d s  %s\n' "$SECONDS" "$*"; }
fail() { claim "FAILED: $*" && exit 1; }
expect() { if [ "$2" = "$3" ]; then claim "$1: $2"; else fail "$1: $2 instead of $3"; fi; }
buildah() { command buildah "${store[@]}" "$@"; }
run() { # buildah run, in that network
    nsenter --net="/proc/$network/ns/net" buildah "${store[@]}" run --isolation chroot --network host "$@"
}
listed() { # a list in the image's configuration, by NUL
    buildah inspect --type image --format "{{range .Docker.Config.$1}}{{printf \"%s\\x00\" .}}{{end}}" "$image"
}

make_base() { # NAME: Debian 13 by this machine's apt
    apt-config dump Acquire >"$work/apt.conf"
    apt-get indextargets --format "\$(REPO_URI) \$(CODENAME)" 'Created-By: Packages' 'Origin: Debian' |
        sed -nE 's/^(\S+) [a-z]+(-[a-z]+)?$/deb \1 trixie\2 main/p' | sort -u >"$work/sources.list"
    [ -s "$work/sources.list" ] || fail "apt knows no source of Debian's packages; try apt-get update"
    nice mmdebstrap --quiet --variant=minbase --aptopt="$work/apt.conf" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' trixie "$work/base.tar" "$work/sources.list"
    local container
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/base.tar" / >/dev/null
    buildah commit --quiet --rm "$container" "$1" >/dev/null
    rm "$work/base.tar"
}

build_image() {
    local arguments=(--build-arg "BASE=$1") settings
    [ -z "${TORCH_INDEX+given}" ] || arguments+=(--build-arg "TORCH_INDEX=$TORCH_INDEX")
    for settings in "${PIP_CONFIG_FILE:-}" "$HOME/.config/pip/pip.conf" /etc/pip.conf; do
        [ ! -f "$settings" ] || { arguments+=(--secret "id=pip.conf,src=$settings") && break; }
    done
    settings=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
    [ ! -f "$settings" ] || arguments+=(--secret "id=certificates,src=$settings")
    nice command buildah "${store[@]}" build --isolation chroot --network host --pull-never --format docker \
        "${arguments[@]}" --target cpu --tag "$image" --file deploy/Dockerfile .
}

app_of() { # the process of the app, among those of the network
    pgrep --ns "$network" --nslist net -f '^python app.py'
}

# ---- Build
command -v buildah mmdebstrap ip >/dev/null || fail "install the packages buildah, mmdebstrap and iproute2"
base=$(sed -n 's/^ARG BASE=\(.*\)@.*/\1/p' deploy/Dockerfile)
claim "a base image of Debian's packages takes the name $base"
make_base "localhost/$base"
claim "building: deploy/Dockerfile, target cpu"
build_image "localhost/$base"
container=$(buildah from --pull-never "$image")
root=$(buildah mount "$container")
claim "built: $(du -sm "$root" | cut -f1) MB, of which Debian and Python $(du -sm --exclude=app "$root" | cut -f1) MB," \
    "packages $(du -sm "$root/app/.venv" | cut -f1) MB, models $(du -smc "$root/app/bundled" "$root/app/sd-pokemon-model" | tail -1 | cut -f1) MB"
left=$(cd "$root" && ls -d usr/bin/{gcc,as,ld,make,git,pip}* app/.venv/bin/pip* run/secrets/* 2>/dev/null) || true
expect "tools and secrets left in it" "${left:-none}" none
expect "libraries of NVIDIA in it" "$(find "$root/app/.venv" -path '*/nvidia/*' | wc -l)" 0

# ---- Start, ask, draw, stop, as the image says
unshare --net sleep infinity &
network=$!
until nsenter --net="/proc/$network/ns/net" ip link set lo up; do :; done
mapfile -td '' command < <(listed Cmd)
mapfile -td '' health < <(listed Healthcheck.Test)
claim "CMD ${command[*]}"
claim "HEALTHCHECK ${health[*]}"
expect "the user" "$(run "$container" -- id -u)" 10001
touch "$work/started"
run "$container" -- "${command[@]}" >"$work/app.log" 2>&1 &
app=$!
began=$SECONDS
until run "$container" -- "${health[@]:1}" 2>/dev/null; do
    [ $((SECONDS - began)) -lt 120 ] || { cat "$work/app.log" && fail "the app is not healthy"; }
done
claim "healthy $((SECONDS - began)) s after its start"
sed -n 's/^Password: //p' "$work/app.log" >"$root/tmp/password"
claim "drawn by REST: $(run "$container" -- python - http://127.0.0.1:7860 --password_file /tmp/password <deploy/draw_once.py)"
claim "memory at its most: $(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$(app_of)/status") MB"
stopped=$(date +%s%N)
kill -TERM "$(app_of)"
code=0
wait "$app" || code=$?
expect "exit code after SIGTERM" "$code" 143
claim "it ended after $((($(date +%s%N) - stopped) / 1000000)) ms"
expect "files written outside /tmp and /data" \
    "$(find "$root" -xdev -newer "$work/started" -user 10001 -type f ! -path "$root/tmp/*" ! -path "$root/data/*" | wc -l)" 0
claim "proven"
