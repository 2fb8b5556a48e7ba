package artifacts

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// compile returns the folder of the compiled programs of others, compiling them if that was not done yet.
//
// One run of go build makes all of them: what they share is compiled once, and Go keeps both processors busy. It
// leaves alone what an interrupted run already linked.
func (b *builder) compile(ctx context.Context, in inputs) (string, error) {
	done := filepath.Join(b.Cache, "programs-"+in.programs[:16])
	if _, err := os.Stat(done); err == nil {
		return done, nil
	}
	partial := done + ".partial"
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the folder for programs: %w", err)
	}
	cluster := filepath.Join(b.Source, "cluster")
	args := []string{"build", "-v", "-trimpath", "-buildvcs=false", "-tags", tags, "-ldflags", in.flags, "-o", partial + "/"}
	for _, p := range programs() {
		args = append(args, p.pkg)
	}
	b.Progress("compile", fmt.Sprintf("%d programs with %s", len(programs()), in.goVersion))
	if err := b.watchGo(ctx, cluster, partial, args); err != nil {
		return "", fmt.Errorf("cannot compile the programs: %w", err)
	}
	// Go gives some programs another name than people do.
	for _, p := range programs() {
		if p.output() == p.name {
			continue
		}
		if err := link(filepath.Join(partial, p.output()), filepath.Join(partial, p.name+".named")); err != nil {
			return "", fmt.Errorf("cannot name %s: %w", p.name, err)
		}
		if err := os.Rename(filepath.Join(partial, p.name+".named"), filepath.Join(partial, p.name)); err != nil {
			return "", fmt.Errorf("cannot name %s: %w", p.name, err)
		}
	}
	if b.Arch == runtime.GOARCH {
		b.Progress("check", "the versions that programs print")
		if err := checkVersions(ctx, partial, in.versions); err != nil {
			return "", err
		}
	}
	if err := os.Rename(partial, done); err != nil {
		return "", fmt.Errorf("cannot keep the programs: %w", err)
	}
	return done, nil
}

// checkVersions runs each program and refuses one that says another version than its module's.
func checkVersions(ctx context.Context, dir string, versions map[string]string) error {
	for _, p := range programs() {
		want := strings.ReplaceAll(p.as, "%s", versions[p.module])
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		cmd := exec.CommandContext(limited, filepath.Join(dir, p.name), p.says...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir}
		said, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			return fmt.Errorf("cannot ask %s for its version: %w: %s", p.name, err, tail(said, 500))
		}
		whole := regexp.MustCompile(regexp.QuoteMeta(want) + `($|[^0-9.])`)
		if !whole.Match(said) {
			return fmt.Errorf("%s is not stamped with its version: want %q in what it says: %s", p.name, want, tail(said, 500))
		}
	}
	return nil
}

// goCommand prepares the go command for static programs, whatever is set for other builds.
func (b *builder) goCommand(ctx context.Context, dir string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.Go, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PWD="+dir, "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.Arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=", "GOFIPS140=off", "GODEBUG=")
	// Its compilers end with it; each finishes or drops the package at hand, and what is in Go's cache stays whole.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// goTool runs the go command and returns what it wrote to standard output.
func (b *builder) goTool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := b.goCommand(ctx, dir, args)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("go %s was interrupted: %w", args[0], context.Cause(ctx))
		}
		return nil, fmt.Errorf("go %s: %w: %s", args[0], err, tail(said.Bytes(), 2000))
	}
	return out.Bytes(), nil
}

// progressEvery is how often a long compilation says where it is.
const progressEvery = 10 * time.Second

// watchGo runs go build -v and tells how far it is: packages as they are compiled, then programs as they are linked.
func (b *builder) watchGo(ctx context.Context, dir, out string, args []string) error {
	cmd := b.goCommand(ctx, dir, args)
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		r := bufio.NewReader(read)
		for {
			line, err := r.ReadString('\n')
			if line = strings.TrimSpace(line); line != "" {
				lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	said := b.follow(lines, out)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; what is compiled so far is kept: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("go build: %w: %s", err, tail(said, 4000))
	}
	return nil
}

// follow reads what go build -v says until it ends, and returns what was not the name of a package.
func (b *builder) follow(lines <-chan string, out string) []byte {
	var said []byte
	start, packages, last := time.Now(), 0, ""
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case line, more := <-lines:
			switch {
			case !more:
				return said
			case strings.Contains(line, " "):
				said = append(said, line+"\n"...)
			default:
				packages++
			}
			last = line
		case <-tick.C:
			linked, err := os.ReadDir(out)
			if err != nil {
				last = err.Error()
			}
			b.Progress("compile", fmt.Sprintf("%s: %d packages, %d of %d programs; %s",
				time.Since(start).Round(time.Second), packages, len(linked), len(programs()), last))
		}
	}
}

// tail keeps the last n bytes, from a line's start.
func tail(b []byte, n int) string {
	b = bytes.TrimSpace(b)
	if len(b) > n {
		b = b[len(b)-n:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(b)
}
