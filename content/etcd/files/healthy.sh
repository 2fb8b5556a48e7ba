#!/bin/sh
set -eu
systemctl is-active --quiet joist-etcd || { echo "the member's process is not running" >&2; exit 1; }
{
	read -r url
	read -r key
} <<EOT
$(jq -r '(.initial[.name] | sub(":[0-9]+$"; ":2379")), .key' "$JOIST_INPUTS")
EOT
ETCDCTL_API=3 etcdctl --endpoints="$url" --cacert=/etc/joist-etcd/ca.pem --cert=/etc/joist-etcd/cert.pem --key="$key" \
	--dial-timeout=5s --command-timeout=15s endpoint status
