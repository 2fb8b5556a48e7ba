package disk

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	mine   = "11111111-1111-1111-1111-111111111111"
	theirs = "12121212-1212-1212-1212-121212121212"
)

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

func seen(name string, change func(*Seen)) Seen {
	s := Seen{Disk: Disk{Name: name, Path: "/dev/" + name, Size: 6 << 30}}
	if change != nil {
		change(&s)
	}
	return s
}

func ours(uuid string, state State) func(*Seen) {
	return func(s *Seen) { s.Label, s.UUID, s.State = Label, uuid, state }
}

func TestChoose(t *testing.T) {
	foreign := func(s *Seen) { s.Content = `an ext4 file system labelled "root"` }
	for _, tt := range []struct {
		name  string
		disks []Seen
		want  string // name, and what is to be done
		err   []string
	}{
		{"none", nil, "", []string{`add one, or say storage = "memory"`}},
		{"one blank", []Seen{seen("vda", nil)}, "vda make", nil},
		{"ours", []Seen{seen("sda", nil), seen("sdb", ours(mine, Ready))}, "sdb", nil},
		{"ours without a mark", []Seen{seen("sdb", ours(mine, Unmarked))}, "sdb", nil},
		{"ours on a partition", []Seen{seen("sda", foreign), seen("sda3", func(s *Seen) { s.Part = true; ours(mine, Unmarked)(s) })}, "sda3", nil},
		{"another node's", []Seen{seen("sda", nil), seen("sdb", ours(theirs, Ready))}, "", []string{"sdb (6.0 GiB)", theirs, mine, "joist node wipe"}},
		{"making was cut short", []Seen{seen("sda", nil), seen("sdb", func(s *Seen) { s.State = Making; s.Content = "rubbish" })}, "sdb make erase", nil},
		{"made of this node, not finished", []Seen{seen("sdb", ours(mine, Making))}, "sdb make erase", nil},
		{"wiping was cut short", []Seen{seen("sdb", ours(theirs, Wiping))}, "sdb make erase", nil},
		{"the largest blank one", []Seen{seen("sda", nil), seen("sdb", func(s *Seen) { s.Size = 1 << 40 }), seen("sdc", func(s *Seen) { s.Size = 1 << 40 })}, "sdb make", nil},
		{"somebody's", []Seen{seen("sda", foreign)}, "", []string{"neither blank nor ours", `sda (6.0 GiB) holds an ext4 file system labelled "root"`, "blkdiscard /dev/sda"}},
		{"somebody's and a blank one", []Seen{seen("sda", foreign), seen("sdb", nil)}, "sdb make", nil},
		{"read-only", []Seen{seen("sda", func(s *Seen) { s.ReadOnly = true })}, "", []string{"sda (6.0 GiB) is read-only", "add a blank disk"}},
		{"removable", []Seen{seen("sda", func(s *Seen) { s.Removable = true })}, "", []string{"is removable"}},
		{"tiny", []Seen{seen("sda", func(s *Seen) { s.Size = 1 << 20 })}, "", []string{"sda (1 MiB) is smaller than 256 MiB"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Choose(tt.disks, mine)
			got := c.Name
			if c.Make {
				got += " make"
			}
			if c.Erase {
				got += " erase"
			}
			if got != tt.want || (err != nil) != (tt.err != nil) {
				t.Fatalf("chose %q, %v; want %q", got, err, tt.want)
			}
			for _, part := range tt.err {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not say %q", err, part)
				}
			}
		})
	}
}

// Whatever disks there are, only a blank one or one of ours is written to, and never one with another incarnation.
func TestChooseHarmsNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		disks := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Seen {
			s := seen(rapid.SampledFrom([]string{"sda", "sdb", "sdc"}).Draw(t, "name"), nil)
			s.Size = rapid.SampledFrom([]int64{1 << 20, 1 << 30, 1 << 40}).Draw(t, "size")
			s.Label = rapid.SampledFrom([]string{"", "root", Label}).Draw(t, "label")
			s.UUID = rapid.SampledFrom([]string{mine, theirs}).Draw(t, "uuid")
			s.State = rapid.SampledFrom([]State{Unmarked, Making, Ready, Wiping}).Draw(t, "state")
			s.Content = rapid.SampledFrom([]string{"", "something"}).Draw(t, "content")
			s.ReadOnly, s.Removable, s.Part = rapid.Bool().Draw(t, "ro"), rapid.Bool().Draw(t, "removable"), rapid.Bool().Draw(t, "part")
			return s
		}), 0, 4).Draw(t, "disks")
		c, err := Choose(disks, mine)
		if err != nil {
			return
		}
		for _, d := range disks {
			if d.Disk != c.Disk {
				continue
			}
			if !c.Make && d.Incarnation() == mine {
				return
			}
			if c.Make && d.Incarnation() == "" && !d.ReadOnly && !d.Removable && !d.Part && (d.Content == "" || d.Label == Label || d.State != Unmarked) {
				return
			}
		}
		t.Fatalf("chose %+v of %+v", c, disks)
	})
}

func TestInMemory(t *testing.T) {
	blank, other := seen("sda", nil).Disk, seen("sdb", ours(theirs, Ready)).Disk
	if err := InMemory([]Disk{blank, other}, mine); err != nil {
		t.Error(err)
	}
	if err := InMemory([]Disk{blank, seen("sdb", ours(mine, Ready)).Disk}, mine); err == nil || !strings.Contains(err.Error(), "sdb") {
		t.Errorf("a node that a disk names keeps its data in memory: %v", err)
	}
}

func TestMark(t *testing.T) {
	for _, state := range []State{Making, Ready, Wiping} {
		b, err := mark{state, mine}.block()
		if err != nil || len(b) != markSize || parseMark(b) != state {
			t.Errorf("%s reads back %q, %v", state, parseMark(b), err)
		}
	}
	for text, want := range map[string]State{"": Unmarked, "joist": Unmarked, markPrefix: Making, markPrefix + `{"state":"new"}`: Making} {
		if got := parseMark([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

func TestContent(t *testing.T) {
	at := func(at int, what string) []byte {
		b := make([]byte, 1<<20)
		copy(b[at:], what)
		return b
	}
	for _, tt := range []struct {
		name string
		head []byte
		want string
	}{
		{"zeros", make([]byte, 100), ""},
		{"erased flash", []byte(strings.Repeat("\xff", 1<<20)), ""},
		{"ext4", ext4("root", 1), `an ext4 file system labelled "root"`},
		{"ext4 without a label", ext4("", 1), "an ext4 file system without a label"},
		{"xfs", at(0, "XFSB"), "an XFS file system"},
		{"btrfs", at(0x10040, "_BHRfS_M"), "a btrfs file system"},
		{"luks", at(0, "LUKS\xba\xbe"), "an encrypted volume (LUKS)"},
		{"swap", at(4086, "SWAPSPACE2"), "swap space"},
		{"raid", at(4096, "\xfc\x4e\x2b\xa9"), "a member of a software RAID"},
		{"gpt", at(512, "EFI PART"), "a partition table (GPT)"},
		{"gpt of 4096-byte sectors", at(4096, "EFI PART"), "a partition table (GPT)"},
		{"lvm", at(512, "LABELONE"), "a physical volume of LVM"},
		{"mbr", at(510, "\x55\xaa"), "a partition table or boot sector"},
		{"text", []byte("hello"), "data that joist does not know (at byte 0)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(name, tt.head, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := Content(name); err != nil || got != tt.want {
				t.Errorf("holds %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	// Far behind the beginning, and at the very end.
	for _, where := range []int64{512 << 20, 1<<30 - 1} {
		name := filepath.Join(t.TempDir(), "disk")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 8<<20)
		for i := range data {
			data[i] = 7
		}
		data = data[:min(int64(len(data)), 1<<30-where)]
		if _, err := f.WriteAt(data, where); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(1 << 30); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := Content(name); err != nil || !strings.HasPrefix(got, "data that joist does not know") {
			t.Errorf("data at %d: %q, %v", where, got, err)
		}
	}
}

// What is looked at lies within the disk, in order, and has its edges in it.
func TestLooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 1<<44).Draw(t, "size")
		spans := looks(size)
		end := int64(0)
		for _, s := range spans {
			if s.at < 0 || s.size < 0 || s.at+s.size > size || s.size > 4*edge {
				t.Fatalf("%+v of %d", s, size)
			}
			end = max(end, s.at+s.size)
		}
		if spans[0].at != 0 || end != size {
			t.Fatalf("the edges of %d are not looked at", size)
		}
	})
}

func TestWanted(t *testing.T) {
	good := Wanted{Mount: "/var/lib/etcd", Storage: "memory", Size: "512m"}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Wanted){
		"relative":    func(w *Wanted) { w.Mount = "var" },
		"unclean":     func(w *Wanted) { w.Mount = "/var/../etc" },
		"root":        func(w *Wanted) { w.Mount = "/" },
		"storage":     func(w *Wanted) { w.Storage = "tape" },
		"size":        func(w *Wanted) { w.Size = "1,nosuid" },
		"size of all": func(w *Wanted) { w.Size = "" },
	} {
		w := good
		change(&w)
		if err := w.check(); err == nil {
			t.Errorf("%s: accepted %+v", name, w)
		}
	}
}

func TestParseMount(t *testing.T) {
	m, ok := parseMount(`97 28 254:0 /var/lib/my\040etcd /var/lib/my\040etcd rw,noatime shared:53 - ext4 /dev/vda rw,errors=remount-ro` + "\n")
	if want := (mount{device: "254:0", root: "/var/lib/my etcd", at: "/var/lib/my etcd", fs: "ext4"}); !ok || m != want {
		t.Errorf("%+v, %v", m, ok)
	}
	if m, ok := parseMount("97 28 254:0 / /mnt rw - ext4 /dev/vda ro,errors=remount-ro\n"); !ok || !m.readOnly {
		t.Errorf("a file system that became read-only: %+v", m)
	}
	for _, bad := range []string{"", "97 28", "97 28 254:0 / /mnt rw ext4 /dev/vda rw"} {
		if _, ok := parseMount(bad); ok {
			t.Errorf("read %q", bad)
		}
	}
}

func FuzzOnDisk(f *testing.F) {
	f.Add(ext4(Label, 1))
	f.Add([]byte("short"))
	f.Add([]byte(markPrefix + `{"state":"ready"}`))
	f.Add([]byte("97 28 254:0 / /mnt rw - ext4 /dev/vda ro"))
	f.Fuzz(func(t *testing.T, data []byte) {
		label, uuid, ok := parseExt4(data)
		if ok && (len(label) > 16 || len(uuid) != 36) {
			t.Fatalf("label %q, UUID %q", label, uuid)
		}
		if s := parseMark(data); s != Unmarked && !strings.HasPrefix(string(data), markPrefix) {
			t.Fatalf("state %q", s)
		}
		describe(data)
		parseMount(string(data))
	})
}
