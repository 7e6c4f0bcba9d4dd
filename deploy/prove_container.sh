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
clean_up() {
    [ -z "$network" ] || kill $(pgrep --ns "$network" --nslist net) 2>/dev/null || true
    wait || true # buildah writes there until what it ran has ended
    # What a killed program had mounted there, such as /dev/shm, is the machine's own.
    findmnt -rno TARGET | grep "^$work/" | sort -r | xargs -r umount || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
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
    # As in Debian's own slim images, apt keeps nothing that it has fetched, and nobody reads manuals there.
    cat >"$work/clean" <<'APT'
Dir::Cache { pkgcache ""; srcpkgcache ""; };
DPkg::Post-Invoke { "rm -rf /var/cache/apt/archives/*.deb /usr/share/doc /usr/share/man"; };
APT
    mmdebstrap --variant=minbase --aptopt="$work/apt.conf" --customize-hook="copy-in $work/clean /etc/apt/apt.conf.d" \
        --customize-hook="cd \"\$1/usr/share\" && rm -r doc man locale" trixie "$work/base.tar" "$work/sources.list"
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
    command buildah "${store[@]}" build --isolation chroot --network host --pull-never --format docker \
        "${arguments[@]}" --target cpu --tag "$image" --file deploy/Dockerfile .
}

app_process() { # the app itself, among what runs in that network
    local process
    for process in $(pgrep --ns "$network" --nslist net); do
        case $(readlink "/proc/$process/exe") in */python3*) echo "$process" && return ;; esac
    done
}

start() { # CONTAINER COMMAND...: the app, until it is healthy; $app is the process that waits for it
    run "$@" >"$work/app.log" 2>&1 &
    app=$!
    local began=$SECONDS
    until run "$container" -- "${health[@]:1}" 2>/dev/null; do
        { [ $((SECONDS - began)) -lt 600 ] && kill -0 "$app"; } || { cat "$work/app.log" && fail "it is not healthy"; }
    done
    claim "healthy $((SECONDS - began)) s after its start"
}

stop() { # the app, as a container's engine does
    local asked code=0
    asked=$(date +%s%N)
    kill -TERM "$(app_process)"
    wait "$app" || code=$?
    expect "exit code $((($(date +%s%N) - asked) / 1000000)) ms after SIGTERM" "$code" 143
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
megabytes() { du -smc "$@" | tail -1 | cut -f1; }
claim "built: $(megabytes "$root") MB, of them packages $(megabytes "$root/app/.venv")," \
    "models $(megabytes "$root"/app/{bundled,sd-pokemon-model}), Debian and Python $(megabytes --exclude=app "$root")"
left=$(cd "$root" && ls -d usr/bin/{gcc,as,ld,make,git,pip3} app/.venv/bin/pip* run/secrets/* 2>/dev/null) || true
expect "tools and secrets left in it" "${left:-none}" none
expect "libraries of NVIDIA in it" "$(find "$root/app/.venv" -path '*/nvidia/*' -name '*.so*' | wc -l)" 0

# ---- Start, ask, draw, stop, as the image says
unshare --net sleep infinity &
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
network=$!
nsenter --net="/proc/$network/ns/net" ip link set lo up
mapfile -td '' command < <(listed Cmd)
mapfile -td '' health < <(listed Healthcheck.Test)
claim "CMD ${command[*]}"
claim "HEALTHCHECK ${health[*]}"
touch "$work/started"
start "$container" -- "${command[@]}"
expect "its user" "$(stat -c %u "/proc/$(app_process)")" 10001
sed -n 's/^Password: //p' "$work/app.log" >"$root/tmp/password"
drawn=$(run "$container" -- python - http://127.0.0.1:7860 --password_file /tmp/password <deploy/draw_once.py)
claim "by REST: $drawn"
claim "memory at its most: $(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$(app_process)/status") MB"
stop
written=$(find "$root" -xdev -newer "$work/started" -user 10001 -type f ! -path "$root/tmp/*" ! -path "$root/data/*")
expect "files written outside /tmp and /data" "${written:-none}" none

# ---- The same behind the proxy, with the command, the secrets and the settings of the compose file
cp deploy/make_secrets.sh "$work"
bash "$work/make_secrets.sh" localhost >/dev/null
proxy=$(buildah from --pull-never --add-host app:127.0.0.1 "localhost/$base")
buildah run --isolation chroot --network host "$proxy" -- sh -c \
    'apt-get update -qq && apt-get install -qq --no-install-recommends nginx' >"$work/nginx.log" 2>&1
buildah copy --quiet "$proxy" deploy/nginx.conf /etc/nginx/nginx.conf >/dev/null
IFS=', ' read -ra command < <(sed -n 's/^    command: \[\(.*\)\]/\1/p' deploy/compose.yaml)
claim "behind nginx: ${command[*]}"
secret() { echo "$work/secrets/$1:/run/secrets/$1:ro"; }
start --env FORWARDED_ALLOW_IPS=127.0.0.1 --volume "$(secret password)" "$container" -- "${command[@]}"
run --volume "$(secret certificate)" --volume "$(secret certificate_key)" "$proxy" -- nginx -g 'daemon off;' \
    >"$work/nginx.log" 2>&1 &
try() { # a program of Python's, in the image
    run --volume "$(secret certificate)" --volume "$(secret password)" "$container" -- python - "$@"
}
drawn=$(try https://localhost:8443 --certificate /run/secrets/certificate --password_file /run/secrets/password \
    <deploy/draw_once.py)
claim "by TLS: $drawn"
try <<'PYTHON'
import http.client, ssl
context = ssl.create_default_context(cafile="/run/secrets/certificate")
def status(path, port=8443, body=None):
    secure = http.client.HTTPSConnection("localhost", port, context=context)
    page = secure if port == 8443 else http.client.HTTPConnection("localhost", port)
    page.request("POST" if body else "GET", path, body)
    return page.getresponse().status
def in_a_row(number):  # by one connection, as fast as they are answered
    page = http.client.HTTPSConnection("localhost", 8443, context=context)
    answers = []
    while number and 429 not in answers:
        number -= 1
        page.request("HEAD", "/healthz")
        answer = page.getresponse()
        answer.read()
        answers += [answer.status] if answer.status not in answers else []
    return answers
answers = [status("/", 8080), status("/"), status("/api/generate", body=b" " * 9 * 2**20), *in_a_row(2000)]
open("/tmp/answers", "w").write(" ".join(map(str, answers)))
PYTHON
expect "http, no password, a body too large, one request after the other" "$(cat "$root/tmp/answers")" \
    "301 401 413 200 429"
stop
claim "proven"
