#!/bin/sh
set -eu
motto=$(jq -r .motto "$JOIST_INPUTS")
case $motto in
bad*) echo "the motto $motto is refused" >&2; exit 1 ;;
esac
