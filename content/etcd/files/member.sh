#!/bin/sh
# Writes the unit and the certificates and starts the member. Certificates are read anew by each connection, so that a
# renewed one needs no restart; the member is restarted only if its unit changed.
set -eu
{
	read -r name
	read -r fqdn
	read -r initial
	read -r state
	read -r key
	read -r programs
	cat >cert.pem
} <<EOT
$(jq -r '.name, (.initial[.name] | sub("^https://"; "") | sub(":[0-9]+$"; "")),
	(.initial | to_entries | sort_by(.key) | map(.key + "=" + .value) | join(",")),
	.state, .key, .programs, .identity.leaf + .identity.chain' "$JOIST_INPUTS")
EOT
dir=/etc/joist-etcd
unit=/etc/systemd/system/joist-etcd.service

install -d -m 0755 "$dir"
install -m 0644 cert.pem "$dir/cert.new"
awk '/^-----BEGIN/ { n++ } n > 1' cert.pem >"$dir/ca.new"
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
ExecStart=$programs/etcd --name $name --data-dir /var/lib/etcd/data \\
  --initial-cluster $initial --initial-cluster-state $state --initial-cluster-token joist-etcd \\
  --initial-advertise-peer-urls https://$fqdn:2380 --listen-peer-urls https://0.0.0.0:2380 \\
  --advertise-client-urls https://$fqdn:2379 --listen-client-urls https://0.0.0.0:2379 \\
  --client-cert-auth --trusted-ca-file $dir/ca.pem --cert-file $dir/cert.pem --key-file \${CREDENTIALS_DIRECTORY}/key.pem \\
  --peer-client-cert-auth --peer-trusted-ca-file $dir/ca.pem --peer-cert-file $dir/cert.pem --peer-key-file \${CREDENTIALS_DIRECTORY}/key.pem \\
  --heartbeat-interval 300 --election-timeout 3000
Restart=always
RestartSec=2
TimeoutStartSec=270
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
EOF
if ! cmp -s unit "$unit"; then
	install -m 0644 unit "$unit"
	# Enabled by hand: systemctl enable would read all units a second time.
	mkdir -p /etc/systemd/system/multi-user.target.wants
	ln -sf "$unit" /etc/systemd/system/multi-user.target.wants/joist-etcd.service
	systemctl daemon-reload
	systemctl restart joist-etcd
else
	systemctl start joist-etcd
fi
echo "{\"client_url\": \"https://$fqdn:2379\"}" >"$JOIST_OUTPUTS"
