#!/bin/sh
# shellcheck disable=SC2094 # a file of the name of what is in it
# What a cluster is for, tried once from end to end in a namespace of its own, which goes again whatever happens: pods on
# different nodes that reach each other, a Service by its name, address and port on nodes, logs, exec, port-forward, and a
# secret that is not to be read in etcd.
set -eu
# shellcheck source=/dev/null
. ./kubectl.sh
ns=joist-smoke
image=joist.internal/echo:1
say() { echo "smoke: $*"; }
forward=
finish() {
	code=$?
	[ -z "$forward" ] || kill "$forward" 2>/dev/null || true
	if [ "$code" != 0 ]; then
		k -n "$ns" get pods,events -o wide || true
	fi
	k delete namespace "$ns" --ignore-not-found --wait=false
	exit "$code"
}
k delete namespace "$ns" --ignore-not-found --wait=true --timeout=120s
trap finish EXIT
k create namespace "$ns"
cat >objects.yaml <<END
apiVersion: apps/v1
kind: Deployment
metadata: { name: hello }
spec:
  replicas: 2
  selector: { matchLabels: { app: hello } }
  template:
    metadata: { labels: { app: hello } }
    spec:
      topologySpreadConstraints:
      - { maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, nodeTaintsPolicy: Honor, labelSelector: { matchLabels: { app: hello } } }
      containers:
      - { name: hello, image: "$image", imagePullPolicy: Never, args: [serve], ports: [{ containerPort: 8080 }], volumeMounts: [{ name: secret, mountPath: /secret }], readinessProbe: { httpGet: { path: /healthz, port: 8080 }, periodSeconds: 2 } }
      volumes: [{ name: secret, secret: { secretName: hush } }]
---
apiVersion: v1
kind: Service
metadata: { name: hello }
spec: { type: NodePort, selector: { app: hello }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Secret
metadata: { name: hush }
stringData: { word: "joist-smoke-word" }
END
until k -n "$ns" get serviceaccount default -o name >/dev/null 2>&1; do sleep 1; done
k -n "$ns" apply --server-side --validate=false -f objects.yaml
k -n "$ns" rollout status deployment/hello --timeout=240s
k -n "$ns" get pods -l app=hello -o jsonpath='{range .items[*]}{.metadata.name} {.status.podIP} {.spec.nodeName}{"\n"}{end}' >pods
cat pods
# Nothing is known of the network between nodes unless the pods are on two.
k get nodes -o json >all.json
free=$(jq '[.items[] | select(.spec.unschedulable != true and any(.status.conditions[]; .type == "Ready" and .status == "True"))] | length' all.json)
nodes=$(awk '{ print $3 }' pods | sort -u | wc -l)
if [ "$free" -ge 2 ] && [ "$nodes" -lt 2 ]; then
	say "both pods are on one node, of $free that take pods" >&2
	exit 1
fi

first=$(awk 'NR == 1 { print $1 }' pods)
# Each pod reaches every other one, across nodes where there are several.
while read -r from _ at; do
	while read -r to address on; do
		got=$(k -n "$ns" exec "$from" -- /echo get "http://$address:8080/" 20s </dev/null)
		[ "$got" = "$to" ] || { say "$from on $at got $got from $to on $on" >&2; exit 1; }
	done <pods
done <pods
say "exec, and pod to pod: $nodes nodes"

k -n "$ns" exec "$first" -- /echo get "http://hello.$ns.svc.$(jq -r .cluster_domain "$JOIST_INPUTS")/" 60s
k -n "$ns" exec "$first" -- /echo get "http://hello/" 20s
say "a Service by its name"

k -n "$ns" exec "$first" -- /echo lookup "$(jq -r .outside "$JOIST_INPUTS")" 60s
say "a name outside of the cluster"

port=$(k -n "$ns" get service hello -o jsonpath='{.spec.ports[0].nodePort}')
for node in $(k get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}'); do
	curl -sSf --retry 10 --retry-connrefused --retry-delay 1 --max-time 30 "http://$node:$port/"
done
say "a Service by a port of every node"

k -n "$ns" logs "$first" --tail=5
say "logs"

[ "$(k -n "$ns" exec "$first" -- /echo cat /secret/word)" = joist-smoke-word ]
say "a secret in a pod"

k -n "$ns" port-forward "pod/$first" 18080:8080 >forward.log 2>&1 &
forward=$!
curl -sSf --retry 20 --retry-connrefused --retry-delay 1 --max-time 60 http://127.0.0.1:18080/ >/dev/null
kill "$forward"
forward=
say "port-forward"

eval "$(jq -r '@sh "etcd=\(.etcd) etcd_key=\(.etcd_key) etcd_id=\(.etcd_client)"' "$JOIST_INPUTS")"
# shellcheck disable=SC2154 # jq assigned them
ETCDCTL_API=3 etcdctl --endpoints="$etcd" --cacert="$etcd_id/ca.pem" --cert="$etcd_id/cert.pem" --key="$etcd_key" \
	get "/registry/secrets/$ns/hush" >stored
grep -q 'k8s:enc:secretbox:v1:' stored
if grep -q joist-smoke-word stored; then exit 1; fi
say "a secret that etcd does not know"
