package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is how long the path of a Unix socket may be, in bytes (sun_path of unix(7), less the closing zero).
const maxSocketPath = 107

// Listen opens the API's Unix socket with mode 0600. A socket that a dead engine left behind is replaced; one that a
// living process answers on is refused, and so is a path where something else lies. Two engines that start at once are
// kept apart by a lock file beside the socket.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on %s: a socket's path has at most %d bytes, this one has %d; choose a shorter one with --socket", path, maxSocketPath, len(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the socket's folder: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	l, err := listen(path, lock)
	if err != nil {
		_ = lock.Close() // nothing was written
		return nil, err
	}
	return l, nil
}

func listen(path string, lock *os.File) (net.Listener, error) {
	inUse := fmt.Errorf("cannot listen on %s: another joist serves there; stop it first, or choose another socket with --socket", path)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, inUse
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("cannot listen on %s: there is something else than a socket; move it away, or choose another path with --socket", path)
	default:
		if conn, err := net.DialTimeout("unix", path, 2*time.Second); err == nil {
			_ = conn.Close()
			return nil, inUse
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("cannot replace the socket that a dead engine left: %w", err)
		}
	}
	// The socket is made in a folder that only we can enter and moved from there: nobody can connect before its mode is set.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	made := filepath.Join(dir, "s")
	if len(made) > maxSocketPath {
		return nil, fmt.Errorf("cannot listen on %s: its folder's path is too long; choose a shorter one with --socket", path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot listen on %s: %w", path, err), l.Close())
	}
	return &listener{UnixListener: l, path: path, lock: lock}, nil
}

// listener removes its socket when it closes, then lets go of the lock.
type listener struct {
	*net.UnixListener
	path string
	lock *os.File
}

// Close implements net.Listener.
func (l *listener) Close() error {
	err := l.UnixListener.Close()
	if err != nil && errors.Is(err, net.ErrClosed) {
		return err
	}
	if e := os.Remove(l.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, l.lock.Close())
}

// peer is the key of the caller's user name in a connection's context.
type peer struct{}

// Serve answers requests on a listener until ctx ends, then lets those under way finish for at most 3 s; streams end at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 20,
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peer{}, userOf(c))
		},
		ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("the API ended: %w", err)
	case <-ctx.Done():
	}
	stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil {
		err = server.Close()
	}
	<-done // it was told to close
	return err
}

// userOf names the user at the other end of a Unix socket; empty if that cannot be known.
func userOf(c net.Conn) string {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return ""
	}
	name := ""
	if err := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			name = "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
			if u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
				name = u.Username
			}
		}
	}); err != nil {
		return ""
	}
	return name
}

// by says on whose word a request acts: what it says itself, else the user at the other end.
func by(r *http.Request, said string) string {
	if said != "" {
		return said[:min(len(said), 200)]
	}
	if name, ok := r.Context().Value(peer{}).(string); ok && name != "" {
		return name
	}
	return "somebody"
}
