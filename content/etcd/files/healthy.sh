#!/bin/sh
set -eu
systemctl is-active --quiet joist-etcd || { echo "the member's process is not running" >&2; exit 1; }
fqdn=$(jq -r '.initial[.name] | sub("^https://"; "") | sub(":[0-9]+$"; "")' "$JOIST_INPUTS")
ETCDCTL_API=3 etcdctl --endpoints="https://$fqdn:2379" --cacert=/etc/joist-etcd/ca.pem --cert=/etc/joist-etcd/cert.pem \
	--key="$(jq -r .key "$JOIST_INPUTS")" --dial-timeout=5s --command-timeout=15s endpoint status
