#!/bin/sh
# One file of public keys from the requests of all members. A key that left the set stays as long as its tokens may
# live, and the step is due again when that is over. The apiserver reads the file when it starts, so a running one is restarted if the file changed.
set -eu
# shellcheck source=/dev/null
. ./lib.sh
dir=/var/lib/joist/service-accounts/public
file=/etc/kubernetes/token-keys.pem
if [ "$JOIST_ACTION" = remove ]; then
	rm -rf "$dir" "$file"
	exit 0
fi
mkdir -p "$dir" new
jq -r '.keys | to_entries[] | "\(.key) \(.value | @base64)"' "$JOIST_INPUTS" >requests
while read -r name request; do
	echo "$request" | base64 -d | openssl req -noout -pubkey >public
	cp public "new/$name-$(sha256sum <public | cut -c 1-16).pem"
done <requests
for old in "$dir"/*.pem; do
	[ -e "$old" ] || continue
	if [ -e "new/${old##*/}" ]; then
		rm -f "$old.left"
	elif [ ! -e "$old.left" ]; then
		touch "$old.left"
	fi
done
cp new/*.pem "$dir"
life=$(jq .life "$JOIST_INPUTS")
find "$dir" -name '*.left' -mmin "+$((life * 60))" | while read -r left; do rm -f "${left%.left}" "$left"; done
oldest=$(find "$dir" -name '*.left' -printf '%T@\n' | sort -n | head -n 1 | cut -d . -f 1)
if [ -n "$oldest" ]; then
	# A success is renewed when 17/30 to 20/30 of its time are over. Two minutes, because find counts whole ones.
	now=$(date +%s)
	date -u -d "@$((now + (oldest + life * 3600 + 120 - now) * 30 / 17))" +%Y-%m-%dT%H:%M:%SZ >"$JOIST_VALID_UNTIL"
fi
cat "$dir"/*.pem >wanted
if ! cmp -s wanted "$file"; then
	put 0644 "$file" <wanted
	if systemctl is-active --quiet joist-apiserver; then
		systemctl restart joist-apiserver
		until curl -sf --max-time 20 --cacert /etc/kubernetes/identities/kube-apiserver/ca.pem https://127.0.0.1:6443/readyz >ready; do sleep 1; done
	fi
fi
echo "{\"file\": \"$file\"}" >"$JOIST_OUTPUTS"
