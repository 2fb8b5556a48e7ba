package ipxe

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func scout() Scout {
	return Scout{
		Name: "rack1-n1", MAC: "52:54:00:ab:cd:01",
		Kernel: "http://10.80.0.1:8080/artifact/sha256-" + strings.Repeat("1a", 32),
		Initrd: "http://10.80.0.1:8080/artifact/sha256-" + strings.Repeat("2b", 32),
		URLs:   []string{"https://10.80.0.1:8443", "https://[fd00::1]:8443"},
		CA:     strings.Repeat("3c", 32), BootID: strings.Repeat("4d", 16),
		Time: time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC),
	}
}

func TestGolden(t *testing.T) {
	named, unnamed := scout(), scout()
	unnamed.Name, unnamed.Console, unnamed.Extra = "", []string{"ttyS1,57600"}, []string{"quiet"}
	ask := Ask{Name: "rack1-n1", Reason: "this machine is quarantined: two keys; see #7 $(x) ${mac}", Advice: "look with: joist node show rack1-n1",
		Again: "http://10.80.0.1:8080/boot/ipxe?mac=52-54-00-ab-cd-01&uuid=", Delay: 30 * time.Second}
	for name, render := range map[string]func() (string, error){
		"scout":     named.Script,
		"unnamed":   unnamed.Script,
		"ask":       ask.Script,
		"disk":      func() (string, error) { return Disk("rack1-n1"), nil },
		"leave":     func() (string, error) { return Leave("the machine is unknown"), nil },
		"introduce": func() (string, error) { return Introduce("http://10.80.0.1:8080/boot/ipxe") },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := render()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".ipxe")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Scout){
		"no engine":           func(s *Scout) { s.URLs = nil },
		"short pin":           func(s *Scout) { s.CA = "3c" },
		"no boot id":          func(s *Scout) { s.BootID = "" },
		"boot id with space":  func(s *Scout) { s.BootID = strings.Repeat("4", 31) + " " },
		"MAC not canonical":   func(s *Scout) { s.MAC = "52-54-00-AB-CD-01" },
		"expansion":           func(s *Scout) { s.Extra = []string{"x=${net0/mac}"} },
		"second command":      func(s *Scout) { s.Extra = []string{"x", "||", "shell"} },
		"two words":           func(s *Scout) { s.Extra = []string{"a b"} },
		"new line":            func(s *Scout) { s.URLs = []string{"https://10.0.0.1\nshell"} },
		"empty argument":      func(s *Scout) { s.Console = []string{"tty0"}; s.Extra = []string{""} },
		"kernel by https":     func(s *Scout) { s.Kernel = "https://10.0.0.1/k" },
		"kernel and a word":   func(s *Scout) { s.Kernel += " init=/bin/sh" },
		"initrd without host": func(s *Scout) { s.Initrd = "/scout" },
		"too long":            func(s *Scout) { s.Extra = []string{strings.Repeat("x", 2000)} },
	} {
		s := scout()
		spoil(&s)
		if got, err := s.Script(); err == nil {
			t.Errorf("%s: accepted:\n%s", name, got)
		}
	}
	if _, err := (Ask{Again: "http://h/x y"}).Script(); err == nil {
		t.Error("a waiting script with a broken address is accepted")
	}
	if _, err := Introduce("ftp://h/"); err == nil {
		t.Error("an introducing script with a foreign scheme is accepted")
	}
}

func TestTextIsHarmless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		got := Text(rapid.String().Draw(t, "text"))
		if got == "" || len(got) > maxText+1 || strings.ContainsAny(got, "$;|&#\\\r\n\t\x00") || strings.HasPrefix(got, "-") {
			t.Fatalf("%q", got)
		}
	})
	if got := Text("  Grüße\n-- ok "); got != "Gr??e -- ok" {
		t.Errorf("got %q", got)
	}
}
