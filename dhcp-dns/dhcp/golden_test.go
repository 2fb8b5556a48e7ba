package dhcp_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"joist/dhcp-dns/dhcp"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// TestGolden answers packets captured from real clients and compares question, reply and route with what is written down.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured packets: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".hex"), func(t *testing.T) {
			raw := captured(t, file)
			h := giving()
			h.answer.Boot.Filename = "loader"
			reply, err := responder(t, h).Respond(t.Context(), dhcp.Datagram{Payload: raw, From: netip.MustParseAddrPort(fromAny), Port: dhcp.ServerPort})
			if err != nil || reply == nil {
				t.Fatalf("got %v, %v", reply, err)
			}
			p, err := dhcpv4.FromBytes(reply.Payload)
			if err != nil {
				t.Fatal(err)
			}
			question, err := json.MarshalIndent(h.asked[0], "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s\n\nto %v %v\n%s\n%s", question, reply.Route.To, reply.Route.Hardware, p.Summary(), hex.Dump(reply.Payload))
			golden := strings.TrimSuffix(file, ".hex") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (run with -update to accept):\n%s", golden, got)
			}
		})
	}
}

func captured(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return raw
}

// FuzzRespond feeds any bytes to a responder: no panic, and a reply that a client can decode and that is its own.
func FuzzRespond(f *testing.F) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		f.Add(captured(f, file), false, false)
	}
	for kind := dhcpv4.MessageTypeDiscover; kind <= dhcpv4.MessageTypeInform; kind++ {
		f.Add(packet(f, kind, wants(client), has(client), generic(82, "\x05\x04\x0a\x63\x00\x00"), generic(52, "\x03"), generic(60, pxeUEFI)).ToBytes(), true, true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, unicast, bootServer bool) {
		h := giving()
		h.answer.Boot.Filename = "loader"
		d := dhcp.Datagram{Payload: raw, From: netip.MustParseAddrPort("10.77.0.10:68"), Unicast: unicast, Port: dhcp.ServerPort}
		if bootServer {
			d.Port = dhcp.BootServerPort
		}
		reply, err := responder(t, h).Respond(t.Context(), d)
		if err != nil && reply != nil {
			t.Fatal("a reply and an error")
		}
		if reply == nil {
			return
		}
		p, err := dhcpv4.FromBytes(reply.Payload)
		if err != nil {
			t.Fatalf("the reply is broken: %v", err)
		}
		if string(p.TransactionID[:]) != string(raw[4:8]) || p.OpCode != dhcpv4.OpcodeBootReply || !reply.Route.To.IsValid() || reply.Route.To.Addr().IsUnspecified() {
			t.Fatalf("the reply %v to %v is not the client's", p, reply.Route.To)
		}
	})
}
