#!/bin/sh
# Whether a node is Ready comes and goes with its machine; one that was deleted does not come back by itself.
# Whether there is an apiserver is its own step's: one that is away for a moment is waited for.
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
name=$(jq -r .name "$JOIST_INPUTS")
tries=0
until found=$(k get node "$name" --ignore-not-found -o name --request-timeout=15s); do
	tries=$((tries + 1))
	[ "$tries" -lt 5 ] || exit 1
	sleep 5
done
[ -n "$found" ] || { echo "node $name is not in the cluster any more" >&2; exit 1; }
