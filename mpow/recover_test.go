package mpow_test

import (
	"crypto/ed25519"
	"fmt"
	"math/rand"
	"reflect"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

// recovery returns what n's enclave signs in slot s when it holds files.
func recovery(n mpow.Node, s mpow.Slot, files ...mpow.File) mpow.Recovery {
	b := mpow.Recovery{ChainID: testChain, Account: n.Account, Kind: n.Kind, Generation: n.Generation + 1, Slot: s, Seed: seed(s)}
	var sum mpow.LtHash
	for _, f := range files {
		b.FileBytes += f.Size
		sum.AddFile(f)
	}
	b.FilesRoot = sum.Digest()
	return b
}

func page(b mpow.Recovery, number uint64, files ...mpow.File) mpow.PageBody {
	return mpow.PageBody{ChainID: b.ChainID, Account: b.Account, Kind: b.Kind, Generation: b.Generation, FilesRoot: b.FilesRoot, Page: number, Files: files}
}

func signRecovery(t testing.TB, b mpow.Recovery) mpow.Recover {
	r, err := b.Sign(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func signPage(t testing.TB, b mpow.PageBody) mpow.Page {
	p, err := b.Sign(testKey)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The first row is valid; each other breaks one thing (spec §3.10).
func TestRecoverRefusesEachCorruption(t *testing.T) {
	p := params(t)
	base := node(t, p, file("a", 1000))
	base.Group = "an owner"
	for _, row := range []struct {
		name string
		mend func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context)
		want string
	}{
		{"valid", nil, ""},
		{"another chain", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.ChainID = "dev-other" }, "chain"},
		{"another account", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.Account += "x" }, "account"},
		{"another kind", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.Kind = mpow.KindDCAP }, "signature"},
		{"another key", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { n.Key = public(otherKey) }, "signature"},
		{"a bit", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { r.Sig[3] ^= 1 }, "signature"},
		{"the generation of now", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.Generation-- }, "generation 0, the next is 1"},
		{"a generation skipped", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.Generation++ }, "generation 2"},
		{"an old slot", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.Slot-- }, "slot"},
		{"another seed", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.Seed[0]++ }, "seed"},
		{"too many bytes", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { b.FileBytes = 1 << 53 }, "file bytes"},
		{"lapsed", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) {
			n.AttestedUntil = 0
			now.Slot, b.Slot = mpow.Slot(p.GraceSlots)+1, mpow.Slot(p.GraceSlots)+1
			now.Seed, b.Seed = seed(now.Slot), seed(now.Slot)
		}, "lapsed"},
		{"not a recovery", func(b *mpow.Recovery, n *mpow.Node, r *mpow.Recover, now *mpow.Context) { r.Body = r.Body[1:] }, "recover"},
	} {
		n, now := base, at(p, 6)
		b := recovery(n, 6, file("b", 10), file("c", 20))
		var r mpow.Recover
		if row.mend != nil {
			row.mend(&b, &n, &mpow.Recover{Body: []byte{1}, Sig: make([]byte, 64)}, &now)
		}
		r = signRecovery(t, b)
		if row.mend != nil && (row.name == "a bit" || row.name == "not a recovery") {
			row.mend(&b, &n, &r, &now)
		}
		got, err := p.Recover(n, r, now)
		if row.want != "" {
			if err == nil || !strings.Contains(err.Error(), row.want) || !reflect.DeepEqual(got, n) {
				t.Errorf("%s: %v, want %q and the node as it was", row.name, err, row.want)
			}
			continue
		}
		if err != nil || got.Generation != 1 || got.FileBytes != 0 || got.Seq != 0 || got.Last != r.Hash() || got.PunishedUntil != 6+mpow.Slot(p.PunishSlots) ||
			got.Recovering == nil || got.Reports != n.Reports || got.SRDBytes != 0 || got.Group != n.Group {
			t.Errorf("%s: %+v, %v", row.name, got, err)
		}
	}
}

// A punishment that is longer than a new one stands, as when a vote has lowered it
// (spec §3.7, §3.10).
func TestPunishmentsAreNotShortened(t *testing.T) {
	p := params(t)
	n := node(t, p, file("a", 1000))
	n.PunishedUntil = 50
	if got, err := p.Recover(n, signRecovery(t, recovery(n, 6)), at(p, 6)); err != nil || got.PunishedUntil != 50 {
		t.Errorf("a recovery: until %d, %v", got.PunishedUntil, err)
	}
	if got, c, err := p.Accept(n, sign(t, report(n, 9)), at(p, 9)); err != nil || c.Missed != 3 || got.PunishedUntil != 50 {
		t.Errorf("a miss: until %d, %+v, %v", got.PunishedUntil, c, err)
	}
}

// The first row is valid; each other breaks one thing (spec §3.10).
func TestPageRefusesEachCorruption(t *testing.T) {
	p := params(t)
	p.ReportFiles = 2
	a, b, c := file("a", 10), file("b", 20), file("c", 30)
	n := node(t, p, file("old", 1000))
	rec := recovery(n, 6, a, b, c)
	n, err := p.Recover(n, signRecovery(t, rec), at(p, 6))
	if err != nil {
		t.Fatal(err)
	}
	later := at(p, 6)
	later.Height++
	for _, row := range []struct {
		name string
		mend func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context)
		want string
	}{
		{"valid", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) {}, ""},
		{"in the block of the recovery", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { now.Height-- }, "one a block"},
		{"nothing to recover", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { n.Recovering = nil }, "not recovering"},
		{"another key", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { n.Key = public(otherKey) }, "signature"},
		{"another chain", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.ChainID = "dev-x" }, "chain"},
		{"another generation", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Generation++ }, "generation"},
		{"another recovery", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.FilesRoot[0]++ }, "generation"},
		{"a later page", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Page++ }, "the next is 0"},
		{"no files", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Files = nil }, "0 files"},
		{"too many files", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Files = append(x.Files, c) }, "3 files"},
		{"a file twice", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Files[1] = a }, "twice"},
		{"too large a file", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Files[1].Size = p.MaxFileSize + 1 }, "at most"},
		{"more bytes than in all", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) { x.Files[1].Size = 100 }, "the recovery is of 60"},
		{"lapsed", func(x *mpow.PageBody, n *mpow.Node, now *mpow.Context) {
			now.Slot = n.AttestedUntil + mpow.Slot(p.GraceSlots) + 1
		}, "lapsed"},
	} {
		x, m, now := page(rec, 0, a, b), n, later
		row.mend(&x, &m, &now)
		got, files, err := p.Paged(m, signPage(t, x), now)
		if row.want != "" {
			if err == nil || !strings.Contains(err.Error(), row.want) || !reflect.DeepEqual(got, m) {
				t.Errorf("%s: %v, want %q and the node as it was", row.name, err, row.want)
			}
			continue
		}
		if err != nil || got.FileBytes != 30 || got.Power != 30 || len(files) != 2 || got.Recovering == nil || got.Recovering.Pages != 1 {
			t.Errorf("%s: %+v, %v", row.name, got, err)
		}
	}
}

// Any number of files, in pages of any size, ends the recovery with the last and
// not before, and the next report builds on it. A page lost, swapped or said
// twice never does (spec §3.10).
func TestRecoveryComesToItsRoot(t *testing.T) {
	p := params(t)
	p.ReportFiles = 7
	rng := rand.New(rand.NewSource(1))
	for range 40 {
		var files []mpow.File
		for i := range rng.Intn(40) {
			files = append(files, file(fmt.Sprint(i), uint64(rng.Intn(5))))
		}
		n := node(t, p, file("old", 9))
		rec := recovery(n, 6, files...)
		now := at(p, 6)
		n, err := p.Recover(n, signRecovery(t, rec), now)
		if err != nil {
			t.Fatal(err)
		}
		left := files
		for number := uint64(0); len(left) > 0; number++ {
			if n.Recovering == nil && rec.FileBytes > n.FileBytes {
				t.Fatalf("over with %d files to come", len(left))
			}
			if n.Recovering == nil {
				break // files of no bytes and no place in the root do not exist
			}
			if _, _, err := p.Accept(n, sign(t, report(n, 6)), now); err == nil || !strings.Contains(err.Error(), "recovers") {
				t.Fatalf("a report before the end: %v", err)
			}
			now.Height++
			k := 1 + rng.Intn(min(len(left), 7))
			if n, _, err = p.Paged(n, signPage(t, page(rec, number, left[:k]...)), now); err != nil {
				t.Fatal(err)
			}
			left = left[k:]
		}
		if n.Recovering != nil || n.FileBytes != rec.FileBytes || n.FilesRoot != rec.FilesRoot || n.Power != n.FileBytes {
			t.Fatalf("ended at %+v of %+v", n, rec)
		}
		now = at(p, 7)
		next, c, err := p.Accept(n, sign(t, report(n, 7)), now)
		if err != nil || c.Counted || next.Seq != 1 {
			t.Fatalf("the first report: %+v, %v", c, err)
		}
	}
	n := node(t, p)
	rec := recovery(n, 6, file("a", 1), file("b", 1))
	n, err := p.Recover(n, signRecovery(t, rec), at(p, 6))
	if err != nil {
		t.Fatal(err)
	}
	now := at(p, 6)
	for number := range uint64(2) {
		now.Height++
		if n, _, err = p.Paged(n, signPage(t, page(rec, number, file("a", 1))), now); err != nil {
			t.Fatal(err)
		}
	}
	if n.Recovering == nil {
		t.Error("one file said twice stood for two")
	}
}

// handover returns a message by which n goes to otherKey in slot s, as an honest
// pair of enclaves makes it.
func handover(t testing.TB, n mpow.Node, s mpow.Slot) (h mpow.Handover, r mpow.Report) {
	h.Register = register(t, testChain, n.Account, otherKey, 122, seed(70))
	r = report(n, s)
	r.SRDRoot = n.SRDRoot
	h.Sig = ed25519.Sign(testKey, mpow.HandoverBytes(testChain, n.Account, n.Kind, n.Generation, public(otherKey), h.Register.Measurement, n.Head()))
	return h, r
}

// The first row is valid; each other breaks one thing (spec §3.9).
func TestHandoverRefusesEachCorruption(t *testing.T) {
	p := params(t)
	base := node(t, p, file("a", 1000))
	base.PunishedUntil, base.Misses = 3, 1
	type parts struct {
		n      mpow.Node
		h      mpow.Handover
		r      mpow.Report
		key    ed25519.PrivateKey // of the report
		now    mpow.Context
		denied string
	}
	for _, row := range []struct {
		name string
		mend func(x *parts)
		want string
	}{
		{"valid", func(x *parts) {}, ""},
		{"not signed over", func(x *parts) { x.h.Sig = nil }, "not signed over"},
		{"signed over to another key", func(x *parts) {
			x.h.Sig = ed25519.Sign(testKey, mpow.HandoverBytes(testChain, x.n.Account, x.n.Kind, 0, public(testKey), x.h.Register.Measurement, x.n.Head()))
		}, "not signed over"},
		{"signed over by the new one", func(x *parts) {
			x.h.Sig = ed25519.Sign(otherKey, mpow.HandoverBytes(testChain, x.n.Account, x.n.Kind, 0, public(otherKey), x.h.Register.Measurement, x.n.Head()))
		}, "not signed over"},
		{"a word of before the last report", func(x *parts) {
			x.h.Sig = ed25519.Sign(testKey, mpow.HandoverBytes(testChain, x.n.Account, x.n.Kind, 0, public(otherKey), x.h.Register.Measurement, mpow.Head{}))
		}, "not signed over"},
		{"another generation's word", func(x *parts) { x.n.Generation++ }, "not signed over"},
		{"a report by the old one", func(x *parts) { x.key = testKey }, "signature"},
		{"evidence of nothing", func(x *parts) { x.h.Register.Evidence = nil }, "bind"},
		{"another kind", func(x *parts) { x.h.Register.Kind = mpow.KindDCAP }, "from simulated to sgx"},
		{"the key that it has", func(x *parts) { x.h.Register.Key = public(testKey) }, "the old one"},
		{"another account's key", func(x *parts) { x.now.KeyOwner = "b" }, "belongs"},
		{"old evidence", func(x *parts) { x.h.Register.Height -= 20 }, "height"},
		{"a broken build's word", func(x *parts) { x.denied = "measurement 07" }, "denied"},
		{"lapsed", func(x *parts) {
			x.n.AttestedUntil, x.now.Slot = 0, mpow.Slot(p.GraceSlots)+1
		}, "lapsed"},
		{"while it recovers", func(x *parts) { x.n.Recovering = &mpow.Recovering{} }, "recovering"},
		{"another files root", func(x *parts) {
			f := file("b", 5)
			x.r.Added = []mpow.File{f}
			x.r = settle(x.n, x.r)
		}, "changes files"},
		{"a listing", func(x *parts) { x.r.Listed = []mpow.File{file("a", 1000)} }, "changes files"},
		{"more random data", func(x *parts) { x.r.SRDBytes += p.SRDUnit }, "roots"},
		{"other random data", func(x *parts) { x.r.SRDRoot[0]++ }, "roots"},
		{"a slot that has its report", func(x *parts) { x.n.LastSlot = 6 }, "hand over in the next"},
		{"on top of another report", func(x *parts) { x.r.Prev[0]++ }, "builds on"},
	} {
		x := parts{n: base, key: otherKey, now: at(p, 6)}
		x.now.Hash = seed(70)
		x.h, x.r = handover(t, base, 6)
		row.mend(&x)
		signed, err := x.r.Sign(x.key)
		if err != nil {
			t.Fatal(err)
		}
		x.h.Report = signed
		got, c, err := p.HandOver(x.n, x.h, x.now, x.denied)
		if row.want != "" {
			if err == nil || !strings.Contains(err.Error(), row.want) || !reflect.DeepEqual(got, x.n) {
				t.Errorf("%s: %v, want %q and the node as it was", row.name, err, row.want)
			}
			continue
		}
		if err != nil || string(got.Key) != string(public(otherKey)) || got.Generation != 0 || got.Seq != 2 || got.FileBytes != 1000 || got.LastSlot != 6 ||
			got.AttestedUntil != 6+mpow.Slot(p.AttestationSlots) || got.Misses != 1 || got.PunishedUntil != 3 || !c.Counted {
			t.Errorf("%s: %+v, %+v, %v", row.name, got, c, err)
		}
	}
}

// Decoders take one encoding of each thing, and nothing panics on any other.
func FuzzRecover(f *testing.F) {
	n := mpow.Node{Account: testAccount, Key: public(testKey), Kind: mpow.KindSimulated, AttestedUntil: 100}
	r := signRecovery(f, recovery(n, 6, file("a", 1)))
	pg := signPage(f, page(recovery(n, 6, file("a", 1)), 0, file("a", 1)))
	f.Add(r.Body, r.Sig)
	f.Add(pg.Body, pg.Sig)
	f.Fuzz(func(t *testing.T, body, sig []byte) {
		p, now := params(t), at(params(t), 6)
		if b, err := (mpow.Recover{Body: body}).Recovery(); err == nil {
			if again, err := mpow.Encode(b); err != nil || string(again) != string(body) {
				t.Fatalf("%x encodes again as %x, %v", body, again, err)
			}
		}
		if b, err := (mpow.Page{Body: body}).Page(); err == nil {
			if again, err := mpow.Encode(b); err != nil || string(again) != string(body) {
				t.Fatalf("%x encodes again as %x, %v", body, again, err)
			}
		}
		next, err := p.Recover(n, mpow.Recover{Body: body, Sig: sig}, now)
		if err == nil && string(body) != string(r.Body) && next.Generation != 1 {
			t.Fatal("a recovery of another generation")
		}
		m := n
		m.Recovering = &mpow.Recovering{}
		_, _, _ = p.Paged(m, mpow.Page{Body: body, Sig: sig}, now)
		_, _, _ = p.HandOver(n, mpow.Handover{Report: mpow.Signed{Body: body, Sig: sig}, Sig: sig}, now, "")
	})
}
