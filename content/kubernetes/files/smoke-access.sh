#!/bin/sh
# A node's ways into the API and into etcd are tried with what opens them before anything is said of the cluster.
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
k get --raw /readyz >/dev/null
eval "$(jq -r '@sh "etcd=\(.etcd) etcd_key=\(.etcd_key) etcd_id=\(.etcd_client)"' "$JOIST_INPUTS")"
# shellcheck disable=SC2154 # jq assigned them
ETCDCTL_API=3 etcdctl --endpoints="$etcd" --cacert="$etcd_id/ca.pem" --cert="$etcd_id/cert.pem" --key="$etcd_key" endpoint health
jq '{url, key, identity, etcd_key, etcd_client}' "$JOIST_INPUTS" >"$JOIST_OUTPUTS"
