#!/bin/sh
# jq is slow to start on small machines: one call gives every line that is read here.
set -eu
# shellcheck disable=SC2034 # key is for etcdctl.sh
{
	read -r founding
	read -r name
	read -r url
	read -r key
	read -r front
	cat >cert.pem
} <<EOT
$(jq -r '(if .founders[.name].id == .id then {initial: (.founders | map_values(.url)), state: "new"} else null end | tojson),
	.name, .url, .key, .endpoint, .identity.leaf + .identity.chain' "$JOIST_INPUTS")
EOT

if [ "$founding" != null ]; then
	echo "$founding" >"$JOIST_OUTPUTS"
	exit 0
fi

# shellcheck source=/dev/null
. ./etcdctl.sh
if ! members "$front" | awk -F', ' -v url="$url" '$4 == url { found = 1 } END { exit !found }'; then
	ctl "$front" member add "$name" --learner --peer-urls="$url"
fi
members "$front" | awk -F', ' -v url="$url" -v name="$name" '{ print ($4 == url ? name : $3) "\t" $4 }' |
	jq -Rn '{initial: ([inputs | split("\t") | select(.[0] != "") | {key: .[0], value: .[1]}] | from_entries), state: "existing"}' >"$JOIST_OUTPUTS"
