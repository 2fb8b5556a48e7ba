#!/bin/bash
set -euo pipefail
if [ -e /only-in-scout ]; then
	echo "what a step in scout wrote has reached the node's root" >&2
	exit 1
fi
jq -n --arg boot "$(cat /proc/sys/kernel/random/boot_id)" --arg init "$(cat /proc/1/comm)" --argjson scout "$(jq .firmware "$JOIST_INPUTS")" \
	'{scout: $scout, boot: $boot, init: $init}' >"$JOIST_OUTPUTS"
