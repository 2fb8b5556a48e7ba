package serve_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"joist/engine/agent"
	"joist/pki/enrol"
	"joist/services/boot/bootset"
)

// farDial dials from the machines' end of the cable.
func farDial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	type dialled struct {
		conn net.Conn
		err  error
	}
	done := make(chan dialled)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := unix.Open("/run/netns/"+far, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(ns, unix.CLONE_NEWNET)
			_ = unix.Close(ns) // it was only entered
		}
		var conn net.Conn
		if err == nil {
			conn, err = net.DialTimeout(network, addr, 5*time.Second)
		}
		done <- dialled{conn, err}
	}()
	d := <-done
	must(t, d.err)
	return d.conn
}

// api sends a request over the engine's socket.
func (e *engine) api(method, path string, body []byte) (int, string) {
	e.t.Helper()
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.socket)
	}}}
	req, err := http.NewRequestWithContext(e.t.Context(), method, "http://joist"+path, bytes.NewReader(body))
	must(e.t, err)
	resp, err := web.Do(req)
	must(e.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(e.t, err)
	return resp.StatusCode, string(text)
}

// parts are the files of a boot set that no machine could run, but that the engine serves like any other.
func parts() map[string][]byte {
	return map[string][]byte{"vmlinuz": []byte("a kernel"), "initrd.img": []byte("an initramfs"), "node.squashfs": []byte("an image")}
}

// manifest describes them.
func manifest(t *testing.T) []byte {
	t.Helper()
	file := func(name string) bootset.File {
		data := parts()[name]
		sum := sha256.Sum256(data)
		return bootset.File{File: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	}
	m := bootset.Manifest{Format: 1, Profile: "virt", KernelVersion: "6.1.0-test", Kernel: file("vmlinuz"), Initrd: file("initrd.img"), Image: file("node.squashfs"), Inputs: "test"}
	h := sha256.New()
	for _, v := range []any{"boot set", m.Format, m.Profile, m.KernelVersion, m.Kernel.SHA256, m.Initrd.SHA256, m.Image.SHA256} {
		must(t, json.NewEncoder(h).Encode(v))
	}
	m.Digest = hex.EncodeToString(h.Sum(nil))
	data, err := json.Marshal(m)
	must(t, err)
	return data
}

// push gives the engine a boot set.
func (e *engine) push() {
	e.t.Helper()
	for name, data := range parts() {
		sum := sha256.Sum256(data)
		if code, said := e.api("PUT", "/v1/artifacts/sha256-"+hex.EncodeToString(sum[:]), data); code >= 300 {
			e.t.Fatalf("%s: %d %s", name, code, said)
		}
	}
	if code, said := e.api("POST", "/v1/bootsets", manifest(e.t)); code >= 300 {
		e.t.Fatalf("%d %s", code, said)
	}
}

// script asks for a machine's boot script, as its iPXE would, from an address of its own.
func (e *engine) script(mac, uuid, from string) (string, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	web := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext}}
	resp, err := web.Get("http://" + address + ":8080/boot/ipxe?mac=" + url.QueryEscape(mac) + "&uuid=" + url.QueryEscape(uuid))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), err
}

var (
	bootID = regexp.MustCompile(`joist\.boot=([0-9a-f]{32})`)
	pin    = regexp.MustCompile(`joist\.ca=([0-9a-f]{64})`)
)

// boots gives a machine its script and what stands in it.
func (e *engine) boots(mac, uuid string) (id enrol.BootID, root agent.Pin) {
	e.t.Helper()
	text, err := e.script(mac, uuid, "")
	must(e.t, err)
	found, ca := bootID.FindStringSubmatch(text), pin.FindStringSubmatch(text)
	if found == nil || ca == nil {
		e.t.Fatalf("the script starts no scout:\n%s", text)
	}
	id, err = enrol.ParseBootID(found[1])
	must(e.t, err)
	root, err = agent.ParsePin(ca[1])
	must(e.t, err)
	return id, root
}

// enrolment is a machine that asks to be enrolled, as its scout would.
type enrolment struct {
	err     chan error
	console *buffer
}

// asks begins an enrolment in the background.
func (e *engine) asks(ctx context.Context, mac string, id enrol.BootID, root agent.Pin) *enrolment {
	return e.asksWith(ctx, mac, id, root, "{}")
}

// asksWith is asks of a machine with facts.
func (e *engine) asksWith(ctx context.Context, mac string, id enrol.BootID, root agent.Pin, facts string) *enrolment {
	n := &enrolment{err: make(chan error, 1), console: &buffer{}}
	dir := e.t.TempDir()
	go func() {
		_, err := agent.Enrol(ctx, agent.EnrolConfig{
			Dir: dir, URLs: []string{"https://" + address + ":8443"}, Pin: root, Boot: id, Incarnation: "first", MAC: mac, Agent: "test",
			Facts:   func(context.Context) (json.RawMessage, error) { return json.RawMessage(facts), nil },
			Console: func(line string) { fmt.Fprintln(n.console, line) },
			Wait: func(ctx context.Context, _ time.Duration) error {
				select {
				case <-time.After(100 * time.Millisecond):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		})
		n.err <- err
	}()
	return n
}
