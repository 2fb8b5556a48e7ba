#!/bin/sh
# shellcheck disable=SC2094,SC2154 # functions and files of their names; jq assigns what is read from the inputs
# A VXLAN device without learning: the way to a node's pods leads to the node's own address, said to be on the device, whose
# hardware address there follows from it. Routes of protocol 202 are ours, and all that the device has of neighbours.
set -eu
device=joist-pods
proto=202
eval "$(jq -r '@sh "address=\(.address) port=\(.port) id=\(.id)"' "$JOIST_INPUTS")"
hardware() { echo "$1" | awk -F. '{ printf "02:4a:%02x:%02x:%02x:%02x", $1, $2, $3, $4 }'; }
wanted() {
	jq -r '.own as $own | .routes | to_entries | sort_by(.key)[] | select(.key != $own) | .value | "\(.network) via \(.via)"' "$JOIST_INPUTS"
}
found() { ip -o route show proto "$proto" | awk '{ print $1, $2, $3 }'; }
case $JOIST_ACTION in
apply)
	if ! ip -d link show "$device" 2>/dev/null | grep -q "vxlan id $id local $address .*dstport $port "; then
		ip link del "$device" 2>/dev/null || true
		modprobe -q vxlan || true # or it is in the kernel
		ip link add "$device" address "$(hardware "$address")" type vxlan id "$id" local "$address" dstport "$port" nolearning
	fi
	ip link set "$device" up
	wanted >wanted
	bridge fdb show dev "$device" | awk '$2 == "dst" { print $1 }' >before
	: >now
	while read -r network via peer; do
		ip neigh replace "$peer" lladdr "$(hardware "$peer")" dev "$device" nud permanent
		bridge fdb replace "$(hardware "$peer")" dev "$device" dst "$peer"
		hardware "$peer" >>now
		echo >>now
		ip route replace "$network" "$via" "$peer" dev "$device" onlink src "$address" proto "$proto"
	done <wanted
	found | while read -r route; do
		# shellcheck disable=SC2086 # words
		grep -qxF "$route" wanted || ip route del $route proto "$proto"
	done
	while read -r gone; do
		grep -qxF "$gone" now || bridge fdb del "$gone" dev "$device"
	done <before
	;;
verify)
	wanted | sort >wanted
	found | sort >found
	cmp -s wanted found || { echo "ways to pods are not what they should be:" >&2; diff wanted found >&2 || true; exit 1; }
	;;
remove) ip link del "$device" 2>/dev/null || true ;;
esac
