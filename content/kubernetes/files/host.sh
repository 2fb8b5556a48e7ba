#!/bin/sh
# Prepares the system for Kubernetes. All of it ends with the boot, but for swap, which the image has none of.
set -eu
modules="overlay br_netfilter nf_conntrack nf_tables veth bridge"
settings="net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 vm.overcommit_memory=1 kernel.panic=10 kernel.panic_on_oops=1 fs.inotify.max_user_instances=8192"
file=/etc/sysctl.d/90-joist-kubernetes.conf
case $JOIST_ACTION in
apply)
	[ -e /sys/fs/cgroup/cgroup.controllers ] || { echo "this kernel has no cgroup v2, which the kubelet needs: boot with systemd.unified_cgroup_hierarchy=1" >&2; exit 1; }
	# shellcheck disable=SC2086 # words
	modprobe -a $modules
	swapoff -a
	echo "$settings" | tr ' ' '\n' >"$file"
	sysctl -q -p "$file"
	id kube >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin kube
	mkdir -p /etc/kubernetes /var/log/pods
	install -d -o kube -g kube -m 0750 /var/log/kubernetes
	;;
verify)
	for s in $settings; do
		[ "$(sysctl -n "${s%%=*}")" = "${s#*=}" ] || { echo "${s%%=*} is $(sysctl -n "${s%%=*}"), not ${s#*=}" >&2; exit 1; }
	done
	[ "$(wc -l </proc/swaps)" -le 1 ] || { echo "swap is in use" >&2; exit 1; }
	;;
remove) rm -f "$file" ;;
esac
