#!/bin/sh
# Removes the member with this peer URL (a seat) or client URL (a voter). One that is gone already is fine.
set -eu
# shellcheck source=/dev/null
. ./etcdctl.sh
endpoint=$(jq -r .endpoint "$JOIST_INPUTS")
host=$(jq -r '(.url // .client_url) | sub("^https://"; "") | sub(":[0-9]+$"; "")' "$JOIST_INPUTS")
members "$endpoint" >list
id=$(awk -F', ' -v url="https://$host:2380" '$4 == url { print $1 }' list)
if [ -z "$id" ]; then
	echo "$host is no member any more"
	exit 0
fi
ctl "$endpoint" member remove "$id"
