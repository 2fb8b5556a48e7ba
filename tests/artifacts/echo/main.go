// Echo is the one program of a container image with which clusters are tried: a server that says who it is, and the
// clients that a check runs beside it.
//
//	echo serve [ADDR]       answers over HTTP, at :8080 where no address is given, until it is told to end:
//	                        / with its host name, /client with the address the request came from, /healthz with ok
//	echo get URL [WAIT]     prints what URL answers; tries again for WAIT (0s), since routes and names take a moment
//	echo lookup NAME [WAIT] prints the addresses of a name, one a line
//	echo cat FILE           prints a file, such as a mounted secret
//	echo say WORD…          prints the words
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxAnswer bounds what get prints, in bytes.
const maxAnswer = 1 << 20

// tryTime bounds one request and one look-up.
const tryTime = 3 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: echo serve [ADDR] | get URL [WAIT] | lookup NAME [WAIT] | cat FILE | say WORD…")

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		args = []string{"serve"}
	}
	verb, args := args[0], args[1:]
	switch {
	case verb == "serve" && len(args) <= 1:
		addr := ":8080"
		if len(args) == 1 {
			addr = args[0]
		}
		return serve(ctx, addr, out)
	case verb == "get" && (len(args) == 1 || len(args) == 2):
		return again(ctx, args[1:], out, func(ctx context.Context) (string, error) { return get(ctx, args[0]) })
	case verb == "lookup" && (len(args) == 1 || len(args) == 2):
		return again(ctx, args[1:], out, func(ctx context.Context) (string, error) { return lookup(ctx, args[0]) })
	case verb == "cat" && len(args) == 1:
		body, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		_, err = out.Write(body)
		return err
	case verb == "say":
		_, err := fmt.Fprintln(out, strings.Join(args, " "))
		return err
	}
	return errUsage
}

// serve answers until ctx ends. It writes a line for each request, so that there are logs to look at.
func serve(ctx context.Context, addr string, out io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("cannot learn the host's name: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	server := &http.Server{Handler: handler(host, out), ReadHeaderTimeout: tryTime}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	fmt.Fprintf(out, "%s listens on %s\n", host, listener.Addr())
	select {
	case err := <-done:
		return fmt.Errorf("cannot serve: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryTime)
	defer cancel()
	err = server.Shutdown(last)
	<-done
	return err
}

func handler(host string, out io.Writer) http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, what func(*http.Request) string) {
		mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(out, "%s %q for %s\n", r.Method, r.URL.Path, r.RemoteAddr)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			fmt.Fprintln(w, what(r))
		})
	}
	answer("/{$}", func(*http.Request) string { return host })
	answer("/client", func(r *http.Request) string { return r.RemoteAddr })
	answer("/healthz", func(*http.Request) string { return "ok" })
	return mux
}

// again tries until it succeeds, at least once and for as long as wait says, and prints the result.
func again(ctx context.Context, wait []string, out io.Writer, try func(context.Context) (string, error)) error {
	var most time.Duration
	if len(wait) == 1 {
		var err error
		if most, err = time.ParseDuration(wait[0]); err != nil {
			return fmt.Errorf("cannot read the time to wait: %w", err)
		}
	}
	start := time.Now()
	for {
		attempt, cancel := context.WithTimeout(ctx, tryTime)
		said, err := try(attempt)
		cancel()
		if err == nil {
			_, err = fmt.Fprintln(out, strings.TrimRight(said, "\n"))
			return err
		}
		if ctx.Err() != nil || time.Since(start) >= most {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// Each try is a connection of its own, so that a Service may send each elsewhere.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("cannot read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s: %s", url, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}

func lookup(ctx context.Context, name string) (string, error) {
	found, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return "", err
	}
	slices.Sort(found)
	return strings.Join(found, "\n"), nil
}
