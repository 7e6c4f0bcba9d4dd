#!/usr/bin/env bash
# Fills .venv, which make has just made, with what requirements.txt pins: by uv where it is there, by pip
# otherwise.
#
# For Linux, PyTorch's usual wheels bring 4 GB for NVIDIA cards. A machine without such a card takes the
# smaller ones of the index TORCH_INDEX, if that answers; an empty TORCH_INDEX means the usual ones.
# CARD=yes or CARD=no says for which machines it is, wherever it is set up. With CARD=no, what is NVIDIA's
# never comes, not even with the usual PyTorch (deploy/install_packages.sh puts something in its place).
set -euo pipefail
cd "$(dirname "$0")"
python=.venv/bin/python
trap 'exit 130' INT # nothing else is tried when somebody presses Ctrl-C

install() {
    if command -v uv >/dev/null; then
        uv pip install --python "$python" "$@" && return
        echo "uv could not install it: pip tries."
    fi
    "$python" -m pip install --disable-pip-version-check "$@"
}

without_card() {
    case ${CARD:-} in
        no) ;;
        yes) return 1 ;;
        *) [ "$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1 ;;
    esac
}

answers() { # an index, within seconds
    "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' \
        "${1%/}/torch/" 2>/dev/null
}

keep_talking() { # installers are silent while they unpack, and without a terminal while they download
    local before='' now
    while sleep 8 >/dev/null 2>&1; do
        now=$(du -sm .venv/lib 2>/dev/null | cut -f1) || true # files come and go
        [ -t 1 ] && [ "$now" = "$before" ] || echo "  ... $SECONDS s, $now MB in .venv"
        before=$now
    done
}

small_torch() { # torch first, from its index alone
    grep -E '^(torch|torchvision)==' requirements.txt >.venv/torch.txt
    install --no-deps --index-url "$TORCH_INDEX" -r .venv/torch.txt
}

# What is pinned for the CUDA wheels of torch alone, left out.
grep -vE '^(nvidia-|cuda-|triton==)' requirements.txt >.venv/cpu.txt

keep_talking &
trap 'kill $! 2>/dev/null || true' EXIT

pinned=requirements.txt
if ! without_card; then
    size="about 2.5 GB"
    [ "$(uname -s)" != Linux ] || size="about 6.5 GB, 4 of them for the NVIDIA card"
    echo "Setting up .venv, once: $size."
elif [ -n "${TORCH_INDEX:-}" ] && answers "$TORCH_INDEX"; then
    echo "Setting up .venv, once: about 2.5 GB. Here is no NVIDIA card: a PyTorch that uses none comes from"
    echo "$TORCH_INDEX. For use on machines with cards: rm -r .venv && make TORCH_INDEX="
    if small_torch; then
        pinned=.venv/cpu.txt
    else
        echo "$TORCH_INDEX does not have it: the usual PyTorch comes, with 4 GB more for NVIDIA cards."
    fi
else
    echo "Setting up .venv, once: about 6.5 GB, 4 of them for NVIDIA cards, which this machine does not use:"
    echo "the smaller PyTorch is at no index that answers (make TORCH_INDEX=... names another)."
fi
if [ "${CARD:-}" = no ] && [ "$pinned" = requirements.txt ]; then
    echo "CARD=no: NVIDIA's 4 GB are left out all the same."
    install --no-deps -r .venv/cpu.txt
else
    install -r "$pinned"
fi
