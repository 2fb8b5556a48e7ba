package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joist/engine/agent/sandbox"
	"joist/engine/agent/wire"
)

// TestReboot: the system manager is asked for an orderly reboot, and what it says against it is the error. Nothing is verified
// or removed by it.
func TestReboot(t *testing.T) {
	dir := t.TempDir()
	manager, said := filepath.Join(dir, "manager"), filepath.Join(dir, "said")
	script := "#!/bin/sh\necho \"$@\" >> " + said + "\n[ ! -e " + dir + "/busy ] || { echo 'operation inhibited' >&2; exit 1; }\n"
	if err := os.WriteFile(manager, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := reboot(t.Context(), sandbox.BuiltinCall{Action: wire.Apply}, manager); err != nil || out != nil {
		t.Errorf("%s, %v", out, err)
	}
	for _, action := range []wire.Action{wire.Verify, wire.Remove} {
		if _, err := reboot(t.Context(), sandbox.BuiltinCall{Action: action}, manager); err == nil {
			t.Errorf("%s reboots", action)
		}
	}
	if data, err := os.ReadFile(said); err != nil || string(data) != "reboot\n" {
		t.Errorf("asked for %q, %v", data, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "busy"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := reboot(t.Context(), sandbox.BuiltinCall{Action: wire.Apply}, manager); err == nil || !strings.Contains(err.Error(), "operation inhibited") {
		t.Errorf("%v", err)
	}
	for _, s := range Signatures() {
		if s.Call == "reboot" {
			t.Error("steps can name it")
		}
	}
}
