package journaltest

import (
	"fmt"
	"strings"
	"testing"

	"joist/engine/journal"
)

func testSnapshots(t *testing.T, data Data) {
	h := open(t, data)
	epoch := acquire(t, h.Store, "demo")
	load := func() journal.Snapshot {
		t.Helper()
		got, err := h.Snapshots.Load(t.Context(), "demo")
		must(t, err)
		return got
	}
	same(t, "no snapshot", load(), journal.Snapshot{Journal: "demo"})
	must(t, h.Store.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: Records(0, 9)}))
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i * i >> 8)
	}
	for _, step := range []struct {
		save, want journal.Snapshot
	}{
		{journal.Snapshot{Seq: 3, Version: 1, Data: []byte("three")}, journal.Snapshot{Seq: 3, Version: 1, Data: []byte("three")}},
		{journal.Snapshot{Seq: 7, Version: 2, Data: big}, journal.Snapshot{Seq: 7, Version: 2, Data: big}},
		{journal.Snapshot{Seq: 5, Version: 3, Data: []byte("older")}, journal.Snapshot{Seq: 7, Version: 2, Data: big}},
		{journal.Snapshot{Seq: 7, Version: 3, Data: []byte("again")}, journal.Snapshot{Seq: 7, Version: 3, Data: []byte("again")}},
		{journal.Snapshot{Seq: 9, Version: 0, Data: []byte{0}}, journal.Snapshot{Seq: 9, Version: 0, Data: []byte{0}}},
	} {
		step.save.Journal, step.want.Journal = "demo", "demo"
		must(t, h.Snapshots.Save(t.Context(), epoch, step.save))
		same(t, "snapshot", load(), step.want)
	}
	for _, wrong := range []journal.Snapshot{{Journal: "demo", Seq: 10}, {Journal: "demo"}, {Journal: "demo", Seq: 9, Version: -1}} {
		if err := h.Snapshots.Save(t.Context(), epoch, wrong); err == nil {
			t.Errorf("a snapshot of version %d up to %d was kept", wrong.Version, wrong.Seq)
		}
	}
	same(t, "snapshot", load(), journal.Snapshot{Journal: "demo", Seq: 9, Version: 0, Data: []byte{0}})
}

func testDamagedSnapshot(t *testing.T, data Data) {
	h := open(t, data)
	epoch := acquire(t, h.Store, "demo")
	must(t, h.Store.Append(t.Context(), journal.Batch{Journal: "demo", Epoch: epoch, After: 0, Records: Records(0, 9)}))
	must(t, h.Snapshots.Save(t.Context(), epoch, journal.Snapshot{Journal: "demo", Seq: 5, Version: 1, Data: []byte("whole")}))
	data.DamageSnapshot(t, "demo")
	got, err := h.Snapshots.Load(t.Context(), "demo")
	damaged := asError[*journal.DamagedError](t, err)
	if !strings.Contains(damaged.Error(), "demo") || damaged.Reason == "" {
		t.Errorf("%q does not say what is damaged and why", damaged)
	}
	same(t, "snapshot", got, journal.Snapshot{Journal: "demo"})
	same(t, "records", ReadAll(t, h.Store, "demo", 0), Records(0, 9))
	whole := journal.Snapshot{Journal: "demo", Seq: 9, Version: 1, Data: []byte("whole again")}
	must(t, h.Snapshots.Save(t.Context(), epoch, whole))
	got, err = h.Snapshots.Load(t.Context(), "demo")
	must(t, err)
	same(t, "snapshot", got, whole)
}

func testDamagedRecord(t *testing.T, data Data) {
	for name, harm := range map[string]func(*testing.T, string, uint64){"damaged": data.DamageRecord, "missing": data.MissRecord} {
		if harm == nil {
			continue
		}
		for _, seq := range []uint64{1, 4, 5} {
			t.Run(fmt.Sprintf("%s %d", name, seq), func(t *testing.T) {
				h := open(t, data)
				journalName := fmt.Sprint(name, seq)
				epoch := acquire(t, h.Store, journalName)
				for after := range uint64(5) {
					must(t, h.Store.Append(t.Context(), journal.Batch{Journal: journalName, Epoch: epoch, After: after, Records: Records(after, 1)}))
				}
				harm(t, journalName, seq)
				var got []journal.Record
				err := h.Store.Read(t.Context(), journalName, 0, func(r journal.Record) error {
					got = append(got, r)
					return nil
				})
				damaged := asError[*journal.DamagedError](t, err)
				same(t, "where", damaged.Seq, seq)
				same(t, "records before it", len(got), int(seq-1))
				same(t, "records after it", ReadAll(t, h.Store, journalName, seq), append([]journal.Record(nil), Records(seq, int(5-seq))...))
			})
		}
	}
}

func testBlobs(t *testing.T, data Data) {
	b := open(t, data).Blobs
	for _, value := range []string{"goal", "", "\x00\xff", strings.Repeat("pack", 1<<18)} {
		for range 2 {
			digest, err := b.Put(t.Context(), []byte(value))
			must(t, err)
			same(t, "digest", digest, journal.Digest([]byte(value)))
			got, err := b.Get(t.Context(), digest)
			must(t, err)
			if string(got) != value {
				t.Fatalf("%d bytes came back of %d", len(got), len(value))
			}
		}
	}
	_, err := b.Get(t.Context(), journal.Digest([]byte("never put")))
	asError[*journal.NotFoundError](t, err)
	if _, err := b.Put(t.Context(), make([]byte, journal.MaxBlob+1)); err == nil {
		t.Error("a value over the limit was kept")
	}
}
