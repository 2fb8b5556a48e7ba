#!/bin/sh
set -eu
mkdir -p /var/lib/proof
jq -r .name "$JOIST_INPUTS" >>/var/lib/proof/ticks
sleep "$(jq -r .seconds "$JOIST_INPUTS")"
