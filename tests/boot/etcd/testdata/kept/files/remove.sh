#!/bin/sh
set -eu
rm -f "$(jq -r .file "$JOIST_INPUTS")"
