#!/bin/bash
set -euo pipefail
boot=$(cat /proc/sys/kernel/random/boot_id)
file=$(jq -r .file "$JOIST_INPUTS")
echo "$boot" >"$file"
sync
jq -n --arg boot "$boot" '{boot: $boot}' >"$JOIST_OUTPUTS"
