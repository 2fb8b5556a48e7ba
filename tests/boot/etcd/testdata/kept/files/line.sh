#!/bin/sh
set -eu
file=$(jq -r .file "$JOIST_INPUTS")
cat /proc/sys/kernel/random/boot_id >>"$file"
sync
echo "{\"lines\": $(wc -l <"$file")}" >"$JOIST_OUTPUTS"
