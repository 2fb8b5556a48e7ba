package plan

import (
	"os"
	"testing"
	"time"
)

func TestFree(*testing.T) { _, _ = os.Args, time.Now() }
