#!/bin/bash
set -euo pipefail
mkdir /only-in-scout
jq -n --arg boot "$(cat /proc/sys/kernel/random/boot_id)" --arg init "$(cat /proc/1/comm)" --argjson level "$(jq .level "$JOIST_INPUTS")" \
	'{level: $level, boot: $boot, init: $init}' >"$JOIST_OUTPUTS"
