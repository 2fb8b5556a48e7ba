package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// chunkFormat is the first byte of every chunk. A later format gets the next number, and this one stays readable.
const chunkFormat = 1

// chunkTarget is the size in bytes at which a batch is split into a further chunk: large enough that a row's overhead
// vanishes, small enough that a page of chunks is read and sent at once.
const chunkTarget = 64 << 10

// Chunk is a run of records of one batch as a store keeps them: one row instead of a row for each record, which is what
// lets a durable append keep up with ten thousand completions per second.
//
// Data is: format byte; first sequence, record count (unsigned varints); then for each record its time as nanoseconds
// since that of the record before (the first: since 1970; signed varint), version, length of kind (unsigned varints),
// kind, length of data (unsigned varint), data; at last the CRC-32C of all before it, big endian.
type Chunk struct {
	First, Last uint64 // sequences of its first and last record
	Data        []byte
}

// Chunks encodes the records of a checked batch into as few chunks as are of reasonable size.
func Chunks(records []Record) []Chunk {
	var chunks []Chunk
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size+len(records[n].Data) <= chunkTarget) {
			size += len(records[n].Kind) + len(records[n].Data) + 16
			n++
		}
		chunks = append(chunks, encodeChunk(records[:n], size))
		records = records[n:]
	}
	return chunks
}

func encodeChunk(records []Record, size int) Chunk {
	first := records[0].Seq
	buf := make([]byte, 0, size+32)
	buf = append(buf, chunkFormat)
	buf = binary.AppendUvarint(buf, first)
	buf = binary.AppendUvarint(buf, uint64(len(records)))
	var before int64
	for _, r := range records {
		at := r.Time.UnixNano()
		buf = binary.AppendVarint(buf, at-before) // wraps around, and back when decoded
		before = at
		buf = binary.AppendUvarint(buf, uint64(r.Version))
		buf = binary.AppendUvarint(buf, uint64(len(r.Kind)))
		buf = append(buf, r.Kind...)
		buf = binary.AppendUvarint(buf, uint64(len(r.Data)))
		buf = append(buf, r.Data...)
	}
	buf = binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf, castagnoli()))
	return Chunk{First: first, Last: first + uint64(len(records)) - 1, Data: buf}
}

// Records decodes a chunk and checks that it is whole and covers the sequences it says. The records' data are parts of
// c.Data, which must not change afterwards.
func (c Chunk) Records() ([]Record, error) {
	if len(c.Data) < 4 {
		return nil, fmt.Errorf("a chunk of %d bytes is too short", len(c.Data))
	}
	body, sum := c.Data[:len(c.Data)-4], binary.BigEndian.Uint32(c.Data[len(c.Data)-4:])
	if got := crc32.Checksum(body, castagnoli()); got != sum {
		return nil, fmt.Errorf("checksum %08x instead of %08x", got, sum)
	}
	records, err := decodeBody(body)
	if err != nil {
		return nil, err
	}
	if first, last := records[0].Seq, records[len(records)-1].Seq; first != c.First || last != c.Last {
		return nil, fmt.Errorf("records %d to %d instead of %d to %d", first, last, c.First, c.Last)
	}
	return records, nil
}

// decodeBody decodes a chunk without its checksum.
func decodeBody(body []byte) ([]Record, error) {
	d := decoder{rest: body}
	if format := d.bytes(1); d.err == nil && format[0] != chunkFormat {
		return nil, fmt.Errorf("chunk format %d is not known; a newer program wrote it", format[0])
	}
	first, count := d.uvarint(math.MaxInt64), d.uvarint(math.MaxInt32)
	// A record takes at least five bytes: a count that promises more is damage, and must not become an allocation.
	if d.err == nil && (first == 0 || count == 0 || count > uint64(len(d.rest)/5)) {
		return nil, fmt.Errorf("%d records from %d on cannot be in %d bytes", count, first, len(d.rest))
	}
	if d.err != nil {
		return nil, d.err
	}
	records := make([]Record, count)
	kinds := map[string]string{} // a chunk has few kinds: one string each
	var at int64
	for i := range records {
		at += d.varint()
		version := d.uvarint(1 << 30)
		kind := d.bytes(d.uvarint(MaxKind))
		data := d.bytes(d.uvarint(MaxData))
		if d.err == nil && len(kind) == 0 {
			d.err = fmt.Errorf("a record without a kind")
		}
		if d.err != nil {
			return nil, fmt.Errorf("record %d: %w", first+uint64(i), d.err)
		}
		name, ok := kinds[string(kind)]
		if !ok {
			name = string(kind)
			kinds[name] = name
		}
		records[i] = Record{Seq: first + uint64(i), Time: time.Unix(0, at).UTC(), Kind: name, Version: int(version), Data: data}
	}
	if len(d.rest) != 0 {
		return nil, fmt.Errorf("%d bytes after the last record", len(d.rest))
	}
	return records, nil
}

// decoder reads fields one after the other and keeps the first error.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if !d.took(n) {
		return 0
	}
	if v > most {
		d.err = fmt.Errorf("number %d where at most %d may stand", v, most)
		return 0
	}
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if !d.took(n) {
		return 0
	}
	return v
}

func (d *decoder) took(n int) bool {
	if d.err == nil && n <= 0 {
		d.err = fmt.Errorf("a number is cut short or too long")
	}
	if d.err != nil {
		return false
	}
	d.rest = d.rest[n:]
	return true
}

func (d *decoder) bytes(n uint64) []byte {
	if d.err == nil && n > uint64(len(d.rest)) {
		d.err = fmt.Errorf("%d bytes are promised and %d are there", n, len(d.rest))
	}
	if d.err != nil {
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
