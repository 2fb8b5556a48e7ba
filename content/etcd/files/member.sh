#!/bin/sh
# Writes the unit and the certificates and starts the member. Certificates are read anew by each connection, so that a
# renewed one needs no restart; the member is restarted only if its unit changed.
set -eu
name=$(jq -r .name "$JOIST_INPUTS")
fqdn=$(jq -r '.initial[.name] | sub("^https://"; "") | sub(":[0-9]+$"; "")' "$JOIST_INPUTS")
initial=$(jq -r '.initial | to_entries | sort_by(.key) | map(.key + "=" + .value) | join(",")' "$JOIST_INPUTS")
state=$(jq -r .state "$JOIST_INPUTS")
key=$(jq -r .key "$JOIST_INPUTS")
dir=/etc/joist-etcd
unit=/etc/systemd/system/joist-etcd.service

install -d -m 0755 "$dir"
jq -r '.identity.leaf + .identity.chain' "$JOIST_INPUTS" >"$dir/cert.new"
jq -r .identity.chain "$JOIST_INPUTS" >"$dir/ca.new"
mv "$dir/cert.new" "$dir/cert.pem"
mv "$dir/ca.new" "$dir/ca.pem"
install -d -o etcd -g etcd -m 0700 /var/lib/etcd/data

cat >unit <<EOF
[Unit]
Description=etcd member $name
After=network.target

[Service]
Type=notify
User=etcd
LoadCredential=key.pem:$key
ExecStart=/usr/bin/etcd --name $name --data-dir /var/lib/etcd/data \\
  --initial-cluster $initial --initial-cluster-state $state --initial-cluster-token joist-etcd \\
  --initial-advertise-peer-urls https://$fqdn:2380 --listen-peer-urls https://0.0.0.0:2380 \\
  --advertise-client-urls https://$fqdn:2379 --listen-client-urls https://0.0.0.0:2379 \\
  --client-cert-auth --trusted-ca-file $dir/ca.pem --cert-file $dir/cert.pem --key-file \${CREDENTIALS_DIRECTORY}/key.pem \\
  --peer-client-cert-auth --peer-trusted-ca-file $dir/ca.pem --peer-cert-file $dir/cert.pem --peer-key-file \${CREDENTIALS_DIRECTORY}/key.pem \\
  --heartbeat-interval 300 --election-timeout 3000
Restart=always
RestartSec=2
TimeoutStartSec=100
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
EOF
if ! cmp -s unit "$unit"; then
	install -m 0644 unit "$unit"
	systemctl daemon-reload
	systemctl enable joist-etcd
	systemctl restart joist-etcd
else
	systemctl start joist-etcd
fi
jq -n --arg url "https://$fqdn:2379" '{client_url: $url}' >"$JOIST_OUTPUTS"
