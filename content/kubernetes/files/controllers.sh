#!/bin/sh
# shellcheck disable=SC2154 # jq assigns what is read from the inputs
set -eu
# shellcheck source=/dev/null
. ./lib.sh
case $JOIST_ACTION in
verify)
	active joist-controller-manager joist-scheduler
	exit
	;;
remove)
	gone joist-controller-manager joist-scheduler
	exit
	;;
esac
eval "$(jq -r '@sh "url=\(.url)
manager_key=\(.manager_key) manager=\(.manager) scheduler_key=\(.scheduler_key) scheduler=\(.scheduler)"' "$JOIST_INPUTS")"
bin=$(readlink -f artifacts/kubernetes-control)/bin

# run NAME KEY FOLDER FLAGS…: a program with its kubeconfig, whose key is the unit's credential.
run() {
	name=$1 key=$2 identity=$3
	shift 3
	dir=/etc/kubernetes/$name
	kubeconfig "$url" "$identity" "/run/credentials/joist-$name.service/key.pem" | put 0644 "$dir/kubeconfig"
	unit "joist-$name" "$dir/kubeconfig" <<END
[Unit]
Description=Kubernetes $name
After=network.target

[Service]
User=kube
LoadCredential=key.pem:$key
ExecStart=$bin/kube-$name --kubeconfig=$dir/kubeconfig --authentication-kubeconfig=$dir/kubeconfig --authorization-kubeconfig=$dir/kubeconfig \\
  --bind-address=127.0.0.1 --profiling=false \\
  --leader-elect=true --leader-elect-lease-duration=40s --leader-elect-renew-deadline=30s --leader-elect-retry-period=4s $*
Restart=always
RestartSec=5
# It ends when it finds no API for a while, and its starts are not to keep the API from starting.
CPUWeight=25
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=yes

[Install]
WantedBy=multi-user.target
END
}
run controller-manager "$manager_key" "$manager" --allocate-node-cidrs=false --use-service-account-credentials=true \
	"--root-ca-file=$manager/ca.pem" \
	"--controllers=*,-certificatesigningrequest-signing-controller,-certificatesigningrequest-approving-controller"
run scheduler "$scheduler_key" "$scheduler"
