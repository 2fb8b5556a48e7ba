#!/bin/sh
# shellcheck disable=SC2154 # jq assigns what is read from the inputs
set -eu
# shellcheck source=/dev/null
. ./lib.sh
case $JOIST_ACTION in
verify)
	active kubelet
	exit
	;;
remove)
	gone kubelet
	exit
	;;
esac
eval "$(jq -r '@sh "name=\(.name) address=\(.address) url=\(.url) dns=\(.cluster_dns) domain=\(.cluster_domain) pods=\(.max_pods)
client_key=\(.client_key) client=\(.client) serving_key=\(.serving_key) serving=\(.serving)"' "$JOIST_INPUTS")"
bin=$(readlink -f artifacts/kubernetes-node)/bin
shims=$(readlink -f artifacts/containerd)/bin
dir=/etc/kubernetes/kubelet
kubeconfig "$url" "$client" "$client_key" | put 0644 "$dir/kubeconfig"
put 0644 "$dir/config.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous: { enabled: false }
  webhook: { enabled: true }
  x509: { clientCAFile: "$client/ca.pem" }
authorization: { mode: Webhook }
cgroupDriver: cgroupfs
clusterDNS: ["$dns"]
clusterDomain: "$domain"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
failSwapOn: true
maxPods: $pods
readOnlyPort: 0
registerNode: true
resolvConf: /etc/resolv.conf
rotateCertificates: false
serverTLSBootstrap: false
tlsCertFile: "$serving/cert.pem"
tlsPrivateKeyFile: "$serving_key"
shutdownGracePeriod: 0s
evictionHard: { memory.available: 50Mi, nodefs.available: "5%", imagefs.available: "5%" }
imageGCHighThresholdPercent: 95
imageGCLowThresholdPercent: 90
END
unit kubelet "$dir/config.yaml" "$dir/kubeconfig" <<END
[Unit]
Description=kubelet
After=network.target containerd.service
Wants=containerd.service

[Service]
Environment=PATH=$shims:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=$bin/kubelet --config=$dir/config.yaml --kubeconfig=$dir/kubeconfig --hostname-override=$name --node-ip=$address
KillMode=process
Restart=always
RestartSec=2
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
END
