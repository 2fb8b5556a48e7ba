#!/bin/sh
set -eu
# shellcheck source=/dev/null
. ./etcdctl.sh
name=$(jq -r .name "$JOIST_INPUTS")
url=$(jq -r .url "$JOIST_INPUTS")

if jq -e '.founders[.name].id == .id' "$JOIST_INPUTS" >/dev/null; then
	jq '{initial: (.founders | map_values(.url)), state: "new"}' "$JOIST_INPUTS" >"$JOIST_OUTPUTS"
	exit 0
fi

endpoint=$(jq -r .endpoint "$JOIST_INPUTS")
if ! members "$endpoint" | awk -F', ' -v url="$url" '$4 == url { found = 1 } END { exit !found }'; then
	ctl "$endpoint" member add "$name" --learner --peer-urls="$url"
fi
members "$endpoint" | awk -F', ' -v url="$url" -v name="$name" '{ print ($4 == url ? name : $3) "\t" $4 }' |
	jq -Rn '{initial: ([inputs | split("\t") | select(.[0] != "") | {key: .[0], value: .[1]}] | from_entries), state: "existing"}' >"$JOIST_OUTPUTS"
