#!/bin/sh
# The public keys of all members, from their requests. A key that left the set stays as long as its tokens may live, and the step is due
# again when that is over. Members that come later never saw it: it is handed on to them.
set -eu
dir=/var/lib/joist/service-accounts/public
if [ "$JOIST_ACTION" = remove ]; then
	rm -rf "$dir"
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
echo '{}' >left.json
for left in "$dir"/*.left; do
	[ -e "$left" ] || continue
	old=${left%.left}
	jq --arg name "${old##*/}" --rawfile key "$old" '. + {($name): $key}' left.json >more.json
	mv more.json left.json
done
find "$dir" -name '*.pem' -printf '%f\n' | sort | jq -R . | jq -s --arg folder "$dir" --slurpfile left left.json '{folder: $folder, known: ., left: $left[0]}' >"$JOIST_OUTPUTS"
