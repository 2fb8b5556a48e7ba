#!/bin/sh
# Removes the member with this peer URL (a seat) or client URL (a voter). One that is gone already is fine. A voter stays as
# long as those that are healthy without it would be no quorum of those that remain.
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
# Fields: id, status, name, peer URL, client URL, is learner. A learner has no vote, so nothing depends on it.
learner=$(awk -F', ' -v id="$id" '$1 == id { print $6 }' list)
awk -F', ' -v id="$id" '$1 != id && $6 == "false" { print $5 }' list >others
votes=$(wc -l <others)
if [ "$learner" = false ] && [ "$votes" -gt 0 ]; then
	ctl "$(grep . others | paste -sd ,)" endpoint health >answers 2>&1 || true
	well=$(grep -c ' is healthy' answers || true)
	if [ "$well" -le "$((votes / 2))" ]; then
		cat answers
		echo "waiting for a quorum without $host: of the $votes members that remain $well are healthy, and $((votes / 2 + 1)) have to be" >"$JOIST_LATER"
		exit 0
	fi
fi
ctl "$front" member remove "$id"
