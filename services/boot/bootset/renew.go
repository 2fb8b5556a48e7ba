//go:build ignore

// This program renews packages.lock from what the machine's apt offers. Run by: make lock
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"joist/services/boot/bootset"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	lock, err := bootset.Renew(ctx, bootset.Config{Cache: "build/bootset-cache"}, func(stage, detail string) { fmt.Println(stage, detail) })
	if err == nil {
		err = os.WriteFile("services/boot/bootset/packages.lock", []byte(lock.String()), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
