#!/bin/sh
set -eu
# shellcheck source=/dev/null
. ./lib.sh
# An overlay whose upper folder lies on an overlay is refused by the kernel although containerd lists the snapshotter as
# usable; so one is mounted where layers lie, and a file of its lower folder deleted through it.
overlay() {
	probe=/var/lib/containerd/.joist-probe
	rm -rf "$probe"
	mkdir -p "$probe/lower" "$probe/upper" "$probe/work" "$probe/merged"
	trap 'if mountpoint -q "$probe/merged"; then umount "$probe/merged"; fi; rm -rf "$probe"' EXIT
	echo x >"$probe/lower/file"
	mount -t overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" joist-probe "$probe/merged"
	rm "$probe/merged/file"
	[ ! -e "$probe/merged/file" ] && [ -e "$probe/lower/file" ]
}
case $JOIST_ACTION in
verify)
	active containerd
	overlay
	exit
	;;
remove)
	gone containerd
	exit
	;;
esac
runtime=$(jq -r .runtime "$JOIST_INPUTS")
case $runtime in
runc | crun) ;;
*) echo "cannot start containers with $runtime: runtime is runc or crun" >&2; exit 1 ;;
esac
program=$(command -v "$runtime") || { echo "the node image has no $runtime" >&2; exit 1; }
bundle=$(readlink -f artifacts/containerd)
images=$(readlink -f artifacts/images)/images
config=/etc/containerd/config.toml
# crun of Debian 12 refuses every version of the runtime specification but 1.0, and containerd writes a newer one.
if [ "$runtime" = crun ]; then
	program=/etc/containerd/crun
	put 0755 "$program" <<'END'
#!/bin/sh
set -eu
last=
for arg; do
	case $last in
	--bundle | -b) sed -i 's/"ociVersion":"[^"]*"/"ociVersion":"1.0.2"/' "$arg/config.json" ;;
	esac
	last=$arg
done
exec /usr/bin/crun "$@"
END
fi
put 0644 "$config" <<END
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "joist.internal/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "default"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.default]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.default.options]
        BinaryName = "$program"
        SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["$bundle/cni"]
    conf_dir = "/etc/cni/net.d"
END
unit containerd "$config" <<END
[Unit]
Description=containerd
After=network.target

[Service]
Type=notify
Environment=PATH=$bundle/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=$bundle/bin/containerd --config $config
Delegate=yes
KillMode=process
OOMScoreAdjust=-999
Restart=always
RestartSec=2
LimitNOFILE=1048576
TasksMax=infinity
TimeoutStartSec=3min

[Install]
WantedBy=multi-user.target
END
for image in "$images"/*.tar; do
	"$bundle/bin/ctr" -n k8s.io images import --local --snapshotter overlayfs "$image"
done
