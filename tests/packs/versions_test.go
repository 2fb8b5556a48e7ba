package packs_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"joist/cmd/system"
	"joist/content"
	"joist/engine/model"
	"joist/workflows/lang"
)

const kubernetesPack = "kubernetes/pack.hcl"

// edits are changes of files of packs, as compile takes them.
type edits = map[string]func(string) string

// said is what an error says, and nothing for none.
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

var nodeVersion = regexp.MustCompile(`(artifact "kubernetes-node" \{\n  version = )"[^"]*"`)

// loaded loads the shipped pack with its programs of nodes in a version, and says what is wrong with it.
func loaded(t *testing.T, version string, change edits) string {
	t.Helper()
	files, err := content.Find("kubernetes", content.Builtin, "")
	if err != nil {
		t.Fatal(err)
	}
	body := string(files["pack.hcl"])
	if !nodeVersion.MatchString(body) {
		t.Fatal("pack.hcl does not say where it did which version nodes have")
	}
	body = nodeVersion.ReplaceAllString(body, `${1}"`+version+`"`)
	if edit := change[kubernetesPack]; edit != nil {
		body = edit(body)
	}
	files["pack.hcl"] = []byte(body)
	_, ds := lang.Load(files, system.Catalogue())
	return ds.Text()
}

// artifacts gives the pack's artifacts in a cluster's model, and the minor versions they have.
func artifacts(t *testing.T, change edits) (all map[string]*model.Artifact, minor map[string]int) {
	t.Helper()
	m := must(t, goal(1, 1), "", change)
	all, minor = map[string]*model.Artifact{}, map[string]int{}
	for i, a := range m.Artifacts {
		if parts := strings.Split(a.Version, "."); len(parts) == 3 {
			n, err := strconv.Atoi(parts[1])
			if err != nil {
				t.Fatal(err)
			}
			all[a.Name], minor[a.Name] = &m.Artifacts[i], n
		}
	}
	return all, minor
}

// skew holds the pack to Kubernetes' version skew policy: kubelets are never newer than the apiserver and at most three minor
// versions older; what has a state goes up by one minor version, and never back.
func skew(t *testing.T, change edits) error {
	t.Helper()
	all, minor := artifacts(t, change)
	control, node := all["kubernetes-control"], all["kubernetes-node"]
	if control == nil || node == nil || all["etcd"] == nil {
		return fmt.Errorf("the model has only %v", minor)
	}
	of := minor["kubernetes-control"]
	for _, c := range []struct {
		version, want string
	}{
		{control.Version, ""},
		{fmt.Sprintf("1.%d.0", of-3), ""},
		{fmt.Sprintf("1.%d.9", of-4), fmt.Sprintf("is too old for kubernetes-control %s: it may be 3 minor versions behind", control.Version)},
		{fmt.Sprintf("1.%d.0", of+1), fmt.Sprintf("is newer than kubernetes-control %s, which it follows", control.Version)},
	} {
		text := loaded(t, c.version, change)
		if (text == "") != (c.want == "") || !strings.Contains(text, c.want) || c.want != "" && !strings.Contains(text, "Change one of the versions.") {
			return fmt.Errorf("nodes of %s: want %q, got %q", c.version, c.want, text)
		}
		// The same is asked of what a cluster's nodes still run when its control plane is changed.
		used := *node
		used.Version = c.version
		if used.Lag.Follows != control.Name {
			return fmt.Errorf("kubernetes-node follows %q", used.Lag.Follows)
		}
		if got := said(used.FollowError(control)); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			return fmt.Errorf("a node that still runs %s: want %q, got %q", c.version, c.want, got)
		}
	}
	for _, name := range []string{"kubernetes-control", "etcd"} {
		a := all[name]
		major, _, _ := strings.Cut(a.Version, ".")
		for by, want := range map[int]string{0: "", -1: "", -2: "at most 1 minor version at once", 1: "would go back"} {
			from := fmt.Sprintf("%s.%d.0", major, minor[name]+by)
			if got := said(a.StepError(from)); (got == "") != (want == "") || !strings.Contains(got, want) {
				return fmt.Errorf("%s from %s: want %q, got %q", name, from, want, got)
			}
		}
	}
	return nil
}

func TestKubernetesVersions(t *testing.T) {
	if err := skew(t, nil); err != nil {
		t.Error(err)
	}
	for old, p := range map[string]plant{
		"  follows = \"kubernetes-control\"\n  behind  = 3\n": {found: "kubernetes-node follows"},
		"behind  = 3":     {new: "behind  = 9", found: "nodes of 1."},
		"  behind  = 3\n": {found: "nodes of 1."},
		"  licence = \"Apache-2.0\"\n  steps   = 1\n}\n\nartifact \"kubernetes-control\"": {new: "  licence = \"Apache-2.0\"\n}\n\nartifact \"kubernetes-control\"", found: "etcd from"},
		"  licence = \"Apache-2.0\"\n  steps   = 1\n}\n\nartifact \"kubernetes-node\"":    {new: "  licence = \"Apache-2.0\"\n}\n\nartifact \"kubernetes-node\"", found: "kubernetes-control from"},
		"steps   = 1": {new: "steps   = 2", found: "from"},
	} {
		t.Run("planted "+old, func(t *testing.T) {
			planted := false
			err := skew(t, edits{kubernetesPack: func(s string) string {
				planted = strings.Contains(s, old)
				return strings.ReplaceAll(s, old, p.new)
			}})
			if !planted {
				t.Fatalf("the pack has no %q any more: plant the defect where it would be now", old)
			}
			if err == nil || !strings.Contains(err.Error(), p.found) {
				t.Errorf("was not noticed, but: %v", err)
			}
		})
	}
}

// TestKubernetesRestartsApiserversOutOfService: the balancer sends nobody to an apiserver that is being restarted, and one
// after the other is.
func TestKubernetesRestartsApiserversOutOfService(t *testing.T) {
	if err := restarts(t, ""); err != nil {
		t.Error(err)
	}
	except := regexp.MustCompile(`\n    except_during = \[task\.apiserver[^]]*\]\n`)
	file, err := content.Find("kubernetes", content.Builtin, "")
	if err != nil {
		t.Fatal(err)
	}
	found := except.FindString(string(file["cluster.hcl"]))
	if found == "" {
		t.Fatal("backend has no except_during any more: plant the defect where it would be now")
	}
	if err := restarts(t, found); err == nil || !strings.Contains(err.Error(), "remove backend[c1]") {
		t.Errorf("a backend that stays was not noticed, but: %v", err)
	}
}

// restarts changes the apiservers of a cluster whose workflow lacks a text, and says what is wrong with the order.
func restarts(t *testing.T, lacks string) (err error) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		defer b.Close()
		b.up("c1", "c2", "c3", "w5")
		change := edits{}
		if lacks != "" {
			change["kubernetes/cluster.hcl"] = func(s string) string { return strings.ReplaceAll(s, lacks, "\n") }
		}
		b.pursue(must(t, goal(3, 1), "", change), goal(3, 1))
		change["kubernetes/files/apiserver.sh"] = func(s string) string { return s + "# another\n" }
		ran := b.pursue(must(t, goal(3, 1), "", change), goal(3, 1))
		at := 0
		for _, c := range []string{"c1", "c2", "c3"} {
			for _, want := range []string{"remove backend[" + c + "]", "apply apiserver[" + c + "]", "apply backend[" + c + "]"} {
				for at < len(ran) && ran[at].String() != want {
					at++
				}
				if at == len(ran) && err == nil {
					err = fmt.Errorf("%s was not done, or too early: %s", want, ran)
				}
			}
		}
	})
	return err
}
