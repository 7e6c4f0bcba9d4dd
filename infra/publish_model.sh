#!/bin/bash
# publish_model.sh FOLDER BUCKET: copy a trained model to the stack's bucket, under the checksum of
# its files, and print that name.
set -euo pipefail
[ $# -eq 2 ] || { echo "Usage: publish_model.sh FOLDER BUCKET" >&2; exit 2; }
folder=$1 bucket=$2
[ -f "$folder/model_index.json" ] ||
    { echo "$folder has no model_index.json. Name the folder of a trained model." >&2; exit 2; }

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# What is needed to draw, and not what training left beside it.
tar -C "$folder" --exclude='./checkpoint-*' --exclude='./validation' --exclude='./log.jsonl' \
    --exclude='./.lock' --exclude='./SHA256SUMS' -cf - . | tar -C "$copy" -xf -
sums=$(cd "$copy" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
echo "$sums" > "$copy/SHA256SUMS"
name=$(sha256sum "$copy/SHA256SUMS" | cut -d ' ' -f 1)
aws s3 sync --only-show-errors --checksum-algorithm SHA256 "$copy" "s3://$bucket/models/$name"
echo "$name"
