#!/bin/sh
set -eu
name=$(jq -r .name "$JOIST_INPUTS")
case $name in
/*) ;;
*) echo "the name $name is not an absolute path" >&2; exit 1 ;;
esac
case $JOIST_ACTION in
apply)
	mkdir -p "$(dirname "$name")"
	jq -j .content "$JOIST_INPUTS" >"$name.joist"
	chmod "$(jq -r .mode "$JOIST_INPUTS")" "$name.joist"
	mv "$name.joist" "$name"
	jq '{path: .name}' "$JOIST_INPUTS" >"$JOIST_OUTPUTS"
	;;
verify)
	jq -j .content "$JOIST_INPUTS" | cmp -s - "$name" || { echo "$name is missing or has another content" >&2; exit 1; }
	;;
remove) rm -f "$name" ;;
esac
