package content_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"joist/content"
	"joist/workflows/lang"
)

// packs writes versions of packs, each line "NAME VERSION: REQUIRED CONSTRAINT, …", and gives their folder.
func packs(t *testing.T, lines ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, line := range lines {
		head, tail, _ := strings.Cut(line, ":")
		name, version, _ := strings.Cut(head, " ")
		var requires []string
		for _, one := range strings.Split(tail, ",") {
			if of, constraint, ok := strings.Cut(strings.TrimSpace(one), " "); ok {
				requires = append(requires, fmt.Sprintf("%s = %q", of, constraint))
			}
		}
		text := fmt.Sprintf("pack %q {\n  version  = %q\n  summary  = \"s\"\n  requires = { %s }\n}\nworkflow \"w\" {\n  role \"m\" {}\n}\n", name, version, strings.Join(requires, ", "))
		write(t, root, map[string]string{filepath.Join(name, version, "pack.hcl"): text})
	}
	return root
}

// wish is a cluster file with packs given as "NAME CONSTRAINT", each from its folder.
func wish(t *testing.T, root string, uses ...string) content.Wish {
	t.Helper()
	var b strings.Builder
	for _, use := range uses {
		name, constraint, _ := strings.Cut(use, " ")
		fmt.Fprintf(&b, "    %s = { source = %q", name, "./"+name)
		if constraint != "" {
			fmt.Fprintf(&b, ", version = %q", constraint)
		}
		b.WriteString(" }\n")
	}
	file, diags := lang.LoadCluster("c.hcl", []byte("cluster \"c\" {\n  workflow = a.w\n  packs = {\n"+b.String()+"  }\n  nodes = {}\n}\n"))
	if file == nil {
		t.Fatal(diags.Text())
	}
	return content.Wish{File: file, Folder: root}
}

func versions(chosen map[string]content.Chosen) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		list = append(list, name+" "+chosen[name].Pack.Version)
	}
	return strings.Join(list, ", ")
}

// TestResolve: of each pack the oldest version that suits everybody who asks; newest ones on a person's word.
func TestResolve(t *testing.T) {
	all := []string{"a 1.0.0: b >= 1.1.0, c >= 1.0.0", "a 1.1.0: b >= 1.2.0", "b 1.0.0:", "b 1.1.0:", "b 1.2.0: c >= 1.3.0", "b 2.0.0:", "c 1.0.0:", "c 1.2.0:", "c 1.3.0:", "x 1.0.0: y >= 1.0.0", "y 1.0.0: x >= 1.0.0", "z 1.0.0: b < 1.1.0"}
	root := packs(t, all...)
	for _, test := range []struct {
		uses   []string
		newest bool
		keep   string // versions locked before
		want   string // versions, or what the error says after !
	}{
		{uses: []string{"a", "b", "c"}, want: "a 1.0.0, b 1.1.0, c 1.0.0"},
		{uses: []string{"a", "b >= 1.2.0", "c"}, want: "a 1.0.0, b 1.2.0, c 1.3.0"},
		{uses: []string{"a ~> 1.1", "b", "c"}, want: "a 1.1.0, b 1.2.0, c 1.3.0"},
		{uses: []string{"a", "b ^1.0", "c"}, newest: true, want: "a 1.1.0, b 1.2.0, c 1.3.0"},
		{uses: []string{"a", "b", "c"}, newest: true, want: "a 1.1.0, b 2.0.0, c 1.3.0"},
		{uses: []string{"a", "b = 1.0.0", "c"}, want: `! no version of pack b suits all: the cluster file asks for "= 1.0.0", a 1.0.0 asks for ">= 1.1.0"; at ./b there is 1.0.0, 1.1.0, 1.2.0, 2.0.0`},
		{uses: []string{"a", "b", "c", "z"}, want: `! no version of pack b suits all: a 1.0.0 asks for ">= 1.1.0", z 1.0.0 asks for "< 1.1.0"`},
		{uses: []string{"a > 9.0.0", "b", "c"}, want: `! no version of pack a suits all: the cluster file asks for "> 9.0.0"; at ./a there is 1.0.0, 1.1.0`},
		{uses: []string{"x", "y"}, want: "! packs require each other: x requires y requires x"},
		{uses: []string{"a", "c"}, want: `! no pack "b" ships with joist`},
		{uses: []string{"nowhere"}, want: "! cannot read the pack in"},
		{uses: []string{"b", "c", "nowhere"}, want: "! cannot read the pack in"},
		{uses: []string{"a", "b", "c"}, keep: "b 1.2.0, c 1.0.0", want: "a 1.0.0, b 1.2.0, c 1.3.0"},
		{uses: []string{"a", "b < 1.2.0", "c"}, keep: "b 1.2.0, c 1.2.0", want: "a 1.0.0, b 1.1.0, c 1.2.0"},
		{uses: []string{"a", "b", "c", "z < 0.1.0"}, keep: "b 1.2.0", want: "! no version of pack z suits all"},
	} {
		w := wish(t, root, test.uses...)
		w.Newest = test.newest
		if test.keep != "" {
			w.Keep = &content.Lock{Packs: map[string]content.Locked{}}
			for _, one := range strings.Split(test.keep, ", ") {
				name, version, _ := strings.Cut(one, " ")
				w.Keep.Packs[name] = content.Locked{Version: version}
			}
		}
		chosen, _, err := content.Resolve(w)
		if text, fails := strings.CutPrefix(test.want, "! "); fails {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v: %v, want %s", test.uses, err, text)
			}
			continue
		}
		if got := versions(chosen); err != nil || got != test.want {
			t.Errorf("%v: %s %v, want %s", test.uses, got, err, test.want)
		}
	}
}

// TestLock: with a lock nothing changes by itself, and what changed all the same is said.
func TestLock(t *testing.T) {
	root := packs(t, "a 1.0.0: b >= 1.0.0", "b 1.0.0:", "b 1.1.0:")
	w := wish(t, root, "a", "b")
	w.Newest = true
	chosen, _, err := content.Resolve(w)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "c.hcl")
	if l, err := content.ReadLock(file); l != nil || err != nil {
		t.Fatalf("a lock that is not there: %v %v", l, err)
	}
	if err := content.LockOf(chosen).Write(file); err != nil {
		t.Fatal(err)
	}
	locked := func(uses ...string) (string, error) {
		t.Helper()
		w := wish(t, root, uses...)
		if w.Lock, err = content.ReadLock(file); err != nil {
			t.Fatal(err)
		}
		chosen, _, err := content.Resolve(w)
		return versions(chosen), err
	}
	write(t, root, map[string]string{"b/1.2.0/pack.hcl": "pack \"b\" {\n  version = \"1.2.0\"\n  summary = \"s\"\n}\n"})
	if got, err := locked("a", "b"); got != "a 1.0.0, b 1.1.0" || err != nil {
		t.Errorf("with the lock: %s %v", got, err)
	}
	fails := func(want string, uses ...string) {
		t.Helper()
		if got, err := locked(uses...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %v, want %q", got, err, want)
		}
	}
	fails(`pack b 1.1.0 is in the lock file, and does not suit: the cluster file asks for ">= 1.2.0", a 1.0.0 asks for ">= 1.0.0"`, "a", "b >= 1.2.0")
	fails("pack q is not in the lock file", "a", "b", "q")
	write(t, root, map[string]string{"b/1.1.0/YANKED": "it loses data\n"})
	fails("pack b 1.1.0 is in the lock file and was yanked: it says it loses data", "a", "b")
	if chosen, _, err := content.Resolve(wish(t, root, "a", "b > 1.0.0")); err != nil || versions(chosen) != "a 1.0.0, b 1.2.0" {
		t.Errorf("past what was yanked: %s %v", versions(chosen), err)
	}
	if err := os.Remove(filepath.Join(root, "b/1.1.0/YANKED")); err != nil {
		t.Fatal(err)
	}
	write(t, root, map[string]string{"b/1.1.0/files/x.sh": "#!/bin/sh\n"})
	fails("is not what the lock file says: its digest is sha256:", "a", "b")
	if err := os.RemoveAll(filepath.Join(root, "b/1.1.0")); err != nil {
		t.Fatal(err)
	}
	fails("pack b 1.1.0 is in the lock file, and at ./b there is only 1.0.0, 1.2.0", "a", "b")

	vendored := t.TempDir()
	l, err := content.Vendor(chosen, vendored, vendored)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	w = wish(t, root, "a", "b")
	w.Lock = l
	if chosen, _, err := content.Resolve(w); err != nil || versions(chosen) != "a 1.0.0, b 1.1.0" {
		t.Errorf("from vendored packs: %s %v", versions(chosen), err)
	}
	for _, bad := range []string{``, `{}`, `{"format":"joist-lock/2"}`, `{"format":"joist-lock/1","x":1}`, `{"format":"joist-lock/1"}{}`, `{"format":"joist-lock/1","packs":{"a":{"source":"s","version":"1","digest":"sha256:00"}}}`} {
		if _, err := content.ParseLock([]byte(bad)); err == nil {
			t.Errorf("%q is a lock", bad)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte(`{"format":"joist-lock/1","packs":{"a":{"source":"builtin","version":"0.1.0","digest":"sha256:` + strings.Repeat("0", 64) + `"}}}`))
	f.Add([]byte(`{"format":"joist-lock/1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := content.ParseLock(data)
		if err == nil && l.Format != content.LockFormat {
			t.Errorf("read %+v", l)
		}
	})
}

// TestUnreadable: what keeps a pack from being read is said, and not that it has no versions, also when it is asked for again; and
// nothing of a lock file gets to the terminal as it is.
func TestUnreadable(t *testing.T) {
	root := packs(t, "a 1.0.0: b >= 1.0.0")
	write(t, root, map[string]string{"b/pack.hcl": "pack \"b\" {\n  version = \"1.0.0\"\n  summary = \"s\"\n}\n", "b/big": strings.Repeat("x", 5<<20)})
	w := wish(t, root, "a", "b")
	if _, _, err := content.Resolve(w); err == nil || !strings.Contains(err.Error(), "big") || strings.Contains(err.Error(), "suits all") {
		t.Errorf("a file that is too large: %v", err)
	}
	root = packs(t, "a 1.0.0:")
	w = wish(t, root, "a")
	for _, locked := range []content.Locked{{Source: "./a", Version: "2.0.0\x1b[2J"}, {Source: "./a", Version: "1.0.0", Digest: "\x1b[2J"}, {Source: "./b\x1b[2J", Version: "1.0.0"}} {
		w.Lock = &content.Lock{Format: content.LockFormat, Packs: map[string]content.Locked{"a": locked}}
		if _, _, err := content.Resolve(w); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q", err)
		}
	}
}

// TestVendorAlone: packs are copied over a copy of themselves, and never through a link or among files that are not theirs.
func TestVendorAlone(t *testing.T) {
	chosen, _, err := content.Resolve(wish(t, packs(t, "a 1.0.0:"), "a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(folder, outside string) error{
		"the pack's folder":  func(folder, outside string) error { return os.Symlink(outside, filepath.Join(folder, "a")) },
		"a version's folder": func(folder, outside string) error { return os.Symlink(outside, filepath.Join(folder, "a", "1.0.0")) },
		"a file": func(folder, outside string) error {
			write(t, folder, map[string]string{"a/1.0.0/other.sh": "x"})
			return os.Symlink(filepath.Join(outside, "pack.hcl"), filepath.Join(folder, "a", "1.0.0", "pack.hcl"))
		},
		"a foreign file": func(folder, _ string) error {
			write(t, folder, map[string]string{"a/1.0.0/other.sh": "x"})
			return nil
		},
	} {
		folder, outside := t.TempDir(), t.TempDir()
		if name == "a version's folder" {
			write(t, folder, map[string]string{"a/0.9.0/pack.hcl": "x"})
		}
		if err := prepare(folder, outside); err != nil {
			t.Fatal(err)
		}
		if _, err := content.Vendor(chosen, folder, folder); err == nil || !strings.Contains(err.Error(), "remove it first") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("%s: it wrote elsewhere: %v %v", name, left, err)
		}
	}
	folder := t.TempDir()
	for range 2 {
		if _, err := content.Vendor(chosen, folder, folder); err != nil {
			t.Errorf("again: %v", err)
		}
	}
}
