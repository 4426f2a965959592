package prover_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// hander is what a node asks of two provers in a hand-over.
type hander interface {
	api
	Target(context.Context) ([]byte, error)
	Offer(ctx context.Context, target []byte) (mpow.Offer, error)
	Give(ctx context.Context, slot mpow.Slot, head mpow.Head, release mpow.Release, o mpow.Offer) (mpow.Gift, error)
	GivePage(ctx context.Context, number uint64) ([]byte, error)
	Take(ctx context.Context, release mpow.Release, g mpow.Gift) error
	TakePage(ctx context.Context, number uint64, page []byte) error
	Word(ctx context.Context, key []byte, measurement mpow.Hash, generation uint64, head mpow.Head) ([]byte, error)
	Abandon(context.Context) error
}

var (
	_ hander = (*prover.Prover)(nil)
	_ hander = (*enclave.Client)(nil)
)

// releaseKey returns one of three keys, of which two release a build.
func releaseKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
}

func releases() prover.Releases {
	var r prover.Releases
	for n := range byte(3) {
		r.Keys = append(r.Keys, releaseKey(n).Public().(ed25519.PublicKey))
	}
	r.Need = 2
	return r
}

// release is signed by the keys numbered.
func release(from, to [32]byte, keys ...byte) mpow.Release {
	r := mpow.Release{From: from, To: to}
	for _, n := range keys {
		k := releaseKey(n)
		r.Sigs = append(r.Sigs, mpow.ReleaseSig{Key: k.Public().(ed25519.PublicKey), Sig: ed25519.Sign(k, mpow.ReleaseBytes(from, to))})
	}
	return r
}

// builds are the configs of an old prover with a second disk and of a new one, of
// another measurement, that may take over from it; everything below base, but for
// the keys of the simulated hardware.
func builds(t testing.TB, base, keys string) (one, two prover.Config) {
	one, two = config(t, filepath.Join(base, "one")), config(t, filepath.Join(base, "two"))
	one.Disks = []string{filepath.Join(base, "disk")}
	two.Take = []string{one.Dir, one.Disks[0]}
	one.Platform, two.Platform = prover.SimulatedBuild(filepath.Join(keys, "1"), "one"), prover.SimulatedBuild(filepath.Join(keys, "2"), "two")
	one.Releases, two.Releases = releases(), releases()
	return one, two
}

func goodRelease(one, two prover.Config) mpow.Release {
	return release(one.Platform.Build(), two.Platform.Build(), 0, 2)
}

// carry brings the state from one prover to the other, up to the last page.
func carry(t testing.TB, from, to hander, slot mpow.Slot, head mpow.Head, r mpow.Release) (mpow.Offer, error) {
	t.Helper()
	ctx := t.Context()
	target, err := from.Target(ctx)
	must(t, err)
	o, err := to.Offer(ctx, target)
	if err != nil {
		return o, err
	}
	g, err := from.Give(ctx, slot, head, r, o)
	if err != nil {
		return o, err
	}
	if err := to.Take(ctx, r, g); err != nil {
		return o, err
	}
	for n := range g.Pages {
		page, err := from.GivePage(ctx, n)
		must(t, err)
		if err := to.TakePage(ctx, n, page); err != nil {
			return o, err
		}
	}
	return o, nil
}

// handOver has the rules accept the hand-over in a slot.
func (l *ledger) handOver(from, to hander, slot mpow.Slot) error {
	l.t.Helper()
	ctx := l.t.Context()
	height := l.params.Start(slot) + 1
	r, err := to.Attest(ctx, chainID, account, height, [32]byte{7})
	if err != nil {
		return err
	}
	rep, err := to.Report(ctx, slot, slotSeed(slot), l.node.Head(), nil)
	if err != nil {
		return err
	}
	sig, err := from.Word(ctx, r.Key, r.Measurement, l.node.Generation, l.node.Head())
	if err != nil {
		return err
	}
	now := mpow.Context{ChainID: chainID, Height: height + 1, Hash: [32]byte{7}, Slot: slot, Seed: slotSeed(slot)}
	n, _, err := l.params.HandOver(l.node, mpow.Handover{Register: r, Report: rep, Sig: sig}, now, "")
	if err == nil {
		l.node = n
	}
	return err
}

// heldBy reads every block of the files.
func heldBy(t testing.TB, p api, files ...[]block) {
	t.Helper()
	for _, blocks := range files {
		for i, b := range blocks {
			if data, err := p.Open(t.Context(), b.cid); err != nil || !bytes.Equal(data, b.data) {
				t.Fatalf("block %d: %v", i, err)
			}
		}
	}
}

// All that one build holds goes to another in a slot, on both sides of sockets;
// not a sealed byte moves, the old one signs nothing more, and the new one goes on
// with the file that was half sealed (spec §3.9).
func TestHandOver(t *testing.T) {
	base := t.TempDir()
	c1, c2 := builds(t, base, t.TempDir())
	p1, p2 := open(t, c1), open(t, c2)
	one, two := overSocket(t, p1), overSocket(t, p2)
	ctx, l := t.Context(), newLedger(t, one)
	whole, half := tree(t, 1, 4, 900), tree(t, 2, 3, 700)
	store(t, one, whole)
	must(t, one.FillSRD(ctx, 2))
	must(t, one.Begin(ctx, half[0].cid, 1<<20))
	must(t, one.Seal(ctx, half[0].cid, half[0].cid, half[0].data))
	l.step(one, 1)
	l.step(one, 2)
	data := only(t, filepath.Join(base, "*", "replicas", "*", "index"))
	before, err := os.ReadFile(filepath.Join(filepath.Dir(data), "data"))
	must(t, err)

	_, err = carry(t, one, two, 3, l.node.Head(), goodRelease(c1, c2))
	must(t, err)
	heldBy(t, one, whole)
	heldBy(t, two, whole)
	for what, err := range map[string]error{
		"old: seal":                             one.Seal(ctx, half[0].cid, half[1].cid, half[1].data),
		"old: drop":                             one.Drop(ctx, whole[0].cid),
		"old: fill":                             one.FillSRD(ctx, 3),
		"old: report":                           second(one.Report(ctx, 3, slotSeed(3), l.node.Head(), nil)),
		"new: seal":                             two.Seal(ctx, half[0].cid, half[1].cid, half[1].data),
		"new: drop":                             two.Drop(ctx, whole[0].cid),
		"new: fill":                             two.FillSRD(ctx, 0),
		"new: the slot that the old one signed": second(two.Report(ctx, 2, slotSeed(2), l.node.Head(), nil)),
	} {
		if err == nil {
			t.Errorf("%s in the middle of a hand-over", what)
		}
	}
	must(t, l.handOver(one, two, 3))
	for what, err := range map[string]error{
		"report":   second(one.Report(ctx, 9, slotSeed(9), l.node.Head(), nil)),
		"register": second(one.Attest(ctx, chainID, account, 99, [32]byte{1})),
		"begin":    one.Begin(ctx, tree(t, 5, 1, 9)[0].cid, 100),
		"abandon":  one.Abandon(ctx),
	} {
		if err == nil {
			t.Errorf("%s after the word", what)
		}
	}
	for slot := mpow.Slot(4); slot < 6; slot++ {
		l.step(two, slot)
	}
	for _, b := range half {
		must(t, two.Seal(ctx, half[0].cid, b.cid, b.data))
	}
	_, err = two.Commit(ctx, half[0].cid)
	must(t, err)
	must(t, two.FillSRD(ctx, 1))
	if c := l.step(two, 6); len(c.Added) != 1 || l.node.SRDBytes != 64<<10 {
		t.Fatalf("report %+v, %d bytes of random data", c, l.node.SRDBytes)
	}
	after, err := os.ReadFile(filepath.Join(filepath.Dir(data), "data"))
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("sealed anew? %v", err)
	}
	// Restarts: the old one takes nothing away, the new one waits for its disks.
	if _, err := prover.New(c2); err == nil {
		t.Fatal("a second one on the same directory")
	}
	must(t, p2.Close())
	if _, err := prover.New(c2); err == nil || !strings.Contains(err.Error(), "end the prover that handed over") {
		t.Fatalf("started on the disks of a prover that runs: %v", err)
	}
	must(t, p1.Close())
	p1 = open(t, c1)
	if _, err := p1.Report(ctx, 9, slotSeed(9), l.node.Head(), nil); err == nil {
		t.Error("after a restart the old prover signs again")
	}
	must(t, p1.Close())
	p2 = open(t, c2)
	heldBy(t, p2, whole, half)
	l.step(p2, 7)
	if info, err := p2.Info(ctx); err != nil || info.Handing != "" || info.Files != 2 || info.SRDBytes != 64<<10 {
		t.Fatalf("%+v, %v", info, err)
	}
}

// Called off or timed out, on either side and at any step before the word, the old
// prover goes on as if nothing had been, and the new one is fresh again.
func TestHandOverIsCalledOff(t *testing.T) {
	ctx := t.Context()
	c1, c2 := builds(t, t.TempDir(), t.TempDir())
	one, two := open(t, c1), open(t, c2)
	l, files := newLedger(t, one), tree(t, 1, 3, 800)
	store(t, one, files)
	l.step(one, 1)
	fresh := func(what string) {
		t.Helper()
		if info, err := two.Info(ctx); err != nil || info.Account != "" || info.Files != 0 || info.Handing != "" {
			t.Fatalf("%s: the new one: %+v, %v", what, info, err)
		}
		heldBy(t, one, files)
	}
	_, err := carry(t, one, two, 2, l.node.Head(), goodRelease(c1, c2))
	must(t, err)
	must(t, two.Abandon(ctx))
	must(t, one.Abandon(ctx))
	fresh("abandoned on both sides")
	l.step(one, 2)

	_, err = carry(t, one, two, 3, l.node.Head(), goodRelease(c1, c2))
	must(t, err)
	must(t, one.Close())
	one = open(t, c1) // it remembers
	for slot := mpow.Slot(3); slot <= 5; slot++ {
		if _, err := one.Report(ctx, slot, slotSeed(slot), l.node.Head(), nil); err == nil || !strings.Contains(err.Error(), "handing over") {
			t.Fatalf("slot %d: %v", slot, err)
		}
	}
	l.node.LastSlot = 5 // the chain counts the misses
	l.step(one, 6)      // nobody asked for the word
	if _, err := one.Word(ctx, nil, mpow.Hash{}, 0, l.node.Head()); err == nil {
		t.Fatal("a word after the time")
	}
	must(t, two.Abandon(ctx))
	fresh("timed out in the old one")
	if replicas, err := filepath.Glob(filepath.Join(c1.Dir, "..", "*", "replicas", "*")); err != nil || len(replicas) != 1 {
		t.Fatalf("%v, %v: the disks are not as they were", replicas, err)
	}
	// And then it goes through.
	_, err = carry(t, one, two, 7, l.node.Head(), goodRelease(c1, c2))
	must(t, err)
	must(t, l.handOver(one, two, 7))
	must(t, two.Close())
	must(t, one.Close())
	two = open(t, c2)
	l.step(two, 8)
	heldBy(t, two, files)
}

// What came in part is forgotten after a while.
func TestOfferTimesOut(t *testing.T) {
	c1, c2 := builds(t, t.TempDir(), t.TempDir())
	one := open(t, c1)
	l := newLedger(t, one)
	l.step(one, 1)
	synctest.Test(t, func(t *testing.T) {
		two, err := prover.New(c2)
		must(t, err)
		defer two.Close()
		target, err := one.Target(t.Context())
		must(t, err)
		o, err := two.Offer(t.Context(), target)
		must(t, err)
		g, err := one.Give(t.Context(), 2, l.node.Head(), goodRelease(c1, c2), o)
		must(t, err)
		must(t, two.Take(t.Context(), goodRelease(c1, c2), g))
		page, err := one.GivePage(t.Context(), 0)
		must(t, err)
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if err := two.TakePage(t.Context(), 0, page); !errors.Is(err, mpow.ErrAbsent) || !strings.Contains(err.Error(), "timed out") {
			t.Fatalf("after eleven minutes: %v", err)
		}
	})
}

// A hand-over goes from one build that was released to another, to a fresh prover,
// word for word; each thing that is not so refuses it, and the old prover goes on.
func TestHandOverRefuses(t *testing.T) {
	type scene struct {
		c1, c2   prover.Config
		one, two *prover.Prover
		l        *ledger
		r        mpow.Release
	}
	for _, row := range []struct {
		name string
		set  func(t *testing.T, s *scene) // before the provers are opened, if configs change
		do   func(t *testing.T, s *scene) error
		want string // empty: it goes through
	}{
		{"valid", nil, nil, ""},
		{"one signature of two", nil, func(t *testing.T, s *scene) error { s.r.Sigs = s.r.Sigs[:1]; return nil }, "1 good signatures"},
		{"one key twice", nil, func(t *testing.T, s *scene) error { s.r.Sigs[1] = s.r.Sigs[0]; return nil }, "1 good signatures"},
		{"a key nobody knows", nil, func(t *testing.T, s *scene) error {
			s.r = release(s.r.From, s.r.To, 0, 9)
			return nil
		}, "1 good signatures"},
		{"a release of other builds", nil, func(t *testing.T, s *scene) error {
			s.r = release(s.r.To, s.r.From, 0, 1)
			return nil
		}, "the release is from"},
		{"an old one without release keys", func(t *testing.T, s *scene) { s.c1.Releases = prover.Releases{} }, nil, "without release keys"},
		{"a new one without release keys", func(t *testing.T, s *scene) { s.c2.Releases = prover.Releases{} }, nil, "without release keys"},
		{"a host's own build", func(t *testing.T, s *scene) {
			s.c2.Platform = prover.SimulatedBuild(t.TempDir(), "spy")
		}, nil, "the release is from"},
		{"a disk that is not named", func(t *testing.T, s *scene) { s.c2.Take = s.c2.Take[:1] }, nil, "start this one with --take"},
		{"a new one that holds a file", nil, func(t *testing.T, s *scene) error {
			store(t, s.two, tree(t, 9, 1, 100))
			return nil
		}, "holds something already"},
		{"random data made since the report", nil, func(t *testing.T, s *scene) error { return s.one.FillSRD(t.Context(), 2) }, "hand over after the next one"},
		{"another head", nil, func(t *testing.T, s *scene) error { s.l.node.Seq++; return nil }, "not the last that the chain took"},
		{"a damaged index", nil, func(t *testing.T, s *scene) error {
			return os.Truncate(only(t, filepath.Join(s.c1.Dir, "..", "*", "replicas", "*", "index")), 10)
		}, "of the old prover"},
		{"a damaged block", nil, func(t *testing.T, s *scene) error {
			return os.Truncate(only(t, filepath.Join(s.c1.Dir, "..", "*", "replicas", "*", "data")), 500)
		}, "let the old prover report them"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var s scene
			s.c1, s.c2 = builds(t, t.TempDir(), t.TempDir())
			s.r = goodRelease(s.c1, s.c2)
			if row.set != nil {
				row.set(t, &s)
			}
			s.one, s.two = open(t, s.c1), open(t, s.c2)
			s.l = newLedger(t, s.one)
			store(t, s.one, tree(t, 1, 3, 800))
			must(t, s.one.FillSRD(t.Context(), 1))
			s.l.step(s.one, 1)
			honest := s.l.node
			if row.do != nil {
				must(t, row.do(t, &s))
			}
			_, err := carry(t, s.one, s.two, 2, s.l.node.Head(), s.r)
			if err == nil {
				err = s.l.handOver(s.one, s.two, 2)
			}
			if row.want == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			s.l.node = honest
			must(t, s.one.Abandon(t.Context()))
			s.l.step(s.one, 2)
		})
	}
}

// What the host carries cannot be altered, swapped or brought to another prover.
func TestHandOverIsSealed(t *testing.T) {
	ctx := t.Context()
	c1, c2 := builds(t, t.TempDir(), t.TempDir())
	one, two := open(t, c1), open(t, c2)
	l, r := newLedger(t, one), goodRelease(c1, c2)
	for i := range int64(40) { // more than a page
		store(t, one, tree(t, i+1, 1, 64))
	}
	l.step(one, 1)
	target, err := one.Target(ctx)
	must(t, err)
	o, err := two.Offer(ctx, target)
	must(t, err)
	forged := o
	forged.DH = bytes.Repeat([]byte{9}, 32)
	if _, err := one.Give(ctx, 2, l.node.Head(), r, forged); err == nil || !strings.Contains(err.Error(), "another offer") {
		t.Errorf("an offer with the host's key: %v", err)
	}
	forged = o
	forged.Key = releaseKey(5).Public().(ed25519.PublicKey)
	if _, err := one.Give(ctx, 2, l.node.Head(), r, forged); err == nil {
		t.Error("an offer for the host's signing key")
	}
	g, err := one.Give(ctx, 2, l.node.Head(), r, o)
	must(t, err)
	for what, spoil := range map[string]func(g *mpow.Gift){
		"key": func(g *mpow.Gift) { g.Key = o.Key }, "dh": func(g *mpow.Gift) { g.DH = o.DH }, "sum": func(g *mpow.Gift) { g.Sum[0]++ }, "pages": func(g *mpow.Gift) { g.Pages++ },
	} {
		bad := g
		spoil(&bad)
		if err := two.Take(ctx, r, bad); err == nil {
			t.Errorf("a gift with another %s", what)
		}
	}
	must(t, two.Take(ctx, r, g))
	page, err := one.GivePage(ctx, 0)
	must(t, err)
	if bytes.Contains(page, []byte(chainID)) {
		t.Error("pages can be read on the way")
	}
	bad := bytes.Clone(page)
	bad[len(bad)/2] ^= 1
	for what, err := range map[string]error{
		"an altered page": two.TakePage(ctx, 0, bad), "the second first": two.TakePage(ctx, 1, page), "a cut page": two.TakePage(ctx, 0, page[:len(page)-1]),
	} {
		if err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if _, err := one.GivePage(ctx, g.Pages); !errors.Is(err, mpow.ErrAbsent) {
		t.Errorf("a page beyond the last: %v", err)
	}
	c3 := c2
	c3.Dir, c3.Platform = filepath.Join(t.TempDir(), "p"), prover.SimulatedBuild(t.TempDir(), "two")
	three := open(t, c3)
	if _, err := three.Offer(ctx, target); err != nil {
		t.Fatal(err)
	}
	if err := three.Take(ctx, r, g); err == nil || !strings.Contains(err.Error(), "another gift") {
		t.Errorf("another copy of the new build takes what was not for it: %v", err)
	}
	if _, err := one.Word(ctx, releaseKey(5).Public().(ed25519.PublicKey), mpow.Hash{}, 0, l.node.Head()); err == nil {
		t.Error("a word for another key")
	}
	if _, err := one.Word(ctx, o.Key, o.Measurement, 0, mpow.Head{Seq: 44}); !errors.Is(err, mpow.ErrHead) {
		t.Errorf("a word after a report that never was: %v", err)
	}
	for n := range g.Pages {
		page, err := one.GivePage(ctx, n)
		must(t, err)
		must(t, two.TakePage(ctx, n, page))
	}
	must(t, l.handOver(one, two, 2))
}

// Killed or without power at any step, on either side, exactly one of the two can
// go on, and it holds the files (spec §3.9, §3.26).
func TestHandOverSurvivesLossOfPower(t *testing.T) {
	base, keys := t.TempDir(), t.TempDir()
	var d diary
	c1, c2 := builds(t, base, keys)
	c1.Disk, c2.Disk = d.disk, d.disk
	one, two := open(t, c1), open(t, c2)
	l, files := newLedger(t, one), tree(t, 1, 3, 600)
	store(t, one, files)
	l.step(one, 1)
	d.tell("reported")
	begin := len(d.entries)
	o, err := carry(t, one, two, 2, l.node.Head(), goodRelease(c1, c2))
	must(t, err)
	d.tell("taken")
	node := l.node
	must(t, l.handOver(one, two, 2))
	d.tell("word")
	moved := l.node
	l.step(two, 3)
	d.tell("settled")
	if n := len(d.entries) - begin; n < 12 {
		t.Fatalf("a hand-over of %d entries", n)
	}
	for at := begin; at <= len(d.entries); at++ {
		for _, f := range []fate{{name: "killed"}, {name: "nothing unsynced is there", none: true}} {
			t.Run(fmt.Sprintf("%s at %d", f.name, at), func(t *testing.T) {
				disk, told := newPlatter(base), []string{}
				for _, e := range d.entries[:at] {
					if e.told != "" {
						told = append(told, e.told)
					} else {
						disk.do(e.op)
					}
				}
				after := t.TempDir()
				f.lay(t, disk.root, after)
				c1, c2 := builds(t, after, keys)
				one := open(t, c1)
				ctx := t.Context()
				heldBy(t, one, files)
				if slices.Contains(told, "word") {
					if _, err := one.Report(ctx, 9, slotSeed(9), node.Head(), nil); err == nil {
						t.Fatal("the old prover forgot its word")
					}
					must(t, one.Close())
					two := open(t, c2)
					heldBy(t, two, files)
					l := &ledger{t: t, params: params(t), node: moved, held: map[cid.Cid]uint64{files[0].cid: size(files)}, listed: map[cid.Cid]bool{}}
					if slices.Contains(told, "settled") {
						return
					}
					l.step(two, 3)
					return
				}
				// The word may be on disk, and nobody was told of it: it is given again.
				if sig, err := one.Word(ctx, o.Key, o.Measurement, 0, node.Head()); err == nil && len(sig) == 64 {
					return
				}
				must(t, one.Abandon(ctx))
				l := &ledger{t: t, params: params(t), node: node, held: map[cid.Cid]uint64{files[0].cid: size(files)}, listed: map[cid.Cid]bool{}}
				l.step(one, 2)
			})
		}
	}
}
