#!/bin/sh
# Compares the objects with what applying them again would make of them, which the apiserver works out and does not keep.
# Whether there is an apiserver is its own step's: one that is away for a moment is waited for.
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
jq -r .objects "$JOIST_INPUTS" >objects.yaml
export TMPDIR="$PWD" # kubectl puts both sides there
tries=0
until k diff --server-side --force-conflicts --field-manager=joist --request-timeout=15s -f objects.yaml >differences; do
	if [ -s differences ]; then
		cat differences >&2
		echo "not as applied: $(sed -n 's|^diff .*/||p' differences | paste -sd ' ')" >&2
		exit 1
	fi
	tries=$((tries + 1))
	[ "$tries" -lt 5 ] || exit 1
	sleep 5
done
