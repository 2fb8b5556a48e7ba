#!/bin/sh
set -eu
# shellcheck source=/dev/null
. ./etcdctl.sh
url=$(jq -r .client_url "$JOIST_INPUTS")
endpoint=$(jq -r .endpoint "$JOIST_INPUTS")
# Fields: endpoint, id, version, size, is leader, is learner, …
status=$(ctl "$url" endpoint status -w simple)
case $(echo "$status" | awk -F', ' '{ print $6 }') in
false) echo "$url votes" ;;
true) ctl "$endpoint" member promote "$(echo "$status" | awk -F', ' '{ print $2 }')" ;;
*) echo "cannot read the status of $url: $status" >&2; exit 1 ;;
esac
