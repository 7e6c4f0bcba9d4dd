#!/usr/bin/env bash
# Fills the .venv of a container image with what requirements.txt pins: bash install_packages.sh cpu|cuda
#
# Pip's settings and certificates of your own are secrets of the build, `pip.conf` and `certificates`: they
# are there while this runs, and are not in the image.
set -euo pipefail
cd "$(dirname "$0")"

if [ -e /run/secrets/pip.conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip.conf
fi
if [ -e /run/secrets/certificates ]; then
    export PIP_CERT=/run/secrets/certificates SSL_CERT_FILE=/run/secrets/certificates
fi

# The usual PyTorch is linked to NVIDIA's libraries and does not start without them. In their place it finds
# libraries by their names that answer every call with cudaErrorNoDevice, as the true ones do without a card.
no_device() {
    local scratch answer name
    scratch=$(mktemp -d)
    case $(uname -m) in
        x86_64) answer="movl \$100, %eax; ret" ;;
        aarch64) answer="mov w0, #100; ret" ;;
    esac
    nm -D --undefined-only ./*.so | awk '$1 == "U" { sub("@.*", "", $2); print $2 }' | sort -u >"$scratch/called"
    nm -D --defined-only ./*.so* | awk 'NF == 3 { sub("@.*", "", $3); print $3 }' | sort -u >"$scratch/own"
    comm -23 "$scratch/called" "$scratch/own" | grep -E '^(__cu|cu|nccl|nvrtc|nvshmem|nvtx)' |
        sed 's/.*/.globl &\n&:/' | cat - <(echo "$answer") | as -o "$scratch/answers.o"
    ld -shared -z noexecstack -soname libno_device.so -o libno_device.so "$scratch/answers.o"
    for name in $(readelf -d ./*.so | sed -nE 's/.*\(NEEDED\).*\[(lib(cu|nccl|nv).*)\]/\1/p' | sort -u); do
        [ -e "$name" ] || ld -shared -z noexecstack --no-as-needed -soname "$name" -o "$name" libno_device.so
    done
    rm -r "$scratch"
}

python3 -m venv .venv
case $1 in
    cpu) PIP_NO_COMPILE=1 CARD=no bash setup_env.sh ;;
    cuda) PIP_NO_COMPILE=1 CARD=yes bash setup_env.sh ;;
esac

packages=$(echo .venv/lib/python3*/site-packages)
if [ "$1" = cpu ] && [ -e "$packages/torch/lib/libtorch_cuda.so" ]; then
    echo "PyTorch's usual wheel came: libraries that say there is no card take the place of NVIDIA's."
    (cd "$packages/torch/lib" && no_device)
fi
.venv/bin/python -c 'import torch; print(f"PyTorch {torch.__version__}, CUDA available: {torch.cuda.is_available()}")'

# Nothing more is installed or compiled there: pip goes, and PyTorch's headers. Python's files are translated now,
# in a way that does not depend on their dates. (Templates among them are no Python, and fail.)
rm -r "$packages"/pip "$packages"/pip-* .venv/bin/pip* "$packages/torch/include"
.venv/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash .venv || true
