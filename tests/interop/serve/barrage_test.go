package serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"joist/dhcp-dns/dhcp"
)

// The barrage: how many packets or requests of each protocol, and by how much memory may have grown after them, in KiB.
// The second half of the barrage counts: the first one fills pools and tables that stay.
const (
	packets  = 20000
	requests = 400
	growth   = 48 << 10
)

// TestBarrage sends random and mutated input of every protocol to a running engine, which must not end, must not grow,
// and must still serve.
func TestBarrage(t *testing.T) {
	e := start(t, t.TempDir(), "--log-level", "error")
	e.push()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	e.barrage(r)
	settled := e.memory()
	e.barrage(r)
	e.eventually("its memory shrinks again", func() bool { return e.memory() < settled+growth })
	t.Logf("memory %d KiB, then %d KiB", settled, e.memory())

	// It still serves, over every protocol.
	text, err := e.script(mac1, uuid1, "127.0.9.9") // the address that the barrage came from asks too often
	if err != nil || bootID.FindString(text) == "" {
		t.Errorf("no boot script: %v\n%s", err, text)
	}
	if list := probeFar(t); len(list) != 1 || list[0].Server != netip.MustParseAddr(address) {
		t.Errorf("DHCP is answered by %v", list)
	}
	q := new(mdns.Msg).SetQuestion("nobody.test.", mdns.TypeA)
	if answer, _, err := new(mdns.Client).Exchange(q, address+":53"); err != nil || answer.Rcode != mdns.RcodeRefused {
		t.Errorf("DNS answers %v, %v", answer, err)
	}
	conn := farDial(t, "udp", address+":69")
	defer conn.Close()
	_, err = conn.Write([]byte("\x00\x01no-such-file\x00octet\x00"))
	must(t, err)
	must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	e.want(0, "m-525400990001", "status")
	e.stop()
}

func (e *engine) barrage(r *rand.Rand) {
	e.t.Helper()
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr{0x52, 0x54, 0, 0x99, 1, 1}, dhcpv4.WithGeneric(dhcpv4.OptionClassIdentifier, []byte("PXEClient:Arch:00007:UNDI:003001")))
	must(e.t, err)
	question, err := new(mdns.Msg).SetQuestion("n1.demo.lab.", mdns.TypeA).SetEdns0(1232, true).Pack()
	must(e.t, err)
	for _, target := range []struct {
		port string
		seed []byte
	}{
		{"67", discover.ToBytes()}, {"4011", discover.ToBytes()}, {"53", question}, {"69", []byte("\x00\x01snponly.efi\x00octet\x00blksize\x001468\x00tsize\x000\x00")},
	} {
		conn := farDial(e.t, "udp", net.JoinHostPort(address, target.port))
		count := packets
		if target.port == "69" {
			count = packets / 100 // each may be a transfer, of which few are served at a time
		}
		for i := range count {
			_, _ = conn.Write(mutated(r, target.seed)) // a port unreachable of an ended transfer comes back here
			if i%64 == 0 {
				time.Sleep(time.Millisecond) // else the socket's buffer drops them unread
			}
		}
		_ = conn.Close() // nothing is read
		e.alive()
	}
	http := []byte("GET /boot/ipxe?mac=52:54:00:99:01:01&uuid= HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n")
	enrol := []byte("POST /v1/enrol HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{\"boot\":\"00112233445566778899aabbccddeeff\",\"incarnation\":\"a\"}")
	api := []byte("POST /v1/clusters HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{\"file_name\":\"a.hcl\",\"file\":\"Y2x1c3Rlcg==\"}")
	framed := append([]byte{byte(len(question) >> 8), byte(len(question))}, question...)
	for range requests {
		e.speak("tcp", address+":53", mutated(r, framed), false)
		e.speak("tcp", address+":8080", mutated(r, http), false)
		e.speak("tcp", address+":8443", mutated(r, http), false)
		e.speak("tcp", address+":8443", mutated(r, enrol), true)
		e.speak("unix", e.socket, mutated(r, api), false)
	}
	e.alive()
}

// speak opens a connection, says something, and hangs up after a short look at the answer.
func (e *engine) speak(network, addr string, text []byte, secure bool) {
	conn, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		e.t.Fatalf("%s %s: %v\n%s", network, addr, err, e.log)
	}
	defer conn.Close()
	if secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the server is not what is doubted
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Millisecond)) // it may hang up first, or wait for more
	_, _ = conn.Write(text)
	var answer [512]byte
	_, _ = conn.Read(answer[:])
}

// alive fails if the engine has ended.
func (e *engine) alive() {
	e.t.Helper()
	select {
	case <-e.ended:
		e.t.Fatalf("the engine ended with %d\n%s", e.cmd.ProcessState.ExitCode(), e.log)
	default:
	}
	if strings.Contains(e.log.String(), "panic") {
		e.t.Fatalf("the engine panicked\n%s", e.log)
	}
}

// mutated gives random octets, or a valid message with some of its octets changed, cut off, doubled or put in.
func mutated(r *rand.Rand, valid []byte) []byte {
	out := bytes.Clone(valid)
	if r.IntN(8) == 0 {
		noise := make([]byte, r.IntN(600))
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		return noise
	}
	for range 1 + r.IntN(6) {
		at := r.IntN(len(out) + 1)
		switch r.IntN(5) {
		case 0:
			out = out[:at]
		case 1:
			out = append(out[:at:at], append(bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(40)), out[at:]...)...)
		case 2:
			out = append(out, out[min(at, len(out)):]...)
		default:
			if at < len(out) {
				out[at] = []byte{0, 1, 0x7f, 0x80, 0xff, out[at] ^ 1<<r.IntN(8), byte(r.Uint32())}[r.IntN(7)]
			}
		}
	}
	return out[:min(len(out), 1400)]
}

// memory is the engine's resident memory in KiB.
func (e *engine) memory() int {
	e.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
	must(e.t, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	must(e.t, err)
	return n
}

// probeFar looks for DHCP servers from the machines' end.
func probeFar(t *testing.T) []dhcp.Rival {
	t.Helper()
	type probed struct {
		list []dhcp.Rival
		err  error
	}
	done := make(chan probed)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := unix.Open("/run/netns/"+far, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNET)
			_ = unix.Close(ns) // it was only entered
		}
		var list []dhcp.Rival
		if err == nil {
			list, err = dhcp.Probe(context.Background(), "far0", 0)
		}
		done <- probed{list, err}
	}()
	p := <-done
	must(t, p.err)
	return p.list
}
