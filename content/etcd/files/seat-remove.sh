#!/bin/sh
# Removes the member with this peer URL (a seat) or client URL (a voter). One that is gone already is fine.
set -eu
# shellcheck disable=SC2034 # key is for etcdctl.sh
{
	read -r host
	read -r key
	read -r front
	cat >cert.pem
} <<EOT
$(jq -r '(.url // .client_url | sub("^https://"; "") | sub(":[0-9]+$"; "")), .key, .endpoint, .identity.leaf + .identity.chain' "$JOIST_INPUTS")
EOT
# shellcheck source=/dev/null
. ./etcdctl.sh
members "$front" >list
id=$(awk -F', ' -v url="https://$host:2380" '$4 == url { print $1 }' list)
if [ -z "$id" ]; then
	echo "$host is no member any more"
	exit 0
fi
ctl "$front" member remove "$id"
