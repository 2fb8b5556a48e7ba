#!/bin/sh
set -eu
name=$(jq -r .name "$JOIST_INPUTS")
unit=/etc/systemd/system/$name
case $JOIST_ACTION in
apply)
	jq -j .content "$JOIST_INPUTS" >wanted
	if ! cmp -s wanted "$unit"; then
		install -m 0644 wanted "$unit"
		systemctl daemon-reload
		systemctl enable "$name"
		systemctl restart "$name"
	else
		systemctl enable "$name"
		systemctl start "$name"
	fi
	;;
verify)
	jq -j .content "$JOIST_INPUTS" | cmp -s - "$unit" || { echo "$unit is missing or has another content" >&2; exit 1; }
	systemctl is-active --quiet "$name" || { echo "$name is not running" >&2; exit 1; }
	;;
remove)
	systemctl disable --now "$name" 2>/dev/null || [ ! -e "$unit" ]
	rm -f "$unit"
	systemctl daemon-reload
	;;
esac
