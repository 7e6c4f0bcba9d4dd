#!/usr/bin/env bash
# Makes what compose.yaml asks for in deploy/secrets: bash deploy/make_secrets.sh draw.example.org
#
# A password of its own, and a certificate that this script signs itself, so that browsers warn of it. Put your
# own in place of it: the chain in `certificate`, its key in `certificate_key`. What is there is kept.
set -euo pipefail
umask 077
mkdir -p "$(dirname "$0")/secrets"
cd "$(dirname "$0")/secrets"
name=${1:?"name the host that the page will have, such as draw.example.org"}

if [ ! -e password ]; then
    openssl rand -base64 18 >password
    echo "The password is in deploy/secrets/password."
fi
if [ ! -e certificate ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 365 \
        -subj "/CN=$name" -addext "subjectAltName=DNS:$name" -keyout certificate_key -out certificate 2>/dev/null
    echo "The certificate for $name is in deploy/secrets/certificate: browsers do not know who signed it."
fi
# The users of the containers read them; others on this machine do not come into the folder.
chmod 444 password certificate certificate_key
