#!/bin/sh
# demo.sh up: from nothing to an etcd cluster on three virtual machines that boot from the network (make demo).
# demo.sh down: ends it and takes away all that it made, also after everything was killed (make demo-down).
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
joist=$here/bin/joist
export JOIST_DATA="${JOIST_DATA:-$here/data/demo}"
bootsets=${JOIST_BOOTSETS:-$here/build/bootsets}
cluster=${JOIST_CLUSTER:-$here/content/examples/etcd.hcl}

up() {
  "$joist" bootset build --out "$bootsets" --cache "$here/build/bootset-cache" --agent "$here/bin/joist-agent"
  lab=$("$joist" lab up --bootsets "$bootsets" --machines 3 --output json)
  JOIST_SOCKET=$(printf '%s' "$lab" | jq -r .socket)
  export JOIST_SOCKET
  "$joist" apply "$cluster"
  printf '\nto look further:\n  export JOIST_DATA=%s JOIST_SOCKET=%s\n' "$JOIST_DATA" "$JOIST_SOCKET"
  printf '  bin/joist %s\n' 'status demo' 'plan content/examples/etcd.hcl' "why 'demo/member[n1]'" 'lab exec -- dig @10.77.0.1 etcd.demo.lab'
}

down() {
  "$joist" lab down
  case $JOIST_DATA in
  "$here"/data/*) rm -rf "$JOIST_DATA" ;; # the demo's own; a folder named from outside stays
  esac
}

if [ "$(id -u)" != 0 ]; then
  echo "the demo needs root: it makes a network namespace and starts virtual machines in it" >&2
  exit 1
fi
case "${1:-}" in
up) up ;;
down) down ;;
*)
  echo "usage: demo.sh up|down" >&2
  exit 2
  ;;
esac
