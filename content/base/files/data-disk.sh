#!/bin/sh
# A tmpfs of limited size at the mount point. What is mounted there already is left as it is.
set -eu
{
	read -r mount
	read -r size
} <<EOT
$(jq -r '.mount, .size' "$JOIST_INPUTS")
EOT
case $JOIST_ACTION in
apply)
	mkdir -p "$mount"
	mountpoint -q "$mount" || mount -t tmpfs -o "size=$size,mode=0755,nodev,nosuid" joist-data "$mount"
	;;
verify)
	mountpoint -q "$mount" || { echo "nothing is mounted at $mount" >&2; exit 1; }
	;;
remove)
	if mountpoint -q "$mount"; then umount "$mount"; fi
	;;
esac
