#!/bin/sh
# Pods come, or leave within a time: what holds a node up longer than that does not hold up its change.
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
eval "$(jq -r '@sh "name=\(.name) drain=\(.drain)"' "$JOIST_INPUTS")"
# shellcheck disable=SC2154 # jq assigned them
case $JOIST_ACTION in
apply) k uncordon "$name" ;;
remove)
	[ -n "$(k get node "$name" --ignore-not-found -o name)" ] || exit 0
	k cordon "$name"
	k drain "$name" --ignore-daemonsets --delete-emptydir-data --force --timeout="$drain" ||
		echo "not all pods left within $drain" >&2
	;;
esac
