#!/bin/sh
# shellcheck disable=SC2094 # functions, and files of their names
# Routes of protocol 201 are ours: those that are wanted are there, others are not.
set -eu
proto=201
address=$(jq -r .address "$JOIST_INPUTS")
wanted() {
	jq -r '.own as $own | .routes | to_entries | sort_by(.key)[] | select(.key != $own) | .value | "\(.network) via \(.via)"' "$JOIST_INPUTS"
}
found() { ip -o route show proto "$proto" | awk '{ print $1, $2, $3 }'; }
case $JOIST_ACTION in
apply)
	wanted >wanted
	while read -r route; do
		# shellcheck disable=SC2086 # words
		ip route replace $route src "$address" proto "$proto"
	done <wanted
	found | while read -r route; do
		# shellcheck disable=SC2086
		grep -qxF "$route" wanted || ip route del $route proto "$proto"
	done
	;;
verify)
	wanted | sort >wanted
	found | sort >found
	cmp -s wanted found || { echo "routes to pods are not what they should be:" >&2; diff wanted found >&2 || true; exit 1; }
	;;
remove) ip route flush proto "$proto" ;;
esac
