package chain

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/mpow"
)

// commitState makes the next block of a what fn writes.
func commitState(t testing.TB, a *App, fn func(*state)) {
	t.Helper()
	h := a.View().Height() + 1
	r := &abci.RequestFinalizeBlock{Height: h, Hash: bytes.Repeat([]byte{byte(h)}, 32)}
	s := a.open(r)
	s.remember()
	fn(s)
	if err := checkIndex(s); err != nil {
		t.Fatal(err)
	}
	a.store.stage(s.block)
	a.block = &proposed{s.block, Block{Height: h, Slot: s.slot()}}
	if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
		t.Fatal(err)
	}
}

func addNode(t testing.TB, s *state, name string, last mpow.Slot) peer.ID {
	t.Helper()
	id := testID(t, name)
	nodes.set(s, id, mpow.Node{Account: mpow.Account(id), Kind: mpow.KindSimulated, LastSlot: last})
	return id
}

func TestHoldersAreThoseWhoProvedInTheLastSlot(t *testing.T) { // spec §6.1
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	root, other := testRoot(t, "file"), testRoot(t, "other")
	addr := ma.StringCast("/ip4/127.0.0.1/tcp/24001")
	commitState(t, a, func(s *state) {
		for _, name := range []string{"fresh", "silent", "reborn"} {
			id := addNode(t, s, name, 5)
			s.setReplica(id, root, replica{Owner: id, Size: 9, Since: 1})
		}
		fresh := testID(t, "fresh")
		s.setReplica(fresh, other, replica{Owner: fresh, Size: 1})
		s.set(announcements.raw(fresh), encode(announced{Addrs: [][]byte{addr.Bytes()}}))
		nodes.set(s, testID(t, "silent"), mpow.Node{Account: mpow.Account(testID(t, "silent")), LastSlot: 0})
	})
	for a.View().Slot() < 2 {
		commitState(t, a, func(*state) {})
	}
	commitState(t, a, func(s *state) {
		reborn := nodes.must(s, testID(t, "reborn"))
		reborn.Generation++
		nodes.set(s, testID(t, "reborn"), reborn)
	})
	v := a.View()
	got := v.Holders(root)
	if len(got) != 1 || got[0].Node != testID(t, "fresh") || got[0].Size != 9 || got[0].Kind != mpow.KindSimulated ||
		len(got[0].Addrs) != 1 || !got[0].Addrs[0].Equal(addr) || got[0].Last != 5 {
		t.Fatalf("holders %+v, want the fresh one with its address", got)
	}
	commitState(t, a, func(s *state) { s.delReplica(testID(t, "fresh"), root) })
	if got := a.View().Holders(root); len(got) != 0 {
		t.Errorf("holders %+v after the last has dropped it", got)
	}
	if got := v.Holders(root); len(got) != 1 {
		t.Errorf("holders %+v at the height before, want one", got)
	}
	if got := a.View().Holders(other); len(got) != 1 {
		t.Errorf("holders %+v of the other file, want one", got)
	}
}

func TestMemoryIsTheSameAfterARestart(t *testing.T) {
	dir := t.TempDir()
	a := testApp(t, AppConfig{Dir: dir})
	root := testRoot(t, "file")
	commitState(t, a, func(s *state) {
		s.setReplica(addNode(t, s, "n", 1), root, replica{Owner: testID(t, "n"), Size: 9})
	})
	want := a.View().Holders(root)
	closeApp(t, a)
	a, err := OpenApp(AppConfig{Dir: dir, Genesis: testGenesis(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer closeApp(t, a)
	if got := a.View().Holders(root); len(got) != 1 || len(want) != 1 || got[0].Node != want[0].Node {
		t.Errorf("holders %+v, before the restart %+v", got, want)
	}
}

func TestTheIndexDigestTellsADifferentIndex(t *testing.T) { // spec §1.6
	s := testState(t, 1)
	n, root := addNode(t, s, "n", 1), testRoot(t, "file")
	s.setReplica(n, root, replica{Owner: n, Size: 9})
	s.setReplica(n, root, replica{Owner: n, Size: 10}) // replaces
	if err := checkIndex(s); err != nil {
		t.Fatal(err)
	}
	for _, k := range holdersOf(s) { // behind the digest's back
		s.set(k, encode(replica{Owner: n, Size: 11}))
	}
	if err := checkIndex(s); err == nil {
		t.Error("a changed index passes")
	}
	s.delReplica(n, root)
	s.delReplica(n, root) // twice is once
	if d := digests.must(s, digestKey); d != (digest{}) {
		t.Errorf("digest of no records has count %d, or a sum that is not zero", d.Count)
	}
}

func holdersOf(s source) (keys [][]byte) {
	s.each([]byte(keyHolder), past([]byte(keyHolder)), func(k, _ []byte) bool {
		keys = append(keys, bytes.Clone(k))
		return true
	})
	return keys
}

func TestAViewNeverChangesAndOutlivesItsApp(t *testing.T) {
	a := testApp(t, AppConfig{})
	blocks := testBlocks(t, 9)
	for _, b := range blocks[:4] {
		play(t, a, b)
	}
	v := a.View()
	before := v.Account(testID(t, "alice"))
	for _, b := range blocks[4:] {
		play(t, a, b)
		runtime.GC() // frees the views between; not this one
	}
	if got := v.Account(before.ID); got != before || v.Height() != 4 {
		t.Errorf("%+v at height %d, want %+v at 4", got, v.Height(), before)
	}
	if now := a.View().Account(before.ID); now == before {
		t.Error("alice's account did not change: the test shows nothing")
	}
	closeApp(t, a)
	if got := v.Account(before.ID); got.Nonce != 0 {
		t.Errorf("%+v of a closed store, want none", got)
	}
	if _, ok := v.Block(1); ok {
		t.Error("a block of a closed store")
	}
	if got := v.Holders(testRoot(t, "file")); got != nil {
		t.Errorf("holders %v", got)
	}
}

// TestAClosedAppIsForgotten makes blocks, keeps a view, closes the App, and lets
// all go: the cleanup of a view once held its App, and so its store, for ever.
func TestAClosedAppIsForgotten(t *testing.T) {
	open := func() weak.Pointer[App] {
		a := testApp(t, AppConfig{})
		for _, b := range testBlocks(t, 3) {
			play(t, a, b)
		}
		closeApp(t, a)
		return weak.Make(a)
	}
	a := open()
	for range 5 {
		runtime.GC()
	}
	if a.Value() != nil {
		t.Error("the App of a closed store is still in memory")
	}
}

func TestSeedsAndHashesAreKeptForAWhile(t *testing.T) { // spec §1.4, §3.2
	a := testApp(t, AppConfig{}) // slots of 4
	defer closeApp(t, a)
	for range 13 {
		finalize(t, a)
	}
	v := a.View()
	for height, want := range map[int64]bool{-1: false, 8: false, 9: true, 13: true, 14: false} {
		if h, ok := v.BlockHash(height); ok != want || ok && h[0] != byte(height) {
			t.Errorf("hash of height %d: %x, %v; want %v", height, h, ok, want)
		}
	}
	for slot, want := range map[mpow.Slot]bool{0: false, 1: false, 2: true, 3: true, 4: false} {
		if h, ok := v.Seed(slot); ok != want || ok && h[0] != byte(4*slot) {
			t.Errorf("seed of slot %d: %x, %v; want %v", slot, h, ok, want)
		}
	}
}

func TestNextIsOrderedAndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSolo(t, SoloConfig{Interval: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- s.Run(ctx) }()
		for h := int64(0); h < 5; h++ {
			b, err := s.Next(ctx, h)
			if err != nil || b.Height != h+1 {
				t.Fatalf("after %d: %d, %v", h, b.Height, err)
			}
			if b.First != (b.Height == 4) {
				t.Errorf("height %d: first of a slot is %v", b.Height, b.First)
			}
		}
		r, err := s.Submit(ctx, send(testID(t, "bob"), 1)) // waits for the timer
		if err != nil || r.Height != 6 {
			t.Errorf("transfer in block %d, %v; want 6", r.Height, err)
		}
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if _, err := s.Next(ctx, 99); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want that ctx ended", err)
		}
	})
}

func TestCloseTellsThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewSolo(SoloConfig{Genesis: testGenesis(t), Key: testKey(t, "alice"), Interval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 2)
		go func() {
			_, err := s.Submit(t.Context(), send(testID(t, "bob"), 1))
			errs <- err
		}()
		go func() {
			_, err := s.Next(t.Context(), 0)
			errs <- err
		}()
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var e *Error
			if err := <-errs; !errors.As(err, &e) || e.Code != CodeStopped {
				t.Errorf("%v, want CodeStopped", err)
			}
		}
		if st := s.Status(); st.Stopped == "" {
			t.Error("status of a closed chain says nothing")
		}
	})
}

func TestAnnounce(t *testing.T) { // spec §2.5
	ok := ma.StringCast("/ip4/127.0.0.1/tcp/24001").Bytes()
	for _, c := range []struct {
		name   string
		change func(*state, *Announce)
		code   uint32
	}{
		{"valid", nil, CodeOK},
		{"none: takes it back", func(_ *state, m *Announce) { m.Addrs = nil }, CodeOK},
		{"not registered", func(s *state, _ *Announce) { nodes.del(s, testID(t, "n")) }, CodeRefused},
		{"nine addresses", func(_ *state, m *Announce) { m.Addrs = [][]byte{ok, ok, ok, ok, ok, ok, ok, ok, ok} }, CodeSize},
		{"a long one", func(_ *state, m *Announce) { m.Addrs = [][]byte{make([]byte, 129)} }, CodeSize},
		{"no address", func(_ *state, m *Announce) { m.Addrs = [][]byte{{1, 2, 3}} }, CodeRefused},
		{"private on mainnet", func(s *state, _ *Announce) { s.chain.Class = ClassMain }, CodeRefused},
		{"twice a slot", func(s *state, m *Announce) {
			if err := s.announce(testID(t, "n"), *m); err != nil {
				t.Fatal(err)
			}
		}, CodeRefused},
	} {
		s := testState(t, 9)
		n, m := addNode(t, s, "n", 1), Announce{Addrs: [][]byte{ok}}
		if c.change != nil {
			c.change(s, &m)
		}
		if code, text := codeOf(s.announce(n, m)); code != c.code {
			t.Errorf("%s: code %d, %q; want %d", c.name, code, text, c.code)
		}
	}
}

func TestAnnouncementsDieWithTheirNode(t *testing.T) { // spec §2.5
	s := testState(t, 1)
	n := addNode(t, s, "n", 1)
	if err := s.announce(n, Announce{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.height = s.nextLook()
		if s.dueAnnouncements(); !announcements.has(s, n) {
			t.Fatalf("gone at height %d while the node lives", s.height)
		}
	}
	nodes.del(s, n)
	s.height = s.nextLook()
	if s.dueAnnouncements(); announcements.has(s, n) {
		t.Error("outlives its node")
	}
}
