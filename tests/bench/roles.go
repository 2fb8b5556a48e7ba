package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"
)

// roleVariable makes this program one of its roles; their arguments are JSON in argumentsVariable.
const (
	roleVariable      = "JOIST_BENCH_ROLE"
	argumentsVariable = "JOIST_BENCH_ARGUMENTS"
)

// play is the program as a role. Roles print one JSON object when there is something to know, and end when their standard
// input does, unless they end before.
func play(role string) error {
	roles := map[string]func(context.Context, arguments) error{
		"converge": converge, "plan": planOnce, "replan": replan, "resume": resume, "crowd": convergeMany, "simulate": simulateOnce,
		"dhcp": serveDHCP, "dns": serveDNS, "tftp": serveTFTP, "http": serveHTTP,
	}
	do, ok := roles[role]
	if !ok {
		return errors.New("no such role")
	}
	var a arguments
	if err := json.Unmarshal([]byte(os.Getenv(argumentsVariable)), &a); err != nil {
		return err
	}
	stop, err := profile(a.Profile)
	if err != nil {
		return err
	}
	a.measured = sync.OnceValue(stop)
	return errors.Join(do(context.Background(), a), a.measured())
}

// arguments of all roles.
type arguments struct {
	Dir      string // data folder
	Nodes    int    // of each cluster
	Clusters int    // for a crowd
	Gather   bool
	First    bool   // the cluster has no journal yet: its goal is planned as the first
	Scripts  bool   // nodes run their steps' scripts in sandboxes, in place of answering at once
	Profile  string // prefix of profiles to write; empty for none
	Address  string // to listen on, or the interface
	Repeat   int

	measured func() error // ends the profile, for a role that does more than what it is profiled for
}

// profile writes a CPU profile, and at the end what was allocated.
func profile(prefix string) (stop func() error, err error) {
	if prefix == "" {
		return func() error { return nil }, nil
	}
	cpu, err := os.Create(prefix + ".cpu.pprof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(prefix + ".allocs.pprof")
		if err != nil {
			return err
		}
		runtime.GC()
		return errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close(), cpu.Close())
	}, nil
}

// say prints what a role found out.
func say(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// untilTold waits for the end of standard input.
func untilTold() { _, _ = io.Copy(io.Discard, os.Stdin) }

// command is this program in a role, in a network namespace if one is named.
func command(ctx context.Context, netns, role string, a arguments) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	cmd := inside(ctx, netns, self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, argumentsVariable+"="+string(data))
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// inside is a command in a network namespace; `ip netns exec` replaces itself by it, so that it has the same pid.
func inside(ctx context.Context, netns, name string, args ...string) *exec.Cmd {
	if netns == "" {
		return exec.CommandContext(ctx, name, args...)
	}
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", netns, name}, args...)...)
}

// perform plays a role to its end, and reads what it says into v. It gives the time from before the process to after its end,
// and the time it had on processors.
func perform(ctx context.Context, role string, a arguments, v any) (wall, cpu time.Duration, err error) {
	cmd, err := command(ctx, "", role, a)
	if err != nil {
		return 0, 0, err
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	begun := time.Now()
	err = cmd.Run()
	wall = time.Since(begun)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", role, err)
	}
	return wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), json.Unmarshal(out.Bytes(), v)
}

// server is a role, or another program, that runs until it is stopped.
type server struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	stdin io.Closer
}

// start starts a server.
func start(cmd *exec.Cmd) (*server, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, lines: bufio.NewScanner(out), stdin: in}
	s.lines.Buffer(nil, 1<<20)
	return s, nil
}

// hear waits for the next thing that a role says.
func (s *server) hear(v any) error {
	if !s.lines.Scan() {
		return errors.Join(fmt.Errorf("%s ended without a word", filepath.Base(s.cmd.Path)), s.lines.Err())
	}
	return json.Unmarshal(s.lines.Bytes(), v)
}

// kill is kill -9; what the process says about it does not matter.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// peakMemory of this process in MiB.
func peakMemory() float64 { return memoryOf("self", "VmHWM") }

// memoryOf reads a line of /proc/PID/status, which is in kB, as MiB.
func memoryOf(pid, what string) float64 {
	data, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(l, what+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64) // the kernel's own form
			return n / 1024
		}
	}
	return 0
}
