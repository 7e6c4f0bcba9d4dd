#!/bin/bash
# Copy the model at MODEL_URL to /model, and fail where any file of it is not what was published.
set -euo pipefail
folder=${MODEL_FOLDER:-/model}

aws s3 sync --only-show-errors --delete "$MODEL_URL" "$folder"
cd "$folder"
# The name of the model is the checksum of the list of checksums: nobody can change either alone.
echo "$MODEL_SHA256  SHA256SUMS" | sha256sum --check --status ||
    { echo "SHA256SUMS is not that of the model that was to be deployed." >&2; exit 1; }
sha256sum --check --quiet --strict SHA256SUMS
chmod -R a+rX .
echo "The model $MODEL_SHA256 is there: $(wc -l < SHA256SUMS) files."
