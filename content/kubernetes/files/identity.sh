#!/bin/sh
# shellcheck disable=SC2154 # jq assigns what is read from the inputs
set -eu
# shellcheck source=/dev/null
. ./lib.sh
eval "$(jq -r '@sh "name=\(.name) leaf=\(.certificate.leaf) chain=\(.certificate.chain)"' "$JOIST_INPUTS")"
dir=/etc/kubernetes/identities/$name
case $JOIST_ACTION in
apply)
	# The authority first: who reads both in between accepts what it did before.
	printf '%s' "$chain" | put 0644 "$dir/ca.pem"
	printf '%s%s' "$leaf" "$chain" | put 0644 "$dir/cert.pem"
	echo "{\"folder\": \"$dir\"}" >"$JOIST_OUTPUTS"
	;;
verify) printf '%s%s' "$leaf" "$chain" | cmp -s - "$dir/cert.pem" || { echo "$dir/cert.pem is missing or another one" >&2; exit 1; } ;;
remove) rm -rf "$dir" ;;
esac
