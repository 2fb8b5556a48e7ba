// Package plan decides, and does all that it must not.
package plan

import (
	secret "crypto/rand" // want pure
	"log/slog"           // want pure
	random "math/rand"
	"math/rand/v2"
	"net"
	"os" // want pure
	"time"

	_ "github.com/zclconf/go-cty/cty" // want homes

	_ "joist/engine/drive"   // want pure
	_ "joist/services/names" // want tiers pure
)

// Decide breaks the rule in every way, and uses what is allowed as well.
func Decide(mac net.HardwareAddr) time.Duration {
	_ = time.Now()             // want pure
	time.Sleep(1)              // want pure
	<-time.After(1)            // want pure
	_, _ = net.Dial("udp", "") // want pure
	_ = rand.N(3)              // want pure
	_ = random.New(random.NewSource(1)).Intn(3)
	go func() {}() // want pure
	slog.Info(os.Args[0], "of", secret.Reader)
	var time struct{ Now func() int }
	_ = time.Now()
	return 0
}
