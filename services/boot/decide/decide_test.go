package decide

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)

func pxe(archs ...uint16) Firmware { return Firmware{VendorClass: "PXEClient", Archs: archs} }

func ipxe(archs ...uint16) Firmware {
	return Firmware{VendorClass: "PXEClient", Archs: archs, IPXE: true}
}

func TestDecideDHCP(t *testing.T) {
	known := Machine{Known: true, Name: "n1"}
	enrolled := Machine{Known: true, Name: "n1", Enrolled: true}
	bad := Machine{Known: true, Enrolled: true, Quarantined: "two keys"}
	for _, tc := range []struct {
		name string
		r    Request
		want Kind
		load string
		l    Lease
		note bool
	}{
		{"BIOS", Request{Machine: known, Firmware: pxe(0)}, Loader, LoaderBIOS, LeaseFirmware, false},
		{"UEFI 7", Request{Machine: known, Firmware: pxe(7)}, Loader, LoaderUEFI, LeaseFirmware, false},
		{"UEFI 9", Request{Machine: known, Firmware: pxe(9)}, Loader, LoaderUEFI, LeaseFirmware, false},
		{"list, second is ours", Request{Machine: known, Firmware: pxe(0x0b, 7)}, Loader, LoaderUEFI, LeaseFirmware, false},
		{"arch in vendor class only", Request{Machine: known, Firmware: Firmware{VendorClass: "PXEClient:Arch:00007:UNDI:003016"}}, Loader, LoaderUEFI, LeaseFirmware, false},
		{"no arch anywhere", Request{Machine: known, Firmware: pxe()}, Silence, "", LeaseNone, true},
		{"vendor class cut off", Request{Machine: known, Firmware: Firmware{VendorClass: "PXEClient:Arch:000"}}, Silence, "", LeaseNone, true},
		{"ARM64", Request{Machine: known, Firmware: pxe(0x0b)}, Silence, "", LeaseNone, true},
		{"32-bit UEFI", Request{Machine: known, Firmware: pxe(6)}, Silence, "", LeaseNone, true},
		{"unheard-of arch", Request{Machine: known, Firmware: pxe(999)}, Silence, "", LeaseNone, true},
		{"HTTP by flag", Request{Machine: known, Firmware: Firmware{HTTP: true, VendorClass: "PXEClient", Archs: []uint16{7}}}, Silence, "", LeaseNone, true},
		{"HTTP by class", Request{Machine: known, Firmware: Firmware{VendorClass: "HTTPClient:Arch:00016", Archs: []uint16{16}}}, Silence, "", LeaseNone, true},
		{"iPXE BIOS", Request{Machine: known, Firmware: ipxe(0)}, Script, "", LeaseFirmware, false},
		{"iPXE UEFI", Request{Machine: known, Firmware: ipxe(7)}, Script, "", LeaseFirmware, false},
		{"iPXE without arch", Request{Machine: known, Firmware: Firmware{IPXE: true}}, Script, "", LeaseFirmware, false},
		{"iPXE ARM64", Request{Machine: known, Firmware: ipxe(0x0b)}, Silence, "", LeaseNone, true},
		{"unknown BIOS is discovered", Request{Firmware: pxe(0)}, Loader, LoaderBIOS, LeaseFirmware, false},
		{"unknown ignored", Request{Firmware: pxe(0), Policy: Policy{IgnoreUnknown: true}}, Silence, "", LeaseNone, false},
		{"unknown iPXE ignored", Request{Firmware: ipxe(0), Policy: Policy{IgnoreUnknown: true}}, Silence, "", LeaseNone, false},
		{"unknown system ignored", Request{Policy: Policy{IgnoreUnknown: true}}, Silence, "", LeaseNone, false},
		{"disk, firmware", Request{Machine: known, Firmware: pxe(7), Target: TargetDisk}, Silence, "", LeaseNone, false},
		{"disk, iPXE ROM is told by script", Request{Machine: known, Firmware: ipxe(0), Target: TargetDisk}, Script, "", LeaseFirmware, false},
		{"disk, running system", Request{Machine: enrolled, Target: TargetDisk}, Address, "", LeaseEnrolled, false},
		{"quarantined beats disk", Request{Machine: bad, Firmware: pxe(7), Target: TargetDisk}, Loader, LoaderUEFI, LeaseFirmware, false},
		{"quarantined system", Request{Machine: bad}, Address, "", LeaseScout, false},
		{"enrolled system", Request{Machine: enrolled}, Address, "", LeaseEnrolled, false},
		{"enrolled machine's firmware", Request{Machine: enrolled, Firmware: pxe(0)}, Loader, LoaderBIOS, LeaseFirmware, false},
		{"scout, known", Request{Machine: known}, Address, "", LeaseScout, false},
		{"scout, unknown", Request{}, Address, "", LeaseScout, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.r.Now = now
			got := Decide(tc.r)
			if got.Kind != tc.want || got.Loader != tc.load || got.Lease != tc.l || got.Notice != tc.note || got.Reason == "" {
				t.Errorf("got %+v (%v)", got, got.Kind)
			}
		})
	}
}

func TestDecideScript(t *testing.T) {
	known := Machine{Known: true, Name: "n1"}
	for _, tc := range []struct {
		name   string
		r      Request
		want   Kind
		reason string
	}{
		{"known", Request{Machine: known}, Scout, "starts scout"},
		{"unknown", Request{}, Scout, "discovered"},
		{"unknown ignored", Request{Policy: Policy{IgnoreUnknown: true}}, Silence, "ignore unknown"},
		{"disk", Request{Machine: known, Target: TargetDisk}, Disk, "disk"},
		{"wait", Request{Machine: known, Target: TargetWait}, Wait, "wait"},
		{"rescue", Request{Machine: known, Target: TargetRescue}, NotYet, "rescue is not served yet"},
		{"wipe", Request{Machine: known, Target: TargetWipe}, Scout, "wiped"},
		{"install", Request{Machine: known, Target: TargetInstall}, NotYet, "install is not served yet"},
		{"a target of a newer joist", Request{Machine: known, Target: 200}, NotYet, "target 200"},
		{"quarantined", Request{Machine: Machine{Known: true, Quarantined: "two keys"}}, Wait, "quarantined: two keys"},
		{"quarantined, disk", Request{Machine: Machine{Known: true, Quarantined: "two keys"}, Target: TargetDisk}, Wait, "two keys"},
		{"quarantined until later", Request{Machine: Machine{Known: true, Quarantined: "two keys", Until: now.Add(time.Minute)}}, Wait, "until 2026-11-20T19:01:00Z"},
		{"quarantine over", Request{Machine: Machine{Known: true, Quarantined: "two keys", Until: now}}, Scout, "starts scout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.r.Stage, tc.r.Now = StageScript, now
			got := Decide(tc.r)
			if got.Kind != tc.want || !strings.Contains(got.Reason, tc.reason) {
				t.Errorf("got %v %+v", got.Kind, got)
			}
			if (got.Kind == Wait || got.Kind == NotYet) != (got.Delay > 0) {
				t.Errorf("delay %v of %v", got.Delay, got.Kind)
			}
		})
	}
}

// TestDecideProperties states what must hold for every input whatever the tables above say.
func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Request{
			Stage: Stage(rapid.IntRange(0, 1).Draw(t, "stage")),
			Machine: Machine{
				Known:       rapid.Bool().Draw(t, "known"),
				Enrolled:    rapid.Bool().Draw(t, "enrolled"),
				Quarantined: rapid.SampledFrom([]string{"", "two keys"}).Draw(t, "quarantined"),
			},
			Firmware: Firmware{
				Archs:       rapid.SliceOfN(rapid.Uint16Range(0, 0x30), 0, 4).Draw(t, "archs"),
				VendorClass: rapid.OneOf(rapid.SampledFrom([]string{"", "PXEClient", "HTTPClient", "PXEClient:Arch:00000:UNDI"}), rapid.String()).Draw(t, "class"),
				IPXE:        rapid.Bool().Draw(t, "ipxe"),
				HTTP:        rapid.Bool().Draw(t, "http"),
			},
			Target: Target(rapid.IntRange(0, 7).Draw(t, "target")),
			Policy: Policy{IgnoreUnknown: rapid.Bool().Draw(t, "ignore")},
			Now:    now,
		}
		a := Decide(r)
		if a.Reason == "" {
			t.Fatal("an answer without a reason")
		}
		if r.Firmware.IPXE && a.Kind == Loader {
			t.Fatal("iPXE is sent a loader")
		}
		if (r.Firmware.HTTP || strings.HasPrefix(r.Firmware.VendorClass, "HTTPClient")) && a.Kind == Loader {
			t.Fatal("an HTTP boot client is sent a TFTP name")
		}
		if (a.Kind == Loader) != (a.Loader != "") {
			t.Fatalf("kind %v with loader %q", a.Kind, a.Loader)
		}
		if r.Machine.Quarantined != "" && (a.Kind == Scout || a.Kind == Disk || a.Lease == LeaseEnrolled) {
			t.Fatalf("a quarantined machine gets %v, lease %v", a.Kind, a.Lease)
		}
		if r.Policy.IgnoreUnknown && !r.Machine.Known && a.Kind != Silence {
			t.Fatalf("an ignored machine gets %v", a.Kind)
		}
		if (r.Stage == StageDHCP && a.Kind > Script) || (r.Stage == StageScript && a.Kind != Silence && a.Kind <= Script) {
			t.Fatalf("kind %v at stage %d", a.Kind, r.Stage)
		}
		if (a.Lease != LeaseNone) != (r.Stage == StageDHCP && a.Kind != Silence) {
			t.Fatalf("kind %v with lease %v", a.Kind, a.Lease)
		}
	})
}

func TestParseMAC(t *testing.T) {
	for in, want := range map[string]MAC{
		"52:54:00:AB:cd:01": "52:54:00:ab:cd:01", "52-54-00-ab-cd-01": "52:54:00:ab:cd:01", "525400abcd01": "52:54:00:ab:cd:01",
		"5254.00ab.cd01": "52:54:00:ab:cd:01", "00:02:c9:03:00:00:12:34": "00:02:c9:03:00:00:12:34",
		"": "", "52:54:00": "", "zz:54:00:ab:cd:01": "", "01:00:5e:00:00:01": "", "ff:ff:ff:ff:ff:ff": "", "00:00:00:00:00:00": "",
		"52:54:00:ab:cd:01\n": "", "../../etc/passwd": "", strings.Repeat("00:", 1000): "",
	} {
		got, err := ParseMAC(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	if got := MAC("52:54:00:ab:cd:01").Hyphens(); got != "52-54-00-ab-cd-01" {
		t.Errorf("got %q", got)
	}
}

func TestParseUUID(t *testing.T) {
	const canonical = "4c4c4544-0042-3510-8054-b4c04f4a3132"
	for in, want := range map[string]UUID{
		strings.ToUpper(canonical): canonical, "4c4c4544004235108054b4c04f4a3132": canonical,
		"": "", "00000000-0000-0000-0000-000000000000": "", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF": "",
	} {
		if got, err := ParseUUID(in); got != want || err != nil {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"x", canonical + "0", canonical[1:], "${uuid}"} {
		if got, err := ParseUUID(in); err == nil {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func TestLeaseDurations(t *testing.T) {
	for l, want := range map[Lease]time.Duration{LeaseNone: 0, LeaseFirmware: 2 * time.Minute, LeaseScout: 10 * time.Minute, LeaseEnrolled: 24 * time.Hour} {
		if got := l.Duration(); got != want {
			t.Errorf("lease %d: got %v", l, got)
		}
	}
}

func FuzzParseMAC(f *testing.F) {
	for _, s := range []string{"", "52:54:00:ab:cd:01", "${mac}", "525400abcd01", "52-54", "::::::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMAC(s)
		if err != nil {
			return
		}
		if again, err := ParseMAC(string(m)); err != nil || again != m {
			t.Fatalf("%q: %q is not canonical: %q, %v", s, m, again, err)
		}
	})
}
