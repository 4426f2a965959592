package chain

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	dbm "github.com/cometbft/cometbft-db"
)

// A table of the store does what CometBFT's own memory database does, beside
// another table under the same store.
func TestCometTableLikeMemDB(t *testing.T) {
	s, err := openCometStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	table, other, want := s.table("a"), s.table("ab"), dbm.NewMemDB()
	if err := other.Set([]byte("k0"), []byte("other")); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	key := func() []byte { return []byte(fmt.Sprintf("k%d", r.IntN(40))) }
	for step := range 3000 {
		k, v := key(), []byte(fmt.Sprint(step))
		switch r.IntN(5) {
		case 0:
			v = []byte{} // empty is not absent
			fallthrough
		case 1:
			sameError(t, table.Set(k, v), want.Set(k, v))
		case 2:
			sameError(t, table.Delete(k), want.Delete(k))
		case 3:
			a, b := table.NewBatch(), want.NewBatch()
			for range r.IntN(4) {
				k := key()
				sameError(t, a.Set(k, v), b.Set(k, v))
			}
			sameError(t, a.Delete(k), b.Delete(k))
			sameError(t, a.WriteSync(), b.WriteSync())
			if a.Set(k, v) == nil || a.Write() == nil {
				t.Fatal("a written batch takes writes")
			}
			sameError(t, a.Close(), b.Close())
		default:
			from, to := key(), key()
			if bytes.Compare(from, to) > 0 {
				from, to = to, from
			}
			if r.IntN(4) == 0 {
				from, to = nil, nil
			}
			sameWalk(t, fmt.Sprintf("step %d, %s to %s", step, from, to), opened(table.Iterator(from, to)), opened(want.Iterator(from, to)))
			sameWalk(t, fmt.Sprintf("step %d, %s back to %s", step, to, from), opened(table.ReverseIterator(from, to)), opened(want.ReverseIterator(from, to)))
		}
		got, err := table.Get(k)
		expect, _ := want.Get(k)
		if err != nil || !bytes.Equal(got, expect) || (got == nil) != (expect == nil) {
			t.Fatalf("step %d: %s is %q (%v), want %q", step, k, got, err, expect)
		}
	}
	if v, _ := other.Get([]byte("k0")); string(v) != "other" {
		t.Errorf("the other table changed: %q", v)
	}
}

func sameError(t *testing.T, got, want error) {
	t.Helper()
	if got != nil || want != nil {
		t.Fatalf("error %v, the memory database's %v", got, want)
	}
}

func opened(it dbm.Iterator, err error) dbm.Iterator {
	if err != nil {
		panic(err)
	}
	return it
}

func sameWalk(t *testing.T, what string, got, want dbm.Iterator) {
	t.Helper()
	defer got.Close()
	defer want.Close()
	for want.Valid() && got.Valid() {
		if !bytes.Equal(got.Key(), want.Key()) || !bytes.Equal(got.Value(), want.Value()) {
			t.Fatalf("%s: %s=%q, want %s=%q", what, got.Key(), got.Value(), want.Key(), want.Value())
		}
		got.Next()
		want.Next()
	}
	if got.Valid() != want.Valid() {
		t.Fatalf("%s: more: %v, want %v", what, got.Valid(), want.Valid())
	}
}

// After Close a stray reader finds nothing and a stray writer fails; neither
// panics.
func TestCometStoreAfterClose(t *testing.T) {
	dir := t.TempDir()
	s, err := openCometStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	table, k := s.table("a"), []byte("k")
	batch := table.NewBatch()
	if err := errors.Join(table.SetSync(k, k), batch.Set(k, nil)); err == nil {
		t.Error("a nil value was taken")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if v, err := table.Get(k); v != nil || err != nil {
		t.Errorf("Get after Close: %q, %v, want nothing", v, err)
	}
	if err := table.Set(k, k); !errors.Is(err, errStoreClosed) {
		t.Errorf("Set after Close: %v", err)
	}
	if err := batch.Write(); !errors.Is(err, errStoreClosed) {
		t.Errorf("Write after Close: %v", err)
	}
	if s, err = openCometStore(dir); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if v, err := s.table("a").Get(k); string(v) != "k" || err != nil {
		t.Errorf("after reopening: %q, %v", v, err)
	}
}
