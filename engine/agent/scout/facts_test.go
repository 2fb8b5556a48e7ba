package scout

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"joist/engine/agent/disk"
)

func TestClockStep(t *testing.T) {
	told := time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)
	const up = 20 * time.Second
	right := told.Add(up)
	for _, tt := range []struct {
		name      string
		now, told time.Time
		want      time.Time
	}{
		{"right", right, told, time.Time{}},
		{"a minute off", right.Add(time.Minute), told, time.Time{}},
		{"a minute off the other way", right.Add(-time.Minute), told, time.Time{}},
		{"a little more", right.Add(61 * time.Second), told, right},
		{"2001", time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), told, right},
		{"the future", right.AddDate(30, 0, 0), told, right},
		{"not told", time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}, time.Time{}},
	} {
		if got := clockStep(tt.now, tt.told, up); !got.Equal(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// dmi makes an SMBIOS structure.
func dmi(kind byte, body []byte, texts ...string) []byte {
	s := append([]byte{kind, byte(4 + len(body)), 0, 0}, body...)
	for _, text := range texts {
		s = append(append(s, text...), 0)
	}
	if len(texts) == 0 {
		s = append(s, 0)
	}
	return append(s, 0)
}

func TestParseSMBIOS(t *testing.T) {
	uuid := []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	system := append(append([]byte{1, 2, 0, 3}, uuid...), 6)
	table := append(dmi(0, []byte{1}, "Vendor"), dmi(1, system, "QEMU", "Q35 ", "S-1")...)
	table = append(table, dmi(11, []byte{2}, "joist:voucher:x", "other")...)
	table = append(table, dmi(127, nil)...)
	want := SMBIOS{UUID: "00112233-4455-6677-8899-aabbccddeeff", Manufacturer: "QEMU", Product: "Q35", Serial: "S-1", OEM: []string{"joist:voucher:x", "other"}}
	if got := ParseSMBIOS(table); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := ParseSMBIOS(append(table, dmi(11, []byte{1}, "behind the end")...)); len(got.OEM) != 2 {
		t.Errorf("read behind the end of the table: %q", got.OEM)
	}
	blank := dmi(1, append([]byte{0, 9, 0, 1}, make([]byte, 16)...), "A")
	if got := ParseSMBIOS(blank); got.UUID != "" || got.Product != "" || got.Serial != "A" {
		t.Errorf("got %+v", got)
	}
	for cut := range table {
		ParseSMBIOS(table[:cut]) // must not panic
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(dmi(1, append([]byte{1, 2, 0, 3}, make([]byte, 16)...), "a", "b", "c"))
	f.Add(dmi(11, []byte{1}, "voucher"))
	f.Add([]byte{11, 4, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, table []byte) {
		s := ParseSMBIOS(table)
		if s.UUID != "" && len(s.UUID) != 36 {
			t.Fatalf("UUID %q", s.UUID)
		}
	})
}

// ext4 makes the beginning of a file system.
func ext4(label string, id byte) []byte {
	b := make([]byte, 4096)
	binary.LittleEndian.PutUint16(b[1024+0x38:], 0xef53)
	copy(b[1024+0x78:], label)
	for i := range 16 {
		b[1024+0x68+i] = id
	}
	return b
}

func TestIncarnation(t *testing.T) {
	const eleven, twelve = "11111111-1111-1111-1111-111111111111", "12121212-1212-1212-1212-121212121212"
	for _, tt := range []struct {
		name  string
		disks map[string][]byte
		id    string // "" for a drawn one
		disk  string
		err   string
	}{
		{"no disk", nil, "", "", ""},
		{"somebody else's", map[string][]byte{"sda": ext4("root", 0x11)}, "", "", ""},
		{"blank and short", map[string][]byte{"sda": make([]byte, 4096), "sdb": {1, 2}}, "", "", ""},
		{"ours", map[string][]byte{"sda": ext4("root", 0x33), "sdb": ext4(DataLabel, 0x11)}, eleven, "sdb", ""},
		{"a partition", map[string][]byte{"nvme0n1p2": ext4(DataLabel, 0x11)}, eleven, "nvme0n1p2", ""},
		{"two of one node", map[string][]byte{"sda": ext4(DataLabel, 0x11), "sdb": ext4(DataLabel, 0x11)}, eleven, "sda", ""},
		{"two of different nodes", map[string][]byte{"sda": ext4(DataLabel, 0x11), "sdb": ext4(DataLabel, 0x12)}, "", "",
			"the data disks sda and sdb carry different incarnations (" + eleven + ", " + twelve + "): wipe the one that does not belong here"},
		{"a loop device is no disk", map[string][]byte{"loop0": ext4(DataLabel, 0x11)}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sys, dev := t.TempDir(), t.TempDir()
			for name, body := range tt.disks {
				if err := os.Mkdir(filepath.Join(sys, name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dev, name), body, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			id, device, err := Incarnation(disk.Place{Sys: sys, Dev: dev})
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || device != tt.disk || tt.id != "" && id != tt.id {
				t.Fatalf("%s from %q, %v; want %s from %q", id, device, err, tt.id, tt.disk)
			}
			if !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(id) {
				t.Errorf("incarnation is %q", id)
			}
		})
	}
	if first, second := DrawIncarnation(), DrawIncarnation(); first == second {
		t.Error("two incarnations are the same")
	}
}

func TestParseMissingFirmware(t *testing.T) {
	log := []byte(`<6>[    1.0] bnx2: QLogic bnx2 Gigabit Ethernet Driver
<4>[    1.1] bnx2 0000:01:00.0: firmware: failed to load bnx2/bnx2-mips-06-6.2.3.fw (-2)
<4>[    1.2] bnx2 0000:01:00.1: firmware: failed to load bnx2/bnx2-mips-06-6.2.3.fw (-2)
<4>[    1.3] tg3 0000:02:00.0: Direct firmware load for tigon/tg3.bin failed with error -2
<4>[    1.4] x: Direct firmware load for x/timeout.bin failed with error -110
<4>[    1.5] platform regulatory.0: firmware: failed to load regulatory.db (-2)
`)
	want := []string{"bnx2/bnx2-mips-06-6.2.3.fw", "tigon/tg3.bin"}
	if got := parseMissingFirmware(log); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseProc(t *testing.T) {
	if got := parseMeminfo("MemTotal:        2026024 kB\nMemAvailable:    1728660 kB\n", "MemAvailable"); got != 1728660<<10 {
		t.Errorf("memory is %d", got)
	}
	for _, bad := range []string{"", "MemTotal:", "MemTotal: x kB", "MemTotal: -1 kB", "MemTotal: 99999999999999999 kB"} {
		if got := parseMeminfo(bad, "MemTotal"); got != 0 {
			t.Errorf("%q gives %d", bad, got)
		}
	}
	c := parseCPU("processor\t: 0\nmodel name\t: A CPU @ 2 GHz: fast\n\nprocessor\t: 1\nmodel name\t: A CPU @ 2 GHz: fast\n")
	if c.Threads != 2 || c.Model != "A CPU @ 2 GHz: fast" {
		t.Errorf("CPU is %+v", c)
	}
}

func TestReporterKeepsToOneLine(t *testing.T) {
	var b strings.Builder
	r := &Reporter{&b}
	r.OK()
	r.Fail(os.ErrNotExist)
	r.Say("a\nok b")
	if b.String() != "ok\nfail file does not exist\nsay a ok b\n" {
		t.Errorf("reported %q", b.String())
	}
}
