#!/bin/sh
# shellcheck disable=SC2154 # jq assigns what is read from the inputs
# Writes the apiserver's configuration and unit, and waits until it is ready. Keys are handed to it as
# credentials, which its own user can read and nobody else.
set -eu
# shellcheck source=/dev/null
. ./lib.sh
case $JOIST_ACTION in
verify)
	active joist-apiserver
	curl -sf --max-time 20 --cacert /etc/kubernetes/identities/kube-apiserver/ca.pem https://127.0.0.1:6443/readyz
	exit
	;;
remove)
	gone joist-apiserver
	exit
	;;
esac
eval "$(jq -r '@sh "address=\(.address) cidr=\(.service_cidr) issuer=\(.issuer) hours=\(.token_hours) etcd=\(.etcd) secret=\(.encryption)
serving_key=\(.serving_key) serving_id=\(.serving) etcd_key=\(.etcd_key) etcd_id=\(.etcd_client)
kubelet_key=\(.kubelet_key) kubelet_id=\(.kubelet_client) proxy_key=\(.proxy_key) proxy_id=\(.proxy_client)
token_key=\(.token_key) token_keys=\(.token_keys)"' "$JOIST_INPUTS")"
bin=$(readlink -f artifacts/kubernetes-control)/bin
dir=/etc/kubernetes/apiserver
mkdir -p "$dir"

put 0644 "$dir/audit.yaml" <audit-policy.yaml
# Nobody is let in without a name, but to ask whether the server is well.
put 0644 "$dir/authentication.yaml" <<END
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions: [{ path: /livez }, { path: /readyz }, { path: /healthz }]
END
umask 077
put 0600 "$dir/encryption.yaml" <<END
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - secretbox: { keys: [{ name: key1, secret: "$secret" }] }
  - identity: {}
END
umask 022

# shellcheck disable=SC2016 # for systemd
cred='${CREDENTIALS_DIRECTORY}'
unit joist-apiserver "$dir/audit.yaml" "$dir/authentication.yaml" "$dir/encryption.yaml" <<END
[Unit]
Description=Kubernetes API server
After=network.target

[Service]
Type=notify
NotifyAccess=main
User=kube
LoadCredential=serving.pem:$serving_key
LoadCredential=etcd.pem:$etcd_key
LoadCredential=kubelet.pem:$kubelet_key
LoadCredential=proxy.pem:$proxy_key
LoadCredential=token.pem:$token_key
LoadCredential=encryption.yaml:$dir/encryption.yaml
ExecStart=$bin/kube-apiserver \\
  --advertise-address=$address --secure-port=6443 \\
  --allow-privileged=true --profiling=false \\
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \\
  --authentication-config=$dir/authentication.yaml \\
  --client-ca-file=$serving_id/ca.pem --tls-cert-file=$serving_id/cert.pem --tls-private-key-file=$cred/serving.pem --tls-min-version=VersionTLS12 \\
  --etcd-servers=$etcd --etcd-cafile=$etcd_id/ca.pem --etcd-certfile=$etcd_id/cert.pem --etcd-keyfile=$cred/etcd.pem \\
  --etcd-healthcheck-timeout=10s --etcd-readycheck-timeout=10s \\
  --encryption-provider-config=$cred/encryption.yaml \\
  --kubelet-certificate-authority=$kubelet_id/ca.pem --kubelet-client-certificate=$kubelet_id/cert.pem --kubelet-client-key=$cred/kubelet.pem \\
  --kubelet-preferred-address-types=InternalIP,Hostname \\
  --service-cluster-ip-range=$cidr \\
  --service-account-issuer=$issuer --service-account-jwks-uri=$issuer/openid/v1/jwks \\
  --service-account-signing-key-file=$cred/token.pem --service-account-key-file=$token_keys \\
  --service-account-max-token-expiration=${hours}h --service-account-extend-token-expiration=false \\
  --requestheader-client-ca-file=$proxy_id/ca.pem --requestheader-allowed-names=front-proxy-client \\
  --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \\
  --proxy-client-cert-file=$proxy_id/cert.pem --proxy-client-key-file=$cred/proxy.pem --enable-aggregator-routing=true \\
  --audit-policy-file=$dir/audit.yaml --audit-log-path=/var/log/kubernetes/audit.log --audit-log-maxsize=20 --audit-log-maxbackup=2
Restart=always
RestartSec=2
TimeoutStartSec=8min
# What is asked ends within seconds; watches would be waited for for a minute, and their clients come back elsewhere.
TimeoutStopSec=10s
LimitNOFILE=65536
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=yes

[Install]
WantedBy=multi-user.target
END
# One that gives up while etcd is slow is started again by systemd; one that does so again and again never will be ready.
until curl -sf --max-time 20 --cacert "$serving_id/ca.pem" https://127.0.0.1:6443/readyz >ready; do
	if systemctl is-failed --quiet joist-apiserver || [ "$(systemctl show joist-apiserver -p NRestarts --value)" -gt 3 ]; then
		journalctl -n 30 -o cat -u joist-apiserver >&2
		exit 1
	fi
	sleep 1
done
echo "{\"url\": \"https://$address:6443\"}" >"$JOIST_OUTPUTS"
