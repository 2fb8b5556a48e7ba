package artifacts

import (
	"strings"
	"testing"
)

const goodManifest = `{"format":1,"inputs":"00","go":"go1.26.8","artifacts":[{"name":"etcd","kind":"program","version":"3.6.8","arch":"amd64",
"file":"bin/etcd","sha256":"` + sixtyFour + `","size":1,"licence":"Apache-2.0"}]}`

const sixtyFour = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseManifest(t *testing.T) {
	if _, err := ParseManifest([]byte(goodManifest)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"format":1`, `"format":2`, "format 2"},
		{`"go"`, `"gone"`, "unknown field"},
		{`"program"`, `"pork"`, "unknown kind"},
		{`"bin/etcd"`, `"../etcd"`, "outside the folder"},
		{`"bin/etcd"`, `"/bin/etcd"`, "outside the folder"},
		{`"bin/etcd"`, `"manifest.json"`, "outside the folder"},
		{`"bin/etcd"`, `""`, "outside the folder"},
		{sixtyFour, sixtyFour[1:], "no SHA-256"},
		{`"size":1`, `"size":0`, "lacks"},
		{`"3.6.8"`, `""`, "lacks"},
		{`[{`, `[{"name":"etcd","kind":"program","version":"3","arch":"amd64","file":"e","sha256":"` + sixtyFour + `","size":1,"licence":"MIT"},{`, "twice"},
		{`[{`, `[],"inputs":[{`, "manifest.json"},
	} {
		text := strings.Replace(goodManifest, c.old, c.new, 1)
		if _, err := ParseManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %s for %s: %v, want %q", c.new, c.old, err, c.want)
		}
	}
	if _, err := ParseManifest([]byte(`{"format":1,"artifacts":[]}`)); err == nil {
		t.Error("an empty manifest is read")
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := ParseManifest(body)
		if err != nil {
			return
		}
		for _, a := range m.Artifacts {
			if found, ok := m.Find(a.Kind, a.Name); !ok || found.File != a.File {
				t.Errorf("%s %s is listed and not found", a.Kind, a.Name)
			}
		}
	})
}
