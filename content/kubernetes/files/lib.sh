# shellcheck shell=sh
# Sourced by steps that run a program under systemd.

# put MODE FILE: what comes in becomes the file, whole or not at all.
put() {
	mkdir -p "$(dirname "$2")"
	cat >"$2.joist"
	chmod "$1" "$2.joist"
	mv "$2.joist" "$2"
}

# kubeconfig URL FOLDER KEY: a kubeconfig whose certificate and authority are files, which clients read anew when they
# change. The key is named as the unit's credential where it is one.
kubeconfig() {
	cat <<END
apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster: { server: "$1", certificate-authority: "$2/ca.pem" }
users:
- name: user
  user: { client-certificate: "$2/cert.pem", client-key: "$3" }
contexts:
- name: cluster
  context: { cluster: cluster, user: user }
current-context: cluster
END
}

# unit NAME FILES…: what comes in becomes a unit, enabled and running. It is restarted if it changed, or one of the files,
# which the program reads only when it starts.
unit() {
	name=$1
	shift
	file=/etc/systemd/system/$name.service
	digest=$(cat -- /dev/null "$@" | sha256sum | cut -c 1-64)
	{
		cat
		echo "# configuration $digest"
	} >"$name.unit"
	if cmp -s "$name.unit" "$file"; then
		systemctl start "$name"
		return
	fi
	put 0644 "$file" <"$name.unit"
	# Enabled by hand: systemctl enable would read all units a second time.
	mkdir -p /etc/systemd/system/multi-user.target.wants
	ln -sf "$file" "/etc/systemd/system/multi-user.target.wants/$name.service"
	systemctl daemon-reload
	systemctl restart "$name"
}

# active NAMES…: fails with the name of one that does not run.
active() {
	for name; do
		systemctl is-active --quiet "$name" || { echo "$name is not running" >&2; exit 1; }
	done
}

# gone NAMES…: the units are stopped and there no more.
gone() {
	for name; do
		file=/etc/systemd/system/$name.service
		systemctl stop "$name" 2>/dev/null || [ ! -e "$file" ]
		rm -f "$file" "/etc/systemd/system/multi-user.target.wants/$name.service"
	done
	systemctl daemon-reload
}
