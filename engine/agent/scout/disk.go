package scout

import (
	"crypto/rand"

	"joist/engine/agent/disk"
)

// DataLabel is the ext4 label of a data disk.
const DataLabel = disk.Label

// DrawIncarnation makes a new incarnation: a random UUID.
func DrawIncarnation() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return disk.FormatUUID(b[:])
}

// Incarnation returns the incarnation that a data disk carries, or a new one where there is no such disk. Disks that
// carry different ones are an error: neither may be preferred without a person's word.
func Incarnation(place disk.Place) (id, device string, err error) {
	disks, err := place.Look()
	if err != nil {
		return "", "", err
	}
	id, of, err := disk.Incarnation(disks)
	if err == nil && id == "" {
		id = DrawIncarnation()
	}
	return id, of.Name, err
}
