package scout

import (
	"fmt"

	"joist/engine/agent/fetch"
)

// Image is a node image by digest.
type Image struct {
	URLs   []string `json:"urls"`   // where it can be had, in the order to be tried
	SHA256 string   `json:"sha256"` // 64 hexadecimal digits
	Size   int64    `json:"size"`   // bytes
}

func (i Image) file() fetch.File {
	return fetch.File{What: "the node image", URLs: i.URLs, SHA256: i.SHA256, Size: i.Size}
}

// memoryReserve is what a machine needs beside its image to reach the point where its cluster's steps decide, in bytes.
const memoryReserve = 256 << 20

// CheckMemory refuses an image that does not fit a machine with the given memory, both in bytes.
func CheckMemory(image, available int64) error {
	if image+memoryReserve <= available {
		return nil
	}
	return fmt.Errorf("the node image is larger than this machine's memory allows: image %d MiB and %d MiB to start with, available %d MiB",
		image>>20, int64(memoryReserve)>>20, available>>20)
}
