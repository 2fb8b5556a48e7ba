package cmdline

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	pin, boot := strings.Repeat("ab", 32), strings.Repeat("0f", 16)
	tests := []struct {
		name, line string
		want       Params
		err        string // part of the message; empty for none
	}{
		{"nothing", "console=ttyS0 quiet", Params{}, ""},
		{"all", "joist.url=https://10.0.0.1:8443/ joist.url=http://h joist.ca=sha256:" + strings.ToUpper(pin) + " joist.boot=" + boot +
			" joist.time=1795201200 joist.mac=52:54:00:00:00:01 joist.log=ttyS1",
			Params{URLs: []string{"https://10.0.0.1:8443", "http://h"}, Pin: pin, Boot: boot, Time: time.Unix(1795201200, 0).UTC(),
				MAC: []byte{0x52, 0x54, 0, 0, 0, 1}, Log: "ttyS1"}, ""},
		{"several in one", "joist.url=https://a,https://b", Params{URLs: []string{"https://a", "https://b"}}, ""},
		{"quoted", `x="a b" "joist.log=hvc0"`, Params{Log: "hvc0"}, ""},
		{"boot id as UUID", "joist.boot=0f0f0f0f-0f0f-0f0f-0f0f-0f0f0f0f0f0f", Params{Boot: boot}, ""},
		{"time in words", "joist.time=2026-11-20T19:00:00Z", Params{Time: time.Date(2026, 11, 20, 19, 0, 0, 0, time.UTC)}, ""},
		{"bootif with type", "BOOTIF=01-52-54-00-00-00-02", Params{MAC: []byte{0x52, 0x54, 0, 0, 0, 2}}, ""},
		{"bootif without type", "BOOTIF=52:54:00:00:00:02", Params{MAC: []byte{0x52, 0x54, 0, 0, 0, 2}}, ""},
		{"mac before bootif", "joist.mac=52:54:00:00:00:01 BOOTIF=01-52-54-00-00-00-02", Params{MAC: []byte{0x52, 0x54, 0, 0, 0, 1}}, ""},
		{"others' words", "joistics.url=x xjoist.url=y", Params{}, ""},

		{"unknown word", "joist.uri=https://a", Params{}, "joist.uri: unknown word"},
		{"bad pin keeps the rest", "joist.ca=abc joist.log=ttyS1", Params{Log: "ttyS1"}, `"abc" is not 64 hexadecimal digits`},
		{"bad boot id", "joist.boot=zz", Params{}, "32 hexadecimal digits"},
		{"bad address", "joist.url=ftp://a", Params{}, "not an http or https address"},
		{"password in the address", "joist.url=https://u:p@a", Params{}, "without user"},
		{"bad time", "joist.time=noon", Params{}, "neither seconds"},
		{"negative time", "joist.time=-5", Params{}, "neither seconds"},
		{"bad mac", "joist.mac=52:54", Params{}, "not an Ethernet address"},
		{"InfiniBand", "BOOTIF=20-00-00-00-00-00-00-00-00", Params{}, "not an Ethernet address"},
		{"path as terminal", "joist.log=../etc/passwd", Params{}, "not the name of a serial or virtual terminal"},
		{"two problems", "joist.ca=1 joist.boot=2", Params{}, "joist.boot"},
		{"endless", strings.Repeat("x", MaxLength+1), Params{}, "more than 4096"},
		{"many addresses", strings.Repeat("joist.url=http://a ", 17), Params{}, "more than 16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.line)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if tt.name == "many addresses" {
				return
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// Whatever a firmware or loader makes of the line, what is accepted has the documented shape.
func FuzzParse(f *testing.F) {
	f.Add("joist.url=https://10.0.0.1:8443 joist.ca=" + strings.Repeat("ab", 32) + " joist.boot=" + strings.Repeat("0f", 16))
	f.Add(`joist.log=ttyS1 BOOTIF=01-52-54-00-00-00-02 "joist.time=1`)
	f.Add("joist.url=,,, joist.mac=::::: joist.time=99999999999999999999")
	f.Fuzz(func(t *testing.T, line string) {
		p, _ := Parse(line)
		if len(p.URLs) > maxURLs || p.Pin != "" && len(p.Pin) != 64 || p.Boot != "" && len(p.Boot) != 32 || p.MAC != nil && len(p.MAC) != 6 {
			t.Fatalf("%q gives %+v", line, p)
		}
		if strings.ContainsAny(p.Log, "/.\x00 ") {
			t.Fatalf("%q names the terminal %q", line, p.Log)
		}
	})
}
