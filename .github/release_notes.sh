#!/usr/bin/env bash
# What CHANGELOG.md says of one version: bash .github/release_notes.sh v0.1.0
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1#v}

refuse() {
    echo "$*" >&2
    exit 2
}

grep -qxF "version = \"$version\"" pyproject.toml ||
    refuse "pyproject.toml has another version than $1. Set it to $version before you tag."
notes=$(awk -v heading="## [$version]" '
    /^## / { inside = index($0, heading) == 1; next }
    inside
' CHANGELOG.md)
[[ $notes == *[![:space:]]* ]] ||
    refuse "CHANGELOG.md has nothing under '## [$version]'. Move what is under '## [Unreleased]' there."
printf '%s\n' "$notes"
