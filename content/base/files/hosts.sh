#!/bin/sh
# Keeps one block of /etc/hosts between two marks.
set -eu
section=$(jq -r '.section // "" | if . == "" then "" else " " + . end' "$JOIST_INPUTS")
begin="# joist hosts$section begin" end="# joist hosts$section end"
hosts=/etc/hosts
wanted() {
	echo "$begin"
	jq -r '.entries | to_entries | sort_by(.key)[] | .value as $e | $e.addresses[] | . + " " + $e.fqdn + " " + ($e.fqdn | split(".")[0])' "$JOIST_INPUTS"
	echo "$end"
}
others() { sed "/^$begin\$/,/^$end\$/d" "$hosts"; }
# Several tasks write to the file of one node, each a section, and may do so at the same time.
if [ "$JOIST_ACTION" != verify ]; then
	exec 9</etc
	flock 9
fi
case $JOIST_ACTION in
apply)
	{ others; wanted; } >"$hosts.joist"
	;;
verify)
	sed -n "/^$begin\$/,/^$end\$/p" "$hosts" >found
	wanted >expected
	cmp -s found expected || { echo "/etc/hosts does not have the entries it should" >&2; exit 1; }
	exit 0
	;;
remove)
	others >"$hosts.joist"
	;;
esac
chmod 0644 "$hosts.joist"
mv "$hosts.joist" "$hosts"
