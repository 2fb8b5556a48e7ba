// Pause holds a pod's namespaces open: it does nothing, takes in the children of processes that ended before them, and
// ends when it is told to.
package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for {
		reap() // also once at first, for children that ended before there was anyone to tell
		if s := <-signals; s != syscall.SIGCHLD {
			return
		}
	}
}

// reap takes in every child that has ended; one signal may stand for several.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if !errors.Is(err, syscall.EINTR) && (err != nil || pid <= 0) {
			return
		}
	}
}
