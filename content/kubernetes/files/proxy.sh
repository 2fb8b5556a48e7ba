#!/bin/sh
# shellcheck disable=SC2154 # jq assigns what is read from the inputs
set -eu
# shellcheck source=/dev/null
. ./lib.sh
case $JOIST_ACTION in
verify)
	active joist-kube-proxy
	exit
	;;
remove)
	gone joist-kube-proxy
	exit
	;;
esac
eval "$(jq -r '@sh "name=\(.name) url=\(.url) pods=\(.pod_cidr) key=\(.key) client=\(.client)"' "$JOIST_INPUTS")"
bin=$(readlink -f artifacts/kubernetes-node)/bin
dir=/etc/kubernetes/proxy
kubeconfig "$url" "$client" "$key" | put 0644 "$dir/kubeconfig"
put 0644 "$dir/config.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 0.0.0.0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: { kubeconfig: "$dir/kubeconfig" }
clusterCIDR: "$pods"
hostnameOverride: "$name"
mode: nftables
END
unit joist-kube-proxy "$dir/config.yaml" "$dir/kubeconfig" <<END
[Unit]
Description=kube-proxy
After=network.target

[Service]
ExecStart=$bin/kube-proxy --config=$dir/config.yaml
Restart=always
RestartSec=2

[Install]
WantedBy=multi-user.target
END
