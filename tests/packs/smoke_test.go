package packs_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joist/engine/step"
)

// answers is a kubectl that says what one of a cluster with two pods would. The second pod is on $SECOND.
const answers = `#!/bin/sh
echo "kubectl $*" >>/log/calls
case "$*" in
*"get pods -l app=hello"*) printf 'p1 10.0.0.1 w5\np2 10.0.0.2 %s\n' "$(cat /log/second)" ;;
*"get nodes -o json"*) cat /log/nodes ;;
*"exec"*"http://10.0.0.1:8080/"*) echo p1 ;;
*"exec"*"http://10.0.0.2:8080/"*) echo p2 ;;
*"exec"*"/secret/word"*) echo joist-smoke-word ;;
*"port-forward"*) exec sleep 5 ;;
esac
`

func TestSmoke(t *testing.T) {
	m := must(t, goal(1, 2), "cluster_domain = \"kube.example\"", nil)
	apply := &m.Task("smoke.test").Step.Apply
	inputs := map[string]json.RawMessage{
		"url": json.RawMessage(`"https://127.0.0.1:6443"`), "key": json.RawMessage(`"/key"`), "identity": json.RawMessage(`{"leaf":"","chain":"","root":""}`),
		"etcd": json.RawMessage(`"https://c1:2379"`), "etcd_key": json.RawMessage(`"/key"`), "etcd_client": json.RawMessage(`"/etcd"`),
		"cluster_domain": json.RawMessage(`"kube.example"`),
	}
	node := func(name, more string) string {
		return `{"metadata":{"name":"` + name + `"},"spec":{` + more + `},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`
	}
	for _, c := range []struct {
		name, second, other string
		refused             bool
	}{
		{"two nodes", "w6", "", false},
		{"two pods on one of two nodes", "w5", "", true},
		{"the other node takes no pods", "w5", `"unschedulable":true`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, "c1", "10.77.0.11")
			for file, text := range map[string]string{
				"log/nodes": `{"items":[` + node("w5", "") + `,` + node("w6", c.other) + `]}`, "log/second": c.second,
				"bundles/kubernetes-control/bin/kubectl": answers, "stub/etcdctl": "#!/bin/sh\necho k8s:enc:secretbox:v1:x\n",
			} {
				s.must(t, os.WriteFile(filepath.Join(s.root, file), []byte(text), 0o755))
			}
			_, err := s.run(apply, step.Apply, inputs)
			switch {
			case c.refused && (err == nil || !strings.Contains(err.Error(), "both pods are on one node, of 2 that take pods")):
				t.Errorf("not noticed: %v", err)
			case !c.refused && err != nil:
				t.Error(err)
			case !c.refused && !strings.Contains(s.read("/log/calls"), "http://hello.joist-smoke.svc.kube.example/"):
				t.Errorf("the Service was not asked for by its name in the cluster's domain:\n%s", s.read("/log/calls"))
			}
		})
	}
}
