#!/bin/sh
set -eu
{
	read -r name
	read -r seconds
} <<EOT
$(jq -r '.name, .seconds' "$JOIST_INPUTS")
EOT
mkdir -p /var/lib/proof
echo "$name" >>/var/lib/proof/ticks
sleep "$seconds"
