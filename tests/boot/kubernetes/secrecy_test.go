package kubernetes_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"joist/pki/authority"
	"joist/tests/boot/lab"
)

// secrets are real values by what they are: each in every form in which it could have been written down.
type secrets map[string][][]byte

// text adds a value that is text: as it is, and in base64.
func (s secrets) text(what, v string) {
	v = strings.TrimSpace(v)
	s[what] = append(s[what], []byte(v), []byte(base64.StdEncoding.EncodeToString([]byte(v))))
}

// key adds a private key: the number that is secret, raw, in hexadecimal, in base64, and as the lines of its PEM have it. The
// rest of a key's file is public, or the same in every key.
func (s secrets) key(what string, block *pem.Block) {
	var key any
	var err error
	if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		s[what] = nil // which is complained of: nothing to look for
		return
	}
	number, err := ec.Bytes()
	at := bytes.Index(block.Bytes, number)
	if err != nil || at < 0 {
		s[what] = nil
		return
	}
	s[what] = append(s[what], number, []byte(hex.EncodeToString(number)), []byte(base64.StdEncoding.EncodeToString(number)))
	body := base64.StdEncoding.EncodeToString(block.Bytes)
	for from, end := (at+2)/3*4, (at+len(number))/3*4; from < end; {
		to := min(end, from/64*64+64)
		if to-from >= 16 {
			s[what] = append(s[what], []byte(body[from:to]))
		}
		from = to
	}
}

// keys adds every private key of a text, and says how many there were.
func (s secrets) keys(what string, text []byte) int {
	n := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			n++
			s.key(fmt.Sprintf("%s %d", what, n), block)
		}
	}
	return n
}

// found lists which secrets a text has.
func (s secrets) found(text []byte) []string {
	var list []string
	for what, forms := range s {
		for _, form := range forms {
			if bytes.Contains(text, form) {
				list = append(list, what)
				break
			}
		}
	}
	return list
}

// secrecy reads the real secrets from the machines and from the engine's vaults, and looks for them wherever an operator,
// or somebody with a copy, could see them.
func (l *own) secrecy() {
	l.Helper()
	s := secrets{}
	l.fromNodes(s)
	l.fromEngine(s)
	forms := 0
	for what, list := range s {
		forms += len(list)
		if len(list) == 0 || len(list[0]) < 16 {
			l.Errorf("%s is too short to be looked for", what)
		}
	}
	// The search would find them: it does where they are.
	vault := filepath.Join(l.Data, "secrets", "demo.key")
	raw, err := os.ReadFile(vault)
	if err != nil || len(s.found(raw)) == 0 {
		l.Errorf("the key in %s is not found in it (%v): the search is blind", vault, err)
	}

	places, size := 0, 0
	look := func(where string, text []byte) {
		places++
		size += len(text)
		for _, what := range s.found(text) {
			l.Errorf("%s is in %s", what, where)
		}
	}
	// The machines' own folders hold what a provider gives them; consoles and agents' logs are there.
	for _, pattern := range []string{"joist.db*", "engine.log", "ca/ledger*", "place.json", "bootsets/*", "mirror/*", "machines/machines/*/*.log", "machines/machines/*/*.json"} {
		paths, _ := filepath.Glob(filepath.Join(l.Data, pattern))
		if len(paths) == 0 && pattern != "place.json" {
			l.Errorf("there is no %s to look at", pattern)
		}
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			if err != nil {
				l.Error(err)
			}
			look(path, raw)
		}
	}
	// What the nodes log themselves: of every unit, of the apiservers' audit, of every container.
	for _, m := range l.Status("demo").Members {
		log := l.on(m.Name, `journalctl -o cat --no-pager; find /var/log -type f ! -path "*/journal/*" -exec cat {} +`)
		if !strings.Contains(log, "kube") {
			l.Errorf("the logs of %s are not there to be looked at: %d bytes", m.Name, len(log))
		}
		look("the logs of "+m.Name, []byte(log))
	}
	for _, args := range [][]string{
		{"events", "-o", "json"}, {"events"}, {"plan", "--cluster", "demo", "--all"}, {"plan", "--cluster", "demo", "--all", "-o", "json"},
		{"plan", "--cluster", "demo", "--destroy", "-o", "json"}, {"outputs", "demo", "-o", "json"}, {"status", "demo", "-o", "json"}, {"replay", "demo", "-o", "json"},
	} {
		out, err := l.Ask(time.Minute, args...)
		if err != nil {
			l.Error(err)
		}
		look("joist "+strings.Join(args, " "), out)
	}
	for _, path := range []string{"/v1/status", "/v1/clusters", "/v1/clusters/demo", "/v1/clusters/demo/plan", "/v1/clusters/demo/plan?destroy=1", "/v1/clusters/demo/outputs",
		"/v1/clusters/demo/why", "/v1/machines", "/v1/machines/n1", "/v1/machines/n2", "/v1/machines/n3", "/v1/mirror", "/v1/mirror/sets", "/v1/bootsets", "/v1/events"} {
		look("GET "+path, l.api(path))
	}
	all := l.instances()
	for _, instance := range all {
		look("GET instance "+instance, l.api("/v1/clusters/demo/instances/"+url.PathEscape(instance))) // with its outputs and its log
	}
	l.Logf("looked for %d secrets in %d forms, in %d places with %d bytes", len(s), forms, places, size)
}

// fromNodes adds what is secret on the machines.
func (l *own) fromNodes(s secrets) {
	l.Helper()
	// Only pods that run have tokens, and a cluster has converged before its own do.
	for end := time.Now().Add(lab.Patience); !strings.Contains(l.k("get", "pods", "-A", "--no-headers"), "Running") && time.Now().Before(end); {
		time.Sleep(2 * time.Second)
	}
	for _, m := range l.Status("demo").Members {
		const find = `grep -rlE --exclude-dir=artifacts --exclude-dir=bundles --exclude-dir=upper --exclude-dir=pods --include="*.pem" --include="*.key"` +
			` -e "-----BEGIN [A-Z ]*PRIVATE KEY-----" /run/joist /run/credentials /etc/kubernetes /etc/joist-etcd /var/lib/joist /var/lib/kubelet 2>/dev/null`
		n := 0
		for _, text := range strings.Split(l.on(m.Name, "for f in $("+find+"); do echo FILE $f; cat $f; done"), "FILE ") {
			file, key, _ := strings.Cut(text, "\n")
			n += s.keys(m.Name+" "+file, []byte(key))
		}
		if n < 4 {
			l.Errorf("only %d private keys on %s", n, m.Name)
		}
		for i, token := range strings.Fields(l.on(m.Name, `find /var/lib/kubelet/pods -path "*/token" -type l -exec cat {} \; -exec echo \; 2>/dev/null`)) {
			_, signature, _ := cutLast(token, ".")
			s.text(fmt.Sprintf("%s token %d", m.Name, i), signature)
		}
	}
	encryption := l.on("n1", `grep -o '[A-Za-z0-9+/]\{43\}=' /etc/kubernetes/apiserver/encryption.yaml`)
	if raw, err := base64.StdEncoding.DecodeString(encryption); err != nil || len(raw) != 32 {
		l.Errorf("the key for secrets in etcd: %v, %d bytes", err, len(raw))
	} else {
		s["encryption at rest"] = append(s["encryption at rest"], raw, []byte(encryption), []byte(hex.EncodeToString(raw)))
	}
	tokens := 0
	for what := range s {
		if strings.Contains(what, " token ") {
			tokens++
		}
	}
	if tokens == 0 {
		l.Error("no pod has a token")
	}
}

// fromEngine adds what is secret in the engine's vaults.
func (l *own) fromEngine(s secrets) {
	l.Helper()
	dir := filepath.Join(l.Data, "ca")
	vault, err := authority.OpenFolder(dir, "")
	if err != nil {
		l.Fatal(err)
	}
	sealed, _ := filepath.Glob(filepath.Join(dir, "*.age"))
	for _, path := range sealed {
		name := strings.TrimSuffix(filepath.Base(path), ".age")
		m, err := vault.Load(l.Context(), name)
		if err != nil || s.keys("authority "+name, m.Key) != 1 {
			l.Errorf("authority %s: %v", name, err)
		}
	}
	if len(sealed) < 6 {
		l.Errorf("authorities: %q", sealed)
	}
	identity, err := os.ReadFile(filepath.Join(dir, "identity"))
	if err != nil {
		l.Fatal(err)
	}
	s.text("identity of the vault", string(identity))
	paths, _ := filepath.Glob(filepath.Join(l.Data, "secrets", "*.key"))
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			l.Fatal(err)
		}
		s[path] = append(s[path], raw, []byte(hex.EncodeToString(raw)), []byte(base64.StdEncoding.EncodeToString(raw)))
	}
	vouchers, _ := filepath.Glob(filepath.Join(l.Data, "machines/machines/*/voucher"))
	if len(vouchers) != 3 {
		l.Errorf("vouchers: %q", vouchers)
	}
	for _, path := range vouchers {
		raw, err := os.ReadFile(path)
		if err != nil {
			l.Fatal(err)
		}
		_, value, _ := cutLast(strings.TrimSpace(string(raw)), "=")
		s.text(path, value)
	}
	// The operator's own key, made by joist kubeconfig.
	var c struct {
		Users []struct {
			User struct {
				Key string `json:"client-key-data"`
			}
		}
	}
	if err := json.Unmarshal([]byte(l.k("config", "view", "--raw", "-o", "json")), &c); err != nil || len(c.Users) != 1 {
		l.Fatalf("the kubeconfig: %v", err)
	}
	raw, err := base64.StdEncoding.DecodeString(c.Users[0].User.Key)
	if err != nil || s.keys("operator", raw) != 1 {
		l.Errorf("the operator's key: %v", err)
	}
}

// cutLast cuts around the last sep; without one everything is after it.
func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+len(sep):], true
}
