package system_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"joist/cmd/system"
)

// TestRefusedStart: a start that is refused after the stores were made leaves nothing in an empty data folder, keeps what lay
// there, and makes no folder.
func TestRefusedStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:8443") // where agents are to come in
	if err == nil {
		defer taken.Close()
	} // else somebody else has taken it
	for name, test := range map[string]struct {
		there []string
		made  bool
	}{"empty": {nil, true}, "with a log": {[]string{"engine.log"}, true}, "none": {nil, false}} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			if test.made {
				if err := os.Mkdir(data, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range test.there {
				if err := os.WriteFile(filepath.Join(data, name), []byte("kept"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s, err := system.Open(context.Background(), system.Config{
				Data: data, Interface: "lo", Subnet: netip.MustParsePrefix("127.0.0.0/8"), Address: netip.MustParseAddr("127.0.0.1"),
				Log: slog.New(slog.DiscardHandler),
			})
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			entries, readErr := os.ReadDir(data)
			if len(entries) != len(test.there) || (readErr == nil) != test.made {
				t.Errorf("refused with %v; left %v, %v", err, entries, readErr)
			}
		})
	}
}
