package journal_test

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"joist/engine/journal"
	"joist/engine/journal/journaltest"
)

func TestChunksRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Uint64Range(1, 1<<62).Draw(t, "first")
		records := make([]journal.Record, rapid.IntRange(1, 30).Draw(t, "records"))
		for i := range records {
			records[i] = journal.Record{
				Seq:     first + uint64(i),
				Time:    time.Unix(0, rapid.Int64().Draw(t, "time")).UTC(),
				Kind:    rapid.StringMatching(`[a-z.]{1,20}`).Draw(t, "kind"),
				Version: rapid.IntRange(0, 1<<30).Draw(t, "version"),
				Data:    bytes.Repeat([]byte{'1'}, rapid.SampledFrom([]int{1, 10, 300, 40_000, 100_000}).Draw(t, "size")),
			}
		}
		var got []journal.Record
		for _, c := range journal.Chunks(records) {
			part, err := c.Records()
			if err != nil {
				t.Fatal(err)
			}
			if c.First != part[0].Seq || c.Last != part[len(part)-1].Seq || len(part) > 1 && len(c.Data) > 80_000 {
				t.Fatalf("chunk %d to %d of %d bytes has records %d to %d", c.First, c.Last, len(c.Data), part[0].Seq, part[len(part)-1].Seq)
			}
			got = append(got, part...)
		}
		if !reflect.DeepEqual(got, records) {
			t.Fatalf("%d records came back of %d, or others", len(got), len(records))
		}
	})
}

// What was written in format 1 stays readable: this is a chunk as the first release wrote it.
func TestChunkGolden(t *testing.T) {
	t.Parallel()
	want := []journal.Record{
		{Seq: 300, Time: time.Unix(1_790_000_000, 5).UTC(), Kind: "step.started", Version: 1, Data: []byte(`{"instance":"demo/member[n1]"}`)},
		{Seq: 301, Time: time.Unix(1_789_999_999, 0).UTC(), Kind: "step.done", Version: 0, Data: []byte(`null`)},
	}
	data, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := journal.Chunk{First: 300, Last: 301, Data: data}.Records()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("records %v instead of %v: %v", got, want, err)
	}
	if now := journal.Chunks(want)[0].Data; !bytes.Equal(now, data) {
		t.Errorf("now written as %x: a new format needs a new number", now)
	}
}

const golden = "01ac02028a8098bf84e1add731010c737465702e737461727465641e7b22696e7374616e6365223a2264656d6f2f6d656d6265725b6e315d227d89a8d6b9070009737465702e646f6e65046e756c6cdcd31a1e"

// A damaged chunk is an error wherever the damage is.
func TestChunkDamage(t *testing.T) {
	t.Parallel()
	chunk := journal.Chunks(journaltest.Records(41, 3))[0]
	for i := range chunk.Data {
		for bit := range 8 {
			harmed := bytes.Clone(chunk.Data)
			harmed[i] ^= 1 << bit
			if _, err := (journal.Chunk{First: 42, Last: 44, Data: harmed}).Records(); err == nil {
				t.Fatalf("bit %d of byte %d may change unseen", bit, i)
			}
		}
		if _, err := (journal.Chunk{First: 42, Last: 44, Data: chunk.Data[:i]}).Records(); err == nil {
			t.Fatalf("the chunk may end after %d bytes", i)
		}
	}
	for _, wrong := range []journal.Chunk{{First: 41, Last: 44}, {First: 42, Last: 45}, {First: 1, Last: 3}} {
		wrong.Data = chunk.Data
		if _, err := wrong.Records(); err == nil {
			t.Errorf("a chunk of records 42 to 44 passed for %d to %d", wrong.First, wrong.Last)
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ body, want string }{
		"empty":           {"", "0 are there"},
		"newer":           {"\x02\x01\x01", "chunk format 2 is not known"},
		"no count":        {"\x01\x01", "cut short"},
		"sequence 0":      {"\x01\x00\x01aaaaaaaaaa", "1 records from 0 on"},
		"no records":      {"\x01\x01\x00", "0 records"},
		"count a lie":     {"\x01\x01\xff\xff\xff\xff\x07aaaa", "cannot be in 4 bytes"},
		"no kind":         {"\x01\x01\x01\x00\x00\x00\x011", "without a kind"},
		"kind cut short":  {"\x01\x01\x01\x00\x00\x09abc", "9 bytes are promised and 3 are there"},
		"data too long":   {"\x01\x01\x01\x00\x00\x01k\xff\xff\xff\xff\x0f", "where at most 16777216 may stand"},
		"varint too long": {"\x01\x01\x01" + strings.Repeat("\xff", 12), "too long"},
		"left over":       {"\x01\x01\x01\x00\x00\x01k\x0111", "1 bytes after the last record"},
	} {
		if _, err := journal.DecodeBody([]byte(test.body)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v instead of %q", name, err, test.want)
		}
	}
}

// FuzzChunk decodes anything; the fuzzer is spared the checksum. What decodes must come back the same when encoded.
func FuzzChunk(f *testing.F) {
	for _, n := range []int{1, 2, 50} {
		data := journal.Chunks(journaltest.Records(uint64(n), n))[0].Data
		f.Add(data[:len(data)-4])
	}
	f.Add([]byte{})
	f.Add([]byte("\x01\x01\xff\xff\xff\xff\x07aaaa"))
	f.Fuzz(func(t *testing.T, body []byte) {
		records, err := journal.DecodeBody(body)
		if err != nil {
			return
		}
		var got []journal.Record
		for _, c := range journal.Chunks(records) {
			part, err := c.Records()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, part...)
		}
		if !reflect.DeepEqual(got, records) {
			t.Fatalf("decoded %v, encoded and decoded %v", records, got)
		}
	})
}
