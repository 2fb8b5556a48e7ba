#!/bin/sh
# A node is in the cluster once it is Ready. One that is gone already is fine.
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
name=$(jq -r .name "$JOIST_INPUTS")
case $JOIST_ACTION in
apply)
	# At once, there may be no such node yet.
	tries=0
	until k wait --for=condition=Ready "node/$name" --timeout=60s; do
		tries=$((tries + 1))
		[ "$tries" -lt 10 ] || exit 1
		sleep 2
	done
	;;
remove) k delete node "$name" --ignore-not-found --wait=true --timeout=60s ;;
esac
