package kmod

import (
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"
)

func tree(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tr, err := Read(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

var sample = map[string]string{
	"modules.dep": `kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/net/net_failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/fs/btrfs.ko.xz:
kernel/crypto/crc32c-intel.ko:
kernel/extra/after-it.ko:
kernel/drivers/net/mlx5/core/mlx5_core.ko: kernel/lib/gone.ko
`,
	"modules.softdep": "# comment\nsoftdep btrfs pre: crc32c-intel nothere post: after_it\n",
	"modules.builtin": "kernel/drivers/virtio/virtio.ko\n",
	"modules.alias":   "alias virtio:d00000001v* virtio_net\nalias pci:v*d*sv*sd*bc01sc08i02* nvme\nalias acpi*:PNP0C0[AB]:* pnp-thing\n",
}

func TestClosure(t *testing.T) {
	tr := tree(t, sample)
	tests := []struct {
		names []string
		want  []string
		err   string
	}{
		{[]string{"virtio_net"}, []string{"kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko"}, ""},
		{[]string{"failover", "virtio-net"}, []string{"kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko"}, ""},
		{[]string{"btrfs"}, []string{"kernel/crypto/crc32c-intel.ko", "kernel/fs/btrfs.ko.xz", "kernel/extra/after-it.ko"}, ""},
		{[]string{"virtio"}, nil, ""},
		{[]string{"nothere"}, nil, `this kernel has no module "nothere"`},
		{[]string{"mlx5_core"}, nil, `module "mlx5_core": this kernel has no module "gone"`},
	}
	for _, tt := range tests {
		got, err := tr.Closure(tt.names...)
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("Closure(%v): error %v, want %s", tt.names, err, tt.err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Closure(%v) = %v, %v; want %v", tt.names, got, err, tt.want)
		}
	}
	if !tr.Has("crc32c_intel") || !tr.Has("virtio") || tr.Has("nothere") {
		t.Error("Has does not know what is there")
	}
}

func TestMatch(t *testing.T) {
	tr := tree(t, sample)
	for modalias, want := range map[string][]string{
		"virtio:d00000001v00001AF4":                             {"virtio_net"},
		"virtio:d00000002v00001AF4":                             nil,
		"pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02": {"nvme"},
		"acpi:PNP0C0B:":                                         {"pnp_thing"},
		"acpi:PNP0C0C:":                                         nil,
	} {
		if got := tr.Match(modalias); !slices.Equal(got, want) {
			t.Errorf("Match(%s) = %v, want %v", modalias, got, want)
		}
	}
}

// For text without slashes and backslashes, path.Match means the same by its patterns.
func TestMatchAgreesWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", ":", "*", "?", "[ab]", "[^a]", "[a-c]", "**"}), 0, 8).Draw(t, "pattern"), "")
		text := rapid.StringOfN(rapid.RuneFrom([]rune("abc:")), 0, 10, -1).Draw(t, "text")
		want, err := path.Match(pattern, text)
		if err != nil {
			t.Skip("the oracle refuses the pattern")
		}
		if got := match(pattern, text); got != want {
			t.Fatalf("match(%q, %q) = %v, path.Match says %v", pattern, text, got, want)
		}
	})
}

// Damaged tables end in an error, not in a panic or an endless walk.
func FuzzRead(f *testing.F) {
	f.Add(sample["modules.dep"], sample["modules.softdep"], sample["modules.alias"])
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "softdep a pre: a post: b", "alias [ x\nalias [] y\nalias \\ z")
	f.Fuzz(func(t *testing.T, dep, soft, alias string) {
		fsys := fstest.MapFS{"modules.dep": {Data: []byte(dep)}, "modules.softdep": {Data: []byte(soft)}, "modules.alias": {Data: []byte(alias)}}
		tr, err := Read(fsys)
		if err != nil {
			return
		}
		files, err := tr.Closure(tr.Names()...)
		if err == nil && len(files) > len(tr.Names()) {
			t.Fatalf("%d files for %d modules", len(files), len(tr.Names()))
		}
		tr.Match("virtio:d00000001v00001AF4")
	})
}
