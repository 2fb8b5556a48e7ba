package scout

import "testing"

func TestCheckMemory(t *testing.T) {
	if err := CheckMemory(150<<20, 410<<20); err != nil {
		t.Error(err)
	}
	err := CheckMemory(150<<20, 400<<20)
	if err == nil || err.Error() != "the node image is larger than this machine's memory allows: image 150 MiB and 256 MiB to start with, available 400 MiB" {
		t.Errorf("error %v", err)
	}
}
