#!/bin/sh
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
jq -r .objects "$JOIST_INPUTS" >objects.yaml
# The objects are the pack's own: validating them would make kubectl fetch the whole schema first.
case $JOIST_ACTION in
apply) k apply --server-side --force-conflicts --validate=false --field-manager=joist -f objects.yaml ;;
remove) k delete --ignore-not-found --wait=false -f objects.yaml ;;
esac
