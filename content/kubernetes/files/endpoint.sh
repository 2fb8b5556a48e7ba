#!/bin/sh
# HAProxy on 127.0.0.1 passes connections through to an apiserver that is ready. Its checks verify no certificate: they
# carry nothing, and whoever connects verifies for itself. Every node checks every member, each time with a TLS handshake:
# seldom while all is well, often once one fails, be it a check or a connection that somebody wanted.
set -eu
# shellcheck source=/dev/null
. ./lib.sh
case $JOIST_ACTION in
verify)
	active joist-endpoint
	exit
	;;
remove)
	gone joist-endpoint
	exit
	;;
esac
servers=$(jq -r '.servers | to_entries | sort_by(.key)[] | "  server \(.key) \(.value):6443 check"' "$JOIST_INPUTS")
config=/etc/kubernetes/endpoint.cfg
put 0644 "$config" <<END
global
  maxconn 4000
  user haproxy
  group haproxy
defaults
  mode tcp
  retries 3
  timeout connect 2s
  timeout client 10m
  timeout server 10m
  timeout check 10s
  timeout tunnel 24h
frontend api
  bind 127.0.0.1:7443
  default_backend apiservers
backend apiservers
  balance leastconn
  option httpchk GET /readyz
  http-check expect status 200
  option redispatch 1
  default-server check-ssl verify none inter 10s fastinter 1s downinter 3s fall 2 rise 1 observe layer4 error-limit 1 on-error fail-check on-marked-down shutdown-sessions
$servers
END
haproxy -c -q -f "$config"
unit joist-endpoint "$config" <<END
[Unit]
Description=The way to the Kubernetes API
After=network.target

[Service]
Type=notify
ExecStart=/usr/sbin/haproxy -Ws -f $config
Restart=always
RestartSec=1
NoNewPrivileges=no
ProtectSystem=full

[Install]
WantedBy=multi-user.target
END
echo '{"url": "https://127.0.0.1:7443"}' >"$JOIST_OUTPUTS"
