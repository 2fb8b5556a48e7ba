#!/bin/sh
set -eu
# shellcheck disable=SC2034 # key is for etcdctl.sh
{
	read -r url
	read -r key
	read -r front
	cat >cert.pem
} <<EOT
$(jq -r '.client_url, .key, .endpoint, .identity.leaf + .identity.chain' "$JOIST_INPUTS")
EOT
# shellcheck source=/dev/null
. ./etcdctl.sh
# Fields: endpoint, id, version, size, is leader, is learner, …
status=$(ctl "$url" endpoint status -w simple)
case $(echo "$status" | awk -F', ' '{ print $6 }') in
false) echo "$url votes" ;;
true) ctl "$front" member promote "$(echo "$status" | awk -F', ' '{ print $2 }')" ;;
*) echo "cannot read the status of $url: $status" >&2; exit 1 ;;
esac
