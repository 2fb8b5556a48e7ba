// Package drive holds state that it must not.
package drive

import (
	"log"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	_ "joist/pki/enrol" // want tiers
	_ "joist/tests/lab" // want tiers
)

var (
	counter int
	table   = map[string]int{"a": 1}
	order   = []string{"b", "a"}
	seam    = os.Getpid
	taken   struct{ n int }
	read    = map[string]int{"a": 1}
	shadow  int
	mu      sync.Mutex          // want state
	current atomic.Pointer[int] // want state
	queue   = make(chan int)    // want state
	shared  = &sync.Map{}       // want state
	_       = read
)

// Exported is changed by another package.
var Exported int

func init() {} // want init

func change() {
	counter++               // want state
	table["b"] = 2          // want state
	delete(table, "a")      // want state
	slices.Sort(order)      // want state
	seam = nil              // want state
	p := &taken.n           // want state
	for counter = range 3 { // want state
	}
	shadow := 1
	shadow = read["a"] + *p + shadow
	if shadow > 1 {
		os.Exit(1) // want init
	}
	log.Fatalln(len(queue), current.Load(), shared, mu.TryLock()) // want init
}
